//! From accepted updates to the next state: clip, weigh, one Nesterov step (P-30, P-31).
//!
//! ```text
//! cᵢ = min(1, median‖Δ‖ / ‖Δᵢ‖)      per tensor, the median weighted by w; 1 for a zero norm
//! G  = Σ wᵢ cᵢ Δᵢ / Σ wᵢ
//! v  ← μ v + G
//! Φ  ← Φ + η (μ v + G)               v is the new one; arXiv 2311.08105 with G = −g
//! ```
//!
//! Everyone must get the same bytes on every machine, so this file uses only `+ − × ÷ √` in one fixed
//! order: no fused multiply-add, no transcendental function, no parallel reduction. The order of the
//! updates is that of the submissions, which is the chain's.

use connito_engine::Tensor;
use connito_protocol::rules::OuterRules;

use crate::shard::{Shard, dot};

/// An accepted update: what it changes, and its weight above zero.
#[derive(Debug, Clone, Copy)]
pub struct Accepted<'a> {
    /// The change.
    pub update: &'a Shard,
    /// `max(0, u − z·SE)`.
    pub weight: f64,
}

/// A group's parameters with the outer optimiser's momentum.
#[derive(Debug, Clone, PartialEq)]
pub struct Outer {
    /// Φ.
    pub parameters: Shard,
    /// v, laid out like Φ.
    pub momentum: Shard,
}

