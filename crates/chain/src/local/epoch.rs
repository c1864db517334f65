//! What happens when an epoch ends: permits, activity, incentive.
//!
//! An epoch ends in the first block that is `tempo` blocks after the one that opened it, before
//! that block's operations. Permits go to the neurons with the most stake, at most as many as there
//! are places. Incentive is the stake-weighted mean of the permitted validators' weights, in whole
//! numbers so that it is the same everywhere. This is *not* Yuma consensus: no clipping to the
//! majority, no bonds, no emission.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use connito_protocol::ids::{Block, Uid};

use super::state::State;

/// Fixed-point bits of a mean weight: stake (64) + weight (16) + these (16) + 4,096 rows (12) fit.
const FRACTION_BITS: u32 = 16;

/// Ends the epoch if this block is the one to do it.
pub(super) fn on_block(state: &mut State, block: Block) {
    if block.0 - state.epoch.last_epoch_block.0 < u64::from(state.epoch.tempo) {
        return;
    }
    state.epoch.last_epoch_block = block;
    state.epoch.index += 1;
    state.epoch.next_epoch_block = Some(Block(block.0 + u64::from(state.epoch.tempo)));

    let permitted = permits(state);
    let cutoff = state.spec.activity_cutoff;
    let updates: Vec<_> = state
        .neurons
        .get()
        .iter()
        .map(|neuron| {
            let active = block.0 - neuron.last_update.0 <= cutoff;
            (neuron.uid, permitted.contains(&neuron.uid), active)
        })
        .collect();
    for (uid, validator_permit, active) in updates {
        let neuron = state.neuron_mut(uid);
        (neuron.validator_permit, neuron.active) = (validator_permit, active);
    }
    // After the permits: only weights that count now are counted.
    for (neuron, incentive) in incentives(state) {
        state.neuron_mut(neuron).incentive = incentive;
    }
}

/// The top stakes, ties to the lower uid. No stake, no permit.
fn permits(state: &State) -> BTreeSet<Uid> {
    let neurons = state
        .neurons
        .get()
        .iter()
        .filter(|neuron| neuron.stake_rao > 0);
    let mut ranked: Vec<_> = neurons
        .map(|neuron| (Reverse(neuron.stake_rao), neuron.uid))
        .collect();
    ranked.sort_unstable();
    ranked.truncate(state.spec.max_validators.into());
    ranked.into_iter().map(|(_, uid)| uid).collect()
}

fn incentives(state: &State) -> Vec<(Uid, u16)> {
    let neurons = state.neurons.get();
    let mut totals = vec![0_u128; neurons.len()];
    for (validator, row) in state.weights.get() {
        let Some(neuron) = neurons.get(usize::from(validator.0)) else {
            continue;
        };
        let sum: u128 = row.iter().map(|(_, weight)| u128::from(*weight)).sum();
        if !neuron.validator_permit || sum == 0 {
            continue;
        }
        for (uid, weight) in row.iter() {
            let share = u128::from(neuron.stake_rao) * u128::from(*weight);
            if let Some(total) = totals.get_mut(usize::from(uid.0)) {
                *total += (share << FRACTION_BITS) / sum;
            }
        }
    }
    let all: u128 = totals.iter().sum();
    let shares = totals
        .iter()
        .map(|total| (total * u128::from(u16::MAX)).checked_div(all));
    neurons
        .iter()
        .zip(shares)
        .map(|(neuron, share)| (neuron.uid, share.unwrap_or(0) as u16))
        .collect()
}
