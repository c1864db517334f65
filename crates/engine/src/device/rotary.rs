//! Angles of rotary position embedding: plain (arXiv 2104.09864) or stretched by YaRN (arXiv 2309.00071).
//!
//! Computed once for the positions that a model is run on, from [`RotaryConfig`] alone.

use std::f64::consts::PI;

use crate::config::{RotaryConfig, YarnConfig};

/// Cosine and sine of every position and frequency, times the scaling's factor.
#[derive(Debug)]
pub struct RotaryTable {
    pub(crate) pairs: usize,
    /// `[position, pair]`.
    pub(crate) cosines: Vec<f32>,
    /// `[position, pair]`.
    pub(crate) sines: Vec<f32>,
}

impl RotaryTable {
    /// Angles `m·f_i` for positions `m < positions` and pairs `i < width/2`.
    #[must_use]
    pub fn new(config: &RotaryConfig, width: usize, positions: usize) -> Self {
        let frequencies = frequencies(config, width);
        let factor = config.scaling.map_or(1.0, |yarn| yarn.attention_factor);
        let angles = (0..positions).flat_map(|position| {
            // The angle is rounded to f32 as in the reference, then its functions are taken exactly.
            frequencies
                .iter()
                .map(move |&frequency| f64::from(position as f32 * frequency))
        });
        let (sines, cosines) = angles
            .map(|angle| ((angle.sin() * factor) as f32, (angle.cos() * factor) as f32))
            .unzip();
        Self {
            pairs: width / 2,
            cosines,
            sines,
        }
    }
}

/// `f_i = θ^(−2i/width)`, or what YaRN makes of it.
fn frequencies(config: &RotaryConfig, width: usize) -> Vec<f32> {
    let plain = (0..width / 2).map(|pair| config.theta.powf(-2.0 * pair as f64 / width as f64));
    match &config.scaling {
        None => plain.map(|frequency| frequency as f32).collect(),
        Some(yarn) => {
            let [low, high] = ramp(yarn, config.theta, width as f64);
            plain
                .enumerate()
                .map(|(pair, frequency)| {
                    let share = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    (frequency / yarn.factor * share + frequency * (1.0 - share)) as f32
                })
                .collect()
        }
    }
}

/// The pairs between which YaRN goes from keeping a frequency to dividing it.
fn ramp(yarn: &YarnConfig, theta: f64, width: f64) -> [f64; 2] {
    let pair_of = |rotations: f64| {
        width * (yarn.original_positions / (2.0 * PI * rotations)).ln() / (2.0 * theta.ln())
    };
    let low = pair_of(yarn.beta_fast).floor().max(0.0);
    let high = pair_of(yarn.beta_slow).ceil().min(width - 1.0);
    if low == high {
        [low, high + 0.001]
    } else {
        [low, high]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Pairing;

    /// DeepSeek-V2-Lite: factor 40 over 4,096 positions, 64 rotated columns.
    #[test]
    fn yarn_keeps_fast_frequencies_and_divides_slow_ones() {
        let config = RotaryConfig {
            theta: 10_000.0,
            pairing: Pairing::Interleaved,
            scaling: Some(YarnConfig {
                factor: 40.0,
                original_positions: 4096.0,
                beta_fast: 32.0,
                beta_slow: 1.0,
                attention_factor: 1.0,
                softmax_factor: 1.0,
            }),
        };
        let found = frequencies(&config, 64);
        let expected = [
            (0, 1.0),
            (9, 7.498_942e-2),
            (10, 5.623_413e-2),
            (11, 3.900_693e-2),
            (16, 5.5e-3),
            (20, 7.905_694e-4),
            (22, 1.778_279e-4),
            (23, 3.333_804e-5),
            (31, 3.333_804e-6),
        ];
        for (pair, frequency) in expected {
            let found = found[pair];
            assert!(
                (found - frequency).abs() < 1e-5 * frequency,
                "frequency {pair} is {found}, not {frequency}"
            );
        }
    }
}
