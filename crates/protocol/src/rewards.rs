//! What miners earn (P-40, P-41).
//!
//! In a cycle every group has the same share to give, divided among its accepted updates by weight;
//! the share of a group in which nobody earned is withheld in plain sight and goes to nobody.
//! Over cycles the shares are averaged, and that history is what goes on the chain as weights.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::consensus::Verdict;
use crate::ids::{GroupId, Hotkey};
use crate::reason::Charged;
use crate::rules::RewardRules;

/// The rewards of one cycle: all shares and the withheld rest sum to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CycleRewards {
    /// What each miner earned; nobody with nothing is listed.
    pub shares: BTreeMap<Hotkey, f64>,
    /// What was withheld.
    pub withheld: f64,
}

/// Divides a cycle's reward.
#[must_use]
pub fn cycle_rewards(verdicts: &[Verdict], groups: &[GroupId]) -> CycleRewards {
    let mut shares = BTreeMap::new();
    let mut paid_groups = 0_usize;
    for group in groups {
        let earned = |v: &&Verdict| v.group == *group && v.weight > 0.0;
        let total: f64 = verdicts.iter().filter(earned).map(|v| v.weight).sum();
        if total > 0.0 {
            paid_groups += 1;
            for verdict in verdicts.iter().filter(earned) {
                let share = verdict.weight / total / groups.len() as f64;
                shares.insert(verdict.hotkey, share);
            }
        }
    }
    let withheld = (groups.len() - paid_groups) as f64 / groups.len().max(1) as f64;
    CycleRewards { shares, withheld }
}

/// A miner's rewards averaged over cycles.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    entries: BTreeMap<Hotkey, Average>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Average {
    value: f64,
    unscored: u64,
}

impl History {
    /// Enters a cycle's rewards. A miner that the network failed to score keeps its average for
    /// `unscored_grace` cycles; everyone else who earned nothing gets a zero.
    pub fn enter(&mut self, rules: &RewardRules, verdicts: &[Verdict], rewards: &CycleRewards) {
        for hotkey in rewards.shares.keys() {
            self.entries.entry(*hotkey).or_default();
        }
        let excused: BTreeSet<Hotkey> = verdicts
            .iter()
            .filter(|verdict| verdict.code.charged_to() == Charged::Network)
            .map(|verdict| verdict.hotkey)
            .collect();
        for (hotkey, average) in &mut self.entries {
            if excused.contains(hotkey) && average.unscored < rules.unscored_grace {
                average.unscored += 1;
                continue;
            }
            average.unscored = 0;
            let earned = rewards.shares.get(hotkey).copied().unwrap_or(0.0);
            average.value = rules.history * average.value + (1.0 - rules.history) * earned;
        }
        self.entries.retain(|_, average| average.value > 1e-9);
    }

    /// The averages that are above zero.
    #[must_use]
    pub fn weights(&self) -> BTreeMap<Hotkey, f64> {
        self.entries
            .iter()
            .map(|(hotkey, average)| (*hotkey, average.value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reason::ReasonCode;
    use crate::rules::Rules;

    fn verdict(number: u8, group: u16, code: ReasonCode, weight: f64) -> Verdict {
        Verdict {
            hotkey: Hotkey([number; 32]),
            group: GroupId(group),
            update: None,
            code,
            measurement: None,
            weight,
        }
    }

    proptest! {
        #[test]
        fn shares_and_what_is_withheld_sum_to_one(
            weights in proptest::collection::vec((0..4_u16, 0.0..5.0_f64), 0..40),
        ) {
            let verdicts: Vec<_> = weights.iter().enumerate()
                .map(|(n, (group, w))| verdict(n as u8, *group, ReasonCode::Accepted, *w)).collect();
            let groups: Vec<_> = (0..4).map(GroupId).collect();
            let rewards = cycle_rewards(&verdicts, &groups);
            let sum: f64 = rewards.shares.values().sum::<f64>() + rewards.withheld;
            prop_assert!((sum - 1.0).abs() < 1e-9);
            prop_assert!(rewards.shares.values().all(|share| *share > 0.0));
        }
    }

    #[test]
    fn a_group_in_which_nobody_earned_withholds_its_share_and_enriches_nobody() {
        let verdicts = [
            verdict(1, 0, ReasonCode::Accepted, 3.0),
            verdict(2, 0, ReasonCode::Accepted, 1.0),
            verdict(3, 1, ReasonCode::Harmful, 0.0),
        ];
        let rewards = cycle_rewards(&verdicts, &[GroupId(0), GroupId(1)]);
        assert_eq!(rewards.withheld, 0.5);
        assert_eq!(rewards.shares[&Hotkey([1; 32])], 0.375);
        assert_eq!(rewards.shares.len(), 2);
    }

    /// Two cycles of grace for what is not the miner's fault, then it fades like an absent one.
    #[test]
    fn an_unscored_miner_keeps_its_history_for_the_grace_and_no_longer() {
        let rules = Rules::default().rewards;
        let groups = [GroupId(0)];
        let mut history = History::default();
        let earned = [verdict(1, 0, ReasonCode::Accepted, 1.0)];
        history.enter(&rules, &earned, &cycle_rewards(&earned, &groups));
        let before = history.weights()[&Hotkey([1; 32])];
        let unscored = [verdict(1, 0, ReasonCode::Unscored, 0.0)];
        for _ in 0..rules.unscored_grace {
            history.enter(&rules, &unscored, &cycle_rewards(&unscored, &groups));
            assert_eq!(history.weights()[&Hotkey([1; 32])], before);
        }
        history.enter(&rules, &unscored, &cycle_rewards(&unscored, &groups));
        assert!(history.weights()[&Hotkey([1; 32])] < before);
    }
}
