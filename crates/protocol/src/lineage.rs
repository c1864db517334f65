//! The states that came before one: on which of them an update may still build (P-15, A-26).
//!
//! ```text
//! cycle        c−2          c−1           c
//! base    ◀─ grandparent ◀─ parent ◀─── base      each manifest names its parent
//! ```
//!
//! A manifest names the first cycle that builds on it, so its parent was the base of the cycle before
//! that one. What may be built on is therefore a function of the base alone, whoever asks and however
//! late it came. Inputs are manifests; what votes decided, and when, is not known here.

use crate::ids::{Cycle, GroupId, StateId};
use crate::manifest::StateManifest;

/// A state that is canonical no more, and what of it still is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// The state.
    pub state: StateId,
    /// Groups whose shard has not changed since, ascending: an update of these is the same on both.
    pub unchanged: Vec<GroupId>,
}

/// The states that the last `window` cycles before `cycle` built on, apart from `base`, the latest
/// first.
///
/// # Errors
/// The name of the first state whose manifest `manifest` does not give.
pub fn earlier<'a>(
    base: StateId,
    (cycle, window): (Cycle, u64),
    manifest: impl Fn(StateId) -> Option<&'a StateManifest>,
) -> Result<Vec<Earlier>, StateId> {
    let mut found: Vec<Earlier> = Vec::new();
    if window == 0 {
        return Ok(found);
    }
    let newest = manifest(base).ok_or(base)?;
    let mut child = newest;
    while let Some(parent) = child.parent
        && child.cycle.0.saturating_add(window) > cycle.0
        // Each state was the base of one cycle at least, whatever its manifest says.
        && (found.len() as u64) < window
    {
        let of_parent = manifest(parent).ok_or(parent)?;
        found.push(Earlier {
            state: parent,
            unchanged: unchanged(of_parent, newest),
        });
        child = of_parent;
    }
    Ok(found)
}

fn unchanged(before: &StateManifest, now: &StateManifest) -> Vec<GroupId> {
    let same = |group: GroupId| {
        before
            .shard(group)
            .is_some_and(|old| now.shard(group) == Some(old))
    };
    let groups = now.groups.iter().map(|state| state.group);
    groups.filter(|group| same(*group)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ids::BlobId;
    use crate::manifest::GroupState;

    fn state(cycle: u64, parent: Option<StateId>, shards: [u8; 2]) -> StateManifest {
        let group = |(number, shard): (u16, u8)| GroupState {
            group: GroupId(number),
            shard: BlobId([shard; 32]),
            bytes: 100,
            momentum: None,
            reference_norm: None,
        };
        StateManifest {
            format: StateManifest::FORMAT,
            cycle: Cycle(cycle),
            parent,
            archive: None,
            groups: (0..).zip(shards).map(group).collect(),
            merged: Vec::new(),
            excluded: BTreeMap::new(),
        }
    }

    /// Three states: the second changed group 0, the third group 1. Each was the base of one cycle,
    /// the second of cycles 1 to 3, for cycles 1 and 2 decided nothing.
    fn chain() -> (BTreeMap<StateId, StateManifest>, [StateId; 3]) {
        let first = state(0, None, [1, 1]);
        let second = state(1, Some(first.id()), [2, 1]);
        let third = state(4, Some(second.id()), [2, 2]);
        let ids = [first.id(), second.id(), third.id()];
        (ids.into_iter().zip([first, second, third]).collect(), ids)
    }

    #[test]
    fn the_parent_is_within_the_window_of_one_cycle_and_only_its_unchanged_groups_are_named() {
        let (manifests, [first, second, third]) = chain();
        let found = earlier(third, (Cycle(4), 1), |id| manifests.get(&id)).unwrap();
        let parent = Earlier {
            state: second,
            unchanged: vec![GroupId(0)],
        };
        assert_eq!(found, std::slice::from_ref(&parent));
        assert_eq!(
            earlier(third, (Cycle(4), 0), |id| manifests.get(&id)),
            Ok(vec![])
        );
        // The second state was the base of three cycles, so the first one lies four cycles back.
        assert_eq!(
            earlier(third, (Cycle(4), 3), |id| manifests.get(&id)),
            Ok(vec![parent.clone()])
        );
        let oldest = Earlier {
            state: first,
            unchanged: vec![],
        };
        assert_eq!(
            earlier(third, (Cycle(4), 4), |id| manifests.get(&id)),
            Ok(vec![parent, oldest])
        );
    }

    /// The base has been the base for a cycle already, so what it replaced is two cycles back.
    #[test]
    fn a_cycle_that_decided_nothing_counts_as_one_of_the_window() {
        let (manifests, [_, second, third]) = chain();
        assert_eq!(
            earlier(third, (Cycle(5), 1), |id| manifests.get(&id)),
            Ok(vec![])
        );
        let found = earlier(third, (Cycle(5), 2), |id| manifests.get(&id)).unwrap();
        assert_eq!(found[0].state, second);
    }

    #[test]
    fn a_manifest_that_is_not_here_is_named_instead_of_left_out() {
        let (mut manifests, [_, second, third]) = chain();
        manifests.remove(&second);
        assert_eq!(
            earlier(third, (Cycle(4), 1), |id| manifests.get(&id)),
            Err(second)
        );
        manifests.clear();
        assert_eq!(
            earlier(third, (Cycle(4), 1), |id| manifests.get(&id)),
            Err(third)
        );
    }
}
