//! The rules of registration, serving, commitments, weights and epochs, each with the name of the
//! failure that a real runtime gives.

use std::net::IpAddr;

use connito_chain::local::GenesisSpec;
use connito_chain::{CommitmentRecord, Endpoint, Field, Metagraph, Op, PoolError, WeightRow};
use connito_protocol::ids::{Block, Hotkey, Uid};

use crate::network::*;
use connito_chain::keys::Signer;

fn with(change: impl FnOnce(&mut GenesisSpec)) -> Network {
    let mut spec = spec();
    change(&mut spec);
    Network::new(spec)
}

fn metagraph(network: &Network) -> Metagraph {
    network.head("chain_metagraph")
}

fn hotkeys(network: &Network) -> Vec<Hotkey> {
    metagraph(network)
        .neurons
        .iter()
        .map(|neuron| neuron.hotkey)
        .collect()
}

fn serve(ip: &str, port: u16) -> Op {
    Op::Serve(Endpoint {
        ip: ip.parse::<IpAddr>().unwrap(),
        port,
    })
}

#[test]
fn a_registration_takes_the_next_free_slot_at_once() {
    let mut network = Network::new(spec());
    // The miner's coldkey here is somebody else: whoever signs pays and owns.
    assert_eq!(network.run(OWNER, &register(STRANGER)), "ok");
    let metagraph = metagraph(&network);
    let neuron = metagraph.neuron(pair(STRANGER).hotkey()).unwrap();
    assert_eq!((neuron.uid, neuron.registered_at), (Uid(4), Block(1)));
    assert_eq!(neuron.coldkey, pair(OWNER).hotkey());
    assert_eq!(
        neuron.last_update,
        Block(1),
        "its first weights wait for the rate limit"
    );
    assert_eq!(
        network.run(STRANGER, &register(STRANGER)),
        "HotKeyAlreadyRegisteredInSubNet"
    );
}

#[test]
fn a_registration_that_offers_too_little_is_refused() {
    let mut network = with(|spec| spec.registration_burn_rao = 10);
    let offer = |limit| Op::Register {
        hotkey: pair(7).hotkey(),
        max_burn_rao: Some(limit),
    };
    assert_eq!(
        network.run(STRANGER, &offer(9)),
        "RegistrationPriceLimitExceeded"
    );
    assert_eq!(network.run(STRANGER, &offer(10)), "ok");
}

/// What should happen: the neuron worth least goes, and its slot starts from nothing.
/// What should not happen: a validator, the owner or a newcomer goes, or anything is inherited.
#[test]
fn a_full_subnet_prunes_the_least_neuron_that_is_not_immune() {
    let mut network = with(|spec| {
        (spec.max_uids, spec.immunity_period) = (4, 5);
        spec.owner = pair(MINER).hotkey();
    });
    assert_eq!(
        network.run(STRANGER, &register(STRANGER)),
        "NoNeuronIdAvailable"
    );
    network.run(SECOND_MINER, &commit("will be gone"));
    network.run(VALIDATOR, &weigh(&[(2, 1), (3, 1)]));
    network.chain.advance(2).unwrap();

    assert_eq!(network.run(STRANGER, &register(STRANGER)), "ok");
    let [validator, second, owner, newcomer] =
        [VALIDATOR, SECOND_VALIDATOR, MINER, STRANGER].map(|seed| pair(seed).hotkey());
    assert_eq!(hotkeys(&network), [validator, second, owner, newcomer]);
    assert!(
        network
            .head::<Vec<CommitmentRecord>>("chain_commitments")
            .is_empty()
    );
    let rows: Vec<WeightRow> = network.head("chain_weights");
    assert_eq!(
        rows[0].weights,
        [(Uid(2), 65_535)],
        "weights for the old neuron do not count"
    );

    // The newcomer is immune, the owner for good: the next to go is the poorer validator.
    assert_eq!(network.run(SECOND_MINER, &register(SECOND_MINER)), "ok");
    assert!(!hotkeys(&network).contains(&second));
}

#[test]
fn an_endpoint_is_published_at_most_every_fifty_blocks() {
    let mut network = Network::new(spec());
    assert_eq!(network.run(MINER, &serve("127.0.0.1", 8_091)), "ok");
    let endpoint = metagraph(&network)
        .neuron(pair(MINER).hotkey())
        .unwrap()
        .endpoint;
    assert_eq!(endpoint.unwrap().to_string(), "127.0.0.1:8091");

    network.chain.advance(48).unwrap();
    let again = serve("10.0.0.1", 1);
    assert_eq!(
        network.send(MINER, &again),
        Err(PoolError::Custom(12)),
        "block 50 is too early"
    );
    network.chain.advance(1).unwrap();
    assert_eq!(network.run(MINER, &again), "ok");
}

