//! Every family's names, the order of a tree's leaves, and which names are experts.

use std::convert::Infallible;

use super::*;
use crate::config::{
    AttentionConfig, GateConfig, HeadNorm, MixtureConfig, Pairing, RotaryConfig, Scoring,
};

/// One leaf's name, shape and role, as text that a test can spell.
type Seen = (String, Vec<usize>, Role);

fn tree(config: &ModelConfig, resident: &dyn Fn(usize, usize) -> bool) -> Parameters<Seen> {
    let mut leaf = |parameter: Parameter<'_>| {
        let shape = parameter.shape.to_vec();
        Ok::<_, Infallible>((parameter.name, shape, parameter.role))
    };
    let Ok(tree) = Parameters::build(config, resident, &mut leaf);
    tree
}

fn everything(_: usize, _: usize) -> bool {
    true
}

/// Two layers of hidden size 8, the first one dense, with four experts of width 6.
fn grouped(family: Family, norm: HeadNorm) -> ModelConfig {
    ModelConfig {
        family,
        hidden_size: 8,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        attention: AttentionConfig::Grouped {
            key_heads: 2,
            head: 4,
            norm,
            clip: None,
            window: None,
        },
        rotary: RotaryConfig {
            theta: 10_000.0,
            pairing: Pairing::Halves,
            scaling: None,
        },
        intermediate_size: 10,
        mixture: MixtureConfig {
            experts: 4,
            per_token: 2,
            width: 6,
            shared_width: 0,
            gate: GateConfig {
                scoring: Scoring::Softmax,
                groups: None,
                renormalise: true,
                scaling: 1.0,
            },
        },
        ..ModelConfig::tiny(16)
    }
}

fn deepseek_v3() -> ModelConfig {
    let mut config = ModelConfig::tiny(16);
    config.family = Family::DeepseekV3;
    config.num_hidden_layers = 2;
    config.attention = AttentionConfig::Latent {
        query_rank: Some(48),
        rank: 32,
        nope: 16,
        rope: 8,
        value: 12,
    };
    config.mixture.experts = 2;
    config.mixture.gate.scoring = Scoring::SigmoidWithBias;
    config
}

fn lines(config: &ModelConfig) -> Vec<String> {
    tree(config, &everything)
        .into_leaves()
        .into_iter()
        .map(|(name, shape, _)| format!("{name} {shape:?}"))
        .collect()
}

#[test]
fn deepseek_v3_has_low_rank_queries_a_bias_and_shared_experts() {
    let expected = "\
        model.embed_tokens.weight [16, 128]
        model.layers.0.input_layernorm.weight [128]
        model.layers.0.self_attn.q_a_proj.weight [48, 128]
        model.layers.0.self_attn.q_a_layernorm.weight [48]
        model.layers.0.self_attn.q_b_proj.weight [96, 48]
        model.layers.0.self_attn.kv_a_proj_with_mqa.weight [40, 128]
        model.layers.0.self_attn.kv_a_layernorm.weight [32]
        model.layers.0.self_attn.kv_b_proj.weight [112, 32]
        model.layers.0.self_attn.o_proj.weight [128, 48]
        model.layers.0.post_attention_layernorm.weight [128]
        model.layers.0.mlp.gate_proj.weight [256, 128]
        model.layers.0.mlp.up_proj.weight [256, 128]
        model.layers.0.mlp.down_proj.weight [128, 256]
        model.layers.1.input_layernorm.weight [128]
        model.layers.1.self_attn.q_a_proj.weight [48, 128]
        model.layers.1.self_attn.q_a_layernorm.weight [48]
        model.layers.1.self_attn.q_b_proj.weight [96, 48]
        model.layers.1.self_attn.kv_a_proj_with_mqa.weight [40, 128]
        model.layers.1.self_attn.kv_a_layernorm.weight [32]
        model.layers.1.self_attn.kv_b_proj.weight [112, 32]
        model.layers.1.self_attn.o_proj.weight [128, 48]
        model.layers.1.post_attention_layernorm.weight [128]
        model.layers.1.mlp.gate.weight [2, 128]
        model.layers.1.mlp.gate.e_score_correction_bias [2]
        model.layers.1.mlp.experts.0.gate_proj.weight [64, 128]
        model.layers.1.mlp.experts.0.up_proj.weight [64, 128]
        model.layers.1.mlp.experts.0.down_proj.weight [128, 64]
        model.layers.1.mlp.experts.1.gate_proj.weight [64, 128]
        model.layers.1.mlp.experts.1.up_proj.weight [64, 128]
        model.layers.1.mlp.experts.1.down_proj.weight [128, 64]
        model.layers.1.mlp.shared_experts.gate_proj.weight [64, 128]
        model.layers.1.mlp.shared_experts.up_proj.weight [64, 128]
        model.layers.1.mlp.shared_experts.down_proj.weight [128, 64]
        model.norm.weight [128]
        lm_head.weight [16, 128]";
    let expected: Vec<_> = expected.lines().map(str::trim).collect();
    assert_eq!(lines(&deepseek_v3()), expected);
}

