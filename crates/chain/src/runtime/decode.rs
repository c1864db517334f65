//! Bytes to values, along a runtime's types.
//!
//! Both the bytes and the types come from an endpoint, so neither is trusted: nesting is bounded, and
//! so is the number of values, by the bytes that were given; nothing is reserved for elements that
//! are announced and not there. Decoding is strict: bytes left over, compact integers in a longer
//! form than needed and truth values other than 0 and 1 are refused.

use super::reader::{DecodeError, Reader};
use super::types::{Fields, Type, TypeId, Types};
use super::value::Value;

/// Levels of nesting. Values of real runtimes stay below twenty.
const MAX_DEPTH: usize = 100;
/// Values that may stand in a few bytes: units and empty structs take none.
const FREE_VALUES: usize = 1_024;
/// Values for each byte beyond that: structs around structs around a byte. Real ones have three.
const VALUES_PER_BYTE: usize = 4;

/// The value that `bytes` are, all of them.
pub(super) fn decode(types: &Types, id: TypeId, bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut decoder = Decoder::new(types, bytes);
    let value = decoder.value(id)?;
    decoder.finish()?;
    Ok(value)
}

/// Reads several values from one byte string.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    types: &'a Types,
    reader: Reader<'a>,
    values_left: usize,
    depth_left: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(types: &'a Types, bytes: &'a [u8]) -> Self {
        let per_byte = bytes.len().saturating_mul(VALUES_PER_BYTE);
        Self {
            types,
            reader: Reader::new(bytes),
            values_left: per_byte.saturating_add(FREE_VALUES),
            depth_left: MAX_DEPTH,
        }
    }

    /// The bytes before the next value, for what is not described by a type.
    pub(super) fn reader(&mut self) -> &mut Reader<'a> {
        &mut self.reader
    }

    pub(super) fn finish(self) -> Result<(), DecodeError> {
        self.reader.finish()
    }

    /// The next value.
    pub(super) fn value(&mut self, id: TypeId) -> Result<Value, DecodeError> {
        let exhausted = self.values_left == 0 || self.depth_left == 0;
        if exhausted {
            return Err(self.reader.refuse("more nested than its bytes can hold"));
        }
        self.values_left -= 1;
        self.depth_left -= 1;
        let value = self.value_of(self.types.get(id))?;
        self.depth_left += 1;
        Ok(value)
    }

    fn value_of(&mut self, ty: &'a Type) -> Result<Value, DecodeError> {
        Ok(match ty {
            Type::Bool => match self.reader.u8()? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => return Err(self.reader.refuse("neither true nor false")),
            },
            Type::Char => {
                let scalar = u32::try_from(self.reader.unsigned(4)?).ok();
                let scalar = scalar.and_then(char::from_u32);
                let scalar = scalar.ok_or_else(|| self.reader.refuse("no character"))?;
                Value::Text(scalar.to_string())
            }
            Type::Text => {
                let bytes = self.reader.bytes()?;
                let text = std::str::from_utf8(bytes);
                let text = text.map_err(|_| self.reader.refuse("text that is not UTF-8"))?;
                Value::Text(text.to_owned())
            }
            Type::Unsigned(width) => Value::Unsigned(self.reader.unsigned(usize::from(*width))?),
            Type::Signed(width) => {
                let unsigned = self.reader.unsigned(usize::from(*width))?;
                let unused = 128 - 8 * u32::from(*width);
                Value::Signed((unsigned << unused) as i128 >> unused)
            }
            Type::Wide => Value::Bytes(self.reader.take(32)?.to_vec()),
            Type::Compact(of) => self.compact(*of)?,
            Type::Sequence(of) if self.types.is_byte(*of) => {
                Value::Bytes(self.reader.bytes()?.to_vec())
            }
            Type::Sequence(of) => {
                let count = self.reader.count()?;
                self.list(*of, count)?
            }
            Type::Array(count, of) => {
                let count = usize::try_from(*count).unwrap_or(usize::MAX);
                if self.types.is_byte(*of) {
                    Value::Bytes(self.reader.take(count)?.to_vec())
                } else {
                    self.list(*of, count)?
                }
            }
            Type::Composite(fields) => self.fields(fields)?,
            Type::Enum(variants) => {
                let index = self.reader.u8()?;
                let variant = variants.iter().find(|variant| variant.index == index);
                let variant = variant.ok_or_else(|| self.reader.refuse("unknown variant"))?;
                Value::Variant {
                    name: variant.name.clone(),
                    fields: Box::new(self.fields(&variant.fields)?),
                }
            }
            Type::Bits => return Err(self.reader.refuse("bit sequences are not supported")),
        })
    }

    fn list(&mut self, of: TypeId, count: usize) -> Result<Value, DecodeError> {
        // Grows as elements are found: the count is only a claim.
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(self.value(of)?);
        }
        Ok(Value::List(items))
    }

    /// The fields of a struct, a tuple or a variant.
    pub(super) fn fields(&mut self, fields: &'a Fields) -> Result<Value, DecodeError> {
        match fields {
            Fields::Unnamed(types) => {
                let items = types.iter().map(|id| self.value(*id));
                items.collect::<Result<_, _>>().map(Value::List)
            }
            Fields::Named(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, id)| Ok((name.clone(), self.value(*id)?)));
                fields.collect::<Result<_, _>>().map(Value::Record)
            }
        }
    }

    fn compact(&mut self, of: TypeId) -> Result<Value, DecodeError> {
        match self.types.get(of) {
            Type::Unsigned(width) => {
                let value = self.reader.compact()?;
                let unused = 128 - 8 * u32::from(*width);
                if value > u128::MAX >> unused {
                    return Err(self.reader.refuse("compact integer too large for its type"));
                }
                Ok(Value::Unsigned(value))
            }
            Type::Composite(fields) if fields.types().next().is_none() => {
                Ok(Value::List(Vec::new()))
            }
            // `Compact` of a struct with one named field is that field's.
            Type::Composite(Fields::Named(fields)) if fields.len() == 1 => {
                let (name, id) = &fields[0];
                let held = match self.types.get(*id) {
                    Type::Unsigned(_) => self.compact(*id)?,
                    _ => return Err(self.reader.refuse("compact form of no integer")),
                };
                Ok(Value::Record(vec![(name.clone(), held)]))
            }
            _ => Err(self.reader.refuse("compact form of no integer")),
        }
    }
}
