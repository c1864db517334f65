//! Miners that play with commitment, opening and delivery (A-16, A-17, A-21, A-24, A-26, A-29,
//!

use connito_protocol::announcement::{Announcement, Salt};
use connito_protocol::event::Effect;
use connito_protocol::ids::{BlobId, Cycle, Hotkey, StateId};
use connito_protocol::job::{Job, Outcome};
use connito_protocol::schedule::Window;
use connito_protocol::snapshot::Snapshot;
use connito_protocol::submission::Binding;

use super::copies::untrained;
use super::{Policy, Scene};

/// Seals and never opens.
#[derive(Debug)]
pub(crate) struct Silent;

impl Policy for Silent {
    fn effect(&mut self, effect: Effect, _scene: &mut Scene<'_>) -> Option<Effect> {
        let dropped = matches!(
            effect,
            Effect::Announce {
                announcement: Announcement::Revealed { .. }
            } | Effect::Deliver { .. }
        );
        (!dropped).then_some(effect)
    }
}

/// Opens its seal and lets nobody have the update.
#[derive(Debug)]
pub(crate) struct VanishingBlob;

impl Policy for VanishingBlob {
    fn effect(&mut self, effect: Effect, _scene: &mut Scene<'_>) -> Option<Effect> {
        (!matches!(effect, Effect::Deliver { .. })).then_some(effect)
    }
}

/// Comes a window late: in even cycles with its seal, in odd ones with its opening.
#[derive(Debug, Default)]
pub(crate) struct Latecomer {
    held_back: Option<Announcement>,
}

impl Policy for Latecomer {
    fn effect(&mut self, effect: Effect, _scene: &mut Scene<'_>) -> Option<Effect> {
        let Effect::Announce { announcement } = &effect else {
            return Some(effect);
        };
        let is_late = match announcement {
            Announcement::Sealed { cycle, .. } => cycle.0.is_multiple_of(2),
            Announcement::Revealed { cycle, .. } => !cycle.0.is_multiple_of(2),
            _ => false,
        };
        if !is_late {
            return Some(effect);
        }
        self.held_back = Some(announcement.clone());
        None
    }

    fn on_block(&mut self, scene: &mut Scene<'_>) -> Vec<Effect> {
        let (Some(now), Some(moment)) = (scene.now, scene.moment()) else {
            return Vec::new();
        };
        let (cycle, window) = match &self.held_back {
            Some(Announcement::Sealed { cycle, .. }) => (*cycle, Window::Reveal),
            Some(Announcement::Revealed { cycle, .. }) => (*cycle, Window::Score),
            _ => return Vec::new(),
        };
        // What is written now is included in the next block, the second of the window.
        let is_due = now.block >= scene.setting.schedule.opens(cycle, window);
        if moment.cycle != cycle || !is_due {
            return Vec::new();
        }
        let announce = |announcement| Effect::Announce { announcement };
        self.held_back.take().map(announce).into_iter().collect()
    }
}

/// Waits until rivals have opened theirs, and opens its own seal with one of their updates.
#[derive(Debug, Default)]
pub(crate) struct Sniper {
    own: Option<Announcement>,
}

impl Policy for Sniper {
    fn effect(&mut self, effect: Effect, _scene: &mut Scene<'_>) -> Option<Effect> {
        match effect {
            Effect::Announce {
                announcement: announcement @ Announcement::Revealed { .. },
            } => {
                self.own = Some(announcement);
                None
            }
            other => Some(other),
        }
    }

    fn on_block(&mut self, scene: &mut Scene<'_>) -> Vec<Effect> {
        let (Some(now), Some(moment)) = (scene.now, scene.moment()) else {
            return Vec::new();
        };
        let Some(Announcement::Revealed {
            cycle,
            group,
            seal,
            salt,
            ..
        }) = self.own
        else {
            return Vec::new();
        };
        let rival = rival_of(scene.me, cycle, now);
        match rival {
            Some(update) if moment.window == Window::Reveal && moment.cycle == cycle => {
                self.own = None;
                let announcement = Announcement::Revealed {
                    cycle,
                    group,
                    seal,
                    update,
                    salt,
                };
                vec![Effect::Announce { announcement }]
            }
            _ => Vec::new(),
        }
    }
}

/// Waits until rivals have opened theirs, and then shows a seal that fits a rival's update and its opening in
/// one: the seal that it showed in time is overwritten. Once more when the window has closed.
#[derive(Debug, Default)]
pub(crate) struct Rewriter {
    own: Option<(Cycle, StateId)>,
}

impl Policy for Rewriter {
    fn job(&mut self, job: Job, _scene: &mut Scene<'_>) -> Job {
        if let Job::Train(job) = &job {
            self.own = Some((job.cycle, job.state));
        }
        job
    }

    fn outcome(&mut self, outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        untrained(outcome, None, scene)
    }

