//! Miners whose updates are good and stand under a wrong name: an earlier cycle's, or another group's
//!

use connito_protocol::announcement::{Announcement, Salt};
use connito_protocol::event::Effect;
use connito_protocol::ids::{BlobId, Cycle, GroupId, Seal};
use connito_protocol::job::{Job, Outcome};
use connito_protocol::schedule::Window;

use super::copies::untrained;
use super::{Policy, Scene};

/// Works in one cycle and shows that cycle's seal and opening again in all later ones: in even cycles as
/// they were, in odd ones as if they were of the new cycle.
#[derive(Debug, Default)]
pub(crate) struct Replayer {
    opened: Option<Opened>,
}

/// An opening that was shown once.
#[derive(Debug, Clone, Copy)]
struct Opened {
    cycle: Cycle,
    group: GroupId,
    seal: Seal,
    update: BlobId,
    salt: Salt,
}

impl Opened {
    /// What it is called in a later cycle.
    fn called(self, now: Cycle) -> Self {
        let cycle = if now.0.is_multiple_of(2) {
            self.cycle
        } else {
            now
        };
        Self { cycle, ..self }
    }

    fn sealed(self) -> Announcement {
        let Self {
            cycle, group, seal, ..
        } = self;
        Announcement::Sealed { cycle, group, seal }
    }

    fn revealed(self) -> Announcement {
        let Self {
            cycle,
            group,
            seal,
            update,
            salt,
        } = self;
        Announcement::Revealed {
            cycle,
            group,
            seal,
            update,
            salt,
        }
    }
}

impl Policy for Replayer {
    fn outcome(&mut self, outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        match self.opened {
            None => outcome,
            Some(_) => untrained(outcome, None, scene),
        }
    }

    fn effect(&mut self, effect: Effect, _scene: &mut Scene<'_>) -> Option<Effect> {
        let Effect::Announce { announcement } = &effect else {
            return Some(effect);
        };
        match *announcement {
            Announcement::Revealed {
                cycle,
                group,
                seal,
                update,
                salt,
            } if self.opened.is_none() => {
                self.opened = Some(Opened {
                    cycle,
                    group,
                    seal,
                    update,
                    salt,
                });
                Some(effect)
            }
            Announcement::Sealed { cycle, .. } => Some(match self.opened {
                Some(opened) => Effect::Announce {
                    announcement: opened.called(cycle).sealed(),
                },
                None => effect,
            }),
            _ => Some(effect),
        }
    }

    /// The machine finds a seal that is not its own and does not open it.
    fn on_block(&mut self, scene: &mut Scene<'_>) -> Vec<Effect> {
        let (Some(now), Some(moment), Some(opened)) = (scene.now, scene.moment(), self.opened)
        else {
            return Vec::new();
        };
        let opens = scene.setting.schedule.opens(moment.cycle, Window::Reveal);
        let announcement = opened.called(moment.cycle).revealed();
        let due = now.block == opens && moment.cycle > opened.cycle;
        let effect = due.then_some(Effect::Announce { announcement });
        effect.into_iter().collect()
    }
}

/// In even cycles it trains the experts of another group and submits them as its own group's; in odd ones
/// it submits its own group's in the other's name.
#[derive(Debug, Default)]
pub(crate) struct Trespasser {
    /// Whether what it trained last is another group's.
    abroad: bool,
}

impl Trespasser {
    fn elsewhere(group: GroupId, scene: &Scene<'_>) -> GroupId {
        let groups = u16::try_from(scene.setting.manifest.groups.len()).unwrap_or(u16::MAX);
        GroupId((group.0 + 1) % groups.max(1))
    }
}

impl Policy for Trespasser {
    fn job(&mut self, job: Job, scene: &mut Scene<'_>) -> Job {
        let Job::Train(mut train) = job else {
            return job;
        };
        self.abroad = train.cycle.0.is_multiple_of(2);
        if self.abroad {
            train.group = Self::elsewhere(train.group, scene);
        }
        Job::Train(train)
    }

    fn effect(&mut self, mut effect: Effect, scene: &mut Scene<'_>) -> Option<Effect> {
        if let Effect::Announce {
            announcement: Announcement::Sealed { group, .. },
        } = &mut effect
            && !self.abroad
        {
            *group = Self::elsewhere(*group, scene);
        }
        Some(effect)
    }
}
