//! Which task is worked on, and what makes another one take its place (P-3, P-39).
//!
//! ```text
//!            announced      votes of the last cycle name it
//! T1 ────────────┼───────────────────────┼──────▶ first block of T2
//!                └ fetch T2, check it, fetch what it needs
//! ```
//!
//! The owner proposes, the votes decide: a task that nobody can read, or that too few hold in time,
//! stops nobody. Whoever joins reads the newest announcement and goes back along `follows` to the task
//! in which the first block that it saw lies. Inputs are documents, records and votes; what a task
//! needs besides its manifest is the roles' affair.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Follower, Reads};
use crate::announcement::{Vote, task_digest};
use crate::assignment::{Assignment, assigned_group};
use crate::consensus;
use crate::event::{Effects, Milestone};
use crate::ids::{BlobId, Block, Cycle, GroupId, Hotkey, StateId};
use crate::manifest::{StateManifest, TaskManifest};
use crate::received::ReceivedDocument;
use crate::schedule::{Schedule, Window};
use crate::snapshot::{Snapshot, Voter};

/// Tasks that a newcomer goes back along at most.
const MAXIMUM_STEPS_BACK: usize = 64;

/// A task that was read and is sound by itself.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) id: BlobId,
    pub(crate) manifest: Arc<TaskManifest>,
    pub(crate) schedule: Schedule,
    pub(crate) groups: Vec<GroupId>,
    /// The group that this role's hotkey trains (P-6), if it mines.
    pub(crate) own_group: Option<GroupId>,
}

impl Task {
    fn new(id: BlobId, manifest: Arc<TaskManifest>, hotkey: Hotkey) -> Self {
        Self {
            id,
            own_group: assigned_group(hotkey, &manifest.tickets),
            schedule: manifest.schedule(),
            groups: manifest.group_ids(),
            manifest,
        }
    }

    /// The parts of the model that never change.
    pub(crate) fn fixed_parts(&self) -> [BlobId; 3] {
        let model = &self.manifest.model;
        [model.config, model.tokenizer, model.backbone]
    }

    /// Every pool of every domain: what validators measure on, and what they serve to miners (P-7).
    pub(crate) fn pools(&self) -> impl Iterator<Item = BlobId> {
        let domains = self.manifest.domains.iter();
        domains.flat_map(|domain| [domain.training, domain.scoring, domain.gate])
    }
}

/// What a role knows of tasks.
#[derive(Debug, Clone, Default)]
pub(super) struct Tasks {
    pub(super) current: Option<Arc<Task>>,
    /// Who trains what under the current one.
    pub(super) assignment: Arc<Assignment>,
    /// The one before, once another has taken its place.
    previous: Option<Arc<Task>>,
    read: BTreeMap<BlobId, Arc<Task>>,
    /// Tasks that are not worked on, with what they claim to follow.
    refused: BTreeMap<BlobId, Option<BlobId>>,
    /// The task that votes have named, and the first block that is its own.
    decided: Option<(BlobId, Block)>,
    /// The announced task, if it may follow the current one.
    successor: Option<Arc<Task>>,
    /// The announced task that was last held against the current one.
    weighed: Option<BlobId>,
}

/// Where the search for a task to begin with ends.
enum Search {
    Found(Arc<Task>),
    Missing(BlobId),
    Nothing,
}

impl Tasks {
    /// Blocks were missed, and with them perhaps the votes for another task.
    pub(super) fn forget(&mut self) {
        (self.current, self.previous) = (None, None);
        (self.decided, self.successor, self.weighed) = (None, None, None);
    }

    fn refuse(&mut self, task: BlobId, reason: String, effects: &mut Effects) {
        let follows = self.read.get(&task).and_then(|task| task.manifest.follows);
        self.refused.insert(task, follows);
        if self.successor.as_ref().is_some_and(|s| s.id == task) {
            self.successor = None;
        }
        effects.tell(Milestone::TaskRefused { reason });
    }

