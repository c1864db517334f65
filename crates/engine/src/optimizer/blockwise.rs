//! Moments in eight bits: a float-like code per value, relative to the largest value of its block of
//! 256.
//!
//! The idea of block-wise optimiser states is that of Dettmers et al., arXiv 2110.02861: a code of eight
//! bits suffices if an outlier can spoil only its own block. What differs, and why:
//!
//! * The code is an ordinary small float ([`minifloat`]) rather than their dynamic tree with a table of
//!   256 values: it is made and read by shifts, so a loop over it is vector code; they search a table on
//!   a GPU.
//! * Rounding is stochastic. When gradients cease, a step takes 5 % of a second moment with β₂ = 0.95
//!   and 0.1 % with 0.999; neighbouring codes are 6 to 12 % apart. Rounded to nearest, such a moment
//!   would stay where it is for ever; rounded stochastically, it moves with the right probability and
//!   its expectation is that of exact AdamW.
//! * A second moment above zero never becomes zero: a parameter whose divisor vanishes would jump.
//!
//! | moment | sign, exponent, fraction | normal from | smallest | error, at most |
//! |---|---|---|---|---|
//! | first | 1, 4, 3 bits | 3.3e-5 | 4.1e-6 | 1/8 of the value, or 4.1e-6 |
//! | second | 0, 5, 3 bits | 5.0e-10 | 6.2e-11 | 1/8 of the value, or 6.2e-11 |
//!
//! as fractions of the block's largest. "Error" is one step of the code, the farthest that stochastic
//! rounding goes; its expectation is zero, except below the smallest second moment, which is rounded up.
//! Five bits of exponent for the second moment are four for its root: stored as it is, not as a root, it
//! is its own expectation that is kept (a root's would make it grow), at the same range and precision.
//! The two ranges belong together: the smallest first moment divided by the smallest root, 4.1e-6 /
//! 7.9e-6, is half of what the block's maxima give, so that a tiny value that is rounded up cannot cause
//! an update larger than an ordinary one.
//!
//! A block with a value that is not finite is lost, and no other: its scale becomes infinite or NaN.

use super::BLOCK;
use crate::element::{largest_magnitude, minifloat};
use crate::random::BlockRounding;

/// Exponent of the smallest normal first moment.
const FIRST_LOWEST: i32 = -14;
/// Exponent of the smallest normal second moment.
const SECOND_LOWEST: i32 = -30;
/// The largest code's value in both formats: 1.111 in binary, times 2⁰.
const LARGEST: f32 = 1.875;
/// 2⁻⁹³: the smallest scale. With it even the smallest second moment, 2⁻³³ of it, is a normal `f32`.
/// Moments this small are nothing beside any epsilon.
const SMALLEST_SCALE: f32 = f32::from_bits((127 - 93) << 23);

/// Reads a block's codes into as many values.
#[inline(always)]
pub(super) fn widen(
    codes: (&[u8], &[u8]),
    scales: [f32; 2],
    first: &mut [f32],
    second: &mut [f32],
) {
    for (value, code) in first.iter_mut().zip(codes.0) {
        *value = widen_first(*code) * scales[0];
    }
    for (value, code) in second.iter_mut().zip(codes.1) {
        *value = widen_second(*code) * scales[1];
    }
}

/// Writes a block's values as codes and returns its scales.
#[inline(always)]
pub(super) fn narrow(
    first: &[f32],
    second: &[f32],
    rounding: BlockRounding,
    codes: (&mut [u8], &mut [u8]),
) -> [f32; 2] {
    let scales = [scale(first), scale(second)];
    let inverses = [1.0 / scales[0], 1.0 / scales[1]];
    let values = first.iter().zip(second);
    let codes = codes.0.iter_mut().zip(codes.1);
    for (lane, ((first, second), codes)) in (0..BLOCK as u32).zip(values.zip(codes)) {
        // The lanes from 0 on round the weights.
        let random = rounding.bits(BLOCK as u32 + lane);
        *codes.0 = narrow_first(*first, inverses[0], random as u16);
        *codes.1 = narrow_second(*second, inverses[1], (random >> 16) as u16);
    }
    scales
}

/// What the largest code stands for in a block of these values, divided by that code.
#[inline(always)]
fn scale(values: &[f32]) -> f32 {
    let scale = largest_magnitude(values) / LARGEST;
    // Not `max`, which would turn NaN into a number.
    if scale < SMALLEST_SCALE {
        SMALLEST_SCALE
    } else {
        scale
    }
}

#[inline(always)]
fn widen_first(code: u8) -> f32 {
    let magnitude = minifloat::widen::<FIRST_LOWEST>(u32::from(code & 0x7f));
    f32::from_bits(magnitude.to_bits() | u32::from(code & 0x80) << 24)
}

#[inline(always)]
fn widen_second(code: u8) -> f32 {
    minifloat::widen::<SECOND_LOWEST>(u32::from(code))
}

#[inline(always)]
fn narrow_first(value: f32, inverse: f32, random: u16) -> u8 {
    let magnitude = value.abs() * inverse;
    // The largest value is the largest code; only what is not finite lies beyond.
    let code = minifloat::stochastic::<FIRST_LOWEST>(magnitude, random).min(0x7f);
    (code | (value.to_bits() >> 24) & 0x80) as u8
}

