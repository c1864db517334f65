//! Bytes that mean no good: an endpoint may send anything, as metadata and as values.

use connito_chain::runtime::{ItemKind, Runtime, RuntimeError, RuntimeVersion, Value, used_items};
use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use parity_scale_codec::{Decode as _, Encode as _};
use proptest::prelude::*;
use scale_info::form::PortableForm;
use scale_info::{Field, TypeDef, TypeDefComposite};

use crate::{metadata, runtime};

const VERSION: RuntimeVersion = RuntimeVersion {
    spec: 461,
    transaction: 1,
};

/// The metadata of spec 461 with the value of `Timestamp.Now` replaced by a struct of these fields;
/// `None` stands for the struct itself.
fn with_time_of(fields: &[Option<TypeDef<PortableForm>>]) -> Vec<u8> {
    let decoded = RuntimeMetadataPrefixed::decode(&mut metadata(461)).unwrap();
    let RuntimeMetadataPrefixed(magic, RuntimeMetadata::V15(mut metadata)) = decoded else {
        panic!("version 15");
    };
    let types = &mut metadata.types.types;
    let own = types.len() as u32;
    let mut named = Vec::new();
    for (place, field) in fields.iter().enumerate() {
        let ty = match field {
            None => own,
            Some(_) => own + place as u32 + 1,
        };
        named.push(Field::new(
            Some(format!("f{place}")),
            ty.into(),
            None,
            Vec::new(),
        ));
    }
    let composite = TypeDefComposite { fields: named };
    let mut added = vec![composite.into()];
    added.extend(fields.iter().flatten().cloned());
    for (place, definition) in added.into_iter().enumerate() {
        let mut entry = types[0].clone();
        entry.id = own + place as u32;
        entry.ty.type_def = definition;
        types.push(entry);
    }
    for pallet in metadata
        .pallets
        .iter_mut()
        .filter(|pallet| pallet.name == "Aura")
    {
        for constant in &mut pallet.constants {
            constant.ty = own.into();
        }
    }
    RuntimeMetadataPrefixed(magic, RuntimeMetadata::V15(metadata)).encode()
}

/// What should not happen: the stack or the memory ends before the decoder does.
#[test]
fn a_type_that_contains_itself_is_not_followed_for_ever() {
    for fields in [vec![None], vec![None; 2], vec![None; 40]] {
        let runtime = Runtime::from_metadata(&with_time_of(&fields), VERSION).unwrap();
        let refusal = runtime.constant("Aura", "SlotDuration").unwrap_err();
        assert!(
            refusal
                .detail
                .starts_with("more nested than its bytes can hold"),
            "{refusal}"
        );
    }
}

#[test]
fn a_newtype_of_itself_is_no_metadata() {
    let decoded = RuntimeMetadataPrefixed::decode(&mut metadata(461)).unwrap();
    let RuntimeMetadataPrefixed(magic, RuntimeMetadata::V15(mut metadata)) = decoded else {
        panic!("version 15");
    };
    let itself = Field::new(None, 3.into(), None, Vec::new());
    let newtype = TypeDefComposite {
        fields: vec![itself],
    };
    metadata.types.types[3].ty.type_def = newtype.into();
    let bytes = RuntimeMetadataPrefixed(magic, RuntimeMetadata::V15(metadata)).encode();
    let refused = Runtime::from_metadata(&bytes, VERSION);
    assert!(matches!(refused, Err(RuntimeError::EndlessType { .. })));
}

/// A sequence of units costs no bytes: a count of a billion would be a billion values.
#[test]
fn announced_elements_that_take_no_bytes_are_bounded() {
    let runtime = runtime(461);
    let none_there = [0xfe, 0xff, 0xff, 0xff];
    for item in used_items().filter(|item| item.kind == ItemKind::Storage) {
        let value = runtime.storage_value(item.pallet, item.name, Some(&none_there));
        if let Ok(Some(value)) = value {
            assert_eq!(
                value,
                Value::Unsigned(u128::from(u32::MAX - 1)),
                "{}",
                item.name
            );
        }
    }
}

#[test]
fn metadata_of_other_versions_is_refused_by_its_version() {
    let mut old = metadata(461).to_vec();
    old[4] = 13;
    assert!(Runtime::from_metadata(&old, VERSION).is_err());
    old[4] = 17;
    assert!(Runtime::from_metadata(&old, VERSION).is_err());
    // Version 13 with a body that can be read: a counted byte string.
    let thirteen = [b"meta".as_slice(), &[13, 0]].concat();
    let refused = Runtime::from_metadata(&thirteen, VERSION).unwrap_err();
    assert!(matches!(refused, RuntimeError::Version { version: 13 }));
}

/// As `state_getMetadata`, `Metadata_metadata` and `Metadata_metadata_at_version` answer.
#[test]
fn metadata_is_found_in_every_wrapping() {
    let plain = metadata(439).to_vec();
    let counted = plain.encode();
    let optional = Some(plain.clone()).encode();
    for answer in [plain, counted, optional] {
        let runtime = Runtime::from_metadata(&answer, VERSION).unwrap();
        assert!(runtime.misfits().is_empty());
    }
    let none = Runtime::from_metadata(&[0], VERSION).unwrap_err();
    assert!(matches!(none, RuntimeError::Undecodable(_)));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let runtime = cached();
        let _ = runtime.events(&bytes);
        let _ = runtime.decode_call(&bytes);
        let _ = runtime.runtime_api_answer("NeuronInfoRuntimeApi", "get_neurons_lite", &bytes);
        for item in used_items().filter(|item| item.kind == ItemKind::Storage) {
            let _ = runtime.storage_value(item.pallet, item.name, Some(&bytes));
            let _ = runtime.storage_keys_of(item.pallet, item.name, &bytes);
        }
    }

    /// What reads as a value is that value's only spelling.
    #[test]
    fn what_decodes_encodes_back(
        ty in 0_u32..400,
        bytes in proptest::collection::vec(prop_oneof![0_u8..8, any::<u8>()], 0..80),
    ) {
        let runtime = cached();
        for length in 0..=bytes.len() {
            if let Ok(value) = runtime.decode_type(ty, &bytes[..length]) {
                prop_assert_eq!(&runtime.encode_type(ty, &value).unwrap(), &bytes[..length]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Changed bytes give metadata that is refused, or that is odd; both are survived.
    #[test]
    fn damaged_metadata_never_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        length in any::<prop::sample::Index>(),
        cut: bool,
    ) {
        let mut bytes = metadata(419).to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if cut {
            bytes.truncate(length.index(bytes.len()));
        }
        if let Ok(runtime) = Runtime::from_metadata(&bytes, VERSION) {
            let _ = runtime.events(&[4, 0, 1, 0, 0, 0, 0, 1, 3, 7, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
            let _ = runtime.decode_call(&[7, 0, 3, 0, 4, 1, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            for item in used_items().filter(|item| item.kind == ItemKind::Storage) {
                let _ = runtime.storage_value(item.pallet, item.name, None);
            }
        }
    }
}

fn cached() -> &'static Runtime {
    static RUNTIME: std::sync::OnceLock<Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| runtime(461))
}
