//! What miners earn (P-40, P-41).
//!
//! In a cycle every group has the same share to give, divided among its accepted updates by weight;
//! the share of a group in which nobody earned is withheld in plain sight and goes to nobody.
//! Over cycles the shares are averaged, what is withheld like what is earned, and that history is what
//! goes on the chain as weights: otherwise the chain, which only knows ratios, would divide what was
//! withheld among those who earned.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::consensus::Verdict;
use crate::ids::{GroupId, Hotkey, Uid};
use crate::reason::{Charged, ReasonCode};
use crate::rules::RewardRules;
use crate::snapshot::Snapshot;

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

/// Where a submission stands among those of its group.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// One more than the number of submissions with more weight.
    pub rank: u32,
    /// Its share of the cycle's reward.
    pub reward: f64,
}

/// The standing of each verdict's submission, in their order.
pub(crate) fn standings(verdicts: &[Verdict], rewards: &CycleRewards) -> Vec<Standing> {
    let mut weights: BTreeMap<GroupId, Vec<f64>> = BTreeMap::new();
    for verdict in verdicts {
        let of_group = weights.entry(verdict.group).or_default();
        of_group.push(verdict.weight);
    }
    for of_group in weights.values_mut() {
        of_group.sort_by(|a, b| b.total_cmp(a));
    }
    let standing = |verdict: &Verdict| {
        let of_group = weights.get(&verdict.group).map_or(&[][..], Vec::as_slice);
        let better = of_group.partition_point(|weight| *weight > verdict.weight);
        let reward = rewards.shares.get(&verdict.hotkey).copied();
        Standing {
            rank: u32::try_from(better + 1).unwrap_or(u32::MAX),
            reward: reward.unwrap_or(0.0),
        }
    };
    verdicts.iter().map(standing).collect()
}

/// Miners' rewards, and what was withheld, averaged over cycles.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    entries: BTreeMap<Hotkey, Average>,
    withheld: f64,
}

/// What a history amounts to on the chain: weights relative to each other.
#[derive(Debug, Clone, PartialEq)]
pub struct ChainWeights {
    /// Slot and weight, of everyone with some.
    pub slots: Vec<(Uid, f64)>,
    /// How many of them are miners.
    pub miners: usize,
    /// The share of the whole that goes to nobody: what was withheld, and the averages of those who
    /// have no slot any more.
    pub withheld: f64,
    /// Whether that share is the weight of the subnet owner's slot.
    pub to_owner: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Average {
    value: f64,
    /// Grace that was used up, in parts of which an unscored cycle costs [`UNSCORED_COSTS`].
    used: u64,
}

/// Cycles with another verdict that give back the grace of an unscored one. Whoever can have an update
/// go unscored at will (one silent server is enough) saves the work of one cycle in nine, and not of
/// two in three.
const UNSCORED_COSTS: u64 = 8;

impl History {
    /// Enters a cycle's rewards. A miner that the network failed to score keeps its average while it has
    /// some of `unscored_grace` left, one that was not drawn for as long as that goes on; everyone else
    /// who earned nothing gets a zero.
    pub fn enter(&mut self, rules: &RewardRules, verdicts: &[Verdict], rewards: &CycleRewards) {
        for hotkey in rewards.shares.keys() {
            self.entries.entry(*hotkey).or_default();
        }
        let of = |wanted: &dyn Fn(ReasonCode) -> bool| -> BTreeSet<Hotkey> {
            let some = verdicts.iter().filter(|verdict| wanted(verdict.code));
            some.map(|verdict| verdict.hotkey).collect()
        };
        let not_drawn = of(&|code| code == ReasonCode::NotDrawn);
        let excused = of(&|code| code.charged_to() == Charged::Network);
        let grace = rules.unscored_grace.saturating_mul(UNSCORED_COSTS);
        for (hotkey, average) in &mut self.entries {
            // Chance is neither a fault nor a failure: the cycle did not take place for this miner.
            if not_drawn.contains(hotkey) {
                continue;
            }
            if excused.contains(hotkey) && average.used + UNSCORED_COSTS <= grace {
                average.used += UNSCORED_COSTS;
                continue;
            }
            average.used = average.used.saturating_sub(1);
            let earned = rewards.shares.get(hotkey).copied().unwrap_or(0.0);
            average.value = rules.history * average.value + (1.0 - rules.history) * earned;
        }
        self.entries.retain(|_, average| average.value > 1e-9);
        self.withheld = rules.history * self.withheld + (1.0 - rules.history) * rewards.withheld;
    }

