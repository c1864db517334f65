//! The newest block: when it is worth asking for again, and which answer is believed.
//!
//! ```text
//! seen on time ── a look a little before the next is due ──┬─ it is there: one look a block
//!                                                          └─ not yet: a short step, then longer ones
//! ```
//!
//! Blocks come at a steady pace, so one look a block is enough once their rhythm is known; each look
//! is a little earlier than the last until one is too early, so that it stays known how late the looks
//! are. Whoever else waits hears of what one of them has seen.
//!
//! A head that stands on the one before is believed. Any other has to be named by its number as well,
//! with its parent; and one that is further ahead than time allows is believed only when no other
//! endpoint knows better. Nothing that was once believed stands in the way of a later, lower head.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connito_protocol::ids::Block;
use tokio::time::Instant;

use crate::chain::BlockRef;

/// Parts of a block time by which each look is earlier than the last that was on time.
const EARLIER_PARTS: u32 = 32;
/// Parts of a block time to the next look after one that was too early, and to those after it.
const FIRST_STEP_PARTS: u32 = 8;
const STEP_PARTS: u32 = 4;
/// Blocks that a head may be ahead of what time allows: slots that were filled late, and clocks.
const SLACK_BLOCKS: u64 = 16;

/// What is known of the newest block.
#[derive(Debug, Default)]
pub(super) struct Heads {
    seen: Mutex<Seen>,
    /// Blocks below the head that will be waited for next, lowest first.
    ahead: Mutex<VecDeque<BlockRef>>,
    /// Held by whoever looks, so that nobody looks at the same time.
    pub(super) looking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Seen {
    head: Option<(BlockRef, Instant)>,
    /// When the next one is worth a look.
    due: Option<Instant>,
    /// Looks since the last new head.
    in_vain: u32,
    /// Heads in a row that were further ahead than time allows.
    doubted: usize,
}

/// What to make of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Belief {
    /// It is the head that is known, or stands on it.
    Linked,
    /// It may be, if the chain has it under its number.
    Unlinked,
    /// So many blocks cannot have been made meanwhile.
    TooFar,
}

impl Heads {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the head that was seen last.
    pub(super) fn number(&self) -> Option<Block> {
        self.seen().head.map(|(head, _)| head.number)
    }

    /// The head, if it was seen within the last block time and is beyond `after`.
    pub(super) fn beyond(&self, after: Block, block_time: Duration) -> Option<BlockRef> {
        let (head, at) = self.seen().head?;
        let fresh = at.elapsed() < block_time;
        (fresh && head.number > after).then_some(head)
    }

