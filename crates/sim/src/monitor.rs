//! Who watches a run: takes in every step and every block, and asks the invariants that it could break.
//!
//! It keeps what honest participants did and what stood on the chain, by cycle, and forgets a cycle two
//! later. An invariant is a named function in `monitor/invariant.rs`; this file only decides which are
//! asked when. The first violation ends the run. It looks inside no machine, only at what goes in and
//! comes out, and trusts no hostile participant's word.

mod forks;
pub(crate) mod hearing;
pub(crate) mod invariant;
mod record;
mod testimony;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use connito_learning::store::MemoryStore;
use connito_protocol::announcement::{Announcement, Vote};
use connito_protocol::conduct::Misconduct;
use connito_protocol::event::{Effect, Milestone};
use connito_protocol::ids::{BlobId, Cycle, Hotkey, StateId};
use connito_protocol::job::{Finding, Job, ScoreJob};
use connito_protocol::lineage::{self, Earlier};
use connito_protocol::reason::ReasonCode;
use connito_protocol::review::Reviewed;
use connito_protocol::schedule::Window;
use connito_protocol::snapshot::Snapshot;
use connito_protocol::submission::{Expected, collect};
use serde::{Deserialize, Serialize};

use hearing::{Hearing, Honest};
use invariant::Witnesses;
pub(crate) use record::{Judged, Record, Told};

use crate::adversary::Setting;
use crate::names::NameMap;
use crate::network::NodeId;
use crate::node::{Diverged, Node};
use crate::scenario::Scenario;

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Violation {
    /// Which invariant.
    pub invariant: String,
    /// After how many steps of machines it was noticed.
    pub step: u64,
    /// What was found, in one sentence.
    pub detail: String,
}

/// What a step can be compared with.
pub(crate) struct Seen<'a> {
    pub(crate) at: u64,
    pub(crate) store: &'a MemoryStore,
}

/// How a cycle ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Concluded {
    pub(crate) state: StateId,
    pub(crate) passed: Option<bool>,
}

/// Watches a run.
#[derive(Debug)]
pub(crate) struct Monitor {
    cycles: BTreeMap<Cycle, Record>,
    /// Cycles before this one are forgotten, but for how they ended: whoever comes back after a long
    /// time speaks of them once more.
    forgotten: Cycle,
    endings: BTreeMap<Cycle, Concluded>,
    /// The canonical states, the newest last; the first is the task's.
    canonical: Vec<StateId>,
    violations: Vec<Violation>,
    /// What was decided of every cycle, for the report.
    pub(crate) outcomes: BTreeMap<Cycle, CycleOutcome>,
    honest: Honest,
    groups: u16,
    significance: f64,
    device_noise: f64,
    /// Drawn committees of which hostile validators held most seats.
    pub(crate) captures: u64,
    /// Hostile validators that a review has excluded.
    pub(crate) caught: BTreeSet<Hotkey>,
}

/// What became of a cycle.
#[derive(Debug, Clone, Default)]
pub(crate) struct CycleOutcome {
    pub(crate) quorum: bool,
    pub(crate) passed: Option<bool>,
    pub(crate) withheld: f64,
    pub(crate) shares: BTreeMap<Hotkey, f64>,
    pub(crate) codes: BTreeMap<Hotkey, ReasonCode>,
    pub(crate) gate: Option<(f64, Option<f64>)>,
}

/// Cycles before the current one that can still be asked about.
const REMEMBERED_CYCLES: u64 = 2;

impl Monitor {
    pub(crate) fn new(setting: &Setting, scenario: &Scenario) -> Self {
        let mut monitor = Self {
            cycles: BTreeMap::new(),
            forgotten: Cycle(0),
            endings: BTreeMap::new(),
            canonical: vec![setting.first_state],
            violations: Vec::new(),
            outcomes: BTreeMap::new(),
            honest: Honest::new(),
            groups: scenario.groups,
            significance: setting.manifest.rules.scoring.significance,
            device_noise: scenario.work.device_noise_nats,
            captures: 0,
            caught: BTreeSet::new(),
        };
        monitor.note(0, invariant::every_expert_in_exactly_one_group(setting));
        monitor
    }

