//! What becomes of a miner's submission: the receipt that a validator signs, and whether the next
//! state names the update (P-42, P-4).
//!
//! A miner does not judge: that would take every report and every submission. It asks, and what it is
//! told it can hold against the state's manifest, which is named by the votes of a majority. Inputs are
//! the chain's votes and events; signatures are verified where receipts arrive.

use crate::event::{Effect, Effects, Event, Milestone};
use crate::follow::Follower;
use crate::ids::{BlobId, Block, Cycle, Hotkey};
use crate::schedule::Window;
use crate::snapshot::{Endpoint, Snapshot};

/// Validators that are asked at once: the next one answers where the first does not.
const ASKED_AT_ONCE: usize = 3;

/// A submission whose outcome is not all known.
#[derive(Debug, Clone)]
pub(crate) struct Awaited {
    cycle: Cycle,
    update: BlobId,
    receipt: Receipt,
    included: bool,
}

/// Where the receipt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receipt {
    Wanted,
    Asked,
    /// Nobody had one in this block.
    Missed(Block),
    Done,
}

impl Awaited {
    /// Begins to wait for the outcome of a submission, once.
    pub(crate) fn begin(awaited: &mut Option<Self>, (cycle, update): (Cycle, BlobId)) {
        if awaited
            .as_ref()
            .is_none_or(|awaited| awaited.cycle != cycle)
        {
            *awaited = Some(Self {
                cycle,
                update,
                receipt: Receipt::Wanted,
                included: false,
            });
        }
    }

    /// Takes in an answer.
    pub(crate) fn note(
        &mut self,
        event: &Event,
        (follower, now): (&Follower, Block),
        effects: &mut Effects,
    ) {
        match event {
            // The answer that the last process waited for is lost.
            Event::Started if self.receipt == Receipt::Asked => self.receipt = Receipt::Wanted,
            Event::Receipt { cycle, receipt } if *cycle == self.cycle => {
                let hotkey = follower.identity.hotkey;
                let ours = receipt
                    .as_ref()
                    .filter(|receipt| receipt.cycle == *cycle && receipt.hotkey == hotkey);
                self.receipt = match (self.receipt, ours) {
                    (Receipt::Done, _) => Receipt::Done,
                    (_, Some(receipt)) => {
                        effects.tell(Milestone::Receipt(receipt.clone()));
                        Receipt::Done
                    }
                    (_, None) => Receipt::Missed(now),
                };
            }
            _ => {}
        }
    }

    /// Asks from the first block after verdicts stand until the next cycle's training ends.
    pub(crate) fn act(&mut self, follower: &Follower, effects: &mut Effects) {
        let Some((now, moment)) = follower.live() else {
            return;
        };
        let soon = match moment.window {
            Window::Vote => moment.cycle == self.cycle,
            Window::Distribute | Window::Train => moment.cycle == self.cycle.next(),
            Window::Seal | Window::Reveal | Window::Score => false,
        };
        let due = match self.receipt {
            Receipt::Wanted => true,
            Receipt::Missed(block) => block < now.block,
            Receipt::Asked | Receipt::Done => false,
        };
        if soon && due {
            let from = validators(now, follower.identity.hotkey);
            if !from.is_empty() {
                self.receipt = Receipt::Asked;
                effects.push(Effect::AskReceipt {
                    cycle: self.cycle,
                    from,
                });
            }
        }
        self.tell_included(follower, effects);
    }

    /// Whether the next blocks may ask something of it, in a window in which receipts are asked for.
    pub(crate) fn asks_again(&self, follower: &Follower) -> bool {
        let next = follower.round().map(|round| round.cycle) == Some(self.cycle.next());
        matches!(self.receipt, Receipt::Wanted | Receipt::Missed(_)) || (next && !self.included)
    }

    /// Only a state of the very next cycle can have merged it.
    fn tell_included(&mut self, follower: &Follower, effects: &mut Effects) {
        let next = self.cycle.next();
        if let (false, Some((state, base))) = (self.included, follower.base())
            && follower.round().is_some_and(|round| round.cycle == next)
        {
            self.included = true;
            let of_this_cycle = base.cycle == next;
            let merged = follower.merged(state);
            let named = merged.is_some_and(|merged| merged.names(self.update));
            effects.tell(Milestone::Included {
                cycle: self.cycle,
                update: self.update,
                merged: of_this_cycle && named,
            });
        }
    }
}

/// A few validators that serve, beginning with another one for each hotkey.
fn validators(now: &Snapshot, asking: Hotkey) -> Vec<(Hotkey, Endpoint)> {
    let drawn = usize::from(u16::from_le_bytes([asking.0[0], asking.0[1]]));
    let first = drawn % now.participants.count_serving().max(1);
    let others = now.participants.ring(first);
    let others = others.filter(|(hotkey, _)| *hotkey != asking);
    others.take(ASKED_AT_ONCE).collect()
}
