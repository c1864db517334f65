//! How bytes stand in JSON: `0x` and lower-case hexadecimal, for `#[serde(with = "hex_text")]`.

use serde::{Deserialize, Deserializer, Serializer, de};

pub(crate) fn serialize<S: Serializer>(
    bytes: &impl AsRef<[u8]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&encode(bytes.as_ref()))
}

pub(crate) fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<Vec<u8>>,
{
    let text = String::deserialize(deserializer)?;
    let bytes = decode(&text).ok_or_else(|| de::Error::custom("expected 0x and hexadecimal"))?;
    let count = bytes.len();
    T::try_from(bytes).map_err(|_| de::Error::custom(format!("{count} bytes is a wrong length")))
}

/// `0x` and lower-case hexadecimal.
pub(crate) fn encode(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

/// The bytes of `0x…`, or nothing.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.strip_prefix("0x")?).ok()
}
