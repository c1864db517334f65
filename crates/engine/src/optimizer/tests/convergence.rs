//! Whole optimisations, small enough to repeat in every storage.

use super::*;
use crate::random::Stream;

/// How a run keeps its weights and moments.
#[derive(Debug, Clone, Copy)]
enum Storage {
    /// Everything in f32.
    Exact,
    /// bf16 rounded stochastically, moments in eight bits.
    Frugal,
    /// bf16 rounded to nearest, moments in f32: what the engine does not do, and why.
    Nearest,
}

struct Run {
    storage: Storage,
    constants: AdamW,
    number: u64,
    wide: Vec<f32>,
    narrow: Vec<u16>,
    moments: Moments,
}

impl Run {
    fn new(storage: Storage, constants: AdamW, initial: &[f32]) -> Self {
        let format = match storage {
            Storage::Frugal => MomentsFormat::Blockwise8,
            Storage::Exact | Storage::Nearest => MomentsFormat::F32,
        };
        Self {
            storage,
            constants,
            number: 0,
            wide: initial.to_vec(),
            narrow: initial.iter().map(|value| bf16_nearest(*value)).collect(),
            moments: Moments::zeros(format, initial.len()),
        }
    }

    /// One step along what `gradient` says of the present weights.
    fn step(&mut self, rate: f32, gradient: impl FnOnce(&[f32]) -> Vec<f32>) {
        self.number += 1;
        let step = self.constants.step(self.number, rate, 1.0, 11);
        let gradient = gradient(&self.wide);
        let weights = match self.storage {
            Storage::Frugal => WeightsMut::Bf16(&mut self.narrow),
            Storage::Exact | Storage::Nearest => WeightsMut::F32(&mut self.wide),
        };
        let parameters = ParametersMut::new(weights, self.moments.as_mut(), 0);
        adamw(Level::detect(), parameters, &gradient, &step);
        match self.storage {
            Storage::Exact => {}
            Storage::Frugal => {
                self.wide = self
                    .narrow
                    .iter()
                    .map(|stored| bf16_widen(*stored))
                    .collect();
            }
            Storage::Nearest => {
                for weight in &mut self.wide {
                    *weight = bf16_widen(bf16_nearest(*weight));
                }
            }
        }
    }
}

/// Values on (−1, 1), the same for all storages.
fn uniform(name: &str, first: usize, count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    Stream::new(3, name).fill(first as u64, 1.0 / 3f32.sqrt(), &mut values);
    values
}

/// `½ Σ h·(w − t)²` with h from 1 down to 1e-4 in every block, and noisy gradients: the loss before and
/// after.
fn quadratic(storage: Storage, beta2: f32) -> (f32, f32) {
    const COUNT: usize = 1_000;
    const STEPS: usize = 800;
    let curvature: Vec<f32> = uniform("curvature", 0, COUNT)
        .iter()
        .map(|value| 10f32.powf(2.0 * value - 2.0))
        .collect();
    let target: Vec<f32> = uniform("target", 0, COUNT)
        .iter()
        .map(|value| 1.5 + 0.25 * value)
        .collect();
    let constants = AdamW {
        beta2,
        weight_decay: 0.0,
        ..AdamW::default()
    };
    let loss = |weights: &[f32]| {
        let terms = weights.iter().zip(&target).zip(&curvature);
        terms
            .map(|((w, t), h)| 0.5 * h * (w - t).powi(2))
            .sum::<f32>()
    };
    let mut run = Run::new(storage, constants, &[2.0; COUNT]);
    let before = loss(&run.wide);
    for number in 0..STEPS {
        let noise = uniform("noise", number * COUNT, COUNT);
        // Down to nothing, as every schedule of a cycle ends.
        let rate = 2e-3 * (1.0 - number as f32 / STEPS as f32);
        run.step(rate, |weights| {
            let terms = weights.iter().zip(&target).zip(&curvature).zip(&noise);
            terms
                .map(|(((w, t), h), noise)| h * (w - t + 0.5 * noise))
                .collect()
        });
    }
    (before, loss(&run.wide))
}

