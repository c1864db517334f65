//! What a role makes of blocks that the chain takes back (P-9): it knows again what it knew before the
//! first of them, and goes on from there with those that stand in their place.
//!
//! Inputs are the numbers of blocks as they come in. Kept is, for each of the last few blocks, what had
//! been read off the chain before it, once for all blocks that changed nothing of it. What came in otherwise (blobs,
//! manifests, uploads) no fork takes back. It decides nothing of what a role then does anew.
//!
//! To know nothing at all after a fork, as after blocks that were missed, is no way out: a fork is seen
//! by everybody, and a canonical state that everybody has forgotten is one that nobody can vote on.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Follower, Reading};
use crate::ids::Block;

/// Blocks that a fork may take back without costing a role all that it knows: several times as many as
/// a chain is ahead of the blocks that are final.
const REMEMBERED_BLOCKS: u64 = 16;

/// What had been read off the chain before each of some blocks, which follow each other.
#[derive(Debug, Clone)]
struct Known {
    first: Block,
    last: Block,
    reading: Arc<Reading>,
}

/// What had been read off the chain before each of the last blocks, the newest last.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent(VecDeque<Known>);

impl Follower {
    /// Before blocks are taken in, the first of them and the last: what will be known again if they are
    /// taken back.
    pub(super) fn remember(&mut self, first: Block, last: Block) {
        let recent = &mut self.recent.0;
        match recent.back_mut() {
            Some(known)
                if known.last.next() == first && Arc::ptr_eq(&known.reading, &self.reading) =>
            {
                known.last = last;
            }
            _ => recent.push_back(Known {
                first,
                last,
                reading: Arc::clone(&self.reading),
            }),
        }
        let oldest = Block((last.0 + 1).saturating_sub(REMEMBERED_BLOCKS));
        while recent.front().is_some_and(|known| known.last < oldest) {
            recent.pop_front();
        }
        if let Some(known) = recent.front_mut() {
            known.first = known.first.max(oldest);
        }
    }

    /// Blocks from this one on were taken back. False if it is too long ago to know what was known then.
    pub(super) fn step_back(&mut self, to: Block) -> bool {
        while let Some(known) = self.recent.0.pop_back() {
            if (known.first..=known.last).contains(&to) {
                let reading = Arc::clone(&known.reading);
                if known.first < to {
                    let last = Block(to.0 - 1);
                    self.recent.0.push_back(Known { last, ..known });
                }
                self.know_again(reading, to);
                return true;
            }
        }
        false
    }

    fn know_again(&mut self, reading: Arc<Reading>, before: Block) {
        self.reading = reading;
        self.stepped_back = true;
        for (_, sent) in self.sent.values_mut() {
            // It waits in the pool again, and is due again as if it had been sent now.
            *sent = before.min(*sent);
        }
    }

    /// Whether blocks were taken back since this was asked last.
    pub(crate) fn take_stepped_back(&mut self) -> bool {
        std::mem::take(&mut self.stepped_back)
    }
}
