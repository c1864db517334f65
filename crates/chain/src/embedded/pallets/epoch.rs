//! When an epoch ends, and what that does: permits, activity, incentive.
//!
//! ```text
//! due(block) = PendingEpochAt set and reached, or block − LastEpochBlock ≥ tempo,
//!              or BlocksSinceLastStep > MaxTempo
//! ```
//!
//! Permits go to the neurons with the most stake of at least the threshold, at most as many as there are
//! places. **This is not Yuma consensus**: there is no clipping to the majority and there are no bonds.
//! Incentive is the stake-weighted mean of the normalised weights of the active neurons with a permit,
//! as parts of 65,535, in whole numbers so that it is the same everywhere. A weight counts only if its
//! validator's last update is younger than the registration of the neuron it names, so that whoever
//! takes over a slot inherits nothing. Dividends are the stake shares of the validators whose weights
//! counted. Emission is what an epoch would pay, one TAO per block in equal parts for incentive and
//! dividends; it orders the neurons for pruning, and nobody is paid.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::super::event::{self, Event};
use super::super::storage::{Hasher, Item, Overlay, State};
use super::{Block, neurons, parameters, staking, weights};

const BY_NETUID: &[Hasher] = &[Hasher::Identity];

/// The block of the last epoch's end.
pub(super) const LAST_EPOCH_BLOCK: Item<(u16,), u64> =
    Item::new("SubtensorModule", "LastEpochBlock", BY_NETUID);
/// The block that ends the epoch early; 0 for none.
pub(super) const PENDING_EPOCH_AT: Item<(u16,), u64> =
    Item::new("SubtensorModule", "PendingEpochAt", BY_NETUID);
/// How many epochs have ended.
pub(super) const SUBNET_EPOCH_INDEX: Item<(u16,), u64> =
    Item::new("SubtensorModule", "SubnetEpochIndex", BY_NETUID);
/// Blocks since the last epoch's end.
pub(super) const BLOCKS_SINCE_LAST_STEP: Item<(u16,), u64> =
    Item::new("SubtensorModule", "BlocksSinceLastStep", BY_NETUID);
/// As `LastEpochBlock`, for the calculation. The runtime spells it so.
const LAST_STEP_BLOCK: Item<(u16,), u64> =
    Item::new("SubtensorModule", "LastMechansimStepBlock", BY_NETUID);
/// Epochs that may end in one block.
pub(super) const MAX_EPOCHS_PER_BLOCK: Item<(), u8> =
    Item::new("SubtensorModule", "MaxEpochsPerBlock", &[]);

/// The longest tempo an owner may set, and the age at which an epoch ends whatever else is stored.
pub(super) const MAX_TEMPO: u16 = 50_400;
/// Epochs that may end in one block, unless stored otherwise.
pub(super) const DEFAULT_EPOCHS_PER_BLOCK: u8 = 2;
/// What an epoch would pay for each block to either side: half a TAO.
const RAO_PER_BLOCK_AND_SIDE: u128 = 500_000_000;
/// Fixed-point bits of a mean weight: stake (64) + weight (16) + these (16) + 4,096 rows (12) fit.
const FRACTION_BITS: u32 = 16;

/// Writes the schedule of a new subnet.
pub(super) fn begin(state: &mut Overlay<'_>, netuid: u16, block: u64) {
    LAST_EPOCH_BLOCK.put(state, &(netuid,), &block);
    PENDING_EPOCH_AT.put(state, &(netuid,), &0);
    SUBNET_EPOCH_INDEX.put(state, &(netuid,), &0);
    BLOCKS_SINCE_LAST_STEP.put(state, &(netuid,), &0);
}

