//! Routing against hand-computed examples, a naive reference, finite differences, and misuse.

mod batches;
mod gradients;
mod naive;
mod plans;
mod worked;

use super::{LayerRouting, Slot};
use crate::config::{GateConfig, GateGroups, GroupScore, Scoring};
use crate::random::Stream;

/// `count` values of a stream.
fn drawn(stream: Stream, count: usize, deviation: f32) -> Vec<f32> {
    let mut values = vec![0.0; count];
    stream.fill(0, deviation, &mut values);
    values
}

/// DeepSeek-V2-Lite, and OLMoE as published.
const GREEDY: GateConfig = GateConfig {
    scoring: Scoring::Softmax,
    groups: None,
    renormalise: false,
    scaling: 1.0,
};

/// Qwen3, Mixtral.
const RENORMALISED: GateConfig = GateConfig {
    renormalise: true,
    ..GREEDY
};

/// DeepSeek-V2: four groups of which two are kept.
const GROUP_LIMITED: GateConfig = GateConfig {
    groups: Some(GateGroups {
        count: 4,
        kept: 2,
        score: GroupScore::Best,
    }),
    scaling: 16.0,
    ..GREEDY
};

/// DeepSeek-V3: four groups of which two are kept.
const V3: GateConfig = GateConfig {
    scoring: Scoring::SigmoidWithBias,
    groups: Some(GateGroups {
        count: 4,
        kept: 2,
        score: GroupScore::BestTwo,
    }),
    renormalise: true,
    scaling: 2.5,
};

/// Marks of the listed ones among `experts`.
fn marks(experts: usize, listed: &[usize]) -> Vec<bool> {
    (0..experts).map(|id| listed.contains(&id)).collect()
}

fn restricted(experts: usize, listed: &[usize]) -> LayerRouting {
    LayerRouting::Restricted {
        routable: marks(experts, listed),
    }
}

fn substituted(experts: usize, trained: &[usize], kept: &[usize]) -> LayerRouting {
    LayerRouting::Substituted {
        resident: marks(experts, &[trained, kept].concat()),
        helpers: marks(experts, kept),
    }
}

fn experts_of(slots: &[Option<Slot>]) -> Vec<usize> {
    slots.iter().flatten().map(|slot| slot.expert).collect()
}
