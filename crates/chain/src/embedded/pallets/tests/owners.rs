//! Who may change what, to what, and when.

use super::*;
use call::AdminUtils as Set;

const N: u16 = NETUID;

/// Every parameter with a value that is within its bounds: the owner's own and the root's.
fn owners() -> Vec<Set> {
    vec![
        Set::ServingRateLimit {
            netuid: N,
            value: 9,
        },
        Set::WeightsVersionKey {
            netuid: N,
            value: 9,
        },
        Set::ImmunityPeriod {
            netuid: N,
            value: 9,
        },
        Set::MinAllowedWeights {
            netuid: N,
            value: 9,
        },
        Set::MaxAllowedUids {
            netuid: N,
            value: 9,
        },
        Set::MinBurn {
            netuid: N,
            value: 9,
        },
        Set::MaxBurn {
            netuid: N,
            value: TAO,
        },
        Set::CommitRevealWeightsEnabled {
            netuid: N,
            value: true,
        },
        Set::CommitRevealWeightsInterval {
            netuid: N,
            value: 9,
        },
        Set::ActivityCutoffFactor {
            netuid: N,
            value: 9_000,
        },
    ]
}

fn roots() -> Vec<Set> {
    vec![
        Set::WeightsSetRateLimit {
            netuid: N,
            value: 9,
        },
        Set::MaxAllowedValidators {
            netuid: N,
            value: 9,
        },
        Set::Tempo {
            netuid: N,
            value: 9,
        },
        Set::StakeThreshold { value: 9 },
        Set::AdminFreezeWindow { value: 9 },
        Set::OwnerHyperparamRateLimit { value: 9 },
    ]
}

#[test]
fn some_parameters_are_the_owners_and_some_only_the_roots() {
    for set in owners() {
        let mut chain = Chain::new(spec());
        assert_eq!(chain.call(STRANGER, set), "BadOrigin", "{set:?}");
        assert_eq!(chain.call(OWNER, set), "BadOrigin", "the owner's hotkey");
        assert_eq!(chain.call(OWNER_COLDKEY, set), "ok", "{set:?}");
        assert_eq!(chain.events.len(), 1);
        assert_eq!(chain.call(ROOT, set), "ok", "{set:?}");
    }
    for set in roots() {
        let mut chain = Chain::new(spec());
        assert_eq!(chain.call(OWNER_COLDKEY, set), "BadOrigin", "{set:?}");
        assert_eq!(chain.call(ROOT, set), "ok", "{set:?}");
        assert_eq!(chain.events.len(), 1);
    }
}

#[test]
fn a_parameter_is_stored_and_reported_under_its_own_name() {
    let expected = [
        ("ServingRateLimit", "ServingRateLimitSet"),
        ("WeightsVersionKey", "WeightsVersionKeySet"),
        ("ImmunityPeriod", "ImmunityPeriodSet"),
        ("MinAllowedWeights", "MinAllowedWeightSet"),
        ("MaxAllowedUids", "MaxAllowedUidsSet"),
        ("MinBurn", "MinBurnSet"),
        ("MaxBurn", "MaxBurnSet"),
        ("CommitRevealWeightsEnabled", "CommitRevealEnabled"),
        ("RevealPeriodEpochs", "CommitRevealPeriodsSet"),
        ("ActivityCutoffFactorMilli", "ActivityCutoffFactorMilliSet"),
        ("WeightsSetRateLimit", "WeightsSetRateLimitSet"),
        ("MaxAllowedValidators", "MaxAllowedValidatorsSet"),
        ("Tempo", "TempoSet"),
    ];
    let calls = owners().into_iter().chain(roots());
    for (set, (item, event)) in calls.zip(expected) {
        let mut chain = Chain::new(spec());
        let before = chain.of_subnet(item);
        assert_eq!(chain.call(ROOT, set), "ok");
        assert_eq!(chain.happened().last().unwrap(), event);
        let after = chain.of_subnet(item);
        assert_ne!(after, before, "{item}");
        let value = after.number::<u64>().unwrap_or(9);
        assert!([9, 9_000, TAO].contains(&value), "{item} {value}");
    }
    let mut chain = Chain::new(spec());
    for (set, item) in roots()[3..].iter().zip([
        "StakeThreshold",
        "AdminFreezeWindow",
        "OwnerHyperparamRateLimit",
    ]) {
        assert_eq!(chain.call(ROOT, *set), "ok");
        assert_eq!(chain.read("SubtensorModule", item, &[]), number(9_u8));
    }
}

