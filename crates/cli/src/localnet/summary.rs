//! `summary.json` and the closing table: the run in figures, for programs and for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use connito_protocol::ids::{Cycle, StateId};
use connito_protocol::reason::ReasonCode;
use serde::Serialize;

use super::harvest::HeldoutLoss;
use super::plan::Plan;
use super::story::{Adopted, Story};
use crate::config::MinerConduct;
use crate::roles::Kind;

/// The document that `OUT/summary.json` holds; README.md explains every field.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) cycles: Vec<CycleSummary>,
    pub(crate) miners: Vec<MinerSummary>,
    #[serde(rename = "final")]
    pub(crate) last: FinalSummary,
    pub(crate) broken_invariants: Vec<String>,
}

/// One cycle.
#[derive(Debug, Serialize)]
pub(crate) struct CycleSummary {
    pub(crate) cycle: u64,
    pub(crate) heldout_loss_before: Option<f64>,
    pub(crate) heldout_loss_after: Option<f64>,
    pub(crate) accepted: usize,
    pub(crate) rejected: usize,
    pub(crate) bytes_sent: u64,
    /// What miners fetched to hold this cycle's base.
    pub(crate) bytes_fetched: u64,
    /// Bytes of the shards that they did not have: what fetching them whole would have taken.
    pub(crate) bytes_whole: u64,
    /// How many miners recomputed a part of the base.
    pub(crate) recomputed: usize,
    pub(crate) rewards: BTreeMap<String, f64>,
    pub(crate) rewards_withheld: f64,
    pub(crate) passed_gate: Option<bool>,
    pub(crate) state_hashes: BTreeMap<String, String>,
}

/// One miner.
#[derive(Debug, Serialize)]
pub(crate) struct MinerSummary {
    pub(crate) name: String,
    pub(crate) hotkey: String,
    pub(crate) group: u16,
    pub(crate) conduct: MinerConduct,
    /// One entry a cycle; null where nothing was sealed.
    pub(crate) reason_codes: Vec<Option<ReasonCode>>,
    /// One entry a cycle; null where nothing was trained.
    pub(crate) experts_trained: Vec<Option<u32>>,
    pub(crate) reward: f64,
}

/// What is left at the end.
#[derive(Debug, Serialize)]
pub(crate) struct FinalSummary {
    pub(crate) state_hash: String,
    pub(crate) heldout_loss: Option<f64>,
    pub(crate) heldout_loss_by_domain: BTreeMap<String, Option<f64>>,
}

/// What a summary is made of.
#[derive(Debug)]
pub(crate) struct Figures<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) story: &'a Story,
    pub(crate) cycles: u64,
    /// The state before each cycle, and after the last.
    pub(crate) states: &'a [StateId],
    /// Their held-out losses.
    pub(crate) losses: &'a [HeldoutLoss],
    pub(crate) broken: Vec<String>,
}

impl Summary {
    /// Puts the figures together.
    pub(crate) fn new(figures: Figures<'_>) -> Self {
        let cycles = (0..figures.cycles)
            .map(|cycle| figures.cycle(cycle))
            .collect();
        let miners = figures.miners();
        let last = figures.losses.last();
        let by_domain = last
            .into_iter()
            .flat_map(|loss| &loss.domains)
            .map(|(domain, losses)| (domain.clone(), connito_protocol::scoring::mean_loss(losses)));
        Self {
            cycles,
            miners,
            last: FinalSummary {
                state_hash: figures
                    .states
                    .last()
                    .map_or_else(String::new, StateId::to_string),
                heldout_loss: last.and_then(HeldoutLoss::mean),
                heldout_loss_by_domain: by_domain.collect(),
            },
            broken_invariants: figures.broken,
        }
    }

    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "\ncycle   held-out loss       accepted  rejected     sent  fetched   (whole)  rewards\n",
        );
        for cycle in &self.cycles {
            let loss = |loss: Option<f64>| {
                loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.4}"))
            };
            let rewards: Vec<String> = cycle
                .rewards
                .iter()
                .map(|(hotkey, share)| format!("{} {:.0} %", self.name(hotkey), share * 100.0))
                .collect();
            let (before, after) = (
                loss(cycle.heldout_loss_before),
                loss(cycle.heldout_loss_after),
            );
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{:>5}   {before} → {after}   {:>8}  {:>8}  {:>7}  {:>7} ({:>7})  {}",
                cycle.cycle,
                cycle.accepted,
                cycle.rejected,
                megabytes(cycle.bytes_sent),
                megabytes(cycle.bytes_fetched),
                megabytes(cycle.bytes_whole),
                rewards.join(", ")
            );
        }
        text.push_str("\nminer      group  reward  verdicts\n");
        for miner in &self.miners {
            let codes: Vec<&str> = miner
                .reason_codes
                .iter()
                .map(|code| code.map_or("-", ReasonCode::text))
                .collect();
            let conduct = match miner.conduct {
                MinerConduct::Honest => "",
                MinerConduct::Damaging => " (does damage)",
                MinerConduct::Copying => " (copies)",
            };
            let _ = writeln!(
                text,
                "{:<10} {:>5}  {:>5.2}   {}{conduct}",
                miner.name,
                miner.group,
                miner.reward,
                codes.join(", ")
            );
        }
        let _ = write!(text, "\nfinal state {}", self.last.state_hash);
        if let Some(loss) = self.last.heldout_loss {
            let _ = write!(text, ", held-out loss {loss:.4}");
        }
        text
    }

    fn name(&self, hotkey: &str) -> String {
        let miner = self.miners.iter().find(|miner| miner.hotkey == hotkey);
        miner.map_or_else(|| hotkey.to_owned(), |miner| miner.name.clone())
    }
}

