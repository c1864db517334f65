//! A validator's job: say of every update of a cycle whether it is a copy, and what it is worth
//! (P-20 to P-24).
//!
//! Updates come in the order in which they were sealed, each in the order of cost: bytes, norm, copies,
//! losses. One update is in memory at a time; of those before it there are sketches. What of this needs
//! one update alone is in `scorer.rs`, likeness in `copies.rs`; this file reads blobs and keeps the
//! backend in order.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use connito_protocol::ids::{BlobId, Block, GroupId, Seed, StateId};
use connito_protocol::job::{Candidate, Finding, Original, Outcome, ScoreJob};
use connito_protocol::reason::ReasonCode;
use connito_protocol::rules::Codec;
use connito_protocol::scoring::{SequenceLoss, Unmeasured};

use super::{JobError, StateLearner};
use crate::backend::Backend;
use crate::copies::{Compared, Originals};
use crate::scorer::{self, Evaluation, PoolShare};
use crate::shard::Shard;
use crate::sketch::{Sampler, Sketch};
use crate::store::BlobStore;
use crate::update;
use crate::wire::{self, Rejection};

/// What a job knows after the updates before.
struct Scoring<'a> {
    seed: &'a Seed,
    /// Bytes of the longest shard, and so of the longest update (P-19).
    longest: u64,
    originals: Originals,
    samplers: BTreeMap<GroupId, Sampler>,
    evaluations: BTreeMap<GroupId, Evaluation>,
}

/// An update that has passed everything but its measurement.
struct Examined {
    update: Shard,
    compared: Compared,
}

impl<S: BlobStore, B: Backend> StateLearner<S, B> {
    pub(super) fn score(
        &mut self,
        job: &ScoreJob,
        head: &dyn Fn() -> Block,
    ) -> Result<Outcome, JobError> {
        self.load(job.task, job.state, None)?;
        let mut scoring = self.begin_scoring(job)?;
        let mut findings = Vec::new();
        for candidate in &job.updates {
            if head() >= job.stop_at {
                // Too slow for this one; what has been measured is worth reporting.
                findings.push(Finding::Refused {
                    code: ReasonCode::Unscored,
                });
                continue;
            }
            findings.push(match self.examine(candidate, &mut scoring)? {
                Err(finding) => finding,
                Ok(examined) => self.measure(candidate, examined, &mut scoring)?,
            });
        }
        Ok(Outcome::Scored {
            cycle: job.cycle,
            findings,
        })
    }

