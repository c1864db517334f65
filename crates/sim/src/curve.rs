//! A learner without tensors for thousands of miners: a group is a point, its text a target that moves.
//!
//! ```text
//! loss of sequence s in cycle c   ½ |θ − τ(c) − ξₛ|² + L₀        ξₛ by the sequence's number
//! an update of k steps            (1 − (1 − r)ᵏ) (τ(c) − θ) + noise of the hotkey
//! ```
//!
//! Targets move a little in every cycle, so that there is always something left to learn, as with real
//! text. Everything else follows the rules with real numbers: utilities and standard errors from losses
//! by sequence (P-21), copies by their cosine (P-24), norms (P-24), clip, weights and outer step (P-30,
//! P-31), the gate (P-32). A measurement takes a microsecond instead of a model's forward pass.

use std::collections::BTreeMap;
use std::sync::Arc;

use connito_learning::learner::Learner;
use connito_learning::store::{BlobStore, MemoryStore};
use connito_protocol::ids::{BlobId, Block, Cycle, GroupId, Seed, StateId};
use connito_protocol::job::{
    AdvanceJob, Advanced, Candidate, Finding, Job, MergeJob, Merged, Original, Outcome, ScoreJob,
    TrainJob, Trained, Weighted,
};
use connito_protocol::manifest::{Document, GroupState, MergedUpdate, StateManifest, TaskManifest};
use connito_protocol::reason::ReasonCode;
use connito_protocol::scoring::{SequenceLoss, Unmeasured, mean_loss, utility};

use crate::names::NameMap;
use crate::random::Random;

/// Numbers in a group: enough that two honest updates are never nearly parallel by chance.
pub(crate) const WIDTH: usize = 32;

type Point = [f32; WIDTH];

/// Tells these bytes from anything else.
const MAGIC: [u8; 4] = *b"crv1";

/// Share of the way to the target that one optimiser step goes.
const RATE: f64 = 0.002;

/// Noise of an update, in multiples of its length.
const NOISE: f64 = 1.0;

/// How far the target moves in a cycle, and how far from the first state it begins.
const DRIFT: f64 = 0.25;

/// Spread of single sequences around the target.
const SPREAD: f64 = 0.3;

/// Loss that no training removes, in nats a token.
const FLOOR: f64 = 2.0;

/// Tokens of a sequence.
const TOKENS: u64 = 100;

/// Sequences in a pool.
const POOL: u64 = 10_000;

/// Learns, measures and merges points.
pub(crate) struct CurveLearner {
    store: Arc<MemoryStore>,
    manifest: TaskManifest,
    /// The state that was loaded last.
    state: Option<(StateId, Vec<GroupState>)>,
    /// Points that have been read; forgotten when there are too many.
    points: NameMap<BlobId, Option<(GroupId, Point)>>,
}

/// Sums of a product that are taken side by side; a point is a whole number of them wide.
const LANES: usize = 8;

/// Points kept: more than two cycles of the largest scenario have.
const MOST_POINTS: usize = 100_000;

/// An update that has been read, with what it is compared by.
struct Read {
    group: GroupId,
    name: Original,
    point: Point,
    norm: f64,
}

impl CurveLearner {
    pub(crate) fn new(store: Arc<MemoryStore>, manifest: &TaskManifest) -> Self {
        Self {
            store,
            manifest: manifest.clone(),
            state: None,
            points: NameMap::default(),
        }
    }

    fn load(&mut self, state: StateId) -> Option<Vec<GroupState>> {
        if let Some((loaded, groups)) = &self.state
            && *loaded == state
        {
            return Some(groups.clone());
        }
        let bytes = self.store.read(state.manifest_blob()).ok()?;
        let groups = StateManifest::from_bytes(&bytes).ok()?.groups;
        self.state = Some((state, groups.clone()));
        Some(groups)
    }

    fn read(&mut self, blob: BlobId) -> Option<(GroupId, Point)> {
        if self.points.len() > MOST_POINTS {
            self.points.clear();
        }
        let store = &self.store;
        let read = || decode(&store.read(blob).ok()?);
        *self.points.entry(blob).or_insert_with(read)
    }

