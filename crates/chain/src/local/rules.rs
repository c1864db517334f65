//! What the embedded chain accepts: the rules of a real subtensor runtime, in the order it checks them.
//!
//! Inputs are the state, the block being made, the position in it, the signer and the operation; the
//! result is a changed state or one named failure. The names are the runtime's own, because clients
//! recognise them by name. Nonces, signatures and mortality have been settled before
//! (`execute.rs`). Deliberate differences: prices are compared but not charged, and the slots and
//! weights of a pruned neuron are cleared at once instead of being masked at the next epoch.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use connito_protocol::ids::{Block, Hotkey, Uid};

use super::state::{State, UsedSpace};
use crate::chain::{CommitmentRecord, Neuron};
use crate::fields::{self, Field};
use crate::operation::{Endpoint, Op};
use crate::weights::upscale;

/// Why an operation in a block had no effect. The variants are spelled as the runtime spells them,
/// so that their `Debug` form is the name on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    AccountNotAllowedCommit,
    SpaceLimitExceeded,
    DuplicateUids,
    HotKeyAlreadyRegisteredInSubNet,
    HotKeyNotRegisteredInNetwork,
    HotKeyNotRegisteredInSubNet,
    IncorrectWeightVersionKey,
    InvalidIpAddress,
    InvalidPort,
    MaxWeightExceeded,
    NeuronNoValidatorPermit,
    NoNeuronIdAvailable,
    NotEnoughStakeToSetWeights,
    RegistrationPriceLimitExceeded,
    ServingRateLimitExceeded,
    SettingWeightsTooFast,
    UidVecContainInvalidOne,
    UidsLengthExceedUidsInSubNet,
    WeightVecLengthIsLow,
}

impl Failure {
    /// The pallet that owns the name.
    pub(super) fn pallet(self) -> &'static str {
        match self {
            Self::AccountNotAllowedCommit | Self::SpaceLimitExceeded => "Commitments",
            _ => "SubtensorModule",
        }
    }

    /// The number under which the pool refuses it before it reaches a block, for the failures that
    /// the runtime checks that early.
    pub(super) fn custom(self) -> Option<u8> {
        match self {
            Self::HotKeyNotRegisteredInNetwork => Some(10),
            Self::InvalidIpAddress => Some(11),
            Self::ServingRateLimitExceeded => Some(12),
            Self::InvalidPort => Some(13),
            _ => None,
        }
    }
}

/// Where in the chain an operation is carried out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) block: Block,
    pub(super) index: u32,
}

/// Carries out one operation. On failure the state is as before.
pub(super) fn apply(
    state: &mut State,
    place: Place,
    signer: Hotkey,
    op: &Op,
) -> Result<(), Failure> {
    match op {
        Op::Register {
            hotkey,
            max_burn_rao,
        } => {
            if max_burn_rao.is_some_and(|limit| state.spec.registration_burn_rao > limit) {
                return Err(Failure::RegistrationPriceLimitExceeded);
            }
            register(state, place.block, *hotkey, signer)
        }
        Op::Serve(endpoint) => {
            let uid = check_serve(state, place.block, signer, endpoint)?;
            let neuron = state.neuron_mut(uid);
            (neuron.endpoint, neuron.served_at) = (Some(*endpoint), place.block);
            Ok(())
        }
        Op::Commit(record) => commit(state, place, signer, record),
        Op::SetWeights {
            weights,
            version_key,
        } => {
            let uid = check_weights(state, place.block, signer, (weights, *version_key))?;
            let values: Vec<u16> = weights.iter().map(|(_, weight)| *weight).collect();
            let row = weights
                .iter()
                .map(|(uid, _)| *uid)
                .zip(upscale(&values))
                .collect();
            state.weights.edit().insert(uid, Arc::new(row));
            state.neuron_mut(uid).last_update = place.block;
            Ok(())
        }
    }
}

/// The next free slot, or the one of the neuron that is worth least.
fn register(
    state: &mut State,
    block: Block,
    hotkey: Hotkey,
    coldkey: Hotkey,
) -> Result<(), Failure> {
    if state.neuron(hotkey).is_some() {
        return Err(Failure::HotKeyAlreadyRegisteredInSubNet);
    }
    let taken = state.neurons.get().len();
    let neuron = |uid| Neuron {
        uid,
        hotkey,
        coldkey,
        registered_at: block,
        endpoint: None,
        served_at: Block(0),
        validator_permit: false,
        active: true,
        stake_rao: 0,
        // As on the real chain: a new validator waits the whole limit before its first weights.
        last_update: block,
        incentive: 0,
    };
    if taken < usize::from(state.spec.max_uids) {
        state
            .neurons
            .edit()
            .push(Arc::new(neuron(Uid(taken as u16))));
        return Ok(());
    }
    let uid = least(state, block).ok_or(Failure::NoNeuronIdAvailable)?;
    clear(state, uid);
    *state.neuron_mut(uid) = neuron(uid);
    Ok(())
}

