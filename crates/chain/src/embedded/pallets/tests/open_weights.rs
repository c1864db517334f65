//! Open weights and hashed ones: the runtime's checks, in its order.

use super::*;

#[test]
fn weights_are_checked_in_the_runtimes_order() {
    let mut chain = Chain::with(|spec| {
        (spec.weights_version_key, spec.min_allowed_weights) = (7, 2);
        (spec.max_validators, spec.max_weight_limit) = (2, 45_000);
        spec.weights_rate_limit = 3;
    });
    let five = [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)];
    let uneven = call::Subtensor::SetWeights {
        netuid: NETUID,
        weights: call::Weights {
            uids: vec![1, 2],
            values: vec![1],
        },
        version_key: 7,
    };
    let other_mechanism = call::Subtensor::SetMechanismWeights {
        netuid: NETUID,
        mecid: 1,
        weights: list(&[(1, 1)]),
        version_key: 7,
    };
    let root = call::Subtensor::SetWeights {
        netuid: 0,
        weights: list(&[]),
        version_key: 0,
    };
    let open = call::AdminUtils::CommitRevealWeightsEnabled {
        netuid: 0,
        value: false,
    };
    assert_eq!(chain.call(ROOT, open), "ok");
    assert_eq!(chain.call(VALIDATOR, root), "CanNotSetRootNetworkWeights");
    assert_eq!(chain.call(VALIDATOR, uneven), "WeightVecNotEqualSize");
    assert_eq!(
        chain.call(VALIDATOR, other_mechanism),
        "MechanismDoesNotExist"
    );
    let mut fails = |hotkey, weights: &[_], key| chain.call(hotkey, weigh(weights, key));
    assert_eq!(fails(STRANGER, &five, 0), "UidsLengthExceedUidsInSubNet");
    assert_eq!(fails(STRANGER, &[(9, 1)], 0), "HotKeyNotRegisteredInSubNet");
    assert_eq!(fails(VALIDATOR, &[(9, 1)], 0), "IncorrectWeightVersionKey");
    assert_eq!(fails(VALIDATOR, &[(9, 1)], 6), "IncorrectWeightVersionKey");
    assert_eq!(fails(MINER, &[(9, 1)], 7), "NeuronNoValidatorPermit");
    assert_eq!(fails(VALIDATOR, &[(9, 1), (9, 1)], 7), "DuplicateUids");
    assert_eq!(fails(VALIDATOR, &[(9, 1)], 7), "UidVecContainInvalidOne");
    assert_eq!(fails(VALIDATOR, &[(2, 1)], 7), "WeightVecLengthIsLow");
    assert_eq!(fails(VALIDATOR, &[(2, 9), (3, 1)], 7), "MaxWeightExceeded");
    assert_eq!(fails(VALIDATOR, &[(2, 2), (3, 1)], 8), "ok", "a newer key");
    assert_eq!(fails(VALIDATOR, &[(9, 1)], 8), "Custom 6");
    assert_eq!(fails(VALIDATOR, &[(9, 1)], 8), "Custom 6");
    assert_eq!(
        fails(VALIDATOR, &[(2, 1), (3, 1)], 8),
        "ok",
        "three blocks on"
    );
}

/// The pool knows of one call at a time; a block sees the second.
#[test]
fn a_second_setting_in_one_block_fails_by_name() {
    let mut chain = Chain::new(spec());
    assert_eq!(chain.call(VALIDATOR, weigh(&[(2, 1)], 0)), "ok");
    assert_eq!(chain.happened(), ["WeightsSet"]);
    assert_eq!(
        chain.include(VALIDATOR, weigh(&[(3, 1)], 0)),
        "SettingWeightsTooFast"
    );
}

#[test]
fn below_the_stake_threshold_the_pool_takes_nothing_about_weights() {
    let mut chain = Chain::with(|spec| spec.stake_threshold_rao = 150 * TAO);
    assert_eq!(chain.asks(SECOND_VALIDATOR, weigh(&[(2, 1)], 0)), Err(1));
    assert_eq!(chain.asks(VALIDATOR, weigh(&[(2, 1)], 0)), Ok(()));
    let commit = call::Subtensor::CommitWeights {
        netuid: NETUID,
        commit_hash: [0; 32],
    };
    assert_eq!(chain.asks(MINER, commit), Err(1));
    chain.next();
    assert_eq!(
        chain.include(SECOND_VALIDATOR, weigh(&[(2, 1)], 0)),
        "NotEnoughStakeToSetWeights"
    );
}

#[test]
fn weights_without_a_permit_are_for_oneself_or_the_owner() {
    let mut chain = Chain::with(|spec| {
        (spec.owner, spec.owner_coldkey) = (Hotkey(SECOND_MINER), None);
        spec.min_allowed_weights = 3;
    });
    assert_eq!(
        chain.call(MINER, weigh(&[(3, 1)], 0)),
        "NeuronNoValidatorPermit"
    );
    let own = chain.call(MINER, weigh(&[(2, 1)], 0));
    assert_eq!(own, "ok", "its own uid, however few");
    let owner = weigh(&[(0, 1), (1, 1), (2, 1)], 0);
    assert_eq!(chain.call(SECOND_MINER, owner), "ok");
}

/// All-zero weights are stored and wipe the vote: refusing them is the client's part.
#[test]
fn weights_are_scaled_to_their_largest() {
    let mut chain = Chain::new(spec());
    assert_eq!(chain.call(VALIDATOR, weigh(&[(2, 1), (3, 2)], 0)), "ok");
    assert_eq!(chain.weights(0), [(2, 32_768), (3, 65_535)]);
    assert_eq!(chain.call(SECOND_VALIDATOR, weigh(&[(2, 0)], 0)), "ok");
    assert_eq!(chain.weights(1), [(2, 0)]);
}

