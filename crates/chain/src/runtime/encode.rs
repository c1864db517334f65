//! Values to bytes, along a runtime's types and by the names in them.
//!
//! A value has to fit: names are looked up, so their order does not matter, but each must be there
//! and none may be left over; integers must fit their width; what has no sign goes into a signed
//! integer and back if its number does. Errors say where, as a path through the names.

use parity_scale_codec::{Compact, Encode as _};

use super::layout::layout;
use super::types::{Fields, Type, TypeId, Types};
use super::value::Value;

/// Where and why a value does not fit its type.
#[derive(Debug)]
pub(super) struct Unfit {
    /// Names of fields and places in lists, the innermost first.
    path: Vec<String>,
    problem: String,
}

impl Unfit {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self {
            path: Vec::new(),
            problem: problem.into(),
        }
    }

    pub(super) fn below(mut self, name: impl ToString) -> Self {
        self.path.push(name.to_string());
        self
    }
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, name) in self.path.iter().rev().enumerate() {
            let point = if place == 0 { "" } else { "." };
            write!(f, "{point}{name}")?;
        }
        let colon = if self.path.is_empty() { "" } else { ": " };
        write!(f, "{colon}{}", self.problem)
    }
}

/// Appends the bytes of `value` as a value of the type.
pub(super) fn encode(
    types: &Types,
    id: TypeId,
    value: &Value,
    out: &mut Vec<u8>,
) -> Result<(), Unfit> {
    let unfit = || Unfit::new(format!("{} expected", layout(types, id)));
    match (types.get(id), value) {
        (Type::Bool, Value::Bool(value)) => out.push(u8::from(*value)),
        (Type::Text, Value::Text(text)) => text.encode_to(out),
        (Type::Char, Value::Text(text)) => {
            let mut scalars = text.chars();
            let (Some(scalar), None) = (scalars.next(), scalars.next()) else {
                return Err(unfit());
            };
            u32::from(scalar).encode_to(out);
        }
        (Type::Unsigned(width), Value::Unsigned(_) | Value::Signed(_)) => {
            let number = unsigned(value, *width).ok_or_else(unfit)?;
            out.extend_from_slice(&number.to_le_bytes()[..usize::from(*width)]);
        }
        (Type::Signed(width), Value::Unsigned(_) | Value::Signed(_)) => {
            let unused = 128 - 8 * u32::from(*width);
            let number = value.as_i128().ok_or_else(unfit)?;
            if (number << unused) >> unused != number {
                return Err(unfit());
            }
            out.extend_from_slice(&number.to_le_bytes()[..usize::from(*width)]);
        }
        (Type::Wide, Value::Bytes(bytes)) if bytes.len() == 32 => out.extend_from_slice(bytes),
        (Type::Compact(of), value) => compact(types, *of, value, out).ok_or_else(unfit)?,
        (Type::Sequence(of), Value::Bytes(bytes)) if types.is_byte(*of) => bytes.encode_to(out),
        (Type::Sequence(of), Value::List(items)) => {
            put_count(items.len(), out)?;
            list(types, *of, items, out)?;
        }
        (Type::Array(count, of), Value::Bytes(bytes))
            if types.is_byte(*of) && u32::try_from(bytes.len()) == Ok(*count) =>
        {
            out.extend_from_slice(bytes);
        }
        (Type::Array(count, of), Value::List(items))
            if u32::try_from(items.len()) == Ok(*count) =>
        {
            list(types, *of, items, out)?;
        }
        (Type::Composite(fields), value) => encode_fields(types, fields, value, out)?,
        (Type::Enum(variants), Value::Variant { name, fields }) => {
            let variant = variants.iter().find(|variant| variant.name == *name);
            let variant = variant.ok_or_else(|| Unfit::new(format!("no variant {name}")))?;
            out.push(variant.index);
            encode_fields(types, &variant.fields, fields, out)
                .map_err(|unfit| unfit.below(name))?;
        }
        _ => return Err(unfit()),
    }
    Ok(())
}

/// Appends the fields of a struct, a tuple or a variant.
pub(super) fn encode_fields(
    types: &Types,
    fields: &Fields,
    value: &Value,
    out: &mut Vec<u8>,
) -> Result<(), Unfit> {
    match (fields, value) {
        (Fields::Unnamed(wanted), Value::List(items)) if wanted.len() == items.len() => {
            for (place, (id, item)) in wanted.iter().zip(items).enumerate() {
                encode(types, *id, item, out).map_err(|unfit| unfit.below(place))?;
            }
            Ok(())
        }
        (Fields::Named(wanted), Value::Record(given)) => {
            let given = given.iter().map(|(name, value)| (&**name, value));
            named(types, wanted, &given.collect::<Vec<_>>(), out)
        }
        (Fields::Unnamed(wanted), _) => {
            Err(Unfit::new(format!("{} fields expected", wanted.len())))
        }
        (Fields::Named(_), _) => Err(Unfit::new("fields with names expected")),
    }
}

/// Appends fields given by name.
pub(super) fn named(
    types: &Types,
    wanted: &[(std::sync::Arc<str>, TypeId)],
    given: &[(&str, &Value)],
    out: &mut Vec<u8>,
) -> Result<(), Unfit> {
    let unknown = given
        .iter()
        .find(|(name, _)| !wanted.iter().any(|(wanted, _)| **wanted == **name));
    if let Some((name, _)) = unknown {
        return Err(Unfit::new(format!("there is no {name}")));
    }
    for (name, id) in wanted {
        let mut values = given.iter().filter(|(given, _)| *given == &**name);
        let (Some((_, value)), None) = (values.next(), values.next()) else {
            return Err(Unfit::new(format!("{name} is missing or given twice")));
        };
        encode(types, *id, value, out).map_err(|unfit| unfit.below(name))?;
    }
    Ok(())
}

fn list(types: &Types, of: TypeId, items: &[Value], out: &mut Vec<u8>) -> Result<(), Unfit> {
    for (place, item) in items.iter().enumerate() {
        encode(types, of, item, out).map_err(|unfit| unfit.below(place))?;
    }
    Ok(())
}

fn put_count(count: usize, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let count = u32::try_from(count).map_err(|_| Unfit::new("too many elements"))?;
    Compact(count).encode_to(out);
    Ok(())
}

/// The number, if it is not negative and fits `width` bytes.
fn unsigned(value: &Value, width: u8) -> Option<u128> {
    let number = match value {
        Value::Unsigned(number) => *number,
        Value::Signed(number) => u128::try_from(*number).ok()?,
        _ => return None,
    };
    let unused = 128 - 8 * u32::from(width);
    (number <= u128::MAX >> unused).then_some(number)
}

fn compact(types: &Types, of: TypeId, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    match (types.get(of), value) {
        (Type::Unsigned(width), value) => Compact(unsigned(value, *width)?).encode_to(out),
        (Type::Composite(fields), Value::List(items)) => {
            return (items.is_empty() && fields.types().next().is_none()).then_some(());
        }
        (Type::Composite(Fields::Named(wanted)), Value::Record(given)) => {
            let ([(wanted, id)], [(name, value)]) = (wanted.as_slice(), given.as_slice()) else {
                return None;
            };
            match types.get(*id) {
                Type::Unsigned(width) if wanted == name => {
                    Compact(unsigned(value, *width)?).encode_to(out);
                }
                _ => return None,
            }
        }
        _ => return None,
    }
    Some(())
}
