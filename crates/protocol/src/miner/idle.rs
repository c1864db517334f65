//! When blocks ask nothing of a miner: it has what it needs, trains or waits, and its next move is fixed
//! by the schedule.
//!
//! Most blocks of a cycle are like that, and a process may hold thousands of miners (the simulator
//! does): such a block passes, and is taken in when something comes that may ask for more. Inputs are
//! what the miner knows after an event that was acted on, and the block. It decides nothing: what the
//! miner would do is nothing, and debug builds check that.

use std::sync::Arc;

use super::Miner;
use crate::event::Event;
use crate::ids::Block;
use crate::present::Prepared;
use crate::schedule::Window;
use crate::snapshot::Snapshot;

/// Until when blocks ask nothing, as long as they say the same as the last one.
#[derive(Debug, Clone)]
pub(super) struct Idle {
    /// The first block that asks something.
    until: Block,
    /// The last block that was acted on.
    since: Block,
    last: Arc<Snapshot>,
}

impl Idle {
    /// Whether this block asks nothing.
    pub(super) fn covers(&self, snapshot: &Snapshot) -> bool {
        snapshot.block < self.until
            && snapshot.block >= snapshot.head
            && snapshot.continues(&self.last)
    }
}

impl Miner {
    /// Until when blocks will ask nothing; `None` while every block might.
    pub(super) fn idle(&self) -> Option<Idle> {
        let until = self.next_move()?;
        let task = self.follower.settled_task()?;
        let (last, _) = self.follower.live()?;
        let (announced, _) = last.announced_task()?;
        (announced == task.id).then(|| Idle {
            until,
            since: last.block,
            last: Arc::clone(last),
        })
    }

    /// The block until which blocks that continue the last one ask nothing.
    pub(crate) fn rests_until(&self) -> Option<Block> {
        self.idle.as_ref().map(|idle| idle.until)
    }

    /// Whether an event is a block that asks nothing; then it has passed.
    pub(super) fn lets_pass(&mut self, event: &Event) -> bool {
        let Event::Block(snapshot) = event else {
            return false;
        };
        let passes = self.idle.as_ref().is_some_and(|idle| idle.covers(snapshot));
        debug_assert!(!passes || self.clone().wake_for(event).into_vec().is_empty());
        if let Some(idle) = self.idle.as_mut().filter(|_| passes) {
            idle.last = Arc::clone(snapshot);
        }
        passes
    }

    /// Something came that may ask for more: first, the blocks that have passed are taken in.
    pub(super) fn note_what_passed(&mut self) {
        if let Some(Idle { since, last, .. }) = self.idle.take()
            && since < last.block
        {
            self.follower.pass(since.next(), last);
        }
    }

    /// The next block in which the schedule has something to do, where nothing is to be done before it.
    fn next_move(&self) -> Option<Block> {
        let (_, moment) = self.follower.live()?;
        let (cycle, schedule) = (moment.cycle, &self.follower.task()?.schedule);
        let has_attempted = self.attempted == Some(cycle);
        let presented = self.prepared.as_ref().filter(|p| p.cycle == cycle);
        let has_presented = presented.is_none_or(Prepared::was_sealed);
        let awaited = self.awaited.as_ref();
        let is_told = awaited.is_none_or(|awaited| !awaited.asks_again(&self.follower));
        match moment.window {
            // With the block before the first of the window, what is sent lands in it.
            Window::Distribute | Window::Train if has_attempted && is_told => {
                let opens = schedule.opens(cycle, Window::Seal);
                Some(Block(opens.0.saturating_sub(1)))
            }
            Window::Seal | Window::Reveal if presented.is_none() && has_attempted => {
                Some(schedule.opens(cycle, Window::Vote))
            }
            Window::Score if has_presented => Some(schedule.opens(cycle, Window::Vote)),
            Window::Vote if has_presented && is_told => Some(schedule.closes(cycle, Window::Vote)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::announcement::Announcement;
    use crate::ids::{BlobId, BlockHash, Hotkey};
    use crate::participants::Participants;
    use crate::snapshot::Record;

    const OWNER: Hotkey = Hotkey([1; 32]);
    const TASK: BlobId = BlobId([2; 32]);

    fn snapshot(block: u64, task: BlobId, participants: &Participants) -> Snapshot {
        let record = Record {
            block: Block(1),
            index: 0,
            bytes: Announcement::Task { task }.encode().into(),
        };
        Snapshot {
            block: Block(block),
            hash: BlockHash([0; 32]),
            head: Block(block),
            owner: Some(OWNER),
            participants: participants.clone(),
            records: Arc::new(BTreeMap::from([(OWNER, record)])),
            readings: Default::default(),
        }
    }

    /// What should not pass: a block that is missing its predecessor, that comes after others, in which
    /// the schedule asks something, somebody moved, or another task is announced.
    #[test]
    fn only_blocks_that_say_the_same_as_the_last_one_pass() {
        let everyone: Participants = [].into_iter().collect();
        let idle = Idle {
            until: Block(20),
            since: Block(10),
            last: Arc::new(snapshot(10, TASK, &everyone)),
        };
        assert!(idle.covers(&snapshot(11, TASK, &everyone)));
        assert!(!idle.covers(&snapshot(12, TASK, &everyone)));
        assert!(!idle.covers(&snapshot(10, TASK, &everyone)));
        let behind = Snapshot {
            head: Block(15),
            ..snapshot(11, TASK, &everyone)
        };
        assert!(!idle.covers(&behind));
        let others: Participants = [].into_iter().collect();
        assert!(!idle.covers(&snapshot(11, TASK, &others)));
        assert!(!idle.covers(&snapshot(11, BlobId([3; 32]), &everyone)));
        let due = Idle {
            until: Block(11),
            ..idle
        };
        assert!(!due.covers(&snapshot(11, TASK, &everyone)));
    }
}
