//! Agreement with the bundled metadata: every item and every name is a real runtime's.

use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use parity_scale_codec::Decode as _;

use super::*;
use crate::embedded::data::{Bounded, CommitmentInfo, Data};
use crate::embedded::event;
use crate::timelock::seal;

/// Pallet and item behind each prefix.
fn items() -> BTreeMap<Vec<u8>, (String, String)> {
    let RuntimeMetadataPrefixed(_, metadata) =
        RuntimeMetadataPrefixed::decode(&mut bundled()).unwrap();
    let RuntimeMetadata::V15(metadata) = metadata else {
        panic!("metadata of version 15")
    };
    let mut items = BTreeMap::new();
    for pallet in metadata.pallets {
        for entry in pallet
            .storage
            .into_iter()
            .flat_map(|storage| storage.entries)
        {
            let prefix = RUNTIME.storage_key(&pallet.name, &entry.name, &[]).unwrap();
            items.insert(prefix[..32].to_vec(), (pallet.name.clone(), entry.name));
        }
    }
    items
}

/// A chain on which everything has happened that leaves a trace.
fn busy() -> Chain {
    let mut chain = Chain::with(|spec| {
        (spec.commit_reveal, spec.tempo, spec.weights_rate_limit) = (true, 20, 0);
        spec.registration_burn_rao = TAO;
    });
    let key = records::beacon_key(&chain);
    let commit = |fields| {
        Call::Commitments(call::Commitments::SetCommitment {
            netuid: NETUID,
            info: CommitmentInfo { fields },
        })
    };
    let sealed = |text: &[u8], reveal_round| Data::TimelockEncrypted {
        encrypted: Bounded(seal(&key, reveal_round, text).unwrap()),
        reveal_round,
    };
    let opens = seal(&key, 81, b"no weights").unwrap();
    let seal = |reveal_round| call::Seal {
        commit: Bounded(opens.clone()),
        reveal_round,
        commit_reveal_version: 4,
    };
    let axon = endpoints::axon("10.0.0.1", 1);
    let calls: Vec<(AccountId, Call)> = vec![
        (
            OWNER_COLDKEY,
            call::AdminUtils::ImmunityPeriod {
                netuid: NETUID,
                value: 3,
            }
            .into(),
        ),
        (
            OWNER_COLDKEY,
            call::AdminUtils::WeightsVersionKey {
                netuid: NETUID,
                value: 3,
            }
            .into(),
        ),
        (RICH, register(STRANGER).into()),
        (
            RICH,
            call::Subtensor::RegisterNetwork { hotkey: [80; 32] }.into(),
        ),
        (RICH, call::Subtensor::StartCall { netuid: 1 }.into()),
        (
            RICH,
            call::Subtensor::AddStake {
                hotkey: MINER,
                netuid: NETUID,
                amount_staked: 9 * TAO,
            }
            .into(),
        ),
        (
            MINER,
            call::Subtensor::ServeAxonTls {
                netuid: NETUID,
                axon,
                certificate: vec![1; 33],
            }
            .into(),
        ),
        (
            MINER,
            commit(vec![sealed(b"soon", 29), Data::Sha256([1; 32])]),
        ),
        (
            SECOND_MINER,
            commit(vec![sealed(b"later", 999), Data::ResetBondsFlag]),
        ),
        (
            VALIDATOR,
            call::Subtensor::CommitWeights {
                netuid: NETUID,
                commit_hash: [3; 32],
            }
            .into(),
        ),
        (
            SECOND_VALIDATOR,
            call::Subtensor::CommitTimelockedWeights {
                netuid: NETUID,
                seal: seal(999),
            }
            .into(),
        ),
    ];
    for (signer, call) in calls {
        assert_eq!(chain.call(signer, call.clone()), "ok", "{call:?}");
    }
    chain.advance_to(22);
    let open = call::AdminUtils::CommitRevealWeightsEnabled {
        netuid: NETUID,
        value: false,
    };
    assert_eq!(chain.call(ROOT, open), "ok");
    assert_eq!(chain.call(VALIDATOR, weigh(&[(2, 1), (4, 2)], 3)), "ok");
    chain
}

/// What should happen: every key belongs to an item of the metadata and every value is exactly one of its
/// type. The one exception is what a real chain does not have.
#[test]
fn every_stored_value_is_one_of_a_real_runtimes() {
    let chain = busy();
    let items = items();
    let ours = serving::ALLOW_LOOPBACK.key(&());
    let mut seen = std::collections::BTreeSet::new();
    for (key, bytes) in chain.state.0.iter().filter(|(key, _)| **key != ours) {
        let known = items.get(&key[..32]);
        let (pallet, item) = known.unwrap_or_else(|| panic!("no item at {}", hex::encode(key)));
        let value = RUNTIME.storage_value(pallet, item, Some(bytes));
        assert!(value.is_ok(), "{pallet}.{item}: {value:?}");
        let keys = RUNTIME.storage_keys_of(pallet, item, key);
        assert!(keys.is_ok(), "{pallet}.{item}: {keys:?}");
        let again = RUNTIME.storage_key(pallet, item, &keys.unwrap()).unwrap();
        assert_eq!(&again, key, "{pallet}.{item}");
        seen.insert(format!("{pallet}.{item}"));
    }
    assert!(seen.len() > 75, "only {} items: {seen:?}", seen.len());
}