impl Figures<'_> {
    fn cycle(&self, cycle: u64) -> CycleSummary {
        let at = usize::try_from(cycle).unwrap_or(usize::MAX);
        let story = self.story.cycles.get(&Cycle(cycle));
        let verdicts = story
            .and_then(|story| story.verdicts.as_deref())
            .unwrap_or_default();
        let accepted = verdicts
            .iter()
            .filter(|verdict| verdict.weight > 0.0)
            .count();
        let rewards = story.and_then(|story| story.rewards.as_ref());
        let shares = rewards.into_iter().flat_map(|rewards| &rewards.shares);
        let withheld = rewards.map_or(1.0, |rewards| rewards.withheld);
        let mut listed: BTreeMap<String, f64> = shares
            .map(|(hotkey, share)| (hotkey.to_string(), *share))
            .collect();
        if withheld > 0.0 {
            // Beside the shares, so that their sum is one and nothing is missing without a word.
            listed.insert("withheld".to_owned(), withheld);
        }
        let loss = |at: usize| self.losses.get(at).and_then(HeldoutLoss::mean);
        let adopted = self.adopted_by_miners(cycle);
        CycleSummary {
            cycle,
            heldout_loss_before: loss(at),
            heldout_loss_after: loss(at + 1),
            accepted,
            rejected: verdicts.len() - accepted,
            bytes_sent: story.map_or(0, |story| story.bytes_sent),
            bytes_fetched: adopted.iter().map(|adopted| adopted.bytes_fetched).sum(),
            bytes_whole: adopted.iter().map(|adopted| adopted.bytes_whole).sum(),
            recomputed: adopted.iter().filter(|adopted| adopted.recomputed).count(),
            rewards: listed,
            rewards_withheld: withheld,
            passed_gate: story.and_then(|story| story.passed),
            state_hashes: story
                .into_iter()
                .flat_map(|story| &story.committed)
                .map(|(hotkey, state)| (hotkey.to_string(), state.to_string()))
                .collect(),
        }
    }

    fn adopted_by_miners(&self, cycle: u64) -> Vec<Adopted> {
        let Some(story) = self.story.cycles.get(&Cycle(cycle)) else {
            return Vec::new();
        };
        let actors = self.plan.actors.iter();
        let miners = actors.filter(|actor| actor.kind == Kind::Miner);
        miners
            .filter_map(|actor| story.adopted.get(&actor.name).copied())
            .collect()
    }

    fn miners(&self) -> Vec<MinerSummary> {
        let miners = self
            .plan
            .actors
            .iter()
            .filter(|actor| actor.kind == Kind::Miner);
        (0_u16..)
            .zip(miners)
            .map(|(number, actor)| {
                let of = |cycle: u64| self.story.cycles.get(&Cycle(cycle));
                let code = |cycle| {
                    let verdicts = of(cycle)?.verdicts.as_ref()?;
                    verdicts
                        .iter()
                        .find(|v| v.hotkey == actor.hotkey)
                        .map(|v| v.code)
                };
                let experts = |cycle| of(cycle)?.experts_trained.get(&actor.name).copied();
                let share = |cycle| {
                    of(cycle)?
                        .rewards
                        .as_ref()?
                        .shares
                        .get(&actor.hotkey)
                        .copied()
                };
                MinerSummary {
                    name: actor.name.clone(),
                    hotkey: actor.hotkey.to_string(),
                    group: number % self.plan.groups,
                    conduct: actor.conduct,
                    reason_codes: (0..self.cycles).map(code).collect(),
                    experts_trained: (0..self.cycles).map(experts).collect(),
                    // Not sum(): that of nothing is minus zero.
                    reward: (0..self.cycles)
                        .filter_map(share)
                        .fold(0.0, |sum, share| sum + share),
                }
            })
            .collect()
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