    pub(crate) fn has_failed(&self) -> bool {
        !self.violations.is_empty()
    }

    pub(crate) fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Writes down what an invariant found.
    pub(crate) fn note(&mut self, step: u64, found: invariant::Check) {
        if let Err((invariant, detail)) = found {
            self.violations.push(Violation {
                invariant: invariant.to_owned(),
                step,
                detail,
            });
        }
    }

    /// Takes in a block as it was made.
    pub(crate) fn block(
        &mut self,
        snapshot: &Arc<Snapshot>,
        setting: &Setting,
        store: &MemoryStore,
    ) {
        let Some(moment) = setting.schedule.at(snapshot.block) else {
            return;
        };
        let forget = moment.cycle.0.saturating_sub(REMEMBERED_CYCLES);
        self.forgotten = Cycle(forget);
        self.cycles.retain(|cycle, _| cycle.0 >= forget);
        if (moment.window, moment.closes_window) == (Window::Reveal, true) {
            return self.close_uploads(moment.cycle, snapshot, setting, store);
        }
        let opens = |window| setting.schedule.opens(moment.cycle, window);
        if snapshot.block == opens(Window::Score) {
            self.draw((moment.cycle, snapshot), setting, store);
        }
        let record = self.cycles.entry(moment.cycle).or_default();
        match moment.window {
            Window::Seal if moment.closes_window => record.sealed = Some(Arc::clone(snapshot)),
            Window::Score if moment.closes_window => {
                record.hearing.read(moment.cycle, snapshot, &self.honest);
            }
            Window::Vote => {
                let half = setting.manifest.rules.windows.vote.div_ceil(2);
                if snapshot.block.0 + 1 == opens(Window::Vote).0 + half {
                    record.hearing.attest(moment.cycle, snapshot);
                }
            }
            _ => {}
        }
    }

    fn close_uploads(
        &mut self,
        cycle: Cycle,
        snapshot: &Snapshot,
        setting: &Setting,
        store: &MemoryStore,
    ) {
        let record = self.cycles.entry(cycle).or_default();
        record.hearing = Hearing::new(snapshot.voters());
        let Some((base, older)) = self.canonical.split_last() else {
            return;
        };
        let earlier = earlier(store, *base, (cycle, setting));
        let expected = Expected {
            network: setting.network,
            cycle,
            base: *base,
            earlier: earlier.as_deref(),
            older: &older[older.len().saturating_sub(4)..],
            assignment: &setting.assignment,
            schedule: &setting.schedule,
        };
        // Kept, for a fork may take back this block and not that one.
        let sealed = record.sealed.as_ref();
        let submissions = sealed.and_then(|sealed| collect(&expected, sealed, snapshot));
        record.show(submissions);
    }

    fn draw(
        &mut self,
        (cycle, seeded): (Cycle, &Snapshot),
        setting: &Setting,
        store: &MemoryStore,
    ) {
        let base = self.canonical.last();
        let base = base.and_then(|base| invariant::manifest(store, *base));
        let excluded = base.map(|base| base.excluded).unwrap_or_default();
        let record = self.cycles.entry(cycle).or_default();
        let Record {
            hearing,
            captures,
            submissions: Some(submissions),
            ..
        } = record
        else {
            return;
        };
        hearing.draw(
            (cycle, seeded.hash),
            submissions,
            &excluded,
            &setting.manifest,
        );
        // A fork can draw a cycle's committees once more.
        let before = std::mem::replace(captures, hearing.captures(&self.honest));
        self.captures = self.captures + *captures - before;
    }

    /// Learns who is an honest validator.
    pub(crate) fn trust(&mut self, hotkey: Hotkey, id: NodeId) {
        self.honest.insert(hotkey, id);
    }

