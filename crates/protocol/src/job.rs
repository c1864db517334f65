//! What a role asks of its learner, and what comes back.
//!
//! A job only names things: the task, a state, updates, a seed. Everything that a learner needs is
//! found in the blob store under these names, so a job can be repeated after a crash and gives the
//! same result. Knows nothing of how training or measuring works.

use serde::{Deserialize, Serialize};

use crate::ids::{BlobId, Block, Cycle, GroupId, Hotkey, Seed, StateId};
use crate::manifest::GroupState;
use crate::reason::ReasonCode;
use crate::report::Measurement;

/// Work for the compute thread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
pub enum Job {
    /// Train a group's experts and write an update.
    Train(TrainJob),
    /// Measure a cycle's updates.
    Score(ScoreJob),
    /// Merge the accepted updates, and measure the result against the incumbent.
    Merge(MergeJob),
    /// Compute a decided state from the one before it.
    Advance(AdvanceJob),
}

impl Job {
    /// The cycle that the job is for.
    #[must_use]
    pub fn cycle(&self) -> Cycle {
        match self {
            Self::Train(job) => job.cycle,
            Self::Score(job) => job.cycle,
            Self::Merge(job) => job.cycle,
            Self::Advance(job) => job.cycle,
        }
    }
}

/// Training of one group for one cycle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainJob {
    /// For which cycle.
    pub cycle: Cycle,
    /// The task.
    pub task: BlobId,
    /// The state to start from.
    pub state: StateId,
    /// The group.
    pub group: GroupId,
    /// Order of the data; differs between hotkeys (A-13).
    pub seed: Seed,
    /// Stop when the chain reaches this block and use what there is.
    pub stop_at: Block,
    /// What earlier updates left unsent (P-38), if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residual: Option<BlobId>,
}

/// Measurement of a cycle's updates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreJob {
    /// Of which cycle.
    pub cycle: Cycle,
    /// The task.
    pub task: BlobId,
    /// The state that they build on.
    pub state: StateId,
    /// Draws the evaluation sequences.
    pub seed: Seed,
    /// The updates, the earliest seal first.
    pub updates: Vec<Candidate>,
    /// Updates of earlier cycles that were accepted or stayed unscored, to recognise copies of.
    pub remembered: Vec<Candidate>,
    /// Give up when the chain reaches this block.
    pub stop_at: Block,
}

/// Merge of a cycle's accepted updates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MergeJob {
    /// Of which cycle.
    pub cycle: Cycle,
    /// The task.
    pub task: BlobId,
    /// The incumbent.
    pub state: StateId,
    /// Draws the gate's sequences.
    pub seed: Seed,
    /// The accepted updates and their weights, in the order of the submissions.
    pub accepted: Vec<Weighted>,
}

/// Following a decision by recomputing it instead of fetching its shards (P-37).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvanceJob {
    /// The cycle that builds on the new state.
    pub cycle: Cycle,
    /// The task under which the step was taken.
    pub task: BlobId,
    /// The state before; of its groups, those are stepped that are here with their momentum and the
    /// updates that were merged into them.
    pub from: StateId,
    /// The decided state, whose manifest is here.
    pub to: StateId,
}

/// An update and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Whose.
    pub hotkey: Hotkey,
    /// For which group.
    pub group: GroupId,
    /// The blob.
    pub update: BlobId,
}

/// An update and its weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Weighted {
    /// For which group.
    pub group: GroupId,
    /// The blob.
    pub update: BlobId,
    /// Its weight, above zero.
    pub weight: f64,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// An update was written and stored.
    Trained(Trained),
    /// Updates were measured.
    Scored {
        /// Of which cycle.
        cycle: Cycle,
        /// One finding a candidate, in their order.
        findings: Vec<Finding>,
    },
    /// Updates were merged.
    Merged(Merged),
    /// A decided state was computed, and has the decided names.
    Advanced(Advanced),
    /// The job ended without a result, through no fault of an update.
    Failed {
        /// For which cycle.
        cycle: Cycle,
        /// Why, in one sentence.
        cause: String,
    },
}

/// A finished training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// For which cycle.
    pub cycle: Cycle,
    /// The update.
    pub update: BlobId,
    /// Its size in bytes.
    pub bytes: u64,
    /// Experts that were trained, over all layers; which ones is what the update lists.
    pub experts: u32,
    /// Optimiser steps taken.
    pub steps: u32,
    /// Tokens seen.
    pub tokens: u64,
    /// Training loss of the first step.
    pub loss_first: f64,
    /// Training loss of the last step.
    pub loss_last: f64,
    /// What is still unsent once this update has been merged (P-38); nothing with an exact codec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residual: Option<BlobId>,
    /// Why the residual that the job named was not used, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residual_dropped: Option<String>,
}

/// What the learner found out about one update.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// Its loss was measured.
    Measured {
        /// Utility and standard error.
        measurement: Measurement,
        /// Mean loss of the state.
        loss_before: f64,
        /// Mean loss with the update.
        loss_after: f64,
    },
    /// It was refused.
    Refused {
        /// Why.
        code: ReasonCode,
    },
    /// It was refused as a copy.
    Copy {
        /// Of what.
        of: Original,
    },
}

/// What a copy is a copy of (P-24).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Original {
    /// Of an update that was sealed before it, or accepted in an earlier cycle.
    Update {
        /// Whose.
        hotkey: Hotkey,
        /// The blob.
        update: BlobId,
    },
    /// Of the momentum of its group, which is public (A-10).
    Momentum,
}

/// A merge and its measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Merged {
    /// Of which cycle.
    pub cycle: Cycle,
    /// The groups after the outer step.
    pub candidate: Vec<GroupState>,
    /// The groups if the gate refuses: the incumbent's shards, momentum halved.
    pub fallback: Vec<GroupState>,
    /// Lengths of the accepted updates, in the order of the job.
    pub update_bytes: Vec<u64>,
    /// Mean loss of the incumbent on the gate's data.
    pub incumbent_loss: f64,
    /// Mean loss of the candidate on the same data; `None` when it is not finite.
    pub candidate_loss: Option<f64>,
}

/// What of a decided state was computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Advanced {
    /// The cycle that builds on the state.
    pub cycle: Cycle,
    /// The state.
    pub to: StateId,
    /// The groups that changed and were computed: their blobs are in the store, under the names that
    /// the state's manifest gives them.
    pub groups: Vec<GroupState>,
    /// The groups that changed and could not be computed, because what that takes is not here.
    pub absent: Vec<GroupId>,
}

impl Merged {
    /// Whether the candidate is no worse than the incumbent (P-32). A loss that is not finite is.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.candidate_loss
            .is_some_and(|loss| loss <= self.incumbent_loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Entry;

    /// What should happen: a journal from before copies had names reads as it did; a new one names them.
    #[test]
    fn findings_of_older_journals_are_read_and_enter_a_report_as_one_byte() {
        let older = r#"{"finding":"refused","code":"duplicate"}"#;
        let refused: Finding = serde_json::from_str(older).unwrap();
        let of = Original::Update {
            hotkey: Hotkey([1; 32]),
            update: BlobId([2; 32]),
        };
        for of in [of, Original::Momentum] {
            let copy = Finding::Copy { of };
            let written = serde_json::to_string(&copy).unwrap();
            assert_eq!(serde_json::from_str::<Finding>(&written).unwrap(), copy);
            assert_eq!(Entry::from(&copy), Entry::from(&refused));
        }
    }
}
