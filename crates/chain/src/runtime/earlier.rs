//! Metadata of version 15 told as version 14, which is what a node's `state_getMetadata` answers to this
//! day and all that older tools read.
//!
//! Types, pallets and their numbers stay. What version 14 has no place for (runtime APIs, the runtime's own
//! enums, documentation of pallets) is left out. One thing it says in another way: where version 15 names
//! the address, the call and the signature of an extrinsic, version 14 names the extrinsic's type, whose
//! parameters they are. Knows nothing of what any of it means.

use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use frame_metadata::{v14, v15};
use parity_scale_codec::{DecodeAll as _, Encode as _};
use scale_info::form::PortableForm;
use scale_info::interner::UntrackedSymbol;

use super::{RuntimeError, metadata};

/// What the type of an extrinsic is called.
const EXTRINSIC: &str = "UncheckedExtrinsic";
/// The parameter of that type that is the runtime's call.
const CALL: &str = "Call";

/// The same runtime's metadata of version 14, plain, from bytes in any wrapping that
/// [`Runtime::from_metadata`](super::Runtime::from_metadata) takes.
///
/// # Errors
/// The bytes are no metadata of version 15, or it does not have the type of its own extrinsic.
pub fn as_version_14(metadata: &[u8]) -> Result<Vec<u8>, RuntimeError> {
    let mut bytes = metadata::unwrapped(metadata);
    let RuntimeMetadataPrefixed(magic, metadata) =
        RuntimeMetadataPrefixed::decode_all(&mut bytes).map_err(RuntimeError::Undecodable)?;
    let metadata = match metadata {
        RuntimeMetadata::V15(metadata) => metadata,
        other => {
            return Err(RuntimeError::Version {
                version: other.version(),
            });
        }
    };
    let extrinsic = v14::ExtrinsicMetadata {
        ty: extrinsic_type(&metadata).ok_or(RuntimeError::NoExtrinsic)?,
        version: metadata.extrinsic.version,
        signed_extensions: extensions(metadata.extrinsic.signed_extensions),
    };
    let earlier = v14::RuntimeMetadataV14 {
        types: metadata.types,
        pallets: metadata.pallets.into_iter().map(pallet).collect(),
        extrinsic,
        ty: metadata.ty,
    };
    Ok(RuntimeMetadataPrefixed(magic, RuntimeMetadata::V14(earlier)).encode())
}

/// The first type of the extrinsic's name whose call is the runtime's. A runtime that takes Ethereum's
/// transactions too wraps one such type in another of the same parameters.
fn extrinsic_type(metadata: &v15::RuntimeMetadataV15) -> Option<UntrackedSymbol<std::any::TypeId>> {
    let is_extrinsic = |ty: &scale_info::Type<PortableForm>| {
        let mut parameters = ty.type_params.iter();
        ty.path
            .segments
            .last()
            .is_some_and(|name| name == EXTRINSIC)
            && parameters.any(|parameter| {
                parameter.name == CALL && parameter.ty == Some(metadata.extrinsic.call_ty)
            })
    };
    let mut types = metadata.types.types.iter();
    let found = types.find(|entry| is_extrinsic(&entry.ty));
    found.map(|entry| entry.id.into())
}

fn extensions(
    extensions: Vec<v15::SignedExtensionMetadata<PortableForm>>,
) -> Vec<v14::SignedExtensionMetadata<PortableForm>> {
    let extensions = extensions.into_iter();
    let earlier = extensions.map(|extension| v14::SignedExtensionMetadata {
        identifier: extension.identifier,
        ty: extension.ty,
        additional_signed: extension.additional_signed,
    });
    earlier.collect()
}

fn pallet(pallet: v15::PalletMetadata<PortableForm>) -> v14::PalletMetadata<PortableForm> {
    v14::PalletMetadata {
        name: pallet.name,
        storage: pallet.storage,
        calls: pallet.calls,
        event: pallet.event,
        constants: pallet.constants,
        error: pallet.error,
        index: pallet.index,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BUNDLED_VERSION, Era, Runtime, SigningTerms, bundled, used_items};
    use super::*;
    use crate::keys::Keypair;

    fn runtime(metadata: &[u8]) -> Runtime {
        Runtime::from_metadata(metadata, BUNDLED_VERSION).unwrap()
    }

    /// What should happen: whoever reads the one finds what whoever reads the other finds. What should not:
    /// runtime APIs, for which version 14 has no place.
    #[test]
    fn version_14_describes_the_runtime_that_version_15_does() {
        let (earlier, usual) = (as_version_14(bundled()).unwrap(), runtime(bundled()));
        assert_eq!(earlier[..5], *b"meta\x0e");
        let wrapped = Some(bundled()).encode();
        assert_eq!(as_version_14(&wrapped).unwrap(), earlier);
        let earlier = runtime(&earlier);
        assert!(used_items().count() > 50);
        assert_eq!(earlier.misfits(), []);
        let (one, other) = (earlier.metadata(), usual.metadata());
        assert_eq!(format!("{:?}", one.pallets), format!("{:?}", other.pallets));
        assert_eq!(
            format!("{:?}", one.extrinsic),
            format!("{:?}", other.extrinsic)
        );
        assert!(one.apis.is_empty() && !other.apis.is_empty());

        let terms = SigningTerms {
            genesis: [1; 32],
            nonce: 7,
            tip: 0,
            era: Era::Immortal,
        };
        let payload = |runtime: &Runtime| runtime.signing_payload(&[18, 0], &terms).unwrap();
        assert_eq!(payload(&earlier), payload(&usual));
        let signer = Keypair::from_seed(&[3; 32]);
        assert!(earlier.sign(&signer, &[18, 0], &terms).is_ok());
    }

    #[test]
    fn nothing_but_version_15_is_told_as_version_14() {
        let earlier = as_version_14(bundled()).unwrap();
        let error = as_version_14(&earlier).unwrap_err();
        assert!(matches!(error, RuntimeError::Version { version: 14 }));
        for bytes in [&bundled()[..1_000], &[bundled(), &[0]].concat(), b""] {
            let error = as_version_14(bytes).unwrap_err();
            assert!(matches!(error, RuntimeError::Undecodable(_)), "{error}");
        }
    }
}
