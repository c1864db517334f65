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
const REMEMBERED_BLOCKS: usize = 16;

/// What had been read off the chain before a block.
#[derive(Debug, Clone)]
struct Known {
    before: Block,
    reading: Arc<Reading>,
}

/// What had been read off the chain before each of the last blocks, the newest last.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent(VecDeque<Known>);

impl Follower {
    /// Before a block is taken in: what will be known again if it is taken back.
    pub(super) fn remember(&mut self, before: Block) {
        if self.recent.0.len() == REMEMBERED_BLOCKS {
            self.recent.0.pop_front();
        }
        self.recent.0.push_back(Known {
            before,
            reading: Arc::clone(&self.reading),
        });
    }

    /// Blocks from this one on were taken back. False if it is too long ago to know what was known then.
    pub(super) fn step_back(&mut self, to: Block) -> bool {
        while let Some(known) = self.recent.0.pop_back() {
            if known.before == to {
                self.know_again(known);
                return true;
            }
        }
        false
    }

    fn know_again(&mut self, known: Known) {
        self.reading = known.reading;
        self.stepped_back = true;
        for (_, sent) in self.sent.values_mut() {
            // It waits in the pool again, and is due again as if it had been sent now.
            *sent = known.before.min(*sent);
        }
    }

    /// Whether blocks were taken back since this was asked last.
    pub(crate) fn take_stepped_back(&mut self) -> bool {
        std::mem::take(&mut self.stepped_back)
    }
}
