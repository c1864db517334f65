//! How many parameters a model has, and in what.
//!
//! Sums over the shapes that `names.rs` lists, as formulas over the configuration's sizes: a configuration
//! is priced without listing a tensor, and every sum can say how it came about. Sizes are called as
//! `config.json` calls them where all families agree. The configuration's ranges keep every sum within
//! 64 bits.

use super::{AttentionConfig, HeadNorm, ModelConfig, Scoring};
use crate::formula::Formula;

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

/// How the numbers of a [`ParameterAccount`] come about, under the same names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterFormulas {
    /// See [`ParameterAccount::embedding`].
    pub embedding: Formula,
    /// See [`ParameterAccount::head`].
    pub head: Formula,
    /// See [`ParameterAccount::attention`].
    pub attention: Formula,
    /// See [`ParameterAccount::norms`].
    pub norms: Formula,
    /// See [`ParameterAccount::dense`].
    pub dense: Formula,
    /// See [`ParameterAccount::gates`].
    pub gates: Formula,
    /// See [`ParameterAccount::shared`].
    pub shared: Formula,
    /// See [`ParameterAccount::per_expert`].
    pub per_expert: Formula,
    /// See [`ParameterAccount::routed`].
    pub routed: Formula,
    /// See [`ParameterAccount::backbone`].
    pub backbone: Formula,
    /// See [`ParameterAccount::total`].
    pub total: Formula,
}

impl ParameterFormulas {
    /// The numbers.
    #[must_use]
    pub fn account(&self) -> ParameterAccount {
        ParameterAccount {
            embedding: self.embedding.count(),
            head: self.head.count(),
            attention: self.attention.count(),
            norms: self.norms.count(),
            dense: self.dense.count(),
            gates: self.gates.count(),
            shared: self.shared.count(),
            per_expert: self.per_expert.count(),
            routed: self.routed.count(),
            backbone: self.backbone.count(),
            total: self.total.count(),
        }
    }
}

impl ModelConfig {
    /// Counts the model's parameters.
    #[must_use]
    pub fn parameters(&self) -> ParameterAccount {
        self.parameter_formulas().account()
    }

    /// Counts the model's parameters and says how.
    #[must_use]
    pub fn parameter_formulas(&self) -> ParameterFormulas {
        let mixture = &self.mixture;
        let hidden = || size("hidden_size", self.hidden_size);
        let layers = || size("num_hidden_layers", self.num_hidden_layers);
        let experts = || size("routed_experts", mixture.experts);
        let dense_layers = self.dense_layers.len().min(self.num_hidden_layers);
        let moe_layers = || size("moe_layers", self.num_hidden_layers - dense_layers);

        let embedding = size("vocab_size", self.vocab_size) * hidden();
        let head = if self.tied_head {
            Formula::constant(0)
        } else {
            embedding.clone()
        };
        let attention = self.layer_attention() * layers();
        let norms = Formula::constant(2) * layers() * hidden() + hidden();
        let network = |width| Formula::constant(3) * hidden() * width;
        let dense = match dense_layers {
            // Their width means nothing then, whatever the configuration says of it.
            0 => size("dense_layers", 0),
            _ => {
                network(size("intermediate_size", self.intermediate_size))
                    * size("dense_layers", dense_layers)
            }
        };
        let router = match mixture.gate.scoring {
            Scoring::Softmax => experts() * hidden(),
            // A bias for every expert.
            Scoring::SigmoidWithBias => experts() * (hidden() + 1),
        };
        let gates = router * moe_layers();
        let shared = network(size("shared_width", mixture.shared_width)) * moe_layers();
        let per_expert = network(size("expert_width", mixture.width));
        let routed = per_expert.named("per_expert") * experts() * moe_layers();
        let backbone = embedding.named("embedding")
            + head.named("head")
            + attention.named("attention")
            + norms.named("norms")
            + dense.named("dense")
            + gates.named("gates");
        let total = backbone.named("backbone") + shared.named("shared") + routed.named("routed");
        ParameterFormulas {
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
            total,
        }
    }

    /// One layer's attention, with its norms.
    fn layer_attention(&self) -> Formula {
        let hidden = || size("hidden_size", self.hidden_size);
        let heads = || size("num_attention_heads", self.num_attention_heads);
        match self.attention {
            AttentionConfig::Latent {
                query_rank,
                rank,
                nope,
                rope,
                value,
            } => {
                let [nope, value] = [size("qk_nope_head_dim", nope), size("v_head_dim", value)];
                let rope = || size("qk_rope_head_dim", rope);
                let rank = || size("kv_lora_rank", rank);
                let queries = heads() * (nope.clone() + rope());
                let queries = match query_rank {
                    None => hidden() * queries,
                    Some(rank) => {
                        let rank = || size("q_lora_rank", rank);
                        hidden() * rank() + rank() + rank() * queries
                    }
                };
                let latent = hidden() * (rank() + rope()) + rank();
                let expanded = rank() * heads() * (nope + value.clone());
                queries + latent + expanded + heads() * value * hidden()
            }
            AttentionConfig::Grouped {
                key_heads,
                head,
                norm,
                ..
            } => {
                let head = || size("head_dim", head);
                let key_heads = || size("num_key_value_heads", key_heads);
                let two = || Formula::constant(2);
                let matrices =
                    two() * hidden() * heads() * head() + two() * hidden() * key_heads() * head();
                match norm {
                    HeadNorm::Absent => matrices,
                    HeadNorm::PerHead => matrices + two() * head(),
                    HeadNorm::Whole => matrices + (heads() + key_heads()) * head(),
                }
            }
        }
    }
}

/// A size of the configuration under its name.
fn size(name: &'static str, size: usize) -> Formula {
    // A size in memory fits 64 bits on every machine that this compiles for.
    Formula::quantity(name, size as u64)
}
