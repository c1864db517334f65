//! Why a `config.json` cannot be used: one sentence that names the key at fault.

use serde_json::Value;

/// Longest part of a value that a message repeats; configurations come from other machines.
const LONGEST_QUOTE: usize = 80;

/// Which key of a `config.json` cannot be used, and why. Keys of a nested object are written
/// `object.key`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not a JSON object.
    #[error("the configuration is not a JSON object")]
    Syntax {
        /// Where the syntax breaks.
        #[source]
        source: serde_json::Error,
    },
    /// Another architecture.
    #[error("model_type is {found}, which is none of {known}")]
    ModelType {
        /// The value, as JSON.
        found: String,
        /// The architectures that are computed here.
        known: String,
    },
    /// A size or setting that has no default.
    #[error("key {key} is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A value of the wrong kind or outside its range.
    #[error("key {key} is {found}, expected {expected}")]
    BadValue {
        /// The key.
        key: String,
        /// The value, as JSON.
        found: String,
        /// What would do.
        expected: String,
    },
    /// An option that this engine does not compute.
    #[error("key {key} is {found}, which is not supported ({supported} would be)")]
    Unsupported {
        /// The key.
        key: String,
        /// The value, as JSON.
        found: String,
        /// The values that are computed here.
        supported: String,
    },
    /// Two keys for the same fact say different things.
    #[error("keys {first} and {second} contradict each other")]
    Contradiction {
        /// One key.
        first: String,
        /// The other.
        second: String,
    },
}

/// A value as a message repeats it.
pub(super) fn quote(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(LONGEST_QUOTE) {
        text.truncate(end);
        text.push('…');
    }
    text
}
