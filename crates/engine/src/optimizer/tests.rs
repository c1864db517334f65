//! Steps against a naive reference, over every storage, cut and instruction set.

mod convergence;

use super::*;
use crate::element::{bf16_nearest, bf16_widen};
use crate::kernels::Level;
use crate::kernels::optimizer::adamw;
use crate::random::Stream;

/// Several blocks and a part of one.
const COUNT: usize = 5 * BLOCK + 77;
/// In the middle of a block, and close to where the lower half of the index overflows.
const FIRST_INDEX: u64 = (1 << 32) - 1_000;

/// `COUNT` values of the given deviation.
fn values(name: &str, deviation: f32) -> Vec<f32> {
    let mut values = vec![0.0; COUNT];
    Stream::new(1, name).fill(0, deviation, &mut values);
    values
}

/// Weights in either form with their moments.
#[derive(Debug, Clone, PartialEq)]
struct State {
    wide: Vec<f32>,
    narrow: Vec<u16>,
    moments: Moments,
}

impl State {
    fn new(format: MomentsFormat) -> Self {
        let wide = values("weights", 1.0);
        Self {
            narrow: wide.iter().map(|value| bf16_nearest(*value)).collect(),
            wide,
            moments: Moments::zeros(format, COUNT),
        }
    }

    /// The weights in bf16 if `narrow`, otherwise in f32.
    fn parameters(&mut self, narrow: bool) -> ParametersMut<'_> {
        let weights = if narrow {
            WeightsMut::Bf16(&mut self.narrow)
        } else {
            WeightsMut::F32(&mut self.wide)
        };
        ParametersMut::new(weights, self.moments.as_mut(), FIRST_INDEX)
    }

    /// Everything as bits: NaN equals itself.
    fn bits(&self) -> (Vec<u32>, Vec<u16>, Vec<u32>, Vec<u8>) {
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
        let (moments, codes) = match &self.moments {
            Moments::Full { first, second } => ([&first[..], second].concat(), Vec::new()),
            Moments::Blockwise {
                first,
                second,
                scales,
            } => (
                scales.as_flattened().to_vec(),
                [&first[..], second].concat(),
            ),
        };
        (bits(&self.wide), self.narrow.clone(), bits(&moments), codes)
    }
}

const COMBINATIONS: [(MomentsFormat, bool); 4] = [
    (MomentsFormat::F32, false),
    (MomentsFormat::F32, true),
    (MomentsFormat::Blockwise8, false),
    (MomentsFormat::Blockwise8, true),
];

/// `steps` steps along fresh gradients.
fn stepped(format: MomentsFormat, narrow: bool, level: Level, chunk: usize, steps: u64) -> State {
    let mut state = State::new(format);
    for number in 1..=steps {
        let gradient = values(&format!("gradient {number}"), 0.01);
        let step = AdamW::default().step(number, 1e-2, 0.5, 42);
        let chunks = state.parameters(narrow).chunks(chunk);
        for (parameters, gradient) in chunks.zip(gradient.chunks(chunk)) {
            adamw(level, parameters, gradient, &step);
        }
    }
    state
}

/// The three equations, one parameter after another, with nothing shared with the engine.
#[test]
fn the_f32_step_is_the_published_one_to_the_last_bit_on_every_instruction_set() {
    let (beta1, beta2, epsilon, decay, rate, clip) = (0.9f32, 0.95f32, 1e-8f32, 0.01f32, 1e-2, 0.5);
    let mut weights = values("weights", 1.0);
    let mut first = vec![0.0f32; COUNT];
    let mut second = vec![0.0f32; COUNT];
    for number in 1..=3 {
        let gradient = values(&format!("gradient {number}"), 0.01);
        for index in 0..COUNT {
            let g = gradient[index] * clip;
            first[index] = beta1 * first[index] + (1.0 - beta1) * g;
            second[index] = beta2 * second[index] + (1.0 - beta2) * g * g;
            let mean = first[index] / (1.0 - beta1.powi(number));
            let square = second[index] / (1.0 - beta2.powi(number));
            let direction = mean / (square.sqrt() + epsilon);
            weights[index] -= rate * (direction + decay * weights[index]);
        }
    }
    for level in Level::available() {
        let state = stepped(MomentsFormat::F32, false, level, BLOCK, 3);
        assert!(state.wide == weights, "{level:?}");
        assert!(
            state.moments
                == Moments::Full {
                    first: first.clone(),
                    second: second.clone()
                },
            "{level:?}"
        );
    }
}