#[test]
fn with_commit_reveal_weights_are_not_set_openly() {
    let mut chain = Chain::with(|spec| spec.commit_reveal = true);
    assert_eq!(
        chain.call(VALIDATOR, weigh(&[(2, 1)], 0)),
        "CommitRevealEnabled"
    );
    let mut open = Chain::new(spec());
    let commit = call::Subtensor::CommitWeights {
        netuid: NETUID,
        commit_hash: [0; 32],
    };
    assert_eq!(open.call(VALIDATOR, commit), "CommitRevealDisabled");
}

fn opening(weights: &[(u16, u16)], salt: u16) -> call::Opening {
    call::Opening {
        weights: list(weights),
        salt: vec![salt],
        version_key: 0,
    }
}

fn commit(who: AccountId, opening: &call::Opening) -> call::Subtensor {
    let facts = (
        who,
        NETUID,
        &opening.weights.uids,
        &opening.weights.values,
        &opening.salt,
        opening.version_key,
    );
    call::Subtensor::CommitWeights {
        netuid: NETUID,
        commit_hash: crate::hash::blake2_256(&facts.encode()),
    }
}

fn reveal(opening: &call::Opening) -> call::Subtensor {
    call::Subtensor::RevealWeights {
        netuid: NETUID,
        opening: opening.clone(),
    }
}

fn hashed() -> Chain {
    Chain::with(|spec| {
        (spec.commit_reveal, spec.tempo, spec.weights_rate_limit) = (true, 20, 0);
    })
}

/// Committed in epoch 0 and opened in epoch 1: not earlier, not later, not with another salt.
#[test]
fn a_hash_is_opened_in_the_epoch_after() {
    let mut chain = hashed();
    let promised = opening(&[(2, 1), (3, 2)], 5);
    assert_eq!(chain.call(VALIDATOR, commit(VALIDATOR, &promised)), "ok");
    assert_eq!(chain.happened(), ["WeightsCommitted"]);
    assert_eq!(
        chain.asks(VALIDATOR, reveal(&promised)),
        Err(17),
        "too early"
    );
    let wrong_salt = opening(&[(2, 1), (3, 2)], 6);
    assert_eq!(chain.asks(VALIDATOR, reveal(&wrong_salt)), Err(16));
    assert_eq!(
        chain.include(VALIDATOR, reveal(&promised)),
        "RevealTooEarly"
    );
    assert_eq!(
        chain.include(VALIDATOR, reveal(&wrong_salt)),
        "InvalidRevealCommitHashNotMatch"
    );
    assert_eq!(
        chain.include(SECOND_VALIDATOR, reveal(&promised)),
        "NoWeightsCommitFound"
    );

    chain.advance_to(19);
    let committed = neurons::entry(&neurons::LAST_UPDATE, &chain.state, NETUID, 0);
    assert_eq!(chain.call(VALIDATOR, reveal(&promised)), "ok", "block 20");
    assert_eq!(chain.happened(), ["WeightsSet", "WeightsRevealed"]);
    assert_eq!(chain.weights(0), [(2, 32_768), (3, 65_535)]);
    let updated = neurons::entry(&neurons::LAST_UPDATE, &chain.state, NETUID, 0);
    assert_eq!(updated, committed, "moved when it was committed");

    let missed = opening(&[(2, 1)], 7);
    assert_eq!(chain.call(VALIDATOR, commit(VALIDATOR, &missed)), "ok");
    chain.advance_to(59);
    assert_eq!(chain.asks(VALIDATOR, reveal(&missed)), Err(17), "too late");
    chain.next();
    assert_eq!(
        chain.include(VALIDATOR, reveal(&missed)),
        "ExpiredWeightCommit"
    );
}

#[test]
fn ten_hashes_may_wait_and_expired_ones_do_not_count() {
    let mut chain = hashed();
    for salt in 0..10 {
        let opening = opening(&[(2, 1)], salt);
        assert_eq!(chain.call(VALIDATOR, commit(VALIDATOR, &opening)), "ok");
    }
    let one_more = commit(VALIDATOR, &opening(&[(2, 1)], 10));
    assert_eq!(
        chain.call(VALIDATOR, one_more.clone()),
        "TooManyUnrevealedCommits"
    );
    chain.advance_to(39);
    assert_eq!(chain.call(VALIDATOR, one_more), "ok", "in epoch 2");
}

/// What was meant for the neuron that left is nothing to the one that came (subtensor 1787).
#[test]
fn a_slot_taken_over_between_commitment_and_reveal_inherits_nothing() {
    let mut chain = hashed();
    chain.state.change(|state| {
        parameters::MAX_ALLOWED_UIDS.put(state, NETUID, 4);
        parameters::IMMUNITY_PERIOD.put(state, NETUID, 0);
    });
    let promised = opening(&[(2, 1), (3, 1)], 1);
    assert_eq!(chain.call(VALIDATOR, commit(VALIDATOR, &promised)), "ok");
    assert_eq!(chain.call(RICH, register(STRANGER)), "ok");
    assert_eq!(chain.uid(STRANGER), Some(2));
    // A later commitment does not make the earlier one younger.
    let later = opening(&[(3, 1)], 2);
    assert_eq!(chain.call(VALIDATOR, commit(VALIDATOR, &later)), "ok");
    chain.advance_to(19);
    assert_eq!(chain.call(VALIDATOR, reveal(&promised)), "ok");
    assert_eq!(chain.weights(0), [(3, 65_535)]);
}
