//! Whether the run kept its promises: every invariant by name, checked on what it left behind.
//!
//! Inputs are the story that the journals tell, the manifests and shards in the store, and the
//! held-out losses. An invariant that does not hold is a sentence that says where.

use std::collections::BTreeSet;

use connito_learning::Learner;
use connito_learning::task::read_state;
use connito_node::blobs::DiskBlobs;
use connito_protocol::assignment::assigned_group;
use connito_protocol::ids::{BlobId, Cycle, Hotkey, StateId};
use connito_protocol::job::{Job, MergeJob, Merged, Outcome, Weighted};
use connito_protocol::manifest::{Document, StateManifest, TaskManifest};
use connito_protocol::partition;
use connito_protocol::reason::ReasonCode;
use connito_protocol::schedule::{Schedule, Window};
use connito_protocol::scoring::utility;
use connito_protocol::seed::{Draw, seed};

use super::harvest::{HeldoutLoss, Judge};
use super::plan::{Actor, Plan};
use super::story::{CycleStory, Story};
use crate::config::MinerConduct;
use crate::exit::{Blame, Failure};
use crate::roles::Kind;

/// What is judged.
pub(crate) struct Evidence<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) story: &'a Story,
    pub(crate) task_id: BlobId,
    pub(crate) task: &'a TaskManifest,
    pub(crate) cycles: u64,
    pub(crate) store: &'a DiskBlobs,
    /// The state before each cycle, and after the last.
    pub(crate) states: &'a [StateId],
    /// Held-out losses of the first and the last state.
    pub(crate) ends: (&'a HeldoutLoss, &'a HeldoutLoss),
}

/// Broken invariants, one sentence each; empty when all hold.
pub(crate) fn broken(evidence: &Evidence<'_>, judge: &mut Judge) -> Result<Vec<String>, Failure> {
    let mut broken = Vec::new();
    partition_is_whole(evidence, &mut broken);
    let schedule = evidence.task.schedule();
    for cycle in (0..evidence.cycles).map(Cycle) {
        let Some(story) = evidence.story.cycles.get(&cycle) else {
            broken.push(format!("cycle {cycle} left no trace in any journal"));
            continue;
        };
        verdicts_are_fair(evidence, (cycle, story), &mut broken);
        rewards_add_up(cycle, story, &mut broken);
        states_agree(evidence, (cycle, story), &schedule, &mut broken);
        validators_adopt(evidence, cycle, &schedule, &mut broken);
        gate_is_respected(cycle, story, &mut broken);
        recomputed(evidence, cycle, judge, &mut broken)?;
    }
    losses_fell(evidence, &mut broken);
    Ok(broken)
}

/// Every expert is owned by exactly one group.
fn partition_is_whole(evidence: &Evidence<'_>, broken: &mut Vec<String>) {
    if let Err(error) = partition::check(&evidence.task.groups) {
        broken.push(format!("the partition is not whole: {error}"));
    }
}

/// Only opened commitments are scored, groups are the assigned ones, and neither copying nor damage
/// has any weight.
fn verdicts_are_fair(
    evidence: &Evidence<'_>,
    (cycle, story): (Cycle, &CycleStory),
    broken: &mut Vec<String>,
) {
    for name in &story.dissenters {
        broken.push(format!(
            "cycle {cycle}: {name} reads other verdicts off the same chain"
        ));
    }
    for (name, times) in story.measured.iter().filter(|(_, times)| **times > 1) {
        broken.push(format!("cycle {cycle}: {name} scored {times} times"));
    }
    for verdict in story.verdicts.iter().flatten() {
        let name = evidence.plan.name_of(verdict.hotkey);
        if verdict.measurement.is_some() && verdict.update.is_none() {
            broken.push(format!(
                "cycle {cycle}: {name} was scored without an opened commitment"
            ));
        }
        if assigned_group(verdict.hotkey, &evidence.task.tickets) != Some(verdict.group) {
            broken.push(format!(
                "cycle {cycle}: {name} was scored for a group that is not its own"
            ));
        }
        if (verdict.code == ReasonCode::Accepted) != (verdict.weight > 0.0) {
            broken.push(format!(
                "cycle {cycle}: {name} is {} with weight {}",
                verdict.code, verdict.weight
            ));
        }
        let conduct = evidence
            .plan
            .actor(verdict.hotkey)
            .map(|actor| actor.conduct);
        if verdict.weight > 0.0 && conduct != Some(MinerConduct::Honest) {
            broken.push(format!(
                "cycle {cycle}: {name} misbehaves and has weight {}",
                verdict.weight
            ));
        }
    }
}

