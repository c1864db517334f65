//! The architecture of a Mixture-of-Experts decoder, independent of the family that it comes from.
//!
//! A family is a way to spell the same blocks: [`ModelConfig`] says which blocks (latent or grouped-query
//! attention, which gate, which layers are dense) and how large; `config/read.rs` parses every family's
//! `config.json` into it and `config/write.rs` spells it again. Knows nothing of files and tensors.

mod account;
mod check;
mod error;
mod family;
mod keys;
mod read;
mod rotary;
mod write;

pub use account::{ParameterAccount, ParameterFormulas};
pub use error::ConfigError;

/// A published architecture: decides names on disk and how `config.json` is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `deepseek_v2`.
    DeepseekV2,
    /// `deepseek_v3`.
    DeepseekV3,
    /// `qwen3_moe`.
    Qwen3Moe,
    /// The text model of `qwen3_vl_moe`.
    Qwen3VlMoe,
    /// `olmoe`.
    Olmoe,
    /// `mixtral`.
    Mixtral,
}

/// What a decoder consists of.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Where the names come from.
    pub family: Family,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Layers, dense and MoE together.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// How keys, queries and values come about.
    pub attention: AttentionConfig,
    /// How positions enter.
    pub rotary: RotaryConfig,
    /// Layers with one feed-forward network instead of experts, ascending.
    pub dense_layers: Vec<usize>,
    /// Width of a dense layer's network; 0 where no layer is dense.
    pub intermediate_size: usize,
    /// The experts.
    pub mixture: MixtureConfig,
    /// ε of the layer norms (latent norms have their own, fixed one).
    pub rms_norm_eps: f64,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// Whether the head is the embedding when the checkpoint has no `lm_head.weight`.
    pub tied_head: bool,
    /// First token of a text, where the tokenizer has one.
    pub bos_token_id: Option<u32>,
    /// Last token of a text, where the tokenizer has one.
    pub eos_token_id: Option<u32>,
}

/// How queries, keys and values come about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AttentionConfig {
    /// Multi-head latent attention (arXiv 2405.04434, section 2.1).
    Latent {
        /// Width of the queries' latent; `None` projects them directly.
        query_rank: Option<usize>,
        /// Width of the latent from which keys and values are expanded.
        rank: usize,
        /// Columns of a query or key head without position.
        nope: usize,
        /// Columns of a query or key head that are rotated; even.
        rope: usize,
        /// Columns of a value head.
        value: usize,
    },
    /// Grouped-query attention (arXiv 2305.13245).
    Grouped {
        /// Key and value heads; divides the query heads.
        key_heads: usize,
        /// Columns of every head.
        head: usize,
        /// Whether and how queries and keys are normalised before rotation.
        norm: HeadNorm,
        /// Bound on every query, key and value, after the norm.
        clip: Option<f32>,
        /// A query at `t` sees keys `t − window < s ≤ t`.
        window: Option<usize>,
    },
}

/// Root-mean-square norms of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadNorm {
    /// None (Mixtral).
    Absent,
    /// Over each head, weights shared by heads (Qwen3).
    PerHead,
    /// Over the whole projection (OLMoE).
    Whole,
}

/// Rotary position embedding (arXiv 2104.09864).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RotaryConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// Which columns turn together.
    pub pairing: Pairing,
    /// Stretching to longer sequences; changes every position's angle.
    pub scaling: Option<YarnConfig>,
}

/// Which two columns of a head are turned together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// `(2i, 2i+1)`.
    Interleaved,
    /// `(i, i + width/2)`.
    Halves,
}

/// YaRN (arXiv 2309.00071) as DeepSeek uses it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct YarnConfig {
    /// By how much positions are stretched.
    pub factor: f64,
    /// Positions of the original training.
    pub original_positions: f64,
    /// Rotations above which a frequency is kept.
    pub beta_fast: f64,
    /// Rotations below which a frequency is divided by the factor.
    pub beta_slow: f64,
    /// Factor on cosines and sines, after all rules about `mscale`.
    pub attention_factor: f64,
    /// Factor on the softmax scale of latent attention: `ms(factor, mscale_all_dim)²`, or 1.
    pub softmax_factor: f64,
}

