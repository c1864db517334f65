//! One group, five voters, three seats: what committees say, what is reviewed, what comes of it.

use proptest::prelude::*;

use super::*;
use crate::committee::{Drawing, Lot, Roster};
use crate::consensus::verdicts;
use crate::ids::Block;
use crate::report::{Entry, Measurement, ScoreReport};
use crate::rewards::cycle_rewards;
use crate::submission::{Opening, Submission};

const GROUPS: [GroupId; 1] = [GroupId(0)];
const TOLERANCE: Tolerance = Tolerance {
    significance: 1.0,
    agreement: 1e-3,
};

fn voters() -> Vec<Voter> {
    let voter = |number| Voter {
        hotkey: Hotkey([number; 32]),
        stake: 100,
    };
    (1..=5).map(voter).collect()
}

fn measured(utility: f32) -> Entry {
    Entry::Measured(Measurement {
        utility,
        standard_error: 0.0,
    })
}

fn submissions(count: u8) -> Vec<Submission> {
    let submission = |place: u8| Submission {
        hotkey: Hotkey([100 + place; 32]),
        group: GROUPS[0],
        sealed: (Block(35), u32::from(place)),
        opening: Opening::Update(BlobId([place; 32])),
    };
    (0..count).map(submission).collect()
}

/// A finished cycle.
struct Finished {
    submissions: Vec<Submission>,
    roster: Roster,
    reports: Vec<Reported>,
    verdicts: Vec<Verdict>,
    rewards: CycleRewards,
}

impl Finished {
    /// What becomes of `count` submissions when the `seat`-th member says `entry(seat, place)`.
    fn new(count: u8, entry: impl Fn(usize, usize) -> Entry) -> Self {
        let (voters, submissions) = (voters(), submissions(count));
        let drawing = Drawing {
            cycle: Cycle(4),
            groups: &GROUPS,
            voters: &voters,
            scorers: 3,
            updates: 256,
        };
        let lot = Lot {
            seeded: BlockHash([3; 32]),
            excluded: &BTreeMap::new(),
        };
        let roster = Roster::new(&drawing, &submissions, Some(lot)).unwrap();
        let members = roster.committee(GROUPS[0]).members();
        assert_eq!(members.len(), 3, "equal stakes hold at most a seat each");
        let report = |seat: usize| ScoreReport {
            cycle: Cycle(4),
            submissions: [0; 8],
            entries: (0..usize::from(count)).map(|p| entry(seat, p)).collect(),
        };
        let reported = |(seat, member): (usize, &Member)| Reported {
            voter: Voter {
                hotkey: member.hotkey,
                stake: 100,
            },
            report: report(seat),
        };
        let reports: Vec<_> = members.iter().enumerate().map(reported).collect();
        let hearing = Hearing {
            submissions: &submissions,
            roster: &roster,
            reports: &reports,
        };
        let verdicts = verdicts(&hearing, TOLERANCE.significance);
        Self {
            rewards: cycle_rewards(&verdicts, &GROUPS),
            submissions,
            roster,
            reports,
            verdicts,
        }
    }

    fn docket(&self, most: usize) -> Docket {
        let past = Past {
            cycle: Cycle(4),
            base: StateId([1; 32]),
            seed: Seed([2; 32]),
            hearing: Hearing {
                submissions: &self.submissions,
                roster: &self.roster,
                reports: &self.reports,
            },
            verdicts: &self.verdicts,
            rewards: &self.rewards,
        };
        Docket::draw(&past, most, BlockHash([8; 32]), &TOLERANCE)
    }

    fn member(&self, seat: usize) -> Hotkey {
        self.roster.committee(GROUPS[0]).members()[seat].hotkey
    }
}

/// What all voters' reviews amount to, where voter `n` has these entries after one of its own.
fn resolved(docket: &Docket, reviews: impl Fn(usize) -> Vec<Entry>) -> Vec<Reviewed> {
    let voters = voters();
    let reported = |(number, voter): (usize, &Voter)| Reported {
        voter: *voter,
        report: ScoreReport {
            cycle: Cycle(5),
            submissions: [0; 8],
            entries: [measured(0.0)].into_iter().chain(reviews(number)).collect(),
        },
    };
    let reports: Vec<_> = voters.iter().enumerate().map(reported).collect();
    docket.resolve(&reports, (&voters, &|_| 1), &TOLERANCE)
}

#[test]
fn an_exaggerating_committee_is_named_and_the_excess_is_taken_back() {
    let lies = |seat| {
        if seat < 2 {
            measured(0.8)
        } else {
            measured(0.2)
        }
    };
    let finished = Finished::new(1, |seat, _| lies(seat));
    assert_eq!(finished.verdicts[0].weight, f64::from(0.8_f32));
    let docket = finished.docket(2);
    let found = resolved(&docket, |number| {
        let lying = number < 2;
        vec![measured(if lying { 0.8 } else { 0.2 })]
    });
    assert_eq!(
        found[0].contradicted,
        [finished.member(0), finished.member(1)]
    );
    assert!(
        (found[0].unearned - 0.75).abs() < 1e-6,
        "of all it was paid"
    );
}