    /// A group's point; the first state's shards are no points and stand for the origin.
    fn place(&mut self, groups: &[GroupState], group: GroupId) -> Point {
        let state = groups.iter().find(|state| state.group == group);
        let read = state.and_then(|state| self.read(state.shard));
        read.map_or([0.0; WIDTH], |(_, point)| point)
    }

    fn train(&mut self, job: &TrainJob, head: &dyn Fn() -> Block) -> Option<Outcome> {
        let groups = self.load(job.state)?;
        let mut steps = 0;
        while steps < self.manifest.rules.inner.steps && head() < job.stop_at {
            steps += 1;
        }
        if steps == 0 {
            return None;
        }
        let from = self.place(&groups, job.group);
        let target = target(job.group, job.cycle);
        let part = 1.0 - (0..steps).fold(1.0, |left, _| left * (1.0 - RATE));
        let way: Vec<f64> = target
            .iter()
            .zip(from)
            .map(|(t, f)| part * (t - f64::from(f)))
            .collect();
        let length = way.iter().map(|x| x * x).sum::<f64>().sqrt();
        let each = NOISE * length / (WIDTH as f64).sqrt();
        let mut random = Random::of(&job.seed.0);
        let mut update = [0.0; WIDTH];
        for (value, way) in update.iter_mut().zip(&way) {
            *value = single(way + each * random.normal());
        }
        let blob = self.write(job.group, &update)?;
        let loss = |point: &Point| FLOOR + 0.5 * distance(point, &target);
        Some(Outcome::Trained(Trained {
            cycle: job.cycle,
            update: blob,
            bytes: encode(job.group, &update).len() as u64,
            experts: 1,
            steps,
            tokens: u64::from(steps) * TOKENS,
            loss_first: loss(&from),
            loss_last: loss(&sum(&from, &update)),
            residual: None,
            residual_dropped: None,
        }))
    }

    fn write(&mut self, group: GroupId, point: &Point) -> Option<BlobId> {
        let blob = self.store.write(&encode(group, point)).ok()?;
        self.points.insert(blob, Some((group, *point)));
        Some(blob)
    }

    fn score(&mut self, job: &ScoreJob, head: &dyn Fn() -> Block) -> Option<Outcome> {
        let groups = self.load(job.state)?;
        let mut originals = self.momenta(&groups);
        for candidate in &job.remembered {
            if let Ok(read) = self.examine(candidate) {
                originals.entry(read.group).or_default().push(read);
            }
        }
        let mut measured = BTreeMap::new();
        let mut findings = Vec::with_capacity(job.updates.len());
        for candidate in &job.updates {
            if head() >= job.stop_at {
                let code = ReasonCode::Unscored;
                findings.push(Finding::Refused { code });
                continue;
            }
            let base = self.place(&groups, candidate.group);
            let measuring = measured.entry(candidate.group).or_insert_with(|| {
                let count = u64::from(self.manifest.rules.scoring.sequences);
                let draw = Draw::new((candidate.group, job.cycle), &job.seed, count);
                Measuring {
                    before: draw.losses(&base),
                    draw,
                    base,
                }
            });
            let reference = groups.iter().find(|state| state.group == candidate.group);
            let reference = reference.and_then(|state| state.reference_norm);
            let known = originals.entry(candidate.group).or_default();
            findings.push(match self.examine(candidate) {
                Err(code) => Finding::Refused { code },
                Ok(read) => match self.refuse(&read, reference, known) {
                    Some(finding) => finding,
                    None => {
                        let finding = measuring.measure(&read.point)?;
                        known.push(read);
                        finding
                    }
                },
            });
        }
        Some(Outcome::Scored {
            cycle: job.cycle,
            findings,
        })
    }

    /// The momenta, which are public and so the first originals.
    fn momenta(&mut self, groups: &[GroupState]) -> BTreeMap<GroupId, Vec<Read>> {
        let mut momenta = BTreeMap::new();
        for state in groups {
            let momentum = state.momentum.and_then(|momentum| self.read(momentum));
            if let Some((group, point)) = momentum {
                let read = Read {
                    group,
                    name: Original::Momentum,
                    norm: product(&point, &point).sqrt(),
                    point,
                };
                momenta.insert(state.group, vec![read]);
            }
        }
        momenta
    }