#[inline(always)]
fn narrow_second(value: f32, inverse: f32, random: u16) -> u8 {
    let code = minifloat::stochastic::<SECOND_LOWEST>(value * inverse, random).min(0xff);
    code.max(u32::from(value > 0.0)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rounding;

    /// Magnitudes from far below the smallest code up to the maximum, 1: 200 per octave.
    fn magnitudes() -> impl Iterator<Item = f32> {
        (0..=45 * 200).map(|step| (-(step as f32) / 200.0).exp2())
    }

    const INVERSE: f32 = LARGEST;
    const SCALE: f32 = 1.0 / LARGEST;

    #[test]
    fn codes_keep_the_stated_error_at_every_magnitude() {
        for value in magnitudes() {
            for random in [0, 1, 0x7fff, 0x8000, u16::MAX] {
                let first = widen_first(narrow_first(value, INVERSE, random)) * SCALE;
                assert!(
                    (first - value).abs() <= (value / 8.0).max(4.1e-6),
                    "{value}: {first}"
                );
                let negative = widen_first(narrow_first(-value, INVERSE, random)) * SCALE;
                assert!(
                    negative.to_bits() == (-first).to_bits(),
                    "{value}: {negative}"
                );
                let second = widen_second(narrow_second(value, INVERSE, random)) * SCALE;
                assert!(
                    (second - value).abs() <= (value / 8.0).max(6.3e-11),
                    "{value}: {second}"
                );
            }
        }
    }

    #[test]
    fn a_larger_value_never_gets_a_smaller_code() {
        for random in [0, 0x1234, u16::MAX] {
            let mut last = (u8::MAX, u8::MAX);
            for value in magnitudes() {
                let first = narrow_first(value, INVERSE, random);
                let second = narrow_second(value, INVERSE, random);
                assert!(first <= last.0 && second <= last.1, "{value}");
                last = (first, second);
            }
        }
    }

    /// Over all random numbers the mean is the value, to 2⁻¹⁷ of a step; hence the third condition's
    /// bound.
    #[test]
    fn rounding_keeps_the_expectation() {
        for value in [1.0, 0.97, 0.5, 0.123_4, 3.3e-3, 7.7e-5, 2.2e-5, 3e-6, 1e-7] {
            let mean = |widened: &dyn Fn(u16) -> f32| {
                (0..=u16::MAX)
                    .map(|random| f64::from(widened(random)))
                    .sum::<f64>()
                    / 65_536.0
            };
            let first = mean(&|random| widen_first(narrow_first(value, INVERSE, random)) * SCALE);
            let second =
                mean(&|random| widen_second(narrow_second(value, INVERSE, random)) * SCALE);
            let value = f64::from(value);
            assert!(
                (first - value).abs() < (value / 8.0).max(4.1e-6) / 1e5,
                "{value}: {first}"
            );
            assert!(
                (second - value).abs() < value / 8.0 / 1e5,
                "{value}: {second}"
            );
        }
    }

    #[test]
    fn a_second_moment_above_zero_stays_above_zero() {
        let mut values = [1e30, f32::from_bits(1), 1e-30, 0.0];
        let mut codes = ([0; 4], [0; 4]);
        for step in 0..1_000 {
            let rounding = Rounding::new(1, step).block(0);
            let scales = narrow(&[0.0; 4], &values, rounding, (&mut codes.0, &mut codes.1));
            let mut first = [0.0; 4];
            widen((&codes.0, &codes.1), scales, &mut first, &mut values);
            assert!(values[1] > 0.0 && values[2] > 0.0, "{values:?}");
            assert!(first == [0.0; 4] && values[3] == 0.0, "zero is zero");
        }
    }

    #[test]
    fn blocks_of_zeros_and_of_subnormal_values_are_ordinary() {
        for value in [0.0, f32::from_bits(1), 1e-40, f32::MIN_POSITIVE] {
            let mut codes = ([9; 3], [9; 3]);
            let rounding = Rounding::new(1, 1).block(0);
            let scales = narrow(
                &[value; 3],
                &[value; 3],
                rounding,
                (&mut codes.0, &mut codes.1),
            );
            let mut values = ([7.0; 3], [7.0; 3]);
            widen((&codes.0, &codes.1), scales, &mut values.0, &mut values.1);
            let smallest = SMALLEST_SCALE * 2f32.powi(-17);
            assert!(
                values
                    .0
                    .iter()
                    .all(|first| (first - value).abs() <= smallest)
            );
            assert!(
                values
                    .1
                    .iter()
                    .all(|second| (second - value).abs() <= smallest)
            );
        }
    }

    /// A block in which one value persists while the others' gradients stop: exact second moments decay
    /// to 0.999²⁰⁰ = 0.819. What should happen: the stored ones do so on average. What should not: that
    /// nearest codes would do; they are where they were after every step.
    #[test]
    fn moments_decay_although_a_step_is_a_fraction_of_a_code() {
        let start = |lane: usize| {
            if lane == 0 {
                1.0
            } else {
                0.01 + lane as f32 * 1e-4
            }
        };
        let mut values: [f32; BLOCK] = std::array::from_fn(start);
        let first = [0.0; BLOCK];
        let mut codes = ([0; BLOCK], [0; BLOCK]);
        let before: f32 = values[1..].iter().sum();
        for step in 0..200 {
            values[1..].iter_mut().for_each(|value| *value *= 0.999);
            let rounding = Rounding::new(5, step).block(0);
            let scales = narrow(&first, &values, rounding, (&mut codes.0, &mut codes.1));
            widen((&codes.0, &codes.1), scales, &mut [0.0; BLOCK], &mut values);
        }
        let left = values[1..].iter().sum::<f32>() / before;
        // One value's deviation is 4 % of it per step, 0.5 after 200; that of the mean of 255 is 0.03.
        assert!((left - 0.819).abs() < 0.1, "{left} is left");

        for code in 1..=u8::MAX {
            let decayed = widen_second(code) * 0.999;
            assert_eq!(
                minifloat::nearest::<SECOND_LOWEST>(decayed),
                u32::from(code)
            );
        }
    }
}
