//! A batch's choices, sorted by expert, and what the loss says about the logits behind them.
//!
//! [`Router::choose`] works token by token and may be called for disjoint token ranges in parallel;
//! [`Routes::sorted`] then gathers all of them with one counting sort, in token order, so the result
//! does not depend on the split.
//!
//! A choice carries no gradient, weights do. With `w_i` the weight of slot `i`, `G_i = ∂ℓ/∂w_i`, `σ` the
//! scaling factor and sums over the token's filled slots:
//!
//! ```text
//!                 softmax                                   sigmoid
//! as they are     [j∈S] w_j·G_j − s_j·Σ w_i·G_i, every j    w_j·G_j·(1 − s_j), j∈S
//! renormalised    w_j·(G_j − Σ w_i·G_i ÷ σ), j∈S            w_j·(G_j − Σ w_i·G_i ÷ σ)·(1 − s_j), j∈S
//! ```
//!
//! Division by the sum is inside `w`, so no rule divides by a score again. Knows nothing of the router's
//! matrix: logits come in and their gradient goes out as numbers.

use std::ops::Range;

use super::LayerRouting;
use super::choice::{Selector, Slot, weigh};
use super::statistics::Picks;
use crate::config::{GateConfig, Scoring};
use crate::tensor::Tensor;

/// How one layer's logits become choices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Router<'a> {
    /// The family's gate.
    pub(crate) gate: &'a GateConfig,
    /// The layer's share of the routing.
    pub(crate) mode: &'a LayerRouting,
    /// Slots of a token, at least 1.
    pub(crate) per_token: usize,
    /// What is added to every expert's score for the choice, `[experts]`.
    pub(crate) bias: Option<&'a [f32]>,
}

impl Router<'_> {
    /// Chooses for consecutive tokens of a layer of `experts`.
    ///
    /// `scores` `[tokens, experts]` enters as logits and leaves as scores; `slots` and `weights`
    /// `[tokens, per_token]` are overwritten. Under a softmax one
    /// logit that is NaN or +∞ makes all scores of its token NaN.
    pub(crate) fn choose(
        &self,
        experts: usize,
        scores: &mut [f32],
        slots: &mut [Option<Slot>],
        weights: &mut [f32],
    ) {
        let mut selector = Selector::new(self.gate, self.mode);
        let mut choice = vec![0.0; experts];
        let slots = slots.chunks_exact_mut(self.per_token);
        let weights = weights.chunks_exact_mut(self.per_token);
        for ((scores, slots), weights) in scores.chunks_exact_mut(experts).zip(slots).zip(weights) {
            match self.gate.scoring {
                Scoring::Softmax => softmax(scores),
                Scoring::SigmoidWithBias => sigmoid(scores),
            }
            match self.bias {
                None => selector.select(scores, scores, slots),
                Some(bias) => {
                    for ((choice, score), bias) in choice.iter_mut().zip(&*scores).zip(bias) {
                        *choice = score + bias;
                    }
                    selector.select(scores, &choice, slots);
                }
            }
            weigh(self.gate, slots, weights);
        }
    }
}

/// In place, shifted by the largest logit so that nothing overflows.
fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for value in &mut *values {
        *value = (*value - largest).exp();
        sum += *value;
    }
    for value in values {
        *value /= sum;
    }
}

fn sigmoid(values: &mut [f32]) {
    for value in values {
        *value = 1.0 / (1.0 + (-*value).exp());
    }
}

/// The filled slots of a batch, sorted by expert so that each expert's tokens are consecutive rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Routes {
    /// Token of every row; ascending within a group.
    pub(crate) tokens: Vec<u32>,
    /// Mixing weight of every row, scaling factor included.
    pub(crate) weights: Vec<f32>,
    /// Rows of every expert; empty for one that no token visits.
    pub(crate) groups: Vec<Range<usize>>,
    /// Row of every slot `[tokens, per_token]`, `None` for an empty one: outputs can be added up token by
    /// token, in the order of the slots.
    pub(crate) rows_of_tokens: Vec<Option<u32>>,
    /// Scores over all experts, `[tokens, experts]`.
    pub(crate) scores: Tensor,
}

impl Routes {
    /// Chooses for every row of `logits` `[tokens, experts]`, in one piece.
    #[cfg(test)]
    pub(crate) fn new(
        gate: &GateConfig,
        mode: &LayerRouting,
        per_token: usize,
        logits: Tensor,
        bias: Option<&[f32]>,
    ) -> Self {
        let router = Router {
            gate,
            mode,
            per_token,
            bias,
        };
        let mut scores = logits;
        let mut slots = vec![None; scores.rows() * per_token];
        let mut weights = vec![0.0; slots.len()];
        let experts = scores.width();
        router.choose(experts, &mut scores.values, &mut slots, &mut weights);
        Self::sorted(per_token, scores, &slots, &weights)
    }

