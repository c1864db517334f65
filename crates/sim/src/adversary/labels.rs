//! Miners whose updates are good and stand under a wrong name: an earlier cycle's, or another group's
//!

use connito_protocol::announcement::Announcement;
use connito_protocol::event::Effect;
use connito_protocol::ids::{Cycle, GroupId};
use connito_protocol::job::{Job, Outcome};
use connito_protocol::schedule::Window;

use super::copies::untrained;
use super::{Policy, Scene};

/// Works in one cycle and shows that cycle's seal and opening again in all later ones: in even cycles as
/// they were, in odd ones as if they were of the new cycle.
#[derive(Debug, Default)]
pub(crate) struct Replayer {
    /// What it has opened: it has worked once.
    opened: Option<Announcement>,
}

/// What an opening is called in a later cycle.
fn called(mut opened: Announcement, now: Cycle) -> Announcement {
    if let Announcement::Revealed { cycle, .. } = &mut opened
        && !now.0.is_multiple_of(2)
    {
        *cycle = now;
    }
    opened
}

/// The seal that an opening opens.
fn sealed(opened: Announcement) -> Announcement {
    match opened {
        Announcement::Revealed {
            cycle, group, seal, ..
        } => Announcement::Sealed { cycle, group, seal },
        other => other,
    }
}

impl Policy for Replayer {
    fn outcome(&mut self, outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        match &self.opened {
            None => outcome,
            Some(_) => untrained(outcome, None, scene),
        }
    }

    fn effect(&mut self, effect: Effect, _scene: &mut Scene<'_>) -> Option<Effect> {
        let Effect::Announce { announcement } = effect else {
            return Some(effect);
        };
        let announcement = match (&self.opened, announcement) {
            (None, opening @ Announcement::Revealed { .. }) => self.opened.insert(opening).clone(),
            (Some(opened), Announcement::Sealed { cycle, .. }) => {
                sealed(called(opened.clone(), cycle))
            }
            (_, other) => other,
        };
        Some(Effect::Announce { announcement })
    }

    /// The machine finds a seal that is not its own and does not open it.
    fn on_block(&mut self, scene: &mut Scene<'_>) -> Vec<Effect> {
        let (Some(now), Some(moment), Some(opened)) = (scene.now, scene.moment(), &self.opened)
        else {
            return Vec::new();
        };
        let opens = scene.setting.schedule.opens(moment.cycle, Window::Reveal);
        let Announcement::Revealed { cycle, .. } = opened else {
            return Vec::new();
        };
        let due = now.block == opens && moment.cycle > *cycle;
        let announcement = called(opened.clone(), moment.cycle);
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