    fn effect(&mut self, effect: Effect, _scene: &mut Scene<'_>) -> Option<Effect> {
        let opens = matches!(
            effect,
            Effect::Announce {
                announcement: Announcement::Revealed { .. }
            }
        );
        (!opens).then_some(effect)
    }

    fn on_block(&mut self, scene: &mut Scene<'_>) -> Vec<Effect> {
        let (Some(now), Some(moment), Some((cycle, base))) = (scene.now, scene.moment(), self.own)
        else {
            return Vec::new();
        };
        let opens = |window| now.block == scene.setting.schedule.opens(cycle, window);
        if moment.cycle != cycle || !(opens(Window::Reveal) || opens(Window::Score)) {
            return Vec::new();
        }
        let Some(update) = rival_of(scene.me, cycle, now) else {
            return Vec::new();
        };
        let group = scene.group();
        let salt: Salt = scene.random.bytes();
        let binding = Binding {
            network: scene.setting.network,
            cycle,
            group,
            hotkey: scene.me,
            base,
        };
        let seal = binding.seal(update, &salt);
        let announcement = Announcement::Revealed {
            cycle,
            group,
            seal,
            update,
            salt,
        };
        vec![Effect::Announce { announcement }]
    }
}

/// The first update that a rival has opened in a cycle.
fn rival_of(me: Hotkey, cycle: Cycle, now: &Snapshot) -> Option<BlobId> {
    now.announcements()
        .find_map(|(hotkey, _, said)| match said {
            Announcement::Revealed {
                cycle: of, update, ..
            } if of == cycle && hotkey != me => Some(update),
            _ => None,
        })
}

/// Trains on the state of the cycle before. In odd cycles it says so in its seal, in even ones it claims
/// the current state.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    current: Option<(Cycle, StateId)>,
    before: Option<StateId>,
    forged: Option<Forged>,
}

#[derive(Debug, Clone, Copy)]
struct Forged {
    cycle: Cycle,
    update: BlobId,
    base: StateId,
    salt: Salt,
}

impl Sleeper {
    fn announcements(&self, scene: &Scene<'_>) -> Option<(Announcement, Announcement)> {
        let forged = self.forged?;
        let (cycle, group) = (forged.cycle, scene.group());
        let binding = Binding {
            network: scene.setting.network,
            cycle,
            group,
            hotkey: scene.me,
            base: forged.base,
        };
        let seal = binding.seal(forged.update, &forged.salt);
        let opened = Announcement::Revealed {
            cycle,
            group,
            seal,
            update: forged.update,
            salt: forged.salt,
        };
        Some((Announcement::Sealed { cycle, group, seal }, opened))
    }
}

impl Policy for Sleeper {
    fn job(&mut self, job: Job, _scene: &mut Scene<'_>) -> Job {
        let Job::Train(mut train) = job else {
            return job;
        };
        let now = (train.cycle, train.state);
        if self.current.is_none_or(|(cycle, _)| cycle != train.cycle) {
            self.before = self.current.map(|(_, state)| state);
            self.current = Some(now);
        }
        train.state = self.before.unwrap_or(train.state);
        Job::Train(train)
    }

    fn outcome(&mut self, outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        if let (Outcome::Trained(trained), Some(base)) = (&outcome, self.before)
            && trained.cycle.0 % 2 == 1
        {
            self.forged = Some(Forged {
                cycle: trained.cycle,
                update: trained.update,
                base,
                salt: scene.random.bytes(),
            });
        }
        outcome
    }

    fn effect(&mut self, effect: Effect, scene: &mut Scene<'_>) -> Option<Effect> {
        let Effect::Announce {
            announcement: Announcement::Sealed { cycle, .. },
        } = effect
        else {
            return Some(effect);
        };
        match self.announcements(scene) {
            Some((announcement, _)) if self.forged.is_some_and(|f| f.cycle == cycle) => {
                Some(Effect::Announce { announcement })
            }
            _ => Some(effect),
        }
    }

    /// The machine does not know the forged seal and would not open it.
    fn on_block(&mut self, scene: &mut Scene<'_>) -> Vec<Effect> {
        let (Some(now), Some(moment)) = (scene.now, scene.moment()) else {
            return Vec::new();
        };
        let next = scene.setting.schedule.at(now.block.next());
        let due = next.is_some_and(|next| next.window == Window::Reveal);
        let of_cycle = self
            .forged
            .is_some_and(|forged| forged.cycle == moment.cycle);
        match self.announcements(scene) {
            Some((_, announcement)) if due && of_cycle => {
                let shown = now.announcement(scene.me);
                let shows = shown.is_some_and(|(_, said)| said == announcement);
                let effect = Effect::Announce { announcement };
                if shows { Vec::new() } else { vec![effect] }
            }
            _ => Vec::new(),
        }
    }
}
