//! A whole network in one thread: the real role machines on the toy learner, over a chain and a
//! transport that are a few lines each. What is tested is the protocol: who is paid, what the next
//! state is, and what a crash costs.

#![expect(
    clippy::unwrap_used,
    reason = "a harness that fails to build its network has failed"
)]

#[path = "cluster/adoption.rs"]
mod adoption;
#[path = "cluster/advance.rs"]
mod advance;
#[path = "cluster/audit.rs"]
mod audit;
#[path = "cluster/cast.rs"]
mod cast;
#[path = "cluster/committees.rs"]
mod committees;
#[path = "cluster/delivery.rs"]
mod delivery;
#[path = "cluster/feedback.rs"]
mod feedback;
#[path = "cluster/hostile.rs"]
mod hostile;
#[path = "cluster/late.rs"]
mod late;
#[path = "cluster/network.rs"]
mod network;
#[path = "cluster/receipts.rs"]
mod receipts;
#[path = "cluster/report.rs"]
mod report;
#[path = "cluster/toy_task.rs"]
mod toy_task;
#[path = "cluster/versions.rs"]
mod versions;

use connito_protocol::ids::{Cycle, GroupId};
use connito_protocol::reason::ReasonCode;
use network::{Conduct, Network, Who};

fn two_groups() -> Network {
    Network::new(&[
        Conduct::Honest(GroupId(0)),
        Conduct::Honest(GroupId(1)),
        Conduct::Honest(GroupId(0)),
        Conduct::Damaging(GroupId(1)),
        Conduct::CopyingFirst,
    ])
}

/// What should happen: honest miners are accepted, the loss falls every cycle, all validators commit
/// the same state. What should not: a reward for the copier or for the damage.
#[test]
fn honest_work_is_paid_and_the_copier_and_the_vandal_are_not() {
    let mut network = two_groups();
    let before = network.loss();
    for cycle in 0..5 {
        network.run_cycle();
        let report = network.report(Cycle(cycle));
        assert!(report.quorum);
        assert_eq!(
            report.code(Who::Miner(0)),
            Some(ReasonCode::Accepted),
            "cycle {cycle}"
        );
        assert_eq!(
            report.code(Who::Miner(3)),
            Some(ReasonCode::Harmful),
            "cycle {cycle}"
        );
        let expected = if cycle % 2 == 0 {
            ReasonCode::RevealMismatch
        } else {
            ReasonCode::Duplicate
        };
        assert_eq!(report.code(Who::Miner(4)), Some(expected), "cycle {cycle}");
        assert_eq!(
            report.reward(Who::Miner(3)) + report.reward(Who::Miner(4)),
            0.0
        );
        assert!((report.rewards_and_withheld() - 1.0).abs() < 1e-9);
        assert_eq!(
            report.distinct_states(),
            1,
            "one state among all validators"
        );
    }
    assert!(
        network.loss() < before - 0.1,
        "{before} to {}",
        network.loss()
    );
}

/// Nobody but the accepted groups' experts moves: the untrained group's shard keeps its bytes.
#[test]
fn a_group_without_accepted_updates_keeps_its_bytes() {
    let mut network = Network::new(&[Conduct::Honest(GroupId(0)), Conduct::Damaging(GroupId(1))]);
    let before = network.shards();
    network.run_cycle();
    let after = network.shards();
    assert_ne!(before[0], after[0]);
    assert_eq!(before[1], after[1]);
}

/// What should happen: the incumbent goes on, the reward is withheld in plain sight, the next cycle
/// begins. What should not: a made-up winner.
#[test]
fn a_network_without_miners_withholds_the_reward_and_goes_on() {
    let mut network = Network::new(&[]);
    network.run_cycle();
    let report = network.report(Cycle(0));
    assert_eq!(report.rewards_and_withheld(), 1.0);
    assert_eq!(report.distinct_states(), 1);
    network.run_cycle();
    assert!(network.report(Cycle(1)).quorum);
}

