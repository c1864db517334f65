//! Who scores what in a cycle (P-43).
//!
//! ```text
//! voters in the order of a keyed hash, laid end to end by stake:
//!
//!     |---- c ----|- a -|-------- d --------|--- b ---|      all stake, S
//!        ^              ^              ^              ^      a point every S/k, the first by lot
//! ```
//!
//! A committee has `k` seats, and a voter holds those whose points fall on its stake: `k·s/S` of them
//! on average and never one more or less than that rounded up or down, however it divides its stake
//! among hotkeys. Drawing members and then weighing them by stake would square the stake of the large;
//! one seat a member would multiply the small who split. With no more voters than seats nothing is
//! drawn: all of them score everything and weigh their stake.
//!
//! Inputs are the voters, the cycle's seed and its submissions. Integers only, and a hash instead of
//! the order of a list, so that everyone draws the same. Knows nothing of what is reported.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{BlockHash, Cycle, GroupId, Hotkey, Seed};
use crate::report;
use crate::seed::{Draw, seed};
use crate::snapshot::Voter;
use crate::submission::Submission;

/// What is drawn from.
#[derive(Debug, Clone, Copy)]
pub struct Drawing<'a> {
    /// The cycle.
    pub cycle: Cycle,
    /// The task's groups.
    pub groups: &'a [GroupId],
    /// Voters and stakes as of the last block of the reveal window.
    pub voters: &'a [Voter],
    /// Seats in a committee.
    pub scorers: u32,
    /// Most updates of a group that are scored.
    pub updates: u32,
}

/// What chance adds: known from the first block of the score window on.
#[derive(Debug, Clone, Copy)]
pub struct Lot<'a> {
    /// Hash of that block.
    pub seeded: BlockHash,
    /// Who is not drawn, and until which cycle (P-46).
    pub excluded: &'a BTreeMap<Hotkey, Cycle>,
}

/// A voter that scores a group, and what its word weighs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub hotkey: Hotkey,
    /// Its seats in a drawn committee, its stake where everybody scores.
    pub weight: u64,
}

/// Who scores a group, in the order of the hotkeys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committee(Vec<Member>);

impl Committee {
    /// The members.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.0
    }

    /// What all members weigh together.
    #[must_use]
    pub fn weight(&self) -> u128 {
        self.0.iter().map(|member| u128::from(member.weight)).sum()
    }

    /// Whether somebody is a member.
    #[must_use]
    pub fn has(&self, hotkey: Hotkey) -> bool {
        let place = self.0.binary_search_by_key(&hotkey, |member| member.hotkey);
        place.is_ok()
    }
}

/// Everybody's work in a cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    is_drawn: bool,
    committees: BTreeMap<GroupId, Committee>,
    passed_over: BTreeSet<usize>,
    sizes: BTreeMap<GroupId, Size>,
}

/// How many of a group's submissions have an entry in a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    scored: usize,
    refused: usize,
}

impl Roster {
    /// The work of the cycle; `None` where it takes a lot to tell and none is given.
    #[must_use]
    pub fn new(
        drawing: &Drawing<'_>,
        submissions: &[Submission],
        lot: Option<Lot<'_>>,
    ) -> Option<Self> {
        let is_drawn = drawing.voters.len() > drawing.scorers as usize;
        let opened = opened(drawing.groups, submissions);
        let crowded = |places: &Vec<usize>| places.len() > drawing.updates as usize;
        if lot.is_none() && (is_drawn || opened.values().any(crowded)) {
            return None;
        }
        let everyone: Vec<Member> = drawing.voters.iter().map(whole_stake).collect();
        let committee = |group| match lot.filter(|_| is_drawn) {
            Some(lot) => drawing.committee(group, &lot),
            None => Committee(everyone.clone()),
        };
        let mut passed_over = BTreeSet::new();
        for (group, places) in opened {
            if let Some(lot) = lot.filter(|_| crowded(&places)) {
                let draw = seed(Draw::Updates(group), lot.seeded, drawing.cycle);
                passed_over.extend(not_drawn(places, drawing.updates as usize, &draw));
            }
        }
        let committees = drawing
            .groups
            .iter()
            .map(|group| (*group, committee(*group)));
        Some(Self {
            is_drawn,
            committees: committees.collect(),
            sizes: sizes(submissions, &passed_over),
            passed_over,
        })
    }

    /// Whether committees were drawn, as opposed to everybody scoring everything.
    #[must_use]
    pub fn is_drawn(&self) -> bool {
        self.is_drawn
    }

    /// Who scores a group; nobody for one that the task does not have.
    #[must_use]
    pub fn committee(&self, group: GroupId) -> &Committee {
        static NOBODY: Committee = Committee(Vec::new());
        self.committees.get(&group).unwrap_or(&NOBODY)
    }

    /// Whether the lot left out the submission in this place of the list.
    #[must_use]
    pub fn is_passed_over(&self, place: usize) -> bool {
        self.passed_over.contains(&place)
    }

