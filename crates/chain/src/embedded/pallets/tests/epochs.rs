//! When epochs end and what they leave behind; the beacon's clock.

use super::*;
use crate::timelock::verify_pulse;

fn permits(chain: &Chain) -> Vec<bool> {
    neurons::VALIDATOR_PERMIT.get_or(&chain.state, &(NETUID,), Vec::new())
}

fn schedule(chain: &Chain) -> [Value; 4] {
    [
        "LastEpochBlock",
        "SubnetEpochIndex",
        "BlocksSinceLastStep",
        "PendingEpochAt",
    ]
    .map(|item| chain.of_subnet(item))
}

#[test]
fn an_epoch_ends_every_tempo() {
    let mut chain = Chain::with(|spec| spec.tempo = 10);
    chain.advance(9);
    assert_eq!(schedule(&chain), [0_u8, 0, 9, 0].map(number));
    chain.advance(1);
    assert_eq!(schedule(&chain), [10_u8, 1, 0, 0].map(number));
    chain.advance(13);
    assert_eq!(schedule(&chain), [20_u8, 2, 3, 0].map(number));
}

#[test]
fn an_epoch_gives_the_permits_to_the_largest_stakes() {
    let mut chain = Chain::with(|spec| {
        (spec.tempo, spec.max_validators) = (10, 2);
        spec.neurons[2].stake_rao = 150 * TAO;
    });
    chain.advance(9);
    assert_eq!(permits(&chain), [true, true, false, false]);
    chain.advance(1);
    assert_eq!(permits(&chain), [true, false, true, false]);
}

/// On a small subnet a permit means nothing but some stake.
#[test]
fn everybody_with_enough_stake_gets_a_permit_where_there_is_room() {
    let mut chain = Chain::with(|spec| {
        (spec.tempo, spec.neurons[3].stake_rao) = (10, 1);
        spec.neurons[3].validator_permit = false;
    });
    chain.advance(10);
    assert_eq!(permits(&chain), [true, true, false, true]);
    let threshold = call::AdminUtils::StakeThreshold { value: 2 };
    assert_eq!(chain.call(ROOT, threshold), "ok");
    chain.advance(10);
    assert_eq!(permits(&chain), [true, true, false, false]);
}

/// The validators hold stakes 2 : 1. One gives everything to the first miner, the other splits 1 : 1,
/// so the miners earn (2 + ½) : ½ of three parts.
#[test]
fn incentive_is_the_stake_weighted_mean_of_the_weights() {
    let mut chain = Chain::with(|spec| spec.tempo = 10);
    assert_eq!(chain.call(VALIDATOR, weigh(&[(2, 7)], 0)), "ok");
    let split = weigh(&[(2, 1), (3, 1)], 0);
    assert_eq!(chain.call(SECOND_VALIDATOR, split), "ok");
    chain.advance(8);
    assert_eq!(chain.incentive(), [0, 0, 54_612, 10_922]);
    let dividends = neurons::DIVIDENDS.get(&chain.state, &(NETUID,)).unwrap();
    assert_eq!(dividends, [43_690, 21_845, 0, 0]);
    // Ten blocks of half a TAO for each side.
    let emission = neurons::EMISSION.get(&chain.state, &(NETUID,)).unwrap();
    assert_eq!(
        emission,
        [3_333_333_333, 1_666_666_666, 4_166_628_519, 833_295_185]
    );
}

#[test]
fn who_has_not_updated_within_the_cutoff_is_inactive_and_weighs_nothing() {
    let mut chain = Chain::with(|spec| (spec.tempo, spec.activity_cutoff) = (10, 15));
    assert_eq!(chain.call(VALIDATOR, weigh(&[(2, 1)], 0)), "ok");
    chain.advance_to(5);
    assert_eq!(chain.call(SECOND_VALIDATOR, weigh(&[(3, 1)], 0)), "ok");
    chain.advance_to(10);
    assert_eq!(chain.incentive(), [0, 0, 43_690, 21_845]);
    chain.advance_to(20);
    let active = neurons::ACTIVE.get(&chain.state, &(NETUID,)).unwrap();
    assert_eq!(
        active,
        [false, true, false, false],
        "updated in blocks 1 and 6"
    );
    assert_eq!(chain.incentive(), [0, 0, 0, 65_535]);
}

