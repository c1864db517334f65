//! Tensors as bytes: one canonical safetensors file for every shard and update (P-17, P-18).
//!
//! ```text
//! length of header (u64 LE) │ header: JSON, keys sorted, padded with spaces to 8 │ values, in name order
//! ```
//!
//! Writing is deterministic, so equal tensors have one name. Reading is total and strict: the header
//! may not be longer than that of the complete expected layout, every tensor is checked against what
//! is expected before a value is read, offsets must tile the body exactly, and the header must be the
//! very one that would be written. Knows nothing of groups or cycles.

use std::collections::BTreeMap;
use std::fmt;

use connito_engine::Tensor;
use connito_protocol::reason::ReasonCode;
use connito_protocol::rules::Codec;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::shard::{Layout, Shard};

/// Why bytes are not the tensors that were expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Rejection {
    /// The reason code that a submission with such bytes gets.
    pub code: ReasonCode,
    /// Which tensor or which bound, in words.
    pub detail: String,
}

/// Encodes tensors. Values are rounded to the codec's precision.
#[must_use]
pub fn encode(shard: &Shard, codec: Codec) -> Vec<u8> {
    let header = header_bytes(&shard.layout(), codec);
    let values: usize = shard.0.values().map(|tensor| tensor.values.len()).sum();
    let mut bytes = Vec::with_capacity(header.len() + values * 4);
    bytes.extend_from_slice(&header);
    for tensor in shard.0.values() {
        match codec {
            Codec::F32 => bytes.extend(tensor.values.iter().flat_map(|v| v.to_le_bytes())),
            Codec::Bf16 => {
                bytes.extend(tensor.values.iter().flat_map(|v| to_bf16(*v).to_le_bytes()))
            }
        }
    }
    bytes
}

/// Decodes a complete shard in f32: all tensors of the layout, no other.
///
/// # Errors
/// Any departure from what [`encode`] writes for this layout; names the tensor or the bound.
pub fn decode_shard(bytes: &[u8], layout: &Layout) -> Result<Shard, Rejection> {
    let (codec, shard) = decode(bytes, layout)?;
    if codec != Codec::F32 {
        return Err(refuse(ReasonCode::WrongDtype, "a state is stored in f32"));
    }
    match layout.keys().find(|name| !shard.0.contains_key(*name)) {
        Some(name) => Err(refuse(
            ReasonCode::MissingTensor,
            format!("{name} is missing"),
        )),
        None => Ok(shard),
    }
}

/// Decodes tensors of a layout, possibly not all of them, in whichever codec they are in. Subnormal
/// values become zero, on every machine alike (A-42).
///
/// # Errors
/// See [`decode_shard`]; in addition a value that is not finite.
pub fn decode(bytes: &[u8], layout: &Layout) -> Result<(Codec, Shard), Rejection> {
    let (header, codec, body) = read_header(bytes, layout)?;
    let mut rest = body;
    let mut tensors = BTreeMap::new();
    for (name, entry) in header.0 {
        let size = entry.data_offsets[1] - entry.data_offsets[0];
        let Some((values, tail)) = rest.split_at_checked(size) else {
            return Err(refuse(
                ReasonCode::BadLayout,
                format!("{name} exceeds the body"),
            ));
        };
        rest = tail;
        let tensor = Tensor {
            shape: entry.shape,
            values: read_values(values, codec),
        };
        if tensor.values.iter().any(|value| !value.is_finite()) {
            let detail = format!("{name} holds a value that is not finite");
            return Err(refuse(ReasonCode::NonFiniteUpdate, detail));
        }
        tensors.insert(name, tensor);
    }
    if !rest.is_empty() {
        let detail = format!("{} bytes follow the last tensor", rest.len());
        return Err(refuse(ReasonCode::BadLayout, detail));
    }
    Ok((codec, Shard(tensors)))
}

/// Size in bytes of an update with every tensor of a layout: the bound for an upload.
#[must_use]
pub fn encoded_bytes(layout: &Layout, codec: Codec) -> u64 {
    let values: u64 = layout
        .values()
        .map(|shape| shape.iter().product::<usize>() as u64)
        .sum();
    header_bytes(layout, codec).len() as u64 + values * codec.bytes_per_value()
}

