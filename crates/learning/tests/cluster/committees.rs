//! Committees, mirrored reports and reviews in a whole network (P-43 to P-46): what validators that
//! lie, keep back or contradict themselves can do, and what it leads to.

use std::collections::{BTreeMap, BTreeSet};

use connito_protocol::announcement::Announcement;
use connito_protocol::conduct::Misconduct;
use connito_protocol::ids::{Block, Cycle, GroupId, Hotkey};
use connito_protocol::reason::ReasonCode;
use connito_protocol::report::{Entry, Measurement};
use connito_protocol::rules::{Rules, Windows};

use crate::network::{Conduct, Network, STARTS, Setting, Who};

/// Miners of both groups in turn.
pub(crate) fn honest(miners: u16) -> Vec<Conduct> {
    let group = |number| Conduct::Honest(GroupId(number % 2));
    (0..miners).map(group).collect()
}

/// Cycles so short that the chain has no room for more than eight measurements a report.
pub(crate) fn short_cycles() -> Setting {
    let rules = Rules {
        windows: Windows {
            distribute: 3,
            train: 5,
            seal: 3,
            reveal: 2,
            score: 4,
            vote: 5,
        },
        ..Rules::default()
    };
    Setting {
        validators: 4,
        rules,
    }
}

/// Offset of the last block of the score window in those cycles, and of the one as of which
/// attestations count.
const SCORED: u64 = 16;
const ATTESTED: u64 = 19;

/// Seven validators, three seats a committee.
pub(crate) fn committees_of_three() -> Setting {
    let mut rules = Rules::default();
    rules.scoring.scorers_per_update = 3;
    rules.scoring.updates_per_group = 2;
    Setting {
        validators: 7,
        rules,
    }
}

/// What should happen: of five updates of a group two are scored, by three validators at most; the
/// others are told that they were not drawn. What should not: a validator that measures what it was
/// not drawn for, or two states.
#[test]
fn a_validators_work_is_bounded_whatever_the_number_of_miners() {
    let mut network = Network::with(&honest(10), committees_of_three());
    for cycle in (0..4).map(Cycle) {
        network.run_cycle();
        let report = network.report(cycle);
        assert_eq!(report.codes()[&ReasonCode::NotDrawn], 6, "{cycle}");
        assert_eq!(report.codes()[&ReasonCode::Accepted], 4, "{cycle}");
        assert_eq!((report.voters(), report.distinct_states()), (7, 1));
        assert!(report.is_spotless());
        let mut scorers: BTreeMap<Hotkey, usize> = BTreeMap::new();
        for (who, hotkeys) in network.measured(cycle) {
            assert!(hotkeys.len() <= 4, "{who:?}");
            for hotkey in hotkeys {
                *scorers.entry(hotkey).or_default() += 1;
            }
        }
        assert!(scorers.values().all(|scorers| *scorers == 3));
    }
}

/// Every report is a name on the chain and a body that validators mirror.
#[test]
fn reports_too_long_for_the_chain_are_mirrored_and_count() {
    let mut network = Network::with(&honest(10), short_cycles());
    let mut reported = 0;
    for cycle in (0..3).map(Cycle) {
        network.run_cycle_with(|network, offset| {
            if offset == SCORED {
                let said = network.said(Who::Validator(1));
                assert!(matches!(said, Some(Announcement::Reported(_))), "{said:?}");
                reported += 1;
            }
        });
        let report = network.report(cycle);
        assert_eq!(report.code(Who::Miner(0)), Some(ReasonCode::Accepted));
        assert_eq!((report.voters(), report.distinct_states()), (4, 1));
        assert!(report.is_spotless());
    }
    assert_eq!(reported, 3);
}

/// The default windows leave one block for attestations.
#[test]
fn the_default_windows_have_room_for_mirrored_reports() {
    let mut network = Network::new(&honest(32));
    network.run_cycle();
    let report = network.report(Cycle(0));
    assert!(report.quorum);
    assert_eq!((report.voters(), report.distinct_states()), (3, 1));
}

/// One validator shows its body to some only. What should happen: with half of the stake holding it
/// the report does not count for anybody; with more it counts for everybody, also for whoever gets it
/// only later. What should not: two states.
#[test]
fn a_body_shown_to_some_cannot_split_the_others() {
    let cases = [
        (vec![2, 3], Some(Misconduct::ReportMismatch)),
        (vec![3], None),
    ];
    for (deprived, expected) in cases {
        let mut network = Network::with(&honest(10), short_cycles());
        let deprived = deprived.into_iter().map(Who::Validator).collect();
        network.hostile.withhold.insert(Who::Validator(0), deprived);
        network.run_cycle_with(|network, offset| {
            if offset == ATTESTED {
                network.hostile.relent();
            }
        });
        let report = network.report(Cycle(0));
        assert!(report.quorum);
        assert_eq!(report.misconduct(Who::Validator(0)), expected);
        assert_eq!((report.voters(), report.distinct_states()), (4, 1));
    }
}