#[test]
fn families_differ_in_prefix_query_norms_and_experts() {
    let has = |family, norm, expected: &str| {
        let lines = lines(&grouped(family, norm));
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected} in {lines:#?}"
        );
    };
    let (per_head, whole) = (HeadNorm::PerHead, HeadNorm::Whole);
    has(
        Family::Qwen3Moe,
        per_head,
        "model.layers.0.self_attn.q_norm.weight [4]",
    );
    has(
        Family::Qwen3Moe,
        per_head,
        "model.layers.0.self_attn.k_norm.weight [4]",
    );
    has(
        Family::Olmoe,
        whole,
        "model.layers.1.self_attn.q_norm.weight [16]",
    );
    has(
        Family::Olmoe,
        whole,
        "model.layers.1.self_attn.k_norm.weight [8]",
    );
    has(
        Family::Olmoe,
        whole,
        "model.layers.1.mlp.experts.3.down_proj.weight [8, 6]",
    );
    let vision = "model.language_model.layers.1.mlp.experts.3.up_proj.weight [6, 8]";
    has(Family::Qwen3VlMoe, per_head, vision);
    has(Family::Qwen3VlMoe, per_head, "lm_head.weight [16, 8]");
    for expected in [
        "model.layers.1.self_attn.k_proj.weight [8, 8]",
        "model.layers.1.block_sparse_moe.gate.weight [4, 8]",
        "model.layers.1.block_sparse_moe.experts.2.w1.weight [6, 8]",
        "model.layers.1.block_sparse_moe.experts.2.w3.weight [6, 8]",
        "model.layers.1.block_sparse_moe.experts.2.w2.weight [8, 6]",
    ] {
        has(Family::Mixtral, HeadNorm::Absent, expected);
    }
    let mixtral = lines(&grouped(Family::Mixtral, HeadNorm::Absent));
    assert!(
        !mixtral.iter().any(|line| line.contains("_norm")),
        "no norms of queries and keys"
    );
}

/// Gradients are matched to names by position, so every walk must visit alike.
#[test]
fn leaves_come_back_in_the_order_in_which_they_were_built() {
    for config in [
        ModelConfig::tiny(16),
        deepseek_v3(),
        grouped(Family::Olmoe, HeadNorm::Whole),
    ] {
        let mut built = Vec::new();
        let mut leaf = |parameter: Parameter<'_>| {
            built.push(parameter.name.clone());
            Ok::<_, Infallible>(parameter.name)
        };
        let Ok(mut tree) = Parameters::build(&config, &everything, &mut leaf);
        assert_eq!(tree.leaves(), built.iter().collect::<Vec<_>>());
        assert_eq!(tree.leaves_mut(), built.iter_mut().collect::<Vec<_>>());
        assert_eq!(tree.clone().map(&mut |name| name), tree);
        assert_eq!(tree.into_leaves(), built);
    }
}

#[test]
fn experts_that_are_not_resident_have_no_leaves() {
    let config = ModelConfig::tiny(16);
    let all = tree(&config, &everything).into_leaves();
    let half = tree(&config, &|layer, expert| (layer + expert) % 2 == 0).into_leaves();
    assert_eq!(
        all.len() - half.len(),
        3 * 4 * 3,
        "three MoE layers, four experts, three matrices"
    );
    for (_, _, role) in half {
        if let Role::Expert { layer, expert } = role {
            assert_eq!((layer + expert) % 2, 0);
        }
    }
}

#[test]
fn a_tied_head_is_no_leaf_of_its_own() {
    let mut config = ModelConfig::tiny(16);
    config.tied_head = true;
    assert!(tree(&config, &everything).head.is_none());
}

#[test]
fn expert_names_are_recognised_and_nothing_else_is() {
    for config in [
        ModelConfig::tiny(16),
        grouped(Family::Qwen3VlMoe, HeadNorm::PerHead),
        grouped(Family::Mixtral, HeadNorm::Absent),
    ] {
        for (name, _, role) in tree(&config, &everything).into_leaves() {
            let expected = match role {
                Role::Expert { layer, expert } => Some((layer, expert)),
                _ => None,
            };
            assert_eq!(parse_expert_name(&name), expected, "{name}");
        }
    }
    for stranger in [
        "",
        "model.layers.1.mlp.experts.07.gate_proj.weight",
        "model.layers.1.mlp.experts.+7.gate_proj.weight",
        "model.layers.1.mlp.experts.7.gate_proj.weight.extra",
        "model.layers.1.mlp.experts.7.gate_proj.bias",
        "model.layers.1.mlp.experts.7.w1.weight",
        "model.layers.1.mlp.experts.7.gate_up_proj",
        "model.layers.1.mlp.experts.99999999999999999999.gate_proj.weight",
        "model.layers.1.mlp.shared_experts.gate_proj.weight",
        "model.visual.layers.1.mlp.experts.7.gate_proj.weight",
        "layers.1.mlp.experts.7.gate_proj.weight",
    ] {
        assert_eq!(parse_expert_name(stranger), None, "{stranger}");
    }
}
