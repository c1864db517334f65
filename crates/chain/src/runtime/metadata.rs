//! The metadata as the rest of this module uses it: one model for versions 14, 15 and 16.
//!
//! The versions differ in what they add (runtime APIs from 15 on, extensions by extrinsic version
//! from 16 on) and in the names of their Rust types; what is needed of them is the same. Documentation
//! is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use frame_metadata::v14::{StorageEntryModifier, StorageEntryType, StorageHasher};
use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use frame_metadata::{v14, v15, v16};
use parity_scale_codec::{Compact, Decode as _, DecodeAll};
use scale_info::PortableRegistry;
use scale_info::form::PortableForm;

use super::RuntimeError;
use super::types::{Fields, Type, TypeId, Types, Variant};

/// What every metadata starts with.
const MAGIC: &[u8] = b"meta";
/// The extrinsic version this crate writes.
pub(super) const EXTRINSIC_VERSION: u8 = 4;

/// A runtime's metadata.
#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) types: Types,
    pub(super) pallets: BTreeMap<String, Pallet>,
    pub(super) extrinsic: Extrinsic,
    /// API, then method.
    pub(super) apis: BTreeMap<String, BTreeMap<String, Method>>,
}

/// One pallet.
#[derive(Debug)]
pub(super) struct Pallet {
    pub(super) index: u8,
    /// What stands for the pallet in storage keys: its name, but for rare exceptions.
    pub(super) prefix: String,
    pub(super) storage: BTreeMap<String, StorageItem>,
    pub(super) constants: BTreeMap<String, Constant>,
    pub(super) calls: Option<TypeId>,
    pub(super) errors: Option<TypeId>,
}

/// One storage item.
#[derive(Debug)]
pub(super) struct StorageItem {
    pub(super) keys: Vec<(StorageHasher, TypeId)>,
    pub(super) value: TypeId,
    /// What an entry without bytes stands for; none where it stands for nothing.
    pub(super) default: Option<Vec<u8>>,
}

/// A constant: SCALE bytes and their type.
#[derive(Debug)]
pub(super) struct Constant {
    pub(super) ty: TypeId,
    pub(super) value: Vec<u8>,
}

/// How a signed extrinsic is put together.
#[derive(Debug)]
pub(super) struct Extrinsic {
    pub(super) versions: Vec<u8>,
    pub(super) address: Option<TypeId>,
    pub(super) signature: Option<TypeId>,
    pub(super) extensions: Vec<Extension>,
}

/// A transaction extension: what it adds to the extrinsic and to what is signed.
#[derive(Debug)]
pub(super) struct Extension {
    pub(super) name: String,
    pub(super) explicit: TypeId,
    pub(super) implicit: TypeId,
}

/// A method of a runtime API.
#[derive(Debug)]
pub(super) struct Method {
    pub(super) inputs: Vec<(Arc<str>, TypeId)>,
    pub(super) output: TypeId,
}

impl Pallet {
    /// The call of this name.
    pub(super) fn call<'a>(&self, types: &'a Types, name: &str) -> Option<&'a Variant> {
        let calls = types.variants(self.calls?);
        calls.iter().find(|call| *call.name == *name)
    }
}

impl Metadata {
    /// The pallet with this number, and its name.
    pub(super) fn pallet_at(&self, index: u8) -> Option<(&str, &Pallet)> {
        let mut pallets = self.pallets.iter();
        let (name, pallet) = pallets.find(|(_, pallet)| pallet.index == index)?;
        Some((name, pallet))
    }
}

/// The metadata inside the answers of `Metadata_metadata` (a counted byte string) and
/// `Metadata_metadata_at_version` (the same in an `Option`); anything else is returned as it is.
pub(super) fn unwrapped(bytes: &[u8]) -> &[u8] {
    let counted = |bytes: &'_ [u8]| -> Option<usize> {
        let mut rest = bytes;
        let Compact(count) = Compact::<u32>::decode(&mut rest).ok()?;
        (rest.len() == usize::try_from(count).ok()? && rest.starts_with(MAGIC))
            .then(|| bytes.len() - rest.len())
    };
    if bytes.starts_with(MAGIC) {
        return bytes;
    }
    let optional = bytes.strip_prefix(&[1]).unwrap_or(bytes);
    for candidate in [bytes, optional] {
        if let Some(start) = counted(candidate) {
            return &candidate[start..];
        }
    }
    bytes
}

