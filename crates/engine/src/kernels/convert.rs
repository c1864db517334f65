//! Rows of values brought into a stored form and back, and rows of initial weights drawn.
//!
//! What a single value becomes is [`element`](crate::element)'s, what is drawn is
//! [`random`](crate::random)'s; these are the loops.

use super::vectorised::vectorised;
use crate::element::{self, FP8_LARGEST};
use crate::random::Stream;

vectorised! {
    /// The nearest bf16 of every value.
    fn round_bf16(values: &[f32], into: &mut [u16]) {
        convert(values, into, element::bf16_nearest);
    }

    /// Writes a row as integers of −127 to 127 and returns its scale: `row[i] ≈ scale·into[i]`, off by
    /// at most half a scale and the rounding of `f32`.
    ///
    /// A value that is not finite makes the scale NaN and all integers 0, so that the damage shows in
    /// whatever is computed with the row. A row of zeros gets a tiny scale.
    fn quantise_int8(row: &[f32], into: &mut [i8]) -> f32 {
        quantise(row, into, 127.0, element::int8_nearest)
    }

    /// Writes a row as e4m3fn and returns its scale: `row[i] ≈ scale·into[i]`, off by at most 1/16 of
    /// the value or 2⁻¹⁰ of the scale, whichever is more, and the rounding of `f32`.
    ///
    /// Rows of zeros and values that are not finite: as in [`quantise_int8`].
    fn quantise_fp8(row: &[f32], into: &mut [u8]) -> f32 {
        quantise(row, into, FP8_LARGEST, element::fp8_nearest)
    }

    /// Initial weights from `first_index` on: [`Stream::fill`].
    fn draw(stream: Stream, first_index: u64, deviation: f32, into: &mut [f32]) {
        stream.fill(first_index, deviation, into);
    }
}

#[inline(always)]
fn convert<One: Copy, Other>(from: &[One], into: &mut [Other], one: impl Fn(One) -> Other) {
    assert_eq!(from.len(), into.len(), "a row of another length");
    for (into, from) in into.iter_mut().zip(from) {
        *into = one(*from);
    }
}

/// Divides a row by the scale that makes its largest magnitude `largest`, and returns the scale.
#[inline(always)]
fn quantise<Code: Default + Clone>(
    row: &[f32],
    into: &mut [Code],
    largest: f32,
    one: impl Fn(f32) -> Code,
) -> f32 {
    let scale = element::row_scale(row, largest);
    if scale.is_nan() {
        into.fill(Code::default());
    } else {
        let inverse = 1.0 / scale;
        convert(row, into, |value| one(value * inverse));
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Level;

    /// A width that no vector divides.
    const WIDTH: usize = 1_003;

    fn row(name: &str, deviation: f32) -> Vec<f32> {
        let mut row = vec![0.0; WIDTH];
        Stream::new(9, name).fill(0, deviation, &mut row);
        row
    }

    #[test]
    fn quantised_rows_keep_the_stated_error() {
        for level in Level::available() {
            for deviation in [1e30, 1.0, 0.02, 1e-20, 1e-37, 1e-41] {
                let row = row("weights", deviation);
                let mut restored = vec![0.0; WIDTH];

                let mut codes = vec![0i8; WIDTH];
                let scale = quantise_int8(level, &row, &mut codes);
                for (restored, code) in restored.iter_mut().zip(&codes) {
                    *restored = f32::from(*code) * scale;
                }
                for (value, restored) in row.iter().zip(&restored) {
                    assert!(
                        (value - restored).abs() <= 0.500_1 * scale,
                        "{value}: {restored}"
                    );
                }
                assert!(codes.iter().all(|code| *code != i8::MIN));

                let mut codes = vec![0u8; WIDTH];
                let scale = quantise_fp8(level, &row, &mut codes);
                for (restored, code) in restored.iter_mut().zip(&codes) {
                    *restored = element::fp8_widen(*code) * scale;
                }
                for (value, restored) in row.iter().zip(&restored) {
                    let bound = (value.abs() / 16.0).max(scale / 1_024.0) * 1.000_1;
                    assert!((value - restored).abs() <= bound, "{value}: {restored}");
                }
            }
        }
    }

    #[test]
    fn the_largest_value_gets_the_largest_code_and_zeros_stay_zeros() {
        let mut codes = [1i8; 3];
        let scale = quantise_int8(Level::detect(), &[0.5, -2.0, 0.0], &mut codes);
        assert_eq!((codes, scale), ([32, -127, 0], 2.0 / 127.0));
        let mut codes = [1u8; 3];
        let scale = quantise_fp8(Level::detect(), &[0.5, -2.0, 0.0], &mut codes);
        assert_eq!((codes, scale), ([0x6e, 0xfe, 0], 2.0 / 448.0));
        for width in [0, 3] {
            let mut codes = vec![1i8; width];
            let scale = quantise_int8(Level::detect(), &vec![-0.0; width], &mut codes);
            assert!(scale > 0.0 && codes == vec![0; width]);
        }
    }

    #[test]
    fn a_damaged_row_is_damaged_as_a_whole() {
        for level in Level::available() {
            for damage in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut row = row("weights", 1.0);
                row[WIDTH - 2] = damage;
                let mut codes = vec![1i8; WIDTH];
                assert!(quantise_int8(level, &row, &mut codes).is_nan());
                assert!(codes.iter().all(|code| *code == 0));
                let mut codes = vec![1u8; WIDTH];
                assert!(quantise_fp8(level, &row, &mut codes).is_nan());
                assert!(codes.iter().all(|code| *code == 0));
            }
        }
    }

    /// Over bit patterns of all kinds, what is not a number included.
    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let values: Vec<f32> = (0..=u16::MAX)
            .map(|upper| {
                f32::from_bits(u32::from(upper) << 16 | u32::from(upper.wrapping_mul(0x9e37)))
            })
            .collect();
        for level in Level::available() {
            let mut narrow = vec![0; values.len()];
            round_bf16(level, &values, &mut narrow);
            assert!(
                narrow
                    .iter()
                    .zip(&values)
                    .all(|(code, value)| *code == element::bf16_nearest(*value))
            );

            let (mut drawn, mut reference) = (vec![0.0; WIDTH], vec![0.0; WIDTH]);
            let stream = Stream::new(4, "draw");
            draw(level, stream, 1 << 33, 0.02, &mut drawn);
            stream.fill(1 << 33, 0.02, &mut reference);
            assert_eq!(drawn, reference, "{level:?}");
        }
    }
}
