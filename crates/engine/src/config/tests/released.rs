//! The configurations of released models: what is read from them, and what the models weigh.
//!
//! Files are shortened to the keys that matter, with the values of the published ones.

use super::super::*;

const V2_LITE: &str = r#"{"model_type": "deepseek_v2", "architectures": ["DeepseekV2ForCausalLM"],
  "attention_bias": false, "attention_dropout": 0.0, "aux_loss_alpha": 0.001, "bos_token_id": 100000,
  "eos_token_id": 100001, "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 2048,
  "intermediate_size": 10944, "kv_lora_rank": 512, "max_position_embeddings": 163840,
  "moe_intermediate_size": 1408, "moe_layer_freq": 1, "n_group": 1, "n_routed_experts": 64,
  "n_shared_experts": 2, "norm_topk_prob": false, "num_attention_heads": 16, "num_experts_per_tok": 6,
  "num_hidden_layers": 27, "num_key_value_heads": 16, "q_lora_rank": null, "qk_nope_head_dim": 128,
  "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06, "rope_theta": 10000, "routed_scaling_factor": 1.0,
  "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707,
    "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096, "type": "yarn"},
  "scoring_func": "softmax", "seq_aux": true, "tie_word_embeddings": false, "topk_group": 1,
  "topk_method": "greedy", "torch_dtype": "bfloat16", "v_head_dim": 128, "vocab_size": 102400}"#;

const V2: &str = r#"{"model_type": "deepseek_v2", "first_k_dense_replace": 1, "hidden_size": 5120,
  "intermediate_size": 12288, "kv_lora_rank": 512, "max_position_embeddings": 163840,
  "moe_intermediate_size": 1536, "n_group": 8, "n_routed_experts": 160, "n_shared_experts": 2,
  "num_attention_heads": 128, "num_experts_per_tok": 6, "num_hidden_layers": 60,
  "num_key_value_heads": 128, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
  "routed_scaling_factor": 16.0, "topk_group": 3, "topk_method": "group_limited_greedy",
  "v_head_dim": 128, "vocab_size": 102400}"#;

const V3: &str = r#"{"model_type": "deepseek_v3", "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1,
  "first_k_dense_replace": 3, "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512,
  "max_position_embeddings": 163840, "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8,
  "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": true, "num_attention_heads": 128,
  "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
  "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
  "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
    "weight_block_size": [128, 128]},
  "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0,
    "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096, "type": "yarn"},
  "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_group": 4,
  "topk_method": "noaux_tc", "v_head_dim": 128, "vocab_size": 129280}"#;

const QWEN3_30B: &str = r#"{"model_type": "qwen3_moe", "bos_token_id": 151643, "eos_token_id": 151645,
  "attention_bias": false, "decoder_sparse_step": 1, "head_dim": 128, "hidden_size": 2048,
  "intermediate_size": 6144, "max_position_embeddings": 40960, "max_window_layers": 48,
  "mlp_only_layers": [], "moe_intermediate_size": 768, "norm_topk_prob": true,
  "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
  "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000.0,
  "router_aux_loss_coef": 0.001, "sliding_window": null, "tie_word_embeddings": false,
  "use_sliding_window": false, "vocab_size": 151936}"#;

const QWEN3_235B: &str = r#"{"model_type": "qwen3_moe", "head_dim": 128, "hidden_size": 4096,
  "max_position_embeddings": 40960, "moe_intermediate_size": 1536, "norm_topk_prob": true,
  "num_attention_heads": 64, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 94,
  "num_key_value_heads": 4, "rope_theta": 1000000.0, "vocab_size": 151936}"#;

const QWEN3_VL: &str = r#"{"model_type": "qwen3_vl_moe", "tie_word_embeddings": false,
  "architectures": ["Qwen3VLMoeForConditionalGeneration"], "vision_config": {"depth": 27},
  "text_config": {"model_type": "qwen3_vl_moe_text", "bos_token_id": 151643, "eos_token_id": 151645,
    "decoder_sparse_step": 1, "head_dim": 128, "hidden_size": 2048, "intermediate_size": 6144,
    "max_position_embeddings": 262144, "mlp_only_layers": [], "moe_intermediate_size": 768,
    "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
    "num_hidden_layers": 48, "num_key_value_heads": 4, "rope_theta": 5000000,
    "rope_scaling": {"mrope_interleaved": true, "mrope_section": [24, 20, 20],
      "rope_type": "default"}, "vocab_size": 151936}}"#;