fn refuse(code: ReasonCode, detail: impl Into<String>) -> Rejection {
    Rejection {
        code,
        detail: detail.into(),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// Name → entry; a name that comes twice is an error, which a plain map would hide.
#[derive(Debug, Serialize)]
struct Header(BTreeMap<String, Entry>);

const DUPLICATE_NAME: &str = "duplicate tensor name";

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Header, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((name, entry)) = access.next_entry::<String, Entry>()? {
                    if entries.insert(name, entry).is_some() {
                        return Err(serde::de::Error::custom(DUPLICATE_NAME));
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

fn dtype(codec: Codec) -> &'static str {
    match codec {
        Codec::F32 => "F32",
        Codec::Bf16 => "BF16",
    }
}

fn header_bytes(layout: &Layout, codec: Codec) -> Vec<u8> {
    let width = if codec == Codec::F32 { 4 } else { 2 };
    let mut offset = 0;
    let entries = layout.iter().map(|(name, shape)| {
        let start = offset;
        offset += shape.iter().product::<usize>() * width;
        let entry = Entry {
            dtype: dtype(codec).to_owned(),
            shape: shape.clone(),
            data_offsets: [start, offset],
        };
        (name.clone(), entry)
    });
    let header = Header(entries.collect());
    let mut json = serde_json::to_vec(&header).expect("names and numbers always serialise");
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    bytes
}

/// Checks everything but the values. Nothing is allocated beyond the header of the expected layout.
fn read_header<'a>(
    bytes: &'a [u8],
    layout: &Layout,
) -> Result<(Header, Codec, &'a [u8]), Rejection> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        let detail = format!("{} bytes, too few for a header", bytes.len());
        return Err(refuse(ReasonCode::BadLayout, detail));
    };
    let length = u64::from_le_bytes(*length);
    let most = header_bytes(layout, Codec::Bf16)
        .len()
        .max(header_bytes(layout, Codec::F32).len());
    if length > most as u64 {
        let detail = format!("header of {length} bytes, at most {most} expected");
        return Err(refuse(ReasonCode::TooLarge, detail));
    }
    let Some((json, body)) = usize::try_from(length)
        .ok()
        .and_then(|at| rest.split_at_checked(at))
    else {
        let detail = format!("header of {length} bytes in a file of {}", bytes.len());
        return Err(refuse(ReasonCode::BadLayout, detail));
    };
    let header: Header = serde_json::from_slice(json).map_err(|error| {
        let code = if error.to_string().starts_with(DUPLICATE_NAME) {
            ReasonCode::DuplicateTensor
        } else {
            ReasonCode::Malformed
        };
        refuse(
            code,
            "the header is not a map of tensors with one entry a name",
        )
    })?;
    let codec = check_entries(&header, layout)?;
    let found = header
        .0
        .iter()
        .map(|(name, entry)| (name.clone(), entry.shape.clone()))
        .collect();
    let canonical = header_bytes(&found, codec);
    if canonical[8..] != *json {
        return Err(refuse(
            ReasonCode::BadLayout,
            "tensors do not tile the body in name order",
        ));
    }
    Ok((header, codec, body))
}

fn check_entries(header: &Header, layout: &Layout) -> Result<Codec, Rejection> {
    let mut codec = None;
    for (name, entry) in &header.0 {
        let shown: String = name
            .chars()
            .take(120)
            .flat_map(char::escape_default)
            .collect();
        let Some(shape) = layout.get(name) else {
            return Err(refuse(
                ReasonCode::UnexpectedTensor,
                format!("{shown} is not part of the group"),
            ));
        };
        if entry.shape != *shape {
            let detail = format!("{shown} has shape {:?}, expected {shape:?}", entry.shape);
            return Err(refuse(ReasonCode::WrongShape, detail));
        }
        let own = [Codec::F32, Codec::Bf16]
            .into_iter()
            .find(|codec| dtype(*codec) == entry.dtype);
        match own {
            Some(own) if codec.is_none_or(|codec| codec == own) => codec = Some(own),
            _ => {
                return Err(refuse(
                    ReasonCode::WrongDtype,
                    format!("{shown} is neither F32 nor BF16 like the others"),
                ));
            }
        }
    }
    codec.ok_or_else(|| refuse(ReasonCode::MissingTensor, "there are no tensors"))
}

fn read_values(bytes: &[u8], codec: Codec) -> Vec<f32> {
    let flush = |value: f32| if value.is_subnormal() { 0.0 } else { value };
    match codec {
        Codec::F32 => {
            let (chunks, _) = bytes.as_chunks::<4>();
            chunks
                .iter()
                .map(|chunk| flush(f32::from_le_bytes(*chunk)))
                .collect()
        }
        Codec::Bf16 => {
            let (chunks, _) = bytes.as_chunks::<2>();
            chunks
                .iter()
                .map(|chunk| flush(f32::from_bits(u32::from(u16::from_le_bytes(*chunk)) << 16)))
                .collect()
        }
    }
}

/// The upper half of the bits, rounded to nearest, ties to even. A value that is not a number stays
/// one.
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return ((bits >> 16) | 0x40) as u16;
    }
    let rounded = bits + 0x7fff + ((bits >> 16) & 1);
    (rounded >> 16) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shard() -> Shard {
        let tensor = |shape: &[usize], from: f32| Tensor {
            shape: shape.to_vec(),
            values: (0..shape.iter().product::<usize>())
                .map(|i| from + i as f32 * 0.25)
                .collect(),
        };
        Shard(
            [
                ("b".to_owned(), tensor(&[2, 3], 1.0)),
                ("a".to_owned(), tensor(&[4], 7.5)),
            ]
            .into(),
        )
    }

    fn refused(bytes: &[u8]) -> ReasonCode {
        decode(bytes, &shard().layout()).unwrap_err().code
    }

    #[test]
    fn a_shard_reads_back_bit_for_bit_and_bf16_to_its_precision() {
        let bytes = encode(&shard(), Codec::F32);
        assert_eq!(decode_shard(&bytes, &shard().layout()), Ok(shard()));
        let bytes = encode(&shard(), Codec::Bf16);
        // Quarters up to 9 need no more than bf16's eight significant bits.
        assert_eq!(
            decode(&bytes, &shard().layout()),
            Ok((Codec::Bf16, shard()))
        );
        assert_eq!(
            bytes.len() as u64,
            encoded_bytes(&shard().layout(), Codec::Bf16)
        );
    }

    #[test]
    fn other_readers_of_safetensors_see_the_same_tensors() {
        let bytes = encode(&shard(), Codec::F32);
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.tensor("b").unwrap().shape(), [2, 3]);
        let first: [u8; 4] = read.tensor("b").unwrap().data()[..4].try_into().unwrap();
        assert_eq!(f32::from_le_bytes(first), 1.0);
    }

    #[test]
    fn every_departure_has_its_own_reason() {
        let mut other = shard();
        let moved = other.0.remove("a").unwrap();
        other.0.insert("router".to_owned(), moved.clone());
        assert_eq!(
            refused(&encode(&other, Codec::F32)),
            ReasonCode::UnexpectedTensor
        );

        let mut other = shard();
        other.0.insert(
            "a".to_owned(),
            Tensor {
                shape: vec![1, 4],
                ..moved
            },
        );
        assert_eq!(refused(&encode(&other, Codec::F32)), ReasonCode::WrongShape);

        let mut other = shard();
        other.0.get_mut("a").unwrap().values[1] = f32::NAN;
        assert_eq!(
            refused(&encode(&other, Codec::Bf16)),
            ReasonCode::NonFiniteUpdate
        );

        let huge = u64::MAX.to_le_bytes();
        assert_eq!(refused(&huge), ReasonCode::TooLarge);
        assert_eq!(
            refused(b"\x80\x04\x95"),
            ReasonCode::BadLayout,
            "a pickle is refused unread"
        );

        let twice = br#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
        let mut bytes = (twice.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(twice);
        assert_eq!(refused(&bytes), ReasonCode::DuplicateTensor);

        let overlapping = br#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#;
        let mut bytes = (overlapping.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(overlapping);
        bytes.extend_from_slice(&[0; 40]);
        assert_eq!(refused(&bytes), ReasonCode::BadLayout);
    }

    #[test]
    fn subnormal_values_become_zero_on_the_way_in() {
        let mut tiny = shard();
        tiny.0.get_mut("a").unwrap().values[0] = 1e-40;
        let (_, read) = decode(&encode(&tiny, Codec::F32), &tiny.layout()).unwrap();
        assert_eq!(read.0["a"].values[0], 0.0);
    }

    #[test]
    fn no_prefix_of_a_file_is_a_file() {
        let bytes = encode(&shard(), Codec::F32);
        for length in 0..bytes.len() {
            assert!(
                decode(&bytes[..length], &shard().layout()).is_err(),
                "{length} bytes"
            );
        }
    }

    proptest! {
        /// Total and canonical: whatever is accepted is what would be written (A-51), but for a value
        /// that the flip has made subnormal, which is read as zero (A-42).
        #[test]
        fn a_file_with_a_flipped_bit_is_refused_or_is_another_canonical_file(
            position in any::<proptest::sample::Index>(), bit in 0..8_u8,
        ) {
            let mut bytes = encode(&shard(), Codec::F32);
            let position = position.index(bytes.len());
            bytes[position] ^= 1 << bit;
            if let Ok((codec, read)) = decode(&bytes, &shard().layout()) {
                // Values are four bytes wide and end with the file.
                let start = bytes.len() - (bytes.len() - position).next_multiple_of(4);
                let value = f32::from_le_bytes(bytes[start..start + 4].try_into().unwrap());
                prop_assert!(encode(&read, codec) == bytes || value.is_subnormal());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes, &shard().layout());
        }
    }
}
