//! Every value by itself: `f32` exactly, `bf16` as the upper half of its bits.

use connito_engine::Exact;

use super::{ChunkRules, Fault, NOT_FINITE, from_bf16, to_bf16};

/// Four bytes a value.
#[derive(Debug)]
pub(super) struct F32;

/// Two bytes a value.
#[derive(Debug)]
pub(super) struct Bf16;

impl ChunkRules for F32 {
    fn dtype(&self) -> &'static str {
        "F32"
    }

    fn bytes(&self, values: usize) -> usize {
        values * 4
    }

    fn encode(&self, values: &[f32], into: &mut [u8]) {
        let (into, _) = into.as_chunks_mut::<4>();
        for (into, value) in into.iter_mut().zip(values) {
            *into = value.to_le_bytes();
        }
    }

    fn check(&self, bytes: &[u8], _values: usize) -> Result<(), Fault> {
        let (bytes, _) = bytes.as_chunks::<4>();
        all_finite(bytes.iter().map(|value| f32::from_le_bytes(*value)))
    }

    fn read(&self, bytes: &[u8], out: &mut [f32]) {
        Exact::detect().read_f32(bytes, out);
    }

    fn add(&self, bytes: &[u8], factor: f32, sum: &mut [f32]) {
        Exact::detect().add_scaled_f32(factor, bytes, sum);
    }
}

impl ChunkRules for Bf16 {
    fn dtype(&self) -> &'static str {
        "BF16"
    }

    fn bytes(&self, values: usize) -> usize {
        values * 2
    }

    fn encode(&self, values: &[f32], into: &mut [u8]) {
        let (into, _) = into.as_chunks_mut::<2>();
        for (into, value) in into.iter_mut().zip(values) {
            *into = to_bf16(*value).to_le_bytes();
        }
    }

    fn check(&self, bytes: &[u8], _values: usize) -> Result<(), Fault> {
        let (bytes, _) = bytes.as_chunks::<2>();
        all_finite(
            bytes
                .iter()
                .map(|value| from_bf16(u16::from_le_bytes(*value))),
        )
    }

    fn read(&self, bytes: &[u8], out: &mut [f32]) {
        Exact::detect().read_bf16(bytes, out);
    }

    fn add(&self, bytes: &[u8], factor: f32, sum: &mut [f32]) {
        Exact::detect().add_scaled_bf16(factor, bytes, sum);
    }
}

/// Looks at every value, without an early end that would keep the loop from using vectors.
fn all_finite(values: impl Iterator<Item = f32>) -> Result<(), Fault> {
    let damaged = values.fold(false, |damaged, value| damaged | !value.is_finite());
    if damaged { Err(NOT_FINITE) } else { Ok(()) }
}