#[test]
fn every_instruction_set_and_every_cut_gives_the_same_bits() {
    for (format, narrow) in COMBINATIONS {
        let whole = stepped(format, narrow, Level::detect(), 64 * BLOCK, 4).bits();
        for level in Level::available() {
            for blocks in [1, 2, 3] {
                let cut = stepped(format, narrow, level, blocks * BLOCK, 4).bits();
                assert!(
                    cut == whole,
                    "{format:?}, bf16 {narrow}, {level:?}, {blocks}"
                );
            }
        }
    }
}

/// What should happen: the stored weights and moments follow the exact ones, off by roundings.
#[test]
fn frugal_storage_follows_the_exact_step() {
    let exact = stepped(MomentsFormat::F32, false, Level::detect(), BLOCK, 5);
    let frugal = stepped(MomentsFormat::Blockwise8, true, Level::detect(), BLOCK, 5);
    let mut bias = 0.0;
    for (exact, stored) in exact.wide.iter().zip(&frugal.narrow) {
        let error = bf16_widen(*stored) - exact;
        // Five roundings to neighbours 2⁻⁷ of the weight apart, and steps that differ by as much.
        assert!(error.abs() < 0.05, "{exact}: off by {error}");
        bias += error / COUNT as f32;
    }
    assert!(bias.abs() < 1e-3, "{bias} on average");
}

/// Gradients that halve after a hundred steps, beside one that does not: exact moments approach the new values, by
/// less than a code's step at last.
/// What should happen: the stored ones arrive, on average. Rounded to nearest they would stop on the way.
#[test]
fn eight_bit_moments_arrive_where_exact_ones_do() {
    let mut state = State::new(MomentsFormat::Blockwise8);
    let mut gradient = values("gradient", 0.02);
    gradient[0] = 0.05;
    let mut sums = [0.0; 2];
    for number in 1..=400 {
        if number == 100 {
            gradient[1..].iter_mut().for_each(|value| *value /= 2.0);
        }
        let step = AdamW::default().step(number, 1e-4, 1.0, 42);
        adamw(Level::detect(), state.parameters(false), &gradient, &step);
        let Moments::Blockwise {
            first,
            second,
            scales,
        } = &state.moments
        else {
            unreachable!("the format that was asked for");
        };
        if number <= 300 {
            continue;
        }
        let mut wide = ([0.0; BLOCK], [0.0; BLOCK]);
        let codes = (&first[..BLOCK], &second[..BLOCK]);
        blockwise::widen(codes, scales[0], &mut wide.0, &mut wide.1);
        for (index, gradient) in gradient[..BLOCK].iter().enumerate().skip(1) {
            sums[0] += wide.0[index] / gradient / (100 * (BLOCK - 1)) as f32;
            sums[1] += wide.1[index] / (gradient * gradient) / (100 * (BLOCK - 1)) as f32;
        }
    }
    assert!((sums[0] - 1.0).abs() < 0.02, "first moments: {}", sums[0]);
    assert!((sums[1] - 1.0).abs() < 0.02, "second moments: {}", sums[1]);
}

