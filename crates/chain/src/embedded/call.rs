//! The calls of the runtime that the embedded chain carries out, in the bytes of spec 461.

use parity_scale_codec::{Decode, Encode, Error};

/// A call with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Call {}

impl Call {
    /// Reads a call; every byte must belong to it.
    ///
    /// # Errors
    /// A pallet, call or argument the runtime does not have, or bytes left over.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let input = &mut &*bytes;
        let call = <Self as Decode>::decode(input)?;
        if input.is_empty() {
            Ok(call)
        } else {
            Err(Error::from("bytes are left over after the call"))
        }
    }
}