    /// From the announced task back to the one in which `block` lies.
    fn search(&self, announced: BlobId, block: Block) -> Search {
        let mut id = announced;
        for _ in 0..MAXIMUM_STEPS_BACK {
            let follows = match (self.refused.get(&id), self.read.get(&id)) {
                (Some(follows), _) => *follows,
                (None, Some(task)) if task.manifest.starts <= block => {
                    return Search::Found(Arc::clone(task));
                }
                (None, Some(task)) => match task.manifest.follows {
                    None => return Search::Found(Arc::clone(task)),
                    follows => follows,
                },
                (None, None) => return Search::Missing(id),
            };
            match follows {
                Some(before) => id = before,
                None => return Search::Nothing,
            }
        }
        Search::Nothing
    }

    /// Whether `blob` was asked for as a task's manifest.
    fn expects(&self, blob: BlobId, announced: Option<BlobId>) -> bool {
        let known = self.read.contains_key(&blob) || self.refused.contains_key(&blob);
        let decided = self.decided.map(|(id, _)| id);
        let mut followed = self.read.values().map(|task| task.manifest.follows);
        let mut by_refused = self.refused.values();
        let wanted = [announced, decided].contains(&Some(blob))
            || followed.any(|follows| follows == Some(blob))
            || by_refused.any(|follows| *follows == Some(blob));
        !known && wanted
    }
}

impl Follower {
    fn tasks_mut(&mut self) -> &mut Tasks {
        &mut self.reading_mut().tasks
    }

    /// The task that is worked on.
    pub(crate) fn task(&self) -> Option<&Task> {
        self.reading.tasks.current.as_deref()
    }

    /// The task that is worked on, while nothing is missing of what it takes to follow and nothing is
    /// about to change but by what comes in.
    pub(crate) fn settled_task(&self) -> Option<&Task> {
        if !self.is_ready() {
            return None;
        }
        let (now, moment) = self.live()?;
        let task = self.task()?;
        let tasks = &self.reading.tasks;
        let is_alone = tasks.decided.is_none() && tasks.successor.is_none();
        let is_announced = now.announced_task().is_some_and(|(id, _)| id == task.id);
        let in_round = self
            .round()
            .is_some_and(|round| round.cycle == moment.cycle);
        let has_all = self.missing_manifests() == [None; 3];
        let settled = self.reading.backlog.is_empty() && is_alone && is_announced && in_round;
        let reads_votes = self.reads == Reads::Votes;
        (settled && has_all && reads_votes && self.is_endpoint_kept()).then_some(task)
    }

    /// The announced task that may take its place, while that is not decided or has not come to pass.
    pub(crate) fn successor(&self) -> Option<&Task> {
        self.reading.tasks.successor.as_deref()
    }

    /// The manifest of the state that the successor begins with; `None` where it goes on with ours, or
    /// while it is not here.
    pub(crate) fn successor_state(&self) -> Option<&StateManifest> {
        let first = self.successor()?.manifest.first_state?;
        self.manifest(first)
    }

    /// The task under which a state that `cycle` builds on first was merged: the one of the cycle
    /// before.
    pub(super) fn task_that_led_to(&self, cycle: Cycle) -> Option<BlobId> {
        let current = self.task()?;
        if cycle > current.manifest.first_cycle {
            return Some(current.id);
        }
        let previous = self.reading.tasks.previous.as_ref()?;
        (cycle > previous.manifest.first_cycle).then_some(previous.id)
    }

    /// The task that our vote names for the cycle after this one: the successor if that is its first and
    /// `is_ready`, otherwise the current one.
    pub(crate) fn task_to_vote_for(&self, is_ready: impl FnOnce(&Task) -> bool) -> Option<BlobId> {
        let (current, round) = (self.task()?, self.round()?);
        let successor = self.successor().filter(|successor| {
            successor.manifest.first_cycle == round.cycle.next() && is_ready(successor)
        });
        Some(successor.unwrap_or(current).id)
    }

