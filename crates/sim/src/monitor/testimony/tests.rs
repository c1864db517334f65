//! Whatever hostile members say, what the protocol makes of it is allowed; and what they cannot bring about
//! is not.

use connito_protocol::committee::Member;
use connito_protocol::consensus::{Testimony, combine};
use connito_protocol::ids::{GroupId, Hotkey};
use connito_protocol::reason::Charged;
use connito_protocol::report::Entry;
use proptest::prelude::*;

use super::*;

fn measurement(utility: f32) -> Measurement {
    Measurement {
        utility,
        standard_error: 0.01,
    }
}

fn entry() -> impl Strategy<Value = Entry> {
    let fault = proptest::sample::select(vec![
        ReasonCode::NotUploaded,
        ReasonCode::Malformed,
        ReasonCode::Duplicate,
        ReasonCode::Unscored,
    ]);
    prop_oneof![
        (-1.0_f32..1.0).prop_map(|utility| Entry::Measured(measurement(utility))),
        fault.prop_map(Entry::Refused),
    ]
}

fn word(entry: Entry) -> Option<Word> {
    match entry {
        Entry::Measured(measurement) => Some(Word::Measured(measurement)),
        Entry::Refused(ReasonCode::NotUploaded) => Some(Word::Lacks),
        Entry::Refused(ReasonCode::Unscored) => None,
        Entry::Refused(code) => Some(Word::Fault(code)),
    }
}

fn verdict(code: ReasonCode, measurement: Option<Measurement>, weight: f64) -> Verdict {
    Verdict {
        hotkey: Hotkey([0; 32]),
        group: GroupId(0),
        update: None,
        code,
        measurement,
        weight,
    }
}

/// Honest members of equal weight that all measured this.
fn agreeing(members: u128, hostile: u128, utility: f32) -> Testimonies {
    Testimonies {
        all: members + hostile,
        hostile,
        honest: (0..members)
            .map(|_| (Word::Measured(measurement(utility)), 1))
            .collect(),
    }
}

proptest! {
    /// Of members who are heard and members who are not, honest and hostile: no verdict that really comes of
    /// it is held against the protocol.
    #[test]
    fn every_verdict_that_members_can_give_is_allowed(
        honest in proptest::collection::vec((1..4_u64, entry()), 0..8),
        hostile in proptest::collection::vec((1..4_u64, entry()), 0..8),
        unheard in 0..4_u64,
    ) {
        let said = honest.iter().chain(&hostile).enumerate();
        let said: Vec<Testimony> = said
            .map(|(number, (weight, entry))| Testimony {
                member: Member { hotkey: Hotkey([number as u8; 32]), weight: *weight },
                entry: *entry,
            })
            .collect();
        let weight = |members: &[(u64, Entry)]| -> u128 {
            members.iter().map(|(weight, _)| u128::from(*weight)).sum()
        };
        let testimonies = Testimonies {
            all: weight(&honest) + weight(&hostile) + u128::from(unheard),
            hostile: weight(&hostile),
            honest: honest
                .iter()
                .filter_map(|(weight, entry)| Some((word(*entry)?, u128::from(*weight))))
                .collect(),
        };
        let outcome = combine(&said, testimonies.all, 1.0);
        let verdict = verdict(outcome.code, outcome.measurement, outcome.weight(1.0));
        if outcome.code.charged_to() != Charged::Network {
            prop_assert!(testimonies.allow(&verdict, 1.0, 0.0), "{verdict:?} of {testimonies:?}");
        }
    }

    /// A minority reaches neither beyond what honest members measured nor a fault that none of them found.
    #[test]
    fn a_minority_brings_nothing_about(hostile in 0..5_u128, away in 0.1_f32..5.0) {
        let testimonies = agreeing(5, hostile, 0.5);
        for utility in [0.5 + away, 0.5 - away] {
            let own = measurement(utility);
            let gain = own.significant_gain(1.0);
            let verdict = verdict(judge(own, 1.0), Some(own), gain.max(0.0));
            prop_assert!(!testimonies.allow(&verdict, 1.0, 1e-6));
        }
        prop_assert!(!testimonies.allow(&verdict(ReasonCode::Malformed, None, 0.0), 1.0, 1e-6));
    }
}

#[test]
fn half_of_the_seats_can_understate_and_not_overstate() {
    let testimonies = agreeing(8, 8, 0.5);
    let low = verdict(ReasonCode::Harmful, Some(measurement(-9.0)), 0.0);
    assert!(testimonies.allow(&low, 1.0, 1e-6));
    let high = measurement(9.0);
    let high = verdict(ReasonCode::Accepted, Some(high), high.significant_gain(1.0));
    assert!(!testimonies.allow(&high, 1.0, 1e-6));
}

/// Honest members that were not heard leave too little for a verdict.
#[test]
fn too_few_members_give_no_verdict() {
    let testimonies = Testimonies {
        all: 16,
        ..agreeing(5, 3, 0.5)
    };
    let own = measurement(0.5);
    let verdict = verdict(ReasonCode::Accepted, Some(own), own.significant_gain(1.0));
    assert!(!testimonies.allow(&verdict, 1.0, 1e-6));
}
