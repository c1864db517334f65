//! Error feedback in a whole network (P-38): what a miner owes follows the state, whatever happens.
//!
//! A toy expert has sixteen numbers, of which a sparse update sends one: there is always something owed.

use connito_learning::store::BlobStore;
use connito_protocol::event::{Effect, Event, Milestone};
use connito_protocol::ids::{BlobId, Cycle, GroupId};
use connito_protocol::job::{Job, Outcome, Trained};
use connito_protocol::reason::ReasonCode;
use connito_protocol::rules::Codec;

use crate::network::{Conduct, Network, Who};

const MINER: Who = Who::Miner(0);

fn sparse_network() -> Network {
    let miners = [
        Conduct::Honest(GroupId(0)),
        Conduct::Honest(GroupId(1)),
        Conduct::Damaging(GroupId(0)),
    ];
    Network::with_codec(&miners, Codec::Sparse)
}

/// The training runs of a participant: the residual that each was given, and what came of it. A job that
/// a restart began again counts once.
fn runs(network: &Network, who: Who) -> Vec<(Option<BlobId>, Trained)> {
    let (journal, _) = network.record_of(who);
    let mut given: Vec<(Cycle, Option<BlobId>)> = Vec::new();
    let mut runs: Vec<(Option<BlobId>, Trained)> = Vec::new();
    for step in journal {
        if let Event::Finished {
            outcome: Outcome::Trained(trained),
            ..
        } = &step.event
            && runs
                .last()
                .is_none_or(|(_, last)| last.cycle != trained.cycle)
        {
            let (_, given) = given
                .iter()
                .find(|(cycle, _)| *cycle == trained.cycle)
                .unwrap();
            runs.push((*given, trained.clone()));
        }
        for effect in &step.effects {
            if let Effect::Run(Job::Train(job)) = effect {
                let same = |(cycle, _): &(Cycle, _)| *cycle == job.cycle;
                let before = given.iter().find(|given| same(given));
                assert!(before.is_none_or(|(_, residual)| *residual == job.residual));
                given.push((job.cycle, job.residual));
            }
        }
    }
    runs
}

/// What should happen: each accepted update's residual goes into the next. What should not: that a
/// sparse update, a sixteenth of what was learnt, gets nowhere. (Of sixteen numbers the same one is soon
/// the largest again, which makes a duplicate of the fifth update.)
#[test]
fn what_an_accepted_update_left_unsent_goes_into_the_next() {
    let mut network = sparse_network();
    let before = network.loss();
    for cycle in 0..4 {
        network.run_cycle();
        let code = network.report(Cycle(cycle)).code(MINER);
        assert_eq!(code, Some(ReasonCode::Accepted), "cycle {cycle}");
    }
    let runs = runs(&network, MINER);
    assert_eq!(runs[0].0, None, "nothing is owed at first");
    for pair in runs.windows(2) {
        assert_eq!(pair[1].0, pair[0].1.residual);
        assert!(pair[1].0.is_some());
    }
    assert!(
        network.loss() < before - 0.1,
        "{before} to {}",
        network.loss()
    );
}

/// The second cycle's update reaches nobody. What should happen: the third builds on what the first left.
#[test]
fn an_update_that_never_arrived_neither_adds_to_what_is_owed_nor_takes_from_it() {
    let mut network = sparse_network();
    network.run_cycle();
    network.mute = vec![MINER];
    network.run_cycle();
    network.mute.clear();
    network.run_cycle();
    let runs = runs(&network, MINER);
    assert_eq!(runs[2].0, runs[0].1.residual);
    assert_ne!(runs[2].0, runs[1].1.residual);
}

#[test]
fn a_miner_that_is_never_accepted_owes_nothing() {
    let mut network = sparse_network();
    for _ in 0..3 {
        network.run_cycle();
    }
    for (given, trained) in runs(&network, Who::Miner(2)) {
        assert_eq!(given, None);
        assert!(trained.residual.is_some(), "it would, were it accepted");
    }
}

/// Stopped after every single block, and started from the journal alone, a miner sends the same updates
/// and owes the same.
#[test]
fn a_restart_at_any_block_owes_the_same() {
    let run = |disturb: &dyn Fn(&mut Network)| {
        let mut network = sparse_network();
        for _ in 0..3 {
            network.run_cycle_with(|network, _| disturb(network));
        }
        (runs(&network, MINER), network.shards())
    };
    assert_eq!(run(&|network| network.restart(MINER)), run(&|_| {}));
}

/// What should happen: it is said, and the miner goes on with what it learns. What should not: a cycle
/// without an update.
#[test]
fn a_residual_that_is_lost_is_dropped_and_said() {
    let mut network = sparse_network();
    network.run_cycle();
    let owed = runs(&network, MINER)[0].1.residual.unwrap();
    network.lose(MINER, owed);
    network.run_cycle();
    network.run_cycle();
    let runs = runs(&network, MINER);
    let cause = runs[1].1.residual_dropped.as_ref().unwrap();
    assert!(cause.contains(&owed.to_string()), "{cause}");
    let code = network.report(Cycle(1)).code(MINER);
    assert_eq!(code, Some(ReasonCode::Accepted));
    assert_eq!(runs[2].0, runs[1].1.residual, "and owes anew");
    let (journal, store) = network.record_of(MINER);
    assert!(store.read(runs[2].0.unwrap()).is_ok());
    let effects = journal.iter().flat_map(|step| &step.effects);
    let said = effects.filter(|effect| {
        matches!(effect, Effect::Tell(Milestone::ResidualDropped { cycle, .. }) if *cycle == Cycle(1))
    });
    assert_eq!(said.count(), 1);
}