    /// Sketches what was there before the cycle: the momentum of the groups that have updates, and the
    /// updates that are remembered of the last cycles.
    fn begin_scoring<'a>(&self, job: &'a ScoreJob) -> Result<Scoring<'a>, JobError> {
        let mut scoring = Scoring {
            seed: &job.seed,
            longest: self.longest_shard(),
            originals: Originals::default(),
            samplers: BTreeMap::new(),
            evaluations: BTreeMap::new(),
        };
        let states = self.state.iter().flat_map(|state| &state.manifest.groups);
        for state in states {
            let mut candidates = job.updates.iter();
            let has_updates = candidates.any(|candidate| candidate.group == state.group);
            if let Some(momentum) = state.momentum.filter(|_| has_updates) {
                let momentum = self.read_shard(state.group, momentum)?;
                self.remember(state.group, (Original::Momentum, &momentum), &mut scoring)?;
            }
        }
        for candidate in &job.remembered {
            // What cannot be read any more cannot be compared with; nobody is charged for that.
            if let Ok(Ok(update)) = self.read_update(candidate, scoring.longest) {
                let known = (original(candidate), &update);
                self.remember(candidate.group, known, &mut scoring)?;
            }
        }
        Ok(scoring)
    }

    fn remember(
        &self,
        group: GroupId,
        (name, update): (Original, &Shard),
        scoring: &mut Scoring<'_>,
    ) -> Result<(), JobError> {
        let sketch = self.sketch(group, update, scoring)?;
        let rules = &self.manifest().rules.scoring;
        let compared = scoring.originals.compare(group, sketch, rules);
        scoring.originals.remember((group, name), compared, None);
        Ok(())
    }

    fn sketch(
        &self,
        group: GroupId,
        update: &Shard,
        scoring: &mut Scoring<'_>,
    ) -> Result<Sketch, JobError> {
        let sampler = match scoring.samplers.entry(group) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                unknown.insert(Sampler::new(self.layout(group)?, scoring.seed))
            }
        };
        Ok(sampler.sketch(update))
    }

    /// Everything that can be said of an update without running the model, cheapest first.
    fn examine(
        &self,
        candidate: &Candidate,
        scoring: &mut Scoring<'_>,
    ) -> Result<Result<Examined, Finding>, JobError> {
        let rules = self.manifest().rules.scoring;
        let group = candidate.group;
        if let Some(of) = scoring.originals.with_bytes(group, candidate.update) {
            return Ok(Err(Finding::Copy { of }));
        }
        let refused = |code| Ok(Err(Finding::Refused { code }));
        let update = match self.read_update(candidate, scoring.longest)? {
            Ok(update) => update,
            Err(rejection) => return refused(rejection.code),
        };
        let states = self.state.iter().flat_map(|state| &state.manifest.groups);
        let mut reference = states
            .filter(|state| state.group == group)
            .filter_map(|state| state.reference_norm);
        let norm = update.norm();
        if reference.any(|reference| norm > rules.norm_bound * reference) {
            return refused(ReasonCode::NormExceeded);
        }
        let sketch = self.sketch(group, &update, scoring)?;
        let compared = scoring.originals.compare(group, sketch, &rules);
        Ok(match compared.resemblance.original {
            Some(of) => Err(Finding::Copy { of }),
            None => Ok(Examined { update, compared }),
        })
    }

    /// A miner may open with the name of anything that validators hold anyway, be it the backbone: its
    /// length is looked at before its bytes are.
    fn read_update(
        &self,
        candidate: &Candidate,
        longest: u64,
    ) -> Result<Result<Shard, Rejection>, JobError> {
        let layout = self.layout(candidate.group)?;
        let bytes = self.store.len(candidate.update)?;
        if bytes > longest {
            return Ok(Err(Rejection {
                code: ReasonCode::TooLarge,
                detail: format!("{bytes} bytes, the longest shard has {longest}"),
            }));
        }
        let blob = self.store.open(candidate.update)?;
        Ok(update::read(&blob, layout))
    }

    fn longest_shard(&self) -> u64 {
        let layouts = self.task.iter().flat_map(|task| task.layouts.values());
        let lengths = layouts.map(|layout| wire::encoded_bytes(layout, Codec::F32));
        lengths.max().unwrap_or(0)
    }

    /// Runs the model. What is no copy and has finite losses becomes an original, whatever it is worth.
    fn measure(
        &mut self,
        candidate: &Candidate,
        Examined { update, compared }: Examined,
        scoring: &mut Scoring<'_>,
    ) -> Result<Finding, JobError> {
        let group = candidate.group;
        self.restore(|displaced| displaced != group)?;
        if let Entry::Vacant(unmeasured) = scoring.evaluations.entry(group) {
            self.restore(|_| true)?;
            let sequences = self.draw(&self.scoring_pools(group), scoring.seed)?;
            unmeasured.insert(Evaluation::of_base(&mut self.backend, sequences)?);
        }
        self.displaced.insert(group);
        let state = self.state.as_ref();
        let base = state.and_then(|state| state.shards.get(&group));
        let base = base.ok_or(JobError::UnknownGroup(group))?;
        let evaluation = &scoring.evaluations[&group];
        let measured = match evaluation.measure(&mut self.backend, (base, &update))? {
            Ok(measured) => measured,
            Err(Unmeasured::NonFiniteLoss) => {
                return Ok(Finding::Refused {
                    code: ReasonCode::NonFiniteLoss,
                });
            }
            Err(Unmeasured::NoBaseline) => return Err(JobError::NoBaseline(self.state_id())),
        };
        let finding = measured.finding();
        let originals = &mut scoring.originals;
        let bound = self.manifest().rules.scoring.same_function;
        if let Some(of) = originals.same_function(group, &measured.changes, bound) {
            return Ok(Finding::Copy { of });
        }
        let changes = Some(measured.changes);
        originals.remember((group, original(candidate)), compared, changes);
        Ok(finding)
    }

    fn state_id(&self) -> StateId {
        self.state.as_ref().expect("load ran first").id
    }

    fn scoring_pools(&self, group: GroupId) -> Vec<PoolShare> {
        let manifest = self.manifest();
        let sequences = manifest.rules.scoring.sequences;
        let amount = (manifest.rules.own_share, sequences);
        scorer::pool_shares(&manifest.domains, group, amount)
    }

    /// Losses of what the backend holds, on sequences drawn by one seed.
    pub(super) fn losses_on(
        &mut self,
        pools: &[(BlobId, usize)],
        seed: &Seed,
    ) -> Result<Vec<SequenceLoss>, JobError> {
        let sequences = self.draw(pools, seed)?;
        Ok(scorer::losses(&mut self.backend, &sequences)?)
    }

    fn draw(&mut self, pools: &[PoolShare], seed: &Seed) -> Result<Vec<Vec<Vec<u32>>>, JobError> {
        let of_pool = |share: &PoolShare| Ok(scorer::draw(self.documents(share.0)?, *share, seed));
        pools.iter().map(of_pool).collect()
    }
}

fn original(candidate: &Candidate) -> Original {
    Original::Update {
        hotkey: candidate.hotkey,
        update: candidate.update,
    }
}
