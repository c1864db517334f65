//! One object of a `config.json`, asked key by key.
//!
//! Every question names its key in the refusal, and `null` counts as absent. Ranges are part of the
//! question, so a value that comes back can be computed with.

use serde_json::{Map, Value};

use super::check::LARGEST_SIZE;
use super::error::{ConfigError, quote};

/// An object and where it lies in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys<'a> {
    object: &'a Map<String, Value>,
    /// Empty for the whole file, else `name.`.
    prefix: &'static str,
}

impl<'a> Keys<'a> {
    pub(super) fn new(object: &'a Map<String, Value>, prefix: &'static str) -> Self {
        Self { object, prefix }
    }

    /// A key as messages name it.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there, be it null.
    pub(super) fn contains(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    /// Accepts only values that are no objects themselves.
    pub(super) fn refuse_nested(&self, supported: &str) -> Result<(), ConfigError> {
        let mut values = self.object.iter();
        match values.find(|(_, value)| value.is_object()) {
            Some((key, value)) => Err(self.unsupported(key, value, supported)),
            None => Ok(()),
        }
    }

    /// A nested object; absent objects are `None`.
    pub(super) fn nested(
        &self,
        key: &str,
        prefix: &'static str,
    ) -> Result<Option<Keys<'a>>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Keys { object, prefix })),
            Some(other) => Err(self.bad(key, other, "an object")),
        }
    }

    /// A size: present and positive.
    pub(super) fn size(&self, key: &str) -> Result<usize, ConfigError> {
        self.whole(key, 1)
    }

    /// A size or `None`.
    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.get(key).map(|_| self.size(key)).transpose()
    }

    /// A whole number that is present and at least `smallest`.
    pub(super) fn whole(&self, key: &str, smallest: usize) -> Result<usize, ConfigError> {
        let value = self.get(key).ok_or_else(|| self.missing(key))?;
        value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| (smallest..=LARGEST_SIZE).contains(number))
            .ok_or_else(|| {
                let expected = format!("a whole number from {smallest} to {LARGEST_SIZE}");
                self.bad(key, value, &expected)
            })
    }

    /// A size that several keys may hold; they must agree.
    pub(super) fn size_of(&self, keys: &[&'static str]) -> Result<usize, ConfigError> {
        let mut present = keys.iter().filter(|key| self.get(key).is_some());
        let first = present
            .next()
            .or(keys.first())
            .map_or("", |first: &&'static str| first);
        let size = self.size(first)?;
        for second in present {
            if self.size(second)? != size {
                return Err(self.contradiction(first, self.name(second)));
            }
        }
        Ok(size)
    }

    /// A positive number, `absent` where the file has none.
    pub(super) fn number(&self, key: &str, absent: f64) -> Result<f64, ConfigError> {
        Ok(self.optional_number(key)?.unwrap_or(absent))
    }

    /// A positive number or `None`.
    pub(super) fn optional_number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.number_where(key, "a positive number", |number| number > 0.0)
    }

    /// A finite number that fulfils `accepted`, or `None`.
    pub(super) fn number_where(
        &self,
        key: &str,
        expected: &str,
        accepted: impl Fn(f64) -> bool,
    ) -> Result<Option<f64>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_f64()
            .filter(|number| number.is_finite() && accepted(*number))
            .map(Some)
            .ok_or_else(|| self.bad(key, value, expected))
    }

    /// A positive number of single precision or `None`.
    pub(super) fn optional_single(&self, key: &str) -> Result<Option<f32>, ConfigError> {
        let expected = "a positive number of single precision";
        let positive = |number: f64| narrow(number) > 0.0 && narrow(number).is_finite();
        Ok(self.number_where(key, expected, positive)?.map(narrow))
    }

    /// True or false, `absent` where the file has neither.
    pub(super) fn flag(&self, key: &str, absent: bool) -> Result<bool, ConfigError> {
        match self.get(key) {
            None => Ok(absent),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.bad(key, other, "true or false")),
        }
    }

    /// A token id or `None`. Files with several ids for the same purpose list the model's own first.
    pub(super) fn token(&self, key: &str) -> Result<Option<u32>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let first = match value {
            Value::Array(ids) => ids.first().unwrap_or(value),
            single => single,
        };
        match first.as_u64().map(u32::try_from) {
            Some(Ok(id)) => Ok(Some(id)),
            _ => Err(self.bad(key, value, "a token id, a list of them or null")),
        }
    }

    /// Accepts a key that is absent or satisfies `supported`.
    pub(super) fn only(
        &self,
        key: &str,
        description: &str,
        supported: impl Fn(&Value) -> bool,
    ) -> Result<(), ConfigError> {
        match self.get(key) {
            Some(value) if !supported(value) => Err(self.unsupported(key, value, description)),
            _ => Ok(()),
        }
    }

    pub(super) fn missing(&self, key: &str) -> ConfigError {
        ConfigError::MissingKey {
            key: self.name(key),
        }
    }

    pub(super) fn bad(&self, key: &str, found: &Value, expected: &str) -> ConfigError {
        ConfigError::BadValue {
            key: self.name(key),
            found: quote(found),
            expected: expected.into(),
        }
    }

    pub(super) fn unsupported(&self, key: &str, found: &Value, supported: &str) -> ConfigError {
        ConfigError::Unsupported {
            key: self.name(key),
            found: quote(found),
            supported: supported.into(),
        }
    }

    pub(super) fn contradiction(&self, first: &str, second: String) -> ConfigError {
        ConfigError::Contradiction {
            first: self.name(first),
            second,
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "rounding to single precision is the purpose"
)]
fn narrow(number: f64) -> f32 {
    number as f32
}
