//! What became of a cycle of a cluster test, as its participants told it.

use std::collections::{BTreeMap, BTreeSet};

use connito_protocol::consensus::Verdict;
use connito_protocol::ids::{Hotkey, StateId};
use connito_protocol::reason::ReasonCode;
use connito_protocol::rewards::CycleRewards;

use crate::cast::Who;

/// What became of a cycle.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) quorum: bool,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) rewards: Option<CycleRewards>,
    pub(crate) committed: Vec<(Hotkey, StateId)>,
    pub(crate) hotkeys: BTreeMap<Who, Hotkey>,
}

impl Report {
    pub(crate) fn code(&self, who: Who) -> Option<ReasonCode> {
        let hotkey = self.hotkeys[&who];
        self.verdicts
            .iter()
            .find(|verdict| verdict.hotkey == hotkey)
            .map(|verdict| verdict.code)
    }

    pub(crate) fn reward(&self, who: Who) -> f64 {
        let shares = &self.rewards.as_ref().unwrap().shares;
        shares.get(&self.hotkeys[&who]).copied().unwrap_or(0.0)
    }

    pub(crate) fn rewards_and_withheld(&self) -> f64 {
        let rewards = self.rewards.as_ref().unwrap();
        rewards.shares.values().sum::<f64>() + rewards.withheld
    }

    pub(crate) fn distinct_states(&self) -> usize {
        let states: BTreeSet<_> = self.committed.iter().map(|(_, state)| state).collect();
        states.len()
    }

    pub(crate) fn voters(&self) -> usize {
        self.committed.len()
    }
}
