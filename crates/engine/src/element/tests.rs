//! Conversions against their definitions, over every code or every random number.

use super::*;

/// Every finite value of an IEEE-like format, ascending from 0, straight from the definition.
fn definition(fraction_bits: i32, bias: i32, codes: u16) -> Vec<f64> {
    (0..codes)
        .map(|code| {
            let exponent = i32::from(code >> fraction_bits);
            let fraction =
                f64::from(code & ((1 << fraction_bits) - 1)) / f64::from(1 << fraction_bits);
            if exponent == 0 {
                fraction * f64::from(1 - bias).exp2()
            } else {
                (1.0 + fraction) * f64::from(exponent - bias).exp2()
            }
        })
        .collect()
}

/// Checks that between neighbouring codes the nearer one is taken, and the even one in the middle, for
/// both signs.
fn check_nearest(values: &[f64], sign: u16, nearest: impl Fn(f32) -> u16) {
    for (code, pair) in (0u16..).zip(values.windows(2)) {
        let middle = ((pair[0] + pair[1]) / 2.0) as f32;
        if f64::from(middle) == (pair[0] + pair[1]) / 2.0 {
            assert_eq!(nearest(middle), code + code % 2, "{middle}");
            assert_eq!(nearest(-middle), sign | (code + code % 2), "{middle}");
            assert_eq!(nearest(middle.next_down()), code, "below {middle}");
            assert_eq!(nearest(middle.next_up()), code + 1, "above {middle}");
        }
        assert_eq!(nearest(pair[0] as f32), code);
        assert_eq!(nearest(-pair[1] as f32), sign | (code + 1));
    }
}

#[test]
fn every_bf16_is_widened_exactly_and_found_again() {
    let values = definition(7, 127, 0x7f80);
    for (code, value) in (0u16..).zip(&values) {
        assert_eq!(f64::from(bf16_widen(code)), *value);
        assert_eq!(f64::from(bf16_widen(code | 0x8000)), -value);
    }
    check_nearest(&values, 0x8000, bf16_nearest);
    assert_eq!(bf16_nearest(f32::MAX), 0x7f80);
    assert_eq!(bf16_nearest(f32::NEG_INFINITY), 0xff80);
}

#[test]
fn every_f16_is_widened_exactly_and_found_again() {
    let values = definition(10, 15, 0x7c00);
    for (code, value) in (0u16..).zip(&values) {
        assert_eq!(f64::from(f16_widen(code)), *value);
        assert_eq!(f64::from(f16_widen(code | 0x8000)), -value);
    }
    check_nearest(&values, 0x8000, f16_nearest);
    assert_eq!(f16_widen(0x7c00), f32::INFINITY);
    assert_eq!(f16_widen(0xfc00), f32::NEG_INFINITY);
    assert_eq!(f16_nearest(65_519.996), 0x7bff);
    assert_eq!(f16_nearest(65_520.0), 0x7c00);
    assert_eq!(f16_nearest(f32::MIN), 0xfc00);
    assert_eq!(f16_nearest(f32::INFINITY), 0x7c00);
}

#[test]
fn every_e4m3_is_widened_exactly_and_found_again() {
    let values = definition(3, 7, 0x7f);
    for (code, value) in (0u8..).zip(&values) {
        assert_eq!(f64::from(fp8_widen(code)), *value);
        assert_eq!(f64::from(fp8_widen(code | 0x80)), -value);
    }
    assert_eq!(values.last(), Some(&448.0));
    check_nearest(&values, 0x80, |value| u16::from(fp8_nearest(value)));
    for large in [449.0, 464.0, 480.0, 1e30, f32::INFINITY] {
        assert_eq!(fp8_nearest(large), 0x7e);
        assert_eq!(fp8_nearest(-large), 0xfe);
    }
}

#[test]
fn what_is_no_number_stays_no_number() {
    for bits in [
        0x7f80_0001,
        0x7fc0_0000,
        0x7fff_ffff,
        0xffff_ffff,
        0xff80_0001,
    ] {
        let nan = f32::from_bits(bits);
        assert!(bf16_widen(bf16_nearest(nan)).is_nan());
        assert!(bf16_widen(bf16_stochastic(nan, u16::MAX)).is_nan());
        assert!(f16_widen(f16_nearest(nan)).is_nan());
        assert!(fp8_widen(fp8_nearest(nan)).is_nan());
    }
    for code in (0x7c01..=0x7fff).chain(0xfc01..=0xffff) {
        assert!(f16_widen(code).is_nan());
    }
    assert!(fp8_widen(0x7f).is_nan() && fp8_widen(0xff).is_nan());
}

/// What should happen: over all 65,536 random numbers the mean is the value itself, exactly.
/// What should not happen: a third outcome, or a change of what needs no rounding.
#[test]
fn stochastic_rounding_to_bf16_is_exact_in_expectation() {
    let inputs = [
        1.0,
        1.001,
        -1.001,
        0.3,
        -7.77e-5,
        1.999_999_9,
        3.3e38,
        1e-39,
        f32::from_bits(1),
    ];
    for value in inputs {
        let below = bf16_widen((value.to_bits() >> 16) as u16);
        let above = bf16_widen((value.to_bits() >> 16) as u16 + 1);
        let mut sum = 0.0f64;
        for random in 0..=u16::MAX {
            let rounded = bf16_widen(bf16_stochastic(value, random));
            assert!(rounded == below || rounded == above, "{value}: {rounded}");
            sum += f64::from(rounded);
        }
        assert_eq!(sum / 65_536.0, f64::from(value));
    }
    for value in [0.0, -0.0, 1.5, -448.0, f32::INFINITY, f32::NEG_INFINITY] {
        let rounded = bf16_widen(bf16_stochastic(value, u16::MAX));
        assert_eq!(rounded.to_bits(), value.to_bits());
    }
}

#[test]
fn a_matrix_takes_its_values_and_its_scales() {
    assert_eq!(Element::F32.bytes(3, 5), 60);
    assert_eq!(Element::Bf16.bytes(3, 5), 30);
    assert_eq!(Element::Int8.bytes(3, 5), 27);
    assert_eq!(Element::Fp8.bytes(3, 5), 27);
    assert_eq!(Element::Int8.bytes(0, 5), 0);
    assert_eq!(Element::Bf16.bytes(usize::MAX, 2), u64::MAX);
    assert!(Element::Fp8.is_scaled() && !Element::Bf16.is_scaled());
}
