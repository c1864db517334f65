//! A type's layout as text, for comparing and for people.
//!
//! ```text
//! u16  bool  text  compact u64      the primitives
//! [u16]  [u8; 32]                   sequences and arrays
//! (u16, u16)  {block: u64, ip: u128}  structs and tuples; a newtype is what it holds
//! <None, Some(u16)>                 enums
//! ```
//!
//! Fields are told apart by name because they are read by name; variants have no numbers because
//! they are found by name.

use std::sync::Arc;

use super::types::{Fields, Type, TypeId, Types, Variant};

/// Levels that are written out; what is below is `…`.
pub(super) const MAX_DEPTH: usize = 12;
/// Bytes after which a layout ends: hostile types nest exponentially.
const MAX_LENGTH: usize = 16_384;

/// The layout of a type, cut short for an error message.
pub(super) fn layout(types: &Types, id: TypeId) -> String {
    let mut writer = Layout {
        types,
        shown: Shown::First(4),
        out: String::new(),
    };
    writer.value(id, 3);
    writer.out
}

/// The layout of a type as far as `expected` goes; see [`Layout::like`].
pub(super) fn layout_like(types: &Types, id: TypeId, expected: &str) -> String {
    let mut writer = Layout::like(types, expected);
    writer.value(id, MAX_DEPTH);
    writer.out
}

/// A layout being written.
pub(super) struct Layout<'a> {
    types: &'a Types,
    shown: Shown<'a>,
    pub(super) out: String,
}

/// Which variants of an enum are written.
#[derive(Clone, Copy)]
enum Shown<'a> {
    /// So many, from the first on.
    First(usize),
    /// Those whose names are words of this text.
    Named(&'a str),
}

impl Shown<'_> {
    fn includes(self, place: usize, variant: &Variant) -> bool {
        match self {
            Self::First(count) => place < count,
            Self::Named(text) => {
                let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
                words.any(|word| word == &*variant.name)
            }
        }
    }
}

impl<'a> Layout<'a> {
    /// Writes layouts to be compared with `expected`: of enums, only the variants that it names. An
    /// enum may grow without those who know less of it noticing.
    pub(super) fn like(types: &'a Types, expected: &'a str) -> Self {
        Self {
            types,
            shown: Shown::Named(expected),
            out: String::new(),
        }
    }

    /// Writes a type.
    pub(super) fn value(&mut self, id: TypeId, depth: usize) {
        if depth == 0 || self.out.len() > MAX_LENGTH {
            self.out.push('…');
            return;
        }
        match self.types.get(id) {
            Type::Bool => self.out.push_str("bool"),
            Type::Char => self.out.push_str("char"),
            Type::Text => self.out.push_str("text"),
            Type::Unsigned(width) => self.number("u", 8 * u32::from(*width)),
            Type::Signed(width) => self.number("i", 8 * u32::from(*width)),
            Type::Wide => self.out.push_str("u256"),
            Type::Bits => self.out.push_str("bits"),
            Type::Compact(of) => {
                self.out.push_str("compact ");
                self.value(*of, depth - 1);
            }
            Type::Sequence(of) => {
                self.out.push('[');
                self.value(*of, depth - 1);
                self.out.push(']');
            }
            Type::Array(count, of) => {
                self.out.push('[');
                self.value(*of, depth - 1);
                self.number("; ", *count);
                self.out.push(']');
            }
            Type::Composite(fields) => self.fields(fields, depth),
            Type::Enum(variants) => self.variants(variants, depth),
        }
    }

    /// Writes the fields of a struct, a tuple or a call.
    pub(super) fn fields(&mut self, fields: &Fields, depth: usize) {
        let named = matches!(fields, Fields::Named(_));
        self.out.push(if named { '{' } else { '(' });
        let mut names: &[(Arc<str>, TypeId)] = &[];
        if let Fields::Named(fields) = fields {
            names = fields;
        }
        for (place, id) in fields.types().enumerate() {
            self.comma(place);
            if let Some((name, _)) = names.get(place) {
                self.out.push_str(name);
                self.out.push_str(": ");
            }
            self.value(id, depth - 1);
        }
        self.out.push(if named { '}' } else { ')' });
    }

    fn variants(&mut self, variants: &[Variant], depth: usize) {
        self.out.push('<');
        let shown = variants.iter().enumerate();
        let shown = shown.filter(|(place, variant)| self.shown.includes(*place, variant));
        for (place, (_, variant)) in shown.collect::<Vec<_>>().into_iter().enumerate() {
            self.comma(place);
            self.out.push_str(&variant.name);
            if variant.fields.types().next().is_some() {
                self.fields(&variant.fields, depth);
            }
        }
        self.out.push('>');
    }

    fn comma(&mut self, place: usize) {
        if place > 0 {
            self.out.push_str(", ");
        }
    }

    fn number(&mut self, before: &str, number: u32) {
        self.out.push_str(before);
        self.out.push_str(&number.to_string());
    }
}
