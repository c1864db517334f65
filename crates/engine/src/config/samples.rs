//! One small model per family, for tests: every size differs from every other where it can, so that no
//! two can be mistaken for each other.

use super::{
    AttentionConfig, Family, GateConfig, GateGroups, GroupScore, HeadNorm, MixtureConfig,
    ModelConfig, Pairing, RotaryConfig, Scoring, YarnConfig,
};

/// A model of `family` with three layers, of which the first is dense where the family has dense layers.
pub(crate) fn small(family: Family) -> ModelConfig {
    let latent = family.has_latent_attention();
    let dense = !matches!(family, Family::Olmoe | Family::Mixtral);
    ModelConfig {
        family,
        vocab_size: 40,
        hidden_size: 16,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        attention: if latent {
            latent_attention(family)
        } else {
            grouped_attention(family)
        },
        rotary: RotaryConfig {
            theta: 10_000.0,
            pairing: if latent {
                Pairing::Interleaved
            } else {
                Pairing::Halves
            },
            scaling: latent.then_some(YarnConfig {
                factor: 40.0,
                original_positions: 4096.0,
                beta_fast: 32.0,
                beta_slow: 1.0,
                attention_factor: 1.0,
                softmax_factor: (0.1 * 0.707 * 40.0_f64.ln() + 1.0).powi(2),
            }),
        },
        dense_layers: if dense { vec![0] } else { Vec::new() },
        intermediate_size: if dense { 20 } else { 0 },
        mixture: mixture(family),
        rms_norm_eps: 1e-6,
        max_position_embeddings: 64,
        tied_head: false,
        bos_token_id: Some(1),
        eos_token_id: None,
    }
}

fn latent_attention(family: Family) -> AttentionConfig {
    AttentionConfig::Latent {
        query_rank: (family == Family::DeepseekV3).then_some(14),
        rank: 10,
        nope: 6,
        rope: 4,
        value: 8,
    }
}

fn grouped_attention(family: Family) -> AttentionConfig {
    AttentionConfig::Grouped {
        key_heads: 2,
        // Norms over whole projections are as wide as the hidden size.
        head: if family == Family::Olmoe { 4 } else { 6 },
        norm: match family {
            Family::Mixtral => HeadNorm::Absent,
            Family::Olmoe => HeadNorm::Whole,
            _ => HeadNorm::PerHead,
        },
        clip: (family == Family::Olmoe).then_some(8.5),
        window: (family == Family::Mixtral).then_some(5),
    }
}

fn mixture(family: Family) -> MixtureConfig {
    let latent = family.has_latent_attention();
    MixtureConfig {
        experts: 8,
        per_token: 3,
        width: 12,
        shared_width: if latent { 24 } else { 0 },
        gate: GateConfig {
            scoring: match family {
                Family::DeepseekV3 => Scoring::SigmoidWithBias,
                _ => Scoring::Softmax,
            },
            groups: latent.then_some(GateGroups {
                count: 4,
                kept: 2,
                score: match family {
                    Family::DeepseekV3 => GroupScore::BestTwo,
                    _ => GroupScore::Best,
                },
            }),
            renormalise: !matches!(family, Family::DeepseekV2 | Family::Olmoe),
            scaling: if latent { 2.5 } else { 1.0 },
        },
    }
}
