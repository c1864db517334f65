//! What the bytes of a tensor mean, in each codec (P-17).
//!
//! A tensor is written in chunks of 4,096 values, of which the last may be shorter; a chunk's size in
//! bytes follows from its number of values, so every chunk can be found without reading the ones before.
//! One file a codec. Knows no names and no shapes.

mod dense;
mod int8;
mod sparse;

use connito_protocol::reason::ReasonCode;
use connito_protocol::rules::Codec;

/// Values in a chunk.
pub const CHUNK: usize = 4_096;

/// How one codec writes and reads a chunk.
///
/// Slices of bytes are as long as [`bytes`](Self::bytes) says. `read` and `add` are given bytes that
/// passed `check`.
pub(super) trait ChunkRules {
    /// The type's name in headers.
    fn dtype(&self) -> &'static str;

    /// Size of a chunk of so many values.
    fn bytes(&self, values: usize) -> usize;

    /// Writes all of `into`. A value that is not finite leaves bytes that `check` refuses.
    fn encode(&self, values: &[f32], into: &mut [u8]);

    /// Whether these are bytes that `encode` writes for some finite values.
    fn check(&self, bytes: &[u8], values: usize) -> Result<(), Fault>;

    /// Writes all of `out`.
    fn read(&self, bytes: &[u8], out: &mut [f32]);

    /// `sum[i] + factor·value[i]`, product and sum rounded one after the other (P-31).
    fn add(&self, bytes: &[u8], factor: f32, sum: &mut [f32]);
}

/// Why a chunk is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: ReasonCode,
    pub(super) what: &'static str,
}

const NOT_FINITE: Fault = Fault {
    code: ReasonCode::NonFiniteUpdate,
    what: "a value is not finite",
};

const fn malformed(what: &'static str) -> Fault {
    Fault {
        code: ReasonCode::Malformed,
        what,
    }
}

pub(super) fn rules(codec: Codec) -> &'static dyn ChunkRules {
    match codec {
        Codec::F32 => &dense::F32,
        Codec::Bf16 => &dense::Bf16,
        Codec::Int8 => &int8::Int8,
        Codec::Sparse => &sparse::Sparse,
    }
}

/// Size of a tensor of so many values.
pub(super) fn tensor_bytes(codec: Codec, values: usize) -> usize {
    let (rules, rest) = (rules(codec), values % CHUNK);
    let last = if rest == 0 { 0 } else { rules.bytes(rest) };
    values / CHUNK * rules.bytes(CHUNK) + last
}

/// The upper half of the bits, rounded to nearest, ties to even. A value that is not a number stays
/// one.
#[inline]
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    let bits = if value.is_nan() {
        bits | 0x40_0000
    } else {
        rounded
    };
    (bits >> 16) as u16
}

#[inline]
fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// A chunk's scale as it stands on the wire.
enum Scale {
    /// Nothing in the chunk differs from zero.
    Zero,
    /// A normal number above zero.
    Normal(f32),
}

/// Reads a scale in bf16. `largest` is the multiple of it that the codec's largest value is.
fn check_scale(bits: u16, largest: f32) -> Result<Scale, Fault> {
    let scale = from_bf16(bits);
    if !(scale * largest).is_finite() {
        Err(NOT_FINITE)
    } else if bits == 0 {
        Ok(Scale::Zero)
    } else if scale >= f32::MIN_POSITIVE {
        Ok(Scale::Normal(scale))
    } else {
        Err(malformed("a scale is negative or subnormal"))
    }
}

/// Splits a chunk's bytes into the scale and the rest.
fn split_scale(bytes: &[u8]) -> (u16, &[u8]) {
    match bytes.split_first_chunk::<2>() {
        Some((scale, rest)) => (u16::from_le_bytes(*scale), rest),
        None => (0, &[]),
    }
}