/// The honest third is not blamed for what it said, nor is the miner paid after the fact.
#[test]
fn an_understating_committee_is_named_and_nothing_is_handed_out_later() {
    let harmful = |seat| {
        if seat < 2 {
            measured(-1.0)
        } else {
            measured(0.2)
        }
    };
    let finished = Finished::new(1, |seat, _| harmful(seat));
    let found = resolved(&finished.docket(2), |_| vec![measured(0.2)]);
    assert_eq!(found[0].unearned, 0.0);
    assert_eq!(
        found[0].contradicted,
        [finished.member(0), finished.member(1)]
    );
}

/// One liar and a miner: the miner's second update is the opposite of its first, which is harmful and
/// sealed earlier. The honest majority rightly says `duplicate`, the liar measures a gain, and so would
/// everybody who looks at it alone. What should not happen: that this is held against the honest.
#[test]
fn a_duplicate_that_looks_good_alone_has_nobody_excluded() {
    for code in [ReasonCode::Duplicate, ReasonCode::NotUploaded] {
        let honest = Entry::Refused(code);
        let one_liar = Finished::new(1, |seat, _| if seat == 0 { measured(0.3) } else { honest });
        assert_eq!(one_liar.verdicts[0].code, code);
        assert!(one_liar.docket(64).cases.is_empty(), "not for review");
        let outvoted = Finished::new(1, |seat, _| if seat == 0 { honest } else { measured(0.3) });
        let found = resolved(&outvoted.docket(64), |_| vec![measured(0.1)]);
        assert!(!found[0].contradicted.contains(&outvoted.member(0)));
    }
}

/// Differences of the last digits, as between two kinds of processors.
#[test]
fn what_differs_by_no_more_than_the_rules_allow_contradicts_nothing() {
    let finished = Finished::new(1, |seat, _| measured(0.2 + seat as f32 * 1e-4));
    let found = resolved(&finished.docket(2), |_| vec![measured(0.2)]);
    assert_eq!(found[0].code, ReasonCode::Accepted);
    assert!(found[0].contradicted.is_empty() && found[0].unearned == 0.0);
}

/// Place 3 is contested by one of three seats, place 5 by two that disagree with each other too; the
/// rest nobody disputes, and place 1 earned nothing.
#[test]
fn the_most_contested_are_reviewed_first_then_whatever_was_accepted() {
    let entry = |seat: usize, place| match (place, seat) {
        (1, _) => measured(-0.5),
        (3, 0) => measured(0.9),
        (5, 0) => measured(0.1),
        (5, 2) => Entry::Refused(ReasonCode::Malformed),
        _ => measured(0.3),
    };
    let finished = Finished::new(6, entry);
    let place = |case: &Case| usize::from(case.hotkey.0[0] - 100);
    let places: Vec<usize> = finished.docket(64).cases.iter().map(place).collect();
    assert_eq!(places.len(), 5);
    assert!(!places.contains(&1));
    let contested: Vec<usize> = finished.docket(2).cases.iter().map(place).collect();
    assert_eq!(contested, [5, 3]);
    assert!(finished.docket(0).cases.is_empty());
}

#[test]
fn a_case_knows_the_accepted_updates_that_it_may_be_a_copy_of() {
    let entry = |seat: usize, place| match (place, seat) {
        (1, _) => measured(-0.5),
        (3, 0) => measured(0.9),
        _ => measured(0.3),
    };
    let finished = Finished::new(5, entry);
    let docket = finished.docket(1);
    let earlier: Vec<BlobId> = docket.cases[0].earlier.iter().map(|c| c.update).collect();
    assert_eq!(earlier, [BlobId([0; 32]), BlobId([2; 32])]);
}

proptest! {
    /// Whatever holders of less than half of the stake report as reviews, and however many of them,
    /// nobody whose word the others confirm is excluded.
    #[test]
    fn a_minority_cannot_have_anybody_excluded(
        lies in proptest::collection::vec(-10.0..10.0_f32, 2),
        numbers in proptest::collection::vec(0..4_usize, 2),
    ) {
        let finished = Finished::new(1, |_, _| measured(0.3));
        let found = resolved(&finished.docket(2), |number| match number {
            0 | 1 => vec![measured(lies[number]); numbers[number]],
            _ => vec![measured(0.3)],
        });
        prop_assert!(found[0].contradicted.is_empty());
        prop_assert_eq!(found[0].unearned, 0.0);
    }
}
