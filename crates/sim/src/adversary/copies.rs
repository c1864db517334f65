//! Miners that submit other people's work: a rival's update of the cycle before, treated or not, or the
//! network's own momentum. They do not train, but for who copies some experts and
//! trains the others; two measure what there is to steal and take the best of it.

use connito_learning::shard::Shard;
use connito_protocol::announcement::Announcement;
use connito_protocol::ids::{BlobId, Cycle, Seed, StateId};
use connito_protocol::job::{Job, Outcome};
use connito_protocol::manifest::{Document, StateManifest};
use connito_protocol::schedule::Window;

use super::crew::measured;
use super::{Policy, Scene};

/// What is done to a stolen update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Nothing.
    None,
    /// A tenth of noise is added, and the sum scaled and turned around.
    Noise,
    /// Noise as long as the update itself is added, in which a sketch does not see it any more.
    Fog,
    /// Every fourth value has its sign turned around.
    Flip,
    /// Every other tensor is its own.
    Part,
    /// Two of them are averaged.
    Blend,
    /// Nothing, and it is the best of those that did not get into the state.
    Scavenge,
}

/// Submits what rivals of its group revealed the cycle before.
#[derive(Debug)]
pub(crate) struct Echo {
    treatment: Treatment,
    loot: (Cycle, Vec<BlobId>),
    base: Option<StateId>,
}

/// Noise in a treated copy, in multiples of the update's mean absolute value.
const NOISE: f32 = 0.1;

/// A draw of text of one's own, for want of the one that will count.
pub(super) const OWN_DRAW: Seed = Seed([7; 32]);

/// One in so many values of a copy has its sign turned around.
const FLIPPED: usize = 4;

impl Echo {
    pub(crate) fn new(treatment: Treatment) -> Self {
        Self {
            treatment,
            loot: (Cycle(0), Vec::new()),
            base: None,
        }
    }

    /// Of these updates the one that gains most on the state of the day, measured on text of its own draw:
    /// that costs less than training. Nothing if none of them gains.
    fn best(&self, of: &[BlobId], scene: &mut Scene<'_>) -> Option<BlobId> {
        let gains = measured((self.base?, scene.cycle()), of, OWN_DRAW, scene);
        let pairs = of.iter().zip(gains).filter(|(_, gain)| *gain > 0.0);
        pairs
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(update, _)| *update)
    }

    /// Of what it could steal, what is not in the state, and so not remembered for having been accepted.
    fn left_over(&self, mut loot: Vec<BlobId>, scene: &Scene<'_>) -> Option<Vec<BlobId>> {
        let manifest = scene.workshop.bytes(self.base?.manifest_blob())?;
        let manifest = StateManifest::from_bytes(&manifest).ok()?;
        let is_merged = |update: &BlobId| manifest.merged.iter().any(|m| m.update == *update);
        loot.retain(|update| !is_merged(update));
        Some(loot)
    }

    /// Which one it steals. What was opened and never sent to a server is out of its reach.
    fn choose(&self, scene: &mut Scene<'_>) -> Option<BlobId> {
        let mut loot = self.loot.1.clone();
        loot.retain(|update| (scene.is_public)(*update));
        match self.treatment {
            Treatment::Fog => self.best(&loot, scene),
            Treatment::Scavenge => self.best(&self.left_over(loot, scene)?, scene),
            Treatment::None
            | Treatment::Noise
            | Treatment::Flip
            | Treatment::Part
            | Treatment::Blend => loot.get(scene.random.place(loot.len())).copied(),
        }
    }

    /// What it submits instead of `own`, what it trained or could have trained.
    fn steal(&self, own: BlobId, scene: &mut Scene<'_>) -> Option<BlobId> {
        let (group, first) = (scene.group(), self.choose(scene)?);
        match self.treatment {
            Treatment::None | Treatment::Scavenge => Some(first),
            Treatment::Fog => {
                let update = scene.workshop.read(group, first)?;
                let fog = fog(&update, scene);
                scene.workshop.write(group, &update.plus(&fog))
            }
            Treatment::Noise => {
                let mut update = scene.workshop.read(group, first)?;
                add_noise(&mut update, NOISE, scene);
                scale(&mut update, -0.5);
                scene.workshop.write(scene.group(), &update)
            }
            Treatment::Flip => {
                let mut update = scene.workshop.read(group, first)?;
                let values = update.0.values_mut().flat_map(|tensor| &mut tensor.values);
                values.step_by(FLIPPED).for_each(|value| *value = -*value);
                scene.workshop.write(group, &update)
            }
            Treatment::Part => {
                let mut update = scene.workshop.read(group, own)?;
                let copied = scene.workshop.read(group, first)?;
                update.0.extend(copied.0.into_iter().step_by(2));
                scene.workshop.write(group, &update)
            }
            Treatment::Blend => {
                let second = self.choose(scene)?;
                let mut sum = scene.workshop.read(group, first)?;
                scale(&mut sum, 0.5);
                let mut other = scene.workshop.read(group, second)?;
                scale(&mut other, 0.5);
                scene.workshop.write(group, &sum.plus(&other))
            }
        }
    }
}