    /// A validator has told a miner that its upload is safe.
    pub(crate) fn accepted(&mut self, by: NodeId, cycle: Cycle, (whose, blob): (Hotkey, BlobId)) {
        let record = self.cycles.entry(cycle).or_default();
        record.accepted.entry(by).or_default().insert(whose, blob);
    }

    /// Whether a server has taken an update lately, so that anybody can have it.
    pub(crate) fn is_public(&self, update: BlobId) -> bool {
        let servers = self
            .cycles
            .values()
            .flat_map(|record| record.accepted.values());
        servers
            .flat_map(NameMap::values)
            .any(|taken| *taken == update)
    }

    /// A node has come back: what it had acknowledged must still be there.
    pub(crate) fn restarted(&mut self, step: u64, node: &Node) {
        let cycles = self.cycles.iter();
        let accepted =
            cycles.filter_map(|(cycle, record)| Some((*cycle, record.accepted.get(&node.id)?)));
        let found: Vec<_> = accepted
            .map(|(cycle, accepted)| {
                let kept = invariant::Kept {
                    holds: &node.holds,
                    received: node.received(cycle),
                };
                invariant::no_accepted_upload_lost(node.id, (cycle, accepted), kept)
            })
            .collect();
        for found in found {
            self.note(step, found);
        }
    }

    /// A journal did not lead back to where it came from.
    pub(crate) fn diverged(&mut self, step: u64, node: &Node, diverged: &Diverged) {
        let found = invariant::replay_gives_the_same_effects(node, diverged);
        self.note(step, found);
    }

    /// Takes in a durable step.
    pub(crate) fn step(&mut self, seen: &Seen<'_>, nodes: &[Node], id: NodeId, effects: &[Effect]) {
        let node = &nodes[id.place()];
        let bounds = invariant::bounds_hold(node, effects, (nodes.len(), self.groups));
        self.note(seen.at, bounds);
        // Whoever still stands on blocks that were taken back speaks of another history.
        if !node.kind.is_honest_validator() || node.stands_on_air {
            return;
        }
        for effect in effects {
            match effect {
                Effect::Run(Job::Score(job)) => self.scores(seen, job),
                Effect::Announce {
                    announcement: Announcement::Voted(vote),
                } => self.votes(seen, node, *vote),
                Effect::Tell(milestone) => self.told(seen, id, milestone),
                _ => {}
            }
        }
    }

    fn scores(&mut self, seen: &Seen<'_>, job: &ScoreJob) {
        let Some(record) = self.cycles.get(&job.cycle) else {
            return;
        };
        let found = invariant::only_revealed_commitments_are_scored(record, job);
        self.note(seen.at, found);
    }

    fn votes(&mut self, seen: &Seen<'_>, node: &Node, vote: Vote) {
        let record = self.cycles.entry(vote.cycle).or_default();
        if std::mem::take(&mut record.anew.pair) {
            record.pair = None;
        }
        let found = invariant::honest_validators_vote_for_one_pair(record, node.id, &vote);
        record.pair.get_or_insert((vote.candidate, vote.fallback));
        self.note(seen.at, found);
    }

