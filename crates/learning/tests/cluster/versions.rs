//! Tasks that follow each other in a running network (P-39, A-103).

use connito_protocol::event::Milestone;
use connito_protocol::ids::{BlobId, Block, Cycle, GroupId, Netuid};
use connito_protocol::manifest::TaskManifest;
use connito_protocol::reason::ReasonCode;
use connito_protocol::schedule::Window;

use crate::network::{Conduct, Network, Who};
use crate::toy_task;

const ALL: [Who; 6] = [
    Who::Owner,
    Who::Validator(0),
    Who::Validator(1),
    Who::Validator(2),
    Who::Miner(0),
    Who::Miner(1),
];

fn network() -> Network {
    Network::new(&[Conduct::Honest(GroupId(0)), Conduct::Honest(GroupId(1))])
}

/// The network's task once more, to take effect with `cycle`.
fn following(network: &Network, cycle: u64) -> TaskManifest {
    let first = network.first_task();
    TaskManifest {
        follows: Some(network.task),
        starts: first.schedule().opens(Cycle(cycle), Window::Distribute),
        first_cycle: Cycle(cycle),
        first_state: None,
        ..first
    }
}

/// Runs four cycles, in each of which these miners' updates are accepted and all validators agree.
fn four_cycles_as_ever(network: &mut Network, miners: &[Who]) {
    for cycle in 1..5 {
        network.run_cycle();
        let report = network.report(Cycle(cycle));
        assert!(report.quorum, "cycle {cycle}");
        for miner in miners {
            let code = report.code(*miner);
            assert_eq!(code, Some(ReasonCode::Accepted), "cycle {cycle}, {miner:?}");
        }
        let agreed = (report.voters(), report.distinct_states());
        assert_eq!(agreed, (3, 1), "cycle {cycle}");
    }
}

/// The tasks that a role has worked on, in order.
fn worked_on(network: &Network, who: Who) -> Vec<BlobId> {
    let told = network.told_by(who);
    told.filter_map(|milestone| match milestone {
        Milestone::TaskLoaded { task } => Some(*task),
        _ => None,
    })
    .collect()
}

fn refusals(network: &Network, who: Who) -> Vec<&str> {
    let told = network.told_by(who);
    told.filter_map(|milestone| match milestone {
        Milestone::TaskRefused { reason } => Some(reason.as_str()),
        _ => None,
    })
    .collect()
}

/// Steps of training that a miner took, cycle by cycle.
fn steps(network: &Network, who: Who) -> Vec<u32> {
    let told = network.told_by(who);
    told.filter_map(|milestone| match milestone {
        Milestone::Trained(trained) => Some(trained.steps),
        _ => None,
    })
    .collect()
}

/// What should happen: the rules change for everyone with the first block of cycle 3, cycles count on,
/// the state goes on, rewards have one history. What should not: a cycle without a verdict, or one
/// participant that needs to be started again.
#[test]
fn rules_change_for_everyone_with_the_named_cycle_and_nothing_else_does() {
    let mut network = network();
    network.run_cycle();
    let mut next = following(&network, 3);
    next.rules.inner.steps = 6;
    let task = network.publish(&next);
    four_cycles_as_ever(&mut network, &[Who::Miner(0), Who::Miner(1)]);
    for who in ALL {
        assert_eq!(worked_on(&network, who), [network.task, task], "{who:?}");
    }
    assert_eq!(steps(&network, Who::Miner(0)), [24, 24, 24, 6, 6]);
}

/// Windows of another length: the same number of blocks means another place in the cycle.
#[test]
fn windows_may_change_as_well() {
    let mut network = network();
    network.run_cycle();
    let mut next = following(&network, 2);
    next.rules.windows.train = 20;
    next.rules.windows.score = 6;
    network.publish(&next);
    network.run_cycle();
    network.run_blocks(2 * next.rules.windows.cycle());
    for cycle in 1..4 {
        let report = network.report(Cycle(cycle));
        assert_eq!(
            report.code(Who::Miner(0)),
            Some(ReasonCode::Accepted),
            "cycle {cycle}"
        );
        assert_eq!(
            (report.voters(), report.distinct_states()),
            (3, 1),
            "cycle {cycle}"
        );
    }
}

/// The partition stays and group 1 gets a second domain, whose text nobody has seen before.
#[test]
fn a_domain_is_added_and_everyone_holds_its_text_in_time() {
    let mut network = network();
    network.run_cycle();
    let mut next = following(&network, 3);
    next.domains
        .push(toy_task::domain(network.store(Who::Owner), "third", 1, 2));
    let task = network.publish(&next);
    network.run_cycle();
    network.run_cycle();
    // From here on the owner is not needed: validators hold the new text, and miners ask them.
    network.stop(Who::Owner);
    network.run_cycle();
    let report = network.report_by(Cycle(3), Who::Validator(0));
    assert_eq!(report.code(Who::Miner(1)), Some(ReasonCode::Accepted));
    assert_eq!((report.voters(), report.distinct_states()), (3, 1));
    assert_eq!(worked_on(&network, Who::Miner(1)), [network.task, task]);
}

