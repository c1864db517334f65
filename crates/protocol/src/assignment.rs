//! Which group a hotkey trains (P-6): rendezvous hashing over the groups.
//!
//! Inputs: the hotkey and the groups, nothing else, so that everyone computes the same answer from
//! the chain alone. When a group comes or goes only the hotkeys that it wins or loses move. Knows
//! nothing of who else is registered.

use crate::ids::{GroupId, Hotkey};

/// The group with the highest draw for this hotkey; `None` only when there are no groups.
#[must_use]
pub fn assigned_group(hotkey: Hotkey, groups: &[GroupId]) -> Option<GroupId> {
    groups
        .iter()
        .copied()
        .max_by_key(|group| (draw(hotkey, *group), *group))
}

fn draw(hotkey: Hotkey, group: GroupId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("connito/1 group assignment");
    hasher.update(&hotkey.0);
    hasher.update(&group.0.to_le_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What should happen: the newcomer takes its share. What should not: any other move.
        #[test]
        fn a_new_group_only_takes_hotkeys_and_exchanges_none(
            key in any::<[u8; 32]>(), count in 1..20_u16,
        ) {
            let before: Vec<_> = (0..count).map(GroupId).collect();
            let after: Vec<_> = (0..=count).map(GroupId).collect();
            let old = assigned_group(Hotkey(key), &before);
            let new = assigned_group(Hotkey(key), &after);
            prop_assert!(new == old || new == Some(GroupId(count)));
        }
    }

    #[test]
    fn a_thousand_hotkeys_leave_no_group_empty_handed() {
        let groups: Vec<_> = (0..8).map(GroupId).collect();
        let mut load = [0_u32; 8];
        for number in 0..1_000_u32 {
            let hotkey = Hotkey(*blake3::hash(&number.to_le_bytes()).as_bytes());
            let group = assigned_group(hotkey, &groups).unwrap();
            load[usize::from(group.0)] += 1;
        }
        // 125 expected, binomial standard deviation about 10.5: four of them on either side.
        assert!(load.iter().all(|n| (83..=167).contains(n)), "{load:?}");
    }
}
