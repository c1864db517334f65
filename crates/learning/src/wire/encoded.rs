//! A checked file of tensors, read where it lies (P-18).
//!
//! Opening a file checks all of it: header, layout, the one spelling that its values have, that they are
//! finite. It allocates the header's list of tensors, which is bounded by the expected header's length
//! (see `header`), and nothing for values: these stay where they lie, so that many updates can be merged,
//! or one compared with many, chunk by chunk. [`super::decode`] allocates besides what the *layout* says,
//! and only once the whole file was found sound. After opening, reading cannot fail. What a chunk's bytes
//! mean is `chunk`'s business.

use std::collections::BTreeMap;

use connito_protocol::reason::ReasonCode;
use connito_protocol::rules::Codec;

use super::{Rejection, chunk, header, refuse};
use crate::shard::Layout;

pub use super::chunk::CHUNK;

/// A file of tensors of one layout, possibly not all of them. Borrows its bytes.
#[derive(Debug, Clone)]
pub struct Encoded<'a> {
    codec: Codec,
    tensors: BTreeMap<String, EncodedTensor<'a>>,
}

/// One tensor of such a file, in chunks of [`CHUNK`] values of which the last may be shorter.
#[derive(Debug, Clone, Copy)]
pub struct EncodedTensor<'a> {
    codec: Codec,
    values: usize,
    bytes: &'a [u8],
}

impl<'a> Encoded<'a> {
    /// Opens a file, in whichever codec it is.
    ///
    /// # Errors
    /// Any departure from what [`super::encode`] writes for tensors of this layout, and a value that is
    /// not finite; names the tensor or the bound.
    pub fn open(bytes: &'a [u8], layout: &Layout) -> Result<Self, Rejection> {
        let header = header::read(bytes, layout)?;
        let expected: usize = header.tensors.iter().map(|listed| listed.bytes).sum();
        if header.body.len() != expected {
            let found = header.body.len();
            let detail = format!("{found} bytes of values, {expected} expected");
            return Err(refuse(ReasonCode::BadLayout, detail));
        }
        let (codec, mut rest) = (header.codec, header.body);
        let mut tensors = BTreeMap::new();
        for listed in header.tensors {
            let (bytes, after) = rest.split_at(listed.bytes);
            rest = after;
            let tensor = EncodedTensor {
                codec,
                values: listed.values,
                bytes,
            };
            tensor.check(&listed.name)?;
            tensors.insert(listed.name, tensor);
        }
        Ok(Self { codec, tensors })
    }

    /// How its values are written.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Names of its tensors, ascending.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// One of its tensors; `None` if the file does not list it.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<EncodedTensor<'a>> {
        self.tensors.get(name).copied()
    }
}

impl EncodedTensor<'_> {
    /// Number of values.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a tensor has values")]
    pub fn len(&self) -> usize {
        self.values
    }

    /// Writes the values of chunk number `chunk` to `out`, subnormals as zero.
    ///
    /// # Panics
    /// If there is no such chunk, or `out` is not as long as it.
    pub fn read_chunk(&self, chunk: usize, out: &mut [f32]) {
        chunk::rules(self.codec).read(self.chunk_bytes(chunk, out.len()), out);
    }

    /// `sum[i] + factor·value[i]` for the values of chunk number `chunk`: a product, rounded, then a sum,
    /// rounded. A sparse chunk touches what it keeps and nothing else.
    ///
    /// # Panics
    /// If there is no such chunk, or `sum` is not as long as it.
    pub fn add_chunk(&self, chunk: usize, factor: f32, sum: &mut [f32]) {
        chunk::rules(self.codec).add(self.chunk_bytes(chunk, sum.len()), factor, sum);
    }

    fn chunk_bytes(&self, chunk: usize, values: usize) -> &[u8] {
        let left = self.values.saturating_sub(chunk.saturating_mul(CHUNK));
        assert!(
            values == left.min(CHUNK) && values > 0,
            "chunk {chunk} of {} values does not have {values}",
            self.values
        );
        let rules = chunk::rules(self.codec);
        let start = chunk * rules.bytes(CHUNK);
        &self.bytes[start..start + rules.bytes(values)]
    }

    fn check(&self, name: &str) -> Result<(), Rejection> {
        let rules = chunk::rules(self.codec);
        let size = rules.bytes(CHUNK);
        for (number, bytes) in self.bytes.chunks(size).enumerate() {
            let values = CHUNK.min(self.values - number * CHUNK);
            rules.check(bytes, values).map_err(|fault| {
                let detail = format!("{name}, chunk {number}: {}", fault.what);
                refuse(fault.code, detail)
            })?;
        }
        Ok(())
    }
}
