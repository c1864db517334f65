//! The table of tensors at the beginning of a safetensors file.
//!
//! A file is `length: u64 little-endian | table: JSON of that length | data`. The table gives every
//! tensor a type, a shape and a range of the data. Accepted are only tables whose ranges follow each
//! other without gap or overlap and end where the file ends: nothing that is accepted can be read out of
//! bounds, and a download that broke off is noticed before the first weight is used.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::element::FileElement;
use super::error::HeaderError;

/// What the format allows, in bytes.
const LONGEST: usize = 100_000_000;

/// The bytes that say how long the table is.
const PREFIX: usize = size_of::<u64>();

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

#[derive(Deserialize)]
struct Table {
    /// Comments; those of other writers must not be mistaken for a tensor.
    #[serde(rename = "__metadata__", default)]
    _metadata: Option<IgnoredAny>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Row>,
}

#[derive(Deserialize)]
struct Row {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// The tensors of a file, in the order of their bytes.
pub(super) fn read(file: &[u8]) -> Result<Vec<(String, Entry)>, HeaderError> {
    let (length, rest) = file.split_first_chunk().ok_or(HeaderError::Truncated)?;
    let bytes = u64::from_le_bytes(*length);
    let length = usize::try_from(bytes)
        .ok()
        .filter(|length| *length <= LONGEST)
        .ok_or(HeaderError::TooLong { bytes })?;
    let table = rest.get(..length).ok_or(HeaderError::Truncated)?;
    let table: Table =
        serde_json::from_slice(table).map_err(|source| HeaderError::Syntax { source })?;
    let mut rows: Vec<(String, Row)> = table.tensors.into_iter().collect();
    rows.sort_by_key(|(_, row)| row.data_offsets);

    let start = PREFIX + length;
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
    if end != file.len() {
        return Err(HeaderError::Length {
            expected: end as u64,
            found: file.len() as u64,
        });
    }
    Ok(entries)
}

/// Whether a tensor's shape takes up `bytes`. Types unknown here are taken at their word: they are
/// copied and never computed with.
fn fills(row: &Row, bytes: usize) -> bool {
    let mut sizes = row.shape.iter();
    let numbers = sizes.try_fold(1_usize, |product, size| product.checked_mul(*size));
    let size = match row.dtype.as_str() {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 1,
        "U16" | "I16" | "F16" | "BF16" => 2,
        "U32" | "I32" | "F32" => 4,
        "U64" | "I64" | "F64" | "C64" => 8,
        _ => return numbers.is_some(),
    };
    numbers.and_then(|numbers| numbers.checked_mul(size)) == Some(bytes)
}

/// The bytes of a file up to its data, for tensors that follow each other in this order.
pub(super) fn write<'a>(
    tensors: impl Iterator<Item = (&'a str, FileElement, &'a [usize])>,
) -> Vec<u8> {
    // What `transformers` looks for before it believes that a file is PyTorch's.
    let mut table = String::from(r#"{"__metadata__":{"format":"pt"}"#);
    let mut offset = 0;
    for (name, element, shape) in tensors {
        let end = offset + shape.iter().product::<usize>() * element.size();
        let row = serde_json::json!({
            "data_offsets": [offset, end],
            "dtype": element.to_safetensors(),
            "shape": shape,
        });
        table.push_str(&format!(",{}:{row}", serde_json::Value::from(name)));
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