/// A neuron that has come since is not meant by older weights.
#[test]
fn weights_older_than_a_registration_do_not_count_for_it() {
    let mut chain = Chain::with(|spec| spec.tempo = 20);
    assert_eq!(chain.call(VALIDATOR, weigh(&[(2, 1), (3, 1)], 0)), "ok");
    chain.state.change(|state| {
        // As if a new neuron had come without the old weights being cleared.
        neurons::BLOCK_AT_REGISTRATION.put(state, &(NETUID, 3), &1);
    });
    chain.advance_to(20);
    assert_eq!(chain.incentive(), [0, 0, 65_535, 0]);
}

#[test]
fn epochs_beyond_the_blocks_share_end_in_the_next_block() {
    let mut chain = Chain::with(|spec| spec.tempo = 10);
    chain.state.change(|state| {
        for netuid in [8, 9] {
            registration::found(state, netuid, (OWNER_COLDKEY, OWNER), 0);
            parameters::TEMPO.put(state, netuid, 10);
        }
    });
    chain.advance(10);
    assert!(chain.happened().contains(&"EpochDeferred".into()));
    let index = |chain: &Chain, netuid| epoch::SUBNET_EPOCH_INDEX.get(&chain.state, &(netuid,));
    assert_eq!(
        [7, 8, 9].map(|netuid| index(&chain, netuid)),
        [1, 1, 0].map(Some)
    );
    chain.next();
    assert_eq!(index(&chain, 9), Some(1));
}

/// Rounds are three seconds apart from the chain's first moment on; a block stores the newest.
#[test]
fn every_block_stores_the_beacons_newest_round() {
    let mut chain = Chain::new(spec());
    let key = records::beacon_key(&chain);
    chain.advance(3);
    assert_eq!(chain.happened(), ["NewPulse"]);
    let newest = chain.read("Drand", "LastStoredRound", &[]);
    assert_eq!(newest, number(13_u8), "36 s");
    let pulse = chain.read("Drand", "Pulses", &[newest]);
    let signature = pulse.field("signature").unwrap().as_bytes().unwrap();
    assert!(verify_pulse(&key, 13, signature));
    assert!(!verify_pulse(&key, 12, signature));
    let skipped = chain.read("Drand", "Pulses", &[number(12_u8)]);
    assert_eq!(skipped, Value::List(Vec::new()));
}

#[test]
fn another_chain_has_another_beacon() {
    let key = |chain: Chain| records::beacon_key(&chain);
    let other = Chain::with(|spec| spec.genesis_time_ms = 1);
    assert_ne!(key(other), key(Chain::new(spec())));
    assert_eq!(key(Chain::new(spec())), key(Chain::new(spec())));
}

#[test]
fn old_pulses_are_removed_and_the_newest_12600_rounds_kept() {
    // One round per block.
    let mut chain = Chain::with(|spec| spec.block_time_ms = 3_000);
    let rounds = |chain: &Chain| {
        let prefix = RUNTIME.storage_key("Drand", "Pulses", &[]).unwrap();
        let keys = chain.state.0.keys();
        keys.filter(|key| key.starts_with(&prefix)).count()
    };
    // A leap instead of 25,000 blocks.
    chain.advance(5);
    chain.number = 25_190;
    chain.advance(9);
    assert_eq!(rounds(&chain), 14);
    chain.advance(10);
    let oldest = chain.read("Drand", "OldestStoredRound", &[]);
    assert!(oldest.number::<u64>().unwrap() > 12_600);
    assert_eq!(rounds(&chain), 19, "the first five are gone");
}