/// Rewards sum to one, what is withheld included.
fn rewards_add_up(cycle: Cycle, story: &CycleStory, broken: &mut Vec<String>) {
    let Some(rewards) = &story.rewards else {
        broken.push(format!("cycle {cycle}: nobody computed its rewards"));
        return;
    };
    let sum = rewards.shares.values().sum::<f64>() + rewards.withheld;
    if (sum - 1.0).abs() > 1e-9 {
        broken.push(format!(
            "cycle {cycle}: rewards and what is withheld sum to {sum}"
        ));
    }
}

/// Every validator that was up for the whole Evaluate phase committed the same state.
fn states_agree(
    evidence: &Evidence<'_>,
    (cycle, story): (Cycle, &CycleStory),
    schedule: &Schedule,
    broken: &mut Vec<String>,
) {
    let distinct: BTreeSet<&StateId> = story.committed.values().collect();
    if distinct.len() > 1 {
        broken.push(format!(
            "cycle {cycle}: validators committed {} different states",
            distinct.len()
        ));
    }
    let evaluate = (
        schedule.opens(cycle, Window::Score),
        schedule.closes(cycle, Window::Vote),
    );
    for actor in evidence.plan.validators() {
        let up = !evidence.restarted_within(actor, evaluate.0.0.saturating_sub(1), evaluate.1.0);
        if up && !story.committed.contains_key(&actor.hotkey) {
            broken.push(format!(
                "cycle {cycle}: {} was up and committed no state",
                actor.name
            ));
        }
    }
}

/// Every validator holds the canonical state before the next Distribute window ends.
fn validators_adopt(
    evidence: &Evidence<'_>,
    cycle: Cycle,
    schedule: &Schedule,
    broken: &mut Vec<String>,
) {
    let next = cycle.next();
    let Some(state) = evidence
        .states
        .get(usize::try_from(next.0).unwrap_or(usize::MAX))
    else {
        return;
    };
    let window = (
        schedule.closes(cycle, Window::Vote),
        schedule.closes(next, Window::Distribute),
    );
    for actor in evidence.plan.validators() {
        let ready = evidence
            .story
            .cycles
            .get(&next)
            .and_then(|story| story.ready.get(&actor.name));
        let in_time = ready.is_some_and(|(block, ready)| *block <= window.1 && ready == state);
        if !in_time && !evidence.restarted_within(actor, window.0.0, window.1.0) {
            broken.push(format!(
                "cycle {next}: {} did not adopt state {} in time",
                actor.name,
                state.short()
            ));
        }
    }
}

/// The new state is never worse than the incumbent on the gate's data.
fn gate_is_respected(cycle: Cycle, story: &CycleStory, broken: &mut Vec<String>) {
    if story.passed != Some(true) {
        return;
    }
    let is_worse = |(before, after): (f64, Option<f64>)| after.is_none_or(|after| after > before);
    let worse = story
        .gates
        .values()
        .filter(|(before, after, _)| is_worse((*before, *after)))
        .count();
    // All validators of a rehearsal have the same stake.
    if worse * 2 >= story.gates.len() {
        broken.push(format!(
            "cycle {cycle}: a state passed that {worse} of {} validators measured as worse",
            story.gates.len()
        ));
    }
}

