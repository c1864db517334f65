//! `int8`: a byte a value, in multiples of one scale for each chunk.
//!
//! ```text
//! scale: bf16 │ code of each value: i8, −127 to 127            value = code·scale, exactly
//! scale = largest magnitude / 127, rounded to nearest even     code = value / scale, likewise
//! ```
//!
//! A bf16 has eight significant bits and a code seven, so no product is rounded, and the largest
//! magnitude gets the code 127 whichever way its scale was rounded. That makes the encoding canonical:
//! writing what was read gives the same bytes. A chunk in which nothing reaches 127 times the smallest
//! normal number is zero, with scale 0.

use super::{ChunkRules, Fault, Scale, check_scale, from_bf16, malformed, split_scale, to_bf16};

const LARGEST_CODE: f32 = 127.0;

/// The largest bf16 of which 127 times is finite.
const LARGEST_SCALE: u16 = 0x7c01;

/// Added to a quotient of at most 127 it leaves the nearest integer, ties to even, in the lowest bits:
/// rounding by an addition that every processor's vectors have.
const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³

/// Multiples of a chunk's scale.
#[derive(Debug)]
pub(super) struct Int8;

impl ChunkRules for Int8 {
    fn dtype(&self) -> &'static str {
        "I8C"
    }

    fn bytes(&self, values: usize) -> usize {
        2 + values
    }

    fn encode(&self, values: &[f32], into: &mut [u8]) {
        let Some((scale, codes)) = into.split_first_chunk_mut::<2>() else {
            return;
        };
        let bits = scale_of(values);
        *scale = bits.to_le_bytes();
        match check_scale(bits, LARGEST_CODE) {
            Ok(Scale::Normal(scale)) => {
                for (code, value) in codes.iter_mut().zip(values) {
                    *code = code_of(value / scale);
                }
            }
            Ok(Scale::Zero) | Err(_) => codes.fill(0),
        }
    }

    fn check(&self, bytes: &[u8], _values: usize) -> Result<(), Fault> {
        let (scale, codes) = split_scale(bytes);
        let codes = codes.iter().map(|code| code.cast_signed().unsigned_abs());
        let largest = codes.fold(0, u8::max);
        match (check_scale(scale, LARGEST_CODE)?, largest) {
            (Scale::Zero, 0) | (Scale::Normal(_), 127) => Ok(()),
            (_, 128) => Err(malformed("a code is −128")),
            (Scale::Zero, _) => Err(malformed("a scale is zero and a code is not")),
            (Scale::Normal(_), _) => Err(malformed("no code is 127 or −127")),
        }
    }

    fn read(&self, bytes: &[u8], out: &mut [f32]) {
        let (scale, codes) = split_scale(bytes);
        let scale = from_bf16(scale);
        for (out, code) in out.iter_mut().zip(codes) {
            *out = f32::from(code.cast_signed()) * scale;
        }
    }

    fn add(&self, bytes: &[u8], factor: f32, sum: &mut [f32]) {
        let (scale, codes) = split_scale(bytes);
        let scale = from_bf16(scale);
        for (sum, code) in sum.iter_mut().zip(codes) {
            *sum += factor * (f32::from(code.cast_signed()) * scale);
        }
    }
}

/// Zero where all values are next to nothing; not a number where one is not finite.
fn scale_of(values: &[f32]) -> u16 {
    // As integers: what is not a number is above infinity, which is above all others.
    let magnitudes = values.iter().map(|value| value.to_bits() & 0x7fff_ffff);
    let largest = f32::from_bits(magnitudes.fold(0, u32::max));
    if !largest.is_finite() {
        return to_bf16(f32::NAN);
    }
    let scale = to_bf16(largest / LARGEST_CODE).min(LARGEST_SCALE);
    if from_bf16(scale) < f32::MIN_POSITIVE {
        return 0;
    }
    scale
}

/// The nearest code of a quotient, ties to even.
#[inline]
fn code_of(quotient: f32) -> u8 {
    // Above 127 only where the scale could not be as large as it should.
    let quotient = quotient.clamp(-LARGEST_CODE, LARGEST_CODE);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lowest eight bits are the code"
    )]
    {
        (quotient + ROUND).to_bits() as u8
    }
}
