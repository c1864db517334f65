//! The header of a tensor file: names, types, shapes and where each tensor's bytes lie (P-17, P-18).
//!
//! Inputs are bytes and the layout that is expected. A header is read only if it is no longer than that
//! of the complete layout, and accepted only if it is the very one that would be written for the tensors
//! that it lists; so nothing that a stranger wrote decides how much is allocated:
//! parsing takes at most a small multiple of the expected header, as a dimension takes two bytes of text
//! and eight of memory and a vector grows by doubling; a shape is multiplied out, and a header written,
//! only after every name and every shape was found to be the expected one.
//! Knows sizes of encoded tensors from [`super::chunk`], and nothing of their values.

use std::collections::BTreeMap;
use std::fmt;

use connito_protocol::reason::ReasonCode;
use connito_protocol::rules::Codec;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Rejection, chunk, refuse};
use crate::shard::Layout;

/// Longest part of a stranger's name that is repeated in a message, in characters.
const SHOWN_NAME: usize = 120;

/// Most dimensions of a stranger's shape that are.
const SHOWN_DIMENSIONS: usize = 8;

/// A header that was read and found canonical.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    pub(super) codec: Codec,
    /// Name, number of values, first and last byte of each tensor in the body; they tile it from its
    /// beginning, in this order.
    pub(super) tensors: Vec<Listed>,
    /// What follows the header, of whatever length.
    pub(super) body: &'a [u8],
}

/// A tensor as the header lists it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) values: usize,
    pub(super) bytes: usize,
}

/// The header of these tensors, with its length before it.
pub(super) fn write(layout: &Layout, codec: Codec) -> Vec<u8> {
    let mut offset = 0;
    let entries = layout.iter().map(|(name, shape)| {
        let start = offset;
        offset += chunk::tensor_bytes(codec, shape.iter().product());
        let entry = Entry {
            dtype: chunk::rules(codec).dtype().to_owned(),
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

/// Checks everything but the values and the length of the body.
pub(super) fn read<'a>(bytes: &'a [u8], layout: &Layout) -> Result<Opened<'a>, Rejection> {
    let (json, body) = split(bytes, layout)?;
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
    let found = header.0.into_iter();
    let found: Layout = found.map(|(name, entry)| (name, entry.shape)).collect();
    if write(&found, codec)[8..] != *json {
        return Err(refuse(
            ReasonCode::BadLayout,
            "tensors do not tile the body in name order",
        ));
    }
    let listed = |(name, shape): (String, Vec<usize>)| {
        let values = shape.iter().product();
        let bytes = chunk::tensor_bytes(codec, values);
        Listed {
            name,
            values,
            bytes,
        }
    };
    Ok(Opened {
        codec,
        tensors: found.into_iter().map(listed).collect(),
        body,
    })
}

/// The header's JSON and what follows it.
fn split<'a>(bytes: &'a [u8], layout: &Layout) -> Result<(&'a [u8], &'a [u8]), Rejection> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        let detail = format!("{} bytes, too few for a header", bytes.len());
        return Err(refuse(ReasonCode::BadLayout, detail));
    };
    let length = u64::from_le_bytes(*length);
    let longest = Codec::ALL
        .into_iter()
        .map(|codec| write(layout, codec).len());
    let longest = longest.max().unwrap_or(0);
    if length > longest as u64 {
        let detail = format!("header of {length} bytes, at most {longest} expected");
        return Err(refuse(ReasonCode::TooLarge, detail));
    }
    usize::try_from(length)
        .ok()
        .and_then(|at| rest.split_at_checked(at))
        .ok_or_else(|| {
            let detail = format!("header of {length} bytes in a file of {}", bytes.len());
            refuse(ReasonCode::BadLayout, detail)
        })
}

fn check_entries(header: &Header, layout: &Layout) -> Result<Codec, Rejection> {
    let mut codec = None;
    for (name, entry) in &header.0 {
        let shown = name.chars().take(SHOWN_NAME);
        let shown: String = shown.flat_map(char::escape_default).collect();
        let Some(shape) = layout.get(name) else {
            let detail = format!("{shown} is not part of the group");
            return Err(refuse(ReasonCode::UnexpectedTensor, detail));
        };
        if entry.shape != *shape {
            let found: Vec<_> = entry.shape.iter().take(SHOWN_DIMENSIONS).collect();
            let more = if found.len() < entry.shape.len() {
                " and more"
            } else {
                ""
            };
            let detail = format!("{shown} has shape {found:?}{more}, expected {shape:?}");
            return Err(refuse(ReasonCode::WrongShape, detail));
        }
        let own = |codec: &Codec| chunk::rules(*codec).dtype() == entry.dtype;
        match Codec::ALL.into_iter().find(own) {
            Some(own) if codec.is_none_or(|codec| codec == own) => codec = Some(own),
            _ => {
                let types = Codec::ALL
                    .map(|codec| chunk::rules(codec).dtype())
                    .join(", ");
                let detail = format!("{shown} is not of one of the types {types}, like the others");
                return Err(refuse(ReasonCode::WrongDtype, detail));
            }
        }
    }
    codec.ok_or_else(|| refuse(ReasonCode::MissingTensor, "there are no tensors"))
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
