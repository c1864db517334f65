//! Examples computed by hand (six decimals): every mode over one vector of logits, and both grouped gates.

use super::{GREEDY, GROUP_LIMITED, RENORMALISED, V3, experts_of, restricted, substituted};
use crate::config::{GateConfig, GateGroups, GroupScore, Scoring};
use crate::routing::{LayerRouting, Routes, select, weigh};
use crate::tensor::Tensor;

/// Experts 1 and 5 tie.
const LOGITS: [f32; 8] = [2.0, 1.0, 0.5, 1.5, 0.0, 1.0, -1.0, 3.0];

fn one_token(
    gate: &GateConfig,
    mode: &LayerRouting,
    logits: &[f32],
    bias: Option<&[f32]>,
) -> Vec<Option<(usize, f32)>> {
    let logits = Tensor::matrix(1, logits.len(), logits.to_vec());
    let routes = Routes::new(gate, mode, 3, logits, bias);
    let slot = |row: &Option<u32>| {
        let row = (*row)? as usize;
        let expert = routes.groups.iter().position(|rows| rows.contains(&row));
        Some((expert.unwrap(), routes.weights[row]))
    };
    routes.rows_of_tokens.iter().map(slot).collect()
}

fn assert_slots(found: &[Option<(usize, f32)>], expected: &[(usize, f32)], case: &str) {
    assert_eq!(found.len(), 3, "{case}");
    for (index, found) in found.iter().enumerate() {
        match (found, expected.get(index)) {
            (None, None) => {}
            (Some((expert, weight)), Some((right, close))) => {
                assert_eq!(expert, right, "{case}, slot {index}");
                assert!(
                    (weight - close).abs() < 1e-6,
                    "{case}, slot {index}: {weight}"
                );
            }
            _ => panic!("{case}, slot {index}: {found:?}"),
        }
    }
}

/// What should happen: weights are probabilities over all eight experts, restricted after the softmax.
/// What should not happen: a pick of a trained expert that is no natural pick, or a sentinel's weight.
#[test]
fn every_mode_gives_the_worked_slots_and_weights() {
    type Case<'a> = (&'a str, LayerRouting, &'a [(usize, f32)], &'a [f32]);
    let natural = [(7, 0.497_051), (0, 0.182_855), (3, 0.110_907)];
    let shares = [0.628_532, 0.231_224, 0.140_244];
    let cases: [Case<'_>; 8] = [
        ("classic", LayerRouting::Natural, &natural, &shares),
        (
            "masked 1,2,4",
            restricted(8, &[1, 2, 4]),
            &[(1, 0.067_268), (2, 0.040_800), (4, 0.024_747)],
            &[0.506_480, 0.307_196, 0.186_324],
        ),
        (
            "masked 1,4",
            restricted(8, &[1, 4]),
            &[(1, 0.067_268), (4, 0.024_747)],
            &[0.731_059, 0.268_941],
        ),
        (
            "frozen-kept 1,2,4 | 3,6",
            restricted(8, &[1, 2, 4, 3, 6]),
            &[(3, 0.110_907), (1, 0.067_268), (2, 0.040_800)],
            &[0.506_480, 0.307_196, 0.186_324],
        ),
        (
            "fallback 0,7 | 3,6",
            substituted(8, &[0, 7], &[3, 6]),
            &natural,
            &shares,
        ),
        (
            "fallback 5,7 | 0,3,6",
            substituted(8, &[5, 7], &[0, 3, 6]),
            &natural,
            &shares,
        ),
        (
            "fallback 1,2,4 | 3,6",
            substituted(8, &[1, 2, 4], &[3, 6]),
            &[(3, 0.110_907), (6, 0.009_104)],
            &[0.924_142, 0.075_858],
        ),
        (
            "fallback 1,2,4,7 | 6",
            substituted(8, &[1, 2, 4, 7], &[6]),
            &[(7, 0.497_051), (6, 0.009_104)],
            &[0.982_014, 0.017_986],
        ),
    ];
    for (case, mode, raw, renormalised) in cases {
        assert_slots(&one_token(&GREEDY, &mode, &LOGITS, None), raw, case);
        let renormalised: Vec<_> = raw
            .iter()
            .zip(renormalised)
            .map(|((expert, _), share)| (*expert, *share))
            .collect();
        let found = one_token(&RENORMALISED, &mode, &LOGITS, None);
        assert_slots(&found, &renormalised, case);
    }
}

#[test]
fn the_group_limited_gate_chooses_within_its_two_best_groups() {
    let found = one_token(&GROUP_LIMITED, &LayerRouting::Natural, &LOGITS, None);
    let expected = [(7, 7.952_809), (0, 2.925_675), (1, 1.076_296)];
    assert_slots(&found, &expected, "groups 0 and 3");
}

