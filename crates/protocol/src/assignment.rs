//! Which group a hotkey trains (P-6): rendezvous hashing, weighted by tickets.
//!
//! ```text
//! draw(hotkey, group, i) = the i-th u64 of BLAKE3-XOF("connito/1 group assignment", hotkey ‖ group)
//! group of a hotkey      = the group with the highest of all its tickets' draws
//! ```
//!
//! Inputs: the hotkey and the tickets, nothing else, so that everyone computes the same answer from the
//! task alone, in integers. A group with `t` of `T` tickets is assigned `t/T` of all hotkeys on
//! average. More tickets only attract, fewer only repel; a group that comes or goes moves only what it
//! wins or held; nobody moves because somebody else registers. Whoever prefers a group registers a
//! hotkey that falls there. How tickets are found that even out the load of known hotkeys is
//! `assignment/balance.rs`.

mod balance;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::ids::{GroupId, Hotkey};

pub use balance::{Balance, balanced_tickets};

/// Tickets of a group with an even share: one ticket more or less changes it by a sixty-fourth.
pub const EVEN_TICKETS: u16 = 64;

/// Most tickets of one group: shares from a sixteenth of the even one to sixteen times as much, with
/// room to calibrate.
pub const MOST_TICKETS: u16 = 1024;

/// Most tickets of all groups together, for everybody draws for each of them: about ten milliseconds a
/// hotkey. Leaves room for 16,384 groups with even shares.
pub const MOST_TICKETS_TOGETHER: usize = 1 << 20;

/// The group with the highest draw for this hotkey, where group `g` holds `tickets[g]`; `None` only when
/// nobody holds any. Equal draws go to the lower group.
#[must_use]
pub fn assigned_group(hotkey: Hotkey, tickets: &[u16]) -> Option<GroupId> {
    let drawing = drawing(hotkey);
    let held = (0..=u16::MAX).map(GroupId).zip(tickets);
    let best = held.filter_map(|(group, held)| {
        let best = Draws::of(&drawing, group).take(usize::from(*held)).max()?;
        Some((best, Reverse(group)))
    });
    best.max().map(|(_, Reverse(group))| group)
}

/// The groups of hotkeys under one task's tickets. Whoever follows thousands of hotkeys draws once for
/// each and not in every cycle.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assignment {
    tickets: Vec<u16>,
    drawn: BTreeMap<Hotkey, Option<GroupId>>,
}

impl Assignment {
    /// The assignment by these tickets, nobody's group being known beforehand.
    #[must_use]
    pub fn new(tickets: Vec<u16>) -> Self {
        Self {
            tickets,
            drawn: BTreeMap::new(),
        }
    }

    /// The assignment with the groups of these hotkeys, and of nobody else, known beforehand. Whose are
    /// known here is not drawn for again.
    #[must_use]
    pub fn knowing<'a>(&self, hotkeys: impl IntoIterator<Item = &'a Hotkey>) -> Self {
        let drawn = hotkeys.into_iter();
        Self {
            tickets: self.tickets.clone(),
            drawn: drawn
                .map(|hotkey| (*hotkey, self.group_of(*hotkey)))
                .collect(),
        }
    }

    /// The group of a hotkey, as of [`assigned_group`].
    #[must_use]
    pub fn group_of(&self, hotkey: Hotkey) -> Option<GroupId> {
        let drawn = self.drawn.get(&hotkey).copied();
        drawn.unwrap_or_else(|| assigned_group(hotkey, &self.tickets))
    }
}

/// Refuses tickets that not every group has some of, or that would take long to draw for.
///
/// # Errors
/// Another number of groups, a group with no tickets or too many, or too many in all.
pub fn check_tickets(tickets: &[u16], groups: usize) -> Result<(), TicketsError> {
    if tickets.len() != groups {
        return Err(TicketsError::Count {
            found: tickets.len(),
            groups,
        });
    }
    let outside = |held: &&u16| !(1..=MOST_TICKETS).contains(*held);
    if let Some((group, tickets)) = (0..=u16::MAX).zip(tickets).find(|(_, held)| outside(held)) {
        return Err(TicketsError::Range {
            group: GroupId(group),
            tickets: *tickets,
        });
    }
    let all: usize = tickets.iter().map(|held| usize::from(*held)).sum();
    match all > MOST_TICKETS_TOGETHER {
        true => Err(TicketsError::Together { all }),
        false => Ok(()),
    }
}

/// Why tickets cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketsError {
    /// There is not one number for each group.
    #[error("there are tickets for {found} groups, the groups are {groups}")]
    Count {
        /// Numbers of tickets.
        found: usize,
        /// Groups.
        groups: usize,
    },
    /// A group with none or too many.
    #[error("group {group} has {tickets} tickets, a group has 1 to {MOST_TICKETS}")]
    Range {
        /// The group.
        group: GroupId,
        /// Its tickets.
        tickets: u16,
    },
    /// Too many hotkeys and groups to be balanced.
    #[error("{hotkeys} hotkeys and {groups} groups are too many to find tickets for")]
    Pairs {
        /// Hotkeys given.
        hotkeys: usize,
        /// Groups.
        groups: usize,
    },
    /// Too many in all.
    #[error("the groups have {all} tickets, at most {MOST_TICKETS_TOGETHER} are drawn for")]
    Together {
        /// All tickets.
        all: usize,
    },
}