/// Whether an epoch ends in this block.
fn is_due(state: &impl State, netuid: u16, block: u64) -> bool {
    let tempo = u64::from(parameters::TEMPO.get(state, netuid));
    if tempo == 0 {
        return false;
    }
    let pending = PENDING_EPOCH_AT.get_or(state, &(netuid,), 0);
    let age = BLOCKS_SINCE_LAST_STEP.get_or(state, &(netuid,), 0);
    let last = LAST_EPOCH_BLOCK.get_or(state, &(netuid,), 0);
    (pending > 0 && block >= pending)
        || age > u64::from(MAX_TEMPO)
        || block.saturating_sub(last) >= tempo
}

/// The epoch that the operations of this block belong to. Before the block's epochs have ended this is
/// already the one that will have begun.
pub(super) fn index(state: &impl State, netuid: u16, block: u64) -> u64 {
    let ended = SUBNET_EPOCH_INDEX.get_or(state, &(netuid,), 0);
    ended.saturating_add(is_due(state, netuid, block).into())
}

/// Blocks until the epoch ends by itself.
pub(super) fn blocks_left(state: &impl State, netuid: u16, block: u64) -> u64 {
    let tempo = u64::from(parameters::TEMPO.get(state, netuid));
    if tempo == 0 {
        return u64::MAX;
    }
    let last = LAST_EPOCH_BLOCK.get_or(state, &(netuid,), 0);
    last.saturating_add(tempo).saturating_sub(block)
}

/// Ends the epochs that are due in this block; those beyond the limit end in the next.
pub(super) fn on_initialize(state: &mut Overlay<'_>, block: &Block) -> Vec<Event> {
    let number = block.number;
    let mut places = MAX_EPOCHS_PER_BLOCK.get_or(state, &(), DEFAULT_EPOCHS_PER_BLOCK);
    let mut events = Vec::new();
    for netuid in neurons::netuids(state) {
        let age = BLOCKS_SINCE_LAST_STEP.get_or(state, &(netuid,), 0);
        BLOCKS_SINCE_LAST_STEP.put(state, &(netuid,), &age.saturating_add(1));
        if !is_due(state, netuid, number) {
            continue;
        }
        if places == 0 {
            let to_block = number.saturating_add(1);
            PENDING_EPOCH_AT.put(state, &(netuid,), &to_block);
            events.push(Event::Subtensor(event::Subtensor::EpochDeferred {
                netuid,
                from_block: number,
                to_block,
            }));
            continue;
        }
        places -= 1;
        run(state, netuid, number);
        let ended = SUBNET_EPOCH_INDEX.get_or(state, &(netuid,), 0);
        begin(state, netuid, number);
        SUBNET_EPOCH_INDEX.put(state, &(netuid,), &ended.saturating_add(1));
        LAST_STEP_BLOCK.put(state, &(netuid,), &number);
    }
    events
}

/// One neuron as the calculation sees it.
#[derive(Debug)]
struct Neuron {
    stake: u64,
    registered_at: u64,
    last_update: u64,
    has_permit: bool,
    is_active: bool,
}

/// The calculation.
fn run(state: &mut Overlay<'_>, netuid: u16, block: u64) {
    let mut table = neurons_of(state, netuid, block);
    for uid in permits(state, netuid, &table) {
        if let Some(neuron) = table.get_mut(usize::from(uid)) {
            neuron.has_permit = true;
        }
    }
    let (incentive, dividends) = shares(state, netuid, &table);
    let per_side = RAO_PER_BLOCK_AND_SIDE * u128::from(parameters::TEMPO.get(state, netuid));
    let pay = |share: u16| (per_side * u128::from(share) / u128::from(u16::MAX)) as u64;
    let emission: Vec<u64> = incentive
        .iter()
        .zip(&dividends)
        .map(|(incentive, dividend)| pay(*incentive).saturating_add(pay(*dividend)))
        .collect();

    let permits: Vec<bool> = table.iter().map(|neuron| neuron.has_permit).collect();
    let active: Vec<bool> = table.iter().map(|neuron| neuron.is_active).collect();
    neurons::VALIDATOR_PERMIT.put(state, &(netuid,), &permits);
    neurons::ACTIVE.put(state, &(netuid,), &active);
    neurons::INCENTIVE.put(state, &(netuid,), &incentive);
    neurons::DIVIDENDS.put(state, &(netuid,), &dividends);
    neurons::EMISSION.put(state, &(netuid,), &emission);
}

