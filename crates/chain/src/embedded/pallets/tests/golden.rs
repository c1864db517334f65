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

/// What the owner, the rich and the miners do on a busy chain.
fn calls_about_the_subnet() -> Vec<(AccountId, Call)> {
    let immunity = call::AdminUtils::ImmunityPeriod {
        netuid: NETUID,
        value: 3,
    };
    let version = call::AdminUtils::WeightsVersionKey {
        netuid: NETUID,
        value: 3,
    };
    let found = call::Subtensor::RegisterNetwork { hotkey: [80; 32] };
    let start = call::Subtensor::StartCall { netuid: 1 };
    let stake = call::Subtensor::AddStake {
        hotkey: MINER,
        netuid: NETUID,
        amount_staked: 9 * TAO,
    };
    let serve = call::Subtensor::ServeAxonTls {
        netuid: NETUID,
        axon: endpoints::axon("10.0.0.1", 1),
        certificate: vec![1; 33],
    };
    vec![
        (OWNER_COLDKEY, immunity.into()),
        (OWNER_COLDKEY, version.into()),
        (RICH, register(STRANGER).into()),
        (RICH, found.into()),
        (RICH, start.into()),
        (RICH, stake.into()),
        (MINER, serve.into()),
    ]
}

/// What is committed on a busy chain.
fn calls_that_commit(key: &[u8; 96]) -> Vec<(AccountId, Call)> {
    let commit = |fields| {
        Call::Commitments(call::Commitments::SetCommitment {
            netuid: NETUID,
            info: CommitmentInfo { fields },
        })
    };
    let sealed = |text: &[u8], reveal_round| Data::TimelockEncrypted {
        encrypted: Bounded(seal(key, reveal_round, text).unwrap()),
        reveal_round,
    };
    let hashed = call::Subtensor::CommitWeights {
        netuid: NETUID,
        commit_hash: [3; 32],
    };
    let timelocked = call::Subtensor::CommitTimelockedWeights {
        netuid: NETUID,
        seal: call::Seal {
            commit: Bounded(vec![1; 300]),
            reveal_round: 999,
            commit_reveal_version: 4,
        },
    };
    let soon = vec![sealed(b"soon", 45), Data::Sha256([1; 32])];
    let later = vec![sealed(b"later", 999), Data::ResetBondsFlag];
    vec![
        (MINER, commit(soon)),
        (SECOND_MINER, commit(later)),
        (VALIDATOR, hashed.into()),
        (SECOND_VALIDATOR, timelocked.into()),
    ]
}

/// A chain on which everything has happened that leaves a trace.
fn busy() -> Chain {
    let mut chain = Chain::with(|spec| {
        (spec.commit_reveal, spec.tempo, spec.weights_rate_limit) = (true, 20, 0);
        spec.registration_burn_rao = TAO;
    });
    let key = records::beacon_key(&chain);
    let calls = calls_about_the_subnet().into_iter();
    for (signer, call) in calls.chain(calls_that_commit(&key)) {
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
    use crate::embedded::failure::{AdminUtils, Commitments, Subtensor, System, Utility};
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
    for failure in System::ALL {
        check(format!("{failure:?}"), (*failure).into());
    }
    for failure in Utility::ALL {
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

const WHO: AccountId = [9; 32];

fn events_of_the_subnet() -> Vec<Event> {
    use event::Subtensor as Happened;
    let stake = event::Stake {
        coldkey: WHO,
        hotkey: WHO,
        tao: 1,
        alpha: 1,
        netuid: 1,
        fee: 0,
    };
    let happened = [
        Happened::NetworkAdded(1, 0),
        Happened::StakeAdded(stake),
        Happened::StakeRemoved(stake),
        Happened::WeightsSet(1, 2),
        Happened::NeuronRegistered(1, 2, WHO),
        Happened::MaxAllowedUidsSet(1, 2),
        Happened::MinAllowedWeightSet(1, 2),
        Happened::WeightsSetRateLimitSet(1, 2),
        Happened::ImmunityPeriodSet(1, 2),
        Happened::MaxAllowedValidatorsSet(1, 2),
        Happened::AxonServed(1, WHO),
        Happened::WeightsVersionKeySet(1, 2),
        Happened::ServingRateLimitSet(1, 2),
        Happened::MaxBurnSet(1, 2),
        Happened::MinBurnSet(1, 2),
        Happened::AdminFreezeWindowSet(1),
        Happened::OwnerHyperparamRateLimitSet(1),
        Happened::TempoSet(1, 2),
        Happened::StakeThresholdSet(1),
        Happened::WeightsCommitted(WHO, 1, WHO),
        Happened::WeightsRevealed(WHO, 1, WHO),
        Happened::FirstEmissionBlockNumberSet(1, 2),
        Happened::CommitRevealPeriodsSet(1, 2),
        Happened::CommitRevealEnabled(1, true),
        Happened::TimelockedWeightsCommitted(WHO, 1, WHO, 2),
        Happened::TimelockedWeightsRevealed(1, WHO),
        Happened::ActivityCutoffFactorMilliSet {
            netuid: 1,
            factor_milli: 2,
        },
        Happened::EpochTriggered {
            netuid: 1,
            by: WHO,
            fires_at: 2,
        },
        Happened::EpochDeferred {
            netuid: 1,
            from_block: 2,
            to_block: 3,
        },
    ];
    happened.map(Event::Subtensor).into()
}

fn other_events() -> Vec<Event> {
    let (who, amount) = (WHO, 5);
    let balances = [
        event::Balances::Endowed {
            account: who,
            free_balance: 1,
        },
        event::Balances::DustLost {
            account: who,
            amount,
        },
        event::Balances::Transfer {
            from: who,
            to: who,
            amount,
        },
        event::Balances::Deposit { who, amount },
        event::Balances::Withdraw { who, amount },
    ];
    let (netuid, reveal_round) = (1, 2);
    let commitments = [
        event::Commitments::Commitment { netuid, who },
        event::Commitments::TimelockCommitment {
            netuid,
            who,
            reveal_round,
        },
        event::Commitments::CommitmentRevealed { netuid, who },
        event::Commitments::CommitmentRevealFailed {
            netuid,
            who,
            reveal_round,
            error: event::RevealFailure::Decrypt,
        },
    ];
    let others = [
        Event::System(event::System::NewAccount { account: who }),
        Event::System(event::System::KilledAccount { account: who }),
        Event::Drand(event::Drand::NewPulse { rounds: vec![1, 2] }),
        Event::Drand(event::Drand::SetOldestStoredRound(3)),
    ];
    let balances = balances.map(Event::Balances).into_iter();
    let commitments = commitments.map(Event::Commitments).into_iter();
    balances.chain(commitments).chain(others).collect()
}

#[test]
fn every_event_has_the_runtimes_name_and_fields() {
    let mut chain = Chain::new(spec());
    chain.events = events_of_the_subnet();
    chain.events.extend(other_events());
    let names: Vec<String> = chain.events.iter().map(debug_name).collect();
    assert_eq!(chain.happened(), names);
}
