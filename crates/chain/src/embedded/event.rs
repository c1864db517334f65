//! What happened in a block, and why a call failed, in the bytes of spec 461.

use parity_scale_codec::{Encode, Output};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {}

impl Encode for Event {
    fn encode_to<T: Output + ?Sized>(&self, _out: &mut T) {
        match *self {}
    }
}

/// Why a call had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DispatchError {
    /// The signer may not make this call.
    BadOrigin,
    /// A pallet's own reason.
    Module {
        /// The pallet's index.
        pallet: u8,
        /// The reason's index within it.
        error: u8,
    },
}

impl Encode for DispatchError {
    fn encode_to<T: Output + ?Sized>(&self, out: &mut T) {
        match self {
            Self::BadOrigin => out.push_byte(2),
            Self::Module { pallet, error } => out.write(&[3, *pallet, *error, 0, 0, 0]),
        }
    }
}
