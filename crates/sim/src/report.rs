//! What a run came to: cycles, verdicts, who earned what, how much was moved, what broke.
//!
//! Equal scenario and seed give an equal report. Rewards are those of the verdicts that all honest
//! validators read off the chain; the honest miners' share is of all rewards that were not withheld. A
//! hostile kind is measured against honest miners by reward per optimiser step.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::monitor::Violation;
use crate::node::Kind;
use crate::run::Simulation;

/// Bytes and mishaps of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Traffic {
    /// Bytes that miners sent.
    pub miner_upload_bytes: f64,
    /// Bytes that miners received.
    pub miner_download_bytes: f64,
    /// Bytes that validators and the owner sent to each other.
    pub validator_bytes: f64,
    /// Writes that reached the chain.
    pub writes: u64,
    /// Writes that the chain refused.
    pub refused_writes: u64,
    /// Receipts that were issued.
    pub receipts: u64,
    /// Uploads that were told to come back.
    pub busy: u64,
    /// Transfers that broke off.
    pub broken: u64,
    /// Requests that a server answered with wrong bytes.
    pub wrong_bytes: u64,
    /// Processes that ended.
    pub crashes: u64,
    /// Miners that registered in the middle.
    pub joined: u64,
    /// Miners whose registration ended.
    pub left: u64,
}

impl Traffic {
    /// Adds another run's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.miner_upload_bytes += other.miner_upload_bytes;
        self.miner_download_bytes += other.miner_download_bytes;
        self.validator_bytes += other.validator_bytes;
        self.writes += other.writes;
        self.refused_writes += other.refused_writes;
        self.receipts += other.receipts;
        self.busy += other.busy;
        self.broken += other.broken;
        self.wrong_bytes += other.wrong_bytes;
        self.crashes += other.crashes;
        self.joined += other.joined;
        self.left += other.left;
    }

    pub(crate) fn count(&mut self, from: Kind, to: Kind, bytes: f64) {
        match (from, to) {
            (Kind::Miner(_), _) => self.miner_upload_bytes += bytes,
            (_, Kind::Miner(_)) => self.miner_download_bytes += bytes,
            _ => self.validator_bytes += bytes,
        }
    }
}

/// What became of one cycle.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CycleReport {
    /// Its number.
    pub cycle: u64,
    /// Whether enough stake reported.
    pub quorum: bool,
    /// Whether the gate let the candidate pass; nothing if the votes decided nothing.
    pub passed: Option<bool>,
    /// Share of the reward that nobody earned.
    pub withheld: f64,
    /// Submissions by verdict.
    pub codes: BTreeMap<String, u64>,
    /// Mean loss of the incumbent on the gate's text, in nats a token.
    pub gate_loss: Option<f64>,
}

/// What one kind of miner did and earned.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct KindReport {
    /// Hotkeys of the kind.
    pub hotkeys: u64,
    /// Optimiser steps that they took.
    pub training_steps: u64,
    /// Rewards over all cycles; a cycle has 1 to give.
    pub reward: f64,
    /// Reward of a hotkey, in multiples of an honest one's.
    pub reward_per_hotkey: f64,
    /// Reward of an optimiser step, in multiples of an honest one's; nothing if it took none.
    pub reward_per_step: Option<f64>,
    /// What of the reward is beyond that of honest miners for as many steps.
    pub unearned: f64,
    /// Verdicts on its submissions.
    pub codes: BTreeMap<String, u64>,
}

impl KindReport {
    /// Adds another run's hotkeys of the kind.
    pub(crate) fn add(&mut self, other: &Self) {
        self.hotkeys += other.hotkeys;
        self.training_steps += other.training_steps;
        self.reward += other.reward;
        for (code, count) in &other.codes {
            *self.codes.entry(code.clone()).or_default() += count;
        }
    }

