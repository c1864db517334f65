//! How many parameters a model has, and in what.
//!
//! Sums over the shapes that `names.rs` lists, in closed form: a configuration is priced without listing
//! a tensor. The configuration's ranges keep every sum within 64 bits.

use super::{AttentionConfig, HeadNorm, ModelConfig, Scoring};

/// Parameters of a whole model, in numbers of values.
///
/// `backbone + shared + per_expert · (resident experts of a layer) · (MoE layers)` is what a machine
/// holds that keeps only some of the routed experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterAccount {
    /// The token embedding.
    pub embedding: u64,
    /// The head; 0 where it is the embedding.
    pub head: u64,
    /// Attention of all layers, with the norms inside it.
    pub attention: u64,
    /// The norms before attention and feed-forward networks, and the last one.
    pub norms: u64,
    /// Feed-forward networks of the dense layers.
    pub dense: u64,
    /// Routers, with their biases.
    pub gates: u64,
    /// Shared experts of all layers.
    pub shared: u64,
    /// One routed expert of one layer.
    pub per_expert: u64,
    /// Routed experts of all layers.
    pub routed: u64,
    /// Everything but routed and shared experts.
    pub backbone: u64,
    /// Everything.
    pub total: u64,
}

impl ModelConfig {
    /// Counts the model's parameters.
    #[must_use]
    pub fn parameters(&self) -> ParameterAccount {
        let [vocabulary, hidden, layers] =
            [self.vocab_size, self.hidden_size, self.num_hidden_layers].map(wide);
        let dense_layers = wide(self.dense_layers.len());
        let moe_layers = layers - dense_layers.min(layers);
        let mixture = &self.mixture;
        let experts = wide(mixture.experts);
        let embedding = vocabulary * hidden;
        let head = if self.tied_head { 0 } else { embedding };
        let attention = layers * self.attention_parameters();
        let norms = (2 * layers + 1) * hidden;
        let dense = dense_layers * 3 * hidden * wide(self.intermediate_size);
        let router = match mixture.gate.scoring {
            Scoring::Softmax => experts * hidden,
            Scoring::SigmoidWithBias => experts * (hidden + 1),
        };
        let gates = moe_layers * router;
        let shared = moe_layers * 3 * hidden * wide(mixture.shared_width);
        let per_expert = 3 * hidden * wide(mixture.width);
        let routed = moe_layers * experts * per_expert;
        let backbone = embedding + head + attention + norms + dense + gates;
        ParameterAccount {
            embedding,
            head,
            attention,
            norms,
            dense,
            gates,
            shared,
            per_expert,
            routed,
            backbone,
            total: backbone + shared + routed,
        }
    }

    /// One layer's attention, with its norms.
    fn attention_parameters(&self) -> u64 {
        let (hidden, heads) = (wide(self.hidden_size), wide(self.num_attention_heads));
        match self.attention {
            AttentionConfig::Latent {
                query_rank,
                rank,
                nope,
                rope,
                value,
            } => {
                let [rank, nope, rope, value] = [rank, nope, rope, value].map(wide);
                let queries = heads * (nope + rope);
                let queries = match query_rank.map(wide) {
                    None => hidden * queries,
                    Some(rank) => hidden * rank + rank + rank * queries,
                };
                let latent = hidden * (rank + rope) + rank + rank * heads * (nope + value);
                queries + latent + heads * value * hidden
            }
            AttentionConfig::Grouped {
                key_heads,
                head,
                norm,
                ..
            } => {
                let (queries, keys) = (heads * wide(head), wide(key_heads) * wide(head));
                let norms = match norm {
                    HeadNorm::Absent => 0,
                    HeadNorm::PerHead => 2 * wide(head),
                    HeadNorm::Whole => queries + keys,
                };
                2 * hidden * queries + 2 * hidden * keys + norms
            }
        }
    }
}

fn wide(size: usize) -> u64 {
    // A size in memory fits 64 bits on every machine that this compiles for.
    size as u64
}