#[test]
fn the_owner_changes_a_parameter_once_in_two_epochs() {
    let mut chain = Chain::with(|spec| spec.tempo = 30);
    let set = |value| Set::ImmunityPeriod { netuid: N, value };
    assert_eq!(chain.call(OWNER_COLDKEY, set(1)), "ok");
    assert_eq!(chain.call(OWNER_COLDKEY, set(2)), "TxRateLimitExceeded");
    let other = Set::MinAllowedWeights {
        netuid: N,
        value: 2,
    };
    assert_eq!(chain.call(OWNER_COLDKEY, other), "ok", "another parameter");
    assert_eq!(chain.call(ROOT, set(3)), "ok", "the root always");
    chain.advance_to(60);
    assert_eq!(chain.include(OWNER_COLDKEY, set(4)), "TxRateLimitExceeded");
    chain.next();
    assert_eq!(
        chain.include(OWNER_COLDKEY, set(4)),
        "ok",
        "60 blocks later"
    );
}

#[test]
fn the_owner_changes_nothing_in_the_last_ten_blocks_of_an_epoch() {
    let mut chain = Chain::with(|spec| spec.tempo = 30);
    let set = Set::ServingRateLimit {
        netuid: N,
        value: 1,
    };
    for (block, expected) in [
        (21, "AdminActionProhibitedDuringWeightsWindow"),
        (29, "AdminActionProhibitedDuringWeightsWindow"),
        (30, "ok"),
    ] {
        chain.advance_to(block);
        assert_eq!(chain.include(OWNER_COLDKEY, set), expected, "{block}");
    }
    chain.advance_to(55);
    assert_eq!(chain.include(ROOT, set), "ok", "the root always");
    let mut earlier = Chain::with(|spec| spec.tempo = 30);
    earlier.advance_to(20);
    assert_eq!(earlier.include(OWNER_COLDKEY, set), "ok", "ten are left");
}

#[test]
fn the_specification_lifts_both_limits() {
    let mut chain = Chain::with(|spec| {
        (spec.tempo, spec.admin_freeze_window) = (30, 0);
        spec.owner_rate_limit_epochs = 0;
    });
    chain.advance_to(28);
    for value in 0..3 {
        let set = Set::ImmunityPeriod { netuid: N, value };
        assert_eq!(chain.include(OWNER_COLDKEY, set), "ok");
    }
}

#[test]
fn values_out_of_bounds_are_refused_by_name() {
    let mut chain = Chain::new(spec());
    let mut refused = |set: Set| chain.call(ROOT, set);
    let uids = |value| Set::MaxAllowedUids { netuid: N, value };
    assert_eq!(refused(uids(3)), "MaxAllowedUIdsLessThanCurrentUIds");
    assert_eq!(
        refused(uids(4_097)),
        "MaxAllowedUidsGreaterThanDefaultMaxAllowedUids"
    );
    let validators = Set::MaxAllowedValidators {
        netuid: N,
        value: 257,
    };
    assert_eq!(refused(validators), "MaxValidatorsLargerThanMaxUIds");
    let min_burn = |value| Set::MinBurn { netuid: N, value };
    let max_burn = |value| Set::MaxBurn { netuid: N, value };
    assert_eq!(refused(min_burn(TAO)), "ValueNotInBounds");
    assert_eq!(refused(max_burn(TAO / 10)), "ValueNotInBounds");
    let interval = |value| Set::CommitRevealWeightsInterval { netuid: N, value };
    assert_eq!(refused(interval(0)), "RevealPeriodTooSmall");
    assert_eq!(refused(interval(101)), "RevealPeriodTooLarge");
    let factor = Set::ActivityCutoffFactor {
        netuid: N,
        value: 999,
    };
    assert_eq!(refused(factor), "ActivityCutoffFactorMilliOutOfBounds");
    let elsewhere = Set::Tempo {
        netuid: 99,
        value: 10,
    };
    assert_eq!(refused(elsewhere), "SubnetDoesNotExist");
}

