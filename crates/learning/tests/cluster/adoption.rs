//! How miners and validators come by a new state: from the updates, or whole (P-37).

use connito_protocol::event::Milestone;
use connito_protocol::ids::{Block, Cycle, GroupId};
use connito_protocol::reason::ReasonCode;
use connito_protocol::rules::{Codec, TrainingRouting};

use crate::network::{Conduct, Network, Who};

/// What adopting the base of a cycle took: bytes fetched, bytes of whole shards, and whether anything
/// was recomputed.
fn adopted(network: &Network, who: Who, cycle: u64) -> (u64, u64, bool) {
    let mut told = network
        .told_by(who)
        .filter_map(|milestone| match milestone {
            Milestone::BaseReady {
                cycle: of,
                bytes_fetched,
                bytes_whole,
                recomputed,
                ..
            } if of.0 == cycle => Some((*bytes_fetched, *bytes_whole, *recomputed)),
            _ => None,
        });
    told.next().unwrap()
}

/// One miner a group, so that a group's updates in two bytes a value are shorter than its shard.
fn lean() -> Network {
    Network::new(&[Conduct::Honest(GroupId(0)), Conduct::Honest(GroupId(1))])
}

/// What should happen: the first base is fetched whole, and every later one costs less than that. What
/// should not: that anybody ends up with other bytes, for then its updates would not be accepted.
#[test]
fn a_miner_that_holds_the_state_before_advances_by_its_updates() {
    let mut network = lean();
    for cycle in 0..3 {
        network.run_cycle();
        let report = network.report(Cycle(cycle));
        for miner in [Who::Miner(0), Who::Miner(1)] {
            assert_eq!(
                report.code(miner),
                Some(ReasonCode::Accepted),
                "cycle {cycle}"
            );
            let (fetched, whole, recomputed) = adopted(&network, miner, cycle);
            assert!(whole > 0, "cycle {cycle}: both groups changed");
            assert_eq!(recomputed, cycle > 0, "cycle {cycle}");
            // The manifest is part of what is fetched; beside a real shard it is nothing.
            let manifest = 2_000;
            match cycle {
                0 => assert!(fetched >= whole, "cycle {cycle}: {fetched} of {whole}"),
                _ => assert!(
                    fetched < whole + manifest,
                    "cycle {cycle}: {fetched} of {whole}"
                ),
            }
        }
    }
}

/// The validators merged it themselves.
#[test]
fn whoever_computed_the_state_fetches_nothing_of_it() {
    let mut network = lean();
    network.run_cycle();
    network.run_cycle();
    assert_eq!(adopted(&network, Who::Validator(0), 1), (0, 0, false));
}

/// No server gives a miner the updates any more, and its own was not merged. What should happen: it
/// fetches the shards, and is none the later for it.
#[test]
fn where_updates_are_not_to_be_had_the_shards_are_fetched() {
    let mut network = Network::new(&[
        Conduct::Honest(GroupId(0)),
        Conduct::Honest(GroupId(1)),
        Conduct::Damaging(GroupId(0)),
    ]);
    network.updates_hidden = true;
    network.run_cycle();
    network.run_cycle();
    let (fetched, whole, recomputed) = adopted(&network, Who::Miner(2), 1);
    assert!(!recomputed && fetched >= whole, "{fetched} of {whole}");
    assert_eq!(
        network.report(Cycle(1)).code(Who::Miner(2)),
        Some(ReasonCode::Harmful)
    );
}

/// Four miners of one group: their updates together are longer than its shard, and are not asked for.
#[test]
fn updates_that_are_longer_than_the_shard_are_not_fetched() {
    let mut network = Network::new(&[Conduct::Honest(GroupId(0)); 4]);
    network.run_cycle();
    network.run_cycle();
    let accepted = (0..4).map(Who::Miner);
    let report = network.report(Cycle(0));
    assert!(
        accepted
            .filter(|who| report.code(*who) == Some(ReasonCode::Accepted))
            .count()
            > 1
    );
    assert!(!adopted(&network, Who::Miner(0), 1).2);
}

/// A miner that was away for two cycles holds no part of the state before.
#[test]
fn a_miner_that_was_away_fetches_whole_shards_once_and_then_advances_again() {
    let mut network = lean();
    network.run_cycle();
    network.stop(Who::Miner(0));
    network.run_cycle();
    network.run_cycle();
    network.start(Who::Miner(0));
    network.run_cycle();
    assert!(!adopted(&network, Who::Miner(0), 3).2);
    network.run_cycle();
    assert!(adopted(&network, Who::Miner(0), 4).2);
}

/// A validator down for the whole Evaluate phase holds the state before, and the network's updates are
/// there for everyone.
#[test]
fn a_validator_that_missed_the_merge_recomputes_it() {
    let mut network = lean();
    network.run_cycle();
    network.run_cycle_with(|network, offset| {
        if offset == 38 {
            network.stop(Who::Validator(2));
        }
    });
    network.start(Who::Validator(2));
    network.run_cycle();
    assert!(adopted(&network, Who::Validator(2), 2).2);
    assert_eq!(network.report(Cycle(2)).voters(), 3);
}

/// With masked routing a miner holds its own group only, and recomputes that alone.
#[test]
fn a_miner_that_holds_one_group_recomputes_one_group() {
    let mut network = Network::under(
        |rules| rules.inner.routing = TrainingRouting::Masked,
        &[Conduct::Honest(GroupId(0)), Conduct::Honest(GroupId(1))],
    );
    network.run_cycle();
    network.run_cycle();
    let (_, whole, recomputed) = adopted(&network, Who::Miner(0), 1);
    let both = adopted(&network, Who::Miner(0), 0).1 * 2;
    assert_eq!((whole * 2, recomputed), (both, true));
}

/// Killed after every block, while updates and shards are on their way and jobs run.
#[test]
fn a_crash_at_any_block_does_not_disturb_advancing() {
    let mut network = lean();
    network.run_cycle();
    network.run_cycle_with(|network, _| network.restart(Who::Miner(0)));
    assert_eq!(
        network.report(Cycle(1)).code(Who::Miner(0)),
        Some(ReasonCode::Accepted)
    );
    assert!(adopted(&network, Who::Miner(0), 1).2);
    assert!(network.block() > Block(0));
}

/// What should happen: a miner drops what is past, updates and residuals among it, and has as many blobs
/// after eighteen cycles as after sixteen. What should not: that it lacks something that it needs, for then it
/// would not go on; or that a validator drops anything, for audits need it all.
#[test]
fn a_miner_keeps_no_more_than_it_needs_and_a_validator_everything() {
    let miners = [Conduct::Honest(GroupId(0)), Conduct::Honest(GroupId(1))];
    let mut network = Network::with_codec(&miners, Codec::Int8);
    let mut counts = Vec::new();
    for cycle in 0..18 {
        network.run_cycle();
        let report = network.report(Cycle(cycle));
        for miner in [Who::Miner(0), Who::Miner(1)] {
            assert_ne!(report.code(miner), None, "cycle {cycle}");
        }
        let count = |who| network.store(who).count();
        counts.push((count(Who::Miner(0)), count(Who::Validator(0))));
    }
    let [.., (sixteenth, then), _, (eighteenth, now)] = counts[..] else {
        unreachable!("eighteen cycles were run")
    };
    assert_eq!(sixteenth, eighteenth, "{counts:?}");
    assert!(then < now, "{counts:?}");
}
