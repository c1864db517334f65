//! What a miner is told of its submissions (P-42), and what validators put on the chain (P-41).

use connito_protocol::event::Milestone;
use connito_protocol::ids::{Cycle, GroupId, Uid};
use connito_protocol::reason::ReasonCode;

use crate::network::{Conduct, Network, Who};

/// Something of some cycles.
type ByCycle<T> = Vec<(Cycle, T)>;

/// The verdicts that a miner was told, cycle by cycle, and whether its update was merged.
fn told(network: &Network, who: Who) -> (ByCycle<ReasonCode>, ByCycle<bool>) {
    let receipts = network
        .told_by(who)
        .filter_map(|milestone| match milestone {
            Milestone::Receipt(receipt) => Some((receipt.cycle, receipt.code)),
            _ => None,
        });
    let included = network
        .told_by(who)
        .filter_map(|milestone| match milestone {
            Milestone::Included { cycle, merged, .. } => Some((*cycle, *merged)),
            _ => None,
        });
    (receipts.collect(), included.collect())
}

/// What should happen: each miner learns its verdict once a cycle, and whether the next state names its
/// update, although it reads no report and no other submission.
#[test]
fn miners_learn_their_verdicts_and_whether_they_were_merged() {
    let mut network = Network::new(&[Conduct::Honest(GroupId(0)), Conduct::Damaging(GroupId(1))]);
    (0..3).for_each(|_| network.run_cycle());
    let honest = told(&network, Who::Miner(0));
    let cycles = [Cycle(0), Cycle(1), Cycle(2)];
    assert_eq!(honest.0, cycles.map(|cycle| (cycle, ReasonCode::Accepted)));
    assert_eq!(honest.1, [(Cycle(0), true), (Cycle(1), true)]);
    let damaging = told(&network, Who::Miner(1));
    assert_eq!(damaging.0, cycles.map(|cycle| (cycle, ReasonCode::Harmful)));
    assert_eq!(damaging.1, [(Cycle(0), false), (Cycle(1), false)]);
}

/// The miner is killed after every block in which an answer may be on its way.
#[test]
fn a_receipt_is_told_once_even_across_restarts() {
    let mut network = Network::new(&[Conduct::Honest(GroupId(0))]);
    network.run_cycle_with(|network, offset| {
        if offset >= 38 {
            network.restart(Who::Miner(0));
        }
    });
    network.run_cycle();
    let (receipts, _) = told(&network, Who::Miner(0));
    let accepted = [Cycle(0), Cycle(1)].map(|cycle| (cycle, ReasonCode::Accepted));
    assert_eq!(receipts, accepted);
}

/// Two of three validators are down when it asks; the one that is left is asked sooner or later.
#[test]
fn a_receipt_is_asked_for_again_where_nobody_had_one() {
    let mut network = Network::new(&[Conduct::Honest(GroupId(0))]);
    let all = [0, 1, 2].map(Who::Validator);
    network.run_cycle_with(|network, offset| {
        if offset == 42 {
            all.into_iter().for_each(|who| network.stop(who));
        }
    });
    network.run_blocks(2);
    assert!(told(&network, Who::Miner(0)).0.is_empty());
    all.into_iter().for_each(|who| network.start(who));
    network.run_blocks(2);
    let (receipts, _) = told(&network, Who::Miner(0));
    assert_eq!(receipts.len(), 1);
}

/// Group 1 earns nothing: half of everything is withheld. What should not happen: that the weights on
/// the chain pay that half to the miner of group 0.
#[test]
fn what_is_withheld_is_weight_for_the_owner_and_for_nobody_else() {
    let mut network = Network::new(&[Conduct::Honest(GroupId(0)), Conduct::Damaging(GroupId(1))]);
    (0..3).for_each(|_| network.run_cycle());
    let weights = &network.weights[&Who::Validator(0)];
    let (owner, honest) = (Uid(0), Uid(4));
    let slots: Vec<Uid> = weights.iter().map(|(uid, _)| *uid).collect();
    assert_eq!(slots, [owner, honest]);
    assert!(
        (weights[0].1 - weights[1].1).abs() < 1e-12,
        "half and half: {weights:?}"
    );
}