/// The author and the one validator that has not got the body: the author is gone once attestations
/// are in. What should happen: the others serve it.
#[test]
fn a_body_lost_by_its_author_after_attestation_is_had_from_the_others() {
    let mut network = Network::with(&honest(10), short_cycles());
    let deprived = vec![Who::Validator(3)];
    network.hostile.withhold.insert(Who::Validator(0), deprived);
    network.run_cycle_with(|network, offset| {
        if offset == ATTESTED {
            network.stop(Who::Validator(0));
            network.hostile.relent();
        }
    });
    let report = network.report(Cycle(0));
    let voters = report.voters();
    assert!(voters >= 3, "{voters} voted");
    assert_eq!(report.distinct_states(), 1);
}

/// Whoever never gets a body that counts does not vote, and adopts what the others decide.
#[test]
fn without_a_body_that_counts_a_validator_abstains_and_adopts() {
    let mut network = Network::with(&honest(10), short_cycles());
    let deprived = vec![Who::Validator(3)];
    network.hostile.withhold.insert(Who::Validator(0), deprived);
    network.run_cycle();
    let report = network.report(Cycle(0));
    assert_eq!((report.voters(), report.distinct_states()), (3, 1));
    network.hostile.withhold.clear();
    network.run_cycle();
    let report = network.report(Cycle(1));
    assert_eq!((report.voters(), report.distinct_states()), (4, 1));
}

/// Two reports within one window: neither counts, and everybody says so.
#[test]
fn a_two_faced_validator_is_not_heard() {
    let mut network = Network::new(&honest(2));
    let two_faced = Who::Validator(0);
    network.run_cycle_with(|network, offset| {
        if offset == 41
            && let Some(Announcement::Scored(mut report)) = network.said(two_faced)
        {
            report.entries[0] = Entry::Measured(Measurement {
                utility: -9.0,
                standard_error: 0.0,
            });
            network.write(two_faced, &Announcement::Scored(report));
        }
    });
    let report = network.report(Cycle(0));
    assert_eq!(report.misconduct(two_faced), Some(Misconduct::Equivocation));
    assert_eq!(report.code(Who::Miner(0)), Some(ReasonCode::Accepted));
    assert_eq!(report.distinct_states(), 1);
}

#[test]
fn missing_late_and_mismatched_reports_are_told_apart() {
    let mut network = Network::with(
        &honest(2),
        Setting {
            validators: 7,
            ..Setting::default()
        },
    );
    let [absent, late, mismatched] = [0, 1, 2].map(Who::Validator);
    network.run_cycle_with(|network, offset| match offset {
        39 => [absent, late, mismatched]
            .into_iter()
            .for_each(|who| network.stop(who)),
        41 | 42 => {
            if let Some(Announcement::Scored(mut report)) = network.said(Who::Validator(6)) {
                if offset == 42 {
                    return network.write(late, &Announcement::Scored(report));
                }
                report.entries.pop();
                network.write(mismatched, &Announcement::Scored(report));
            }
        }
        _ => {}
    });
    let report = network.report(Cycle(0));
    let expected = [
        (absent, Misconduct::ReportMissing),
        (late, Misconduct::ReportLate),
        (mismatched, Misconduct::ReportMismatch),
    ];
    for (who, misconduct) in expected {
        assert_eq!(report.misconduct(who), Some(misconduct), "{who:?}");
    }
    assert_eq!(report.misconduct(Who::Validator(6)), None);
}

/// Miners of which the second is a vandal that three of seven validators are friends with.
pub(crate) fn with_a_befriended_vandal() -> Network {
    let miners = [
        Conduct::Honest(GroupId(0)),
        Conduct::Damaging(GroupId(1)),
        Conduct::Honest(GroupId(0)),
    ];
    Network::with(&miners, committees_of_three())
}

pub(crate) const LIARS: [Who; 3] = [Who::Validator(0), Who::Validator(1), Who::Validator(2)];

/// The first cycle in which liars hold two of the three seats that score the vandal.
fn first_captured(vandal: Hotkey) -> u64 {
    let mut network = with_a_befriended_vandal();
    let captured = (0..20).find(|cycle| {
        network.run_cycle();
        let measured = network.measured(Cycle(*cycle));
        let scores_it = |liar: &&Who| measured[liar].contains(&vandal);
        LIARS.iter().filter(scores_it).count() == 2
    });
    captured.expect("sooner or later a committee is captured")
}

