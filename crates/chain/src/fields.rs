//! What a commitment record holds, how large it may be, and what writing it costs.
//!
//! A record is at most [`MAX_FIELDS`] fields and is overwritten as a whole by the next write. The
//! chain charges a write [`charge`] bytes against [`SPACE_PER_EPOCH`] per hotkey and epoch: payload
//! bytes count, tags do not, and nothing is cheaper than [`MIN_CHARGE`]. The bytes are those of the
//! Bittensor `Data` codec. Sizes are enforced before encoding, because an oversized field makes the
//! real runtime trap instead of answering.

use serde::{Deserialize, Serialize};

use crate::hex_text;

/// Fields in one record.
pub const MAX_FIELDS: usize = 3;
/// Bytes in one [`Field::Raw`]: what the codec's one-byte tag can express.
pub const MAX_RAW: usize = 128;
/// Bytes in one [`Field::BigRaw`].
pub const MAX_BIG_RAW: usize = 512;
/// Bytes in one sealed field.
pub const MAX_CIPHERTEXT: usize = 1_024;
/// The least a write costs, so 31 writes exhaust an epoch whatever their size.
pub const MIN_CHARGE: u64 = 100;
/// Bytes that one hotkey may write in one epoch.
pub const SPACE_PER_EPOCH: u64 = 3_100;

/// One field of a commitment record.
///
/// A runtime may learn new kinds, and a reader skips a record it does not understand: other crates
/// therefore match with a wildcard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Field {
    /// At most [`MAX_RAW`] bytes.
    Raw(#[serde(with = "hex_text")] Vec<u8>),
    /// At most [`MAX_BIG_RAW`] bytes.
    BigRaw(#[serde(with = "hex_text")] Vec<u8>),
    /// A BLAKE2b-256 digest.
    #[serde(rename = "blake2_256")]
    Blake2_256(#[serde(with = "hex_text")] [u8; 32]),
    /// A SHA-256 digest.
    Sha256(#[serde(with = "hex_text")] [u8; 32]),
    /// A Keccak-256 digest.
    Keccak256(#[serde(with = "hex_text")] [u8; 32]),
    /// A SHA3-256 digest.
    #[serde(rename = "sha3_256")]
    Sha3_256(#[serde(with = "hex_text")] [u8; 32]),
    /// Sealed to a round of the chain's beacon; the chain opens it then.
    Timelocked {
        /// At most [`MAX_CIPHERTEXT`] bytes.
        #[serde(with = "hex_text")]
        ciphertext: Vec<u8>,
        /// The round.
        round: u64,
    },
    /// A wish of a validator's, without content.
    ResetBonds,
    /// A kind that this version does not know, by the runtime's name. What followed it is not read.
    Unknown(String),
}

impl Field {
    /// The bytes the field carries, without its tag.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        match self {
            Self::Raw(bytes) | Self::BigRaw(bytes) => bytes,
            Self::Blake2_256(digest)
            | Self::Sha256(digest)
            | Self::Keccak256(digest)
            | Self::Sha3_256(digest) => digest,
            Self::Timelocked { ciphertext, .. } => ciphertext,
            Self::ResetBonds | Self::Unknown(_) => &[],
        }
    }
}

/// A record that no chain would accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// More than [`MAX_FIELDS`].
    #[error("a commitment of {count} fields, the chain takes {MAX_FIELDS}")]
    TooMany {
        /// Fields given.
        count: usize,
    },
    /// A field beyond its kind's bound.
    #[error("commitment field {index} holds {bytes} bytes, the chain takes {max}")]
    TooLarge {
        /// Position of the field in the record.
        index: usize,
        /// Its payload.
        bytes: usize,
        /// The bound of its kind.
        max: usize,
    },
}

/// Checks the number of fields and the size of each.
///
/// # Errors
/// More than [`MAX_FIELDS`] fields, or a field whose payload exceeds its kind's bound.
pub fn check(fields: &[Field]) -> Result<(), FieldsError> {
    if fields.len() > MAX_FIELDS {
        return Err(FieldsError::TooMany {
            count: fields.len(),
        });
    }
    for (index, field) in fields.iter().enumerate() {
        let max = match field {
            Field::BigRaw(_) => MAX_BIG_RAW,
            Field::Timelocked { .. } => MAX_CIPHERTEXT,
            _ => MAX_RAW,
        };
        let bytes = field.payload().len();
        if bytes > max {
            return Err(FieldsError::TooLarge { index, bytes, max });
        }
    }
    Ok(())
}

/// What writing this record costs, in bytes of the epoch's space.
#[must_use]
pub fn charge(fields: &[Field]) -> u64 {
    let payload: usize = fields.iter().map(|field| field.payload().len()).sum();
    MIN_CHARGE.max(payload as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_write_costs_a_hundred_bytes_and_a_large_one_its_payload() {
        assert_eq!(charge(&[Field::Raw(b"hello".to_vec())]), 100);
        assert_eq!(charge(&[Field::BigRaw(vec![0; 512])]), 512);
        assert_eq!(
            charge(&[Field::Raw(vec![0; 90]), Field::Blake2_256([0; 32])]),
            122
        );
        assert_eq!(charge(&[]), 100);
    }

    #[test]
    fn what_the_runtime_would_trap_on_is_refused_by_name() {
        let raw = |bytes: usize| Field::Raw(vec![0; bytes]);
        let sealed = |bytes: usize| Field::Timelocked {
            ciphertext: vec![0; bytes],
            round: 1,
        };
        assert!(check(&[raw(128), Field::BigRaw(vec![0; 512]), sealed(1_024)]).is_ok());
        let four = [raw(0), raw(0), raw(0), raw(0)];
        assert_eq!(check(&four), Err(FieldsError::TooMany { count: 4 }));
        for (field, max) in [
            (raw(129), 128),
            (Field::BigRaw(vec![0; 513]), 512),
            (sealed(1_025), 1_024),
        ] {
            let bytes = max + 1;
            let expected = FieldsError::TooLarge {
                index: 0,
                bytes,
                max,
            };
            assert_eq!(check(&[field]), Err(expected));
        }
    }
}