/// The variants are spelled as the runtime spells them.
#[test]
fn every_failure_has_the_runtimes_name() {
    use crate::embedded::failure::{AdminUtils, Commitments, Subtensor};
    let mut named = 0;
    let mut check = |name: String, error: DispatchError| {
        assert_eq!(failure_name(error), name);
        named += 1;
    };
    for failure in Subtensor::ALL {
        check(format!("{failure:?}"), (*failure).into());
    }
    for failure in Commitments::ALL {
        check(format!("{failure:?}"), (*failure).into());
    }
    for failure in AdminUtils::ALL {
        check(format!("{failure:?}"), (*failure).into());
    }
    check("BadOrigin".into(), DispatchError::BadOrigin);
    for token in [
        event::TokenError::FundsUnavailable,
        event::TokenError::BelowMinimum,
        event::TokenError::NotExpendable,
    ] {
        check(format!("{token:?}"), DispatchError::Token(token));
    }
    assert!(named > 60);
}

/// The name in front of an event's fields, as `Debug` shows it.
fn debug_name(event: &Event) -> String {
    let shown = format!("{event:?}");
    let inner = shown.split_once('(').unwrap().1;
    let name: String = inner
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect();
    name
}

#[test]
fn every_event_has_the_runtimes_name_and_fields() {
    let who = [9; 32];
    let mut events: Vec<Event> = Vec::new();
    let stake = event::Stake {
        coldkey: who,
        hotkey: who,
        tao: 1,
        alpha: 1,
        netuid: 1,
        fee: 0,
    };
    {
        use event::Subtensor as S;
        let subtensor = [
            S::NetworkAdded(1, 0),
            S::StakeAdded(stake),
            S::StakeRemoved(stake),
            S::WeightsSet(1, 2),
            S::NeuronRegistered(1, 2, who),
            S::MaxAllowedUidsSet(1, 2),
            S::MinAllowedWeightSet(1, 2),
            S::WeightsSetRateLimitSet(1, 2),
            S::ImmunityPeriodSet(1, 2),
            S::MaxAllowedValidatorsSet(1, 2),
            S::AxonServed(1, who),
            S::WeightsVersionKeySet(1, 2),
            S::ServingRateLimitSet(1, 2),
            S::MaxBurnSet(1, 2),
            S::MinBurnSet(1, 2),
            S::AdminFreezeWindowSet(1),
            S::OwnerHyperparamRateLimitSet(1),
            S::TempoSet(1, 2),
            S::StakeThresholdSet(1),
            S::WeightsCommitted(who, 1, who),
            S::WeightsRevealed(who, 1, who),
            S::FirstEmissionBlockNumberSet(1, 2),
            S::CommitRevealPeriodsSet(1, 2),
            S::CommitRevealEnabled(1, true),
            S::TimelockedWeightsCommitted(who, 1, who, 2),
            S::TimelockedWeightsRevealed(1, who),
            S::ActivityCutoffFactorMilliSet {
                netuid: 1,
                factor_milli: 2,
            },
            S::EpochTriggered {
                netuid: 1,
                by: who,
                fires_at: 2,
            },
            S::EpochDeferred {
                netuid: 1,
                from_block: 2,
                to_block: 3,
            },
        ];
        events.extend(subtensor.map(Event::Subtensor));
    }
    let (from, to, amount) = (who, who, 5);
    let balances = [
        event::Balances::Endowed {
            account: who,
            free_balance: 1,
        },
        event::Balances::DustLost {
            account: who,
            amount,
        },
        event::Balances::Transfer { from, to, amount },
        event::Balances::Deposit { who, amount },
        event::Balances::Withdraw { who, amount },
    ];
    events.extend(balances.map(Event::Balances));
    events.extend([
        Event::System(event::System::NewAccount { account: who }),
        Event::System(event::System::KilledAccount { account: who }),
        Event::Drand(event::Drand::NewPulse { rounds: vec![1, 2] }),
        Event::Drand(event::Drand::SetOldestStoredRound(3)),
    ]);
    let (netuid, reveal_round) = (1, 2);
    events.extend([
        Event::Commitments(event::Commitments::Commitment { netuid, who }),
        Event::Commitments(event::Commitments::TimelockCommitment {
            netuid,
            who,
            reveal_round,
        }),
        Event::Commitments(event::Commitments::CommitmentRevealed { netuid, who }),
        Event::Commitments(event::Commitments::CommitmentRevealFailed {
            netuid,
            who,
            reveal_round,
            error: event::RevealFailure::Decrypt,
        }),
    ]);
    let names: Vec<String> = events.iter().map(debug_name).collect();
    let mut chain = Chain::new(spec());
    chain.events = events;
    assert_eq!(chain.happened(), names);
}