/// The experts of every MoE layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MixtureConfig {
    /// Routed experts of a layer.
    pub experts: usize,
    /// Routed experts that a token visits.
    pub per_token: usize,
    /// Width of a routed expert.
    pub width: usize,
    /// Width of the shared experts, which are one network; 0 for none.
    pub shared_width: usize,
    /// How experts are chosen and weighted.
    pub gate: GateConfig,
}

/// How a router's logits become a choice and weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateConfig {
    /// From logits to scores.
    pub scoring: Scoring,
    /// Groups of experts that compete first.
    pub groups: Option<GateGroups>,
    /// Whether weights are divided by their sum.
    pub renormalise: bool,
    /// Factor on every weight.
    pub scaling: f32,
}

/// From logits to scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scoring {
    /// Over all experts.
    Softmax,
    /// Of every logit; a bias per expert is added for the choice, never for the weight (DeepSeek-V3).
    SigmoidWithBias,
}

/// Equal consecutive groups of experts, of which only the best may be chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateGroups {
    /// How many groups.
    pub count: usize,
    /// How many of them survive.
    pub kept: usize,
    /// What a group is judged by.
    pub score: GroupScore,
}

/// What a group is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupScore {
    /// Its best expert (DeepSeek-V2).
    Best,
    /// The sum of its two best (DeepSeek-V3).
    BestTwo,
}

impl ModelConfig {
    /// The local network's default model: about a million parameters, 3 MoE layers of 8 experts.
    #[must_use]
    pub fn tiny(vocab_size: usize) -> Self {
        Self {
            family: Family::DeepseekV2,
            vocab_size,
            hidden_size: 128,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            attention: AttentionConfig::Latent {
                query_rank: None,
                rank: 32,
                nope: 16,
                rope: 16,
                value: 32,
            },
            rotary: RotaryConfig {
                theta: 10_000.0,
                pairing: Pairing::Interleaved,
                scaling: None,
            },
            dense_layers: vec![0],
            intermediate_size: 256,
            mixture: MixtureConfig {
                experts: 8,
                per_token: 2,
                width: 64,
                shared_width: 64,
                gate: GateConfig {
                    scoring: Scoring::Softmax,
                    groups: None,
                    renormalise: false,
                    scaling: 1.0,
                },
            },
            rms_norm_eps: 1e-6,
            max_position_embeddings: 256,
            tied_head: false,
            bos_token_id: None,
            eos_token_id: None,
        }
    }

    /// Whether `layer` has routed experts.
    #[must_use]
    pub fn is_moe_layer(&self, layer: usize) -> bool {
        layer < self.num_hidden_layers && self.dense_layers.binary_search(&layer).is_err()
    }

    /// The layers that have routed experts, ascending.
    pub fn moe_layers(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.num_hidden_layers).filter(|layer| self.is_moe_layer(*layer))
    }

    /// Columns of one query or key head.
    #[must_use]
    pub fn key_width(&self) -> usize {
        match self.attention {
            AttentionConfig::Latent { nope, rope, .. } => nope + rope,
            AttentionConfig::Grouped { head, .. } => head,
        }
    }

    /// Columns of one value head.
    #[must_use]
    pub fn value_width(&self) -> usize {
        match self.attention {
            AttentionConfig::Latent { value, .. } => value,
            AttentionConfig::Grouped { head, .. } => head,
        }
    }

    /// Columns of a head that are rotated.
    #[must_use]
    pub fn rotary_width(&self) -> usize {
        match self.attention {
            AttentionConfig::Latent { rope, .. } => rope,
            AttentionConfig::Grouped { head, .. } => head,
        }
    }
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