    fn examine(&mut self, candidate: &Candidate) -> Result<Read, ReasonCode> {
        let (group, point) = self.read(candidate.update).ok_or(ReasonCode::Malformed)?;
        if group != candidate.group {
            return Err(ReasonCode::UnexpectedTensor);
        }
        if point.iter().any(|value| !value.is_finite()) {
            return Err(ReasonCode::NonFiniteUpdate);
        }
        Ok(Read {
            group,
            name: Original::Update {
                hotkey: candidate.hotkey,
                update: candidate.update,
            },
            norm: product(&point, &point).sqrt(),
            point,
        })
    }

    fn refuse(&self, read: &Read, reference: Option<f64>, known: &[Read]) -> Option<Finding> {
        let rules = &self.manifest.rules.scoring;
        if reference.is_some_and(|reference| read.norm > rules.norm_bound * reference) {
            let code = ReasonCode::NormExceeded;
            return Some(Finding::Refused { code });
        }
        let resembles = |other: &&Read| {
            let bound = rules.duplicate_cosine * other.norm * read.norm;
            bytes_of(other.name) == bytes_of(read.name)
                || (bound > 0.0 && product(&other.point, &read.point).abs() >= bound)
        };
        let original = known.iter().find(resembles);
        original.map(|original| Finding::Copy { of: original.name })
    }

    fn merge(&mut self, job: &MergeJob) -> Option<Outcome> {
        let groups = self.load(job.state)?;
        let (mut candidate, mut fallback) = (Vec::new(), Vec::new());
        for group in &groups {
            let own: Vec<&Weighted> = job
                .accepted
                .iter()
                .filter(|weighted| weighted.group == group.group)
                .collect();
            let (after, kept) = match own.is_empty() {
                true => (group.clone(), group.clone()),
                false => self.step(group, &own)?,
            };
            candidate.push(after);
            fallback.push(kept);
        }
        let mut update_bytes = Vec::with_capacity(job.accepted.len());
        for accepted in &job.accepted {
            let (group, point) = self.read(accepted.update)?;
            update_bytes.push(encode(group, &point).len() as u64);
        }
        let count = self.manifest.rules.scoring.gate_sequences;
        let mut loss = |states: &[GroupState]| {
            let mut losses = Vec::new();
            for state in states {
                let place = self.place(states, state.group);
                let draw = Draw::own((state.group, job.cycle), &job.seed, u64::from(count));
                losses.extend(draw.losses(&place));
            }
            mean_loss(&losses)
        };
        Some(Outcome::Merged(Merged {
            cycle: job.cycle,
            incumbent_loss: loss(&groups)?,
            candidate_loss: loss(&candidate),
            candidate,
            fallback,
            update_bytes,
        }))
    }

    /// P-37: the step that was decided, taken once more.
    fn advance(&mut self, job: &AdvanceJob) -> Option<Outcome> {
        let before = self.load(job.from)?;
        let to = self.store.read(job.to.manifest_blob()).ok()?;
        let to = StateManifest::from_bytes(&to).ok()?;
        let (mut groups, mut absent) = (Vec::new(), Vec::new());
        for (old, new) in before
            .iter()
            .zip(&to.groups)
            .filter(|(old, new)| old != new)
        {
            let of_group = |merged: &&MergedUpdate| merged.group == old.group;
            let own = to.merged.iter().filter(of_group).map(|merged| Weighted {
                group: merged.group,
                update: merged.update,
                weight: merged.weight,
            });
            let own: Vec<Weighted> = own.collect();
            let computed = match own.is_empty() {
                true => self.damped(old),
                false => self
                    .step(old, &own.iter().collect::<Vec<_>>())
                    .map(|both| both.0),
            };
            match computed {
                Some(computed) if computed == *new => groups.push(computed),
                _ => absent.push(new.group),
            }
        }
        Some(Outcome::Advanced(Advanced {
            cycle: job.cycle,
            to: job.to,
            groups,
            absent,
        }))
    }

