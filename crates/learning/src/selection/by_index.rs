//! JSON maps whose keys are layers or experts, read so that nothing is dropped or taken for something else.
//!
//! A key is a decimal number as it is written without sign and leading zeros, and stands once: of two
//! values for one key an ordinary map would keep the last without a word. Errors name the key, whatever is
//! wrong with its value. Knows not what the values are.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};

/// Reads a map from indices; `value` reads one of its values.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByIndex<S> {
    /// What an index counts: layers or experts.
    pub(super) what: &'static str,
    pub(super) value: S,
}

impl<'de, S: DeserializeSeed<'de> + Copy> DeserializeSeed<'de> for ByIndex<S> {
    type Value = BTreeMap<usize, S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, S: DeserializeSeed<'de> + Copy> Visitor<'de> for ByIndex<S> {
    type Value = BTreeMap<usize, S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map from {}s", self.what)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let what = self.what;
        let mut map = BTreeMap::new();
        while let Some(key) = entries.next_key::<String>()? {
            let Some(index) = index(&key) else {
                return Err(A::Error::custom(format!("{what} {key:?} is not a number")));
            };
            let value = entries
                .next_value_seed(self.value)
                .map_err(|error| A::Error::custom(format!("{what} {index}: {error}")))?;
            if map.insert(index, value).is_some() {
                return Err(A::Error::custom(format!("{what} {index} is listed twice")));
            }
        }
        Ok(map)
    }
}

fn index(key: &str) -> Option<usize> {
    let index: usize = key.parse().ok()?;
    (index.to_string() == key).then_some(index)
}

/// Reads an object. Serde would take a list of the values for it as well.
pub(super) fn from_object<T: DeserializeOwned>(json: &str) -> Result<T, serde_json::Error> {
    match json.trim_start().starts_with('{') {
        true => serde_json::from_str(json),
        false => match serde_json::from_str::<IgnoredAny>(json) {
            Ok(_) => Err(serde_json::Error::custom("this is no object")),
            Err(broken) => Err(broken),
        },
    }
}

/// The map's entries in the order of their keys as text, in which published files have their layers.
pub(super) fn in_text_order<T>(map: &BTreeMap<usize, T>) -> impl Iterator<Item = (String, &T)> {
    let entries: BTreeMap<String, &T> = map
        .iter()
        .map(|(index, value)| (index.to_string(), value))
        .collect();
    entries.into_iter()
}
