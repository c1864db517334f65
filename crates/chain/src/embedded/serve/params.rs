//! Positional parameters, read one after the other. What is absent at the end is null. Bytes are
//! hexadecimal, with `0x` in front or without it: a real node takes both, and its tools send both.

use std::vec::IntoIter;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::Failure;

/// A longer parameter belongs to no method.
const MAX_PARAMS: usize = 8;

/// The parameters of one request that have not been read yet.
#[derive(Debug)]
pub(super) struct Params(IntoIter<Value>);

impl Params {
    pub(super) fn new(params: Value) -> Result<Self, Failure> {
        match params {
            Value::Null => Ok(Self::none()),
            Value::Array(list) if list.len() <= MAX_PARAMS => Ok(Self(list.into_iter())),
            Value::Array(_) => Err(Failure::invalid_params("too many parameters")),
            _ => Err(Failure::invalid_params("parameters are given as a list")),
        }
    }

    pub(super) fn none() -> Self {
        Self(Vec::new().into_iter())
    }

    /// The next parameter.
    pub(super) fn next<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Failure> {
        let value = self.0.next().unwrap_or_default();
        // What was sent is not repeated: it may be long.
        serde_json::from_value(value)
            .map_err(|_| Failure::invalid_params(format!("{name} is missing or of a wrong type")))
    }

    /// The next parameter as bytes.
    pub(super) fn bytes(&mut self, name: &str) -> Result<Vec<u8>, Failure> {
        let text: String = self.next(name)?;
        decode(&text).ok_or_else(|| not_hex(name))
    }

    /// The next parameter as bytes, if there is one.
    pub(super) fn optional_bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let text: Option<String> = self.next(name)?;
        text.map(|text| decode(&text).ok_or_else(|| not_hex(name)))
            .transpose()
    }

    /// The next parameter as a block's hash, if there is one.
    pub(super) fn at(&mut self) -> Result<Option<[u8; 32]>, Failure> {
        let bytes = self.optional_bytes("block hash")?;
        bytes
            .map(|bytes| {
                <[u8; 32]>::try_from(bytes)
                    .map_err(|_| Failure::invalid_params("a block hash has 32 bytes"))
            })
            .transpose()
    }

    /// Every parameter has been read.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        match self.0.all(|value| value.is_null()) {
            true => Ok(()),
            false => Err(Failure::invalid_params("too many parameters")),
        }
    }
}

/// Bytes from a text inside a parameter.
pub(super) fn bytes_of(text: &str, name: &str) -> Result<Vec<u8>, Failure> {
    decode(text).ok_or_else(|| not_hex(name))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).ok()
}

fn not_hex(name: &str) -> Failure {
    Failure::invalid_params(format!("{name} is not hexadecimal"))
}
