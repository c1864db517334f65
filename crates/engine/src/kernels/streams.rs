//! Loops over long runs of stored numbers, for arithmetic that must give the same bits everywhere.
//!
//! Bytes are read where they lie, at any alignment. Every value that is read passes [`normal`], so that
//! no subnormal number reaches an addition (they cost a hundredfold on some processors, and others
//! round them to zero).

use super::vectorised::vectorised;

/// Partial sums of [`squares`]. Part of the result: another number rounds differently.
const LANES: usize = 16;

/// The value itself, or zero for one that is too small to have a leading bit.
#[inline(always)]
fn normal(value: f32) -> f32 {
    let exponent = value.to_bits() & 0x7f80_0000;
    if exponent == 0 && value != 0.0 {
        0.0
    } else {
        value
    }
}

/// Values between two looks ahead.
const STRETCH: usize = 256;

/// How far ahead of what is read memory is asked for: about as much as arrives while it is waited for.
const AHEAD_BYTES: usize = 4096;

/// Asks for the memory that lies [`AHEAD_BYTES`] behind these bytes, if there is any: the processor's own
/// prediction starts anew with every page.
#[inline(always)]
fn ask_ahead(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes.len()).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(unsafe_code, reason = "the processor's instruction is declared so")]
        // SAFETY: a hint that is never a fault, whatever address it names.
        unsafe {
            let there = bytes.as_ptr().wrapping_add(line + AHEAD_BYTES);
            _mm_prefetch::<_MM_HINT_T0>(there.cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

#[inline(always)]
fn from_f32(bytes: [u8; 4]) -> f32 {
    normal(f32::from_le_bytes(bytes))
}

#[inline(always)]
fn from_bf16(bytes: [u8; 2]) -> f32 {
    normal(f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16))
}

vectorised! {
    /// `into = values`, stored in four little-endian bytes each.
    fn read_f32(bytes: &[u8], into: &mut [f32]) {
        let (values, _) = bytes.as_chunks::<4>();
        assert_eq!(values.len(), into.len(), "a run of another length");
        for (into, values) in into.chunks_mut(STRETCH).zip(values.chunks(STRETCH)) {
            ask_ahead(values.as_flattened());
            for (into, value) in into.iter_mut().zip(values) {
                *into = from_f32(*value);
            }
        }
    }

    /// `into = values`, stored in the upper two little-endian bytes each.
    fn read_bf16(bytes: &[u8], into: &mut [f32]) {
        let (values, _) = bytes.as_chunks::<2>();
        assert_eq!(values.len(), into.len(), "a run of another length");
        for (into, values) in into.chunks_mut(STRETCH).zip(values.chunks(STRETCH)) {
            ask_ahead(values.as_flattened());
            for (into, value) in into.iter_mut().zip(values) {
                *into = from_bf16(*value);
            }
        }
    }

    /// `into += factor·values`, stored as in [`read_f32`].
    fn add_scaled_f32(factor: f32, bytes: &[u8], into: &mut [f32]) {
        let (values, _) = bytes.as_chunks::<4>();
        assert_eq!(values.len(), into.len(), "a run of another length");
        for (into, values) in into.chunks_mut(STRETCH).zip(values.chunks(STRETCH)) {
            ask_ahead(values.as_flattened());
            for (into, value) in into.iter_mut().zip(values) {
                *into += factor * from_f32(*value);
            }
        }
    }

    /// `into += factor·values`, stored as in [`read_bf16`].
    fn add_scaled_bf16(factor: f32, bytes: &[u8], into: &mut [f32]) {
        let (values, _) = bytes.as_chunks::<2>();
        assert_eq!(values.len(), into.len(), "a run of another length");
        for (into, values) in into.chunks_mut(STRETCH).zip(values.chunks(STRETCH)) {
            ask_ahead(values.as_flattened());
            for (into, value) in into.iter_mut().zip(values) {
                *into += factor * from_bf16(*value);
            }
        }
    }

    /// `bytes = values`, in four little-endian bytes each.
    fn write_f32(values: &[f32], bytes: &mut [u8]) {
        let (into, _) = bytes.as_chunks_mut::<4>();
        assert_eq!(values.len(), into.len(), "a run of another length");
        for (into, value) in into.iter_mut().zip(values) {
            *into = value.to_le_bytes();
        }
    }

    /// `Σ xᵢ²` in f64: lane l sums the squares i ≡ l (mod 16), then the lanes are added from first to
    /// last.
    fn squares(values: &[f32]) -> f64 {
        let mut lanes = [0.0f64; LANES];
        let (body, tail) = values.as_chunks::<LANES>();
        for chunk in body {
            for lane in 0..LANES {
                let value = f64::from(chunk[lane]);
                lanes[lane] += value * value;
            }
        }
        for (lane, &value) in lanes.iter_mut().zip(tail) {
            *lane += f64::from(value) * f64::from(value);
        }
        lanes.iter().sum()
    }

    /// `v ← μ·v + g`, then `φ ← φ + η·(μ·v + g)` with the new v.
    fn nesterov(rates: (f32, f32), gradient: &[f32], momentum: &mut [f32], parameters: &mut [f32]) {
        let (eta, mu) = rates;
        assert_eq!(gradient.len(), momentum.len(), "momentum of another length");
        assert_eq!(gradient.len(), parameters.len(), "parameters of another length");
        for ((phi, v), g) in parameters.iter_mut().zip(momentum).zip(gradient) {
            *v = mu * *v + g;
            *phi += eta * (mu * *v + g);
        }
    }
}
