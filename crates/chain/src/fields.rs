//! What a commitment record holds, how large it may be, and what writing it costs.
//!
//! A record is at most [`MAX_FIELDS`] fields and is overwritten as a whole by the next write. The
//! chain charges a write [`charge`] bytes against [`SPACE_PER_EPOCH`] per hotkey and epoch: payload
//! bytes count, tags do not, and nothing is cheaper than [`MIN_CHARGE`]. The bytes are those of the
//! Bittensor `Data` codec. Sizes are enforced before encoding, because an oversized field makes the
//! real runtime trap instead of answering.

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, Reader, put_count};
use crate::hex_text;

/// Fields in one record.
pub const MAX_FIELDS: usize = 3;
/// Bytes in one [`Field::Raw`]: what the codec's one-byte tag can express.
pub const MAX_RAW: usize = 128;
/// Bytes in one [`Field::BigRaw`].
pub const MAX_BIG_RAW: usize = 512;
/// The least a write costs, so 31 writes exhaust an epoch whatever their size.
pub const MIN_CHARGE: u64 = 100;
/// Bytes that one hotkey may write in one epoch.
pub const SPACE_PER_EPOCH: u64 = 3_100;

const TAG_RAW_EMPTY: u8 = 1;
const TAG_RAW_FULL: u8 = 129;
const TAG_BLAKE2: u8 = 130;
const TAG_SHA256: u8 = 131;
const TAG_KECCAK: u8 = 132;
const TAG_SHA3: u8 = 133;
const TAG_BIG_RAW: u8 = 136;

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
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            // `check` has bounded the length; the tag itself is the length.
            Self::Raw(bytes) => out.push(TAG_RAW_EMPTY.saturating_add(bytes.len() as u8)),
            Self::BigRaw(bytes) => {
                out.push(TAG_BIG_RAW);
                put_count(out, bytes.len());
            }
            Self::Blake2_256(_) => out.push(TAG_BLAKE2),
            Self::Sha256(_) => out.push(TAG_SHA256),
            Self::Keccak256(_) => out.push(TAG_KECCAK),
            Self::Sha3_256(_) => out.push(TAG_SHA3),
        }
        out.extend_from_slice(self.payload());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            tag @ TAG_RAW_EMPTY..=TAG_RAW_FULL => {
                Self::Raw(reader.take(usize::from(tag - TAG_RAW_EMPTY))?.to_vec())
            }
            TAG_BLAKE2 => Self::Blake2_256(reader.array()?),
            TAG_SHA256 => Self::Sha256(reader.array()?),
            TAG_KECCAK => Self::Keccak256(reader.array()?),
            TAG_SHA3 => Self::Sha3_256(reader.array()?),
            TAG_BIG_RAW => Self::BigRaw(reader.bytes(MAX_BIG_RAW)?.to_vec()),
            _ => return Err(reader.refuse("unknown field tag")),
        })
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
        let max = if matches!(field, Field::BigRaw(_)) {
            MAX_BIG_RAW
        } else {
            MAX_RAW
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

/// Appends the record in the chain's own bytes. The caller has called [`check`].
pub(crate) fn encode(fields: &[Field], out: &mut Vec<u8>) {
    put_count(out, fields.len());
    fields.iter().for_each(|field| field.encode(out));
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Vec<Field>, DecodeError> {
    (0..reader.count(MAX_FIELDS)?)
        .map(|_| Field::decode(reader))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(fields: &[Field]) -> String {
        let mut out = Vec::new();
        encode(fields, &mut out);
        hex::encode(out)
    }

    /// Bytes recorded from the official client.
    #[test]
    fn fields_have_the_bytes_of_the_main_network() {
        assert_eq!(encoded(&[Field::Raw(b"hello".to_vec())]), "040668656c6c6f");
        assert_eq!(
            encoded(&[Field::BigRaw(vec![0xaa; 200])]),
            format!("04882103{}", "aa".repeat(200))
        );
        assert_eq!(
            encoded(&[Field::Sha256([0x11; 32])]),
            format!("0483{}", "11".repeat(32))
        );
    }

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
    fn the_largest_fields_pass_and_one_byte_more_does_not() {
        assert_eq!(
            check(&[Field::Raw(vec![0; 128]), Field::BigRaw(vec![0; 512])]),
            Ok(())
        );
        let refused = |field| check(&[Field::Sha256([0; 32]), field]).unwrap_err();
        assert_eq!(
            refused(Field::Raw(vec![0; 129])),
            FieldsError::TooLarge {
                index: 1,
                bytes: 129,
                max: 128
            }
        );
        assert_eq!(
            refused(Field::BigRaw(vec![0; 513])),
            FieldsError::TooLarge {
                index: 1,
                bytes: 513,
                max: 512
            }
        );
        let four = vec![Field::Raw(Vec::new()); 4];
        assert_eq!(check(&four), Err(FieldsError::TooMany { count: 4 }));
    }

    fn field() -> impl Strategy<Value = Field> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..=MAX_RAW).prop_map(Field::Raw),
            proptest::collection::vec(any::<u8>(), 0..=MAX_BIG_RAW).prop_map(Field::BigRaw),
            any::<[u8; 32]>().prop_map(Field::Blake2_256),
            any::<[u8; 32]>().prop_map(Field::Sha256),
            any::<[u8; 32]>().prop_map(Field::Keccak256),
            any::<[u8; 32]>().prop_map(Field::Sha3_256),
        ]
    }

    proptest! {
        #[test]
        fn fields_read_back_as_they_were_written(fields in proptest::collection::vec(field(), 0..=3)) {
            let mut bytes = Vec::new();
            encode(&fields, &mut bytes);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(decode(&mut reader), Ok(fields.clone()));
            prop_assert_eq!(reader.finish(), Ok(()));
            let json = serde_json::to_string(&fields).unwrap();
            prop_assert_eq!(serde_json::from_str::<Vec<Field>>(&json).unwrap(), fields);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = decode(&mut Reader::new(&bytes));
        }
    }
}
