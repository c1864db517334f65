//! The chain's own beacon: whose signatures open what was sealed.
//!
//! On the real chain, signatures of drand's quicknet are carried in from outside. Here the chain signs the
//! rounds itself, with the same mathematics and a key of its own, by the time of the block:
//!
//! ```text
//! round(block) = (time(block) − genesis time) / 3 s + 1
//! ```
//!
//! A block stores the newest round, and of the earlier ones those that something sealed waits for. Old
//! pulses are removed. **The secret is none**: it follows from a hash of the genesis specification that
//! the chain publishes as the beacon's group hash, so anybody can open everything at once. It shows that
//! sealing works, on a chain whose owner sees everything anyway.

use std::collections::BTreeSet;

use parity_scale_codec::{Decode, Encode};

use super::super::data::Bounded;
use super::super::event::{self, Event};
use super::super::storage::{Hasher, Item, Overlay, State};
use super::{Block, commitments, sealed_weights};
use crate::hash::blake2_256;
use crate::timelock::{Beacon, LocalBeacon, PUBLIC_KEY_BYTES, PULSE_BYTES};

/// Seconds between two rounds, as quicknet's.
const PERIOD_SECONDS: u32 = 3;
/// Pulses older than this many rounds may be removed: two hours and a half more than the 2,400 blocks of
/// 12 s whose state is kept.
const KEPT_ROUNDS: u64 = 12_600;

/// What the chain says of its beacon.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct BeaconConfiguration {
    public_key: Bounded<PUBLIC_KEY_BYTES>,
    period: u32,
    genesis_time: u32,
    hash: Bounded<32>,
    /// Of the genesis specification: the seed of the secret.
    group_hash: Bounded<32>,
    scheme_id: Bounded<32>,
    metadata: Metadata,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Metadata {
    beacon_id: Bounded<32>,
}

/// What the beacon said in one round.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Pulse {
    round: u64,
    randomness: Bounded<32>,
    signature: Bounded<144>,
}

const BEACON_CONFIG: Item<(), BeaconConfiguration> = Item::new("Drand", "BeaconConfig", &[]);
const PULSES: Item<(u64,), Pulse> = Item::new("Drand", "Pulses", &[Hasher::Blake2_128Concat]);
const LAST_STORED_ROUND: Item<(), u64> = Item::new("Drand", "LastStoredRound", &[]);
const OLDEST_STORED_ROUND: Item<(), u64> = Item::new("Drand", "OldestStoredRound", &[]);

/// The newest round that is stored.
pub(super) fn last_stored_round(state: &impl State) -> u64 {
    LAST_STORED_ROUND.get_or(state, &(), 0)
}

/// Before this round nothing is stored any more.
pub(super) fn oldest_stored_round(state: &impl State) -> u64 {
    OLDEST_STORED_ROUND.get_or(state, &(), 0)
}

/// The signature of a round, if it is stored.
pub(super) fn signature(state: &impl State, round: u64) -> Option<Vec<u8>> {
    Some(PULSES.get(state, &(round,))?.signature.0)
}

/// Writes the beacon that follows from the hash of a specification.
pub(super) fn genesis(state: &mut Overlay<'_>, specification: [u8; 32], time_ms: u64) {
    let public_key = LocalBeacon::from_seed(&specification).public_key();
    let configuration = BeaconConfiguration {
        public_key: Bounded(public_key.to_vec()),
        period: PERIOD_SECONDS,
        // Until the year 2106.
        genesis_time: u32::try_from(time_ms / 1_000).unwrap_or(u32::MAX),
        hash: Bounded(blake2_256(&public_key).to_vec()),
        group_hash: Bounded(specification.to_vec()),
        scheme_id: Bounded(b"bls-unchained-g1-rfc9380".to_vec()),
        metadata: Metadata {
            beacon_id: Bounded(b"connito".to_vec()),
        },
    };
    BEACON_CONFIG.put(state, &(), &configuration);
    OLDEST_STORED_ROUND.put(state, &(), &1);
    LAST_STORED_ROUND.put(state, &(), &0);
}

/// Signs and stores the rounds of this block.
pub(super) fn on_initialize(state: &mut Overlay<'_>, block: &Block) -> Vec<Event> {
    let Some(configuration) = BEACON_CONFIG.get(state, &()) else {
        return Vec::new();
    };
    let schedule = Beacon {
        public_key: [0; PUBLIC_KEY_BYTES],
        genesis_ms: u64::from(configuration.genesis_time) * 1_000,
        period_ms: u64::from(configuration.period) * 1_000,
    };
    let newest = schedule.round_at(block.time_ms);
    let oldest = oldest_stored_round(state);
    let awaited = commitments::awaited_rounds(state)
        .into_iter()
        .chain(sealed_weights::awaited_rounds(state));
    let rounds: BTreeSet<u64> = awaited
        .chain([newest])
        .filter(|round| (oldest..=newest).contains(round) && signature(state, *round).is_none())
        .collect();
    let Ok(seed) = <[u8; 32]>::try_from(configuration.group_hash.0.as_slice()) else {
        return Vec::new();
    };
    if rounds.is_empty() {
        return Vec::new();
    }
    let beacon = LocalBeacon::from_seed(&seed);
    for round in &rounds {
        PULSES.put(state, &(*round,), &pulse(&beacon, *round));
    }
    LAST_STORED_ROUND.put(state, &(), &newest);
    let rounds = rounds.into_iter().collect();
    let mut events = vec![Event::Drand(event::Drand::NewPulse { rounds })];
    events.extend(prune(state, newest));
    events
}

fn pulse(beacon: &LocalBeacon, round: u64) -> Pulse {
    use sha2::Digest as _;
    let signature: [u8; PULSE_BYTES] = beacon.sign(round);
    Pulse {
        round,
        randomness: Bounded(sha2::Sha256::digest(signature).to_vec()),
        signature: Bounded(signature.to_vec()),
    }
}

/// Removes old pulses, many at a time so that it seldom has to be done.
fn prune(state: &mut Overlay<'_>, newest: u64) -> Option<Event> {
    let oldest = oldest_stored_round(state);
    if newest.saturating_sub(oldest) < 2 * KEPT_ROUNDS {
        return None;
    }
    let kept_from = newest - KEPT_ROUNDS;
    let stored: Vec<(u64, Pulse)> = PULSES.entries(state, &());
    for (round, _) in stored.iter().filter(|(round, _)| *round < kept_from) {
        PULSES.kill(state, &(*round,));
    }
    OLDEST_STORED_ROUND.put(state, &(), &kept_from);
    Some(Event::Drand(event::Drand::SetOldestStoredRound(kept_from)))
}
