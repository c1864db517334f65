//! Selection against the rules written down as slowly as they are said: sort everything, then take.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::{restricted, substituted};
use crate::config::{GateConfig, GateGroups, GroupScore, Scoring};
use crate::routing::{LayerRouting, Slot, select, weigh};

/// The four modes by the lists of the layer rather than by marks.
#[derive(Debug, Clone)]
enum Mode {
    Classic,
    Masked {
        trained: Vec<usize>,
    },
    FrozenKept {
        trained: Vec<usize>,
        kept: Vec<usize>,
    },
    Fallback {
        trained: Vec<usize>,
        kept: Vec<usize>,
    },
}

impl Mode {
    fn layer_routing(&self, experts: usize) -> LayerRouting {
        match self {
            Self::Classic => LayerRouting::Natural,
            Self::Masked { trained } => restricted(experts, trained),
            Self::FrozenKept { trained, kept } => {
                restricted(experts, &[trained.as_slice(), kept].concat())
            }
            Self::Fallback { trained, kept } => substituted(experts, trained, kept),
        }
    }
}

/// Descending value, then ascending id.
fn order(left: &(usize, f32), right: &(usize, f32)) -> Ordering {
    let by_value = right.1.partial_cmp(&left.1).expect("no NaN is drawn");
    by_value.then(left.0.cmp(&right.0))
}

fn sorted(ids: &[usize], choice: &[f32]) -> Vec<(usize, f32)> {
    let mut pairs: Vec<_> = ids.iter().map(|&id| (id, choice[id])).collect();
    pairs.sort_by(order);
    pairs
}

/// The `k` best of `routable`, which is ascending, within the best groups that have any of them.
fn natural(gate: &GateConfig, routable: &[usize], choice: &[f32], k: usize) -> Vec<usize> {
    let mut pool = routable.to_vec();
    if let Some(groups) = gate.groups {
        let size = choice.len() / groups.count;
        let mut judged = Vec::new();
        for group in 0..groups.count {
            let members: Vec<_> = pool
                .iter()
                .copied()
                .filter(|id| id / size == group)
                .collect();
            let members = sorted(&members, choice);
            let score = match (groups.score, members.as_slice()) {
                (_, []) => continue,
                (GroupScore::Best, [best, ..]) | (GroupScore::BestTwo, [best]) => best.1,
                (GroupScore::BestTwo, [best, second, ..]) => best.1 + second.1,
            };
            judged.push((group, score));
        }
        judged.sort_by(order);
        judged.truncate(groups.kept);
        pool.retain(|id| judged.iter().any(|(group, _)| *group == id / size));
    }
    let mut best: Vec<_> = sorted(&pool, choice).iter().map(|(id, _)| *id).collect();
    best.truncate(k);
    best
}

fn chosen(gate: &GateConfig, mode: &Mode, choice: &[f32], k: usize) -> Vec<usize> {
    let all: Vec<usize> = (0..choice.len()).collect();
    match mode {
        Mode::Classic => natural(gate, &all, choice, k),
        Mode::Masked { trained } => natural(gate, trained, choice, k),
        Mode::FrozenKept { trained, kept } => {
            let mut routable = [trained.as_slice(), kept].concat();
            routable.sort_unstable();
            natural(gate, &routable, choice, k)
        }
        Mode::Fallback { trained, kept } => {
            let mut slots = natural(gate, &all, choice, k);
            let picks = slots.len();
            slots.retain(|id| trained.contains(id) || kept.contains(id));
            let mut helpers = kept.clone();
            helpers.retain(|id| !slots.contains(id));
            let helpers = sorted(&helpers, choice);
            let absent = picks - slots.len();
            slots.extend(helpers.iter().take(absent).map(|(id, _)| *id));
            slots
        }
    }
}

fn weights(gate: &GateConfig, scores: &[f64]) -> Vec<f64> {
    let sum: f64 = scores.iter().sum();
    let divisor = match (gate.renormalise, gate.scoring) {
        (false, _) => 1.0,
        (true, _) if sum == 0.0 => return vec![0.0; scores.len()],
        (true, Scoring::Softmax) => sum,
        (true, Scoring::SigmoidWithBias) => sum + 1e-20,
    };
    let weight = |score: &f64| score / divisor * f64::from(gate.scaling);
    scores.iter().map(weight).collect()
}

