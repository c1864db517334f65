//! Element-wise loops and reductions: one result for all levels, near the definition in f64.

use proptest::prelude::*;

use super::{at_every_level, noise};
use crate::kernels::{
    Level, Norm, add, add_scaled, dot, exp_scaled_minus, rms_norm, rms_norm_gradient, scale,
    softmax_gradient, softmax_scaled, sum_of_squares, swiglu, swiglu_gradient,
};

const EPSILON: f32 = 1e-5;

/// Several times what the kernels' roundings add up to over the lengths used here.
fn close(value: f32, exact: f64, magnitude: f64) -> bool {
    (f64::from(value) - exact).abs() <= 4e-6 * (magnitude.abs() + exact.abs()) + 1e-37
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// Values as large as `reach`.
fn spread(seed: u64, count: usize, reach: f32) -> Vec<f32> {
    noise(seed, count)
        .iter()
        .map(|value| value * reach)
        .collect()
}

fn assert_all_close(values: &[f32], exact: impl Iterator<Item = (f64, f64)>) {
    let mut compared = 0;
    for (index, (&value, (exact, magnitude))) in values.iter().zip(exact).enumerate() {
        assert!(
            close(value, exact, magnitude),
            "at {index}: {value}, not {exact}"
        );
        compared += 1;
    }
    assert_eq!(compared, values.len());
}

proptest! {
    #[test]
    fn sums_and_scalings_follow_their_definitions(len in 0..200usize, seed: u64, factor in -3.0..3.0f32) {
        let (a, b) = (noise(seed, len), noise(seed ^ 1, len));
        let (wide_a, wide_b) = (wide(&a), wide(&b));
        let reduced = at_every_level(|level| {
            vec![dot(level, &a, &b), sum_of_squares(level, &a)]
        });
        let inner: f64 = wide_a.iter().zip(&wide_b).map(|(a, b)| a * b).sum();
        prop_assert!(close(reduced[0], inner, len as f64));
        prop_assert!(close(reduced[1], wide_a.iter().map(|a| a * a).sum(), 0.0));

        let after = |run: &dyn Fn(Level, &mut [f32])| {
            at_every_level(|level| {
                let mut into = b.clone();
                run(level, &mut into);
                into
            })
        };
        let zipped = || wide_a.iter().zip(&wide_b);
        let factor_wide = f64::from(factor);
        assert_all_close(&after(&|level, into| add(level, &a, into)), zipped().map(|(a, b)| (a + b, 1.0)));
        assert_all_close(
            &after(&|level, into| add_scaled(level, factor, &a, into)),
            zipped().map(|(a, b)| (factor_wide * a + b, 3.0)),
        );
        assert_all_close(
            &after(&|level, into| scale(level, factor, into)),
            wide_b.iter().map(|b| (factor_wide * b, 0.0)),
        );
    }

    /// The row sums to one, its logarithm of the sum gives the same probabilities again, and its
    /// gradient is that of the definition.
    #[test]
    fn softmax_follows_its_definition(len in 1..200usize, seed: u64, factor in -2.0..2.0f32) {
        let (row, by_out) = (spread(seed, len, 20.0), noise(seed ^ 1, len));
        let scaled: Vec<f64> = wide(&row).iter().map(|x| x * f64::from(factor)).collect();
        let log_sum = scaled.iter().map(|x| x.exp()).sum::<f64>().ln();
        let exact: Vec<f64> = scaled.iter().map(|x| (x - log_sum).exp()).collect();

        let forward = at_every_level(|level| {
            let mut row = row.clone();
            let log_sum = softmax_scaled(level, factor, &mut row);
            row.push(log_sum);
            row
        });
        let (probabilities, returned) = forward.split_at(len);
        prop_assert!(close(returned[0], log_sum, 40.0));
        // An argument near 40 is itself rounded by 4e-6, which is then the relative error of its power.
        assert_all_close(probabilities, exact.iter().map(|&p| (p, 2.0 * p)));
        let again = at_every_level(|level| {
            let mut row = row.clone();
            exp_scaled_minus(level, factor, returned[0], &mut row);
            row
        });
        assert_all_close(&again, exact.iter().map(|&p| (p, 4.0 * p)));

        let gradient = at_every_level(|level| {
            let mut gradient = by_out.clone();
            softmax_gradient(level, factor, probabilities, &mut gradient);
            gradient
        });
        let probabilities = wide(probabilities);
        let by_out = wide(&by_out);
        let inner: f64 = probabilities.iter().zip(&by_out).map(|(p, d)| p * d).sum();
        let exact = probabilities.iter().zip(&by_out).map(|(p, d)| {
            let factor = f64::from(factor);
            (factor * p * (d - inner), factor * p)
        });
        assert_all_close(&gradient, exact);
    }

    #[test]
    fn swiglu_and_its_gradients_follow_their_definitions(len in 0..100usize, seed: u64) {
        let (gate, up, by_out) = (spread(seed, len, 30.0), noise(seed ^ 1, len), noise(seed ^ 2, len));
        let forward = at_every_level(|level| {
            let mut out = vec![f32::NAN; len];
            swiglu(level, &gate, &up, &mut out);
            out
        });
        let gradients = at_every_level(|level| {
            let (mut gate, mut up) = (gate.clone(), up.clone());
            swiglu_gradient(level, &by_out, &mut gate, &mut up);
            [gate, up].concat()
        });
        for index in 0..len {
            let [z, u, d] = [gate[index], up[index], by_out[index]].map(f64::from);
            let sigmoid = 1.0 / (1.0 + (-z).exp());
            prop_assert!(close(forward[index], z * sigmoid * u, 0.0));
            let slope = sigmoid * (1.0 + z * (1.0 - sigmoid));
            // The two terms of the slope nearly cancel around its zero.
            prop_assert!(close(gradients[index], d * u * slope, d * u * (1.0 + z.abs()) * sigmoid));
            prop_assert!(close(gradients[len + index], d * z * sigmoid, 0.0));
        }
    }

    #[test]
    fn a_norm_and_its_gradients_follow_their_definitions(len in 1..200usize, seed: u64) {
        let (x, weight, by_out) = (noise(seed, len), noise(seed ^ 1, len), noise(seed ^ 2, len));
        let before = noise(seed ^ 3, len);
        let forward = at_every_level(|level| {
            let mut out = vec![f32::NAN; len];
            let r = rms_norm(level, &x, &weight, EPSILON, &mut out);
            out.push(r);
            out
        });
        let gradients = at_every_level(|level| {
            let norm = Norm { x: &x, weight: &weight, epsilon: EPSILON };
            let (mut by_x, mut by_weight, mut alone) = (before.clone(), before.clone(), before.clone());
            rms_norm_gradient(level, norm, &by_out, &mut by_x, Some(&mut by_weight));
            rms_norm_gradient(level, norm, &by_out, &mut alone, None);
            assert_eq!(alone, by_x, "a gradient that nobody wants changes nothing");
            [by_x, by_weight].concat()
        });
        let [x, weight, by_out, before] = [&x, &weight, &by_out, &before].map(|values| wide(values));
        let r = (x.iter().map(|x| x * x).sum::<f64>() / len as f64 + f64::from(EPSILON)).powf(-0.5);
        let inner: f64 = (0..len).map(|i| by_out[i] * weight[i] * x[i]).sum();
        assert_all_close(&forward[..len], (0..len).map(|i| (weight[i] * x[i] * r, 0.0)));
        prop_assert!(close(forward[len], r, 0.0));
        let back = r.powi(3) * inner / len as f64;
        let magnitude = 1.0 + r + r.powi(3);
        let by_x = (0..len).map(|i| (before[i] + r * by_out[i] * weight[i] - back * x[i], magnitude));
        assert_all_close(&gradients[..len], by_x);
        let by_weight = (0..len).map(|i| (before[i] + by_out[i] * x[i] * r, magnitude));
        assert_all_close(&gradients[len..], by_weight);
    }
}

/// A million arguments across the range; 1.2e-7 is one unit in the last place of a power of two.
#[test]
fn the_exponential_keeps_its_documented_error() {
    let arguments: Vec<f32> = (0..1_000_000)
        .map(|index| -87.33 + index as f32 * 1.76e-4)
        .collect();
    let powers = at_every_level(|level| {
        let mut values = arguments.clone();
        exp_scaled_minus(level, 1.0, 0.0, &mut values);
        values
    });
    for (&x, &power) in arguments.iter().zip(&powers) {
        let exact = f64::from(x).exp();
        let error = (f64::from(power) - exact).abs() / exact;
        assert!(
            error < 1.2e-7 || exact > f64::from(f32::MAX),
            "e^{x} is {exact}, not {power}"
        );
    }
}

/// A loss that swallowed a NaN would make a broken update look harmless.
#[test]
fn the_exponential_ends_in_zero_and_infinity_and_keeps_nan() {
    let payload = f32::from_bits(0xffc1_2345);
    let ends = [
        f32::INFINITY,
        88.8,
        1e30,
        f32::NEG_INFINITY,
        -87.4,
        -1e30,
        f32::NAN,
        payload,
    ];
    // Long enough that some go through vectors and some through what is left over.
    let arguments: Vec<f32> = ends.iter().copied().cycle().take(8 * 21).collect();
    let powers = at_every_level(|level| {
        let mut values = arguments.clone();
        exp_scaled_minus(level, 1.0, 0.0, &mut values);
        values
    });
    for powers in powers.chunks(ends.len()) {
        assert_eq!(
            powers[..6],
            [f32::INFINITY, f32::INFINITY, f32::INFINITY, 0.0, 0.0, 0.0]
        );
        assert!(powers[6].is_nan() && powers[7].is_nan());
    }
}

/// A row without a number to compare has no probabilities; one wild value must not hide either.
#[test]
fn softmax_of_no_number_is_nan_everywhere() {
    for len in [1, 16, 37] {
        let mut with_nan = noise(5, len);
        with_nan[len / 2] = f32::NAN;
        for row in [vec![f32::NEG_INFINITY; len], vec![f32::NAN; len], with_nan] {
            let after = at_every_level(|level| {
                let mut row = row.clone();
                let log_sum = softmax_scaled(level, 0.5, &mut row);
                row.push(log_sum);
                row
            });
            assert!(after[..len].iter().all(|p| p.is_nan()), "{after:?}");
            assert!(after[len].is_nan());
        }
    }
}

/// A mask is −∞, and what it hides gets exactly nothing.
#[test]
fn softmax_gives_masked_places_exactly_zero() {
    let row = [0.0, f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
    let after = at_every_level(|level| {
        let mut row = row.to_vec();
        softmax_scaled(level, 3.0, &mut row);
        row
    });
    assert_eq!(after, [0.5, 0.0, 0.5, 0.0]);
}
