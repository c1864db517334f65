//! Whom an update is uploaded to, how the others come by it, and until when it is measured (P-16, P-25).

use std::collections::BTreeSet;

use connito_protocol::event::{Delivery, Effect, Event};
use connito_protocol::ids::{Cycle, Hotkey};
use connito_protocol::job::Job;
use connito_protocol::reason::ReasonCode;
use connito_protocol::rules::Rules;

use crate::committees::honest;
use crate::network::{Network, STARTS, Setting, Who};

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

/// What should happen: measuring stops one block before the window's last, for a report that is sent
/// when that block is the newest is included in none of the window (P-2). What should not: a stop in
/// the block in which the job begins, after which nothing would be measured.
#[test]
fn measuring_stops_in_time_to_report_what_it_found() {
    for score in [2, 3, 6] {
        let mut setting = two_receivers();
        setting.rules.windows.score = score;
        let windows = setting.rules.windows;
        let mut network = Network::with(&honest(2), setting);
        network.run_cycle();
        let opens = STARTS + windows.cycle() - windows.vote - score;
        let last = opens + score - 1;
        let (journal, _) = network.record_of(Who::Validator(0));
        let jobs = journal.iter().flat_map(|step| &step.effects);
        let stops: Vec<u64> = jobs
            .filter_map(|effect| match effect {
                Effect::Run(Job::Score(job)) => Some(job.stop_at.0),
                _ => None,
            })
            .collect();
        assert_eq!(stops, [(last - 1).max(opens + 1)], "{score} blocks");
    }
}