    fn told(&mut self, seen: &Seen<'_>, id: NodeId, milestone: &Milestone) {
        match milestone {
            Milestone::Measured { cycle, findings } => self.measured(seen, *cycle, (id, findings)),
            Milestone::Judged {
                cycle,
                quorum,
                verdicts,
                rewards,
            } => {
                self.judged(seen, *cycle, (*quorum, verdicts, rewards));
            }
            Milestone::Reviewed { cycle, reviewed } => self.reviewed(seen, *cycle, reviewed),
            Milestone::Conduct { cycle, conduct } => self.conduct(seen, *cycle, conduct),
            Milestone::Gate {
                cycle,
                incumbent_loss,
                candidate_loss,
                ..
            } => self.gated(*cycle, (*incumbent_loss, *candidate_loss)),
            Milestone::Concluded {
                cycle,
                state,
                passed,
                ..
            } => {
                let (state, passed) = (*state, *passed);
                self.concluded(seen, *cycle, Concluded { state, passed });
            }
            Milestone::NotRegistered
            | Milestone::TaskLoaded { .. }
            | Milestone::TaskFollows { .. }
            | Milestone::TaskRefused { .. }
            | Milestone::BaseReady { .. }
            | Milestone::PresentedLate { .. }
            | Milestone::Trained(_)
            | Milestone::WeightsSent { .. }
            | Milestone::Receipt(_)
            | Milestone::Included { .. }
            | Milestone::JobFailed { .. }
            | Milestone::ResidualDropped { .. }
            | Milestone::ChainRefused { .. } => {}
        }
    }

    fn measured(
        &mut self,
        seen: &Seen<'_>,
        cycle: Cycle,
        (id, findings): (NodeId, &[(Hotkey, Finding)]),
    ) {
        let record = self.cycles.entry(cycle).or_default();
        let found = invariant::nobody_is_scored_twice(record, cycle, id);
        record.measured.insert(id);
        for (hotkey, finding) in findings {
            // After a fork, what was found last is what is reported.
            let findings = record.findings.entry(*hotkey).or_default();
            findings.retain(|(by, _)| *by != id);
            findings.push((id, *finding));
        }
        self.note(seen.at, found);
    }

    fn reviewed(&mut self, seen: &Seen<'_>, cycle: Cycle, reviewed: &[Reviewed]) {
        let contradicted = reviewed.iter().flat_map(|review| &review.contradicted);
        let blamed: Vec<_> = contradicted
            .map(|hotkey| (*hotkey, "contradicted by a review"))
            .collect();
        self.blame(seen, cycle, blamed);
    }

    /// What an honest validator may be blamed for all the same: that it crashed or came late, and that a
    /// committee of which others held most seats said something else.
    fn conduct(&mut self, seen: &Seen<'_>, cycle: Cycle, conduct: &BTreeMap<Hotkey, Misconduct>) {
        let Some(record) = self.cycles.get(&cycle) else {
            return;
        };
        let serious = conduct
            .iter()
            .filter(|(hotkey, misconduct)| match misconduct {
                Misconduct::Equivocation | Misconduct::StateMismatch => true,
                Misconduct::ReportOutlier => {
                    !record.hearing.sits_among_liars(**hotkey, &self.honest)
                }
                Misconduct::ReportMissing | Misconduct::ReportLate | Misconduct::ReportMismatch => {
                    false
                }
            });
        let blamed: Vec<_> = serious
            .map(|(hotkey, misconduct)| (*hotkey, misconduct.text()))
            .collect();
        self.blame(seen, cycle, blamed);
    }

