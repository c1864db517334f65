//! The table of tensors at the beginning of a safetensors file.
//!
//! A file is `length: u64 little-endian | table: JSON of that length | data`. The table gives every
//! tensor a type, a shape and a range of the data. Accepted are only tables whose ranges follow each
//! other without gap or overlap and end where the file ends: nothing that is accepted can be read out of
//! bounds, and a download that broke off is noticed before the first weight is used. Beside the tensors a
//! table may hold text for whoever reads it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::element::FileElement;
use super::error::HeaderError;

/// What the format allows, in bytes.
const LONGEST: usize = 100_000_000;

/// The bytes that say how long the table is.
pub(super) const PREFIX: usize = size_of::<u64>();

/// The key of a table's text.
const METADATA: &str = "__metadata__";

/// What a file says of itself.
#[derive(Debug, Default)]
pub(super) struct Header {
    /// Text by key.
    pub(super) metadata: BTreeMap<String, String>,
    /// Where the data begins in the file.
    pub(super) data: usize,
    /// In the order of their bytes.
    pub(super) tensors: Vec<(String, Entry)>,
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// As the file spells it.
    pub(super) element_type: String,
    pub(super) shape: Vec<usize>,
    /// In the whole file.
    pub(super) bytes: Range<usize>,
}

impl Entry {
    /// Its type where this engine reads it.
    pub(super) fn element(&self) -> Option<FileElement> {
        FileElement::from_safetensors(&self.element_type)
    }
}

#[derive(Default)]
struct Table {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Row>,
}

#[derive(Deserialize)]
struct Row {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor)
    }
}

/// Of two tensors of one name, a map that is read in the ordinary way would keep the last without a word.
struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut rows: A) -> Result<Table, A::Error> {
        let mut table = Table::default();
        while let Some(name) = rows.next_key::<String>()? {
            if name == METADATA {
                table.metadata = texts(rows.next_value()?);
                continue;
            }
            if table.tensors.contains_key(&name) {
                return Err(A::Error::custom(format!("tensor {name} is listed twice")));
            }
            table.tensors.insert(name, rows.next_value()?);
        }
        Ok(table)
    }
}

/// Comments of other writers may be anything; what is no text is passed over.
fn texts(metadata: serde_json::Value) -> BTreeMap<String, String> {
    let serde_json::Value::Object(entries) = metadata else {
        return BTreeMap::new();
    };
    let texts = entries.into_iter().filter_map(|(key, value)| match value {
        serde_json::Value::String(text) => Some((key, text)),
        _ => None,
    });
    texts.collect()
}

/// Where the data of a file begins that is `file` bytes long and begins with `prefix`.
pub(super) fn data_start(prefix: [u8; PREFIX], file: u64) -> Result<usize, HeaderError> {
    let bytes = u64::from_le_bytes(prefix);
    let length = usize::try_from(bytes)
        .ok()
        .filter(|length| *length <= LONGEST)
        .ok_or(HeaderError::TooLong { bytes })?;
    let start = PREFIX + length;
    if start as u64 > file {
        return Err(HeaderError::Truncated);
    }
    Ok(start)
}

/// What a file says of itself, from its first bytes, which are at least those before the data, and its
/// length.
pub(super) fn read(beginning: &[u8], file: u64) -> Result<Header, HeaderError> {
    let (prefix, _) = beginning
        .split_first_chunk()
        .ok_or(HeaderError::Truncated)?;
    let start = data_start(*prefix, file)?;
    let table = beginning.get(PREFIX..start).ok_or(HeaderError::Truncated)?;
    let table: Table =
        serde_json::from_slice(table).map_err(|source| HeaderError::Syntax { source })?;
    let tensors = entries(table.tensors, start)?;
    let end = tensors.last().map_or(start, |(_, entry)| entry.bytes.end);
    if end as u64 != file {
        return Err(HeaderError::Length {
            expected: end as u64,
            found: file,
        });
    }
    Ok(Header {
        metadata: table.metadata,
        data: start,
        tensors,
    })
}

/// The rows of a table in the order of their bytes, which begin at `start` and leave no gap.
fn entries(rows: BTreeMap<String, Row>, start: usize) -> Result<Vec<(String, Entry)>, HeaderError> {
    let mut rows: Vec<(String, Row)> = rows.into_iter().collect();
    rows.sort_by_key(|(_, row)| row.data_offsets);
    let mut end = start;
    let mut entries = Vec::with_capacity(rows.len());
    for (name, row) in rows {
        let [begin, stop] = row.data_offsets.map(|offset| start.checked_add(offset));
        let (Some(begin), Some(stop)) = (begin, stop) else {
            return Err(HeaderError::Offsets { name });
        };
        if begin != end || stop < begin {
            return Err(HeaderError::Offsets { name });
        }
        if !fills(&row, stop - begin) {
            return Err(HeaderError::Size { name });
        }
        end = stop;
        let entry = Entry {
            element_type: row.dtype,
            shape: row.shape,
            bytes: begin..stop,
        };
        entries.push((name, entry));
    }
    Ok(entries)
}

/// Whether a tensor's shape takes up `bytes`. Types unknown here are taken at their word: they are
/// copied and never computed with.
fn fills(row: &Row, bytes: usize) -> bool {
    let mut sizes = row.shape.iter();
    let numbers = sizes.try_fold(1_usize, |product, size| product.checked_mul(*size));
    match element_size(&row.dtype) {
        Some(size) => numbers.and_then(|numbers| numbers.checked_mul(size)) == Some(bytes),
        None => numbers.is_some(),
    }
}

/// Bytes of one number of a type; `None` for types unknown here.
pub(super) fn element_size(element_type: &str) -> Option<usize> {
    match element_type {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => Some(1),
        "U16" | "I16" | "F16" | "BF16" => Some(2),
        "U32" | "I32" | "F32" => Some(4),
        "U64" | "I64" | "F64" | "C64" => Some(8),
        _ => None,
    }
}

/// A tensor of a file that is to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewEntry<'a> {
    pub(super) name: &'a str,
    pub(super) element_type: &'a str,
    pub(super) shape: &'a [usize],
    pub(super) bytes: usize,
}

/// What `transformers` looks for before it believes that a file is PyTorch's.
pub(super) fn pytorch() -> BTreeMap<String, String> {
    [("format".to_owned(), "pt".to_owned())].into()
}

/// The bytes of a file up to its data, for tensors that follow each other in this order.
pub(super) fn write<'a>(
    metadata: &BTreeMap<String, String>,
    tensors: impl Iterator<Item = NewEntry<'a>>,
) -> Vec<u8> {
    let mut table = format!(r#"{{"{METADATA}":{}"#, serde_json::json!(metadata));
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.bytes;
        let row = serde_json::json!({
            "data_offsets": [offset, end],
            "dtype": tensor.element_type,
            "shape": tensor.shape,
        });
        let name = serde_json::Value::from(tensor.name);
        table.push_str(&format!(",{name}:{row}"));
        offset = end;
    }
    table.push('}');
    // Spaces bring the data to a multiple of eight bytes, so that readers may map it as numbers.
    let padding = table.len().next_multiple_of(PREFIX) - table.len();
    table.extend(std::iter::repeat_n(' ', padding));
    let mut bytes = (table.len() as u64).to_le_bytes().to_vec();
    bytes.extend(table.into_bytes());
    bytes
}