/// A new state, here one of another partition: three experts of each layer in the first group, one in
/// the second. Cycles go on counting, and updates of the old groups count no more.
#[test]
fn a_task_with_another_partition_begins_with_a_state_of_its_own() {
    let mut network = network();
    network.run_cycle();
    let mut next = following(&network, 2);
    next.groups = toy_task::groups_of(&[3, 1]);
    let first = toy_task::first_state(network.store(Who::Owner), &next.groups, next.first_cycle);
    next.first_state = Some(first);
    network.publish(&next);
    network.run_cycle();
    assert_eq!(network.canonical_of(Who::Miner(0)), network.canonical());
    network.run_cycle();
    let report = network.report(Cycle(2));
    assert_eq!(report.code(Who::Miner(0)), Some(ReasonCode::Accepted));
    assert_eq!(report.distinct_states(), 1);
    assert_eq!(network.shards().len(), 2);
}

/// What should happen: a sentence. What should not: that the current task stops, now or at the block
/// which the other one names.
#[test]
fn an_unsound_task_stops_nobody() {
    type Change = fn(&mut TaskManifest);
    let unsound: [(&str, Change); 6] = [
        ("selection.sequences", |task| {
            task.rules.selection.sequences = 0
        }),
        ("follow", |task| task.follows = Some(BlobId([1; 32]))),
        ("first block", |task| task.starts = Block(task.starts.0 + 1)),
        ("no first state", |task| task.model.config = BlobId([1; 32])),
        ("begins with block", |task| task.starts = Block(u64::MAX)),
        ("subnet 2", |task| task.netuid = Netuid(2)),
    ];
    for (word, spoil) in unsound {
        let mut network = network();
        network.run_cycle();
        let mut next = following(&network, 2);
        spoil(&mut next);
        network.publish(&next);
        network.run_cycle();
        network.run_cycle();
        for who in ALL {
            let told = refusals(&network, who);
            assert_eq!(told.len(), 1, "{who:?}: {told:?}");
            assert!(told[0].contains(word), "{who:?}: {told:?}");
            assert_eq!(worked_on(&network, who), [network.task], "{word}");
        }
        let report = network.report(Cycle(2));
        assert_eq!(
            report.code(Who::Miner(0)),
            Some(ReasonCode::Accepted),
            "{word}"
        );
    }
}

/// The first state that it names is one of other groups.
#[test]
fn a_task_whose_first_state_is_of_other_groups_is_refused() {
    let mut network = network();
    network.run_cycle();
    let mut next = following(&network, 2);
    let groups = toy_task::groups_of(&[1, 1, 2]);
    next.first_state = Some(toy_task::first_state(
        network.store(Who::Owner),
        &groups,
        next.first_cycle,
    ));
    network.publish(&next);
    network.run_cycle();
    network.run_cycle();
    for who in ALL {
        let told = refusals(&network, who);
        assert!(
            told.len() == 1 && told[0].contains("first state"),
            "{who:?}: {told:?}"
        );
    }
    assert_eq!(
        network.report(Cycle(2)).code(Who::Miner(0)),
        Some(ReasonCode::Accepted)
    );
}

/// Announced in cycle 1, to begin with cycle 2, where the rules ask for two cycles.
#[test]
fn a_task_that_is_announced_at_too_short_notice_is_refused_with_the_earliest_block() {
    let mut network = Network::under(
        |rules| rules.notice_cycles = 2,
        &[Conduct::Honest(GroupId(0)), Conduct::Honest(GroupId(1))],
    );
    network.run_cycle();
    network.publish(&following(&network, 2));
    network.run_cycle();
    network.run_cycle();
    let earliest = following(&network, 3).starts;
    for who in ALL {
        let told = refusals(&network, who);
        assert!(
            told[0].ends_with(&format!("cycle 3 at block {earliest}")),
            "{told:?}"
        );
        assert_eq!(worked_on(&network, who), [network.task], "{who:?}");
    }
    let task = network.publish(&following(&network, 6));
    (0..4).for_each(|_| network.run_cycle());
    assert_eq!(
        worked_on(&network, Who::Miner(0)),
        [network.task, task],
        "in time, it is taken"
    );
}

/// Two of three validators cannot have the new domain's text before the named cycle. What should
/// happen: everyone stays with the current task, the third validator included. What should not: two
/// halves of a network.
#[test]
fn without_a_majority_that_is_ready_the_current_task_goes_on() {
    let mut network = network();
    network.run_cycle();
    let mut next = following(&network, 3);
    let text = toy_task::domain(network.store(Who::Owner), "third", 1, 2);
    network.give(Who::Validator(0), &[text.training, text.scoring, text.gate]);
    network
        .hidden
        .extend([text.training, text.scoring, text.gate]);
    next.domains.push(text);
    network.publish(&next);
    four_cycles_as_ever(&mut network, &[Who::Miner(0)]);
    for who in ALL {
        assert_eq!(worked_on(&network, who), [network.task], "{who:?}");
        assert!(
            refusals(&network, who)[0].contains("no majority"),
            "{who:?}"
        );
    }
}