    fn blame(&mut self, seen: &Seen<'_>, cycle: Cycle, blamed: Vec<(Hotkey, &'static str)>) {
        let outvoted = |record: &Record| record.hearing.is_outvoted(&self.honest);
        if self.cycles.get(&cycle).is_none_or(outvoted) {
            return;
        }
        let of_cycle = (&self.honest, cycle);
        let found = invariant::no_honest_validator_is_excluded_or_blamed(blamed, of_cycle);
        self.note(seen.at, found);
    }

    /// Who is not drawn from now on, by the state that a cycle ended in.
    fn excluded(&mut self, seen: &Seen<'_>, cycle: Cycle, (old, new): (StateId, StateId)) {
        let excluded = |state| invariant::manifest(seen.store, state).map(|state| state.excluded);
        let (Some(old), Some(new)) = (excluded(old), excluded(new)) else {
            return;
        };
        let fresh = new.keys().filter(|hotkey| !old.contains_key(hotkey));
        let fresh: Vec<_> = fresh.map(|hotkey| (*hotkey, "excluded")).collect();
        let hostile = fresh
            .iter()
            .filter(|(hotkey, _)| !self.honest.contains_key(hotkey));
        self.caught.extend(hostile.map(|(hotkey, _)| *hotkey));
        self.blame(seen, cycle, fresh);
    }

    fn gated(&mut self, cycle: Cycle, losses: (f64, Option<f64>)) {
        let record = self.cycles.entry(cycle).or_default();
        if std::mem::take(&mut record.anew.gate) {
            record.gate.clear();
        }
        record.gate.push(losses);
        let outcome = self.outcomes.entry(cycle).or_default();
        outcome.gate.get_or_insert(losses);
    }

    fn judged(&mut self, seen: &Seen<'_>, cycle: Cycle, judged: Told<'_>) {
        if cycle < self.forgotten {
            return;
        }
        let record = self.cycles.entry(cycle).or_default();
        if std::mem::take(&mut record.anew.judged) {
            record.judged = None;
        }
        if let Some(first) = &record.judged {
            let found = invariant::honest_validators_judge_alike(first, judged, cycle);
            return self.note(seen.at, found);
        }
        let (quorum, verdicts, rewards) = judged;
        let judged = Judged {
            quorum,
            verdicts: verdicts.to_vec(),
            rewards: rewards.clone(),
        };
        let witnesses = Witnesses {
            record,
            honest: &self.honest,
            significance: self.significance,
            device_noise: self.device_noise,
        };
        let checks = [
            invariant::rewards_sum_to_one_or_are_withheld(&judged, cycle),
            invariant::no_charge_without_evidence(&witnesses, &judged, cycle),
            invariant::no_reward_without_evidence(&witnesses, &judged, cycle),
        ];
        let outcome = self.outcomes.entry(cycle).or_default();
        outcome.quorum = judged.quorum;
        outcome.withheld = judged.rewards.withheld;
        outcome.shares = judged.rewards.shares.clone();
        let codes = judged.verdicts.iter();
        outcome.codes = codes
            .map(|verdict| (verdict.hotkey, verdict.code))
            .collect();
        record.judged = Some(judged);
        for found in checks {
            self.note(seen.at, found);
        }
    }

    fn concluded(&mut self, seen: &Seen<'_>, cycle: Cycle, concluded: Concluded) {
        if let Some(first) = self.endings.get(&cycle) {
            let found = invariant::one_state_a_cycle(*first, concluded, cycle);
            return self.note(seen.at, found);
        }
        self.endings.insert(cycle, concluded);
        let record = self.cycles.entry(cycle).or_default();
        let outcome = self.outcomes.entry(cycle).or_default();
        outcome.passed = concluded.passed;
        let incumbent = self.canonical.last().copied();
        let checks = [
            invariant::nothing_outside_accepted_groups_changes(
                seen,
                record,
                (incumbent, concluded),
            ),
            invariant::new_state_is_no_worse_at_the_gate(record, concluded, self.device_noise),
        ];
        if concluded.passed.is_some() && incumbent != Some(concluded.state) {
            self.canonical.push(concluded.state);
        }
        for found in checks {
            self.note(seen.at, found);
        }
        if let Some(incumbent) = incumbent {
            self.excluded(seen, cycle, (incumbent, concluded.state));
        }
    }
}

/// The states before a cycle's base that an update may still build on.
fn earlier(
    store: &MemoryStore,
    base: StateId,
    (cycle, setting): (Cycle, &Setting),
) -> Option<Vec<Earlier>> {
    let window = setting.manifest.rules.scoring.rebase_window;
    let mut manifests = BTreeMap::new();
    let mut next = Some(base);
    // Each of them was the base of one cycle at least.
    while let Some(state) = next
        && (manifests.len() as u64) <= window
    {
        let manifest = invariant::manifest(store, state)?;
        next = manifest.parent;
        manifests.insert(state, manifest);
    }
    lineage::earlier(base, (cycle, window), |state| manifests.get(&state)).ok()
}