/// Reads metadata that starts with `meta`.
pub(super) fn read(mut bytes: &[u8]) -> Result<Metadata, RuntimeError> {
    let RuntimeMetadataPrefixed(magic, metadata) =
        DecodeAll::decode_all(&mut bytes).map_err(RuntimeError::Undecodable)?;
    if magic.to_le_bytes() != *MAGIC {
        let error = parity_scale_codec::Error::from("it does not start with `meta`");
        return Err(RuntimeError::Undecodable(error));
    }
    match metadata {
        RuntimeMetadata::V14(metadata) => of_v14(metadata),
        RuntimeMetadata::V15(metadata) => of_v15(metadata),
        RuntimeMetadata::V16(metadata) => of_v16(metadata),
        other => Err(RuntimeError::Version {
            version: other.version(),
        }),
    }
}

/// A pallet as the metadata has it, whatever its version.
struct RawPallet {
    name: String,
    index: u8,
    storage: Option<(String, Vec<RawItem>)>,
    constants: Vec<(String, u32, Vec<u8>)>,
    calls: Option<u32>,
    errors: Option<u32>,
}

/// A storage item as the metadata has it.
struct RawItem {
    name: String,
    modifier: StorageEntryModifier,
    ty: StorageEntryType<PortableForm>,
    default: Vec<u8>,
}

/// The versions' structs have the same fields of the same names, and no trait that says so.
macro_rules! raw_pallets {
    ($pallets:expr) => {
        $pallets.into_iter().map(|pallet| RawPallet {
            name: pallet.name,
            index: pallet.index,
            storage: pallet.storage.map(|storage| {
                let items = storage.entries.into_iter().map(|entry| RawItem {
                    name: entry.name,
                    modifier: entry.modifier,
                    ty: entry.ty,
                    default: entry.default,
                });
                (storage.prefix, items.collect())
            }),
            constants: pallet
                .constants
                .into_iter()
                .map(|constant| (constant.name, constant.ty.id, constant.value))
                .collect(),
            calls: pallet.calls.map(|calls| calls.ty.id),
            errors: pallet.error.map(|error| error.ty.id),
        })
    };
}

/// API, method, the method's inputs and its output.
type RawMethod = (String, String, Vec<(String, u32)>, u32);

macro_rules! raw_methods {
    ($apis:expr) => {
        $apis.into_iter().flat_map(|api| {
            let methods = api.methods.into_iter().map(move |method| -> RawMethod {
                let inputs = method.inputs.into_iter();
                let inputs = inputs.map(|input| (input.name, input.ty.id)).collect();
                (api.name.clone(), method.name, inputs, method.output.id)
            });
            methods.collect::<Vec<_>>()
        })
    };
}

fn of_v14(metadata: v14::RuntimeMetadataV14) -> Result<Metadata, RuntimeError> {
    let types = Types::new(&metadata.types)?;
    let extrinsic = metadata.extrinsic;
    let parameter = |name| {
        let id = type_parameter(&metadata.types, extrinsic.ty.id, name);
        id.map(|id| types.id(id)).transpose()
    };
    let extensions = extrinsic.signed_extensions.iter();
    let extrinsic = Extrinsic {
        versions: vec![extrinsic.version],
        address: parameter("Address")?,
        signature: parameter("Signature")?,
        extensions: extensions
            .map(|e| extension(&types, &e.identifier, e.ty.id, e.additional_signed.id))
            .collect::<Result<_, _>>()?,
    };
    Ok(Metadata {
        pallets: pallets(&types, raw_pallets!(metadata.pallets))?,
        extrinsic,
        apis: BTreeMap::new(),
        types,
    })
}

fn of_v15(metadata: v15::RuntimeMetadataV15) -> Result<Metadata, RuntimeError> {
    let types = Types::new(&metadata.types)?;
    let extrinsic = metadata.extrinsic;
    let extensions = extrinsic.signed_extensions.iter();
    let extrinsic = Extrinsic {
        versions: vec![extrinsic.version],
        address: Some(types.id(extrinsic.address_ty.id)?),
        signature: Some(types.id(extrinsic.signature_ty.id)?),
        extensions: extensions
            .map(|e| extension(&types, &e.identifier, e.ty.id, e.additional_signed.id))
            .collect::<Result<_, _>>()?,
    };
    Ok(Metadata {
        pallets: pallets(&types, raw_pallets!(metadata.pallets))?,
        extrinsic,
        apis: apis(&types, raw_methods!(metadata.apis))?,
        types,
    })
}

