//! Which experts a token visits and with what weight, and what the loss says about that choice.
//!
//! ```text
//! s = softmax(W_g·x) over all experts      S = the k best of the routable ones      w_i = σ·s_i
//! ```
//!
//! The softmax runs over *all* experts in every mode and weights are not renormalised, so restricting
//! the choice lowers their sum. Ties go to the lower expert id. A slot that no expert can fill is
//! `None`: a sentinel score would become a mixing weight. Selection carries no gradient, weights do:
//! with `G_i = ∂ℓ/∂w_i`, `∂ℓ/∂z_j = σ(1_{j∈S} G_j s_j − s_j Σ_{i∈S} G_i s_i)` for every `j`.
//! Knows nothing of layers' weights: scores come in as numbers.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::tensor::Tensor;

/// Which experts may be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Routing {
    /// Every expert: the model as published.
    #[default]
    Classic,
    /// Only the listed ones, layer by layer (in-place expert-specialised fine-tuning).
    Masked {
        /// Routable experts of every MoE layer. A layer may list none: its tokens then pass through the
        /// shared experts alone.
        experts: BTreeMap<usize, Vec<usize>>,
    },
}

/// One routed expert of a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slot {
    /// The expert.
    pub expert: usize,
    /// Its probability, before the model's scaling factor.
    pub score: f32,
}

/// Fills `slots` with the best experts by `scores`, best first, lower id first among equals; `routable`
/// marks the experts that may be chosen (all when absent). Slots beyond the routable experts stay `None`.
pub fn select(scores: &[f32], routable: Option<&[bool]>, slots: &mut [Option<Slot>]) {
    for filled in 0..slots.len() {
        let (chosen, open) = slots.split_at_mut(filled);
        let free = |expert: &usize| {
            routable.is_none_or(|routable| routable[*expert])
                && chosen.iter().flatten().all(|slot| slot.expert != *expert)
        };
        open[0] = (0..scores.len())
            .filter(free)
            .map(|expert| Slot {
                expert,
                score: scores[expert],
            })
            // Strictly greater keeps the earlier, lower id among equals.
            .reduce(|best, next| if next.score > best.score { next } else { best });
    }
}

/// A checked [`Routing`]: per layer the routable experts, `None` for all.
#[derive(Debug, Clone)]
pub(crate) struct RoutingPlan {
    layers: Vec<Option<Vec<bool>>>,
}

impl RoutingPlan {
    /// Checks that every named layer and expert exists and that no MoE layer is left out.
    pub(crate) fn new(routing: &Routing, config: &ModelConfig) -> Result<Self, EngineError> {
        let mut layers = vec![None; config.num_hidden_layers];
        if let Routing::Masked { experts } = routing {
            check_experts(experts, config)?;
            for layer in config.moe_layers() {
                let listed = experts
                    .get(&layer)
                    .ok_or(EngineError::UnroutedLayer { layer })?;
                let mut routable = vec![false; config.n_routed_experts];
                for &expert in listed {
                    routable[expert] = true;
                }
                layers[layer] = Some(routable);
            }
        }
        Ok(Self { layers })
    }

    /// Marks of the experts of `layer` that may be chosen; `None` when all may.
    pub(crate) fn routable(&self, layer: usize) -> Option<&[bool]> {
        self.layers[layer].as_deref()
    }
}

/// Every named layer has experts, and every named expert is one of them.
pub(crate) fn check_experts(
    experts: &BTreeMap<usize, Vec<usize>>,
    config: &ModelConfig,
) -> Result<(), EngineError> {
    for (&layer, listed) in experts {
        if !config.is_moe_layer(layer) {
            return Err(EngineError::NoSuchMoeLayer { layer });
        }
        if let Some(&expert) = listed.iter().find(|&&id| id >= config.n_routed_experts) {
            return Err(EngineError::NoSuchExpert { layer, expert });
        }
    }
    Ok(())
}

/// The filled slots of a batch, sorted by expert so that each expert's tokens are consecutive rows.
#[derive(Debug)]
pub(crate) struct Dispatch {
    /// Token of every row; ascending within a group.
    pub(crate) tokens: Vec<u32>,
    /// Mixing weight of every row, scaling factor included.
    pub(crate) weights: Vec<f32>,
    /// Rows of every expert; empty for one that no token visits.
    pub(crate) groups: Vec<Range<usize>>,
}

impl Dispatch {
    /// Selects for every row of `scores` `[tokens, experts]`.
    pub(crate) fn new(scores: &Tensor, routable: Option<&[bool]>, config: &ModelConfig) -> Self {
        let per_token = config.num_experts_per_tok;
        let scaling = config.routed_scaling_factor as f32;
        let mut slots = vec![None; scores.rows() * per_token];
        for (token, slots) in slots.chunks_exact_mut(per_token).enumerate() {
            select(scores.row(token), routable, slots);
        }

        // A counting sort: sizes, then ends, then filling each group from its start.
        let mut next = vec![0; config.n_routed_experts];
        for slot in slots.iter().flatten() {
            next[slot.expert] += 1;
        }
        let mut groups = Vec::with_capacity(next.len());
        let mut rows = 0;
        for start in &mut next {
            let size = std::mem::replace(start, rows);
            groups.push(rows..rows + size);
            rows += size;
        }
        let mut tokens = vec![0; rows];
        let mut weights = vec![0.0; rows];
        for (index, slot) in slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            let row = next[slot.expert];
            next[slot.expert] += 1;
            tokens[row] = (index / per_token) as u32;
            weights[row] = scaling * slot.score;
        }
        Self {
            tokens,
            weights,
            groups,
        }
    }

    /// `∂ℓ/∂z` `[tokens, experts]` from the scores and from `∂ℓ/∂w` of every row.
    pub(crate) fn logit_gradient(&self, scores: &Tensor, weight_gradient: &[f32]) -> Tensor {
        let mut gradient = Tensor::zeros(&scores.shape);
        let mut sums = vec![0.0; scores.rows()]; // σ Σ_{i∈S} G_i s_i of every token
        for (expert, rows) in self.groups.iter().enumerate() {
            for row in rows.clone() {
                let token = self.tokens[row] as usize;
                let share = self.weights[row] * weight_gradient[row]; // σ G_i s_i
                gradient.row_mut(token)[expert] += share;
                sums[token] += share;
            }
        }
        for (token, sum) in sums.iter().enumerate() {
            for (value, score) in gradient.row_mut(token).iter_mut().zip(scores.row(token)) {
                *value -= score * sum;
            }
        }
        gradient
    }
}