    /// Holds every kind against the honest one, which trains for what it is paid.
    pub(crate) fn compare(kinds: &mut BTreeMap<String, Self>) {
        let honest = kinds.get(Kind::Miner(None).name()).cloned();
        let Some(honest) = honest.filter(|honest| honest.reward > 0.0) else {
            return;
        };
        let of_hotkey = |kind: &Self| kind.reward / kind.hotkeys.max(1) as f64;
        let of_step = |kind: &Self| kind.reward / kind.training_steps as f64;
        for kind in kinds.values_mut() {
            kind.reward_per_hotkey = of_hotkey(kind) / of_hotkey(&honest);
            let works = kind.training_steps > 0;
            kind.reward_per_step = works.then(|| of_step(kind) / of_step(&honest));
            let earned = kind.training_steps as f64 * of_step(&honest);
            kind.unearned = (kind.reward - earned).max(0.0);
        }
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// The seed that it followed from.
    pub seed: u64,
    /// What did not hold: nothing, or the first such thing.
    pub violations: Vec<Violation>,
    /// Cycle by cycle.
    pub cycles: Vec<CycleReport>,
    /// Miners by kind; `honest` are those that follow the rules.
    pub kinds: BTreeMap<String, KindReport>,
    /// Rewards that somebody earned, over all cycles.
    pub paid: f64,
    /// The honest miners' share of these; nothing if nobody earned.
    pub honest_reward_share: Option<f64>,
    /// What hostile miners were paid beyond an honest miner's pay for as many steps, as a part of all that
    /// was paid; nothing if nobody earned.
    pub unearned_reward_share: Option<f64>,
    /// Drawn committees of which hostile validators held more than half of the seats.
    pub captures: u64,
    /// Hostile validators that a review has excluded.
    pub caught: u64,
    /// Steps of machines.
    pub steps: u64,
    /// Blocks that were made.
    pub blocks: u64,
    /// Simulated time, in seconds.
    pub simulated_seconds: f64,
    /// Most happenings that ever waited.
    pub longest_queue: usize,
    /// What was moved and what went wrong on the way.
    pub traffic: Traffic,
}

impl RunReport {
    pub(crate) fn new(simulation: &Simulation) -> Self {
        let outcomes = &simulation.monitor.outcomes;
        let cycles = outcomes.iter().map(|(cycle, outcome)| CycleReport {
            cycle: cycle.0,
            quorum: outcome.quorum,
            passed: outcome.passed,
            withheld: outcome.withheld,
            codes: counted(outcome.codes.values().map(|code| code.text())),
            gate_loss: outcome.gate.map(|(incumbent, _)| incumbent),
        });
        let kinds = kinds(simulation);
        let paid: f64 = kinds.values().map(|kind| kind.reward).sum();
        let honest = kinds
            .get(Kind::Miner(None).name())
            .map_or(0.0, |kind| kind.reward);
        Self {
            seed: simulation.seed,
            violations: simulation.violations().to_vec(),
            cycles: cycles.collect(),
            paid,
            honest_reward_share: (paid > 0.0).then(|| honest / paid),
            unearned_reward_share: unearned_share(&kinds),
            kinds,
            captures: simulation.monitor.captures,
            caught: simulation.monitor.caught.len() as u64,
            steps: simulation.steps,
            blocks: simulation.chain.head().block.0,
            simulated_seconds: simulation.queue.now() as f64 / crate::queue::SECOND as f64,
            longest_queue: simulation.queue.longest(),
            traffic: simulation.traffic.clone(),
        }
    }
}

/// The part of all rewards that was not earned by work.
pub(crate) fn unearned_share(kinds: &BTreeMap<String, KindReport>) -> Option<f64> {
    let paid: f64 = kinds.values().map(|kind| kind.reward).sum();
    let unearned: f64 = kinds.values().map(|kind| kind.unearned).sum();
    (paid > 0.0).then(|| unearned / paid)
}

fn counted<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for word in words {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    counts
}

fn kinds(simulation: &Simulation) -> BTreeMap<String, KindReport> {
    let mut kinds: BTreeMap<String, KindReport> = BTreeMap::new();
    for node in &simulation.nodes {
        let Kind::Miner(_) = node.kind else { continue };
        let kind = kinds.entry(node.kind.name().to_owned()).or_default();
        kind.hotkeys += 1;
        kind.training_steps += node.training_steps;
        for outcome in simulation.monitor.outcomes.values() {
            let hotkey = node.hotkey();
            kind.reward += outcome.shares.get(&hotkey).copied().unwrap_or(0.0);
            if let Some(code) = outcome.codes.get(&hotkey) {
                *kind.codes.entry(code.text().to_owned()).or_default() += 1;
            }
        }
    }
    KindReport::compare(&mut kinds);
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(training_steps: u64, reward: f64) -> KindReport {
        KindReport {
            hotkeys: 1,
            training_steps,
            reward,
            ..KindReport::default()
        }
    }

    /// Two steps for 0.6, one for 0.35, none for 0.05: of 0.1 that nobody worked for, half went to whoever
    /// trained for the rest.
    #[test]
    fn what_is_beyond_an_honest_days_pay_is_unearned() {
        let named = [
            ("honest", kind(2, 0.6)),
            ("twins", kind(1, 0.35)),
            ("echo", kind(0, 0.05)),
        ];
        let mut kinds: BTreeMap<String, KindReport> =
            named.map(|(name, kind)| (name.to_owned(), kind)).into();
        KindReport::compare(&mut kinds);
        let unearned = |name| (kinds[name].unearned * 1e9).round() / 1e9;
        assert_eq!(["honest", "twins", "echo"].map(unearned), [0.0, 0.05, 0.05]);
        let share = unearned_share(&kinds).unwrap();
        assert!((share - 0.1).abs() < 1e-9, "{share}");
    }
}
