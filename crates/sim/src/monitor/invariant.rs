//! The invariants, one function each. Inputs are what honest participants did and what the chain shows;
//! the answer is nothing, or the invariant's name and one sentence.

use std::collections::{BTreeMap, BTreeSet};

use connito_learning::store::{BlobStore, MemoryStore};
use connito_protocol::announcement::{MAXIMUM_ANNOUNCEMENT_BYTES, Vote};
use connito_protocol::consensus::Verdict;
use connito_protocol::event::Effect;
use connito_protocol::ids::{BlobId, Cycle, GroupId, Hotkey, StateId};
use connito_protocol::job::{Finding, ScoreJob};
use connito_protocol::manifest::{Document, GroupState, StateManifest};
use connito_protocol::partition;
use connito_protocol::reason::{Charged, ReasonCode};
use connito_protocol::submission::Opening;

use super::hearing::Honest;
use super::testimony::{Testimonies, Word};
use super::{Concluded, Judged, Record, Seen, Told};
use crate::adversary::Setting;
use crate::names::{NameMap, NameSet};
use crate::network::NodeId;
use crate::node::{Diverged, Node};

/// Nothing, or the name of an invariant and what breaks it.
pub(crate) type Check = Result<(), (&'static str, String)>;

/// How far sums of shares may be from 1: rounding of a few thousand additions.
const ROUNDING: f64 = 1e-9;

/// How far two kinds of processors may be apart, in standard deviations of one: six of each.
const TOLERATED_DEVIATIONS: f64 = 12.0;

/// Blobs of a participant that a node may wait for at once: its updates of two cycles, and its report.
const FETCHES_OF_A_NODE: usize = 3;

/// Blobs of a group: shard and momentum of two states, and three pools of text.
const FETCHES_OF_A_GROUP: usize = 7;

/// Everything else: the task and its fixed parts, and manifests of a few states.
const FETCHES: usize = 16;

/// Every expert is in exactly one group (P-5).
pub(crate) fn every_expert_in_exactly_one_group(setting: &Setting) -> Check {
    partition::check(&setting.manifest.groups)
        .map_err(|error| ("every_expert_in_exactly_one_group", error.to_string()))
}

/// All honest validators take the same state for canonical after a cycle (P-33, A-89).
pub(crate) fn one_state_a_cycle(first: Concluded, other: Concluded, cycle: Cycle) -> Check {
    if first == other {
        return Ok(());
    }
    let detail = format!(
        "cycle {cycle} ends in {:?} for one honest validator and in {:?} for another",
        first.state, other.state
    );
    Err(("one_state_a_cycle", detail))
}

/// All honest validators compute the same two states that may follow (P-31, A-90).
pub(crate) fn honest_validators_vote_for_one_pair(
    record: &Record,
    node: NodeId,
    vote: &Vote,
) -> Check {
    let pair = (vote.candidate, vote.fallback);
    match record.pair {
        Some(first) if first != pair => {
            let cycle = vote.cycle;
            let detail = format!(
                "in cycle {cycle} validator {} votes for {:?} or {:?}, another honest one for {:?} or {:?}",
                node.0, pair.0, pair.1, first.0, first.1
            );
            Err(("honest_validators_vote_for_one_pair", detail))
        }
        _ => Ok(()),
    }
}

/// All honest validators read the same verdicts and rewards off the chain (P-14, P-28).
pub(crate) fn honest_validators_judge_alike(
    first: &Judged,
    other: Told<'_>,
    cycle: Cycle,
) -> Check {
    match first.told() == other {
        true => Ok(()),
        false => Err((
            "honest_validators_judge_alike",
            format!("two honest validators read different verdicts of cycle {cycle}"),
        )),
    }
}

/// Nothing is measured that was not sealed and opened in time (P-15, A-1, A-17).
pub(crate) fn only_revealed_commitments_are_scored(record: &Record, job: &ScoreJob) -> Check {
    let opened = &record.opened;
    let stranger = job
        .updates
        .iter()
        .find(|candidate| !opened.contains(&(candidate.hotkey, candidate.update)));
    stranger.map_or(Ok(()), |candidate| {
        let detail = format!(
            "in cycle {} an honest validator scores {:?} of {:?}, which the chain does not show as opened",
            job.cycle, candidate.update, candidate.hotkey
        );
        Err(("only_revealed_commitments_are_scored", detail))
    })
}

/// One validator measures a cycle's submissions once, whatever happens to it.
pub(crate) fn nobody_is_scored_twice(record: &Record, cycle: Cycle, node: NodeId) -> Check {
    match record.measured.contains(&node) {
        false => Ok(()),
        true => {
            let detail = format!("validator {} scores cycle {cycle} a second time", node.0);
            Err(("nobody_is_scored_twice", detail))
        }
    }
}

/// Shares and what is withheld add up to 1, and only gains are paid (P-40, A-106).
pub(crate) fn rewards_sum_to_one_or_are_withheld(judged: &Judged, cycle: Cycle) -> Check {
    const NAME: &str = "rewards_sum_to_one_or_are_withheld";
    let rewards = &judged.rewards;
    let sum = rewards.shares.values().sum::<f64>() + rewards.withheld;
    if (sum - 1.0).abs() > ROUNDING {
        let detail = format!("shares and what is withheld in cycle {cycle} add up to {sum}");
        return Err((NAME, detail));
    }
    let accepted = judged
        .verdicts
        .iter()
        .filter(|v| v.code == ReasonCode::Accepted);
    let accepted: BTreeSet<Hotkey> = accepted.map(|verdict| verdict.hotkey).collect();
    let unearned = |(hotkey, share): &(&Hotkey, &f64)| !accepted.contains(hotkey) || **share <= 0.0;
    match rewards.shares.iter().find(unearned) {
        None => Ok(()),
        Some((hotkey, share)) => {
            let detail = format!("{hotkey:?} has {share} of cycle {cycle} without being accepted");
            Err((NAME, detail))
        }
    }
}

/// What the verdicts of a cycle are held against.
pub(crate) struct Witnesses<'a> {
    pub(crate) record: &'a Record,
    pub(crate) honest: &'a Honest,
    /// Standard errors that are taken off a gain.
    pub(crate) significance: f64,
    /// Standard deviation between kinds of processors.
    pub(crate) device_noise: f64,
}

