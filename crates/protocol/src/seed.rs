//! Public randomness (P-20): a block hash and a label, never a generator kept somewhere.
//!
//! The label keeps two draws of one block apart; nobody can know the hash before the block exists,
//! and the blocks are chosen so that by then nothing can be changed any more.

use crate::ids::{BlockHash, Cycle, GroupId, Hotkey, Seed};

/// What a draw is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draw {
    /// The sequences on which updates are scored.
    Scoring,
    /// The sequences on which the gate is measured.
    Gate,
    /// The order in which a miner sees its data: different for each hotkey, or honest neighbours
    /// would send the same update.
    Training(Hotkey),
    /// The voters that score a group (P-43).
    Committee(GroupId),
    /// The updates of a group that are scored (P-43).
    Updates(GroupId),
    /// The submissions that are scored again (P-46).
    Review,
}

/// The seed of a draw.
#[must_use]
pub fn seed(draw: Draw, block: BlockHash, cycle: Cycle) -> Seed {
    let label = match draw {
        Draw::Scoring => "connito/1 seed scoring",
        Draw::Gate => "connito/1 seed gate",
        Draw::Training(_) => "connito/1 seed training",
        Draw::Committee(_) => "connito/1 seed committee",
        Draw::Updates(_) => "connito/1 seed updates",
        Draw::Review => "connito/1 seed review",
    };
    let mut hasher = blake3::Hasher::new_derive_key(label);
    hasher.update(&block.0);
    hasher.update(&cycle.0.to_le_bytes());
    match draw {
        Draw::Training(hotkey) => hasher.update(&hotkey.0),
        Draw::Committee(group) | Draw::Updates(group) => hasher.update(&group.0.to_le_bytes()),
        Draw::Scoring | Draw::Gate | Draw::Review => &mut hasher,
    };
    Seed(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changing_the_block_the_cycle_the_purpose_or_the_hotkey_changes_the_draw() {
        let block = BlockHash([1; 32]);
        let base = seed(Draw::Scoring, block, Cycle(1));
        let others = [
            seed(Draw::Scoring, BlockHash([2; 32]), Cycle(1)),
            seed(Draw::Scoring, block, Cycle(2)),
            seed(Draw::Gate, block, Cycle(1)),
            seed(Draw::Training(Hotkey([1; 32])), block, Cycle(1)),
            seed(Draw::Training(Hotkey([2; 32])), block, Cycle(1)),
            seed(Draw::Committee(GroupId(0)), block, Cycle(1)),
            seed(Draw::Committee(GroupId(1)), block, Cycle(1)),
            seed(Draw::Updates(GroupId(0)), block, Cycle(1)),
            seed(Draw::Review, block, Cycle(1)),
        ];
        let distinct: std::collections::BTreeSet<_> =
            others.iter().copied().chain([base]).collect();
        assert_eq!(distinct.len(), others.len() + 1);
    }
}