    /// What stays of a group that had a step refused: its momentum, halved.
    fn damped(&mut self, group: &GroupState) -> Option<GroupState> {
        let momentum = match group.momentum {
            Some(momentum) => {
                let (_, momentum) = self.read(momentum)?;
                Some(self.write(group.group, &momentum.map(|value| value * 0.5))?)
            }
            None => None,
        };
        Some(GroupState {
            momentum,
            ..group.clone()
        })
    }

    /// P-30 and P-31 on one tensor.
    fn step(&mut self, group: &GroupState, own: &[&Weighted]) -> Option<(GroupState, GroupState)> {
        let mut updates = Vec::new();
        for weighted in own {
            let (_, point) = self.read(weighted.update)?;
            updates.push((point, weighted.weight, product(&point, &point).sqrt()));
        }
        let total: f64 = updates.iter().map(|(_, weight, _)| weight).sum();
        let median = lower_median(&updates, total);
        let mut mean = [0.0_f32; WIDTH];
        for (point, weight, norm) in &updates {
            let clip = if *norm > median { median / norm } else { 1.0 };
            let factor = single(weight / total * clip);
            mean.iter_mut()
                .zip(point)
                .for_each(|(sum, value)| *sum += factor * value);
        }
        let rules = self.manifest.rules.outer;
        let mut place = self.place(std::slice::from_ref(group), group.group);
        let momentum = group.momentum.and_then(|momentum| self.read(momentum));
        let mut momentum = momentum.map_or([0.0; WIDTH], |(_, point)| point);
        for ((phi, v), g) in place.iter_mut().zip(&mut momentum).zip(mean) {
            *v = rules.momentum * *v + g;
            *phi += rules.learning_rate * (rules.momentum * *v + g);
        }
        let candidate = GroupState {
            group: group.group,
            shard: self.write(group.group, &place)?,
            bytes: encode(group.group, &place).len() as u64,
            momentum: Some(self.write(group.group, &momentum)?),
            reference_norm: Some(median),
        };
        Some((candidate, self.damped(group)?))
    }
}

impl Learner for CurveLearner {
    fn run(&mut self, job: &Job, head: &dyn Fn() -> Block) -> Outcome {
        let outcome = match job {
            Job::Train(job) => self.train(job, head),
            Job::Score(job) => self.score(job, head),
            Job::Merge(job) => self.merge(job),
            Job::Advance(job) => self.advance(job),
        };
        outcome.unwrap_or_else(|| Outcome::Failed {
            cycle: job.cycle(),
            cause: "an input of the job is not here, or there was no time".to_owned(),
        })
    }
}

/// Sequences drawn for a group: offsets from the target, and how many more belong to other domains.
struct Draw {
    target: [f64; WIDTH],
    offsets: Vec<[f64; WIDTH]>,
    /// Sequences of other domains: an update of this group does not change their loss.
    others: usize,
}

impl Draw {
    /// Half of its own domain, half of all others (P-21).
    fn new(of: (GroupId, Cycle), seed: &Seed, count: u64) -> Self {
        let mut draw = Self::own(of, seed, count.div_ceil(2).max(2));
        draw.others = usize::try_from(count / 2).unwrap_or(0);
        draw
    }

    fn own((group, cycle): (GroupId, Cycle), seed: &Seed, count: u64) -> Self {
        let mut random = Random::of(&[&seed.0[..], &group.0.to_le_bytes()].concat());
        let offsets = (0..count).map(|_| {
            let sequence = random.below(POOL);
            let label = [&sequence.to_le_bytes()[..], &group.0.to_le_bytes()].concat();
            let mut own = Random::of(&label);
            [0.0; WIDTH].map(|_| SPREAD * own.normal())
        });
        Self {
            target: target(group, cycle),
            offsets: offsets.collect(),
            others: 0,
        }
    }

