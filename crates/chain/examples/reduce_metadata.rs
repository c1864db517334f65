//! Reduces a runtime's metadata to what this crate needs of it, without changing a number.
//!
//! ```text
//! reduce_metadata chain|shapes INPUT OUTPUT [KEY]
//! ```
//!
//! `INPUT` is metadata of version 14, 15 or 16, or a JSON file that holds it in hexadecimal under
//! `metadata` and `KEY`. `chain` keeps the pallets and runtime APIs that the embedded chain serves,
//! whole; `shapes` keeps of the same pallets only the calls and storage items that the adapter uses.
//! Kept are all errors, and every type that something kept refers to. Dropped are documentation, most type
//! parameters, the other pallets and their variants in the runtime's own enums, and what nothing
//! refers to any more. Pallets, calls, events, errors and variants keep their indices, so whatever the
//! result describes has the bytes it had before.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::process::ExitCode;

use connito_chain::runtime::{ItemKind, used_items};
use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed, v14, v15, v16};
use parity_scale_codec::{Decode as _, Encode as _};
use scale_info::form::PortableForm;
use scale_info::interner::UntrackedSymbol;
use scale_info::{PortableRegistry, TypeDef};

/// The pallets that the embedded chain has, and what tools read about any chain.
const PALLETS: &[&str] = &[
    "System",
    "Timestamp",
    "Aura",
    "Balances",
    "TransactionPayment",
    "SubtensorModule",
    "Utility",
    "Sudo",
    "Commitments",
    "AdminUtils",
    "Drand",
];

/// The runtime APIs that the embedded chain answers.
const APIS: &[&str] = &[
    "Core",
    "Metadata",
    "AccountNonceApi",
    "TransactionPaymentApi",
    "NeuronInfoRuntimeApi",
    "SubnetInfoRuntimeApi",
    "DelegateInfoRuntimeApi",
    "StakeInfoRuntimeApi",
];

/// Enums with a variant for every pallet, by the last part of their paths.
const OUTER_ENUMS: &[&str] = &[
    "RuntimeCall",
    "RuntimeEvent",
    "RuntimeError",
    "OriginCaller",
    "RuntimeHoldReason",
    "RuntimeFreezeReason",
    "RuntimeLockId",
    "RuntimeTask",
];

/// Types whose parameters are kept, by the last part of their paths: of the extrinsic, version 14 says nothing
/// else, and tools find the kind of account among those of an address.
const PARAMETERISED: &[&str] = &["UncheckedExtrinsic", "MultiAddress"];

type TypeRef = UntrackedSymbol<std::any::TypeId>;

/// How much is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Profile {
    Chain,
    Shapes,
}

impl Profile {
    fn keeps(self, kind: ItemKind, pallet: &str, name: &str) -> bool {
        let is_events = (pallet, name) == ("System", "Events");
        self == Self::Chain
            || is_events
            || used_items().any(|item| (item.kind, item.pallet, item.name) == (kind, pallet, name))
    }

    fn keeps_constant(self, pallet: &str, name: &str) -> bool {
        self == Self::Chain || (pallet, name) == ("System", "SS58Prefix")
    }

