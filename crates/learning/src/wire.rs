//! Tensors as bytes: one canonical file for every shard and update (P-17, P-18).
//!
//! ```text
//! length of header (u64 LE) │ header: JSON, keys sorted, padded with spaces to 8 │ values, in name order
//! ```
//!
//! In `f32` and `bf16` it is a safetensors file; `int8` and `sparse` have the same header over values
//! that are written chunk by chunk. Writing is deterministic, so equal tensors have one name. Reading
//! is [`encoded`]'s, which checks a file where it lies; what is here copies tensors out of it. `header`
//! knows the first part, `chunk` the last. Knows nothing of groups or cycles.

mod chunk;
pub mod encoded;
mod header;
#[cfg(test)]
mod tests;

use connito_engine::Tensor;
use connito_protocol::reason::ReasonCode;
use connito_protocol::rules::Codec;

use crate::shard::{Layout, Shard};
pub use encoded::{CHUNK, Encoded, EncodedTensor};

/// Why bytes are not the tensors that were expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Rejection {
    /// The reason code that a submission with such bytes gets.
    pub code: ReasonCode,
    /// Which tensor or which bound, in words.
    pub detail: String,
}

fn refuse(code: ReasonCode, detail: impl Into<String>) -> Rejection {
    Rejection {
        code,
        detail: detail.into(),
    }
}

/// Encodes tensors. Values are rounded to the codec's precision; one that is not finite makes the file
/// one that nobody accepts.
#[must_use]
pub fn encode(shard: &Shard, codec: Codec) -> Vec<u8> {
    let layout = shard.layout();
    let mut bytes = header::write(&layout, codec);
    let mut end = bytes.len();
    bytes.resize(end + body_bytes(&layout, codec), 0);
    let rules = chunk::rules(codec);
    for tensor in shard.0.values() {
        for values in tensor.values.chunks(CHUNK) {
            let start = end;
            end += rules.bytes(values.len());
            rules.encode(values, &mut bytes[start..end]);
        }
    }
    bytes
}

/// Decodes a complete shard in f32: all tensors of the layout, no other.
///
/// # Errors
/// Any departure from what [`encode`] writes for this layout; names the tensor or the bound.
pub fn decode_shard(bytes: &[u8], layout: &Layout) -> Result<Shard, Rejection> {
    open_shard(bytes, layout).map(|file| read_all(&file, layout))
}

/// Opens a complete shard in f32, to be read where it lies. Refuses what [`decode_shard`] refuses.
///
/// # Errors
/// As for [`decode_shard`].
pub fn open_shard<'a>(bytes: &'a [u8], layout: &Layout) -> Result<Encoded<'a>, Rejection> {
    let file = Encoded::open(bytes, layout)?;
    if file.codec() != Codec::F32 {
        return Err(refuse(ReasonCode::WrongDtype, "a state is stored in f32"));
    }
    if let Some(name) = layout.keys().find(|name| file.tensor(name).is_none()) {
        let detail = format!("{name} is missing");
        return Err(refuse(ReasonCode::MissingTensor, detail));
    }
    Ok(file)
}

/// What a shard's bytes begin with: the values follow, tensor by tensor, in the order of the names.
#[must_use]
pub fn shard_header(layout: &Layout) -> Vec<u8> {
    header::write(layout, Codec::F32)
}

/// Decodes tensors of a layout, possibly not all of them, in whichever codec they are in. Subnormal
/// values become zero, on every machine alike (A-42).
///
/// # Errors
/// See [`Encoded::open`].
pub fn decode(bytes: &[u8], layout: &Layout) -> Result<(Codec, Shard), Rejection> {
    let file = Encoded::open(bytes, layout)?;
    Ok((file.codec(), read_all(&file, layout)))
}

/// The tensors of a file that was opened with this layout.
pub(crate) fn read_all(file: &Encoded<'_>, layout: &Layout) -> Shard {
    let tensors = layout.iter().filter_map(|(name, shape)| {
        let encoded = file.tensor(name)?;
        let mut tensor = Tensor::zeros(shape);
        for (number, values) in tensor.values.chunks_mut(CHUNK).enumerate() {
            encoded.read_chunk(number, values);
        }
        Some((name.clone(), tensor))
    });
    Shard(tensors.collect())
}

/// Size in bytes of an update with every tensor of a layout: the bound for an upload.
#[must_use]
pub fn encoded_bytes(layout: &Layout, codec: Codec) -> u64 {
    (header::write(layout, codec).len() + body_bytes(layout, codec)) as u64
}

fn body_bytes(layout: &Layout, codec: Codec) -> usize {
    let values = layout.values().map(|shape| shape.iter().product());
    values
        .map(|values| chunk::tensor_bytes(codec, values))
        .sum()
}
