//! Every invariant sees what it is there to see: each test breaks one thing and expects its name.
//!
//! What needs a whole run (a journal that does not replay, a network that stands still, an upload that
//! a lying disk forgot) is broken in `run/tests.rs`.

use connito_learning::store::{BlobStore, MemoryStore};
use connito_learning::toy::task::ToyTask;
use connito_protocol::announcement::task_digest;
use connito_protocol::ids::{Block, BlockHash, Seed};
use connito_protocol::job::{Candidate, Original};
use connito_protocol::manifest::{MergedUpdate, TaskManifest};
use connito_protocol::report::Measurement;
use connito_protocol::rewards::CycleRewards;
use connito_protocol::rules::Rules;
use connito_protocol::snapshot::Voter;
use connito_protocol::submission::Submission;

use super::*;
use crate::monitor::hearing::Hearing;

const CYCLE: Cycle = Cycle(3);
const ALICE: Hotkey = Hotkey([1; 32]);
const BOB: Hotkey = Hotkey([2; 32]);

fn blob(byte: u8) -> BlobId {
    BlobId([byte; 32])
}

fn state(byte: u8) -> StateId {
    StateId([byte; 32])
}

fn measured(utility: f32) -> Measurement {
    Measurement {
        utility,
        standard_error: 0.0,
    }
}

fn accepted(hotkey: Hotkey) -> Verdict {
    Verdict {
        hotkey,
        group: GroupId(0),
        update: Some(blob(9)),
        code: ReasonCode::Accepted,
        measurement: Some(measured(0.5)),
        weight: 0.5,
    }
}

fn judged(verdicts: Vec<Verdict>, shares: &[(Hotkey, f64)], withheld: f64) -> Judged {
    Judged {
        quorum: true,
        verdicts,
        rewards: CycleRewards {
            shares: shares.iter().copied().collect(),
            withheld,
        },
    }
}

/// A record in which ALICE has opened update 9.
fn opened() -> Record {
    let mut record = Record::default();
    record.show(Some(vec![Submission {
        hotkey: ALICE,
        group: GroupId(0),
        sealed: (Block(1), 0),
        opening: Opening::Update(blob(9)),
    }]));
    record
}

fn breaks(found: Check) -> &'static str {
    found.expect_err("the invariant sees nothing").0
}

#[test]
fn two_states_of_one_cycle_are_seen() {
    let ended = |byte, passed| Concluded {
        state: state(byte),
        passed,
    };
    let first = ended(1, Some(true));
    assert_eq!(one_state_a_cycle(first, first, CYCLE), Ok(()));
    for other in [ended(2, Some(true)), ended(1, Some(false)), ended(1, None)] {
        assert_eq!(
            breaks(one_state_a_cycle(first, other, CYCLE)),
            "one_state_a_cycle"
        );
    }
}

#[test]
fn honest_votes_for_different_states_are_seen() {
    let vote = |candidate, fallback| Vote {
        cycle: CYCLE,
        approves: true,
        candidate: state(candidate),
        fallback: state(fallback),
        task: task_digest(blob(0)),
    };
    let record = Record {
        pair: Some((state(1), state(2))),
        ..Record::default()
    };
    let check = |vote| honest_validators_vote_for_one_pair(&record, NodeId(7), &vote);
    assert_eq!(check(vote(1, 2)), Ok(()));
    assert_eq!(
        breaks(check(vote(1, 3))),
        "honest_validators_vote_for_one_pair"
    );
}

#[test]
fn different_readings_of_one_chain_are_seen() {
    let first = judged(vec![accepted(ALICE)], &[(ALICE, 1.0)], 0.0);
    let without_quorum = Judged {
        quorum: false,
        ..first.clone()
    };
    assert_eq!(
        honest_validators_judge_alike(&first, first.told(), CYCLE),
        Ok(())
    );
    for other in [
        without_quorum,
        judged(vec![accepted(BOB)], &[(BOB, 1.0)], 0.0),
    ] {
        let found = honest_validators_judge_alike(&first, other.told(), CYCLE);
        assert_eq!(breaks(found), "honest_validators_judge_alike");
    }
}

#[test]
fn scoring_what_was_not_opened_is_seen() {
    let job = |hotkey, update| ScoreJob {
        cycle: CYCLE,
        task: blob(0),
        state: state(0),
        seed: Seed([0; 32]),
        updates: vec![Candidate {
            hotkey,
            group: GroupId(0),
            update,
        }],
        remembered: Vec::new(),
        stop_at: Block(9),
    };
    let check = |job| only_revealed_commitments_are_scored(&opened(), &job);
    assert_eq!(check(job(ALICE, blob(9))), Ok(()));
    for stranger in [job(ALICE, blob(8)), job(BOB, blob(9))] {
        assert_eq!(
            breaks(check(stranger)),
            "only_revealed_commitments_are_scored"
        );
    }
}