    fn keeps_api(self, api: &str, method: &str) -> bool {
        let read = [
            ("AccountNonceApi", "account_nonce"),
            ("NeuronInfoRuntimeApi", "get_neurons_lite"),
            ("SubnetInfoRuntimeApi", "get_next_epoch_start_block"),
        ];
        match self {
            Self::Chain => APIS.contains(&api),
            Self::Shapes => read.contains(&(api, method)),
        }
    }
}

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(summary) => {
            eprintln!("{summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<String, Box<dyn Error>> {
    let (profile, input, output, key) = match arguments {
        [profile, input, output] => (profile, input, output, None),
        [profile, input, output, key] => (profile, input, output, Some(key)),
        _ => return Err("usage: reduce_metadata chain|shapes INPUT OUTPUT [KEY]".into()),
    };
    let profile = match profile.as_str() {
        "chain" => Profile::Chain,
        "shapes" => Profile::Shapes,
        _ => return Err(format!("{profile} is neither chain nor shapes").into()),
    };
    let bytes = std::fs::read(input)?;
    let bytes = match key {
        Some(key) => from_json(&bytes, key)?,
        None => bytes,
    };
    let start = bytes.windows(4).position(|window| window == b"meta");
    let start = start.ok_or("no metadata in the input")?;
    let RuntimeMetadataPrefixed(magic, metadata) =
        RuntimeMetadataPrefixed::decode(&mut &bytes[start..])?;
    let metadata = match metadata {
        RuntimeMetadata::V14(metadata) => RuntimeMetadata::V14(reduce_v14(metadata, profile)?),
        RuntimeMetadata::V15(metadata) => RuntimeMetadata::V15(reduce_v15(metadata, profile)?),
        RuntimeMetadata::V16(metadata) => RuntimeMetadata::V16(reduce_v16(metadata, profile)?),
        other => return Err(format!("metadata of version {}", other.version()).into()),
    };
    let reduced = RuntimeMetadataPrefixed(magic, metadata).encode();
    std::fs::write(output, &reduced)?;
    Ok(format!(
        "{output}: {} of {} bytes",
        reduced.len(),
        bytes.len()
    ))
}

fn from_json(bytes: &[u8], key: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let json: serde_json::Value = serde_json::from_slice(bytes)?;
    let text = json["metadata"][key].as_str();
    let text = text.ok_or_else(|| format!("the file has no metadata.{key}"))?;
    Ok(hex::decode(text.trim_start_matches("0x"))?)
}

/// Drops other pallets, what the profile does not keep, and all documentation. The versions' structs
/// have the same fields of the same names, and no trait that says so.
macro_rules! reduce_pallets {
    ($metadata:expr, $profile:expr) => {{
        let types = &mut $metadata.types;
        $metadata
            .pallets
            .retain(|pallet| PALLETS.contains(&pallet.name.as_str()));
        let kept: BTreeSet<_> = $metadata.pallets.iter().map(|p| p.name.clone()).collect();
        reduce_types(types, &kept);
        for pallet in &mut $metadata.pallets {
            let name = pallet.name.as_str();
            if let Some(storage) = &mut pallet.storage {
                storage
                    .entries
                    .retain(|entry| $profile.keeps(ItemKind::Storage, name, &entry.name));
                storage
                    .entries
                    .iter_mut()
                    .for_each(|entry| entry.docs.clear());
            }
            pallet
                .constants
                .retain(|constant| $profile.keeps_constant(name, &constant.name));
            pallet
                .constants
                .iter_mut()
                .for_each(|constant| constant.docs.clear());
            if let Some(calls) = &pallet.calls {
                let keeps = |call: &str| $profile.keeps(ItemKind::Call, name, call);
                retain_variants(types, calls.ty.id, keeps);
            }
        }
    }};
}

/// Every reference to a type in the pallets.
macro_rules! pallet_refs {
    ($metadata:expr) => {{
        let mut refs: Vec<&mut TypeRef> = Vec::new();
        for pallet in &mut $metadata.pallets {
            for entry in pallet
                .storage
                .iter_mut()
                .flat_map(|storage| &mut storage.entries)
            {
                match &mut entry.ty {
                    v14::StorageEntryType::Plain(value) => refs.push(value),
                    v14::StorageEntryType::Map { key, value, .. } => refs.extend([key, value]),
                }
            }
            refs.extend(pallet.constants.iter_mut().map(|constant| &mut constant.ty));
            refs.extend(pallet.calls.iter_mut().map(|calls| &mut calls.ty));
            refs.extend(pallet.event.iter_mut().map(|event| &mut event.ty));
            refs.extend(pallet.error.iter_mut().map(|error| &mut error.ty));
        }
        refs
    }};
}

/// Drops other runtime APIs and their documentation, and gives every reference to a type in the rest.
macro_rules! reduce_apis {
    ($metadata:expr, $profile:expr) => {{
        for api in &mut $metadata.apis {
            let name = api.name.as_str();
            api.methods
                .retain(|method| $profile.keeps_api(name, &method.name));
            api.methods
                .iter_mut()
                .for_each(|method| method.docs.clear());
            api.docs.clear();
        }
        $metadata.apis.retain(|api| !api.methods.is_empty());
        let methods = $metadata.apis.iter_mut().flat_map(|api| &mut api.methods);
        methods.flat_map(|method| {
            let inputs = method.inputs.iter_mut().map(|input| &mut input.ty);
            inputs.chain([&mut method.output])
        })
    }};
}

fn reduce_v14(
    mut metadata: v14::RuntimeMetadataV14,
    profile: Profile,
) -> Result<v14::RuntimeMetadataV14, Box<dyn Error>> {
    reduce_pallets!(metadata, profile);
    let mut refs = pallet_refs!(metadata);
    for extension in &mut metadata.extrinsic.signed_extensions {
        refs.extend([&mut extension.ty, &mut extension.additional_signed]);
    }
    // The only parameters that say something nothing else does: the extrinsic's.
    let extrinsic = &mut metadata.extrinsic.ty;
    refs.extend([extrinsic, &mut metadata.ty]);
    renumber(&mut metadata.types, refs)?;
    Ok(metadata)
}

fn reduce_v15(
    mut metadata: v15::RuntimeMetadataV15,
    profile: Profile,
) -> Result<v15::RuntimeMetadataV15, Box<dyn Error>> {
    reduce_pallets!(metadata, profile);
    metadata.custom.map.clear();
    let mut refs = pallet_refs!(metadata);
    refs.extend(reduce_apis!(metadata, profile));
    for extension in &mut metadata.extrinsic.signed_extensions {
        refs.extend([&mut extension.ty, &mut extension.additional_signed]);
    }
    refs.extend([
        &mut metadata.extrinsic.address_ty,
        &mut metadata.extrinsic.call_ty,
        &mut metadata.extrinsic.signature_ty,
        &mut metadata.extrinsic.extra_ty,
        &mut metadata.ty,
    ]);
    refs.extend(outer_refs(&mut metadata.outer_enums));
    renumber(&mut metadata.types, refs)?;
    Ok(metadata)
}

fn reduce_v16(
    mut metadata: v16::RuntimeMetadataV16,
    profile: Profile,
) -> Result<v16::RuntimeMetadataV16, Box<dyn Error>> {
    reduce_pallets!(metadata, profile);
    metadata.custom.map.clear();
    for pallet in &mut metadata.pallets {
        pallet.associated_types.clear();
        pallet.view_functions.clear();
        pallet.docs.clear();
    }
    let mut refs = pallet_refs!(metadata);
    refs.extend(reduce_apis!(metadata, profile));
    for extension in &mut metadata.extrinsic.transaction_extensions {
        refs.extend([&mut extension.ty, &mut extension.implicit]);
    }
    refs.extend([
        &mut metadata.extrinsic.address_ty,
        &mut metadata.extrinsic.call_ty,
        &mut metadata.extrinsic.signature_ty,
    ]);
    refs.extend(outer_refs(&mut metadata.outer_enums));
    renumber(&mut metadata.types, refs)?;
    Ok(metadata)
}

fn outer_refs(enums: &mut v15::OuterEnums<PortableForm>) -> [&mut TypeRef; 3] {
    [
        &mut enums.call_enum_ty,
        &mut enums.event_enum_ty,
        &mut enums.error_enum_ty,
    ]
}

/// Empties documentation, drops most parameters, and drops other pallets' variants from the outer enums.
fn reduce_types(types: &mut PortableRegistry, pallets: &BTreeSet<String>) {
    for entry in &mut types.types {
        let ty = &mut entry.ty;
        ty.docs.clear();
        let last = ty
            .path
            .segments
            .last()
            .map(String::as_str)
            .unwrap_or_default();
        let is_outer = OUTER_ENUMS.contains(&last);
        // A type without a module is Rust's own, as `Option` is. Tools read what it is of from its parameters.
        if ty.path.segments.len() != 1 && !PARAMETERISED.contains(&last) {
            ty.type_params.clear();
        }
        let fields = match &mut ty.type_def {
            TypeDef::Composite(composite) => composite.fields.iter_mut().collect::<Vec<_>>(),
            TypeDef::Variant(variants) => {
                if is_outer {
                    let is_kept = |name: &str| pallets.iter().any(|p| p.eq_ignore_ascii_case(name));
                    variants.variants.retain(|variant| is_kept(&variant.name));
                }
                variants
                    .variants
                    .iter_mut()
                    .for_each(|variant| variant.docs.clear());
                variants
                    .variants
                    .iter_mut()
                    .flat_map(|v| &mut v.fields)
                    .collect()
            }
            _ => Vec::new(),
        };
        for field in fields {
            field.docs.clear();
            // Some tools name the arguments of a call by what they were written as.
            if last != "Call" {
                field.type_name = None;
            }
        }
    }
}

fn retain_variants(types: &mut PortableRegistry, id: u32, keeps: impl Fn(&str) -> bool) {
    let entry = usize::try_from(id)
        .ok()
        .and_then(|id| types.types.get_mut(id));
    if let Some(TypeDef::Variant(variants)) = entry.map(|entry| &mut entry.ty.type_def) {
        variants.variants.retain(|variant| keeps(&variant.name));
    }
}

/// Drops the types that nothing refers to, and renumbers the references to the others.
fn renumber(types: &mut PortableRegistry, refs: Vec<&mut TypeRef>) -> Result<(), Box<dyn Error>> {
    let used: BTreeSet<u32> = refs.iter().map(|ty| ty.id).collect();
    let places: BTreeMap<u32, u32> = types.retain(|id| used.contains(&id));
    for ty in refs {
        let place = places.get(&ty.id);
        *ty = (*place.ok_or("a reference to a type that is not there")?).into();
    }
    Ok(())
}