    /// What was withheld, averaged like a miner's rewards.
    #[must_use]
    pub fn withheld(&self) -> f64 {
        self.withheld
    }

    /// Takes back a part of what the last cycle entered for a miner (P-46). It is withheld from then on:
    /// without that, the chain would divide it among those who earned.
    pub fn take_back(&mut self, rules: &RewardRules, hotkey: Hotkey, unearned: f64) {
        if let Some(average) = self.entries.get_mut(&hotkey) {
            let entered = (1.0 - rules.history) * unearned;
            let taken = entered.min(average.value);
            average.value -= taken;
            self.withheld += taken;
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

    /// The weights to set, given who has a slot (P-41). `None` while there is no history.
    ///
    /// What is withheld is the weight of the subnet owner's slot: on Bittensor, what an owner's hotkey
    /// would mine is burned.
    #[must_use]
    pub fn on_chain(&self, now: &Snapshot) -> Option<ChainWeights> {
        let mut slots = BTreeMap::new();
        let mut miners = 0;
        let mut withheld = self.withheld;
        for (hotkey, average) in &self.entries {
            match now.participant(*hotkey) {
                Some(participant) => {
                    miners += 1;
                    slots.insert(participant.uid, average.value);
                }
                None => withheld += average.value,
            }
        }
        let whole = slots.values().sum::<f64>() + withheld;
        if whole <= 0.0 {
            return None;
        }
        let owner = now.owner.and_then(|owner| now.participant(owner));
        if let Some(owner) = owner.filter(|_| withheld > 0.0) {
            *slots.entry(owner.uid).or_insert(0.0) += withheld;
        }
        Some(ChainWeights {
            slots: slots.into_iter().collect(),
            miners,
            withheld: withheld / whole,
            to_owner: owner.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{Block, BlockHash};
    use crate::rules::Rules;
    use crate::snapshot::Participant;

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

    /// A subnet of these hotkeys, in the slots of their numbers; the owner's number is 9.
    fn subnet(hotkeys: &[u8]) -> Snapshot {
        let participant = |number: &u8| Participant {
            uid: Uid(u16::from(*number)),
            hotkey: Hotkey([*number; 32]),
            stake: 0,
            validator_permit: false,
            endpoint: None,
            weights_set: Block(0),
        };
        Snapshot {
            block: Block(1),
            hash: BlockHash([0; 32]),
            head: Block(1),
            owner: Some(Hotkey([9; 32])),
            participants: hotkeys.iter().map(participant).collect(),
            records: Default::default(),
            readings: Default::default(),
        }
    }

    fn history_of(cycles: &[&[Verdict]]) -> History {
        let (rules, groups) = (Rules::default().rewards, [GroupId(0), GroupId(1)]);
        let mut history = History::default();
        for verdicts in cycles {
            history.enter(&rules, verdicts, &cycle_rewards(verdicts, &groups));
        }
        history
    }

    /// Group 1 earns nothing, so half of every cycle is withheld. What should not happen: that the
    /// chain, which scales weights, pays that half to the miner of group 0.
    #[test]
    fn what_is_withheld_is_the_weight_of_the_owners_slot() {
        let earned = [verdict(1, 0, ReasonCode::Accepted, 1.0)];
        let history = history_of(&[&earned, &earned]);
        assert_eq!(history.withheld(), 0.375);
        let weights = history.on_chain(&subnet(&[1, 9])).unwrap();
        assert_eq!(weights.slots, [(Uid(1), 0.375), (Uid(9), 0.375)]);
        assert_eq!((weights.withheld, weights.to_owner), (0.5, true));

        let without_owner = history.on_chain(&subnet(&[1])).unwrap();
        assert_eq!(without_owner.slots, [(Uid(1), 0.375)]);
        assert_eq!(
            (without_owner.withheld, without_owner.to_owner),
            (0.5, false)
        );
    }

    #[test]
    fn the_average_of_a_hotkey_without_a_slot_is_withheld_and_not_shared_out() {
        let earned = [
            verdict(1, 0, ReasonCode::Accepted, 1.0),
            verdict(2, 1, ReasonCode::Accepted, 1.0),
        ];
        let weights = history_of(&[&earned]).on_chain(&subnet(&[1, 9])).unwrap();
        assert_eq!(weights.slots, [(Uid(1), 0.25), (Uid(9), 0.25)]);
        assert_eq!(weights.miners, 1);
    }

    #[test]
    fn nobody_earning_is_a_weight_for_the_owner_alone_and_no_cycle_is_no_weight() {
        let weights = history_of(&[&[]]).on_chain(&subnet(&[1, 9])).unwrap();
        assert_eq!(weights.slots, [(Uid(9), 0.5)]);
        assert_eq!((weights.miners, weights.withheld), (0, 1.0));
        assert_eq!(History::default().on_chain(&subnet(&[1, 9])), None);
    }

    proptest! {
        /// Over any cycles in which everyone is judged, averages and what is withheld sum to what a
        /// constant reward of 1 would average to.
        #[test]
        fn averages_and_what_is_withheld_share_one_whole(
            cycles in proptest::collection::vec(
                proptest::collection::vec((0..2_u16, 0.0..5.0_f64), 0..6), 1..8),
        ) {
            let verdicts: Vec<Vec<Verdict>> = cycles.iter().map(|cycle| {
                let miners = cycle.iter().enumerate();
                miners.map(|(n, (group, w))| verdict(n as u8, *group, ReasonCode::Accepted, *w)).collect()
            }).collect();
            let cycles: Vec<&[Verdict]> = verdicts.iter().map(Vec::as_slice).collect();
            let history = history_of(&cycles);
            let sum: f64 = history.weights().values().sum::<f64>() + history.withheld();
            let whole = 1.0 - Rules::default().rewards.history.powi(cycles.len() as i32);
            prop_assert!((sum - whole).abs() < 1e-6);
        }
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

    /// What should not happen: that a miner who works every third cycle, and has its update go unscored
    /// in the others, keeps what work in every cycle would have earned.
    #[test]
    fn going_unscored_again_and_again_is_not_paid_like_work() {
        let rules = Rules::default().rewards;
        let groups = [GroupId(0)];
        let mut history = History::default();
        for cycle in 0..90 {
            let (code, weight) = match cycle % 3 {
                0 => (ReasonCode::Accepted, 1.0),
                _ => (ReasonCode::Unscored, 0.0),
            };
            let both = [
                verdict(1, 0, code, weight),
                verdict(2, 0, ReasonCode::Accepted, 1.0),
            ];
            let mut rewards = cycle_rewards(&both, &groups);
            // In a cycle in which it earns, it is half of the two.
            rewards.shares.insert(Hotkey([2; 32]), 0.5);
            history.enter(&rules, &both, &rewards);
        }
        let weights = history.weights();
        assert!(weights[&Hotkey([1; 32])] < 0.45 * weights[&Hotkey([2; 32])]);
    }

    #[test]
    fn whoever_is_not_drawn_keeps_history_and_grace_however_long_that_goes_on() {
        let (rules, groups, miner) = (Rules::default().rewards, [GroupId(0)], Hotkey([1; 32]));
        let mut history = History::default();
        let earned = [verdict(1, 0, ReasonCode::Accepted, 1.0)];
        history.enter(&rules, &earned, &cycle_rewards(&earned, &groups));
        let before = history.entries.clone();
        let passed_over = [verdict(1, 0, ReasonCode::NotDrawn, 0.0)];
        for _ in 0..10 * rules.unscored_grace {
            history.enter(&rules, &passed_over, &cycle_rewards(&passed_over, &groups));
        }
        assert_eq!(history.entries, before);
        assert!(history.weights()[&miner] > 0.0);
    }

    /// Taken back before the next cycle is entered, it is as if it had never been earned.
    #[test]
    fn what_is_taken_back_leaves_the_average_that_would_have_been() {
        let (rules, groups, miner) = (Rules::default().rewards, [GroupId(0)], Hotkey([1; 32]));
        let earned = [verdict(1, 0, ReasonCode::Accepted, 1.0)];
        let nothing = [verdict(1, 0, ReasonCode::NoGain, 0.0)];
        let (mut corrected, mut honest) = (History::default(), History::default());
        for (cycle, of_second) in [(&earned, &earned), (&earned, &nothing)] {
            corrected.enter(&rules, cycle, &cycle_rewards(cycle, &groups));
            honest.enter(&rules, of_second, &cycle_rewards(of_second, &groups));
        }
        corrected.take_back(&rules, miner, 1.0);
        assert_eq!(corrected.weights(), honest.weights());
        assert_eq!(corrected.withheld(), honest.withheld());
        corrected.take_back(&rules, miner, 1.0);
        corrected.take_back(&rules, miner, 1.0);
        assert!(corrected.weights().is_empty(), "never below nothing");
    }
}
