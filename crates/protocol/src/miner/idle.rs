//! When blocks ask nothing of a miner: it has what it needs, trains or waits, and its next move is fixed
//! by the schedule.
//!
//! Most blocks of a cycle are like that, and a process may hold thousands of miners (the simulator
//! does): such a block is noted and nothing is looked through for its sake. Inputs are what the miner
//! knows after an event that was acted on, and the block; whatever else comes in ends the rest. It
//! decides nothing: what the miner would do is nothing, and debug builds check that.

use super::Miner;
use crate::ids::{BlobId, Block};
use crate::participants::Participants;
use crate::present::Prepared;
use crate::schedule::Window;
use crate::snapshot::Snapshot;

/// Until when blocks ask nothing, as long as they say the same as the last one.
#[derive(Debug, Clone)]
pub(super) struct Idle {
    /// The first block that asks something.
    until: Block,
    last: Block,
    participants: Participants,
    task: BlobId,
}

impl Idle {
    /// Whether this block asks nothing.
    pub(super) fn covers(&self, snapshot: &Snapshot) -> bool {
        snapshot.block == self.last.next()
            && snapshot.block < self.until
            && snapshot.block >= snapshot.head
            && snapshot.participants.is_same(&self.participants)
            && snapshot.announced_task().map(|(task, _)| task) == Some(self.task)
    }

    /// The block has been noted.
    pub(super) fn note(&mut self, snapshot: &Snapshot) {
        self.last = snapshot.block;
    }
}

impl Miner {
    /// Until when blocks will ask nothing; `None` while every block might.
    pub(super) fn idle(&self) -> Option<Idle> {
        let until = self.next_move()?;
        let task = self.follower.settled_task()?;
        let (now, _) = self.follower.live()?;
        Some(Idle {
            until,
            last: now.block,
            participants: now.participants.clone(),
            task: task.id,
        })
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
    use std::sync::Arc;

    use super::*;
    use crate::announcement::Announcement;
    use crate::ids::{BlockHash, Hotkey};
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
            last: Block(10),
            participants: everyone.clone(),
            task: TASK,
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
