//! The metadata that comes with this crate: a real runtime's, reduced to the pallets that the embedded
//! chain has. `metadata/NOTICE` says where it is from, `tools/metadata` makes it.

use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use parity_scale_codec::{Decode as _, Encode as _};

use super::RuntimeVersion;

/// The version of the runtime that [`bundled`] describes.
pub const BUNDLED_VERSION: RuntimeVersion = RuntimeVersion {
    spec: 461,
    transaction: 1,
};

/// Metadata of version 15: the bytes that start with `meta`.
#[must_use]
pub fn bundled() -> &'static [u8] {
    include_bytes!("../../metadata/subtensor-461.scale")
}

/// The bundled metadata with `Aura.SlotDuration`, from which tools tell how fast the chain is, set to
/// the embedded chain's own time between two blocks.
#[must_use]
pub fn bundled_with_slot(milliseconds: u64) -> Vec<u8> {
    let mut metadata = RuntimeMetadataPrefixed::decode(&mut bundled());
    if let Ok(RuntimeMetadataPrefixed(_, RuntimeMetadata::V15(metadata))) = &mut metadata {
        let pallets = metadata.pallets.iter_mut();
        let constants = pallets
            .filter(|pallet| pallet.name == "Aura")
            .flat_map(|pallet| &mut pallet.constants);
        for constant in constants.filter(|constant| constant.name == "SlotDuration") {
            constant.value = milliseconds.encode();
        }
    }
    metadata.map_or_else(|_| bundled().to_vec(), |metadata| metadata.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Runtime, Value};

    #[test]
    fn the_bundled_metadata_has_everything_that_is_used() {
        let runtime = Runtime::from_metadata(bundled(), BUNDLED_VERSION).unwrap();
        assert_eq!(runtime.misfits(), []);
    }

    /// What should happen: tools see the embedded chain's own speed, and nothing else changes.
    #[test]
    fn the_slot_duration_is_the_embedded_chains() {
        let bytes = bundled_with_slot(1_500);
        assert_eq!(bytes.len(), bundled().len());
        let runtime = Runtime::from_metadata(&bytes, BUNDLED_VERSION).unwrap();
        let slot = runtime.constant("Aura", "SlotDuration");
        assert_eq!(slot, Ok(Value::Unsigned(1_500)));
    }
}