/// Two publications in one block both pass the pool; the rules see the second one's true distance.
#[test]
fn a_second_publication_in_one_block_fails_by_name() {
    let mut network = Network::new(spec());
    network.send(MINER, &serve("10.0.0.1", 1)).unwrap();
    assert_eq!(
        network.run(MINER, &serve("10.0.0.2", 2)),
        "ServingRateLimitExceeded"
    );
}

#[test]
fn endpoints_that_cannot_be_are_refused_before_they_reach_a_block() {
    let mut network = with(|spec| spec.allow_loopback = false);
    let mut refused = |seed, ip, port| network.send(seed, &serve(ip, port)).unwrap_err();
    assert_eq!(refused(STRANGER, "10.0.0.1", 1), PoolError::Custom(10));
    assert_eq!(refused(MINER, "127.0.0.1", 1), PoolError::Custom(11));
    assert_eq!(refused(MINER, "::1", 1), PoolError::Custom(11));
    assert_eq!(refused(MINER, "255.255.255.255", 1), PoolError::Custom(11));
    assert_eq!(refused(MINER, "10.0.0.1", 0), PoolError::Custom(13));
    for (seed, ip) in [
        (MINER, "127.0.0.2"),
        (SECOND_MINER, "0.0.0.0"),
        (VALIDATOR, "fe80::1"),
    ] {
        assert_eq!(network.run(seed, &serve(ip, 1)), "ok", "{ip}");
    }
}

#[test]
fn a_commitment_replaces_the_whole_record_and_keeps_its_place() {
    let mut network = Network::new(spec());
    assert_eq!(
        network.run(STRANGER, &commit("x")),
        "AccountNotAllowedCommit"
    );

    let two = Op::Commit(vec![
        Field::Raw(b"head".to_vec()),
        Field::Blake2_256([5; 32]),
    ]);
    network.send(SECOND_MINER, &two).unwrap();
    assert_eq!(network.run(MINER, &commit("later in the same block")), "ok");
    let records: Vec<CommitmentRecord> = network.head("chain_commitments");
    let place = |seed| {
        let mine = records
            .iter()
            .find(|record| record.hotkey == pair(seed).hotkey())
            .unwrap();
        (mine.block, mine.index)
    };
    assert_eq!(place(SECOND_MINER), (Block(2), 0));
    assert_eq!(place(MINER), (Block(2), 1));

    network.run(SECOND_MINER, &commit("only this"));
    let records: Vec<CommitmentRecord> = network.head("chain_commitments");
    let mine = records
        .iter()
        .find(|record| record.hotkey == pair(SECOND_MINER).hotkey())
        .unwrap();
    assert_eq!(mine.fields, [Field::Raw(b"only this".to_vec())]);
    assert_eq!((mine.block, mine.index), (Block(3), 0));
}

/// 31 small writes or 3,100 bytes, whichever comes first, until the epoch ends.
#[test]
fn an_epoch_has_room_for_31_small_commitments_or_3100_bytes() {
    let mut network = with(|spec| spec.tempo = 50);
    for number in 0..31 {
        assert_eq!(network.run(MINER, &commit("x")), "ok", "write {number}");
    }
    assert_eq!(network.run(MINER, &commit("x")), "SpaceLimitExceeded");

    let large = |bytes| Op::Commit(vec![Field::BigRaw(vec![0; bytes])]);
    for bytes in [512, 512, 512, 512, 512, 200] {
        assert_eq!(network.run(SECOND_MINER, &large(bytes)), "ok");
    }
    assert_eq!(
        network.run(SECOND_MINER, &large(512)),
        "SpaceLimitExceeded",
        "2,760 + 512"
    );

    network
        .chain
        .advance(50 - network.chain.head().number.0 - 1)
        .unwrap();
    assert_eq!(
        network.run(MINER, &commit("x")),
        "ok",
        "block 50 opens the next epoch"
    );
}

