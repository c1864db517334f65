//! The miner: fetches the base, trains its group, commits, reveals, delivers.
//!
//! ```text
//! Distribute, Train      base here? ──▶ Run(Train) ──▶ Finished ──▶ update prepared
//! Commit                 seal ──▶ reveal, deliver                    (present.rs)
//! Evaluate               reads its own verdict off the chain         (follow.rs)
//! ```
//!
//! A missed window ends the attempt and the next cycle starts as usual (A-32). Knows nothing of how
//! training works; makes outgoing requests only.

use crate::announcement::Salt;
use crate::assignment::assigned_group;
use crate::event::{Effect, Effects, Event, Form, Milestone};
use crate::follow::{Follower, Identity, Reads};
use crate::ids::{BlobId, Block, Cycle, GroupId, StateId};
use crate::job::{Job, Outcome, TrainJob};
use crate::present::Prepared;
use crate::residual::Residual;
use crate::schedule::Window;
use crate::seed::{Draw, seed};

/// The miner's state.
#[derive(Debug, Clone)]
pub struct Miner {
    follower: Follower,
    running: Option<Job>,
    /// The last cycle that training was started for; one attempt a cycle.
    attempted: Option<Cycle>,
    prepared: Option<Prepared>,
    residual: Residual,
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
        }
    }

    /// Takes an event, gives what is to be done.
    pub fn handle(&mut self, event: &Event) -> Effects {
        let mut effects = Effects::default();
        self.follower.note(event, &mut effects);
        if let Some((_, base)) = self.follower.base() {
            self.residual.on_base(base);
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
        self.act(&mut effects);
        effects
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
            (Outcome::Failed { cycle, cause }, _) => effects.tell(Milestone::JobFailed {
                cycle: *cycle,
                cause: cause.clone(),
            }),
            // Another job's outcome: the process restarted and both runs finished.
            (
                Outcome::Trained(_)
                | Outcome::Scored { .. }
                | Outcome::Merged(_)
                | Outcome::Advanced { .. },
                _,
            ) => {}
        }
    }

    fn act(&mut self, effects: &mut Effects) {
        self.fetch(effects);
        self.train(effects);
        if let Some(prepared) = &mut self.prepared {
            prepared.act(&mut self.follower, effects);
        }
    }

    fn group(&self) -> Option<GroupId> {
        let task = self.follower.task()?;
        assigned_group(self.follower.identity.hotkey, &task.manifest.tickets)
    }

    /// Everything that training needs: the fixed parts, the text, and the shards that the forward pass
    /// runs through.
    fn needed(&self) -> Option<Vec<BlobId>> {
        let (task, group) = (self.follower.task()?, self.group()?);
        let (_, base) = self.follower.base()?;
        let model = &task.manifest.model;
        let mut blobs = vec![model.config, model.tokenizer, model.backbone];
        blobs.extend(task.manifest.domains.iter().map(|domain| domain.training));
        let all = task.manifest.rules.inner.routing.visits_other_groups();
        let states = base.groups.iter();
        let visited = states.filter(|state| all || state.group == group);
        blobs.extend(visited.map(|state| state.shard));
        Some(blobs)
    }

    fn fetch(&mut self, effects: &mut Effects) {
        if let Some(needed) = self.needed() {
            self.follower.want(needed, Form::Blob, effects);
        }
    }

    fn train(&mut self, effects: &mut Effects) {
        let Some((_, moment)) = self.follower.live() else {
            return;
        };
        let in_time = matches!(moment.window, Window::Distribute | Window::Train);
        if !in_time || self.running.is_some() || self.attempted == Some(moment.cycle) {
            return;
        }
        let Some(job) = self.training_job(moment.cycle) else {
            return;
        };
        self.follower.tell_ready(effects);
        self.attempted = Some(moment.cycle);
        self.running = Some(job.clone());
        effects.push(Effect::Run(job));
    }

    fn training_job(&self, cycle: Cycle) -> Option<Job> {
        let needed = self.needed()?;
        if !self.follower.library.has_all(needed) {
            return None;
        }
        let (task, round) = (self.follower.task()?, self.follower.round()?);
        let (state, _) = self.follower.base()?;
        let draw = Draw::Training(self.follower.identity.hotkey);
        Some(Job::Train(TrainJob {
            cycle,
            task: task.id,
            state,
            group: self.group()?,
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
