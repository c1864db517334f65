//! Miners whose training ends too late, and what a validator knows who joined late (P-15, A-26).

use connito_protocol::event::Milestone;
use connito_protocol::ids::{Block, Cycle, GroupId};
use connito_protocol::reason::ReasonCode;

use crate::network::{Conduct, Network, Who};

const SLOW: Who = Who::Miner(0);

/// Miner 0 is slow, and what happens to its group meanwhile is up to the others.
fn with_a_slow_miner(others: &[Conduct]) -> Network {
    let mut miners = vec![Conduct::Honest(GroupId(0))];
    miners.extend(others);
    let mut network = Network::new(&miners);
    network.slow_trainers = vec![SLOW];
    network
}

/// Runs a cycle in which the slow miner's training of the cycle before ends at this offset.
fn run_cycle_in_which_it_ends(network: &mut Network, offset: u64) {
    network.run_cycle_with(|network, now| {
        if now == offset {
            network.release(SLOW);
        }
    });
}

fn presented_late(network: &Network) -> Vec<(Cycle, Cycle)> {
    let told = network.told_by(SLOW);
    told.filter_map(|milestone| match milestone {
        Milestone::PresentedLate { trained, cycle, .. } => Some((*trained, *cycle)),
        _ => None,
    })
    .collect()
}

fn trained_in(network: &Network) -> Vec<Cycle> {
    let told = network.told_by(SLOW);
    told.filter_map(|milestone| match milestone {
        Milestone::Trained(trained) => Some(trained.cycle),
        _ => None,
    })
    .collect()
}

/// What should happen: an update that was trained on the state before is submitted in the next cycle,
/// measured and merged like any other, for only the other group moved; after that the miner trains as
/// usual. What should not: a second submission of that cycle, or the same update once more.
#[test]
fn an_update_that_came_too_late_counts_in_the_next_cycle_if_its_group_did_not_change() {
    let mut network = with_a_slow_miner(&[Conduct::Honest(GroupId(1))]);
    network.run_cycle();
    assert_eq!(
        network.report(Cycle(0)).code(SLOW),
        None,
        "nothing was sealed"
    );
    let before = network.shards();

    run_cycle_in_which_it_ends(&mut network, 2);
    let report = network.report(Cycle(1));
    assert_eq!(report.code(SLOW), Some(ReasonCode::Accepted));
    assert!(report.reward(SLOW) > 0.0);
    assert_eq!(report.distinct_states(), 1);
    assert_ne!(network.shards()[0], before[0], "it is part of the state");
    assert_eq!(presented_late(&network), [(Cycle(0), Cycle(1))]);

    network.slow_trainers.clear();
    network.run_cycle();
    assert_eq!(
        network.report(Cycle(2)).code(SLOW),
        Some(ReasonCode::Accepted)
    );
    assert_eq!(trained_in(&network), [Cycle(0), Cycle(2)]);
}

/// Another miner of its group was accepted meanwhile. What should happen: the late update is dropped
/// without a submission that could only be refused, and the miner trains on the new state at once.
#[test]
fn an_update_that_came_too_late_for_a_group_that_changed_is_dropped() {
    let mut network = with_a_slow_miner(&[Conduct::Honest(GroupId(0))]);
    network.run_cycle();
    network.slow_trainers.clear();
    run_cycle_in_which_it_ends(&mut network, 2);
    assert_eq!(presented_late(&network), []);
    assert_eq!(trained_in(&network), [Cycle(0), Cycle(1)]);
    assert_eq!(
        network.report(Cycle(1)).code(SLOW),
        Some(ReasonCode::Accepted)
    );
}

/// Training ends when the next cycle's seal window is over too: beyond the window of one cycle.
#[test]
fn an_update_that_is_two_cycles_late_is_dropped() {
    let mut network = with_a_slow_miner(&[Conduct::Honest(GroupId(1))]);
    network.run_cycle();
    run_cycle_in_which_it_ends(&mut network, 41);
    network.slow_trainers.clear();
    network.run_cycle();
    assert_eq!(presented_late(&network), []);
    assert_eq!(network.report(Cycle(1)).code(SLOW), None);
    assert_eq!(trained_in(&network), [Cycle(0), Cycle(2)]);
}

/// The process dies again and again after the update was carried over: the replay carries it over as
/// well.
#[test]
fn a_restart_does_not_lose_a_late_update() {
    let mut network = with_a_slow_miner(&[Conduct::Honest(GroupId(1))]);
    network.run_cycle();
    network.run_cycle_with(|network, offset| {
        if offset == 2 {
            network.release(SLOW);
        }
        if offset >= 2 {
            network.restart(SLOW);
        }
    });
    assert_eq!(
        network.report(Cycle(1)).code(SLOW),
        Some(ReasonCode::Accepted)
    );
}

/// One validator begins with the cycle in which a late update is presented: it has seen no other base
/// than the present one. What should happen: it reads the state before from the manifest that names it,
/// and holds the same list as the others. What should not: a list without that submission.
#[test]
fn a_validator_that_joined_after_the_older_base_holds_the_same_submissions() {
    let late = Who::Validator(2);
    let mut network = with_a_slow_miner(&[Conduct::Honest(GroupId(1))]);
    network.stop(late);
    network.run_cycle();
    // The votes of cycle 0 are all that it sees of that cycle.
    let first = Block(network.block().0);
    network.run_blocks(1);
    network.join(late, first);
    run_cycle_in_which_it_ends(&mut network, 2);
    let report = network.report(Cycle(1));
    assert_eq!(report.code(SLOW), Some(ReasonCode::Accepted));
    assert_eq!((report.voters(), report.distinct_states()), (3, 1));
}

/// The same validator, and no server that has the manifest of the state before. What should happen: it
/// abstains from the cycle, for it cannot tell the late update's base from a made-up one.
#[test]
fn a_validator_that_cannot_know_the_older_base_abstains() {
    let late = Who::Validator(2);
    let mut network = with_a_slow_miner(&[Conduct::Honest(GroupId(1))]);
    network.stop(late);
    let task = network.first_task();
    network.run_cycle();
    let first = Block(network.block().0);
    network.run_blocks(1);
    network
        .hidden
        .extend(task.first_state.map(|state| state.manifest_blob()));
    network.join(late, first);
    run_cycle_in_which_it_ends(&mut network, 2);
    let report = network.report(Cycle(1));
    assert_eq!(report.code(SLOW), Some(ReasonCode::Accepted));
    assert_eq!((report.voters(), report.distinct_states()), (2, 1));
    network.run_cycle();
    assert_eq!(
        network.report(Cycle(2)).voters(),
        3,
        "the next cycle builds on what it saw"
    );
}