#[test]
fn weights_are_checked_in_the_runtimes_order() {
    let mut network = with(|spec| {
        (spec.stake_threshold_rao, spec.weights_version_key) = (50, 7);
        (spec.min_allowed_weights, spec.max_validators) = (2, 2);
        spec.max_weight_limit = 45_000;
        spec.weights_rate_limit = 3;
    });
    let set = |weights: &[(u16, u16)], version_key| {
        let weights = weights
            .iter()
            .map(|(uid, weight)| (Uid(*uid), *weight))
            .collect();
        Op::SetWeights {
            weights,
            version_key,
        }
    };
    let five = [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)];
    let mut fails = |seed, weights: &[_], key| network.run(seed, &set(weights, key));
    assert_eq!(fails(STRANGER, &five, 0), "UidsLengthExceedUidsInSubNet");
    assert_eq!(fails(STRANGER, &[(9, 1)], 0), "HotKeyNotRegisteredInSubNet");
    assert_eq!(fails(MINER, &[(9, 1)], 0), "NotEnoughStakeToSetWeights");
    assert_eq!(fails(VALIDATOR, &[(9, 1)], 0), "IncorrectWeightVersionKey");
    assert_eq!(fails(VALIDATOR, &[(9, 1), (9, 1)], 7), "DuplicateUids");
    assert_eq!(fails(VALIDATOR, &[(9, 1)], 7), "UidVecContainInvalidOne");
    assert_eq!(fails(VALIDATOR, &[(2, 1)], 7), "WeightVecLengthIsLow");
    assert_eq!(fails(VALIDATOR, &[(2, 9), (3, 1)], 7), "MaxWeightExceeded");
    assert_eq!(fails(VALIDATOR, &[(2, 2), (3, 1)], 8), "ok");
    assert_eq!(fails(VALIDATOR, &[(9, 1)], 8), "SettingWeightsTooFast");
    assert_eq!(fails(VALIDATOR, &[(9, 1)], 8), "SettingWeightsTooFast");
    assert_eq!(
        fails(VALIDATOR, &[(2, 1), (3, 1)], 8),
        "ok",
        "three blocks later"
    );
}

#[test]
fn weights_without_a_permit_are_for_oneself_or_the_owner() {
    let mut network = with(|spec| spec.owner = pair(SECOND_MINER).hotkey());
    assert_eq!(
        network.run(MINER, &weigh(&[(3, 1)])),
        "NeuronNoValidatorPermit"
    );
    assert_eq!(network.run(MINER, &weigh(&[(2, 1)])), "ok", "its own uid");
    assert_eq!(
        network.run(SECOND_MINER, &weigh(&[(2, 1)])),
        "ok",
        "the owner"
    );
}

/// All-zero weights are stored, as a real chain stores them: refusing them is the client's part.
#[test]
fn weights_are_scaled_to_their_largest() {
    let mut network = Network::new(spec());
    network.run(VALIDATOR, &weigh(&[(2, 1), (3, 2)]));
    network.run(SECOND_VALIDATOR, &weigh(&[(2, 0)]));
    let rows: Vec<WeightRow> = network.head("chain_weights");
    assert_eq!(rows[0].validator, pair(VALIDATOR).hotkey());
    assert_eq!(rows[0].weights, [(Uid(2), 32_768), (Uid(3), 65_535)]);
    assert_eq!(rows[1].weights, [(Uid(2), 0)]);
}

#[test]
fn an_epoch_gives_the_permits_to_the_largest_stakes() {
    let network = with(|spec| {
        (spec.tempo, spec.max_validators) = (10, 2);
        spec.neurons[2].stake_rao = 150;
    });
    let permits = |network: &Network| -> Vec<bool> {
        metagraph(network)
            .neurons
            .iter()
            .map(|neuron| neuron.validator_permit)
            .collect()
    };
    network.chain.advance(9).unwrap();
    assert_eq!(permits(&network), [true, true, false, false]);
    assert_eq!(metagraph(&network).epoch.next_epoch_block, Some(Block(10)));

    network.chain.advance(1).unwrap();
    assert_eq!(permits(&network), [true, false, true, false]);
    let epoch = metagraph(&network).epoch;
    assert_eq!((epoch.last_epoch_block, epoch.index), (Block(10), 1));
    assert_eq!(epoch.next_epoch_block, Some(Block(20)));
}

/// The validators hold stakes 2 : 1. One gives everything to the first miner, the other splits 1 : 1,
/// so the miners earn (2 + ½) : ½ of three parts.
#[test]
fn incentive_is_the_stake_weighted_mean_of_the_weights() {
    let mut network = with(|spec| spec.tempo = 10);
    network.run(VALIDATOR, &weigh(&[(2, 7)]));
    network.run(SECOND_VALIDATOR, &weigh(&[(2, 1), (3, 1)]));
    network.chain.advance(8).unwrap();
    let incentive: Vec<u16> = metagraph(&network)
        .neurons
        .iter()
        .map(|neuron| neuron.incentive)
        .collect();
    assert_eq!(incentive, [0, 0, 54_612, 10_922]);
}

#[test]
fn a_neuron_that_has_not_updated_within_the_cutoff_becomes_inactive() {
    let mut network = with(|spec| (spec.tempo, spec.activity_cutoff) = (10, 5));
    network.chain.advance(5).unwrap();
    network.run(VALIDATOR, &weigh(&[(2, 1)]));
    network.chain.advance(4).unwrap();
    let active: Vec<bool> = metagraph(&network)
        .neurons
        .iter()
        .map(|n| n.active)
        .collect();
    assert_eq!(active, [true, false, false, false]);
}
