//! The draw: who is drawn how often, and what nobody can change about it.

use proptest::prelude::*;

use super::*;
use crate::ids::{BlobId, Block};
use crate::participants::{Participant, Participants};
use crate::reason::ReasonCode;
use crate::submission::Opening;

const GROUPS: [GroupId; 3] = [GroupId(0), GroupId(1), GroupId(2)];

fn voters(stakes: &[u64]) -> Vec<Voter> {
    let voter = |(number, stake): (usize, &u64)| Voter {
        hotkey: Hotkey::from_number(number),
        stake: *stake,
    };
    let mut voters: Vec<_> = stakes.iter().enumerate().map(voter).collect();
    voters.sort_by_key(|voter| voter.hotkey);
    voters
}

impl Hotkey {
    fn from_number(number: usize) -> Self {
        Self(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }
}

/// `opened` and then `refused` submissions, dealt out to the groups in turn.
fn submissions(opened: usize, refused: usize) -> Vec<Submission> {
    let submission = |place: usize| Submission {
        hotkey: Hotkey::from_number(1000 + place),
        group: GROUPS[place % GROUPS.len()],
        sealed: (Block(35), place as u32),
        opening: if place < opened {
            Opening::Update(BlobId([7; 32]))
        } else {
            Opening::Refused(ReasonCode::NotRevealed)
        },
    };
    (0..opened + refused).map(submission).collect()
}

fn drawing(voters: &[Voter], scorers: u32, updates: u32) -> Drawing<'_> {
    Drawing {
        cycle: Cycle(9),
        groups: &GROUPS,
        voters,
        scorers,
        updates,
    }
}

/// The roster when the seeding block has this number for a hash.
fn drawn(drawing: &Drawing<'_>, submissions: &[Submission], block: u64) -> Roster {
    excluding(drawing, submissions, (block, &BTreeMap::new()))
}

fn excluding(
    drawing: &Drawing<'_>,
    submissions: &[Submission],
    (block, excluded): (u64, &BTreeMap<Hotkey, Cycle>),
) -> Roster {
    let lot = Lot {
        seeded: BlockHash::of(&block.to_le_bytes()),
        excluded,
    };
    Roster::new(drawing, submissions, Some(lot)).unwrap()
}

fn seats_of(roster: &Roster, group: GroupId, hotkey: Hotkey) -> u64 {
    let members = roster.committee(group).members().iter();
    let own = members.filter(|member| member.hotkey == hotkey);
    own.map(|member| member.weight).sum()
}

#[test]
fn with_no_more_voters_than_seats_everybody_scores_everything_and_no_seed_is_needed() {
    let (voters, submissions) = (voters(&[5, 1, 9]), submissions(8, 2));
    let roster = Roster::new(&drawing(&voters, 3, 4), &submissions, None).unwrap();
    assert!(!roster.is_drawn());
    for voter in &voters {
        assert_eq!(roster.sheet(voter.hotkey, &submissions).count(), 10);
        assert_eq!(seats_of(&roster, GROUPS[1], voter.hotkey), voter.stake);
    }
    let waits = |scorers, updates| {
        Roster::new(&drawing(&voters, scorers, updates), &submissions, None).is_none()
    };
    assert!(waits(2, 4), "one voter more than seats");
    assert!(waits(3, 2), "one update more than are scored");
}

/// The chance to be drawn goes by stake: over many cycles everybody holds its part of the seats, and
/// in each of them at most one seat more or less.
#[test]
fn seats_follow_stake_exactly_on_average_and_within_one_in_every_cycle() {
    let stakes = [400, 100, 100, 60, 50, 50, 30, 5, 4, 1];
    let (voters, seats, cycles) = (voters(&stakes), 8, 4_000);
    let all: u64 = stakes.iter().sum();
    let mut held: BTreeMap<Hotkey, u64> = BTreeMap::new();
    for cycle in 0..cycles {
        let roster = drawn(&drawing(&voters, seats, 1), &[], cycle);
        assert_eq!(roster.committee(GROUPS[0]).weight(), u128::from(seats));
        for voter in &voters {
            let own = seats_of(&roster, GROUPS[0], voter.hotkey);
            let share = voter.stake * u64::from(seats);
            assert!(own >= share / all && own <= share.div_ceil(all));
            *held.entry(voter.hotkey).or_default() += own;
        }
    }
    for voter in &voters {
        let share = voter.stake as f64 / all as f64 * f64::from(seats);
        let mean = held[&voter.hotkey] as f64 / cycles as f64;
        // A seat more or less is one toss: four standard errors of its mean.
        let part = share.fract();
        let error = 4.0 * (part * (1.0 - part) / cycles as f64).sqrt();
        assert!(
            (mean - share).abs() <= error + 1e-9,
            "{share} expected, {mean} held"
        );
    }
}

