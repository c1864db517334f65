//! A value of a runtime's type: what arguments are given as and answers are read as.
//!
//! The form is that of the type with two liberties. A newtype does not show: `NetUid(3)` is the
//! number 3, an account is its 32 bytes, so a client does not notice when a runtime wraps a number
//! in a name. And bytes are bytes: whatever is a sequence or an array of `u8` is one
//! [`Value::Bytes`]. Knows no types; which value fits which type is decided in `encode.rs`.

use std::sync::Arc;

use connito_protocol::ids::{Hotkey, Netuid, Uid};

/// A value of a runtime's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `bool`.
    Bool(bool),
    /// An unsigned integer of up to 128 bits, compact or not.
    Unsigned(u128),
    /// A signed integer of up to 128 bits.
    Signed(i128),
    /// `str` or `char`.
    Text(String),
    /// A sequence or an array of `u8`, or an integer of 256 bits in little-endian order.
    Bytes(Vec<u8>),
    /// Any other sequence or array, a tuple, or fields without names. The unit is the empty list.
    List(Vec<Self>),
    /// Fields with names, in the order of the type.
    Record(Vec<(Arc<str>, Self)>),
    /// One variant of an enum.
    Variant {
        /// Its name.
        name: Arc<str>,
        /// A list or a record; the empty list where it has no fields.
        fields: Box<Self>,
    },
}

impl Value {
    /// A variant whose fields have no names.
    #[must_use]
    pub fn variant_of(name: &str, fields: impl IntoIterator<Item = Self>) -> Self {
        Self::Variant {
            name: name.into(),
            fields: Box::new(Self::List(fields.into_iter().collect())),
        }
    }

    /// A variant whose fields have names.
    #[must_use]
    pub fn variant_with<'a>(name: &str, fields: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        Self::Variant {
            name: name.into(),
            fields: Box::new(Self::record(fields)),
        }
    }

    /// Fields with names. Their order does not matter when encoded.
    #[must_use]
    pub fn record<'a>(fields: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        let named = |(name, value): (&str, Self)| (Arc::from(name), value);
        Self::Record(fields.into_iter().map(named).collect())
    }

    /// A sequence, an array or a tuple.
    #[must_use]
    pub fn list(items: impl IntoIterator<Item = impl Into<Self>>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }

    /// The truth value, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The unsigned integer, if it is one and fits: `value.number::<u16>()`.
    #[must_use]
    pub fn number<N: TryFrom<u128>>(&self) -> Option<N> {
        match self {
            Self::Unsigned(value) => N::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The unsigned integer, if it is one.
    #[must_use]
    pub fn as_u128(&self) -> Option<u128> {
        self.number()
    }

    /// The integer of either sign, if it is one and fits.
    #[must_use]
    pub fn as_i128(&self) -> Option<i128> {
        match self {
            Self::Unsigned(value) => i128::try_from(*value).ok(),
            Self::Signed(value) => Some(*value),
            _ => None,
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The bytes, if they are bytes.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The bytes, if they are exactly `N` bytes.
    #[must_use]
    pub fn as_array<const N: usize>(&self) -> Option<[u8; N]> {
        self.as_bytes()?.try_into().ok()
    }

    /// The account, if the value is 32 bytes.
    #[must_use]
    pub fn as_hotkey(&self) -> Option<Hotkey> {
        self.as_array().map(Hotkey)
    }

    /// The elements of a sequence, an array, a tuple or of fields without names.
    #[must_use]
    pub fn items(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            Self::Variant { fields, .. } => fields.items(),
            _ => None,
        }
    }

    /// The field of this name, of a record or of a variant.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Record(fields) => fields
                .iter()
                .find_map(|(field, value)| (**field == *name).then_some(value)),
            Self::Variant { fields, .. } => fields.field(name),
            _ => None,
        }
    }

    /// The variant's name and its fields.
    #[must_use]
    pub fn variant(&self) -> Option<(&str, &Self)> {
        match self {
            Self::Variant { name, fields } => Some((name, fields)),
            _ => None,
        }
    }

    /// What an `Option` holds; the outer `None` if the value is no `Option`.
    #[must_use]
    pub fn as_option(&self) -> Option<Option<&Self>> {
        match self.variant()? {
            ("None", _) => Some(None),
            ("Some", fields) => fields.items()?.first().map(Some),
            _ => None,
        }
    }
}

macro_rules! integers {
    ($($unsigned:ty),*; $($signed:ty),*) => {
        $(impl From<$unsigned> for Value {
            fn from(value: $unsigned) -> Self {
                Self::Unsigned(value.into())
            }
        })*
        $(impl From<$signed> for Value {
            fn from(value: $signed) -> Self {
                Self::Signed(value.into())
            }
        })*
    };
}

integers!(u8, u16, u32, u64, u128; i8, i16, i32, i64, i128);

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl<const N: usize> From<[u8; N]> for Value {
    fn from(bytes: [u8; N]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<Hotkey> for Value {
    fn from(account: Hotkey) -> Self {
        account.0.into()
    }
}

impl From<Netuid> for Value {
    fn from(netuid: Netuid) -> Self {
        netuid.0.into()
    }
}

impl From<Uid> for Value {
    fn from(uid: Uid) -> Self {
        uid.0.into()
    }
}
