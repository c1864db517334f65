//! What a validator gives a miner in writing (P-42).
//!
//! A cycle has thousands of receipts, and they say the same but for the verdict and the issuer's own
//! measurement: a validator issues them all at once, and a single one is made out when it is wanted.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::consensus::Verdict;
use crate::ids::{BlobId, Cycle, GroupId, Hotkey, Seed, StateId};
use crate::job::Finding;
use crate::reason::ReasonCode;
use crate::report::Measurement;
use crate::rewards::Standing;

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

/// All receipts of one validator for a cycle, one for each submission.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CycleReceipts {
    /// The cycle.
    pub cycle: Cycle,
    /// The state that the cycle built on.
    pub base: StateId,
    /// What the scoring sequences were drawn by.
    pub seed: Seed,
    /// Who issues them.
    pub validator: Hotkey,
    /// The network's verdicts; one for all who share it.
    pub graded: Arc<Graded>,
    /// What the issuer itself found, by whose update it scored.
    pub own: BTreeMap<Hotkey, Finding>,
}

/// A cycle's verdicts with what followed from each, in the order of their hotkeys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Graded(Vec<(Verdict, Standing)>);

impl Graded {
    /// Verdicts and standings in the same order, whichever it is.
    #[must_use]
    pub fn new(verdicts: &[Verdict], standings: Vec<Standing>) -> Self {
        let mut graded: Vec<_> = verdicts.iter().cloned().zip(standings).collect();
        graded.sort_unstable_by_key(|(verdict, _)| verdict.hotkey);
        Self(graded)
    }

    fn of(&self, hotkey: Hotkey) -> Option<&(Verdict, Standing)> {
        let place = self.0.binary_search_by_key(&hotkey, |(v, _)| v.hotkey);
        self.0.get(place.ok()?)
    }
}

impl CycleReceipts {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.graded.0.len()
    }

    /// The receipt of one hotkey, if it submitted anything.
    #[must_use]
    pub fn of(&self, hotkey: Hotkey) -> Option<Receipt> {
        self.graded.of(hotkey).map(|graded| self.make_out(graded))
    }

    /// Each of them, by hotkey.
    pub fn iter(&self) -> impl Iterator<Item = Receipt> {
        self.graded.0.iter().map(|graded| self.make_out(graded))
    }

    fn make_out(&self, (verdict, standing): &(Verdict, Standing)) -> Receipt {
        Receipt {
            cycle: self.cycle,
            hotkey: verdict.hotkey,
            group: verdict.group,
            base: self.base,
            seed: self.seed,
            update: verdict.update,
            code: verdict.code,
            measurement: verdict.measurement,
            weight: verdict.weight,
            reward: standing.reward,
            rank: standing.rank,
            validator: self.validator,
            own: self.own.get(&verdict.hotkey).copied(),
        }
    }
}
