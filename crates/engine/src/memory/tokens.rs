//! What activations of a training or evaluation step take: f32 values per token, counted from what each
//! layer's trace holds. The model's files name the same tensors.

use crate::config::{AttentionConfig, HeadNorm, ModelConfig};
use crate::model::{Holding, Residency};
use crate::trainer::TrainableSet;

/// Counts of f32 values per token.
pub(super) struct TokenFloats<'a> {
    config: &'a ModelConfig,
    /// Routed experts that a token visits at most: no more than a layer has in memory.
    visits: usize,
}

impl<'a> TokenFloats<'a> {
    pub(super) fn new(config: &'a ModelConfig, holding: &Holding) -> Self {
        let per_token = config.mixture.per_token;
        let visits = match &holding.residency {
            Residency::Whole => per_token,
            Residency::Slice(experts) => {
                let most = experts.values().map(Vec::len).max().unwrap_or(0);
                per_token.min(most)
            }
        };
        Self { config, visits }
    }

    /// What every layer from the lowest trained one up holds for its gradient.
    pub(super) fn of_layers(&self, trainable: &TrainableSet) -> Vec<u64> {
        let config = self.config;
        let lowest = trainable.lowest_layer(config);
        let everything = *trainable == TrainableSet::Everything;
        (lowest.unwrap_or(0)..config.num_hidden_layers)
            .map(|layer| {
                let attention = match lowest {
                    Some(lowest) if lowest == layer => 0,
                    _ if everything => self.attention() + self.attention_inputs(),
                    _ => self.attention(),
                };
                let streams = 3 * config.hidden_size;
                (streams + attention + self.feed_forward(layer)) as u64
            })
            .collect()
    }

    /// Queries, keys, values, and what their norms and bounds need.
    fn attention(&self) -> usize {
        let config = self.config;
        let heads = config.num_attention_heads;
        let (keys, values) = (config.key_width(), config.value_width());
        match config.attention {
            AttentionConfig::Latent {
                query_rank, rank, ..
            } => heads * (2 * keys + values + 1) + rank + query_rank.unwrap_or(0),
            AttentionConfig::Grouped {
                key_heads,
                norm,
                clip,
                ..
            } => {
                let projected = heads * keys + key_heads * keys;
                let normed = if norm == HeadNorm::Absent {
                    0
                } else {
                    projected
                };
                let clipped = if clip.is_some() {
                    projected + key_heads * values
                } else {
                    0
                };
                projected + key_heads * values + normed + clipped + heads
            }
        }
    }

    /// What attention's own matrices are multiplied with, which is held only where they are trained.
    fn attention_inputs(&self) -> usize {
        let config = self.config;
        let latents = match config.attention {
            AttentionConfig::Latent {
                query_rank, rank, ..
            } => rank + query_rank.unwrap_or(0),
            AttentionConfig::Grouped { .. } => 0,
        };
        config.hidden_size + latents + config.num_attention_heads * config.value_width()
    }

    /// Gate and up of every network that a token goes through.
    fn feed_forward(&self, layer: usize) -> usize {
        let config = self.config;
        if config.is_moe_layer(layer) {
            let mixture = &config.mixture;
            2 * (self.visits * mixture.width + mixture.shared_width) + 2 * mixture.experts
        } else {
            2 * config.intermediate_size
        }
    }

    /// What a layer takes besides the residual stream when nothing is kept. Buffers of one size serve
    /// one after the other, but attention's sizes do not serve the networks: both stay allocated.
    pub(super) fn evaluated(&self) -> u64 {
        let config = self.config;
        let heads = config.num_attention_heads;
        let (keys, values) = (config.key_width(), config.value_width());
        let attention = match config.attention {
            AttentionConfig::Latent {
                query_rank,
                rank,
                nope,
                rope,
                ..
            } => {
                let expanded = heads * (nope + values);
                let latents = 3 * rank + 2 * rope + 2 * query_rank.unwrap_or(0);
                heads * (2 * keys + 2 * values + 1) + expanded + latents
            }
            AttentionConfig::Grouped { .. } => self.attention() + heads * values,
        };
        let mixture = &config.mixture;
        let networks = self.visits * config.hidden_size + 3 * mixture.experts;
        (attention + networks) as u64
    }

    /// What a layer's backward pass takes besides what its forward pass kept: products and gradients of
    /// every visit, gradients of attention's inputs, the residual stream's. Sizes of one do not serve the
    /// other: both stay allocated.
    pub(super) fn working(&self) -> u64 {
        let config = self.config;
        let (mixture, hidden) = (&config.mixture, config.hidden_size);
        let visited = self.visits * (hidden + mixture.width);
        let shared = if mixture.shared_width > 0 {
            mixture.shared_width + hidden
        } else {
            0
        };
        let heads = config.num_attention_heads;
        let (keys, values) = (config.key_width(), config.value_width());
        let attention = match config.attention {
            AttentionConfig::Latent { .. } => heads * (2 * keys + values),
            AttentionConfig::Grouped { key_heads, .. } => (heads + key_heads) * (keys + values) / 2,
        };
        (10 * hidden + visited + shared + attention) as u64
    }
}