const OLMOE: &str = r#"{"model_type": "olmoe", "clip_qkv": null, "eos_token_id": 50279,
  "hidden_size": 2048, "intermediate_size": 1024, "max_position_embeddings": 4096,
  "norm_topk_prob": false, "num_attention_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
  "num_hidden_layers": 16, "num_key_value_heads": 16, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
  "vocab_size": 50304}"#;

const MIXTRAL: &str = r#"{"model_type": "mixtral", "bos_token_id": 1, "eos_token_id": 2,
  "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768,
  "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32,
  "num_key_value_heads": 8, "num_local_experts": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
  "sliding_window": null, "vocab_size": 32000}"#;

fn read(text: &str) -> ModelConfig {
    ModelConfig::from_json(text).expect("a released configuration")
}

/// Every line of the published account of DeepSeek-V2-Lite, to the parameter.
#[test]
fn deepseek_v2_lite_weighs_what_its_shapes_add_up_to() {
    let config = read(V2_LITE);
    assert_eq!(config.moe_layers().count(), 26);
    let expected = ParameterAccount {
        embedding: 209_715_200,
        head: 209_715_200,
        attention: 371_602_944,
        norms: 112_640,
        dense: 67_239_936,
        gates: 3_407_872,
        shared: 449_839_104,
        per_expert: 8_650_752,
        routed: 14_394_851_328,
        backbone: 861_793_792,
        total: 15_706_484_224,
    };
    assert_eq!(config.parameters(), expected);
    let eight_experts = expected.backbone + expected.shared + expected.per_expert * 8 * 26;
    assert_eq!(eight_experts, 3_110_989_312);
}

/// One expert, backbone, shared experts, routed experts, everything.
fn weighs(text: &str) -> [u64; 5] {
    let ParameterAccount {
        per_expert,
        backbone,
        shared,
        routed,
        total,
        ..
    } = read(text).parameters();
    [per_expert, backbone, shared, routed, total]
}

#[test]
fn the_other_deepseek_releases_weigh_what_their_shapes_add_up_to() {
    let v2 = [
        23_592_960,
        10_239_923_200,
        2_783_969_280,
        222_717_542_400,
        235_741_434_880,
    ];
    assert_eq!(weighs(V2), v2);
    let v3 = [
        44_040_192,
        14_563_317_248,
        2_554_331_136,
        653_908_770_816,
        671_026_419_200,
    ];
    assert_eq!(
        weighs(V3),
        v3,
        "without the module that predicts several tokens"
    );
    assert_eq!(read(V3).parameters().attention, 61 * 187_107_328);
}

#[test]
fn the_grouped_releases_weigh_what_their_shapes_add_up_to() {
    let qwen = [4_718_592, 1_541_093_376, 0, 28_991_029_248, 30_532_122_624];
    assert_eq!(weighs(QWEN3_30B), qwen);
    assert_eq!(weighs(QWEN3_VL), qwen, "the text model alone");
    let large = [
        18_874_368,
        7_997_238_784,
        0,
        227_096_395_776,
        235_093_634_560,
    ];
    assert_eq!(weighs(QWEN3_235B), large);
    let olmoe = [6_291_456, 476_710_912, 0, 6_442_450_944, 6_919_161_856];
    assert_eq!(weighs(OLMOE), olmoe);
    let mixtral = [
        176_160_768,
        1_605_636_096,
        0,
        45_097_156_608,
        46_702_792_704,
    ];
    assert_eq!(weighs(MIXTRAL), mixtral);
    assert_eq!(
        read(QWEN3_30B).parameters().attention,
        48 * (18_874_368 + 256)
    );
    assert_eq!(
        read(OLMOE).parameters().attention,
        16 * (16_777_216 + 4_096)
    );
}

#[test]
fn deepseek_v2_is_latent_attention_with_a_greedy_or_a_grouped_gate() {
    let lite = read(V2_LITE);
    assert_eq!(lite.family, Family::DeepseekV2);
    let latent = AttentionConfig::Latent {
        query_rank: None,
        rank: 512,
        nope: 128,
        rope: 64,
        value: 128,
    };
    assert_eq!(lite.attention, latent);
    assert_eq!(lite.dense_layers, [0]);
    assert_eq!(
        (lite.bos_token_id, lite.eos_token_id),
        (Some(100_000), Some(100_001))
    );
    assert_eq!(lite.mixture.shared_width, 2 * 1408);
    let greedy = GateConfig {
        scoring: Scoring::Softmax,
        groups: None,
        renormalise: false,
        scaling: 1.0,
    };
    assert_eq!(lite.mixture.gate, greedy);
    let full = read(V2);
    let limited = GateConfig {
        groups: Some(GateGroups {
            count: 8,
            kept: 3,
            score: GroupScore::Best,
        }),
        scaling: 16.0,
        ..greedy
    };
    assert_eq!(full.mixture.gate, limited);
    assert_eq!(full.rotary.scaling, None);
}