/// What should happen: a trainer that failed to refuse a broken gradient loses the blocks with the
/// broken values. What should not happen: a panic, or any other bit in any other block.
#[test]
fn a_gradient_that_is_not_finite_spoils_no_other_block() {
    let broken = [
        (BLOCK + 3, f32::NAN),
        (3 * BLOCK, f32::INFINITY),
        (3 * BLOCK + 1, f32::MAX),
    ];
    for (format, narrow) in COMBINATIONS {
        for level in Level::available() {
            let mut clean = State::new(format);
            let mut spoiled = clean.clone();
            for number in 1..=2 {
                let mut gradient = values("gradient", 0.01);
                let step = AdamW::default().step(number, 1e-2, 1.0, 42);
                adamw(level, clean.parameters(narrow), &gradient, &step);
                for (index, value) in broken {
                    gradient[index] = value;
                }
                adamw(level, spoiled.parameters(narrow), &gradient, &step);
            }
            for block in [0, 2, 4, 5] {
                let range = block * BLOCK..COUNT.min((block + 1) * BLOCK);
                assert_eq!(clean.wide[range.clone()], spoiled.wide[range.clone()]);
                assert_eq!(clean.narrow[range.clone()], spoiled.narrow[range]);
            }
        }
    }
}

#[test]
fn parameters_are_rounded_independently_in_every_step_and_at_every_index() {
    let rounded = |number, first_index| {
        // Exactly between two bf16, whatever the step: the random bits decide.
        let mut weights = vec![bf16_nearest(1.0); COUNT];
        let mut moments = Moments::zeros(MomentsFormat::F32, COUNT);
        let step = AdamW {
            weight_decay: 2f32.powi(-8),
            ..AdamW::default()
        }
        .step(number, -1.0, 1.0, 42);
        let parameters = ParametersMut::new(
            WeightsMut::Bf16(&mut weights),
            moments.as_mut(),
            first_index,
        );
        adamw(Level::detect(), parameters, &[0.0; COUNT], &step);
        weights
    };
    let weights = rounded(1, 0);
    let up = weights
        .iter()
        .filter(|weight| bf16_widen(**weight) > 1.0)
        .count();
    // Binomial: 678 on average, with a deviation of 18.
    assert!((600..757).contains(&up), "{up} of {COUNT} rounded up");
    for other in [rounded(2, 0), rounded(1, COUNT as u64)] {
        let same = weights
            .iter()
            .zip(&other)
            .filter(|(one, two)| one == two)
            .count();
        assert!((600..757).contains(&same), "{same} of {COUNT} alike");
    }
    assert_ne!(weights[..BLOCK], weights[BLOCK..2 * BLOCK]);
    assert_eq!(weights, rounded(1, 0));
}

#[test]
fn the_account_is_what_the_vectors_hold() {
    for count in [0, 1, 255, 256, 257, 10_000] {
        for format in [MomentsFormat::F32, MomentsFormat::Blockwise8] {
            let moments = Moments::zeros(format, count);
            let held = match &moments {
                Moments::Full { first, second } => 4 * (first.len() + second.len()),
                Moments::Blockwise {
                    first,
                    second,
                    scales,
                } => first.len() + second.len() + size_of_val(&scales[..]),
            };
            assert_eq!(moments.bytes(), held as u64);
            assert_eq!(moments.bytes(), format.bytes(count));
        }
    }
    // The trained experts of a DeepSeek-V2-Lite shard, 8 of 64 per layer.
    assert_eq!(MomentsFormat::F32.bytes(1_799_356_416), 14_394_851_328);
    assert_eq!(
        MomentsFormat::Blockwise8.bytes(1_799_356_416),
        3_654_942_720
    );
    assert_eq!(MomentsFormat::F32.bytes(usize::MAX), u64::MAX);
}

#[test]
fn the_corrections_survive_any_number_of_steps() {
    let step = AdamW::default().step(u64::MAX, 1e-3, 1.0, 0);
    assert!(step.correction1 == 1.0 && step.correction2 == 1.0);
    let first = AdamW::default().step(1, 1e-3, 1.0, 0).without_decay();
    assert!((first.correction2 - 0.05).abs() < 1e-6 && first.constants.weight_decay == 0.0);
}
