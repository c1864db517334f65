//! The miner: fetches the base, trains its group, commits, reveals, delivers.
//!
//! ```text
//! Distribute, Train      base here? ──▶ Run(Train) ──▶ Finished ──▶ update prepared
//! Commit                 seal ──▶ reveal, deliver                    (present.rs)
//! Evaluate               asks validators for its receipt             (outcome.rs)
//! ```
//!
//! A missed window ends the attempt and the next cycle starts as usual (A-32); an update that was
//! trained too late to be sealed is presented in the next cycle if its group did not change meanwhile
//! (P-15). Knows nothing of how training works; makes outgoing requests only, and reads of the chain
//! only votes and its own record: what it does does not grow with the number of miners.

mod idle;

use crate::announcement::Salt;
use crate::event::{Effect, Effects, Event, Form, Milestone};
use crate::follow::{Follower, Identity, Reads, Task};
use crate::ids::{BlobId, Block, Cycle, GroupId, StateId};
use crate::job::{Job, Outcome, TrainJob};
use crate::outcome::Awaited;
use crate::present::Prepared;
use crate::residual::Residual;
use crate::schedule::{Moment, Window};
use crate::seed::{Draw, seed};
use idle::Idle;

/// The miner's state.
#[derive(Debug, Clone)]
pub struct Miner {
    follower: Follower,
    running: Option<Job>,
    /// The last cycle that training was started for; one attempt a cycle.
    attempted: Option<Cycle>,
    prepared: Option<Prepared>,
    residual: Residual,
    /// What became of the last submission.
    awaited: Option<Awaited>,
    idle: Option<Idle>,
}