    /// Block `number`, if it has been read ahead of being waited for.
    pub(super) fn ahead(&self, number: Block) -> Option<BlockRef> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        while ahead.front().is_some_and(|block| block.number < number) {
            ahead.pop_front();
        }
        ahead
            .front()
            .copied()
            .filter(|block| block.number == number)
    }

    /// These blocks will be waited for next, and no others that were said to be.
    pub(super) fn expect_next(&self, blocks: impl Iterator<Item = BlockRef>) {
        let blocks = blocks.collect();
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = blocks;
    }

    /// When the next head is worth a look; at once if that is not known.
    pub(super) fn due(&self) -> Option<Instant> {
        self.seen().due
    }

    /// There is a new head.
    pub(super) fn expect_now(&self) {
        self.seen().due = None;
    }

    /// How an answer agrees with what is known.
    pub(super) fn belief(&self, head: BlockRef, block_time: Duration) -> Belief {
        let Some((known, at)) = self.seen().head else {
            return Belief::Unlinked;
        };
        if head.hash == known.hash
            || head.parent == known.hash && head.number == known.number.next()
        {
            return Belief::Linked;
        }
        let block_ms = block_time.as_millis().max(1);
        let made = u64::try_from(at.elapsed().as_millis() / block_ms).unwrap_or(u64::MAX);
        let furthest = known
            .number
            .0
            .saturating_add(made)
            .saturating_add(SLACK_BLOCKS);
        if head.number.0 > furthest {
            Belief::TooFar
        } else {
            Belief::Unlinked
        }
    }

    /// Notes that a head was too far ahead; whether as many of `endpoints` in a row have said so that
    /// it is rather the clock that stood still.
    pub(super) fn doubt(&self, endpoints: usize) -> bool {
        let mut seen = self.seen();
        seen.doubted += 1;
        seen.doubted > endpoints
    }

    /// Remembers a head that is believed, and when to look again.
    pub(super) fn remember(&self, head: BlockRef, block_time: Duration) {
        let now = Instant::now();
        let mut seen = self.seen();
        let before = seen.head.replace((head, now));
        seen.doubted = 0;
        let known = before.map(|(before, _)| before);
        let step = if known.is_some_and(|known| known.hash == head.hash) {
            // A look before its time says nothing about the rhythm.
            if seen.due.is_some_and(|due| due > now) {
                return;
            }
            seen.in_vain = seen.in_vain.saturating_add(1);
            let parts = if seen.in_vain == 1 {
                FIRST_STEP_PARTS
            } else {
                STEP_PARTS
            };
            block_time / parts
        } else {
            seen.in_vain = 0;
            let next = known.is_some_and(|known| known.number.next() == head.number);
            // A look that was late says little about when the block came.
            let on_time = seen
                .due
                .is_some_and(|due| now <= due + block_time / STEP_PARTS);
            if next && on_time {
                block_time - block_time / EARLIER_PARTS
            } else {
                block_time / FIRST_STEP_PARTS
            }
        };
        seen.due = Some(now + step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use connito_protocol::ids::BlockHash;

    const BLOCK_TIME: Duration = Duration::from_secs(12);

    fn block(number: u64) -> BlockRef {
        let hash = |number: u64| BlockHash(crate::hash::blake2_256(&number.to_le_bytes()));
        BlockRef {
            number: Block(number),
            hash: hash(number),
            parent: hash(number.wrapping_sub(1)),
            timestamp_ms: None,
        }
    }

    /// Blocks come every twelve seconds; looks follow what they find.
    #[tokio::test(start_paused = true)]
    async fn one_look_in_four_is_too_early_and_none_is_late() {
        let heads = Heads::default();
        let began = Instant::now();
        let (mut looks, mut latest) = (0, Duration::ZERO);
        let mut seen = 0;
        while seen < 100 {
            if let Some(due) = heads.due() {
                tokio::time::sleep_until(due).await;
            }
            let head = began.elapsed().as_secs() / BLOCK_TIME.as_secs();
            if head > seen && head > 20 {
                latest = latest.max(began.elapsed() - BLOCK_TIME * u32::try_from(head).unwrap());
            }
            looks += u32::from(head > 20);
            seen = head;
            heads.remember(block(head), BLOCK_TIME);
        }
        assert!((80..=110).contains(&looks), "{looks} looks at 80 blocks");
        assert!(latest <= BLOCK_TIME / FIRST_STEP_PARTS, "{latest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_is_believed_by_what_it_stands_on_and_by_the_time_there_was() {
        let heads = Heads::default();
        let belief = |number| heads.belief(block(number), BLOCK_TIME);
        assert_eq!(
            belief(4_000_000_000),
            Belief::Unlinked,
            "nothing to compare it with"
        );
        heads.remember(block(100), BLOCK_TIME);
        assert_eq!([belief(100), belief(101)], [Belief::Linked; 2]);
        assert_eq!(
            [belief(99), belief(102), belief(116)],
            [Belief::Unlinked; 3]
        );
        assert_eq!(belief(117), Belief::TooFar);
        tokio::time::advance(BLOCK_TIME * 20).await;
        assert_eq!(
            [belief(117), belief(137)],
            [Belief::Unlinked, Belief::TooFar]
        );
        assert!(!heads.doubt(1));
        assert!(heads.doubt(1), "nobody else to ask says otherwise");
    }

    /// What should not happen: that a lie which was believed outlives whoever told it.
    #[test]
    fn a_lower_head_is_never_too_far() {
        let heads = Heads::default();
        heads.remember(block(4_000_000_000), BLOCK_TIME);
        assert_eq!(heads.belief(block(7), BLOCK_TIME), Belief::Unlinked);
    }
}