/// What should happen: bf16 weights and 8-bit moments end within a quarter of exact AdamW's loss,
/// curvatures of four orders of magnitude in one block notwithstanding, with a short and with a long
/// memory of squares. What should not happen: that rounding to nearest would do as well. At 2 the
/// spacing of bf16 is eight times the largest step, so those weights never move: the problem tells the
/// two apart.
#[test]
fn an_ill_conditioned_quadratic_is_solved_in_a_third_of_the_memory() {
    for beta2 in [0.95, 0.999] {
        let (before, exact) = quadratic(Storage::Exact, beta2);
        assert!(exact < before / 20.0, "{before} to {exact}");
        let (_, frugal) = quadratic(Storage::Frugal, beta2);
        assert!(frugal < 1.25 * exact, "{frugal} against {exact}");
        let (_, nearest) = quadratic(Storage::Nearest, beta2);
        assert!(nearest == before, "{before} to {nearest}");
    }
}

/// As above, with the noise of batches: within 2 % of exact AdamW's loss on all examples.
#[test]
fn a_noisy_logistic_regression_is_solved_in_a_third_of_the_memory() {
    let (before, exact) = logistic(Storage::Exact);
    assert!(exact < 0.8 * before, "{before} to {exact}");
    let (_, frugal) = logistic(Storage::Frugal);
    assert!(frugal < 1.02 * exact, "{frugal} against {exact}");
    let (_, nearest) = logistic(Storage::Nearest);
    assert!(nearest > 0.99 * before, "{before} to {nearest}");
}

/// Two classes that overlap, features of three scales, batches of 32: the mean loss over all examples,
/// before and after. Weights are read relative to 1, where they begin: near 0 even rounding to nearest
/// would see small steps.
fn logistic(storage: Storage) -> (f32, f32) {
    const FEATURES: usize = 300;
    const EXAMPLES: usize = 1_000;
    const BATCH: usize = 32;
    const STEPS: usize = 600;
    let truth = uniform("truth", 0, FEATURES);
    let examples: Vec<(Vec<f32>, f32)> = (0..EXAMPLES)
        .map(|index| {
            let plain = uniform("features", index * FEATURES, FEATURES);
            let score: f32 = plain.iter().zip(&truth).map(|(x, w)| x * w).sum();
            let label = score + 3.0 * uniform("label", index, 1)[0] > 0.0;
            let features = plain
                .iter()
                .enumerate()
                .map(|(feature, x)| x * 10f32.powi(-((feature % 3) as i32)))
                .collect();
            (features, if label { 1.0 } else { -1.0 })
        })
        .collect();
    let margin = |weights: &[f32], (features, label): &(Vec<f32>, f32)| {
        label
            * features
                .iter()
                .zip(weights)
                .map(|(x, w)| x * (w - 1.0))
                .sum::<f32>()
    };
    let loss = |weights: &[f32]| {
        let losses = examples
            .iter()
            .map(|example| (-margin(weights, example)).exp().ln_1p());
        losses.sum::<f32>() / EXAMPLES as f32
    };
    let constants = AdamW {
        weight_decay: 0.0,
        ..AdamW::default()
    };
    let mut run = Run::new(storage, constants, &[1.0; FEATURES]);
    let before = loss(&run.wide);
    for number in 0..STEPS {
        run.step(1e-3, |weights| {
            let mut gradient = vec![0.0; FEATURES];
            for draw in 0..BATCH {
                let example = &examples[(number * BATCH + draw) % EXAMPLES];
                let slope = -example.1 / (1.0 + margin(weights, example).exp()) / BATCH as f32;
                for (gradient, x) in gradient.iter_mut().zip(&example.0) {
                    *gradient += slope * x;
                }
            }
            gradient
        });
    }
    (before, loss(&run.wide))
}