/// Takes one outer step. Without accepted updates nothing changes, momentum included.
#[must_use]
pub fn outer_step(state: &Outer, accepted: &[Accepted<'_>], rules: &OuterRules) -> Outer {
    if accepted.is_empty() {
        return state.clone();
    }
    let mut next = state.clone();
    for (name, parameters) in &mut next.parameters.0 {
        let Some(momentum) = next.momentum.0.get_mut(name) else {
            continue;
        };
        let gradient = weighted_mean(name, parameters.values.len(), accepted);
        step_tensor(
            &mut parameters.values,
            &mut momentum.values,
            &gradient,
            rules,
        );
    }
    next
}

/// Momentum after the gate refused a step: half of it, so that a refused direction fades.
#[must_use]
pub fn damped(momentum: &Shard) -> Shard {
    let halve = |tensor: &Tensor| Tensor {
        shape: tensor.shape.clone(),
        values: tensor.values.iter().map(|value| value * 0.5).collect(),
    };
    Shard(
        momentum
            .0
            .iter()
            .map(|(name, tensor)| (name.clone(), halve(tensor)))
            .collect(),
    )
}

/// The weighted lower median of the updates' norms: the yardstick for the next cycle's norm bound.
#[must_use]
pub fn reference_norm(accepted: &[Accepted<'_>]) -> Option<f64> {
    let norms = accepted
        .iter()
        .map(|a| (a.update.norm(), a.weight))
        .collect();
    lower_median(norms)
}

fn step_tensor(parameters: &mut [f32], momentum: &mut [f32], gradient: &[f32], rules: &OuterRules) {
    let (eta, mu) = (rules.learning_rate, rules.momentum);
    for ((phi, v), g) in parameters.iter_mut().zip(momentum).zip(gradient) {
        *v = mu * *v + g;
        *phi += eta * (mu * *v + g);
    }
}

/// `G` of one tensor. An update that does not list the tensor counts as zero.
fn weighted_mean(name: &str, length: usize, accepted: &[Accepted<'_>]) -> Vec<f32> {
    let listed: Vec<(&[f32], f64, f64)> = accepted
        .iter()
        .filter_map(|a| {
            let values = a.update.0.get(name)?.values.as_slice();
            Some((values, a.weight, dot(values, values).sqrt()))
        })
        .collect();
    let mut mean = vec![0.0_f32; length];
    let norms = listed
        .iter()
        .map(|(_, weight, norm)| (*norm, *weight))
        .collect();
    let Some(median) = lower_median(norms) else {
        return mean;
    };
    let total: f64 = accepted.iter().map(|a| a.weight).sum();
    for (values, weight, norm) in listed {
        let clip = if norm > median { median / norm } else { 1.0 };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the step is taken in f32; rounding is part of the rule"
        )]
        let factor = (weight / total * clip) as f32;
        for (sum, value) in mean.iter_mut().zip(values) {
            *sum += factor * value;
        }
    }
    mean
}

/// The smallest value such that it and all smaller ones hold at least half of the weight.
fn lower_median(mut weighted: Vec<(f64, f64)>) -> Option<f64> {
    weighted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = weighted.iter().map(|(_, weight)| weight).sum();
    let mut below = 0.0;
    weighted.into_iter().find_map(|(value, weight)| {
        below += weight;
        (below * 2.0 >= total).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: OuterRules = OuterRules {
        learning_rate: 0.7,
        momentum: 0.9,
    };

    fn shard(values: &[f32]) -> Shard {
        let tensor = Tensor {
            shape: vec![values.len()],
            values: values.to_vec(),
        };
        Shard([("w".to_owned(), tensor)].into())
    }

    fn assert_close(shard: &Shard, expected: &[f32]) {
        for (value, expected) in shard.0["w"].values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
        }
    }

    /// By hand. Norms 0.1, 0.2, 0.5 with weights 0.3, 0.4, 0.3: half of the weight is reached at 0.2,
    /// so the third update is scaled by 0.4 to (−0.16, 0.12).
    /// G = 0.3·(0.06, 0.08) + 0.4·(0.12, 0.16) + 0.3·(−0.16, 0.12) = (0.018, 0.124);
    /// v = G; Φ = (1, −2) + 0.7·1.9·G = (1.02394, −1.83508).
    #[test]
    fn the_first_outer_step_agrees_with_the_hand_computed_one() {
        let state = Outer {
            parameters: shard(&[1.0, -2.0]),
            momentum: shard(&[0.0, 0.0]),
        };
        let updates = [
            shard(&[0.06, 0.08]),
            shard(&[0.12, 0.16]),
            shard(&[-0.4, 0.3]),
        ];
        let accepted: Vec<_> = updates
            .iter()
            .zip([0.3, 0.4, 0.3])
            .map(|(update, weight)| Accepted { update, weight })
            .collect();
        let next = outer_step(&state, &accepted, &RULES);
        assert_close(&next.momentum, &[0.018, 0.124]);
        assert_close(&next.parameters, &[1.023_94, -1.835_08]);
    }

    /// Two scalar steps: G = 0.125, then 0.04. v = 0.125, 0.1525; Φ = 1.16625, 1.290325.
    #[test]
    fn momentum_carries_over_to_the_next_cycle() {
        let mut state = Outer {
            parameters: shard(&[1.0]),
            momentum: shard(&[0.0]),
        };
        for (gradient, v, phi) in [(0.125, 0.125, 1.166_25), (0.04, 0.152_5, 1.290_325)] {
            let update = shard(&[gradient]);
            state = outer_step(
                &state,
                &[Accepted {
                    update: &update,
                    weight: 0.01,
                }],
                &RULES,
            );
            assert_close(&state.momentum, &[v]);
            assert_close(&state.parameters, &[phi]);
        }
        assert_eq!(
            outer_step(&state, &[], &RULES),
            state,
            "no updates, no step"
        );
        assert_close(&damped(&state.momentum), &[0.076_25]);
    }

    proptest! {
        /// However large one update is, it moves the mean by no more than its share of the median
        /// norm (A-40).
        #[test]
        fn an_amplified_update_gains_no_influence(scale in 1.0..1e6_f32) {
            let honest = [shard(&[0.1, 0.0]), shard(&[0.0, 0.1])];
            let loud = shard(&[0.1 * scale, 0.1 * scale]);
            let accepted: Vec<_> = honest.iter().chain([&loud])
                .map(|update| Accepted { update, weight: 1.0 }).collect();
            let mean = weighted_mean("w", 2, &accepted);
            let norm = (mean[0] * mean[0] + mean[1] * mean[1]).sqrt();
            prop_assert!(norm <= 0.1 + 1e-6);
        }
    }
}
