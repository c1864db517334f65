//! What a client knows of a Substrate runtime: its metadata, and nothing compiled in.
//!
//! A runtime is upgraded every few weeks. Pallets, calls and errors change their numbers, numbers are
//! wrapped in new types, structs grow. Everything here goes by *name* through the metadata that the
//! endpoint serves for the runtime at hand: storage keys and values, calls, runtime APIs, events,
//! errors and the extensions of an extrinsic. V14, V15 and V16 are accepted and are one model behind
//! [`Runtime`].
//!
//! ```text
//! bytes of the metadata ── metadata.rs ──> pallets, extrinsic, APIs   (names, hashers, numbers)
//!                          types.rs ─────> types without newtypes
//!                          shapes.rs ────> what this crate expects ── misfits
//!
//! Value ── encode.rs ──> bytes ── decode.rs ──> Value                 (along a type)
//! ```
//!
//! By name alone a changed meaning would go unnoticed. [`shapes`](Runtime::misfits) therefore lists
//! every call and item that the adapter uses with the layout it was written for; one that no longer
//! fits is refused as a [`ShapeError`], and everything else goes on.
//!
//! Metadata and values come from an endpoint and are not trusted: nothing here panics, nests without
//! bound, or allocates more than in proportion to what was received. Knows no transport and no rules.

mod bundled;
mod calls;
mod decode;
mod earlier;
mod encode;
mod events;
mod extrinsic;
mod layout;
mod metadata;
mod reader;
mod serve;
mod shapes;
mod storage;
mod types;
mod value;

use std::fmt;
use std::sync::Arc;

pub use bundled::{BUNDLED_VERSION, bundled, bundled_with_slot};
pub use calls::DecodedCall;
pub use earlier::as_version_14;
pub use events::{DispatchFailure, EventRecord};
pub use extrinsic::{Era, SignedExtrinsic, SigningTerms};
pub use shapes::{ItemKind, Misfit, UsedItem, used_items};
pub use value::Value;

use metadata::Metadata;
use types::TypeId;

/// What a runtime calls itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// `specVersion`: changes with every upgrade.
    pub spec: u32,
    /// `transactionVersion`: changes when the bytes of calls do.
    pub transaction: u32,
}

/// A runtime, as its metadata describes it. Cloning is cheap.
#[derive(Clone)]
pub struct Runtime(Arc<Known>);

struct Known {
    version: RuntimeVersion,
    metadata: Metadata,
    misfits: Vec<Misfit>,
}

/// Metadata that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The bytes are no metadata.
    #[error("the bytes are no runtime metadata")]
    Undecodable(#[source] parity_scale_codec::Error),
    /// Older or newer than what is known here.
    #[error("runtime metadata of version {version}, versions 14 to 16 are understood")]
    Version {
        /// The metadata's own version.
        version: u32,
    },
    /// A type is referred to and not there.
    #[error("the runtime metadata has no type {id}")]
    UnknownType {
        /// Its number.
        id: u32,
    },
    /// A newtype of itself, or of newtypes without end.
    #[error("type {id} of the runtime metadata is a newtype without end")]
    EndlessType {
        /// Its number.
        id: u32,
    },
    /// The type of the runtime's own extrinsic is not there.
    #[error("the runtime metadata has no type of an extrinsic with its own calls")]
    NoExtrinsic,
    /// An extension is referred to and not there.
    #[error("the runtime metadata has no transaction extension {place}")]
    UnknownExtension {
        /// Its place in the list.
        place: u32,
    },
    /// A storage map whose keys and hashers do not correspond.
    #[error("storage item {pallet}.{item} does not have a key for each hasher")]
    Keys {
        /// The pallet.
        pallet: String,
        /// The item.
        item: String,
    },
}

/// A call, an item or bytes that do not fit the runtime at hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{item} of spec {spec}: {detail}")]
pub struct ShapeError {
    /// What was asked for: `Pallet.name`, or a part of an extrinsic.
    pub item: String,
    /// The runtime's `spec_version`.
    pub spec: u32,
    /// What does not fit.
    pub detail: String,
}

impl Runtime {
    /// Reads metadata: the bytes that start with `meta`, or an answer of `Metadata_metadata` or
    /// `Metadata_metadata_at_version` that wraps them.
    ///
    /// # Errors
    /// The bytes are no metadata of version 14, 15 or 16, or contradict themselves.
    pub fn from_metadata(bytes: &[u8], version: RuntimeVersion) -> Result<Self, RuntimeError> {
        let metadata = metadata::read(metadata::unwrapped(bytes))?;
        let misfits = shapes::misfits(&metadata);
        Ok(Self(Arc::new(Known {
            version,
            metadata,
            misfits,
        })))
    }

    /// What the runtime calls itself.
    #[must_use]
    pub fn version(&self) -> RuntimeVersion {
        self.0.version
    }

