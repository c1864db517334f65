//! What the calls do: the rules of a subnet, as a real subtensor runtime checks them.
//!
//! A block is [`on_initialize`], then its extrinsics in order, each asked for at the pool by [`validate`]
//! and carried out by [`dispatch`]. Everything is a function of the state, the block's number and its
//! time; signatures, nonces and mortality have been settled before, and there are no fees.
//!
//! ```text
//! on_initialize: the beacon speaks → seals open → sealed weights open → epochs end
//! ```
//!
//! The rules are those of the runtime's spec 425 to 461. Each file says where it differs on purpose.

mod balances;
mod beginning;
mod commitments;
mod drand;
mod epoch;
mod hyperparameters;
mod neurons;
mod parameters;
mod registration;
mod sealed_weights;
mod serving;
mod staking;
mod utility;
mod weights;

#[cfg(test)]
mod tests;

use super::call::{self, Call};
use super::event::{DispatchError, Event};
use super::failure;
use super::genesis::GenesisSpec;
use super::storage::{AccountId, Overlay, State};
use balances::Sender;
use weights::Order;

pub(super) use staking::{Position, of as stake_of};

/// The block that is being made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// Its height.
    pub(super) number: u64,
    /// Its time, in milliseconds since 1970.
    pub(super) time_ms: u64,
}

/// What a call has done, or why it has not.
type Outcome = Result<Vec<Event>, DispatchError>;

/// Writes the state of block 0.
pub(super) fn genesis(spec: &GenesisSpec, state: &mut Overlay<'_>) {
    beginning::write(spec, state);
}

/// What happens at the start of a block, before its extrinsics.
pub(super) fn on_initialize(state: &mut Overlay<'_>, block: &Block) -> Vec<Event> {
    let mut events = drand::on_initialize(state, block);
    events.extend(commitments::on_initialize(state, block));
    events.extend(sealed_weights::on_initialize(state, block));
    events.extend(epoch::on_initialize(state, block));
    events
}

/// What the pool asks before it takes an extrinsic into this block.
///
/// # Errors
/// The number of the runtime's `CustomTransactionError`.
pub(super) fn validate(
    state: &impl State,
    signer: AccountId,
    call: &Call,
    block: &Block,
) -> Result<(), u8> {
    let Call::Subtensor(call) = call else {
        return Ok(());
    };
    let checked = match call {
        call::Subtensor::ServeAxon { netuid, axon }
        | call::Subtensor::ServeAxonTls { netuid, axon, .. } => {
            serving::check(state, signer, (*netuid, axon), block)
        }
        call::Subtensor::RegisterNetwork { .. } => registration::check_network_rate(state, block),
        other => weights::check(state, signer, other, block),
    };
    checked.map_err(failure::Subtensor::custom)
}

/// Carries a call out. The caller takes its changes back if it fails ([`Overlay::transact`]).
///
/// # Errors
/// The rule that was broken.
pub(super) fn dispatch(
    state: &mut Overlay<'_>,
    signer: AccountId,
    call: Call,
    block: &Block,
) -> Outcome {
    match call {
        Call::Balances(call::Balances::TransferAllowDeath { dest, value }) => {
            balances::transfer(state, signer, dest, value.0, Sender::MayEnd)
        }
        Call::Balances(call::Balances::TransferKeepAlive { dest, value }) => {
            balances::transfer(state, signer, dest, value.0, Sender::Kept)
        }
        Call::Commitments(call::Commitments::SetCommitment { netuid, info }) => {
            commitments::set(state, signer, netuid, info, block)
        }
        Call::Utility(call) => utility::carry_out(state, signer, call, block),
        Call::AdminUtils(call) => hyperparameters::set(state, signer, call, block),
        Call::Subtensor(call) => dispatch_subtensor(state, signer, call, block),
    }
}

/// Calls of the pallet that keeps subnets.
fn dispatch_subtensor(
    state: &mut Overlay<'_>,
    signer: AccountId,
    call: call::Subtensor,
    block: &Block,
) -> Outcome {
    use call::Subtensor as Call;
    match call {
        Call::BurnedRegister { netuid, hotkey } => {
            registration::register(state, signer, (netuid, hotkey), None, block)
        }
        Call::RegisterLimit {
            netuid,
            hotkey,
            limit_price,
        } => registration::register(state, signer, (netuid, hotkey), Some(limit_price), block),
        Call::RegisterNetwork { hotkey } => {
            registration::register_network(state, signer, hotkey, block)
        }
        Call::StartCall { netuid } => registration::start_call(state, signer, netuid, block),
        Call::ServeAxon { netuid, axon } => {
            serving::serve(state, signer, (netuid, &axon), None, block)
        }
        Call::ServeAxonTls {
            netuid,
            axon,
            certificate,
        } => serving::serve(state, signer, (netuid, &axon), Some(&certificate), block),
        Call::SetTempo { netuid, tempo } => {
            hyperparameters::set_tempo(state, signer, (netuid, tempo), block)
        }
        Call::SetActivityCutoffFactor {
            netuid,
            factor_milli: value,
        } => {
            let call = call::AdminUtils::ActivityCutoffFactor { netuid, value };
            hyperparameters::set(state, signer, call, block)
        }
        Call::TriggerEpoch { netuid } => {
            hyperparameters::trigger_epoch(state, signer, netuid, block)
        }
        other => match staking::Change::of(signer, &other) {
            Some(change) => change.carry_out(state),
            None => dispatch_weights(state, signer, &other, block),
        },
    }
}

/// Calls about weights.
fn dispatch_weights(
    state: &mut Overlay<'_>,
    signer: AccountId,
    call: &call::Subtensor,
    block: &Block,
) -> Outcome {
    let Some((mechanism, order)) = Order::of(call) else {
        // Whatever is not about weights has been carried out by the caller.
        return Ok(Vec::new());
    };
    match order {
        Order::Set(weights, version_key) => {
            weights::set(state, signer, mechanism, (weights, version_key), block)
        }
        Order::Commit(hash) => weights::commit(state, signer, mechanism, hash, block),
        Order::Reveal(opening) => weights::reveal(state, signer, mechanism, opening, block),
        Order::Seal(seal) => sealed_weights::commit(state, signer, mechanism, seal, block),
    }
}
