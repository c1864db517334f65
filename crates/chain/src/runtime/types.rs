//! A runtime's types, reduced to what decides about bytes.
//!
//! The registry of the metadata is taken over once: documentation, paths and parameters are dropped,
//! and everything that adds no bytes of its own is seen through. A struct with a single field without
//! name and a tuple of one *are* what they hold, so `NetUid(u16)` and `u16` are one type here, as
//! they are one on the wire. A registry that names types it does not have, or a newtype that is
//! itself, is refused when it is taken over; walking the result cannot fail on the types.

use std::sync::Arc;

use scale_info::form::PortableForm;
use scale_info::{PortableRegistry, TypeDef, TypeDefPrimitive};

use super::RuntimeError;

/// Newtypes of newtypes. Real runtimes have three.
const MAX_NEWTYPES: usize = 32;

/// A type, by its place in [`Types`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TypeId(usize);

/// What a type's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    /// One byte, 0 or 1.
    Bool,
    /// Four bytes, a Unicode scalar value.
    Char,
    /// A counted UTF-8 string.
    Text,
    /// An unsigned little-endian integer of this many bytes, at most 16.
    Unsigned(u8),
    /// A signed little-endian integer of this many bytes, at most 16.
    Signed(u8),
    /// An integer of 256 bits, kept as bytes.
    Wide,
    /// An unsigned integer in compact form.
    Compact(TypeId),
    /// A count, then the elements.
    Sequence(TypeId),
    /// The elements.
    Array(u32, TypeId),
    /// A struct or a tuple: one field after the other.
    Composite(Fields),
    /// An index byte, then the fields of that variant.
    Enum(Vec<Variant>),
    /// Bits in store words. No type that is read or written here holds any.
    Bits,
}

/// The fields of a struct, a tuple or a variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fields {
    /// Fields without names.
    Unnamed(Vec<TypeId>),
    /// Fields with names.
    Named(Vec<(Arc<str>, TypeId)>),
}

/// One variant of an enum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) name: Arc<str>,
    pub(super) index: u8,
    pub(super) fields: Fields,
}

/// The types of one runtime. Every id handed out names a type.
#[derive(Debug)]
pub(super) struct Types {
    types: Vec<Type>,
    /// Where each type of the registry went: itself, or what it is a newtype of.
    places: Vec<TypeId>,
}

impl Types {
    /// Takes a registry over.
    pub(super) fn new(registry: &PortableRegistry) -> Result<Self, RuntimeError> {
        let places = (0..registry.types.len())
            .map(|id| innermost(registry, id))
            .collect::<Result<Vec<_>, _>>()?;
        let types = registry
            .types
            .iter()
            .map(|entry| taken_over(&entry.ty.type_def, &places))
            .collect::<Result<_, _>>()?;
        Ok(Self { types, places })
    }

    /// The place of the type that the metadata numbers `id`.
    pub(super) fn id(&self, id: u32) -> Result<TypeId, RuntimeError> {
        place(&self.places, id)
    }

    /// The type at a place.
    pub(super) fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0]
    }

    /// Whether a type takes no bytes at all. One that would take long to tell is said to take some.
    pub(super) fn is_empty(&self, id: TypeId) -> bool {
        // Units inside units inside units: hostile types could make this walk exponential.
        self.is_empty_within(id, &mut 1_000)
    }

    fn is_empty_within(&self, id: TypeId, steps: &mut u32) -> bool {
        let Some(fewer) = steps.checked_sub(1) else {
            return false;
        };
        *steps = fewer;
        match self.get(id) {
            Type::Composite(fields) => fields.types().all(|id| self.is_empty_within(id, steps)),
            Type::Array(count, of) => *count == 0 || self.is_empty_within(*of, steps),
            _ => false,
        }
    }

    /// The variants of an enum; none for any other type.
    pub(super) fn variants(&self, id: TypeId) -> &[Variant] {
        match self.get(id) {
            Type::Enum(variants) => variants,
            _ => &[],
        }
    }

    /// Whether a type is `u8`, of which sequences and arrays are bytes.
    pub(super) fn is_byte(&self, id: TypeId) -> bool {
        *self.get(id) == Type::Unsigned(1)
    }
}

impl Fields {
    /// The fields' types, in order.
    pub(super) fn types(&self) -> impl Iterator<Item = TypeId> + '_ {
        let (unnamed, named) = match self {
            Self::Unnamed(types) => (types.as_slice(), [].as_slice()),
            Self::Named(fields) => ([].as_slice(), fields.as_slice()),
        };
        let named = named.iter().map(|(_, id)| *id);
        unnamed.iter().copied().chain(named)
    }
}