fn neurons_of(state: &impl State, netuid: u16, block: u64) -> Vec<Neuron> {
    let cutoff = activity_cutoff(state, netuid);
    let updates = neurons::LAST_UPDATE.get_or(state, &(netuid,), Vec::new());
    let neuron = |uid: u16| {
        let hotkey = neurons::KEYS.get(state, &(netuid, uid)).unwrap_or_default();
        let last_update = updates.get(usize::from(uid)).copied().unwrap_or(0);
        Neuron {
            stake: staking::of_hotkey(state, hotkey, netuid),
            registered_at: neurons::BLOCK_AT_REGISTRATION.get_or(state, &(netuid, uid), 0),
            last_update,
            has_permit: false,
            is_active: block.saturating_sub(last_update) <= cutoff,
        }
    };
    (0..neurons::count(state, netuid)).map(neuron).collect()
}

/// Blocks without an update after which a neuron is inactive.
pub(super) fn activity_cutoff(state: &impl State, netuid: u16) -> u64 {
    let factor = u64::from(parameters::ACTIVITY_CUTOFF_FACTOR_MILLI.get(state, netuid));
    factor * u64::from(parameters::TEMPO.get(state, netuid)) / 1_000
}

/// The top stakes, ties to the lower uid. No stake, no permit.
fn permits(state: &impl State, netuid: u16, table: &[Neuron]) -> BTreeSet<u16> {
    let threshold = weights::STAKE_THRESHOLD.get_or(state, &(), 0).max(1);
    let mut ranked: Vec<_> = (0_u16..)
        .zip(table)
        .filter(|(_, neuron)| neuron.stake >= threshold)
        .map(|(uid, neuron)| (Reverse(neuron.stake), uid))
        .collect();
    ranked.sort_unstable();
    ranked.truncate(parameters::MAX_ALLOWED_VALIDATORS.get(state, netuid).into());
    ranked.into_iter().map(|(_, uid)| uid).collect()
}

/// Incentive and dividends.
fn shares(state: &impl State, netuid: u16, table: &[Neuron]) -> (Vec<u16>, Vec<u16>) {
    let mut received = vec![0_u128; table.len()];
    let mut gave = vec![0_u128; table.len()];
    for (uid, validator) in (0_u16..).zip(table) {
        if !validator.has_permit || !validator.is_active {
            continue;
        }
        let row = neurons::WEIGHTS.get_or(state, &(netuid, uid), Vec::new());
        let counts = |target: &u16| {
            let neuron = table.get(usize::from(*target));
            neuron.is_some_and(|neuron| validator.last_update > neuron.registered_at)
        };
        let row: Vec<_> = row.into_iter().filter(|(uid, _)| counts(uid)).collect();
        let sum: u128 = row.iter().map(|(_, weight)| u128::from(*weight)).sum();
        for (target, weight) in row {
            let share = u128::from(validator.stake) * u128::from(weight);
            if let (Some(total), Some(mean)) = (
                received.get_mut(usize::from(target)),
                (share << FRACTION_BITS).checked_div(sum),
            ) {
                *total += mean;
            }
        }
        if let Some(total) = gave.get_mut(usize::from(uid)) {
            *total = if sum > 0 { validator.stake.into() } else { 0 };
        }
    }
    (parts(&received), parts(&gave))
}

/// Each as a part of all, of 65,535.
fn parts(amounts: &[u128]) -> Vec<u16> {
    let all: u128 = amounts.iter().sum();
    let part = |amount: &u128| {
        (amount * u128::from(u16::MAX))
            .checked_div(all)
            .unwrap_or(0) as u16
    };
    amounts.iter().map(part).collect()
}
