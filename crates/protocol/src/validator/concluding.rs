//! From verdicts to a vote on the next state, and from history to weights on the chain (P-32, P-33,
//! P-41).
//!
//! Inputs are the judgement that everyone reads off the chain and what the learner merged. Arithmetic
//! is the learner's affair.

use super::{MAXIMUM_ATTEMPTS, Validator, WEIGHTS_RETRY_BLOCKS};
use crate::announcement::{Announcement, Vote, task_digest};
use crate::event::{Effect, Effects, Milestone};
use crate::job::{Job, MergeJob, Merged, Weighted};
use crate::manifest::StateManifest;
use crate::seed::{Draw, seed};

impl Validator {
    pub(super) fn on_merged(&mut self, merged: &Merged, effects: &mut Effects) {
        for group in merged.candidate.iter().chain(&merged.fallback) {
            for blob in [Some(group.shard), group.momentum].into_iter().flatten() {
                self.follower.library.add(blob);
            }
        }
        let approves = merged.passes();
        effects.tell(Milestone::Gate {
            cycle: merged.cycle,
            incumbent_loss: merged.incumbent_loss,
            candidate_loss: merged.candidate_loss,
            approves,
        });
        let (Some((candidate, fallback)), Some(task)) = (self.successors(merged), self.next_task())
        else {
            return;
        };
        let vote = Vote {
            cycle: merged.cycle,
            approves,
            candidate: self.follower.keep_manifest(candidate, effects),
            fallback: self.follower.keep_manifest(fallback, effects),
            task: task_digest(task),
        };
        self.work.vote = Some(vote);
    }

    /// The two states that may follow: the merged one, and the incumbent with damped momentum.
    fn successors(&self, merged: &Merged) -> Option<(StateManifest, StateManifest)> {
        let judgement = self.judgement()?;
        let (base, incumbent) = self.follower.base()?;
        let exclusion = self.follower.task()?.manifest.rules.scoring.exclusion;
        let next = merged.cycle.next();
        let mut lengths = merged.update_bytes.iter().copied();
        let candidate = StateManifest {
            format: StateManifest::FORMAT,
            cycle: next,
            parent: Some(base),
            archive: Some(judgement.archive),
            groups: merged.candidate.clone(),
            merged: judgement.merged(|_| lengths.next().unwrap_or_default()),
            excluded: judgement.excluded(&incumbent.excluded, (next, exclusion))?,
        };
        let fallback = StateManifest {
            groups: merged.fallback.clone(),
            merged: Vec::new(),
            ..candidate.clone()
        };
        Some((candidate, fallback))
    }

    pub(super) fn vote(&mut self, effects: &mut Effects) {
        if let Some(vote) = self.work.vote {
            self.follower.announce(&Announcement::Voted(vote), effects);
        } else if self.work.failed_merges < MAXIMUM_ATTEMPTS
            && let Some(job) = self.merge_job()
        {
            self.run(job, effects);
        }
    }

    /// Nothing to merge without a quorum: the cycle is void and the incumbent stays as it is. Nor for
    /// whoever does not know what was reviewed, and so not who is drawn from now on (P-46).
    fn merge_job(&self) -> Option<Job> {
        let (task, round) = (self.follower.task()?, self.follower.round()?);
        let (state, base) = self.follower.base()?;
        let judgement = round
            .judgement
            .as_ref()
            .filter(|judgement| judgement.quorum && judgement.reviewed.is_some())?;
        let accepted: Vec<_> = judgement
            .accepted()
            .map(|(verdict, update)| Weighted {
                group: verdict.group,
                update,
                weight: verdict.weight,
            })
            .collect();
        let updates = accepted.iter().map(|weighted| weighted.update);
        if !self.follower.library.has_all(base.blobs().chain(updates)) {
            return None;
        }
        Some(Job::Merge(MergeJob {
            cycle: round.cycle,
            task: task.id,
            state,
            seed: seed(Draw::Gate, round.seeded?.hash, round.cycle),
            accepted,
        }))
    }

    /// Puts the reward history on the chain as often as the chain takes it (P-41).
    pub(super) fn set_weights(&mut self, effects: &mut Effects) {
        let (Some((now, _)), Some(task)) = (self.follower.live(), self.follower.task()) else {
            return;
        };
        let Some(me) = now.participant(self.follower.identity.hotkey) else {
            return;
        };
        let interval = task.manifest.rules.rewards.weight_interval;
        let due = now.block.0.saturating_sub(me.weights_set.0) >= interval
            && self
                .weights_sent
                .is_none_or(|sent| now.block.0 >= sent.0 + WEIGHTS_RETRY_BLOCKS);
        if !due || !me.validator_permit {
            return;
        }
        let Some(weights) = self.follower.history().on_chain(now) else {
            return;
        };
        if !weights.slots.is_empty() {
            self.weights_sent = Some(now.block);
            effects.tell(Milestone::WeightsSent {
                miners: weights.miners,
                withheld: weights.withheld,
                to_owner: weights.to_owner,
            });
            effects.push(Effect::SetWeights {
                weights: weights.slots,
            });
        }
    }
}