impl Witnesses<'_> {
    /// Whether a verdict on an opened update can have come of what honest members of its committee found.
    fn bear_out(&self, verdict: &Verdict, update: BlobId) -> bool {
        let hearing = &self.record.hearing;
        let Some(committee) = hearing.committee(verdict.group) else {
            return false;
        };
        let mut testimonies = Testimonies {
            all: committee.weight(),
            ..Testimonies::default()
        };
        for member in committee.members() {
            let weight = u128::from(member.weight);
            match self.honest.get(&member.hotkey) {
                None => testimonies.hostile += weight,
                Some(_) if !hearing.heard.contains(&member.hotkey) => {}
                Some(node) => {
                    let word = self.word(*node, verdict.hotkey);
                    testimonies.honest.extend(word.map(|word| (word, weight)));
                }
            }
        }
        let tolerance = TOLERATED_DEVIATIONS * self.device_noise;
        verdict.update == Some(update) && testimonies.allow(verdict, self.significance, tolerance)
    }

    fn word(&self, node: NodeId, miner: Hotkey) -> Option<Word> {
        let mut findings = self.record.findings.get(&miner).into_iter().flatten();
        match findings.find(|(by, _)| *by == node) {
            Some((_, Finding::Measured { measurement, .. })) => Some(Word::Measured(*measurement)),
            Some((_, Finding::Copy { .. })) => Some(Word::Fault(ReasonCode::Duplicate)),
            Some((_, Finding::Refused { code })) => {
                let charged = code.charged_to() == Charged::Miner;
                charged.then_some(Word::Fault(*code))
            }
            // It has reported, and this was not among what it set out to measure: it was not here then,
            // whether or not it came in time to be merged.
            None => Some(Word::Lacks),
        }
    }

    fn found(&self, miner: Hotkey) -> Vec<&Finding> {
        let findings = self.record.findings.get(&miner).into_iter().flatten();
        findings.map(|(_, finding)| finding).collect()
    }
}

/// Every verdict that costs a miner something follows from the chain, or from what honest members of the
/// committee found. Somebody who saw every block knows every submission.
pub(crate) fn no_charge_without_evidence(
    witnesses: &Witnesses<'_>,
    judged: &Judged,
    cycle: Cycle,
) -> Check {
    const NAME: &str = "no_charge_without_evidence";
    let Some(openings) = openings(witnesses.record) else {
        let detail = format!("cycle {cycle} is judged and the chain shows no submissions");
        return Err((NAME, detail));
    };
    let charged = |verdict: &&Verdict| verdict.code.charged_to() == Charged::Miner;
    for verdict in judged.verdicts.iter().filter(charged) {
        let evident = match openings.get(&verdict.hotkey) {
            Some(Opening::Refused(code)) => *code == verdict.code,
            Some(Opening::Update(update)) => witnesses.bear_out(verdict, *update),
            None => false,
        };
        if !evident {
            let detail = format!(
                "{:?} is charged with {} in cycle {cycle}, measured as {:?}; honest validators found {:?}",
                verdict.hotkey,
                verdict.code,
                verdict.measurement,
                witnesses.found(verdict.hotkey)
            );
            return Err((NAME, detail));
        }
    }
    Ok(())
}

