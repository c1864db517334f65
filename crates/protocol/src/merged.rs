//! What a state lists of the updates that were merged into it, to be looked up.
//!
//! The list is as long as the network is large, and every miner looks for its own update in it: it is
//! read through once for all roles that share the document. Inputs are a manifest, nothing else.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{BlobId, GroupId, Hotkey};
use crate::manifest::StateManifest;

/// The updates that a state lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    updates: BTreeSet<(BlobId, Hotkey)>,
    /// Of all updates of a group together.
    bytes: BTreeMap<GroupId, u64>,
}

impl Merged {
    pub(crate) fn of(state: &StateManifest) -> Self {
        let mut bytes: BTreeMap<GroupId, u64> = BTreeMap::new();
        for merged in &state.merged {
            let sum = bytes.entry(merged.group).or_default();
            *sum = sum.saturating_add(merged.bytes);
        }
        let updates = state.merged.iter();
        Self {
            updates: updates
                .map(|merged| (merged.update, merged.hotkey))
                .collect(),
            bytes,
        }
    }

    /// Whether the update is listed, whoever's it was.
    pub(crate) fn names(&self, update: BlobId) -> bool {
        let from = (update, Hotkey([0; 32]));
        let next = self.updates.range(from..).next();
        next.is_some_and(|(named, _)| *named == update)
    }

    /// Whether it is listed as this hotkey's.
    pub(crate) fn names_of(&self, update: BlobId, hotkey: Hotkey) -> bool {
        self.updates.contains(&(update, hotkey))
    }

    /// The length of all updates of a group together.
    pub(crate) fn bytes(&self, group: GroupId) -> u64 {
        self.bytes.get(&group).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Cycle;
    use crate::manifest::MergedUpdate;

    fn state(updates: &[(u8, u8, u16)]) -> StateManifest {
        let merged = |(update, hotkey, group): &(u8, u8, u16)| MergedUpdate {
            group: GroupId(*group),
            hotkey: Hotkey([*hotkey; 32]),
            update: BlobId([*update; 32]),
            bytes: 10,
            weight: 1.0,
        };
        StateManifest {
            format: StateManifest::FORMAT,
            cycle: Cycle(1),
            parent: None,
            archive: None,
            groups: Vec::new(),
            merged: updates.iter().map(merged).collect(),
            excluded: BTreeMap::new(),
        }
    }

    #[test]
    fn an_update_is_found_by_its_name_and_by_its_owner() {
        let merged = Merged::of(&state(&[(1, 4, 0), (3, 5, 0), (5, 4, 1)]));
        let named: Vec<u8> = (0..7).filter(|n| merged.names(BlobId([*n; 32]))).collect();
        assert_eq!(named, [1, 3, 5]);
        assert!(merged.names_of(BlobId([3; 32]), Hotkey([5; 32])));
        assert!(!merged.names_of(BlobId([3; 32]), Hotkey([4; 32])));
        let bytes = [0, 1, 2].map(|group| merged.bytes(GroupId(group)));
        assert_eq!(bytes, [20, 10, 0]);
    }
}