impl Miner {
    /// A miner that knows nothing yet.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            follower: Follower::new(identity, Reads::Votes),
            running: None,
            attempted: None,
            prepared: None,
            residual: Residual::new(identity.hotkey),
            awaited: None,
            idle: None,
        }
    }

    /// Takes an event, gives what is to be done.
    pub fn handle(&mut self, event: &Event) -> Effects {
        if self.lets_pass(event) {
            return Effects::default();
        }
        let effects = self.wake_for(event);
        self.idle = self.idle();
        effects
    }

    fn wake_for(&mut self, event: &Event) -> Effects {
        self.note_what_passed();
        self.take(event)
    }

    fn take(&mut self, event: &Event) -> Effects {
        let mut effects = Effects::default();
        self.follower.note(event, &mut effects);
        if matches!(event, Event::Block(_) | Event::Document { .. })
            && let Some((state, base)) = self.follower.base()
            && let Some(merged) = self.follower.merged(state)
        {
            self.residual.on_base(base.cycle, merged);
        }
        match event {
            Event::Started => effects_of_restart(self.running.as_ref(), &mut effects),
            Event::Finished { outcome, entropy } => {
                self.on_finished(outcome, *entropy, &mut effects)
            }
            _ => {}
        }
        let now = self.follower.live().map_or(Block(0), |(now, _)| now.block);
        if let Some(prepared) = &mut self.prepared {
            prepared.note(event, now);
        }
        if let Some(awaited) = &mut self.awaited {
            awaited.note(event, (&self.follower, now), &mut effects);
        }
        if self.is_worth_acting_on(event) {
            self.act(&mut effects);
        }
        effects
    }

    /// An answer to a delivery is followed up with the next block, and there are as many as validators.
    /// Of all that was asked for, nothing is of use before the last has come; what is of another task
    /// nobody waits for.
    fn is_worth_acting_on(&self, event: &Event) -> bool {
        match event {
            Event::Delivered { .. } => false,
            Event::Fetched { .. } | Event::FetchFailed { .. } => {
                self.follower.successor().is_some() || !self.follower.library.is_waiting()
            }
            _ => true,
        }
    }

    pub(crate) fn canonical(&self) -> Option<StateId> {
        self.follower.canonical()
    }

    fn on_finished(&mut self, outcome: &Outcome, salt: Salt, effects: &mut Effects) {
        let job = self.running.take();
        match (outcome, job) {
            (Outcome::Trained(trained), Some(Job::Train(job))) if job.cycle == trained.cycle => {
                self.follower.library.add(trained.update);
                effects.tell(Milestone::Trained(trained.clone()));
                if let Some(cause) = &trained.residual_dropped {
                    effects.tell(Milestone::ResidualDropped {
                        cycle: job.cycle,
                        cause: cause.clone(),
                    });
                }
                self.residual.on_trained(trained);
                self.prepared = Some(Prepared::new(
                    (job.cycle, job.state, job.group),
                    trained.update,
                    salt,
                ));
            }
            (Outcome::Advanced(advanced), Some(Job::Advance(_))) => {
                self.follower.advanced(advanced.to, &advanced.groups);
            }
            (Outcome::Failed { cycle, cause }, job) => {
                if let Some(Job::Advance(job)) = job {
                    self.follower.advanced(job.to, &[]);
                }
                effects.tell(Milestone::JobFailed {
                    cycle: *cycle,
                    cause: cause.clone(),
                });
            }
            // Another job's outcome: the process restarted and both runs finished.
            (
                Outcome::Trained(_)
                | Outcome::Scored { .. }
                | Outcome::Merged(_)
                | Outcome::Advanced(_),
                _,
            ) => {}
        }
    }

    fn act(&mut self, effects: &mut Effects) {
        self.fetch(effects);
        self.carry_over(effects);
        self.train(effects);
        if let Some(prepared) = &mut self.prepared {
            prepared.act(&mut self.follower, effects);
            if prepared.was_sealed() {
                Awaited::begin(&mut self.awaited, (prepared.cycle, prepared.update));
            }
        }
        if let Some(awaited) = &mut self.awaited {
            awaited.act(&self.follower, effects);
        }
    }

    /// The groups whose shards a training forward pass runs through.
    fn visited(task: &Task) -> impl Iterator<Item = GroupId> {
        let all = task.manifest.rules.inner.routing.visits_other_groups();
        let groups = task.groups.iter().copied();
        groups.filter(move |group| all || Some(*group) == task.own_group)
    }

    /// What training needs besides the state: the fixed parts and the text.
    fn materials(task: &Task) -> impl Iterator<Item = BlobId> {
        let text = task.manifest.domains.iter().map(|domain| domain.training);
        task.fixed_parts().into_iter().chain(text)
    }

    /// Whether everything that training needs is here.
    fn can_train(&self) -> bool {
        let (Some(task), Some((_, base))) = (self.follower.task(), self.follower.base()) else {
            return false;
        };
        let library = &self.follower.library;
        let mut shards = Self::visited(task).map(|group| base.shard(group));
        library.has_all(Self::materials(task))
            && shards.all(|shard| shard.is_some_and(|shard| library.has(shard)))
    }

    fn fetch(&mut self, effects: &mut Effects) {
        self.prefetch(effects);
        let Some(task) = self.follower.task().filter(|_| !self.follower.is_ready()) else {
            return;
        };
        let visited: Vec<GroupId> = Self::visited(task).collect();
        let materials: Vec<BlobId> = Self::materials(task).collect();
        self.follower.want(materials, Form::Blob, effects);
        let advance = self.follower.adopt(&visited, effects);
        if let (Some(job), None) = (advance, &self.running) {
            self.run(job, effects);
        }
        if self.can_train() && self.follower.live().is_some() {
            self.follower.tell_ready(effects);
            self.forget(effects);
        }
    }

    /// Drops the states, updates and residuals of the past, once a cycle: a miner serves nobody, and the
    /// disk that trains a few experts is no archive (P-7).
    fn forget(&mut self, effects: &mut Effects) {
        let mut keep = self.follower.blobs_in_use();
        keep.extend(self.prepared.as_ref().map(|prepared| prepared.update));
        keep.extend(self.residual.blobs());
        let blobs = self.follower.library.keep_only(&keep);
        if !blobs.is_empty() {
            effects.push(Effect::Forget { blobs });
        }
    }

    /// What the next task needs, while this one is worked on (P-39).
    fn prefetch(&mut self, effects: &mut Effects) {
        let Some(next) = self.follower.successor() else {
            return;
        };
        let mut blobs: Vec<BlobId> = Self::materials(next).collect();
        let visited: Vec<GroupId> = Self::visited(next).collect();
        let first = self.follower.successor_state();
        let shards = first.into_iter().flat_map(|state| &state.groups);
        let visited = shards.filter(|state| visited.contains(&state.group));
        blobs.extend(visited.map(|state| state.shard));
        self.follower.want(blobs, Form::Blob, effects);
    }

    /// An update that came too late for its cycle is presented in this one, on the base that it was
    /// trained on, if that still stands for its group. Then nothing else is trained for this cycle: a
    /// hotkey has one submission.
    fn carry_over(&mut self, effects: &mut Effects) {
        let Some(Moment { cycle, window, .. }) = self.follower.next_moment() else {
            return;
        };
        let in_time = matches!(window, Window::Distribute | Window::Train | Window::Seal);
        if !in_time
            || self
                .follower
                .round()
                .is_none_or(|round| round.cycle != cycle)
        {
            return;
        }
        let (Some(late), Some(task)) = (&self.prepared, self.follower.task()) else {
            return;
        };
        if late.cycle >= cycle || late.was_sealed() || self.attempted == Some(cycle) {
            return;
        }
        let Some((base, _)) = self.follower.base() else {
            return;
        };
        let earlier = self.follower.earlier();
        let stands = |group: GroupId| {
            let among = earlier.iter().find(|earlier| earlier.state == late.base);
            late.base == base || among.is_some_and(|among| among.unchanged.contains(&group))
        };
        let same_group = task.own_group == Some(late.group);
        if !same_group || !stands(late.group) {
            self.prepared = None;
            return;
        }
        effects.tell(Milestone::PresentedLate {
            trained: late.cycle,
            cycle,
            update: late.update,
        });
        self.attempted = Some(cycle);
        self.prepared = Some(late.carried_to(cycle));
    }

    fn train(&mut self, effects: &mut Effects) {
        let Some((_, moment)) = self.follower.live() else {
            return;
        };
        let in_time = matches!(moment.window, Window::Distribute | Window::Train);
        if !in_time || self.running.is_some() || self.attempted == Some(moment.cycle) {
            return;
        }
        if let Some(job) = self.training_job(moment.cycle) {
            self.attempted = Some(moment.cycle);
            self.run(job, effects);
        }
    }

    fn run(&mut self, job: Job, effects: &mut Effects) {
        self.running = Some(job.clone());
        effects.push(Effect::Run(job));
    }

    fn training_job(&self, cycle: Cycle) -> Option<Job> {
        if !self.can_train() {
            return None;
        }
        let (task, round) = (self.follower.task()?, self.follower.round()?);
        let (state, _) = self.follower.base()?;
        let draw = Draw::Training(self.follower.identity.hotkey);
        Some(Job::Train(TrainJob {
            cycle,
            task: task.id,
            state,
            group: task.own_group?,
            seed: seed(draw, round.first_seen.hash, cycle),
            stop_at: task.schedule.closes(cycle, Window::Train),
            residual: self.residual.kept(),
        }))
    }
}

/// After a restart, the job that was running is started again.
pub(crate) fn effects_of_restart(running: Option<&Job>, effects: &mut Effects) {
    if let Some(job) = running {
        effects.push(Effect::Run(job.clone()));
    }
}
