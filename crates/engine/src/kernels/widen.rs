//! Stored weights widened into an f32 panel: bf16, scaled int8 and scaled fp8.

use super::multiply::PANEL;
use super::vectorised::vectorised;

/// A value of fp8 e4m3fn: sign, four bits of exponent with bias 7, three of fraction; no infinities, and
/// all ones is NaN.
#[inline(always)]
fn fp8(bits: u8) -> f32 {
    let sign = u32::from(bits & 0x80) << 24;
    let magnitude = u32::from(bits & 0x7f);
    // Exponent and fraction moved into place, and the bias raised from 7 to 127.
    let normal = f32::from_bits((magnitude << 20) + (120 << 23));
    // Without an exponent the fraction counts in steps of 2⁻⁹.
    let value = if magnitude < 8 {
        magnitude as f32 * (1.0 / 512.0)
    } else {
        normal
    };
    let value = if magnitude == 0x7f { f32::NAN } else { value };
    f32::from_bits(value.to_bits() | sign)
}

vectorised! {
    /// bf16 is the upper half of an f32.
    fn widen_bf16(values: &[u16], into: &mut [f32]) {
        assert_eq!(values.len(), into.len(), "a panel of another length");
        for (into, &bits) in into.iter_mut().zip(values) {
            *into = f32::from_bits(u32::from(bits) << 16);
        }
    }

    /// `into[t][j] = values[t][j]·scales[j]`.
    fn widen_int8(values: &[i8], scales: &[f32], into: &mut [f32]) {
        assert_eq!(values.len(), into.len(), "a panel of another length");
        let mut factors = [0.0f32; PANEL];
        factors.copy_from_slice(scales);
        let (values, _) = values.as_chunks::<PANEL>();
        let (into, _) = into.as_chunks_mut::<PANEL>();
        for (into, values) in into.iter_mut().zip(values) {
            for ((into, &value), factor) in into.iter_mut().zip(values).zip(&factors) {
                *into = f32::from(value) * factor;
            }
        }
    }

    /// `into[t][j] = values[t][j]·scales[j]`, values in fp8 e4m3fn.
    fn widen_fp8(values: &[u8], scales: &[f32], into: &mut [f32]) {
        assert_eq!(values.len(), into.len(), "a panel of another length");
        let mut factors = [0.0f32; PANEL];
        factors.copy_from_slice(scales);
        let (values, _) = values.as_chunks::<PANEL>();
        let (into, _) = into.as_chunks_mut::<PANEL>();
        for (into, values) in into.iter_mut().zip(values) {
            for ((into, &value), factor) in into.iter_mut().zip(values).zip(&factors) {
                *into = fp8(value) * factor;
            }
        }
    }
}