#[test]
fn deepseek_v3_has_a_biased_sigmoid_gate() {
    let config = read(V3);
    let gate = GateConfig {
        scoring: Scoring::SigmoidWithBias,
        groups: Some(GateGroups {
            count: 8,
            kept: 4,
            score: GroupScore::BestTwo,
        }),
        renormalise: true,
        scaling: 2.5,
    };
    assert_eq!(config.mixture.gate, gate);
    assert_eq!(config.dense_layers, [0, 1, 2]);
    assert_eq!(config.rotary.pairing, Pairing::Interleaved);
}

/// The constants that the releases' `mscale` comes to: equal values cancel on the cosines and stay,
/// squared, on the softmax.
#[test]
fn yarn_constants_are_those_of_the_releases() {
    let lite = read(V2_LITE).rotary.scaling.expect("YaRN");
    assert_eq!(lite.attention_factor, 1.0);
    assert!((lite.softmax_factor.sqrt() - 1.260_803_777_4).abs() < 1e-10);
    let scale = lite.softmax_factor / 192.0_f64.sqrt();
    assert!((scale - 0.114_721_386_8).abs() < 1e-10);
    assert_eq!((lite.factor, lite.original_positions), (40.0, 4096.0));
    assert_eq!((lite.beta_fast, lite.beta_slow), (32.0, 1.0));
    let v3 = read(V3).rotary.scaling.expect("YaRN");
    let scale = v3.softmax_factor / 192.0_f64.sqrt();
    assert!((scale - 0.135_233_778_8).abs() < 1e-10);
}

#[test]
fn grouped_families_differ_in_norms_widths_and_gates() {
    let qwen = read(QWEN3_30B);
    let attention = AttentionConfig::Grouped {
        key_heads: 4,
        head: 128,
        norm: HeadNorm::PerHead,
        clip: None,
        window: None,
    };
    assert_eq!(
        qwen.attention, attention,
        "the head is not the hidden size over the heads"
    );
    assert_eq!(qwen.rotary.theta, 1e6);
    assert!(qwen.mixture.gate.renormalise);
    assert_eq!(qwen.intermediate_size, 0, "no layer is dense");

    let vision = read(QWEN3_VL);
    assert_eq!(vision.attention, attention);
    assert_eq!(vision.rotary.theta, 5e6);
    assert_eq!(vision.rotary.scaling, None);
    assert_eq!(vision.rotary.pairing, Pairing::Halves);
    assert!(vision.mixture.gate.renormalise && !vision.tied_head);

    let olmoe = read(OLMOE);
    assert_eq!(olmoe.mixture.width, 1024);
    assert!(!olmoe.mixture.gate.renormalise);
    assert_eq!(olmoe.rms_norm_eps, 1e-5);
    assert!(matches!(
        olmoe.attention,
        AttentionConfig::Grouped {
            head: 128,
            norm: HeadNorm::Whole,
            ..
        }
    ));

    let mixtral = read(MIXTRAL);
    assert_eq!(mixtral.mixture.width, 14_336);
    assert!(mixtral.mixture.gate.renormalise);
    assert!(matches!(
        mixtral.attention,
        AttentionConfig::Grouped {
            key_heads: 8,
            head: 128,
            norm: HeadNorm::Absent,
            ..
        }
    ));
}

#[test]
fn a_release_comes_back_from_its_own_writing_and_warns_of_nothing() {
    for text in [
        V2_LITE, V2, V3, QWEN3_30B, QWEN3_235B, QWEN3_VL, OLMOE, MIXTRAL,
    ] {
        let config = read(text);
        assert_eq!(read(&config.to_json()), config);
        assert!(ModelConfig::warnings(text).is_empty());
    }
    let written = read(V2_LITE).to_json();
    assert!(written.contains("\"mscale_all_dim\": 0.707"), "{written}");
}