/// A validator or a miner is stopped after every single block of a cycle, in turn, and comes back
/// from its journal: the run ends with the same parameters as one without any stop. (The name of the
/// state may differ: it covers the blocks in which records were included, and a record that was on
/// its way when the process died is sent again.)
#[test]
fn a_crash_at_any_block_changes_nothing() {
    let undisturbed = {
        let mut network = two_groups();
        network.run_cycle();
        network.run_cycle();
        network.shards()
    };
    for who in [Who::Validator(0), Who::Miner(0)] {
        let mut network = two_groups();
        network.run_cycle_with(|network, _| network.restart(who));
        network.run_cycle_with(|network, _| network.restart(who));
        assert_eq!(network.shards(), undisturbed, "{who:?}");
        assert_eq!(network.report(Cycle(1)).distinct_states(), 1, "{who:?}");
        assert!(!network.scored_twice(), "{who:?}");
    }
}

/// Down for the whole Evaluate phase: the two others decide, and it adopts what they decided.
#[test]
fn a_validator_that_misses_the_evaluation_adopts_the_others_state() {
    let mut network = two_groups();
    network.run_cycle_with(|network, offset| {
        if offset == 38 {
            network.stop(Who::Validator(2));
        }
    });
    network.start(Who::Validator(2));
    network.run_cycle();
    let report = network.report(Cycle(1));
    assert_eq!(report.distinct_states(), 1);
    assert_eq!(
        report.voters(),
        3,
        "it is back among the voters in the next cycle"
    );
}

/// Two of three validators are gone: nothing is decided, nobody's reward moves, and the incumbent
/// is still the canonical state.
#[test]
fn without_a_majority_the_cycle_is_void() {
    let mut network = two_groups();
    network.run_cycle();
    let incumbent = network.canonical();
    network.stop(Who::Validator(1));
    network.stop(Who::Validator(2));
    network.run_cycle();
    assert_eq!(network.canonical(), incumbent);
    assert!(!network.report(Cycle(1)).quorum);
}

/// A newcomer has no journal and has seen no vote; it must find task, state and group by itself.
#[test]
fn a_miner_that_joins_late_takes_part_from_the_next_cycle_on() {
    let mut network = two_groups();
    network.stop(Who::Miner(0));
    network.run_cycle();
    network.forget(Who::Miner(0));
    network.start(Who::Miner(0));
    network.run_cycle();
    assert_eq!(
        network.report(Cycle(1)).code(Who::Miner(0)),
        Some(ReasonCode::Accepted)
    );
}

/// A miner opens its seal and uploads nowhere, while one validator's server is dead. What should
/// happen: that one submission stays unscored. What should not: that it voids everybody's cycle.
#[test]
fn one_dead_server_and_one_withheld_update_do_not_void_the_cycle() {
    let mut network = two_groups();
    network.mute = vec![Who::Miner(2)];
    network.stop(Who::Validator(2));
    network.run_cycle();
    let report = network.report(Cycle(0));
    assert!(report.quorum);
    assert_eq!(report.code(Who::Miner(0)), Some(ReasonCode::Accepted));
    assert_eq!(report.code(Who::Miner(2)), Some(ReasonCode::Unscored));
}

/// With every server up and none of them having it, it is the miner that did not upload.
#[test]
fn an_update_that_no_server_has_is_charged_to_its_miner() {
    let mut network = two_groups();
    network.mute = vec![Who::Miner(2)];
    network.run_cycle();
    let report = network.report(Cycle(0));
    assert_eq!(report.code(Who::Miner(2)), Some(ReasonCode::NotUploaded));
    assert_eq!(report.code(Who::Miner(0)), Some(ReasonCode::Accepted));
}

#[test]
fn a_validator_too_slow_to_score_still_merges_and_votes() {
    let mut network = two_groups();
    network.slow = Some(Who::Validator(1));
    network.run_cycle();
    let report = network.report(Cycle(0));
    assert_eq!(report.code(Who::Miner(0)), Some(ReasonCode::Accepted));
    assert_eq!((report.voters(), report.distinct_states()), (3, 1));
}

/// The chain refuses one write for a passing reason, in each block of the cycle in turn: every window
/// leaves room to send it again.
#[test]
fn a_refused_write_is_sent_again_inside_its_window() {
    for refused in [33, 34, 36, 37] {
        let mut network = two_groups();
        network.run_cycle_with(|network, offset| {
            if offset == refused {
                network.refuse_next_write_of = Some(Who::Miner(0));
            }
        });
        let code = network.report(Cycle(0)).code(Who::Miner(0));
        assert_eq!(
            code,
            Some(ReasonCode::Accepted),
            "refused after offset {refused}"
        );
    }
}