impl Policy for Echo {
    fn job(&mut self, job: Job, _scene: &mut Scene<'_>) -> Job {
        if let Job::Train(job) = &job {
            self.base = Some(job.state);
        }
        job
    }

    fn outcome(&mut self, mut outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        let Outcome::Trained(trained) = &mut outcome else {
            return outcome;
        };
        let stolen = self.steal(trained.update, scene);
        if self.treatment == Treatment::Part {
            // It really trained, and has its own update to fall back on.
            trained.update = stolen.unwrap_or(trained.update);
            return outcome;
        }
        untrained(outcome, stolen, scene)
    }

    fn on_block(&mut self, scene: &mut Scene<'_>) -> Vec<connito_protocol::event::Effect> {
        let (Some(now), Some(moment)) = (scene.now, scene.moment()) else {
            return Vec::new();
        };
        if (moment.window, moment.closes_window) == (Window::Reveal, true) {
            let own = scene.group();
            let revealed = now
                .announcements()
                .filter_map(|(hotkey, _, said)| match said {
                    Announcement::Revealed {
                        cycle,
                        group,
                        update,
                        ..
                    } if (cycle, group) == (moment.cycle, own) && hotkey != scene.me => {
                        Some(update)
                    }
                    _ => None,
                });
            self.loot = (moment.cycle, revealed.collect());
        }
        Vec::new()
    }
}

/// Submits the momentum of its group, as long as updates usually are.
#[derive(Debug, Default)]
pub(crate) struct MomentumRider {
    base: Option<StateId>,
}

impl MomentumRider {
    fn momentum(&self, scene: &mut Scene<'_>) -> Option<BlobId> {
        let manifest = scene.workshop.bytes(self.base?.manifest_blob())?;
        let manifest = StateManifest::from_bytes(&manifest).ok()?;
        let group = scene.group();
        let state = manifest.groups.iter().find(|state| state.group == group)?;
        let mut update = scene.workshop.read(group, state.momentum?)?;
        #[expect(clippy::cast_possible_truncation, reason = "updates are f32")]
        let factor = (state.reference_norm? / update.norm().max(f64::MIN_POSITIVE)) as f32;
        scale(&mut update, factor);
        scene.workshop.write(scene.group(), &update)
    }
}

impl Policy for MomentumRider {
    fn job(&mut self, job: Job, _scene: &mut Scene<'_>) -> Job {
        if let Job::Train(job) = &job {
            self.base = Some(job.state);
        }
        job
    }

    fn outcome(&mut self, outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        let momentum = self.momentum(scene);
        untrained(outcome, momentum, scene)
    }
}

/// What came of training, by somebody who never trained: other work in its place, or where there is
/// none to take, a thousandth of noise.
pub(super) fn untrained(
    mut outcome: Outcome,
    instead: Option<BlobId>,
    scene: &mut Scene<'_>,
) -> Outcome {
    if let Outcome::Trained(trained) = &mut outcome {
        let update = instead.or_else(|| noise(trained.update, 1e-3, scene));
        (trained.update, trained.steps) = (update.unwrap_or(trained.update), 0);
    }
    outcome
}

/// Noise alone, of this size in multiples of an update's values.
pub(super) fn noise(update: BlobId, size: f32, scene: &mut Scene<'_>) -> Option<BlobId> {
    let update = scene.workshop.read(scene.group(), update)?;
    let mut noisy = update.clone();
    add_noise(&mut noisy, size, scene);
    let noise = noisy.difference(&update);
    scene.workshop.write(scene.group(), &noise)
}

/// Noise alone, as long as an update.
fn fog(update: &Shard, scene: &mut Scene<'_>) -> Shard {
    let mut noisy = update.clone();
    add_noise(&mut noisy, 1.0, scene);
    let mut noise = noisy.difference(update);
    #[expect(clippy::cast_possible_truncation, reason = "updates are f32")]
    let factor = (update.norm() / noise.norm().max(f64::MIN_POSITIVE)) as f32;
    scale(&mut noise, factor);
    noise
}

/// Multiplies every value.
pub(super) fn scale(update: &mut Shard, factor: f32) {
    let values = update.0.values_mut().flat_map(|tensor| &mut tensor.values);
    values.for_each(|value| *value *= factor);
}

/// Adds noise of this size, in multiples of the mean absolute value.
pub(super) fn add_noise(update: &mut Shard, size: f32, scene: &mut Scene<'_>) {
    let values = || update.0.values().flat_map(|tensor| &tensor.values);
    let sum: f32 = values().map(|value| value.abs()).sum();
    let mean = sum / values().count().max(1) as f32;
    for value in update.0.values_mut().flat_map(|tensor| &mut tensor.values) {
        #[expect(clippy::cast_possible_truncation, reason = "updates are f32")]
        let noise = scene.random.normal() as f32;
        *value += noise * mean * size;
    }
}