/// One validator and one miner cannot read the announcement until two cycles after the step. What
/// should happen: they stop, and go on from the block at which they stopped. What should not: that they
/// work on by rules which the others have left.
#[test]
fn whoever_reads_the_task_too_late_catches_up_from_the_step() {
    let mut network = network();
    network.run_cycle();
    let mut next = following(&network, 2);
    next.rules.inner.steps = 6;
    let task = network.publish_hidden_from(&next, &[Who::Validator(2), Who::Miner(1)]);
    network.run_cycle();
    network.run_cycle();
    assert_eq!(network.report(Cycle(2)).voters(), 2);
    assert_eq!(network.report(Cycle(2)).code(Who::Miner(1)), None);
    network.hidden_from = None;
    network.run_cycle();
    network.run_cycle();
    let report = network.report(Cycle(4));
    assert_eq!((report.voters(), report.distinct_states()), (3, 1));
    assert_eq!(report.code(Who::Miner(1)), Some(ReasonCode::Accepted));
    assert_eq!(worked_on(&network, Who::Miner(1)), [network.task, task]);
}

/// The owner takes an announcement back by announcing another in its place.
#[test]
fn an_announcement_that_is_replaced_in_time_never_takes_effect() {
    let mut network = network();
    network.run_cycle();
    let mut first = following(&network, 3);
    first.rules.inner.steps = 6;
    network.publish(&first);
    network.run_cycle();
    let mut second = following(&network, 4);
    second.rules.inner.steps = 8;
    let task = network.publish(&second);
    (0..3).for_each(|_| network.run_cycle());
    assert_eq!(worked_on(&network, Who::Miner(0)), [network.task, task]);
    assert_eq!(steps(&network, Who::Miner(0)), [24, 24, 24, 24, 8]);
}

/// What a newcomer sees on the chain is the new announcement alone, while the old task is worked on.
#[test]
fn a_newcomer_in_the_overlap_begins_with_the_task_that_is_worked_on() {
    let mut network = network();
    network.stop(Who::Miner(1));
    network.run_cycle();
    let mut next = following(&network, 3);
    next.rules.inner.steps = 6;
    let task = network.publish(&next);
    network.run_cycle();
    let first = Block(network.block().0);
    network.run_blocks(1);
    network.join(Who::Miner(1), first);
    network.run_cycle();
    network.run_cycle();
    assert_eq!(worked_on(&network, Who::Miner(1)), [network.task, task]);
    assert_eq!(steps(&network, Who::Miner(1)), [24, 6]);
    assert_eq!(
        network.report(Cycle(2)).code(Who::Miner(1)),
        Some(ReasonCode::Accepted)
    );
}

/// A newcomer after the step needs the old task only where it saw blocks of it.
#[test]
fn a_newcomer_after_the_step_begins_with_the_new_task() {
    let mut network = network();
    network.stop(Who::Miner(1));
    network.run_cycle();
    let task = network.publish(&following(&network, 2));
    network.run_cycle();
    network.run_cycle();
    let first = Block(network.block().0);
    network.run_blocks(1);
    network.join(Who::Miner(1), first);
    network.run_cycle();
    assert_eq!(worked_on(&network, Who::Miner(1)), [task]);
    assert_eq!(
        network.report(Cycle(3)).code(Who::Miner(1)),
        Some(ReasonCode::Accepted)
    );
}

/// Everyone is stopped and started again after every block of the last cycle before the step.
#[test]
fn a_restart_in_the_overlap_changes_nothing() {
    let mut network = network();
    network.run_cycle();
    let mut next = following(&network, 2);
    next.rules.inner.steps = 6;
    let task = network.publish(&next);
    network.run_cycle_with(|network, _| ALL.into_iter().for_each(|who| network.restart(who)));
    network.run_cycle_with(|network, offset| {
        if offset < 4 {
            ALL.into_iter().for_each(|who| network.restart(who));
        }
    });
    for who in ALL {
        assert_eq!(worked_on(&network, who), [network.task, task], "{who:?}");
    }
    let report = network.report(Cycle(2));
    assert_eq!(report.code(Who::Miner(0)), Some(ReasonCode::Accepted));
    assert_eq!((report.voters(), report.distinct_states()), (3, 1));
}

/// An update of the old task's last cycle, late by a cycle: its group is the same, so it counts.
#[test]
fn a_late_update_counts_across_the_step() {
    let mut network = network();
    network.run_cycle();
    network.publish(&following(&network, 2));
    network.slow_trainers = vec![Who::Miner(0)];
    network.run_cycle();
    network.run_cycle_with(|network, offset| {
        if offset == 2 {
            network.release(Who::Miner(0));
        }
    });
    assert_eq!(network.report(Cycle(1)).code(Who::Miner(0)), None);
    assert_eq!(
        network.report(Cycle(2)).code(Who::Miner(0)),
        Some(ReasonCode::Accepted)
    );
}