/// The cleverest liars praise a vandal only when they hold most seats of its committee. What should
/// happen: the gate keeps the state, the next cycle's review finds them out, takes the reward back,
/// and they are not drawn any more. What should not: an honest validator that is excluded, a loss that
/// rises, or two states.
#[test]
fn liars_that_capture_a_committee_are_stopped_by_the_gate_and_caught_by_the_review() {
    let mut network = with_a_befriended_vandal();
    let (hotkeys, vandal) = (network.hotkeys(), Who::Miner(1));
    let captured = first_captured(hotkeys[&vandal]);
    let mut loss = network.loss();
    for cycle in 0..captured + 8 {
        if cycle == captured {
            let praised = LIARS.map(|liar| (liar, hotkeys[&vandal]));
            network.hostile.praise.extend(praised);
        }
        network.run_cycle();
        let report = network.report(Cycle(cycle));
        assert_eq!((report.voters(), report.distinct_states()), (7, 1));
        let is_accepted = report.code(vandal) == Some(ReasonCode::Accepted);
        // Before the review has been reported, the same liars may capture a second committee.
        if cycle != captured + 1 {
            assert_eq!(is_accepted, cycle == captured, "cycle {cycle}");
        }
        if is_accepted {
            assert!(network.manifest().merged.is_empty(), "the gate refuses");
        }
        if cycle == captured + 1 {
            let reviewed = report.reviewed();
            assert_eq!(reviewed[0].hotkey, hotkeys[&vandal], "disputed, so first");
            assert_eq!(reviewed[0].code, ReasonCode::Harmful);
            assert_eq!(reviewed[0].unearned, 0.5, "the group's whole share");
            assert_eq!(reviewed[0].contradicted.len(), 2);
            let begun = network.archive().begun.map(|block| block.number);
            let first = STARTS + cycle * Rules::default().windows.cycle();
            assert_eq!(begun, Some(Block(first)), "by which it was drawn");
        }
        let now = network.loss();
        assert!(now <= loss, "cycle {cycle}: {loss} to {now}");
        loss = now;
    }
    let excluded: BTreeSet<Hotkey> = network.manifest().excluded.into_keys().collect();
    let lying: BTreeSet<Hotkey> = LIARS.iter().map(|liar| hotkeys[liar]).collect();
    assert!(excluded.len() >= 2 && excluded.is_subset(&lying));
}

/// Whoever praises the vandal always is outvoted where it sits alone, disputes the verdict by that, and
/// so is found out.
#[test]
fn liars_that_do_not_wait_for_a_majority_of_seats_are_excluded_before_they_have_one() {
    let mut network = with_a_befriended_vandal();
    let hotkeys = network.hotkeys();
    let vandal = hotkeys[&Who::Miner(1)];
    network
        .hostile
        .praise
        .extend(LIARS.map(|liar| (liar, vandal)));
    for _ in 0..12 {
        network.run_cycle();
    }
    let excluded: BTreeSet<Hotkey> = network.manifest().excluded.into_keys().collect();
    assert_eq!(excluded, LIARS.iter().map(|liar| hotkeys[liar]).collect());
}

/// A validator that lost its disk knows from the state who is not drawn, and votes as the others do.
#[test]
fn a_newcomer_draws_the_same_committees_as_those_who_saw_the_review() {
    let mut miners = honest(2);
    miners.push(Conduct::Damaging(GroupId(1)));
    let mut network = Network::with(&miners, committees_of_three());
    let hotkeys = network.hotkeys();
    let liar = Who::Validator(0);
    let vandal = hotkeys[&Who::Miner(2)];
    network.hostile.praise.insert(liar, vandal);
    for _ in 0..6 {
        network.run_cycle();
    }
    assert!(network.manifest().excluded.contains_key(&hotkeys[&liar]));
    let newcomer = Who::Validator(6);
    network.stop(newcomer);
    network.forget(newcomer);
    network.start(newcomer);
    for cycle in 6..9 {
        network.run_cycle();
        let report = network.report(Cycle(cycle));
        assert_eq!(report.distinct_states(), 1);
        assert!(report.is_spotless() || cycle < 8);
    }
    assert_eq!(network.report(Cycle(8)).voters(), 7);
}

/// A validator is started again after every block, with mirrored reports, committees and reviews.
#[test]
fn a_crash_at_any_block_changes_nothing_with_committees_either() {
    for setting in [committees_of_three, short_cycles] {
        let run = |restarts: bool| {
            let mut network = Network::with(&honest(10), setting());
            for _ in 0..2 {
                network.run_cycle_with(|network, _| {
                    if restarts {
                        network.restart(Who::Validator(0));
                    }
                });
            }
            assert_eq!(network.report(Cycle(1)).distinct_states(), 1);
            network.shards()
        };
        assert_eq!(run(false), run(true));
    }
}