/// Every update that is accepted was opened, and is worth as much by what honest members of the committee
/// found.
pub(crate) fn no_reward_without_evidence(
    witnesses: &Witnesses<'_>,
    judged: &Judged,
    cycle: Cycle,
) -> Check {
    let openings = openings(witnesses.record).unwrap_or_default();
    let accepted = |verdict: &&Verdict| verdict.code == ReasonCode::Accepted;
    for verdict in judged.verdicts.iter().filter(accepted) {
        let evident = match openings.get(&verdict.hotkey) {
            Some(Opening::Update(update)) => witnesses.bear_out(verdict, *update),
            Some(Opening::Refused(_)) | None => false,
        };
        if !evident {
            let detail = format!(
                "{:?} is accepted in cycle {cycle}, measured as {:?}; honest validators found {:?}",
                verdict.hotkey,
                verdict.measurement,
                witnesses.found(verdict.hotkey)
            );
            return Err(("no_reward_without_evidence", detail));
        }
    }
    Ok(())
}

fn openings(record: &Record) -> Option<BTreeMap<Hotkey, Opening>> {
    let submissions = record.submissions.as_ref()?.iter();
    Some(submissions.map(|s| (s.hotkey, s.opening)).collect())
}

/// No review and no record of conduct turns against an honest validator, as long as those that were heard
/// are more than the hostile ones (P-45, P-46). `blamed` are all that somebody was blamed for.
pub(crate) fn no_honest_validator_is_excluded_or_blamed(
    blamed: impl IntoIterator<Item = (Hotkey, &'static str)>,
    (honest, cycle): (&Honest, Cycle),
) -> Check {
    let mut blamed = blamed.into_iter();
    match blamed.find(|(hotkey, _)| honest.contains_key(hotkey)) {
        None => Ok(()),
        Some((hotkey, what)) => {
            let detail = format!("{hotkey:?} is honest and {what} in cycle {cycle}");
            Err(("no_honest_validator_is_excluded_or_blamed", detail))
        }
    }
}

/// The new state differs from the old one only in groups with accepted updates, and lists exactly these
/// (P-31, P-33, A-33, A-91).
pub(crate) fn nothing_outside_accepted_groups_changes(
    seen: &Seen<'_>,
    record: &Record,
    (incumbent, concluded): (Option<StateId>, Concluded),
) -> Check {
    const NAME: &str = "nothing_outside_accepted_groups_changes";
    let (Some(incumbent), Some(passed)) = (incumbent, concluded.passed) else {
        return Ok(());
    };
    let (Some(before), Some(after)) = (
        manifest(seen.store, incumbent),
        manifest(seen.store, concluded.state),
    ) else {
        return Err((
            NAME,
            format!("nobody has the manifest of {:?}", concluded.state),
        ));
    };
    let judged = record.judged.iter().flat_map(|judged| &judged.verdicts);
    let accepted: Vec<&Verdict> = judged.filter(|verdict| verdict.weight > 0.0).collect();
    let groups: BTreeSet<GroupId> = accepted.iter().map(|verdict| verdict.group).collect();
    for (old, new) in before.groups.iter().zip(&after.groups) {
        let touched = groups.contains(&old.group);
        if let Some(what) = unexpected_change(old, new, (touched, passed)) {
            return Err((NAME, format!("{what} of group {} changed", old.group)));
        }
    }
    let merged: Vec<(Hotkey, BlobId)> = after
        .merged
        .iter()
        .map(|merged| (merged.hotkey, merged.update))
        .collect();
    let expected = accepted.iter().filter(|_| passed);
    let expected: Vec<_> = expected
        .filter_map(|verdict| Some((verdict.hotkey, verdict.update?)))
        .collect();
    match merged == expected && before.groups.len() == after.groups.len() {
        true => Ok(()),
        false => Err((
            NAME,
            "the new state lists other updates than the accepted ones".to_owned(),
        )),
    }
}

/// `touched` says whether the group had accepted updates. A refused step halves its momentum.
fn unexpected_change(
    old: &GroupState,
    new: &GroupState,
    (touched, passed): (bool, bool),
) -> Option<&'static str> {
    match (touched, passed) {
        _ if old.group != new.group => Some("the number"),
        (true, true) => None,
        (true, false) => (old.shard != new.shard).then_some("the shard"),
        (false, _) => (old != new).then_some("a part"),
    }
}