fn place(places: &[TypeId], id: u32) -> Result<TypeId, RuntimeError> {
    let place = usize::try_from(id).ok().and_then(|id| places.get(id));
    place.copied().ok_or(RuntimeError::UnknownType { id })
}

/// Follows newtypes to what they hold.
fn innermost(registry: &PortableRegistry, outermost: usize) -> Result<TypeId, RuntimeError> {
    let mut id = outermost;
    for _ in 0..MAX_NEWTYPES {
        let entry = registry.types.get(id).ok_or(RuntimeError::UnknownType {
            id: u32::try_from(id).unwrap_or(u32::MAX),
        })?;
        let held = match &entry.ty.type_def {
            TypeDef::Composite(composite) => match composite.fields.as_slice() {
                [field] if field.name.is_none() => field.ty.id,
                _ => return Ok(TypeId(id)),
            },
            TypeDef::Tuple(tuple) => match tuple.fields.as_slice() {
                [field] => field.id,
                _ => return Ok(TypeId(id)),
            },
            _ => return Ok(TypeId(id)),
        };
        id = usize::try_from(held).unwrap_or(usize::MAX);
    }
    let id = u32::try_from(outermost).unwrap_or(u32::MAX);
    Err(RuntimeError::EndlessType { id })
}

fn taken_over(definition: &TypeDef<PortableForm>, places: &[TypeId]) -> Result<Type, RuntimeError> {
    Ok(match definition {
        TypeDef::Primitive(primitive) => of_primitive(primitive),
        TypeDef::Compact(compact) => Type::Compact(place(places, compact.type_param.id)?),
        TypeDef::Sequence(sequence) => Type::Sequence(place(places, sequence.type_param.id)?),
        TypeDef::Array(array) => Type::Array(array.len, place(places, array.type_param.id)?),
        TypeDef::Tuple(tuple) => Type::Composite(Fields::Unnamed(
            tuple
                .fields
                .iter()
                .map(|field| place(places, field.id))
                .collect::<Result<_, _>>()?,
        )),
        TypeDef::Composite(composite) => Type::Composite(fields(&composite.fields, places)?),
        TypeDef::Variant(variants) => Type::Enum(
            variants
                .variants
                .iter()
                .map(|variant| {
                    Ok(Variant {
                        name: variant.name.as_str().into(),
                        index: variant.index,
                        fields: fields(&variant.fields, places)?,
                    })
                })
                .collect::<Result<_, RuntimeError>>()?,
        ),
        TypeDef::BitSequence(_) => Type::Bits,
    })
}

/// Fields are named only if all of them are: the metadata of a Rust type never mixes them.
fn fields(
    fields: &[scale_info::Field<PortableForm>],
    places: &[TypeId],
) -> Result<Fields, RuntimeError> {
    let types = fields.iter().map(|field| place(places, field.ty.id));
    let named = !fields.is_empty() && fields.iter().all(|field| field.name.is_some());
    if !named {
        return Ok(Fields::Unnamed(types.collect::<Result<_, _>>()?));
    }
    let names = fields.iter().flat_map(|field| field.name.as_deref());
    let fields = names.zip(types).map(|(name, ty)| Ok((name.into(), ty?)));
    Ok(Fields::Named(fields.collect::<Result<_, RuntimeError>>()?))
}

fn of_primitive(primitive: &TypeDefPrimitive) -> Type {
    match primitive {
        TypeDefPrimitive::Bool => Type::Bool,
        TypeDefPrimitive::Char => Type::Char,
        TypeDefPrimitive::Str => Type::Text,
        TypeDefPrimitive::U8 => Type::Unsigned(1),
        TypeDefPrimitive::U16 => Type::Unsigned(2),
        TypeDefPrimitive::U32 => Type::Unsigned(4),
        TypeDefPrimitive::U64 => Type::Unsigned(8),
        TypeDefPrimitive::U128 => Type::Unsigned(16),
        TypeDefPrimitive::I8 => Type::Signed(1),
        TypeDefPrimitive::I16 => Type::Signed(2),
        TypeDefPrimitive::I32 => Type::Signed(4),
        TypeDefPrimitive::I64 => Type::Signed(8),
        TypeDefPrimitive::I128 => Type::Signed(16),
        TypeDefPrimitive::U256 | TypeDefPrimitive::I256 => Type::Wide,
    }
}