fn of_v16(metadata: v16::RuntimeMetadataV16) -> Result<Metadata, RuntimeError> {
    let types = Types::new(&metadata.types)?;
    let extrinsic = metadata.extrinsic;
    let all = &extrinsic.transaction_extensions;
    // Version 0 of the extensions is that of all extrinsics that do not say another.
    let listed = &extrinsic.transaction_extensions_by_version;
    let listed = listed.get(&EXTRINSIC_VERSION).or_else(|| listed.get(&0));
    let places = listed.map(|places| places.iter().map(|place| place.0));
    let places: Vec<u32> = match places {
        Some(places) => places.collect(),
        None => (0_u32..).take(all.len()).collect(),
    };
    let extensions = places.into_iter().map(|place| {
        let found = usize::try_from(place).ok().and_then(|place| all.get(place));
        let e = found.ok_or(RuntimeError::UnknownExtension { place })?;
        extension(&types, &e.identifier, e.ty.id, e.implicit.id)
    });
    let extrinsic = Extrinsic {
        extensions: extensions.collect::<Result<_, _>>()?,
        address: Some(types.id(extrinsic.address_ty.id)?),
        signature: Some(types.id(extrinsic.signature_ty.id)?),
        versions: extrinsic.versions,
    };
    Ok(Metadata {
        pallets: pallets(&types, raw_pallets!(metadata.pallets))?,
        extrinsic,
        apis: apis(&types, raw_methods!(metadata.apis))?,
        types,
    })
}

fn extension(
    types: &Types,
    name: &str,
    explicit: u32,
    implicit: u32,
) -> Result<Extension, RuntimeError> {
    Ok(Extension {
        name: name.to_owned(),
        explicit: types.id(explicit)?,
        implicit: types.id(implicit)?,
    })
}

/// Version 14 has only the extrinsic's type; its parameters say what it is made of.
fn type_parameter(registry: &PortableRegistry, id: u32, name: &str) -> Option<u32> {
    let parameters = &registry.resolve(id)?.type_params;
    let parameter = parameters.iter().find(|parameter| parameter.name == name)?;
    parameter.ty.map(|ty| ty.id)
}

fn pallets(
    types: &Types,
    pallets: impl Iterator<Item = RawPallet>,
) -> Result<BTreeMap<String, Pallet>, RuntimeError> {
    let described = pallets.map(|pallet| {
        let (prefix, items) = pallet
            .storage
            .unwrap_or_else(|| (pallet.name.clone(), Vec::new()));
        let storage = items
            .into_iter()
            .map(|item| storage_item(types, &pallet.name, item));
        let storage = storage.collect::<Result<_, _>>()?;
        let constants = pallet.constants.into_iter();
        let constants = constants.map(|(name, ty, value)| {
            let ty = types.id(ty)?;
            Ok((name, Constant { ty, value }))
        });
        let described = Pallet {
            index: pallet.index,
            prefix,
            storage,
            constants: constants.collect::<Result<_, RuntimeError>>()?,
            calls: pallet.calls.map(|id| types.id(id)).transpose()?,
            errors: pallet.errors.map(|id| types.id(id)).transpose()?,
        };
        Ok((pallet.name, described))
    });
    described.collect()
}

fn storage_item(
    types: &Types,
    pallet: &str,
    item: RawItem,
) -> Result<(String, StorageItem), RuntimeError> {
    let (keys, value) = match item.ty {
        StorageEntryType::Plain(value) => (Vec::new(), types.id(value.id)?),
        StorageEntryType::Map {
            hashers,
            key,
            value,
        } => {
            let key = types.id(key.id)?;
            let keys = match (hashers.len(), types.get(key)) {
                (1, _) => vec![key],
                (count, Type::Composite(Fields::Unnamed(keys))) if keys.len() == count => {
                    keys.clone()
                }
                _ => {
                    return Err(RuntimeError::Keys {
                        pallet: pallet.to_owned(),
                        item: item.name,
                    });
                }
            };
            let keys = hashers.into_iter().zip(keys).collect();
            (keys, types.id(value.id)?)
        }
    };
    let default = (item.modifier == StorageEntryModifier::Default).then_some(item.default);
    let described = StorageItem {
        keys,
        value,
        default,
    };
    Ok((item.name, described))
}

fn apis(
    types: &Types,
    methods: impl Iterator<Item = RawMethod>,
) -> Result<BTreeMap<String, BTreeMap<String, Method>>, RuntimeError> {
    let mut apis = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (api, method, inputs, output) in methods {
        let inputs = inputs.into_iter();
        let inputs = inputs.map(|(name, id)| Ok((Arc::from(name), types.id(id)?)));
        let described = Method {
            inputs: inputs.collect::<Result<_, RuntimeError>>()?,
            output: types.id(output)?,
        };
        apis.entry(api).or_default().insert(method, described);
    }
    Ok(apis)
}