    /// Sorts what [`Router::choose`] left: `scores` `[tokens, experts]`, `slots` and their `weights`
    /// `[tokens, per_token]`.
    pub(crate) fn sorted(
        per_token: usize,
        scores: Tensor,
        slots: &[Option<Slot>],
        weights: &[f32],
    ) -> Self {
        // A counting sort: sizes, then starts, then filling each group from its start.
        let mut next = vec![0; scores.width()];
        for slot in slots.iter().flatten() {
            next[slot.expert] += 1;
        }
        let mut rows = 0;
        let mut groups = Vec::with_capacity(next.len());
        for start in &mut next {
            let size = std::mem::replace(start, rows);
            groups.push(rows..rows + size);
            rows += size;
        }
        let mut routes = Self {
            tokens: vec![0; rows],
            weights: vec![0.0; rows],
            groups,
            rows_of_tokens: vec![None; slots.len()],
            scores,
        };
        for (index, slot) in slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            let row = next[slot.expert];
            next[slot.expert] += 1;
            routes.tokens[row] = (index / per_token) as u32;
            routes.weights[row] = weights[index];
            routes.rows_of_tokens[index] = Some(row as u32);
        }
        routes
    }

    /// Every token's experts, with the weights that the family's rule gives them before the scaling factor.
    pub(crate) fn picks(&self, gate: &GateConfig) -> Picks {
        let unscaled = GateConfig {
            scaling: 1.0,
            ..*gate
        };
        let per_token = (self.rows_of_tokens.len() / self.scores.rows().max(1)).max(1);
        let mut expert_of_row = vec![0; self.tokens.len()];
        for (expert, rows) in self.groups.iter().enumerate() {
            expert_of_row[rows.clone()].fill(expert);
        }
        let slot = |(index, row): (usize, &Option<u32>)| {
            let expert = expert_of_row[(*row)? as usize];
            let score = self.scores.row(index / per_token)[expert];
            Some(Slot { expert, score })
        };
        let slots: Vec<Option<Slot>> = self.rows_of_tokens.iter().enumerate().map(slot).collect();
        let mut weights = vec![0.0; slots.len()];
        let tokens = slots.chunks(per_token);
        for (slots, weights) in tokens.zip(weights.chunks_mut(per_token)) {
            weigh(&unscaled, slots, weights);
        }
        let experts = slots.into_iter().map(|slot| Some(slot?.expert));
        Picks {
            per_token,
            experts: experts.collect(),
            weights,
        }
    }

    /// `∂ℓ/∂z` `[tokens, experts]` from `∂ℓ/∂w` of every row, by the rules above.
    pub(crate) fn logit_gradient(&self, gate: &GateConfig, by_weights: &[f32]) -> Vec<f32> {
        let mut gradient = Tensor::zeros(&self.scores.shape);
        let sums = self.weighted_sums(by_weights);
        for (expert, rows) in self.groups.iter().enumerate() {
            for row in rows.clone() {
                let token = self.tokens[row] as usize;
                let mut by_weight = by_weights[row];
                // Without a scaling factor there is no weight, and no gradient either.
                if gate.renormalise && gate.scaling != 0.0 {
                    by_weight -= sums[token] / gate.scaling;
                }
                let slope = match gate.scoring {
                    Scoring::Softmax => 1.0,
                    Scoring::SigmoidWithBias => 1.0 - self.scores.row(token)[expert],
                };
                gradient.row_mut(token)[expert] = self.weights[row] * by_weight * slope;
            }
        }
        if gate.scoring == Scoring::Softmax && !gate.renormalise {
            for (token, sum) in sums.iter().enumerate() {
                for (value, score) in gradient
                    .row_mut(token)
                    .iter_mut()
                    .zip(self.scores.row(token))
                {
                    *value -= score * sum;
                }
            }
        }
        gradient.values
    }

    /// `Σ w_i·G_i` over the slots of every token.
    fn weighted_sums(&self, by_weights: &[f32]) -> Vec<f32> {
        let mut sums = vec![0.0; self.scores.rows()];
        for ((token, weight), by_weight) in self.tokens.iter().zip(&self.weights).zip(by_weights) {
            sums[*token as usize] += weight * by_weight;
        }
        sums
    }
}
