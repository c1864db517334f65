//! A miner that does no work: the adversary that `localnet` lets loose on itself.
//!
//! In even cycles it copies its victim's seal while the window is open, and then the opening: the
//! seal binds the victim's hotkey, so the opening does not fit (`reveal_mismatch`). In odd cycles it
//! submits, properly sealed, the update that its victim submitted the cycle before: a copy of
//! something accepted earlier (`duplicate`). It uses only what the chain and the validators show to
//! anybody.

use crate::announcement::Announcement;
use crate::event::{Effects, Event, Form};
use crate::follow::{Follower, Identity, Reads};
use crate::ids::{BlobId, Block, Cycle, Hotkey, StateId};
use crate::present::Prepared;
use crate::schedule::Window;

/// The copier's state.
#[derive(Debug, Clone)]
pub struct Copier {
    follower: Follower,
    victim: Hotkey,
    /// The victim's update and the cycle that it was for.
    loot: Option<(Cycle, BlobId)>,
    prepared: Option<Prepared>,
}

impl Copier {
    /// A copier of `victim`.
    #[must_use]
    pub fn new(identity: Identity, victim: Hotkey) -> Self {
        Self {
            follower: Follower::new(identity, Reads::Votes),
            victim,
            loot: None,
            prepared: None,
        }
    }

    /// Takes an event, gives what is to be done.
    pub fn handle(&mut self, event: &Event) -> Effects {
        let mut effects = Effects::default();
        self.follower.note(event, &mut effects);
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

    fn act(&mut self, effects: &mut Effects) {
        self.plunder(effects);
        let (Some((now, moment)), Some(next)) = (self.follower.live(), self.follower.next_moment())
        else {
            return;
        };
        if moment.cycle.0 % 2 == 1 {
            self.echo(moment.cycle, effects);
        } else if let Some((_, said)) = now.announcement(self.victim) {
            let worth_copying = match said {
                Announcement::Sealed { cycle, .. } => {
                    (next.window, next.cycle) == (Window::Seal, cycle)
                }
                Announcement::Revealed { cycle, .. } => {
                    (next.window, next.cycle) == (Window::Reveal, cycle)
                }
                Announcement::Task { .. }
                | Announcement::Scored(_)
                | Announcement::Voted(_)
                | Announcement::Reported(_)
                | Announcement::Attested(_) => false,
            };
            if worth_copying {
                self.follower.announce(&said, effects);
            }
        }
    }

    /// Fetches what the victim has just revealed.
    fn plunder(&mut self, effects: &mut Effects) {
        let Some((now, moment)) = self.follower.live() else {
            return;
        };
        if let Some((_, Announcement::Revealed { cycle, update, .. })) =
            now.announcement(self.victim)
            && cycle == moment.cycle
        {
            self.loot = Some((cycle, update));
            self.follower.want([update], Form::Blob, effects);
        }
    }

    /// Submits the loot of the cycle before as if it were its own.
    fn echo(&mut self, cycle: Cycle, effects: &mut Effects) {
        if self
            .prepared
            .as_ref()
            .is_none_or(|prepared| prepared.cycle != cycle)
            && let Some((from, update)) = self.loot
            && from.next() == cycle
            && self.follower.library.has(update)
            && let Some((base, _)) = self.follower.base()
            && let Some(task) = self.follower.task()
            && let Some(group) = task.own_group
        {
            self.prepared = Some(Prepared::new((cycle, base, group), update, [0; 16]));
        }
        if let Some(prepared) = &mut self.prepared {
            prepared.act(&mut self.follower, effects);
        }
    }
}