/// From the parent's blobs and the merged updates, the same bytes again; and nothing else moved.
fn recomputed(
    evidence: &Evidence<'_>,
    cycle: Cycle,
    judge: &mut Judge,
    broken: &mut Vec<String>,
) -> Result<(), Failure> {
    let at = usize::try_from(cycle.0).unwrap_or(usize::MAX);
    let (Some(before), Some(after)) = (evidence.states.get(at), evidence.states.get(at + 1)) else {
        return Ok(());
    };
    if before == after {
        return Ok(());
    }
    let parent = read_state(*before, evidence.store).environment()?;
    let child = read_state(*after, evidence.store).environment()?;
    if child.parent != Some(*before) {
        broken.push(format!(
            "cycle {cycle}: the new state does not descend from the incumbent"
        ));
    }
    let trained: BTreeSet<_> = child.merged.iter().map(|merged| merged.group).collect();
    for (old, new) in parent.groups.iter().zip(&child.groups) {
        if old.shard != new.shard && !trained.contains(&old.group) {
            broken.push(format!(
                "cycle {cycle}: group {} changed without an accepted update",
                old.group
            ));
        }
    }
    let passed = evidence
        .story
        .cycles
        .get(&cycle)
        .and_then(|story| story.passed);
    if passed == Some(true) {
        match merged_again(evidence, (cycle, *before, &child), judge)? {
            Some(merged) if merged.candidate != child.groups => broken.push(format!(
                "cycle {cycle}: merging the accepted updates again gives other bytes"
            )),
            Some(merged) if !merged.passes() => broken.push(format!(
                "cycle {cycle}: the new state measures worse on the gate's data when measured again"
            )),
            Some(_) => {}
            None => broken.push(format!(
                "cycle {cycle}: its archive or updates cannot be read again"
            )),
        }
    }
    Ok(())
}

/// The merge of a cycle, done once more from what lies in the store; `None` when it cannot be.
fn merged_again(
    evidence: &Evidence<'_>,
    (cycle, base, child): (Cycle, StateId, &StateManifest),
    judge: &mut Judge,
) -> Result<Option<Merged>, Failure> {
    let archive = child
        .archive
        .map(|id| evidence.store.get(&id))
        .transpose()
        .environment()?;
    let archive = archive
        .as_deref()
        .map(connito_protocol::manifest::CycleArchive::from_bytes);
    let Some(Ok(archive)) = archive else {
        return Ok(None);
    };
    let job = Job::Merge(MergeJob {
        cycle,
        task: evidence.task_id,
        state: base,
        seed: seed(Draw::Gate, archive.seeded.hash, cycle),
        accepted: child
            .merged
            .iter()
            .map(|merged| Weighted {
                group: merged.group,
                update: merged.update,
                weight: merged.weight,
            })
            .collect(),
    });
    let outcome = judge.learner().run(&job, &Default::default);
    Ok(match outcome {
        Outcome::Merged(merged) => Some(merged),
        Outcome::Trained(_)
        | Outcome::Scored { .. }
        | Outcome::Advanced(_)
        | Outcome::Failed { .. } => None,
    })
}

/// The final loss is below the base's over all domains together, and in none worse by more than one
/// standard error.
fn losses_fell(evidence: &Evidence<'_>, broken: &mut Vec<String>) {
    let (first, last) = evidence.ends;
    let fell = first
        .mean()
        .zip(last.mean())
        .is_some_and(|(first, last)| last < first);
    if !fell {
        broken.push("the final held-out loss is not below the base's".to_owned());
    }
    for ((domain, before), (_, after)) in first.domains.iter().zip(&last.domains) {
        let worse = match utility(before, after) {
            Ok(measured) => measured.utility < -measured.standard_error,
            Err(_) => true,
        };
        if worse {
            broken.push(format!(
                "domain {domain} became worse by more than one standard error"
            ));
        }
    }
}

impl Evidence<'_> {
    /// Whether a role was started again in one of these blocks.
    fn restarted_within(&self, actor: &Actor, from: u64, to: u64) -> bool {
        let restarts = self.story.restarts.get(&actor.name);
        restarts.is_some_and(|blocks| blocks.iter().any(|block| (from..=to).contains(&block.0)))
    }
}

impl Plan {
    /// The participant with this hotkey.
    pub(crate) fn actor(&self, hotkey: Hotkey) -> Option<&Actor> {
        self.actors.iter().find(|actor| actor.hotkey == hotkey)
    }

    /// Those who score and vote.
    pub(crate) fn validators(&self) -> impl Iterator<Item = &Actor> {
        self.actors
            .iter()
            .filter(|actor| actor.kind == Kind::Validator)
    }

    /// What people call it.
    pub(crate) fn name_of(&self, hotkey: Hotkey) -> String {
        self.actor(hotkey)
            .map_or_else(|| hotkey.short(), |actor| actor.name.clone())
    }
}
