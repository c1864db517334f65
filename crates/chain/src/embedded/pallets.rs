//! What the calls do: the rules of a subnet, as a real subtensor runtime checks them.

use super::call::Call;
use super::event::{DispatchError, Event};
use super::genesis::GenesisSpec;
use super::storage::{AccountId, Overlay, State};

/// The block that is being made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// Its height.
    pub(super) number: u64,
    /// Its time, in milliseconds since 1970.
    pub(super) time_ms: u64,
}

/// Writes the state of block 0.
pub(super) fn genesis(_spec: &GenesisSpec, _state: &mut Overlay<'_>) {}

/// What happens at the start of a block, before its extrinsics.
pub(super) fn on_initialize(_state: &mut Overlay<'_>, _block: &Block) -> Vec<Event> {
    Vec::new()
}

/// What the pool asks before it takes an extrinsic.
///
/// # Errors
/// The number of the runtime's `CustomTransactionError`.
pub(super) fn validate(
    _state: &impl State,
    _signer: AccountId,
    _call: &Call,
    _block: &Block,
) -> Result<(), u8> {
    Ok(())
}

/// Carries a call out. The caller takes its changes back if it fails ([`Overlay::transact`]).
///
/// # Errors
/// The rule that was broken.
pub(super) fn dispatch(
    _state: &mut Overlay<'_>,
    _signer: AccountId,
    call: Call,
    _block: &Block,
) -> Result<Vec<Event>, DispatchError> {
    match call {}
}
