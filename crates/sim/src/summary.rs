//! Many runs of one scenario, added up in the order of their seeds.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::{CycleReport, KindReport, RunReport, Traffic, unearned_share};

/// A run that violated an invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// Which invariant.
    pub invariant: String,
    /// After how many steps of machines it was noticed.
    pub step: u64,
    /// What was found.
    pub detail: String,
}

/// How cycles ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CycleCounts {
    /// Cycles of which honest validators read verdicts off the chain.
    pub judged: u64,
    /// Those with a quorum of reports.
    pub quorum: u64,
    /// Those whose votes decided the next state.
    pub decided: u64,
    /// Those whose candidate passed the gate.
    pub passed: u64,
}

/// Runs added up. Equal scenarios and seeds give equal summaries, however many threads ran them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The first seed.
    pub first_seed: u64,
    /// Runs.
    pub seeds: u64,
    /// Runs that violated an invariant.
    pub violations: u64,
    /// Which, and how.
    pub failures: Vec<Failure>,
    /// The honest miners' share of all rewards that were not withheld; nothing if nobody earned.
    pub honest_reward_share: Option<f64>,
    /// The smallest such share of a single run.
    pub lowest_honest_reward_share: Option<f64>,
    /// What hostile miners were paid beyond an honest miner's pay for as many steps, as a part of all that
    /// was paid; nothing if nobody earned.
    pub unearned_reward_share: Option<f64>,
    /// Rewards that somebody earned; each cycle of each run has 1 to give.
    pub paid: f64,
    /// How cycles ended.
    pub cycles: CycleCounts,
    /// Drawn committees of which hostile validators held more than half of the seats.
    pub captures: u64,
    /// Hostile validators that a review has excluded.
    pub caught: u64,
    /// Submissions by verdict.
    pub codes: BTreeMap<String, u64>,
    /// Miners by kind.
    pub kinds: BTreeMap<String, KindReport>,
    /// What was moved and what went wrong on the way.
    pub traffic: Traffic,
    /// Cycle by cycle, of a single run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by_cycle: Vec<CycleReport>,
    /// Steps of machines.
    pub steps: u64,
    /// Blocks that were made.
    pub blocks: u64,
    /// Simulated time, in seconds.
    pub simulated_seconds: f64,
    /// Most happenings that ever waited.
    pub longest_queue: usize,
}

impl Summary {
    /// Adds up runs in the order in which they stand.
    #[must_use]
    pub fn new(runs: &[RunReport]) -> Self {
        let failures: Vec<Failure> = runs.iter().flat_map(failures).collect();
        let kinds = kinds(runs);
        let paid: f64 = kinds.values().map(|kind| kind.reward).sum();
        let honest = kinds.get("honest").map_or(0.0, |kind| kind.reward);
        let shares = runs.iter().filter_map(|run| run.honest_reward_share);
        let mut traffic = Traffic::default();
        runs.iter().for_each(|run| traffic.add(&run.traffic));
        let cycles = || runs.iter().flat_map(|run| &run.cycles);
        Self {
            first_seed: runs.first().map_or(0, |run| run.seed),
            seeds: runs.len() as u64,
            violations: failures.len() as u64,
            failures,
            honest_reward_share: (paid > 0.0).then(|| honest / paid),
            lowest_honest_reward_share: shares.reduce(f64::min),
            unearned_reward_share: unearned_share(&kinds),
            paid,
            cycles: counts(cycles()),
            captures: runs.iter().map(|run| run.captures).sum(),
            caught: runs.iter().map(|run| run.caught).sum(),
            codes: added(cycles().map(|cycle| &cycle.codes)),
            kinds,
            traffic,
            by_cycle: match runs {
                [only] => only.cycles.clone(),
                _ => Vec::new(),
            },
            steps: runs.iter().map(|run| run.steps).sum(),
            blocks: runs.iter().map(|run| run.blocks).sum(),
            simulated_seconds: runs.iter().map(|run| run.simulated_seconds).sum(),
            longest_queue: runs.iter().map(|run| run.longest_queue).max().unwrap_or(0),
        }
    }
}

fn failures(run: &RunReport) -> impl Iterator<Item = Failure> {
    run.violations.first().into_iter().map(|violation| Failure {
        seed: run.seed,
        invariant: violation.invariant.clone(),
        step: violation.step,
        detail: violation.detail.clone(),
    })
}

fn counts<'a>(cycles: impl Iterator<Item = &'a CycleReport>) -> CycleCounts {
    let mut counts = CycleCounts::default();
    for cycle in cycles {
        counts.judged += 1;
        counts.quorum += u64::from(cycle.quorum);
        counts.decided += u64::from(cycle.passed.is_some());
        counts.passed += u64::from(cycle.passed == Some(true));
    }
    counts
}

fn added<'a>(counts: impl Iterator<Item = &'a BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (word, count) in counts.flatten() {
        *sums.entry(word.clone()).or_default() += count;
    }
    sums
}

fn kinds(runs: &[RunReport]) -> BTreeMap<String, KindReport> {
    let mut kinds: BTreeMap<String, KindReport> = BTreeMap::new();
    for (name, kind) in runs.iter().flat_map(|run| &run.kinds) {
        kinds.entry(name.clone()).or_default().add(kind);
    }
    KindReport::compare(&mut kinds);
    kinds
}