#[test]
fn a_bound_of_the_price_moves_the_price() {
    let mut chain = Chain::with(|spec| spec.registration_burn_rao = TAO / 2);
    let min_burn = |value| Set::MinBurn { netuid: N, value };
    assert_eq!(chain.call(ROOT, min_burn(TAO / 4)), "ok");
    assert_eq!(chain.of_subnet("Burn"), number(TAO / 2));
    assert_eq!(chain.call(ROOT, min_burn(TAO * 3 / 4)), "ok");
    assert_eq!(chain.of_subnet("Burn"), number(TAO * 3 / 4));
}

#[test]
fn the_owner_sets_the_tempo_within_its_bounds_and_a_new_epoch_begins() {
    let mut chain = Chain::with(|spec| spec.tempo = 30);
    let set = |tempo| call::Subtensor::SetTempo { netuid: N, tempo };
    chain.advance(4);
    assert_eq!(chain.call(OWNER_COLDKEY, set(359)), "TempoOutOfBounds");
    assert_eq!(chain.call(OWNER_COLDKEY, set(50_401)), "TempoOutOfBounds");
    assert_eq!(chain.call(STRANGER, set(400)), "BadOrigin");
    assert_eq!(chain.call(OWNER_COLDKEY, set(400)), "ok");
    assert_eq!(chain.of_subnet("LastEpochBlock"), number(8_u8));
    assert_eq!(chain.call(OWNER_COLDKEY, set(500)), "TxRateLimitExceeded");
    chain.advance_to(407);
    assert_eq!(chain.of_subnet("SubnetEpochIndex"), number(0_u8));
    chain.next();
    assert_eq!(chain.of_subnet("SubnetEpochIndex"), number(1_u8));
}

#[test]
fn the_owner_ends_an_epoch_early_and_changes_nothing_until_it_has() {
    let mut chain = Chain::with(|spec| spec.tempo = 100);
    let trigger = || call::Subtensor::TriggerEpoch { netuid: N };
    let set = Set::ServingRateLimit {
        netuid: N,
        value: 1,
    };
    chain.advance(4);
    assert_eq!(chain.call(STRANGER, trigger()), "BadOrigin");
    assert_eq!(chain.call(OWNER_COLDKEY, trigger()), "ok");
    assert_eq!(chain.happened().last().unwrap(), "EpochTriggered");
    assert_eq!(
        chain.call(OWNER_COLDKEY, trigger()),
        "EpochTriggerAlreadyPending"
    );
    assert_eq!(
        chain.call(OWNER_COLDKEY, set),
        "AdminActionProhibitedDuringWeightsWindow"
    );
    chain.advance_to(15);
    assert_eq!(chain.of_subnet("SubnetEpochIndex"), number(0_u8));
    chain.next();
    assert_eq!(chain.of_subnet("SubnetEpochIndex"), number(1_u8));
    assert_eq!(chain.of_subnet("LastEpochBlock"), number(16_u8));
    assert_eq!(chain.include(OWNER_COLDKEY, set), "ok");

    assert_eq!(
        chain.include(OWNER_COLDKEY, trigger()),
        "TxRateLimitExceeded"
    );
    chain.advance_to(110);
    assert_eq!(
        chain.include(OWNER_COLDKEY, trigger()),
        "AutoEpochAlreadyImminent"
    );
    let mut sealed = Chain::with(|spec| spec.commit_reveal = true);
    assert_eq!(
        sealed.call(OWNER_COLDKEY, trigger()),
        "DynamicTempoBlockedByCommitReveal"
    );
}