    /// Everything the adapter uses that this runtime does not have, or has differently.
    pub fn misfits(&self) -> &[Misfit] {
        &self.0.misfits
    }

    /// Whether a call is as the adapter expects it. Calls it does not use are not judged.
    ///
    /// # Errors
    /// The call is absent or has changed.
    pub fn check_call(&self, pallet: &str, call: &str) -> Result<(), ShapeError> {
        self.check(ItemKind::Call, pallet, call)
    }

    /// Whether a storage item is as the adapter expects it. Items it does not use are not judged.
    ///
    /// # Errors
    /// The item is absent or has changed.
    pub fn check_storage(&self, pallet: &str, item: &str) -> Result<(), ShapeError> {
        self.check(ItemKind::Storage, pallet, item)
    }

    /// The value of a constant.
    ///
    /// # Errors
    /// There is no such constant, or it is not of its own type.
    pub fn constant(&self, pallet: &str, name: &str) -> Result<Value, ShapeError> {
        let constants = self.metadata().pallets.get(pallet).map(|p| &p.constants);
        let constant = constants.and_then(|constants| constants.get(name));
        let constant = constant.ok_or_else(|| self.misfit(pallet, name, "no such constant"))?;
        decode::decode(&self.metadata().types, constant.ty, &constant.value)
            .map_err(|error| self.misfit(pallet, name, error))
    }

    /// The bytes of a runtime API's arguments, for `state_call` of `api_method`.
    ///
    /// # Errors
    /// The metadata describes no such method, as that of version 14 never does, or an argument is
    /// unknown, missing, or does not fit.
    pub fn runtime_api(
        &self,
        api: &str,
        method: &str,
        arguments: &[(&str, Value)],
    ) -> Result<Vec<u8>, ShapeError> {
        let found = self.api_method(api, method)?;
        let arguments: Vec<_> = arguments
            .iter()
            .map(|(name, value)| (*name, value))
            .collect();
        let mut out = Vec::new();
        encode::named(&self.metadata().types, &found.inputs, &arguments, &mut out)
            .map_err(|unfit| self.misfit(api, method, unfit))?;
        Ok(out)
    }

    /// The value of a runtime API's answer.
    ///
    /// # Errors
    /// The metadata describes no such method, or the bytes are not of its type.
    pub fn runtime_api_answer(
        &self,
        api: &str,
        method: &str,
        bytes: &[u8],
    ) -> Result<Value, ShapeError> {
        let found = self.api_method(api, method)?;
        decode::decode(&self.metadata().types, found.output, bytes)
            .map_err(|error| self.misfit(api, method, error))
    }

    /// The value of any type, by its number in the metadata. For inspection.
    ///
    /// # Errors
    /// There is no such type, or the bytes are none of its values.
    pub fn decode_type(&self, id: u32, bytes: &[u8]) -> Result<Value, ShapeError> {
        let ty = self.type_of(id)?;
        decode::decode(&self.metadata().types, ty, bytes)
            .map_err(|error| self.misfit("type", &id.to_string(), error))
    }

    /// The bytes of a value of any type, by its number in the metadata. For inspection.
    ///
    /// # Errors
    /// There is no such type, or the value does not fit it.
    pub fn encode_type(&self, id: u32, value: &Value) -> Result<Vec<u8>, ShapeError> {
        let ty = self.type_of(id)?;
        let mut out = Vec::new();
        encode::encode(&self.metadata().types, ty, value, &mut out)
            .map_err(|unfit| self.misfit("type", &id.to_string(), unfit))?;
        Ok(out)
    }

    fn type_of(&self, id: u32) -> Result<TypeId, ShapeError> {
        let ty = self.metadata().types.id(id);
        ty.map_err(|error| self.misfit("type", &id.to_string(), error))
    }

    fn api_method(&self, api: &str, method: &str) -> Result<&metadata::Method, ShapeError> {
        let methods = self.metadata().apis.get(api);
        let found = methods.and_then(|methods| methods.get(method));
        found.ok_or_else(|| self.misfit(api, method, "no such runtime API"))
    }

    fn check(&self, kind: ItemKind, pallet: &str, name: &str) -> Result<(), ShapeError> {
        let mut misfits = self.0.misfits.iter();
        match misfits.find(|m| (m.used.kind, m.used.pallet, m.used.name) == (kind, pallet, name)) {
            Some(misfit) => Err(self.misfit(pallet, name, misfit.detail())),
            None => Ok(()),
        }
    }

    fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    fn misfit(&self, pallet: &str, name: &str, detail: impl fmt::Display) -> ShapeError {
        self.shape(format!("{pallet}.{name}"), detail)
    }

    fn shape(&self, item: impl Into<String>, detail: impl fmt::Display) -> ShapeError {
        ShapeError {
            item: item.into(),
            spec: self.0.version.spec,
            detail: detail.to_string(),
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("version", &self.0.version)
            .finish_non_exhaustive()
    }
}