    /// The submissions that a voter's report has entries for, in its order (P-25), with their places.
    pub fn sheet<'a>(
        &self,
        hotkey: Hotkey,
        submissions: &'a [Submission],
    ) -> impl Iterator<Item = (usize, &'a Submission)> {
        let groups: BTreeSet<GroupId> = self.groups_of(hotkey).collect();
        let listed = submissions.iter().enumerate();
        listed.filter(move |(place, submission)| {
            groups.contains(&submission.group) && !self.is_passed_over(*place)
        })
    }

    /// Entries in a voter's report.
    #[must_use]
    pub fn entries(&self, hotkey: Hotkey) -> usize {
        let sizes = self.groups_of(hotkey).map(|group| self.size(group));
        sizes.map(|size| size.scored + size.refused).sum()
    }

    /// Bytes of a voter's longest possible report, with so many reviews.
    #[must_use]
    pub fn longest_report(&self, hotkey: Hotkey, reviews: usize) -> usize {
        let sizes = self.groups_of(hotkey).map(|group| self.size(group));
        let (scored, refused) = sizes.fold((reviews, 0), |(scored, refused), size| {
            (scored + size.scored, refused + size.refused)
        });
        report::EMPTY_BYTES + scored * report::MEASURED_BYTES + refused
    }

    fn size(&self, group: GroupId) -> Size {
        self.sizes.get(&group).copied().unwrap_or_default()
    }

    fn groups_of(&self, hotkey: Hotkey) -> impl Iterator<Item = GroupId> {
        let committees = self.committees.iter();
        let with_them = committees.filter(move |(_, committee)| committee.has(hotkey));
        with_them.map(|(group, _)| *group)
    }
}

impl Drawing<'_> {
    fn committee(&self, group: GroupId, lot: &Lot<'_>) -> Committee {
        let until = |voter: &&Voter| lot.excluded.get(&voter.hotkey).copied();
        let may_be_drawn = |voter: &&Voter| until(voter).is_none_or(|until| until <= self.cycle);
        let mut eligible: Vec<Voter> = self.voters.iter().filter(may_be_drawn).copied().collect();
        if eligible.is_empty() {
            eligible = self.voters.to_vec();
        }
        let draw = seed(Draw::Committee(group), lot.seeded, self.cycle);
        eligible.sort_by_cached_key(|voter| keyed(&draw, &voter.hotkey.0));
        let mut members = seated(&eligible, self.scorers, first_point(&draw));
        members.sort_by_key(|member| member.hotkey);
        Committee(members)
    }
}

fn whole_stake(voter: &Voter) -> Member {
    Member {
        hotkey: voter.hotkey,
        weight: voter.stake,
    }
}

/// The seats of each voter that holds any. The first point is `random` modulo all stake, in units of
/// one seat-th of a rao, so that no division is rounded.
fn seated(voters: &[Voter], seats: u32, random: u128) -> Vec<Member> {
    let all: u128 = voters.iter().map(|voter| u128::from(voter.stake)).sum();
    let start = random.checked_rem(all).unwrap_or(0);
    // Point `j` lies at `start + j·all`, and a voter's stake reaches from one edge to the next.
    let points_before = |edge: u128| match edge.checked_sub(start + 1) {
        Some(past_the_first) => past_the_first / all + 1,
        None => 0,
    };
    let mut edge = 0;
    let mut members = Vec::new();
    for voter in voters {
        let next = edge + u128::from(voter.stake) * u128::from(seats);
        let held = points_before(next) - points_before(edge);
        edge = next;
        if held > 0 {
            members.push(Member {
                hotkey: voter.hotkey,
                // At most all seats, which are 32 bits.
                weight: u64::try_from(held).unwrap_or(u64::MAX),
            });
        }
    }
    members
}

/// Places of the opened updates of each group.
fn opened(groups: &[GroupId], submissions: &[Submission]) -> BTreeMap<GroupId, Vec<usize>> {
    let mut places: BTreeMap<_, Vec<_>> = groups.iter().map(|group| (*group, Vec::new())).collect();
    for (place, submission) in submissions.iter().enumerate() {
        if submission.update().is_some() {
            places.entry(submission.group).or_default().push(place);
        }
    }
    places
}

/// The places that are left when `wanted` of them have been drawn, each with the same chance.
fn not_drawn(mut places: Vec<usize>, wanted: usize, draw: &Seed) -> Vec<usize> {
    let mut random = blake3::Hasher::new_keyed(&draw.0).finalize_xof();
    for position in 0..wanted.min(places.len()) {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        let left = (places.len() - position) as u64;
        // A remainder favours nobody by more than one part in 2^40: there are never 2^24 places.
        let ahead = u64::from_le_bytes(bytes) % left;
        places.swap(position, position + usize::try_from(ahead).unwrap_or(0));
    }
    places.split_off(wanted.min(places.len()))
}

fn sizes(submissions: &[Submission], passed_over: &BTreeSet<usize>) -> BTreeMap<GroupId, Size> {
    let mut sizes: BTreeMap<GroupId, Size> = BTreeMap::new();
    for (place, submission) in submissions.iter().enumerate() {
        let size = sizes.entry(submission.group).or_default();
        match submission.update() {
            Some(_) if passed_over.contains(&place) => {}
            Some(_) => size.scored += 1,
            None => size.refused += 1,
        }
    }
    sizes
}

/// A hotkey's place in a random order; also what decides between equals elsewhere.
pub(crate) fn keyed(draw: &Seed, bytes: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(&draw.0, bytes).as_bytes()
}

fn first_point(draw: &Seed) -> u128 {
    let mut bytes = [0; 16];
    let mut random = blake3::Hasher::new_keyed(&draw.0).finalize_xof();
    random.fill(&mut bytes);
    u128::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests;
