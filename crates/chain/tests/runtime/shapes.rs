//! Which of the things we use a runtime has, and what happens when it has them differently.

use connito_chain::runtime::{ItemKind, Runtime, RuntimeVersion, Value};
use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed, v15};
use parity_scale_codec::{Decode as _, Encode as _};
use scale_info::{TypeDef, TypeDefPrimitive};

use crate::{metadata, runtime};

/// What a version does not have yet. Nothing is there and different.
#[test]
fn every_version_fits_but_for_what_came_later() {
    let absent_before_439 = [
        "SubtensorModule.set_tempo",
        "SubtensorModule.trigger_epoch",
        "AdminUtils.sudo_set_activity_cutoff_factor",
        "SubtensorModule.LastEpochBlock",
        "SubtensorModule.PendingEpochAt",
        "SubtensorModule.SubnetEpochIndex",
        "SubtensorModule.ActivityCutoffFactorMilli",
    ];
    let absent_at_365 = [
        "SubtensorModule.register_limit",
        "SubtensorModule.TotalHotkeySharesV2",
        "SubtensorModule.AlphaV2",
    ];
    let expected = |spec| match spec {
        365 => [absent_at_365.as_slice(), &absent_before_439].concat(),
        419 => absent_before_439.to_vec(),
        _ => Vec::new(),
    };
    for spec in crate::SPECS {
        let runtime = runtime(spec);
        let mut found: Vec<_> = runtime
            .misfits()
            .iter()
            .inspect(|misfit| assert_eq!(misfit.found, None, "{misfit}"))
            .map(|misfit| format!("{}.{}", misfit.used.pallet, misfit.used.name))
            .collect();
        let mut expected = expected(spec);
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{spec}");
    }
}

fn changed(change: impl FnOnce(&mut v15::RuntimeMetadataV15)) -> Runtime {
    let decoded = RuntimeMetadataPrefixed::decode(&mut metadata(461)).unwrap();
    let RuntimeMetadataPrefixed(magic, RuntimeMetadata::V15(mut metadata)) = decoded else {
        panic!("version 15");
    };
    change(&mut metadata);
    let bytes = RuntimeMetadataPrefixed(magic, RuntimeMetadata::V15(metadata)).encode();
    let version = RuntimeVersion {
        spec: 500,
        transaction: 1,
    };
    Runtime::from_metadata(&bytes, version).unwrap()
}

/// The place of the first type of which this is true.
fn position(
    metadata: &v15::RuntimeMetadataV15,
    is: impl Fn(&TypeDef<scale_info::form::PortableForm>) -> bool,
) -> usize {
    let types = &metadata.types.types;
    types
        .iter()
        .position(|entry| is(&entry.ty.type_def))
        .unwrap()
}

fn calls<'a>(
    metadata: &'a mut v15::RuntimeMetadataV15,
    pallet: &str,
) -> &'a mut Vec<scale_info::Variant<scale_info::form::PortableForm>> {
    let found = metadata.pallets.iter().find(|p| p.name == pallet).unwrap();
    let place = found.calls.as_ref().unwrap().ty.id as usize;
    match &mut metadata.types.types[place].ty.type_def {
        TypeDef::Variant(calls) => &mut calls.variants,
        _ => panic!("calls are an enum"),
    }
}

/// What should happen: the changed call is refused with both layouts, everything else goes on.
#[test]
fn a_call_that_changed_is_refused_and_no_other() {
    let runtime = changed(|metadata| {
        let wide = position(metadata, |ty| {
            matches!(ty, TypeDef::Primitive(TypeDefPrimitive::U64))
        });
        let tempo = calls(metadata, "SubtensorModule").iter_mut();
        let tempo = tempo.filter(|call| call.name == "set_tempo");
        for field in tempo.flat_map(|call| &mut call.fields) {
            if field.name.as_deref() == Some("tempo") {
                field.ty = (wide as u32).into();
            }
        }
    });
    let arguments = [("netuid", Value::from(1_u16)), ("tempo", 360_u16.into())];
    let refusal = runtime.call("SubtensorModule", "set_tempo", &arguments);
    assert_eq!(
        refusal.unwrap_err().to_string(),
        "SubtensorModule.set_tempo of spec 500: it is {netuid: u16, tempo: u64}, \
         {netuid: u16, tempo: u16} is understood"
    );
    assert_eq!(runtime.misfits().len(), 1);
    assert_eq!(runtime.misfits()[0].used.kind, ItemKind::Call);
    let trigger = runtime.call("SubtensorModule", "trigger_epoch", &arguments[..1]);
    assert_eq!(trigger.unwrap(), [7, 141, 1, 0]);
}

/// The event of July 2026 that stopped clients which compare types: a number got a name.
#[test]
fn a_number_wrapped_in_a_newtype_is_the_same_number() {
    let runtime = changed(|metadata| {
        let number = position(metadata, |ty| {
            matches!(ty, TypeDef::Primitive(TypeDefPrimitive::U16))
        });
        let (inner, outer) = (metadata.types.types.len() as u32, number as u32);
        // The old number moves to the end, and its place becomes a newtype of it.
        let mut moved = metadata.types.types[number].clone();
        moved.id = inner;
        metadata.types.types.push(moved);
        let field = scale_info::Field::new(None, inner.into(), None, Vec::new());
        let newtype = scale_info::TypeDefComposite {
            fields: vec![field],
        };
        metadata.types.types[outer as usize].ty.type_def = newtype.into();
    });
    assert_eq!(runtime.misfits(), []);
    let call = runtime.call(
        "SubtensorModule",
        "trigger_epoch",
        &[("netuid", 3_u16.into())],
    );
    assert_eq!(call.unwrap(), [7, 141, 3, 0]);
}

#[test]
fn a_call_that_moved_is_found_under_its_new_number() {
    let runtime = changed(|metadata| {
        for pallet in &mut metadata.pallets {
            if pallet.name == "SubtensorModule" {
                pallet.index = 77;
            }
        }
        for call in calls(metadata, "SubtensorModule") {
            if call.name == "trigger_epoch" {
                call.index = 200;
            }
        }
    });
    let call = runtime.call(
        "SubtensorModule",
        "trigger_epoch",
        &[("netuid", 3_u16.into())],
    );
    assert_eq!(call.unwrap(), [77, 200, 3, 0]);
}

/// An extension that nobody here knows can only be left out if it adds nothing.
#[test]
fn an_unknown_extension_with_bytes_stops_signing_and_is_named() {
    let add = |named: &'static str, of: &'static str| {
        changed(move |metadata| {
            let extensions = &mut metadata.extrinsic.signed_extensions;
            let like = extensions
                .iter()
                .find(|extension| extension.identifier == of);
            let mut added = like.unwrap().clone();
            added.identifier = named.to_owned();
            extensions.push(added);
        })
    };
    let terms = connito_chain::runtime::SigningTerms {
        genesis: [1; 32],
        nonce: 0,
        tip: 0,
        era: connito_chain::runtime::Era::Immortal,
    };
    let harmless = add("CheckTheWeather", "CheckWeight");
    let payload = harmless.signing_payload(&[], &terms).unwrap();
    assert_eq!(
        payload.len(),
        runtime(461).signing_payload(&[], &terms).unwrap().len()
    );

    let other = add("CheckTheMoon", "CheckNonce").signing_payload(&[], &terms);
    assert_eq!(
        other.unwrap_err().to_string(),
        "extension CheckTheMoon of spec 500: its explicit part is compact u32, () is known"
    );
}