/// Draws that are made at once: as many as an even share has tickets, for the hash is fastest in long
/// strides.
const DRAWS_AT_ONCE: usize = 64;

/// What all of a hotkey's draws begin with.
fn drawing(hotkey: Hotkey) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new_derive_key("connito/1 group assignment");
    hasher.update(&hotkey.0);
    hasher
}

/// What the tickets of a group draw for a hotkey, one after the other.
struct Draws {
    stream: blake3::OutputReader,
    block: [u8; DRAWS_AT_ONCE * size_of::<u64>()],
    next: usize,
}

impl Draws {
    fn of(drawing: &blake3::Hasher, group: GroupId) -> Self {
        let mut hasher = drawing.clone();
        hasher.update(&group.0.to_le_bytes());
        Self {
            stream: hasher.finalize_xof(),
            block: [0; DRAWS_AT_ONCE * size_of::<u64>()],
            next: 0,
        }
    }
}

impl Iterator for Draws {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.next == 0 {
            self.stream.fill(&mut self.block);
        }
        let (draws, _) = self.block.as_chunks();
        let draw = draws.get(self.next).copied().map(u64::from_le_bytes);
        self.next = (self.next + 1) % DRAWS_AT_ONCE;
        draw
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some_tickets() -> impl Strategy<Value = Vec<u16>> {
        prop::collection::vec(1..200_u16, 1..20)
    }

    fn numbered(number: u32) -> Hotkey {
        Hotkey(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    proptest! {
        /// What should happen: the newcomer takes its share. What should not: any other move. Read
        /// backwards, it is a group that goes.
        #[test]
        fn a_new_group_only_takes_hotkeys_and_exchanges_none(
            key in any::<[u8; 32]>(), tickets in some_tickets(), held in 1..200_u16,
        ) {
            let new = GroupId(u16::try_from(tickets.len()).unwrap());
            let before = assigned_group(Hotkey(key), &tickets);
            let after = assigned_group(Hotkey(key), &[tickets, vec![held]].concat());
            prop_assert!(after == before || after == Some(new));
        }

        /// A group in the middle goes by losing all its tickets; the numbers of others stay.
        #[test]
        fn a_group_that_goes_moves_only_what_it_held(
            key in any::<[u8; 32]>(), tickets in some_tickets(), gone in any::<prop::sample::Index>(),
        ) {
            let gone = gone.index(tickets.len());
            let before = assigned_group(Hotkey(key), &tickets);
            let mut left = tickets;
            left[gone] = 0;
            let after = assigned_group(Hotkey(key), &left);
            if before == Some(GroupId(u16::try_from(gone).unwrap())) {
                prop_assert!(after != before);
            } else {
                prop_assert_eq!(after, before);
            }
        }

        /// What should not happen: a hotkey that moves from one group to another because a third one
        /// has more tickets, or one that leaves a group that was given some.
        #[test]
        fn more_tickets_only_attract(
            key in any::<[u8; 32]>(), tickets in some_tickets(), which in any::<prop::sample::Index>(),
            more in 1..200_u16,
        ) {
            let which = which.index(tickets.len());
            let group = Some(GroupId(u16::try_from(which).unwrap()));
            let before = assigned_group(Hotkey(key), &tickets);
            let mut raised = tickets;
            raised[which] += more;
            let after = assigned_group(Hotkey(key), &raised);
            prop_assert!(after == before || after == group);
        }
    }

    #[test]
    fn without_tickets_there_is_no_group() {
        assert_eq!(assigned_group(numbered(0), &[]), None);
        assert_eq!(assigned_group(numbered(0), &[0, 0]), None);
        assert_eq!(assigned_group(numbered(0), &[0, 1]), Some(GroupId(1)));
    }

    /// Recorded: an assignment that changed would move every miner of every running task.
    #[test]
    fn assignments_are_as_they_were() {
        let groups: Vec<_> = (0..12)
            .filter_map(|number| assigned_group(numbered(number), &[64, 64, 128, 1]))
            .map(|group| group.0)
            .collect();
        assert_eq!(groups, [2, 0, 2, 2, 2, 2, 2, 1, 1, 2, 0, 2]);
    }

    #[test]
    fn a_groups_part_of_the_hotkeys_is_its_part_of_the_tickets() {
        let mut load = [0_u32; 4];
        for number in 0..4_000 {
            let group = assigned_group(numbered(number), &[16, 48, 64, 128]).unwrap();
            load[usize::from(group.0)] += 1;
        }
        // Four standard deviations of the binomial distribution on either side.
        for (load, (expected, margin)) in
            load.into_iter()
                .zip([(250, 62), (750, 99), (1000, 110), (2000, 127)])
        {
            assert!(load.abs_diff(expected) <= margin, "{load} of {expected}");
        }
    }

    #[test]
    fn tickets_out_of_range_are_named() {
        let told =
            |tickets: &[u16], groups| check_tickets(tickets, groups).unwrap_err().to_string();
        assert_eq!(check_tickets(&[1, 1024], 2), Ok(()));
        assert_eq!(
            told(&[64], 2),
            "there are tickets for 1 groups, the groups are 2"
        );
        assert_eq!(
            told(&[64, 0], 2),
            "group 1 has 0 tickets, a group has 1 to 1024"
        );
        assert!(told(&[64, 1025], 2).contains("1025"));
        assert!(told(&[1024; 2000], 2000).contains("2048000"));
    }
}
