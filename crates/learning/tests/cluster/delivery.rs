//! Whom an update is uploaded to, and how the others come by it (P-16).

use std::collections::BTreeSet;

use connito_protocol::event::{Delivery, Event};
use connito_protocol::ids::{Cycle, Hotkey};
use connito_protocol::reason::ReasonCode;
use connito_protocol::rules::Rules;

use crate::committees::honest;
use crate::network::{Network, Setting, Who};

/// Six validators, of which two get an update from its miner.
fn two_receivers() -> Setting {
    let mut rules = Rules::default();
    rules.scoring.receivers_per_update = 2;
    Setting {
        validators: 6,
        rules,
    }
}

/// The validators that have taken an update of this miner.
fn receivers(network: &Network, who: Who) -> BTreeSet<Hotkey> {
    let (journal, _) = network.record_of(who);
    let taken = journal.iter().filter_map(|step| match &step.event {
        Event::Delivered {
            to,
            answer: Delivery::Accepted,
            ..
        } => Some(*to),
        _ => None,
    });
    taken.collect()
}

/// What should happen: each update is uploaded twice and measured by all. What should not: that all
/// miners choose the same two.
#[test]
fn an_update_is_uploaded_to_a_few_and_fetched_by_the_others() {
    let miners = 12;
    let mut network = Network::with(&honest(12), two_receivers());
    network.run_cycle();
    let report = network.report(Cycle(0));
    assert_eq!(report.codes()[&ReasonCode::Accepted], miners);
    assert_eq!((report.voters(), report.distinct_states()), (6, 1));
    let chosen: Vec<_> = (0..miners)
        .map(|miner| receivers(&network, Who::Miner(miner)))
        .collect();
    assert!(chosen.iter().all(|receivers| receivers.len() == 2));
    assert!(chosen.iter().flatten().collect::<BTreeSet<_>>().len() > 3);
}

/// Receivers that cannot be reached are replaced by those that come after them on the ring.
#[test]
fn whoever_cannot_be_reached_is_replaced_by_the_next() {
    let mut network = Network::with(&honest(4), two_receivers());
    network.run_cycle_with(|network, offset| {
        if offset == 1 {
            network.stop(Who::Validator(0));
            network.stop(Who::Validator(1));
        }
    });
    let report = network.report(Cycle(0));
    assert_eq!(report.codes()[&ReasonCode::Accepted], 4);
    for miner in 0..4 {
        assert_eq!(receivers(&network, Who::Miner(miner)).len(), 2, "{miner}");
    }
}