/// Splitting one's stake over many hotkeys wins no seats, and neither does pooling it.
#[test]
fn a_stake_holds_as_many_seats_whole_as_in_parts() {
    let whole: Vec<u64> = [40].into_iter().chain([2; 30]).collect();
    let parts: Vec<u64> = [1; 40].into_iter().chain([2; 30]).collect();
    let mean = |stakes: &[u64], own: usize| {
        let voters = voters(stakes);
        let keys: BTreeSet<Hotkey> = (0..own).map(Hotkey::from_number).collect();
        let seats = (0..3_000).map(|cycle| {
            let roster = drawn(&drawing(&voters, 16, 1), &[], cycle);
            let own = keys.iter().map(|key| seats_of(&roster, GROUPS[0], *key));
            own.sum::<u64>()
        });
        seats.sum::<u64>() as f64 / 3_000.0
    };
    let (whole, parts) = (mean(&whole, 1), mean(&parts, 40));
    assert!((whole - 6.4).abs() < 0.1 && (parts - 6.4).abs() < 0.1);
}

/// How likely more than half of `seats` go to `hostile` of `voters` with equal stakes: the
/// hypergeometric tail.
fn capture(voters: u64, hostile: u64, seats: u64) -> f64 {
    let choose =
        |n: u64, k: u64| -> f64 { (0..k).map(|i| (n - i) as f64 / (k - i) as f64).product() };
    let most = hostile.min(seats);
    let captured = (seats / 2 + 1..=most)
        .filter(|in_it| seats - in_it <= voters - hostile)
        .map(|in_it| choose(hostile, in_it) * choose(voters - hostile, seats - in_it));
    captured.sum::<f64>() / choose(voters, seats)
}

/// The real draw against the formula that PROTOCOL.md's table is computed from.
#[test]
fn committees_are_captured_as_often_as_the_formula_says() {
    let (all, cycles) = (voters(&[100; 50]), 4_000_u64);
    for (seats, hostile) in [(4, 16), (8, 16), (16, 16), (4, 5)] {
        let liars: BTreeSet<Hotkey> = (0..hostile).map(Hotkey::from_number).collect();
        let is_captured = |cycle: &u64| {
            let roster = drawn(&drawing(&all, seats, 1), &[], *cycle);
            let members = roster.committee(GROUPS[2]).members().iter();
            let lying = members.filter(|member| liars.contains(&member.hotkey));
            lying.map(|member| member.weight).sum::<u64>() * 2 > u64::from(seats)
        };
        let observed = (0..cycles).filter(is_captured).count() as f64 / cycles as f64;
        let expected = capture(50, hostile as u64, u64::from(seats));
        let error = 4.0 * (expected * (1.0 - expected) / cycles as f64).sqrt();
        assert!(
            (observed - expected).abs() <= error,
            "{seats} seats, {hostile} hostile: {observed} of {expected}"
        );
    }
}

/// The table of P-43: per cent of all draws in which more than half of the seats are hostile.
#[test]
fn the_stated_odds_are_those_of_the_formula() {
    let stated = [
        (4, [0.20, 2.2, 11.0]),
        (8, [0.0026, 0.49, 7.6]),
        (16, [0.0, 0.0039, 2.6]),
        (32, [0.0, 0.0, 0.0057]),
    ];
    for (seats, odds) in stated {
        for (hostile, stated) in [5, 10, 17].into_iter().zip(odds) {
            let computed = 100.0 * capture(50, hostile, seats);
            let rounding = stated * 0.025 + 1e-9;
            assert!(
                (computed - stated).abs() <= rounding,
                "{seats} seats, {hostile} of 50: {computed} per cent"
            );
        }
    }
}

