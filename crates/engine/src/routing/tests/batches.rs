//! A batch's rows: sorted, complete, and the same however the work was split.

use proptest::prelude::*;

use super::drawn;
use super::{GREEDY, GROUP_LIMITED, RENORMALISED, V3, restricted, substituted};
use crate::config::GateConfig;
use crate::random::Stream;
use crate::routing::{LayerRouting, Router, Routes, Slot};
use crate::tensor::Tensor;

const EXPERTS: usize = 8;
const PER_TOKEN: usize = 3;

fn logits(tokens: usize, seed: u64) -> Tensor {
    let values = drawn(Stream::new(seed, "logits"), tokens * EXPERTS, 1.0);
    // Quarters, so that ties occur.
    let values = values
        .iter()
        .map(|value| (value * 4.0).round() / 4.0)
        .collect();
    Tensor::matrix(tokens, EXPERTS, values)
}

fn gates() -> impl Strategy<Value = GateConfig> {
    prop_oneof![
        Just(GREEDY),
        Just(RENORMALISED),
        Just(GROUP_LIMITED),
        Just(V3)
    ]
}

fn modes() -> impl Strategy<Value = LayerRouting> {
    prop_oneof![
        Just(LayerRouting::Natural),
        Just(restricted(EXPERTS, &[1, 2, 6])),
        Just(restricted(EXPERTS, &[4])),
        Just(restricted(EXPERTS, &[])),
        Just(substituted(EXPERTS, &[0, 1], &[3, 5])),
    ]
}

/// What [`Router::choose`] leaves when it is called for `split` tokens at a time.
fn chosen_in_pieces(router: Router<'_>, logits: Tensor, split: usize) -> Routes {
    let mut scores = logits;
    let mut slots: Vec<Option<Slot>> = vec![None; scores.rows() * PER_TOKEN];
    let mut weights = vec![f32::NAN; slots.len()];
    let pieces = scores.values.chunks_mut(split * EXPERTS);
    let pieces = pieces.zip(slots.chunks_mut(split * PER_TOKEN));
    for ((scores, slots), weights) in pieces.zip(weights.chunks_mut(split * PER_TOKEN)) {
        router.choose(EXPERTS, scores, slots, weights);
    }
    Routes::sorted(PER_TOKEN, scores, &slots, &weights)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_split_changes_nothing(gate in gates(), mode in modes(), tokens in 0usize..20, split in 1usize..7, seed: u64) {
        let bias = drawn(Stream::new(seed, "bias"), EXPERTS, 0.5);
        let bias = Some(bias.as_slice());
        let whole = Routes::new(&gate, &mode, PER_TOKEN, logits(tokens, seed), bias);
        let router = Router { gate: &gate, mode: &mode, per_token: PER_TOKEN, bias };
        prop_assert_eq!(whole, chosen_in_pieces(router, logits(tokens, seed), split));
    }

    /// Groups cover the rows once and in order, tokens ascend within a group, and every row is the row of
    /// exactly one slot of its token.
    #[test]
    fn every_row_belongs_to_one_slot_of_its_token(gate in gates(), mode in modes(), tokens in 0usize..20, seed: u64) {
        let routes = Routes::new(&gate, &mode, PER_TOKEN, logits(tokens, seed), None);
        prop_assert_eq!(routes.groups.len(), EXPERTS);
        let mut end = 0;
        for rows in &routes.groups {
            prop_assert_eq!(rows.start, end);
            prop_assert!(routes.tokens[rows.clone()].is_sorted_by(|left, right| left < right));
            end = rows.end;
        }
        prop_assert_eq!(end, routes.tokens.len());
        prop_assert_eq!(end, routes.weights.len());
        prop_assert_eq!(routes.rows_of_tokens.len(), tokens * PER_TOKEN);
        let mut seen = vec![false; end];
        for (index, row) in routes.rows_of_tokens.iter().enumerate() {
            let Some(row) = *row else { continue };
            let row = row as usize;
            prop_assert_eq!(routes.tokens[row] as usize, index / PER_TOKEN);
            prop_assert!(!std::mem::replace(&mut seen[row], true));
        }
        prop_assert!(seen.iter().all(|seen| *seen));
    }
}

/// Softmax over all experts, against f64; a sigmoid per expert, likewise.
#[test]
fn scores_are_those_of_the_gate() {
    let values = vec![80.0, 1.0, -3.0, 79.0, 0.0, 100.0, 99.5, -120.0];
    let natural = LayerRouting::Natural;
    let logits = || Tensor::matrix(1, EXPERTS, values.clone());
    let softmax = Routes::new(&GREEDY, &natural, PER_TOKEN, logits(), None).scores;
    let sigmoid = Routes::new(&V3, &natural, PER_TOKEN, logits(), None).scores;
    let sum: f64 = values.iter().map(|&z| f64::from(z - 100.0).exp()).sum();
    for (expert, &z) in values.iter().enumerate() {
        let right = f64::from(z - 100.0).exp() / sum;
        assert!((f64::from(softmax.values[expert]) - right).abs() < 1e-6 * right + 1e-30);
        let right = 1.0 / (1.0 + f64::from(-z).exp());
        assert!((f64::from(sigmoid.values[expert]) - right).abs() < 1e-6 * right + 1e-30);
    }
}

/// Numbers that are none pass through without a panic, also in the gradient.
#[test]
fn spoilt_logits_never_panic() {
    let spoilt = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    for gate in [GREEDY, RENORMALISED, GROUP_LIMITED, V3] {
        for value in spoilt {
            for mode in [LayerRouting::Natural, substituted(EXPERTS, &[0], &[1])] {
                let mut values = vec![value; 2 * EXPERTS];
                values[..EXPERTS - 2].fill(0.5);
                let logits = Tensor::matrix(2, EXPERTS, values);
                let routes = Routes::new(&gate, &mode, PER_TOKEN, logits, Some(&[value; EXPERTS]));
                let by_weights = vec![1.0; routes.tokens.len()];
                assert_eq!(routes.logit_gradient(&gate, &by_weights).len(), 2 * EXPERTS);
            }
        }
    }
}