/// A state's manifest, wherever it is.
pub(super) fn manifest(store: &MemoryStore, state: StateId) -> Option<StateManifest> {
    let bytes = store.read(state.manifest_blob()).ok()?;
    StateManifest::from_bytes(&bytes).ok()
}

/// A candidate that became canonical was measured no worse than the incumbent by at least one honest
/// validator, and by none as worse than noise explains (P-32).
pub(crate) fn new_state_is_no_worse_at_the_gate(
    record: &Record,
    concluded: Concluded,
    device_noise: f64,
) -> Check {
    const NAME: &str = "new_state_is_no_worse_at_the_gate";
    if concluded.passed != Some(true) {
        return Ok(());
    }
    let tolerated = TOLERATED_DEVIATIONS * device_noise;
    let worse = |(incumbent, candidate): &(f64, Option<f64>)| {
        candidate.is_none_or(|candidate| candidate > incumbent + tolerated)
    };
    if record.gate.is_empty() {
        return Err((
            NAME,
            "a state became canonical that no honest validator measured".to_owned(),
        ));
    }
    match record.gate.iter().find(|measured| worse(measured)) {
        None => Ok(()),
        Some((incumbent, candidate)) => {
            let detail = format!(
                "a state became canonical that measures {candidate:?} where the incumbent measures {incumbent}"
            );
            Err((NAME, detail))
        }
    }
}

/// What a validator has after a crash.
#[derive(Debug, Clone)]
pub(crate) struct Kept<'a> {
    /// In its store.
    pub(crate) holds: &'a NameSet<BlobId>,
    /// As its machine knows; nothing if the machine is not in the cycle in question.
    pub(crate) received: Option<BTreeMap<Hotkey, BlobId>>,
}

/// What a validator acknowledged is in its store and known to its machine after a crash.
pub(crate) fn no_accepted_upload_lost(
    node: NodeId,
    (cycle, accepted): (Cycle, &NameMap<Hotkey, BlobId>),
    kept: Kept<'_>,
) -> Check {
    const NAME: &str = "no_accepted_upload_lost";
    if let Some((hotkey, _)) = accepted.iter().find(|(_, blob)| !kept.holds.contains(blob)) {
        return Err((
            NAME,
            format!("validator {} lost the bytes of {hotkey:?}", node.0),
        ));
    }
    let Some(received) = kept.received else {
        return Ok(());
    };
    let lost = accepted
        .iter()
        .find(|(hotkey, blob)| received.get(hotkey) != Some(blob));
    match lost {
        None => Ok(()),
        Some((hotkey, _)) => {
            let detail = format!(
                "validator {} forgot in cycle {cycle} that it took the update of {hotkey:?}",
                node.0
            );
            Err((NAME, detail))
        }
    }
}

/// A journal gives the recorded effects when it is replayed (P-62, A-142).
pub(crate) fn replay_gives_the_same_effects(node: &Node, diverged: &Diverged) -> Check {
    let detail = format!(
        "step {} of the journal of node {} ({}) asks for other effects when it is replayed",
        diverged.step,
        node.id.0,
        node.kind.name()
    );
    Err(("replay_gives_the_same_effects", detail))
}

/// Records fit on the chain, and nobody asks for more than there is: at most every update of two cycles,
/// every blob of the task and of two states, and every participant's report and receipt (P-11, P-16).
pub(crate) fn bounds_hold(node: &Node, effects: &[Effect], (nodes, groups): (usize, u16)) -> Check {
    const NAME: &str = "bounds_hold";
    for effect in effects {
        if let Effect::Announce { announcement } = effect
            && announcement.encode().len() > MAXIMUM_ANNOUNCEMENT_BYTES
        {
            let detail = format!("node {} writes a record that no chain takes", node.id.0);
            return Err((NAME, detail));
        }
    }
    let most = FETCHES_OF_A_NODE * nodes + FETCHES_OF_A_GROUP * usize::from(groups) + FETCHES;
    if node.fetching.0 as usize > most {
        let detail = format!("node {} waits for {} blobs", node.id.0, node.fetching.0);
        return Err((NAME, detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