#[test]
fn a_second_measurement_by_the_same_validator_is_seen() {
    let record = Record {
        measured: [NodeId(4)].into(),
        ..Record::default()
    };
    assert_eq!(nobody_is_scored_twice(&record, CYCLE, NodeId(5)), Ok(()));
    let found = nobody_is_scored_twice(&record, CYCLE, NodeId(4));
    assert_eq!(breaks(found), "nobody_is_scored_twice");
}

/// What should not happen: shares above or below 1, a share for nothing, or a share of nothing.
#[test]
fn rewards_that_do_not_add_up_or_were_not_earned_are_seen() {
    let check = |shares: &[(Hotkey, f64)], withheld| {
        let judged = judged(vec![accepted(ALICE)], shares, withheld);
        rewards_sum_to_one_or_are_withheld(&judged, CYCLE)
    };
    assert_eq!(check(&[(ALICE, 0.75)], 0.25), Ok(()));
    let wrong: [(&[(Hotkey, f64)], f64); 4] = [
        (&[(ALICE, 0.75)], 0.5),
        (&[(ALICE, 0.75)], 0.0),
        (&[(BOB, 1.0)], 0.0),
        (&[(ALICE, 0.0)], 1.0),
    ];
    for (shares, withheld) in wrong {
        assert_eq!(
            breaks(check(shares, withheld)),
            "rewards_sum_to_one_or_are_withheld"
        );
    }
}

const CAROL: Hotkey = Hotkey([7; 32]);
const DAVE: Hotkey = Hotkey([8; 32]);
const LIAR: Hotkey = Hotkey([9; 32]);

/// Two honest validators and a liar, with equal stakes; all of them score everything.
fn honest() -> Honest {
    [(CAROL, NodeId(0)), (DAVE, NodeId(1))].into()
}

/// ALICE's update is judged by Carol and Dave, as far as they are heard, and by the liar.
fn judging(heard: &[Hotkey], findings: &[(NodeId, Finding)]) -> Record {
    let record = opened();
    let voters = [CAROL, DAVE, LIAR].map(|hotkey| Voter { hotkey, stake: 10 });
    let task = ToyTask {
        starts: Block(0),
        groups: 1,
        documents: 4,
        rules: Rules::default(),
    };
    let store = MemoryStore::default();
    let task = task.publish(&store).unwrap();
    let manifest = TaskManifest::from_bytes(&store.read(task).unwrap()).unwrap();
    let mut hearing = Hearing::new(&voters);
    let submissions = record.submissions.as_deref().unwrap();
    let lot = (CYCLE, BlockHash([0; 32]));
    hearing.draw(lot, submissions, &BTreeMap::new(), &manifest);
    hearing.heard.extend(heard);
    Record {
        hearing,
        findings: [(ALICE, findings.to_vec())].into(),
        ..record
    }
}

fn finding(utility: f32) -> Finding {
    Finding::Measured {
        measurement: measured(utility),
        loss_before: 2.0,
        loss_after: 1.6,
    }
}

fn charge(code: ReasonCode, measurement: Option<Measurement>) -> Verdict {
    Verdict {
        code,
        measurement,
        weight: 0.0,
        ..accepted(ALICE)
    }
}