fn gates() -> impl Strategy<Value = (usize, GateConfig)> {
    let score = prop_oneof![Just(GroupScore::Best), Just(GroupScore::BestTwo)];
    let scoring = prop_oneof![Just(Scoring::Softmax), Just(Scoring::SigmoidWithBias)];
    let groups = (1usize..6, 1usize..6, 1usize..6, score, any::<bool>());
    let scaling = prop_oneof![Just(1.0f32), Just(2.5), Just(16.0)];
    (groups, scoring, any::<bool>(), scaling).prop_map(
        |((count, kept, size, score, grouped), scoring, renormalise, scaling)| {
            let kept = kept.min(count);
            let groups = grouped.then_some(GateGroups { count, kept, score });
            let gate = GateConfig {
                scoring,
                groups,
                renormalise,
                scaling,
            };
            (count * size, gate)
        },
    )
}

/// `parts` says of every expert whether it is absent (0, 1), trained (2) or kept (3).
fn mode(kind: u8, parts: &[u8]) -> Mode {
    let with = |part| {
        let ids = parts.iter().enumerate();
        ids.filter_map(|(id, &of)| (of == part).then_some(id))
            .collect()
    };
    let (trained, kept) = (with(2), with(3));
    match kind {
        0 => Mode::Classic,
        1 => Mode::Masked { trained },
        2 => Mode::FrozenKept { trained, kept },
        _ => Mode::Fallback { trained, kept },
    }
}

#[derive(Debug, Clone)]
struct Case {
    gate: GateConfig,
    mode: Mode,
    scores: Vec<f32>,
    choice: Vec<f32>,
    per_token: usize,
}

/// Scores and biases of few distinct values, so that ties are the rule.
fn cases() -> impl Strategy<Value = Case> {
    gates().prop_flat_map(|(experts, gate)| {
        let scores = prop::collection::vec(0u8..5, experts);
        let bias = prop::collection::vec(-3i8..3, experts);
        let parts = prop::collection::vec(0u8..4, experts);
        (scores, bias, parts, 0u8..4, 1usize..9).prop_map(
            move |(scores, bias, parts, kind, per_token)| {
                let scores: Vec<f32> = scores.iter().map(|&value| f32::from(value) / 8.0).collect();
                let choice = match gate.scoring {
                    Scoring::Softmax => scores.clone(),
                    Scoring::SigmoidWithBias => {
                        let biased = scores.iter().zip(&bias);
                        biased
                            .map(|(score, &bias)| score + f32::from(bias) / 8.0)
                            .collect()
                    }
                };
                Case {
                    gate,
                    mode: mode(kind, &parts),
                    scores,
                    choice,
                    per_token,
                }
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// The same experts in the same slots with their own scores, then empty slots, and the same weights.
    #[test]
    fn selection_and_weights_agree_with_the_naive_rules(case in cases()) {
        let Case { gate, mode, scores, choice, per_token } = case;
        let layer = mode.layer_routing(scores.len());
        // What was in the slots before must not matter.
        let mut slots = vec![Some(Slot { expert: 0, score: f32::NAN }); per_token];
        select(&gate, &layer, &scores, &choice, &mut slots);

        let expected = chosen(&gate, &mode, &choice, per_token);
        for (index, slot) in slots.iter().enumerate() {
            let expert = expected.get(index).copied();
            prop_assert_eq!(slot.map(|slot| slot.expert), expert);
            prop_assert_eq!(slot.map(|slot| slot.score), expert.map(|expert| scores[expert]));
        }

        let mut found = vec![f32::NAN; per_token];
        weigh(&gate, &slots, &mut found);
        let raw: Vec<f64> = expected.iter().map(|&expert| f64::from(scores[expert])).collect();
        let right = weights(&gate, &raw);
        for (index, found) in found.iter().enumerate() {
            let right = right.get(index).copied().unwrap_or(0.0);
            prop_assert!((f64::from(*found) - right).abs() <= 1e-6 * right.abs(), "{found} {right}");
        }
    }

    /// With everything in memory no mode differs from the classic one, whoever is trained.
    #[test]
    fn nothing_absent_means_classic(case in cases(), trained in prop::collection::vec(any::<bool>(), 36)) {
        let Case { gate, scores, choice, per_token, .. } = case;
        let experts = scores.len();
        let (some, others): (Vec<_>, Vec<_>) = (0..experts).partition(|&id| trained[id]);
        let mut classic = vec![None; per_token];
        select(&gate, &LayerRouting::Natural, &scores, &choice, &mut classic);
        let everything = restricted(experts, &[some.as_slice(), &others].concat());
        for mode in [everything, substituted(experts, &some, &others)] {
            let mut slots = vec![None; per_token];
            select(&gate, &mode, &scores, &choice, &mut slots);
            prop_assert_eq!(&slots, &classic);
        }
    }
}