proptest! {
    /// Whatever the miners and the validators do, nobody scores more than the rules say, nobody
    /// outside of a committee has an entry, and a report is never longer than stated.
    #[test]
    fn work_is_bounded_by_rules_and_not_by_miners(
        stakes in proptest::collection::vec(1..1_000_000_u64, 1..40),
        opened in 0..200_usize, refused in 0..20_usize,
        scorers in 1..20_u32, updates in 1..30_u32, block in any::<u64>(),
    ) {
        let (voters, submissions) = (voters(&stakes), submissions(opened, refused));
        let roster = drawn(&drawing(&voters, scorers, updates), &submissions, block);
        for voter in &voters {
            let sheet: Vec<_> = roster.sheet(voter.hotkey, &submissions).collect();
            let member = |group: &GroupId| roster.committee(*group).has(voter.hotkey);
            let groups = GROUPS.iter().filter(|group| member(group)).count();
            let scored = sheet.iter().filter(|(_, s)| s.update().is_some()).count();
            prop_assert!(scored <= groups * updates as usize);
            prop_assert!(sheet.iter().all(|(_, s)| member(&s.group)));
            prop_assert_eq!(roster.entries(voter.hotkey), sheet.len());
            let longest = report::EMPTY_BYTES + scored * report::MEASURED_BYTES + sheet.len() - scored;
            prop_assert_eq!(roster.longest_report(voter.hotkey, 0), longest);
        }
        for group in GROUPS {
            let most = if roster.is_drawn() { scorers as usize } else { voters.len() };
            let committee = roster.committee(group);
            prop_assert!(committee.members().len() <= most);
            prop_assert!(committee.weight() > 0);
            let of_group = submissions.iter().enumerate().filter(|(_, s)| s.group == group);
            let opened = of_group.filter(|(_, s)| s.update().is_some());
            let left = opened.clone().filter(|(place, _)| !roster.is_passed_over(*place)).count();
            prop_assert_eq!(left, opened.count().min(updates as usize));
        }
    }

    /// Everybody's list of participants is in an order of its own; the draw is the same.
    #[test]
    fn the_order_of_a_list_changes_nothing(
        stakes in proptest::collection::vec(1..1_000_u64, 5..30), block in any::<u64>(),
        shift in 0..30_usize,
    ) {
        let mut listed = voters(&stakes);
        let submissions = submissions(12, 1);
        let sorted = drawn(&drawing(&listed, 4, 3), &submissions, block);
        let length = listed.len();
        listed.rotate_left(shift % length);
        prop_assert_eq!(&drawn(&drawing(&listed, 4, 3), &submissions, block), &sorted);
        let participant = |(slot, voter): (usize, &Voter)| Participant {
            uid: crate::ids::Uid(slot as u16),
            hotkey: voter.hotkey,
            stake: voter.stake,
            validator_permit: true,
            endpoint: None,
            weights_set: Block(0),
        };
        let participants: Participants = listed.iter().enumerate().map(participant).collect();
        prop_assert_eq!(&drawn(&drawing(participants.voters(), 4, 3), &submissions, block), &sorted);
    }
}

#[test]
fn every_opened_update_is_drawn_equally_often() {
    let (voters, submissions) = (voters(&[1, 1]), submissions(60, 0));
    let mut drawn_times = vec![0_u32; submissions.len()];
    for cycle in 0..3_000 {
        let roster = drawn(&drawing(&voters, 2, 5), &submissions, cycle);
        for (place, times) in drawn_times.iter_mut().enumerate() {
            *times += u32::from(!roster.is_passed_over(place));
        }
    }
    // A quarter of twenty a group: 750 ± 24.
    assert!(
        drawn_times.iter().all(|times| (640..860).contains(times)),
        "{drawn_times:?}"
    );
}

#[test]
fn the_excluded_are_not_drawn_until_their_cycle_unless_nobody_else_is_left() {
    let all = voters(&[10; 12]);
    let drawing = drawing(&all, 4, 1);
    let until = |cycle| -> BTreeMap<Hotkey, Cycle> {
        all[..6].iter().map(|v| (v.hotkey, Cycle(cycle))).collect()
    };
    let some_is_drawn = |excluded: &BTreeMap<Hotkey, Cycle>| {
        (0..50).any(|block| {
            let roster = excluding(&drawing, &[], (block, excluded));
            all[..6]
                .iter()
                .any(|v| roster.committee(GROUPS[0]).has(v.hotkey))
        })
    };
    assert!(!some_is_drawn(&until(10)), "cycle 9 comes before");
    assert!(
        some_is_drawn(&until(9)),
        "the first cycle in which it may be drawn"
    );
    let everyone = all.iter().map(|v| (v.hotkey, Cycle(99))).collect();
    assert!(some_is_drawn(&everyone), "a committee is never empty");
}

/// Stakes near the ends of their range neither overflow nor divide by nothing.
#[test]
fn extreme_stakes_are_drawn_from_as_any_others() {
    let voters = voters(&[u64::MAX, u64::MAX, 1, u64::MAX]);
    let roster = drawn(&drawing(&voters, 1, 1), &[], 3);
    assert_eq!(roster.committee(GROUPS[0]).weight(), 1);
    let none = drawn(&drawing(&[], 1, 1), &submissions(2, 0), 3);
    assert!(none.committee(GROUPS[0]).members().is_empty());
}