type Asked = fn(&Witnesses<'_>, &Judged, Cycle) -> Check;

fn ask(invariant: Asked, record: &Record, verdict: &Verdict) -> Check {
    let witnesses = Witnesses {
        record,
        honest: &honest(),
        significance: 1.0,
        device_noise: 1e-6,
    };
    invariant(&witnesses, &judged(vec![verdict.clone()], &[], 1.0), CYCLE)
}

#[test]
fn a_charge_that_no_honest_validator_and_no_record_bears_out_is_seen() {
    let found = |finding| judging(&[CAROL, DAVE], &[0, 1].map(|node| (NodeId(node), finding)));
    let fine = found(finding(0.4));
    let harmful = charge(ReasonCode::Harmful, Some(measured(-0.4)));
    let malformed = charge(ReasonCode::Malformed, None);
    let check =
        |record: &Record, verdict: &Verdict| ask(no_charge_without_evidence, record, verdict);
    for verdict in [&harmful, &malformed] {
        assert_eq!(breaks(check(&fine, verdict)), "no_charge_without_evidence");
    }
    let code = ReasonCode::Malformed;
    assert_eq!(check(&found(Finding::Refused { code }), &malformed), Ok(()));
    let of = Original::Momentum;
    let duplicate = charge(ReasonCode::Duplicate, None);
    assert_eq!(check(&found(Finding::Copy { of }), &duplicate), Ok(()));
    let found = check(&found(Finding::Copy { of }), &malformed);
    assert_eq!(breaks(found), "no_charge_without_evidence");
    // What the network failed at is charged to nobody and needs no evidence.
    assert_eq!(check(&fine, &charge(ReasonCode::Unscored, None)), Ok(()));
}

/// What should not happen: a measurement that honest validators took, judged as something else.
#[test]
fn a_code_that_does_not_follow_from_its_measurement_is_seen() {
    let fine = judging(
        &[CAROL, DAVE],
        &[(NodeId(0), finding(0.4)), (NodeId(1), finding(0.4))],
    );
    let no_gain = charge(ReasonCode::NoGain, Some(measured(0.4)));
    let found = ask(no_charge_without_evidence, &fine, &no_gain);
    assert_eq!(breaks(found), "no_charge_without_evidence");
    let wide = Measurement {
        utility: 0.4,
        standard_error: 0.5,
    };
    let of_another_error = charge(ReasonCode::NoGain, Some(wide));
    let found = ask(no_charge_without_evidence, &fine, &of_another_error);
    assert_eq!(
        breaks(found),
        "no_charge_without_evidence",
        "no honest validator found so large an error"
    );
}

/// A self-dealer's friend: praised by one, worthless to the others.
#[test]
fn a_reward_that_honest_validators_do_not_bear_out_is_seen() {
    let found = |utility| {
        let finding = finding(utility);
        judging(
            &[CAROL, DAVE],
            &[(NodeId(0), finding), (NodeId(1), finding)],
        )
    };
    let praised = accepted(ALICE);
    let check = |record: &Record| ask(no_reward_without_evidence, record, &praised);
    assert_eq!(check(&found(0.5)), Ok(()));
    assert_eq!(breaks(check(&found(0.0))), "no_reward_without_evidence");
    let sealed_only = Record {
        submissions: Some(Vec::new()),
        ..found(0.5)
    };
    assert_eq!(breaks(check(&sealed_only)), "no_reward_without_evidence");
    let of_another_weight = Verdict {
        weight: 0.9,
        ..accepted(ALICE)
    };
    let found = ask(no_reward_without_evidence, &found(0.5), &of_another_weight);
    assert_eq!(breaks(found), "no_reward_without_evidence");
}

/// Where one of two honest validators is not heard, the liar decides, and nothing is held against that.
#[test]
fn what_hostile_members_can_have_brought_about_is_not_blamed() {
    let finding = finding(0.4);
    let harmful = charge(ReasonCode::Harmful, Some(measured(-9.0)));
    let found = [(NodeId(0), finding), (NodeId(1), finding)];
    let alone = judging(&[CAROL], &found);
    assert_eq!(ask(no_charge_without_evidence, &alone, &harmful), Ok(()));
    let both = judging(&[CAROL, DAVE], &found);
    let found = ask(no_charge_without_evidence, &both, &harmful);
    assert_eq!(breaks(found), "no_charge_without_evidence");
}

/// One of three lacks the update. Where the two others measured it, that is no reason to charge anybody.
#[test]
fn an_update_that_most_have_is_not_one_that_nobody_uploaded() {
    let holder = NodeId(0);
    let lacked = charge(ReasonCode::NotUploaded, None);
    let both = [(holder, finding(0.4)), (NodeId(1), finding(0.4))];
    let most_have_it = judging(&[CAROL, DAVE], &both);
    let found = ask(no_charge_without_evidence, &most_have_it, &lacked);
    assert_eq!(breaks(found), "no_charge_without_evidence");
    let code = ReasonCode::NotUploaded;
    let refused = Finding::Refused { code };
    let one_has_it = judging(
        &[CAROL, DAVE],
        &[(holder, finding(0.4)), (NodeId(1), refused)],
    );
    assert_eq!(
        ask(no_charge_without_evidence, &one_has_it, &lacked),
        Ok(())
    );
    // Dave had nothing to measure when he set out, wherever the update is by now.
    let one_had_it_in_time = judging(&[CAROL, DAVE], &[(holder, finding(0.4))]);
    assert_eq!(
        ask(no_charge_without_evidence, &one_had_it_in_time, &lacked),
        Ok(())
    );
}

#[test]
fn a_verdict_on_submissions_that_the_chain_does_not_show_is_seen() {
    let record = Record::default();
    let found = ask(
        no_charge_without_evidence,
        &record,
        &charge(ReasonCode::Unscored, None),
    );
    assert_eq!(breaks(found), "no_charge_without_evidence");
}

#[test]
fn an_honest_validator_that_is_blamed_is_seen() {
    let check = |hotkey| {
        let blamed = [(hotkey, "excluded")];
        no_honest_validator_is_excluded_or_blamed(blamed, (&honest(), CYCLE))
    };
    assert_eq!(check(LIAR), Ok(()));
    assert_eq!(
        breaks(check(DAVE)),
        "no_honest_validator_is_excluded_or_blamed"
    );
}

fn group(number: u16, shard: u8) -> GroupState {
    GroupState {
        group: GroupId(number),
        shard: blob(shard),
        bytes: 100,
        momentum: None,
        reference_norm: None,
    }
}

/// ALICE's update of group 0 was accepted; group 1 had none.
#[test]
fn a_change_outside_of_accepted_groups_is_seen() {
    let store = MemoryStore::default();
    let put = |groups: Vec<GroupState>, merged: &[Hotkey]| {
        let of = |hotkey: &Hotkey| MergedUpdate {
            group: GroupId(0),
            hotkey: *hotkey,
            update: blob(9),
            bytes: 50,
            weight: 0.5,
        };
        let manifest = StateManifest {
            format: StateManifest::FORMAT,
            cycle: CYCLE,
            parent: None,
            archive: None,
            groups,
            merged: merged.iter().map(of).collect(),
            excluded: BTreeMap::new(),
        };
        StateId(store.write(&manifest.to_bytes()).unwrap().0)
    };
    let before = put(vec![group(0, 1), group(1, 2)], &[]);
    let check = |state, passed| {
        let seen = Seen {
            at: 0,
            store: &store,
        };
        let record = Record {
            judged: Some(judged(vec![accepted(ALICE)], &[(ALICE, 1.0)], 0.0)),
            ..Record::default()
        };
        let concluded = Concluded {
            state,
            passed: Some(passed),
        };
        nothing_outside_accepted_groups_changes(&seen, &record, (Some(before), concluded))
    };
    let moved = put(vec![group(0, 5), group(1, 2)], &[ALICE]);
    assert_eq!(check(moved, true), Ok(()));
    let wrong = [
        (put(vec![group(0, 5), group(1, 6)], &[ALICE]), true),
        (put(vec![group(0, 5), group(1, 2)], &[BOB]), true),
        (put(vec![group(0, 5), group(1, 2)], &[]), true),
        (put(vec![group(0, 5)], &[ALICE]), true),
        (put(vec![group(0, 5), group(1, 2)], &[]), false),
        (state(77), true),
    ];
    for (state, passed) in wrong {
        let name = breaks(check(state, passed));
        assert_eq!(name, "nothing_outside_accepted_groups_changes");
    }
}

#[test]
fn a_worse_state_or_one_that_nobody_measured_is_seen() {
    let concluded = Concluded {
        state: state(1),
        passed: Some(true),
    };
    let check = |gate: &[(f64, Option<f64>)]| {
        let record = Record {
            gate: gate.to_vec(),
            ..Record::default()
        };
        new_state_is_no_worse_at_the_gate(&record, concluded, 1e-6)
    };
    assert_eq!(check(&[(2.0, Some(1.9)), (2.0, Some(2.0 + 1e-6))]), Ok(()));
    for gate in [
        &[][..],
        &[(2.0, Some(1.9)), (2.0, Some(2.1))],
        &[(2.0, None)],
    ] {
        assert_eq!(breaks(check(gate)), "new_state_is_no_worse_at_the_gate");
    }
}

#[test]
fn an_acknowledged_upload_that_is_gone_is_seen() {
    let acknowledged = NameMap::from_iter([(ALICE, blob(9))]);
    let check = |holds: &[BlobId], received: Option<&[(Hotkey, BlobId)]>| {
        let kept = Kept {
            holds: &holds.iter().copied().collect(),
            received: received.map(|received| received.iter().copied().collect()),
        };
        no_accepted_upload_lost(NodeId(1), (CYCLE, &acknowledged), kept)
    };
    assert_eq!(check(&[blob(9)], Some(&[(ALICE, blob(9))])), Ok(()));
    assert_eq!(check(&[blob(9)], None), Ok(()), "it is in another cycle");
    let gone = check(&[], Some(&[(ALICE, blob(9))]));
    let forgotten = check(&[blob(9)], Some(&[]));
    let another = check(&[blob(9)], Some(&[(ALICE, blob(8))]));
    for found in [gone, forgotten, another] {
        assert_eq!(breaks(found), "no_accepted_upload_lost");
    }
}
