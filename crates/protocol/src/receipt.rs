//! What a validator gives a miner in writing (P-42).

use serde::{Deserialize, Serialize};

use crate::ids::{BlobId, Cycle, GroupId, Hotkey, Seed, StateId};
use crate::job::Finding;
use crate::reason::ReasonCode;
use crate::report::Measurement;

/// The verdict on one submission, with the issuing validator's own measurement beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The cycle.
    pub cycle: Cycle,
    /// Whose submission.
    pub hotkey: Hotkey,
    /// For which group.
    pub group: GroupId,
    /// The state that the cycle built on.
    pub base: StateId,
    /// What the scoring sequences were drawn by: with it the measurement can be repeated.
    pub seed: Seed,
    /// Which update, if it was opened.
    pub update: Option<BlobId>,
    /// The network's verdict.
    pub code: ReasonCode,
    /// The median validator's measurement.
    pub measurement: Option<Measurement>,
    /// Weight before normalising.
    pub weight: f64,
    /// Share of the cycle's reward.
    pub reward: f64,
    /// Place among the group's submissions by weight, from 1.
    pub rank: u32,
    /// Who issues this receipt.
    pub validator: Hotkey,
    /// What the issuer itself found, if it scored this update.
    pub own: Option<Finding>,
}