/// The neuron to prune: least stake, then oldest, then lowest uid; never the owner's, never one that
/// is still immune.
fn least(state: &State, block: Block) -> Option<Uid> {
    let immune = u64::from(state.spec.immunity_period);
    let neurons = state.neurons.get().iter();
    neurons
        .filter(|neuron| neuron.hotkey != state.spec.owner)
        .filter(|neuron| block.0 - neuron.registered_at.0 >= immune)
        .min_by_key(|neuron| (neuron.stake_rao, neuron.registered_at, neuron.uid))
        .map(|neuron| neuron.uid)
}

/// Removes every trace of a slot's neuron, so that its successor inherits nothing.
fn clear(state: &mut State, uid: Uid) {
    let hotkey = state.neurons.get()[usize::from(uid.0)].hotkey;
    state.commitments.edit().remove(&hotkey);
    state.space.edit().remove(&hotkey);
    let rows = state.weights.edit();
    rows.remove(&uid);
    for row in rows
        .values_mut()
        .filter(|row| row.iter().any(|(target, _)| *target == uid))
    {
        Arc::make_mut(row).retain(|(target, _)| *target != uid);
    }
}

/// Checks a publication. Also asked by the pool, as the real runtime does.
pub(super) fn check_serve(
    state: &State,
    block: Block,
    signer: Hotkey,
    endpoint: &Endpoint,
) -> Result<Uid, Failure> {
    let neuron = state
        .neuron(signer)
        .ok_or(Failure::HotKeyNotRegisteredInNetwork)?;
    let loopback = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    let is_loopback = loopback.contains(&endpoint.ip);
    if endpoint.ip == IpAddr::V4(Ipv4Addr::BROADCAST) || is_loopback && !state.spec.allow_loopback {
        return Err(Failure::InvalidIpAddress);
    }
    if !has_passed(neuron.served_at, block, state.spec.serving_rate_limit) {
        return Err(Failure::ServingRateLimitExceeded);
    }
    if endpoint.port == 0 {
        return Err(Failure::InvalidPort);
    }
    Ok(neuron.uid)
}

fn commit(
    state: &mut State,
    place: Place,
    signer: Hotkey,
    record: &[Field],
) -> Result<(), Failure> {
    if state.neuron(signer).is_none() {
        return Err(Failure::AccountNotAllowedCommit);
    }
    let bytes = state.used_space(signer) + fields::charge(record);
    if bytes > fields::SPACE_PER_EPOCH {
        return Err(Failure::SpaceLimitExceeded);
    }
    let epoch = state.epoch.index;
    state
        .space
        .edit()
        .insert(signer, UsedSpace { epoch, bytes });
    let Place { block, index } = place;
    let record = CommitmentRecord {
        hotkey: signer,
        block,
        index,
        fields: record.to_vec(),
    };
    state.commitments.edit().insert(signer, Arc::new(record));
    Ok(())
}

/// The checks of plain weights, in the runtime's order.
fn check_weights(
    state: &State,
    block: Block,
    signer: Hotkey,
    (weights, version_key): (&[(Uid, u16)], u64),
) -> Result<Uid, Failure> {
    let slots = state.neurons.get().len();
    if weights.len() > slots {
        return Err(Failure::UidsLengthExceedUidsInSubNet);
    }
    let neuron = state
        .neuron(signer)
        .ok_or(Failure::HotKeyNotRegisteredInSubNet)?;
    if neuron.stake_rao < state.spec.stake_threshold_rao {
        return Err(Failure::NotEnoughStakeToSetWeights);
    }
    if version_key < state.spec.weights_version_key {
        return Err(Failure::IncorrectWeightVersionKey);
    }
    if !has_passed(neuron.last_update, block, state.spec.weights_rate_limit) {
        return Err(Failure::SettingWeightsTooFast);
    }
    let only_itself = matches!(weights, [(uid, _)] if *uid == neuron.uid);
    let may_weigh = neuron.validator_permit || only_itself || signer == state.spec.owner;
    if !may_weigh {
        return Err(Failure::NeuronNoValidatorPermit);
    }
    let distinct: BTreeSet<_> = weights.iter().map(|(uid, _)| uid).collect();
    if distinct.len() < weights.len() {
        return Err(Failure::DuplicateUids);
    }
    if weights.iter().any(|(uid, _)| usize::from(uid.0) >= slots) {
        return Err(Failure::UidVecContainInvalidOne);
    }
    let least = usize::from(state.spec.min_allowed_weights).min(slots);
    if weights.len() < least && !only_itself {
        return Err(Failure::WeightVecLengthIsLow);
    }
    let largest = weights
        .iter()
        .map(|(_, weight)| u64::from(*weight))
        .max()
        .unwrap_or(0);
    let sum: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let limit = u64::from(state.spec.max_weight_limit);
    if largest * u64::from(u16::MAX) > limit * sum && !only_itself {
        return Err(Failure::MaxWeightExceeded);
    }
    Ok(neuron.uid)
}

/// Whether a rate limit allows the next time. Block 0 stands for never.
fn has_passed(last: Block, now: Block, limit: u64) -> bool {
    last.0 == 0 || now.0.saturating_sub(last.0) >= limit
}