/// The bias decides who is chosen and in which order; the weights are the sigmoids without it.
#[test]
fn the_v3_gate_chooses_by_biased_scores_and_weighs_by_plain_ones() {
    let logits = [0.2, -0.4, 1.0, 0.1, -1.2, 0.8, 0.0, 0.3];
    let bias = [0.0, 0.5, -0.3, 0.0, 0.9, -0.2, 0.1, 0.0];
    let found = one_token(&V3, &LayerRouting::Natural, &logits, Some(&bias));
    let expected = [(4, 0.489_326), (1, 0.848_353), (0, 1.162_32)];
    assert_slots(&found, &expected, "groups 2 and 0");
}

/// The whole order is by score, then by id: 1 before 5.
#[test]
fn equal_scores_are_ordered_by_id() {
    let mut slots = [None; 8];
    select(
        &GREEDY,
        &LayerRouting::Natural,
        &LOGITS,
        &LOGITS,
        &mut slots,
    );
    assert_eq!(experts_of(&slots), [7, 0, 3, 1, 5, 2, 4, 6]);
    let zeros = [0.0, -0.0, 0.0, -0.0];
    let mut slots = [None; 3];
    select(&GREEDY, &LayerRouting::Natural, &zeros, &zeros, &mut slots);
    assert_eq!(
        experts_of(&slots),
        [0, 1, 2],
        "zeros of either sign are equal"
    );
    select(
        &GROUP_LIMITED,
        &LayerRouting::Natural,
        &zeros,
        &zeros,
        &mut slots,
    );
    assert_eq!(experts_of(&slots), [0, 1], "and so are groups");
}

/// A group with one routable expert is judged by that one: a missing second best counts nothing, not −∞.
#[test]
fn a_group_with_one_routable_expert_still_competes() {
    let scores = [0.9, 0.1, 0.2, 0.3, 0.1, 0.1, 0.1, 0.1];
    let mut slots = [None; 4];
    let mode = restricted(8, &[0, 2, 3, 6]);
    select(&V3, &mode, &scores, &scores, &mut slots);
    assert_eq!(experts_of(&slots), [0, 3, 2], "groups 0 (.9) and 1 (.5)");
}

/// DeepSeek-V3 fills excluded groups with −∞: a member with a negative biased score still beats them.
#[test]
fn excluded_groups_stay_excluded_when_biased_scores_are_negative() {
    let choice = [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6, -0.7, -0.8];
    let mut slots = [None; 4];
    select(&V3, &LayerRouting::Natural, &[0.5; 8], &choice, &mut slots);
    assert_eq!(experts_of(&slots), [0, 1, 2, 3]);
}

/// With groups, the helpers of the fallback compete whichever group they are in.
#[test]
fn helpers_stand_in_across_groups() {
    let gate = GateConfig {
        groups: Some(GateGroups {
            count: 4,
            kept: 1,
            score: GroupScore::Best,
        }),
        ..GREEDY
    };
    let scores = [0.4, 0.05, 0.3, 0.1, 0.02, 0.03, 0.06, 0.04];
    let mut slots = [None; 2];
    let mode = substituted(8, &[1], &[2, 6]);
    select(&gate, &mode, &scores, &scores, &mut slots);
    assert_eq!(
        experts_of(&slots),
        [1, 2],
        "0 is absent; 1 stands, 2 is the best helper"
    );
}

/// Scores that all underflowed would divide by zero.
#[test]
fn weights_that_sum_to_zero_are_zero() {
    let gates = [RENORMALISED, V3];
    for gate in gates {
        let mut slots = [None; 3];
        select(
            &gate,
            &restricted(8, &[1, 2]),
            &[0.0; 8],
            &[0.0; 8],
            &mut slots,
        );
        assert_eq!(experts_of(&slots), [1, 2]);
        let mut weights = [7.0; 3];
        weigh(&gate, &slots, &mut weights);
        assert_eq!(weights, [0.0; 3], "{:?}", gate.scoring);
    }
}

/// A spoilt logit must surface in the loss instead of retiring its expert in silence.
#[test]
fn nan_is_chosen_first_and_spoils_the_weights() {
    let logits = [0.3, 0.1, f32::NAN, 0.2, 0.5, 0.4, 0.0, 0.6];
    let sigmoid = GateConfig {
        scoring: Scoring::SigmoidWithBias,
        ..GREEDY
    };
    for gate in [GREEDY, RENORMALISED, GROUP_LIMITED, V3, sigmoid] {
        let modes = [
            LayerRouting::Natural,
            restricted(8, &[2, 3]),
            substituted(8, &[2], &[0, 1]),
        ];
        for mode in modes {
            let found = one_token(&gate, &mode, &logits, None);
            let spoilt = found.iter().flatten().any(|(_, weight)| weight.is_nan());
            assert!(spoilt, "{gate:?} {mode:?}: {found:?}");
        }
    }
    let found = one_token(&sigmoid, &LayerRouting::Natural, &logits, None);
    assert_eq!(found[0].map(|(expert, _)| expert), Some(2));
}
