//! The logits' gradient against finite differences of the weights, which an f64 twin computes.
//!
//! The twin keeps the choice that was made (it carries no gradient) and repeats scores and weights. Step
//! 1e-5 leaves a truncation error near 1e-10, so what remains is the rounding of the f32 side: a few
//! units in the last place of weights up to 16.

use super::drawn;
use super::{GREEDY, GROUP_LIMITED, RENORMALISED, V3, restricted, substituted};
use crate::config::{GateConfig, Scoring};
use crate::random::Stream;
use crate::routing::{LayerRouting, Routes};
use crate::tensor::Tensor;

const TOKENS: usize = 6;
const EXPERTS: usize = 8;
const PER_TOKEN: usize = 3;

/// Weights of one token's chosen experts.
fn weights(gate: &GateConfig, logits: &[f64], chosen: &[usize]) -> Vec<f64> {
    let score = |expert: usize| match gate.scoring {
        Scoring::Softmax => {
            logits[expert].exp() / logits.iter().map(|logit| logit.exp()).sum::<f64>()
        }
        Scoring::SigmoidWithBias => 1.0 / (1.0 + (-logits[expert]).exp()),
    };
    let scores: Vec<f64> = chosen.iter().map(|&expert| score(expert)).collect();
    let divisor = if gate.renormalise {
        scores.iter().sum()
    } else {
        1.0
    };
    let weight = |score: &f64| f64::from(gate.scaling) * score / divisor;
    scores.iter().map(weight).collect()
}

/// Rows and experts of a token's filled slots.
fn slots_of(routes: &Routes, token: usize) -> (Vec<usize>, Vec<usize>) {
    let slots = &routes.rows_of_tokens[token * PER_TOKEN..(token + 1) * PER_TOKEN];
    let rows: Vec<usize> = slots.iter().flatten().map(|row| *row as usize).collect();
    let expert = |row: &usize| routes.groups.iter().position(|rows| rows.contains(row));
    let experts = rows.iter().filter_map(expert).collect();
    (rows, experts)
}

/// A loss that is linear in the weights: its gradient towards them is `by_weights` itself.
fn check(gate: &GateConfig, mode: &LayerRouting) {
    let case = format!("{gate:?} {mode:?}");
    let logits = drawn(Stream::new(5, "logits"), TOKENS * EXPERTS, 1.5);
    let bias = drawn(Stream::new(5, "bias"), EXPERTS, 0.3);
    let matrix = Tensor::matrix(TOKENS, EXPERTS, logits.clone());
    let bias = (gate.scoring == Scoring::SigmoidWithBias).then_some(bias.as_slice());
    let routes = Routes::new(gate, mode, PER_TOKEN, matrix, bias);
    let by_weights = drawn(Stream::new(5, "by weights"), routes.tokens.len(), 1.0);
    let found = routes.logit_gradient(gate, &by_weights);
    assert_eq!(found.len(), TOKENS * EXPERTS);

    for token in 0..TOKENS {
        let (rows, chosen) = slots_of(&routes, token);
        let at = token * EXPERTS;
        let mut logits: Vec<f64> = logits[at..at + EXPERTS]
            .iter()
            .map(|&z| f64::from(z))
            .collect();
        for expert in 0..EXPERTS {
            let mut loss = |step: f64| {
                let before = logits[expert];
                logits[expert] += step;
                let weights = weights(gate, &logits, &chosen);
                logits[expert] = before;
                let terms = rows.iter().zip(weights);
                terms
                    .map(|(&row, weight)| f64::from(by_weights[row]) * weight)
                    .sum::<f64>()
            };
            let slope = (loss(1e-5) - loss(-1e-5)) / 2e-5;
            let found = f64::from(found[at + expert]);
            let tolerance = 1e-6 * f64::from(gate.scaling);
            assert!(
                (found - slope).abs() < tolerance,
                "{case}, token {token}, logit {expert}: {found} instead of {slope}"
            );
        }
    }
}

/// Unnormalised and renormalised, softmax and sigmoid, with and without groups, in every mode, with as
/// many slots as experts to fill them and with fewer.
#[test]
fn logit_gradients_agree_with_finite_differences() {
    let sigmoid = GateConfig {
        renormalise: false,
        ..V3
    };
    let scaled = GateConfig {
        scaling: 2.5,
        ..RENORMALISED
    };
    for gate in [GREEDY, RENORMALISED, scaled, GROUP_LIMITED, V3, sigmoid] {
        let modes = [
            LayerRouting::Natural,
            restricted(EXPERTS, &[0, 1, 4, 5, 7]),
            restricted(EXPERTS, &[2, 6]),
            restricted(EXPERTS, &[3]),
            restricted(EXPERTS, &[]),
            substituted(EXPERTS, &[0, 3], &[1, 2, 7]),
            substituted(EXPERTS, &[0, 3, 5], &[]),
        ];
        for mode in modes {
            check(&gate, &mode);
        }
    }
}

/// The gradient towards unselected logits exists where weights are not renormalised: raising one takes
/// probability from the chosen experts.
#[test]
fn unselected_logits_have_a_gradient_only_under_an_unnormalised_softmax() {
    for (gate, touched) in [(GREEDY, true), (RENORMALISED, false), (V3, false)] {
        let logits = Tensor::matrix(1, EXPERTS, drawn(Stream::new(9, "logits"), EXPERTS, 1.0));
        let routes = Routes::new(&gate, &restricted(EXPERTS, &[1, 2]), 2, logits, None);
        let gradient = routes.logit_gradient(&gate, &vec![1.0; routes.tokens.len()]);
        assert_eq!(gradient[5] != 0.0, touched, "{gate:?}");
    }
}