    /// A task's manifest has come. Whether it was one that we wait for.
    pub(super) fn on_task(
        &mut self,
        id: BlobId,
        document: &ReceivedDocument,
        effects: &mut Effects,
    ) -> bool {
        let announced = self.now.as_deref().and_then(Snapshot::announced_task);
        let announced = announced.map(|(id, _)| id);
        if !self.reading.tasks.expects(id, announced) {
            return false;
        }
        match document.task() {
            Ok(manifest) => {
                let sound = manifest.check_on(self.identity.network.netuid);
                let task = Arc::new(Task::new(id, manifest, self.identity.hotkey));
                self.tasks_mut().read.insert(id, task);
                if let Err(error) = sound {
                    self.tasks_mut().refuse(id, error.to_string(), effects);
                }
            }
            Err(reason) => self.tasks_mut().refuse(id, reason, effects),
        }
        self.observe_backlog(effects);
        true
    }

    /// Makes that task the current one to which `block` belongs, if it is known and here.
    pub(super) fn enter_task(&mut self, block: Block, effects: &mut Effects) {
        if let Some((id, starts)) = self.reading.tasks.decided {
            if block >= starts {
                self.succeed(id, effects);
            }
        } else if self.reading.tasks.current.is_none()
            && let Some((id, _)) = self.now.as_deref().and_then(Snapshot::announced_task)
            && let Search::Found(task) = self.reading.tasks.search(id, block)
        {
            self.begin(task, effects);
        }
    }

    /// Takes the step that votes have decided. Until the manifest is here, no task is worked on and
    /// blocks are kept.
    fn succeed(&mut self, id: BlobId, effects: &mut Effects) {
        let tasks = self.tasks_mut();
        if let Some(current) = tasks.current.take() {
            tasks.previous = Some(current);
        }
        let Some(previous) = tasks.previous.clone() else {
            tasks.decided = None;
            return;
        };
        let refused = self.reading.tasks.refused.contains_key(&id);
        let follows = self.reading.tasks.read.get(&id).map(|task| {
            let before = (previous.id, previous.manifest.as_ref());
            (Arc::clone(task), task.manifest.check_follows(before))
        });
        match follows {
            Some((task, Ok(()))) if !refused => self.begin(task, effects),
            None if !refused => {}
            // A majority that names what cannot be worked on has not replaced what can.
            _ => {
                let tasks = self.tasks_mut();
                (tasks.decided, tasks.current) = (None, Some(previous));
            }
        }
    }

    fn begin(&mut self, task: Arc<Task>, effects: &mut Effects) {
        effects.tell(Milestone::TaskLoaded { task: task.id });
        let tasks = self.tasks_mut();
        (tasks.decided, tasks.successor, tasks.weighed) = (None, None, None);
        tasks.assignment = Arc::new(Assignment::new(task.manifest.tickets.clone()));
        tasks.current = Some(task);
    }

    /// What the votes of a cycle's last block say of the task of the next cycle. A task counts only
    /// while the owner announces it.
    pub(super) fn decide_task(&mut self, votes: &[(Voter, Vote)], snapshot: &Snapshot) {
        let Some(current) = &self.reading.tasks.current else {
            return;
        };
        if let Some(id) = decided_task(current.id, votes, snapshot) {
            self.tasks_mut().decided = Some((id, snapshot.block.next()));
        }
    }

