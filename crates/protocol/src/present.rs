//! How a finished update reaches the validators: seal, reveal, deliver (P-12, P-13, P-16).
//!
//! The chain's own record says what has been done, so a restart repeats nothing and forgets nothing. An
//! update that was never sealed is still a secret, and may be presented in a later cycle (P-15). Knows
//! nothing of how the update came about.

use std::collections::BTreeMap;

use crate::announcement::{Announcement, Salt};
use crate::event::{Delivery, Effect, Effects, Event};
use crate::follow::Follower;
use crate::ids::{BlobId, Block, Cycle, GroupId, Hotkey, Seal, StateId};
use crate::schedule::Window;
use crate::snapshot::{Endpoint, Snapshot};
use crate::submission::Binding;

/// An update that is ready to be committed to.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) cycle: Cycle,
    pub(crate) base: StateId,
    pub(crate) group: GroupId,
    pub(crate) update: BlobId,
    pub(crate) salt: Salt,
    /// The chain has shown our seal in its window.
    sealed: bool,
    deliveries: BTreeMap<Hotkey, Attempt>,
}

/// Where the delivery to one validator stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    UnderWay,
    /// Failed in this block; worth another try.
    Failed(Block),
    Accepted,
    Refused,
}

impl Prepared {
    pub(crate) fn new(
        (cycle, base, group): (Cycle, StateId, GroupId),
        update: BlobId,
        salt: Salt,
    ) -> Self {
        Self {
            cycle,
            base,
            group,
            update,
            salt,
            sealed: false,
            deliveries: BTreeMap::new(),
        }
    }

    /// Whether the update was committed to in its cycle.
    pub(crate) fn was_sealed(&self) -> bool {
        self.sealed
    }

    /// The same update on the same base, to be presented in another cycle.
    pub(crate) fn carried_to(&self, cycle: Cycle) -> Self {
        Self::new((cycle, self.base, self.group), self.update, self.salt)
    }

    /// Takes in what became of deliveries.
    pub(crate) fn note(&mut self, event: &Event, now: Block) {
        match event {
            // Asked again after a restart: the answers of the last process are lost.
            Event::Started => self
                .deliveries
                .retain(|_, attempt| matches!(attempt, Attempt::Accepted | Attempt::Refused)),
            Event::Delivered { blob, to, answer } if *blob == self.update => {
                let attempt = match answer {
                    Delivery::Accepted => Attempt::Accepted,
                    Delivery::Refused(_) => Attempt::Refused,
                    Delivery::Unreachable(_) => Attempt::Failed(now),
                };
                self.deliveries.insert(*to, attempt);
            }
            _ => {}
        }
    }

    /// Does what this block and the next one ask for.
    pub(crate) fn act(&mut self, follower: &mut Follower, effects: &mut Effects) {
        let (Some((now, moment)), Some(next)) = (follower.live(), follower.next_moment()) else {
            return;
        };
        let Some(task) = follower.task().filter(|_| moment.cycle == self.cycle) else {
            return;
        };
        if moment.window == Window::Reveal {
            let receivers = task.manifest.rules.scoring.receivers_per_update as usize;
            self.deliver(now, receivers, effects);
        }
        let nothing_to_say = match next.window {
            Window::Train => true,
            Window::Seal | Window::Reveal => false,
            Window::Distribute | Window::Score | Window::Vote => self.sealed,
        };
        if nothing_to_say {
            return;
        }
        let seal = self.seal(follower);
        let sealed = Announcement::Sealed {
            cycle: self.cycle,
            group: self.group,
            seal,
        };
        let said = now.announcement(follower.identity.hotkey);
        let is_sealed = said.is_some_and(|(_, said)| said == sealed);
        self.sealed |= is_sealed;
        match next.window {
            Window::Seal => follower.announce(&sealed, effects),
            Window::Reveal => {
                // Only what the chain holds can be opened; a reveal over a missing seal is noise.
                if is_sealed {
                    let reveal = Announcement::Revealed {
                        cycle: self.cycle,
                        group: self.group,
                        seal,
                        update: self.update,
                        salt: self.salt,
                    };
                    follower.announce(&reveal, effects);
                }
            }
            Window::Distribute | Window::Train | Window::Score | Window::Vote => {}
        }
    }

    fn seal(&self, follower: &Follower) -> Seal {
        let binding = Binding {
            network: follower.identity.network,
            cycle: self.cycle,
            group: self.group,
            hotkey: follower.identity.hotkey,
            base: self.base,
        };
        binding.seal(self.update, &self.salt)
    }

    /// Uploads to as many validators as it takes: first to those that were not asked, then again to those
    /// that could not be reached (P-16).
    fn deliver(&mut self, now: &Snapshot, receivers: usize, effects: &mut Effects) {
        let taken = |attempt: &&Attempt| matches!(attempt, Attempt::UnderWay | Attempt::Accepted);
        let missing = receivers.saturating_sub(self.deliveries.values().filter(taken).count());
        if missing == 0 {
            return;
        }
        let ring: Vec<(Hotkey, Endpoint)> = now.receivers(self.update).collect();
        let attempt = |to: &Hotkey| self.deliveries.get(to);
        let untried = ring.iter().filter(|(to, _)| attempt(to).is_none());
        let again = ring.iter().filter(
            |(to, _)| matches!(attempt(to), Some(Attempt::Failed(block)) if *block < now.block),
        );
        let due: Vec<_> = untried.chain(again).take(missing).copied().collect();
        for (to, endpoint) in due {
            self.deliveries.insert(to, Attempt::UnderWay);
            effects.push(Effect::Deliver {
                cycle: self.cycle,
                blob: self.update,
                to,
                endpoint,
            });
        }
    }
}
