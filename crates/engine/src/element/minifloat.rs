//! Eight-bit floats with three bits of mantissa: magnitudes only, the sign is the caller's.
//!
//! `LOWEST` is the exponent of the smallest normal number, the only thing in which such formats differ
//! here: −6 makes e4m3fn of it, the optimiser's moments go further down. Below `2^LOWEST` the codes 0 to
//! 7 are evenly spaced (subnormal). Both directions are bit arithmetic without tables or branches, so
//! that loops over them become vector code; neither ever touches a subnormal `f32`, which some
//! processors handle a hundred times more slowly.

/// Bits of an `f32`'s mantissa that a code does not have.
const DROPPED: u32 = 23 - 3;

/// The bits of `2^exponent` as an `f32`.
const fn power(exponent: i32) -> u32 {
    ((127 + exponent) as u32) << 23
}

/// The value of `code`: exact.
#[inline(always)]
pub(crate) fn widen<const LOWEST: i32>(code: u32) -> f32 {
    let origin = power(LOWEST);
    let bits = (code << DROPPED).wrapping_add(origin);
    if code < 8 {
        // In the octave above 2^LOWEST the codes have the spacing that they have below it.
        f32::from_bits(bits) - f32::from_bits(origin)
    } else {
        f32::from_bits(bits.wrapping_sub(1 << 23))
    }
}

/// The code nearest to `magnitude` (not negative), ties to the even code; not limited to any number of
/// bits.
#[inline(always)]
pub(crate) fn nearest<const LOWEST: i32>(magnitude: f32) -> u32 {
    let bits = magnitude.to_bits();
    if bits < power(LOWEST) {
        // One unit in the last place of this number is the spacing of the lowest codes, so the addition
        // rounds once and correctly; going through `position` would round twice.
        let anchor = power(LOWEST + DROPPED as i32);
        (magnitude + f32::from_bits(anchor))
            .to_bits()
            .wrapping_sub(anchor)
    } else {
        let position = bits.wrapping_sub(power(LOWEST - 1));
        let odd = (position >> DROPPED) & 1;
        position
            .wrapping_add((1 << (DROPPED - 1)) - 1)
            .wrapping_add(odd)
            >> DROPPED
    }
}

/// One of the two codes next to `magnitude` (not negative), the upper one with the probability that
/// makes the expectation `magnitude`; not limited to any number of bits.
///
/// `random` decides with a resolution of 2⁻¹⁶ of a code's step: that is all the bias there is.
#[inline(always)]
pub(crate) fn stochastic<const LOWEST: i32>(magnitude: f32, random: u16) -> u32 {
    let half = 1 << (DROPPED - 16 - 1);
    let threshold = (u32::from(random) << (DROPPED - 16)) | half;
    position::<LOWEST>(magnitude).wrapping_add(threshold) >> DROPPED
}

/// Where `magnitude` lies among the codes, in 2⁻²⁰ of a step: linear between any two neighbours.
#[inline(always)]
fn position<const LOWEST: i32>(magnitude: f32) -> u32 {
    let bits = magnitude.to_bits();
    let origin = power(LOWEST);
    if bits < origin {
        (magnitude + f32::from_bits(origin))
            .to_bits()
            .wrapping_sub(origin)
    } else {
        bits.wrapping_sub(power(LOWEST - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_are_their_own_nearest_code() {
        fn check<const LOWEST: i32>(codes: u32) {
            for code in 0..codes {
                let value = widen::<LOWEST>(code);
                assert_eq!(nearest::<LOWEST>(value), code);
                assert_eq!(stochastic::<LOWEST>(value, u16::MAX), code);
                assert_eq!(stochastic::<LOWEST>(value, 0), code);
                assert!(value < widen::<LOWEST>(code + 1));
            }
        }
        check::<-6>(126);
        check::<-14>(127);
        check::<-30>(255);
    }

    /// What should happen: over all random numbers the mean code is the position itself, exactly.
    /// What should not happen: a systematic error at the subnormal border or where the exponent changes.
    #[test]
    fn stochastic_rounding_is_exact_in_expectation() {
        // Sixteenths of a step are representable at every one of these places.
        for (below, sixteenths) in [(0, 5), (3, 1), (7, 15), (8, 7), (15, 9), (77, 3), (126, 8)] {
            let (low, high) = (widen::<-14>(below), widen::<-14>(below + 1));
            let value = low + (high - low) * sixteenths as f32 / 16.0;
            let sum: u64 = (0..=u16::MAX)
                .map(|random| u64::from(stochastic::<-14>(value, random)))
                .sum();
            assert_eq!(
                sum,
                65_536 * u64::from(below) + 4_096 * sixteenths,
                "between the codes {below} and {}",
                below + 1
            );
        }
    }

    #[test]
    fn nearest_takes_the_even_code_on_a_tie() {
        for below in [0, 1, 6, 7, 8, 15, 16, 80] {
            let middle = (widen::<-6>(below) + widen::<-6>(below + 1)) / 2.0;
            assert_eq!(nearest::<-6>(middle), below + below % 2);
            assert_eq!(nearest::<-6>(middle.next_down()), below);
            assert_eq!(nearest::<-6>(middle.next_up()), below + 1);
        }
    }
}