    /// Asks for the manifests that are missing, and weighs what is announced.
    pub(super) fn pursue_task(&mut self, effects: &mut Effects) {
        let Some((id, since)) = self.now.as_deref().and_then(Snapshot::announced_task) else {
            return;
        };
        let missing = match (self.reading.tasks.decided, &self.reading.tasks.current) {
            (Some((decided, _)), _) => Some(decided),
            (None, Some(current)) => (current.id != id).then_some(id),
            (None, None) => {
                let first = self
                    .reading
                    .backlog
                    .front()
                    .map_or(Block(0), |first| first.block);
                match self.reading.tasks.search(id, first) {
                    Search::Missing(missing) => Some(missing),
                    Search::Found(_) | Search::Nothing => None,
                }
            }
        };
        let known = |id: &BlobId| {
            self.reading.tasks.read.contains_key(id) || self.reading.tasks.refused.contains_key(id)
        };
        if let Some(missing) = missing.filter(|id| !known(id)) {
            self.want_document(missing, effects);
        }
        self.weigh_successor((id, since), effects);
    }

    /// Holds the announced task against the current one, once; and drops it when its time has passed.
    fn weigh_successor(&mut self, (id, since): (BlobId, Block), effects: &mut Effects) {
        let Some(current) = self.reading.tasks.current.clone() else {
            return;
        };
        if self.reading.tasks.weighed != Some(id) {
            if self.reading.tasks.successor.is_some() {
                self.tasks_mut().successor = None;
            }
            let known = self.reading.tasks.read.get(&id).cloned();
            let Some(task) = known.filter(|task| task.id != current.id) else {
                return;
            };
            self.tasks_mut().weighed = Some(id);
            if self.reading.tasks.refused.contains_key(&id) {
                return;
            }
            match may_follow(&current, &task, since) {
                Ok(()) => {
                    effects.tell(Milestone::TaskFollows {
                        task: id,
                        cycle: task.manifest.first_cycle,
                        starts: task.manifest.starts,
                    });
                    self.tasks_mut().successor = Some(task);
                }
                Err(reason) => self.tasks_mut().refuse(id, reason, effects),
            }
        }
        self.weigh_again(effects);
    }

    /// What may turn out later: its first state is not one, or its first block passes.
    fn weigh_again(&mut self, effects: &mut Effects) {
        let (Some(task), Some(now)) = (self.reading.tasks.successor.clone(), &self.now) else {
            return;
        };
        let state = task.manifest.first_state;
        let fits = |state: StateId| {
            let here = self.manifest(state);
            !self.unreadable.contains(&state)
                && here.is_none_or(|here| task.manifest.begins_with(here))
        };
        if !state.is_none_or(fits) {
            let reason = format!(
                "the first state of task {} is not one of its groups",
                task.id
            );
            self.tasks_mut().refuse(task.id, reason, effects);
        } else if self.reading.tasks.decided.is_none() && task.manifest.starts <= now.block {
            let reason = format!(
                "block {} came and no majority of votes had named task {}",
                task.manifest.starts, task.id
            );
            self.tasks_mut().refuse(task.id, reason, effects);
        }
    }
}

/// The task that takes the place of `current` by the votes of a cycle's last block. A task counts only
/// while the owner announces it.
pub(crate) fn decided_task(
    current: BlobId,
    votes: &[(Voter, Vote)],
    snapshot: &Snapshot,
) -> Option<BlobId> {
    let named = consensus::next_task(votes, snapshot.voters())?;
    let (announced, _) = snapshot.announced_task()?;
    (named == task_digest(announced) && announced != current).then_some(announced)
}

/// Whether a task may take the place of the current one, announced when it was. One sentence if not.
fn may_follow(current: &Task, task: &Task, announced: Block) -> Result<(), String> {
    let before = (current.id, current.manifest.as_ref());
    task.manifest
        .check_follows(before)
        .map_err(|error| error.to_string())?;
    let at = current.schedule.at(announced).map(|moment| moment.cycle);
    let at = at.unwrap_or(current.manifest.first_cycle);
    let earliest = Cycle(at.0.saturating_add(current.manifest.rules.notice_cycles));
    if task.manifest.first_cycle >= earliest {
        return Ok(());
    }
    Err(format!(
        "the task begins with cycle {}, announced in cycle {at} it may begin with cycle {earliest} \
         at block {}",
        task.manifest.first_cycle,
        current.schedule.opens(earliest, Window::Distribute)
    ))
}