    fn losses(&self, place: &Point) -> Vec<SequenceLoss> {
        let own = self.offsets.iter().map(|offset| {
            let squares = place.iter().zip(&self.target).zip(offset);
            let squares = squares.map(|((p, t), o)| (f64::from(*p) - t - o).powi(2));
            FLOOR + 0.5 * squares.sum::<f64>()
        });
        let others = std::iter::repeat_n(FLOOR, self.others);
        let loss = |mean: f64| SequenceLoss {
            sum: mean * TOKENS as f64,
            tokens: TOKENS,
        };
        own.chain(others).map(loss).collect()
    }
}

/// Where a group stands, and what its sequences lose there.
struct Measuring {
    draw: Draw,
    base: Point,
    before: Vec<SequenceLoss>,
}

impl Measuring {
    fn measure(&self, update: &Point) -> Option<Finding> {
        let after = self.draw.losses(&sum(&self.base, update));
        match utility(&self.before, &after) {
            Ok(measurement) => Some(Finding::Measured {
                measurement,
                loss_before: mean_loss(&self.before)?,
                loss_after: mean_loss(&after)?,
            }),
            Err(Unmeasured::NonFiniteLoss) => Some(Finding::Refused {
                code: ReasonCode::NonFiniteLoss,
            }),
            Err(Unmeasured::NoBaseline) => None,
        }
    }
}

/// Where a group's text is in a cycle: on a line of its own, a little further every time.
fn target(group: GroupId, cycle: Cycle) -> [f64; WIDTH] {
    let mut random = Random::of(&[b"target".as_slice(), &group.0.to_le_bytes()].concat());
    let direction = [0.0; WIDTH].map(|_: f64| random.normal());
    let length = direction.iter().map(|x| x * x).sum::<f64>().sqrt();
    let far = 2.0 + DRIFT * cycle.0 as f64;
    direction.map(|x| x / length * far)
}

fn bytes_of(name: Original) -> Option<BlobId> {
    match name {
        Original::Update { update, .. } => Some(update),
        Original::Momentum => None,
    }
}

fn sum(a: &Point, b: &Point) -> Point {
    let mut sum = *a;
    sum.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    sum
}

fn distance(place: &Point, target: &[f64; WIDTH]) -> f64 {
    place
        .iter()
        .zip(target)
        .map(|(p, t)| (f64::from(*p) - t).powi(2))
        .sum()
}

/// Every update is held against every other one: eight sums side by side, added up in pairs, take a
/// processor an eighth of the time of one, and are the same on each.
fn product(a: &Point, b: &Point) -> f64 {
    let (a, _) = a.as_chunks::<LANES>();
    let (b, _) = b.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let [s0, s1, s2, s3, s4, s5, s6, s7] = sums;
    f64::from(((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7)))
}

/// The smallest norm such that it and all smaller ones hold at least half of the weight.
fn lower_median(updates: &[(Point, f64, f64)], total: f64) -> f64 {
    let mut norms: Vec<(f64, f64)> = updates.iter().map(|(_, w, norm)| (*norm, *w)).collect();
    norms.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut below = 0.0;
    let median = norms.iter().find(|(_, weight)| {
        below += weight;
        below * 2.0 >= total
    });
    median.map_or(0.0, |(norm, _)| *norm)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "points are f32, as models are"
)]
fn single(value: f64) -> f32 {
    value as f32
}

/// The bytes of a point.
pub(crate) fn encode(group: GroupId, point: &[f32]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&group.0.to_le_bytes());
    point
        .iter()
        .for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    bytes
}

/// The point that these bytes are, if they are one.
pub(crate) fn decode(bytes: &[u8]) -> Option<(GroupId, Point)> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (group, values) = rest.split_first_chunk::<2>()?;
    let (values, tail) = values.as_chunks::<4>();
    if values.len() != WIDTH || !tail.is_empty() {
        return None;
    }
    let mut point = [0.0; WIDTH];
    for (value, bytes) in point.iter_mut().zip(values) {
        *value = f32::from_le_bytes(*bytes);
    }
    Some((GroupId(u16::from_le_bytes(*group)), point))
}

#[cfg(test)]
mod tests;
