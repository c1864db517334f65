//! What a `config.json` may say, and the key that is named when it says something else.

mod released;
mod round_trip;

use serde_json::{Map, Value, json};

use super::samples::small;
use super::*;

fn keys(family: Family) -> Map<String, Value> {
    serde_json::from_str(&small(family).to_json()).expect("what is written is JSON")
}

fn read(object: &Map<String, Value>) -> Result<ModelConfig, ConfigError> {
    ModelConfig::from_json(&Value::Object(object.clone()).to_string())
}

/// The small model of a family with some keys changed.
fn changed(family: Family, changes: &[(&str, Value)]) -> Result<ModelConfig, ConfigError> {
    let mut object = keys(family);
    for (key, value) in changes {
        object.insert((*key).into(), value.clone());
    }
    read(&object)
}

/// The message about the small model of a family with one key changed.
fn refusal(family: Family, key: &str, value: Value) -> String {
    match changed(family, &[(key, value)]) {
        Ok(config) => panic!("accepted {config:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn another_architecture_is_refused() {
    let expected = "model_type is \"llama\", which is none of deepseek_v2, deepseek_v3, qwen3_moe, \
        qwen3_vl_moe, olmoe, mixtral";
    assert_eq!(
        refusal(Family::DeepseekV2, "model_type", "llama".into()),
        expected
    );
    let not_an_object = ModelConfig::from_json("[]").unwrap_err().to_string();
    assert_eq!(not_an_object, "the configuration is not a JSON object");
}

/// A default here would load another model than the one that was trained.
#[test]
fn a_missing_size_is_named_and_gets_no_default() {
    let every = [
        "model_type",
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_experts_per_tok",
        "max_position_embeddings",
    ];
    let deepseek = [
        "intermediate_size",
        "moe_intermediate_size",
        "kv_lora_rank",
        "qk_nope_head_dim",
        "qk_rope_head_dim",
        "v_head_dim",
        "n_routed_experts",
        "n_shared_experts",
        "first_k_dense_replace",
        "n_group",
        "topk_group",
    ];
    let qwen = [
        "intermediate_size",
        "moe_intermediate_size",
        "num_experts",
        "num_key_value_heads",
    ];
    for (family, own) in [
        (Family::DeepseekV2, &deepseek[..]),
        (Family::DeepseekV3, &deepseek[..]),
        (Family::DeepseekV3, &["routed_scaling_factor"]),
        (Family::Qwen3Moe, &qwen),
        (Family::Olmoe, &["intermediate_size", "num_experts"]),
        (
            Family::Mixtral,
            &[
                "intermediate_size",
                "num_local_experts",
                "num_key_value_heads",
            ],
        ),
    ] {
        for key in every.iter().chain(own) {
            let mut object = keys(family);
            object.remove(*key);
            if *key == "num_attention_heads" {
                // Its value is not repeated in another key of the file.
                object.remove("num_key_value_heads");
            }
            let error = read(&object).unwrap_err().to_string();
            assert_eq!(error, format!("key {key} is missing"), "{family:?}");
        }
    }
}

fn expect_bad_values(family: Family, cases: &[(&str, Value, &str)]) {
    for (key, value, expected) in cases {
        let message = format!("key {key} is {value}, expected {expected}");
        assert_eq!(refusal(family, key, value.clone()), message);
    }
}

#[test]
fn an_impossible_value_is_named_with_what_would_do() {
    let size = "a whole number from 1 to 1048576";
    let layers = "a list of layers below num_hidden_layers (3)";
    expect_bad_values(
        Family::Qwen3Moe,
        &[
            ("vocab_size", json!("many"), size),
            ("hidden_size", json!(1e300), size),
            ("max_position_embeddings", json!(0), size),
            ("decoder_sparse_step", json!(0), size),
            ("num_hidden_layers", json!(5000), "at most 4096"),
            ("mlp_only_layers", json!([0, 3]), layers),
            (
                "rms_norm_eps",
                json!(-1.0),
                "a positive number of single precision",
            ),
            ("rope_theta", json!(1), "a number above 1"),
            ("tie_word_embeddings", json!("yes"), "true or false"),
        ],
    );
    let single = "a positive number of single precision";
    let norms = "hidden_size over num_attention_heads, as norms of this family need";
    let tokens = "a token id, a list of them or null";
    expect_bad_values(
        Family::Olmoe,
        &[
            ("clip_qkv", json!(1e300), single),
            ("head_dim", json!(8), norms),
            ("eos_token_id", json!([]), tokens),
            ("eos_token_id", json!(-1), tokens),
        ],
    );
}

#[test]
fn sizes_that_do_not_fit_each_other_are_named_with_what_would_do() {
    expect_bad_values(
        Family::DeepseekV2,
        &[
            (
                "hidden_size",
                json!(18),
                "a multiple of num_attention_heads (4)",
            ),
            (
                "num_experts_per_tok",
                json!(9),
                "at most n_routed_experts (8)",
            ),
            (
                "num_experts_per_tok",
                json!(5),
                "at most the 4 experts of topk_group groups",
            ),
            (
                "first_k_dense_replace",
                json!(5),
                "at most num_hidden_layers (3)",
            ),
            ("qk_rope_head_dim", json!(15), "an even number"),
            ("n_routed_experts", json!(10), "a multiple of n_group (4)"),
            (
                "n_routed_experts",
                json!(65536),
                "at most 131072 in all layers together",
            ),
            ("topk_group", json!(5), "at most n_group (4)"),
        ],
    );
    let halves = [("n_group", json!(8), "at most half of n_routed_experts (8)")];
    expect_bad_values(Family::DeepseekV3, &halves);
    expect_bad_values(
        Family::Qwen3Moe,
        &[
            ("head_dim", json!(7), "an even number"),
            (
                "num_attention_heads",
                json!(5),
                "a multiple of num_key_value_heads (2)",
            ),
        ],
    );
    let heads = "key num_attention_heads is 4, expected heads of together at most 1048576 columns";
    let message = refusal(Family::Mixtral, "head_dim", json!(1_048_576));
    assert!(message.starts_with(heads), "{message}");
}

fn expect_unsupported(family: Family, cases: &[(&str, Value, &str)]) {
    for (key, value, supported) in cases {
        let expected =
            format!("key {key} is {value}, which is not supported ({supported} would be)");
        assert_eq!(refusal(family, key, value.clone()), expected);
    }
}

/// Ignoring any of these would compute another model without saying so.
#[test]
fn an_option_that_is_not_computed_is_refused_by_its_key() {
    let methods = "\"greedy\" or \"group_limited_greedy\"";
    expect_unsupported(
        Family::DeepseekV2,
        &[
            ("topk_method", json!("random"), methods),
            ("scoring_func", json!("sigmoid"), "\"softmax\""),
            ("rope_interleave", json!(false), "true"),
            ("moe_layer_freq", json!(2), "1"),
            ("hidden_act", json!("gelu"), "\"silu\""),
            ("attention_bias", json!(true), "false"),
            ("mlp_bias", json!(true), "false"),
            ("attention_dropout", json!(0.1), "0"),
            ("num_key_value_heads", json!(2), "num_attention_heads"),
            ("sliding_window", json!(8), "null"),
        ],
    );
    expect_unsupported(
        Family::DeepseekV3,
        &[
            ("scoring_func", json!("softmax"), "\"sigmoid\""),
            ("topk_method", json!("greedy"), "\"noaux_tc\""),
        ],
    );
    expect_unsupported(
        Family::Qwen3Moe,
        &[
            ("clip_qkv", json!(8), "null"),
            ("partial_rotary_factor", json!(0.5), "1"),
        ],
    );
    expect_unsupported(Family::Olmoe, &[("sliding_window", json!(8), "null")]);
    let sliding = "\"sliding_attention\" in every layer";
    expect_unsupported(
        Family::Mixtral,
        &[
            ("norm_topk_prob", json!(false), "true"),
            ("router_jitter_noise", json!(0.01), "0"),
            ("layer_types", json!(["full_attention"]), sliding),
        ],
    );
}

#[test]
fn options_inside_objects_are_refused_by_their_whole_path() {
    for (key, value, expected) in [
        (
            "rope_scaling",
            json!({"type": "linear", "factor": 2}),
            "key rope_scaling.type is \"linear\", which is not supported (\"default\" or \"yarn\" \
             would be)",
        ),
        (
            "rope_parameters",
            json!({"rope_type": "llama3"}),
            "key rope_parameters.rope_type is \"llama3\", which is not supported (\"default\" or \
             \"yarn\" would be)",
        ),
        (
            "rope_scaling",
            json!({"type": "yarn"}),
            "key rope_scaling.factor is missing",
        ),
        (
            "rope_scaling",
            json!({"type": "yarn", "factor": 0.5}),
            "key rope_scaling.factor is 0.5, expected a number from 1",
        ),
        (
            "rope_scaling",
            json!({"type": "yarn", "factor": 2, "truncate": false}),
            "key rope_scaling.truncate is false, which is not supported (true would be)",
        ),
        (
            "rope_parameters",
            json!({"full_attention": {"rope_type": "default"}}),
            "key rope_parameters.full_attention is {\"rope_type\":\"default\"}, which is not supported (one \
             description for all layers would be)",
        ),
        (
            "rope_scaling",
            json!(2),
            "key rope_scaling is 2, expected an object",
        ),
        (
            "quantization_config",
            json!({"quant_method": "awq"}),
            "key quantization_config.quant_method is \"awq\", which is not supported (\"fp8\" would \
             be)",
        ),
        (
            "quantization_config",
            json!({"quant_method": "fp8", "weight_block_size": [64, 64]}),
            "key quantization_config.weight_block_size is [64,64], which is not supported \
             ([128,128] would be)",
        ),
    ] {
        assert_eq!(refusal(Family::Qwen3Moe, key, value), expected);
    }
}

#[test]
fn keys_of_a_nested_text_model_are_named_by_their_whole_path() {
    let mut vision = keys(Family::Qwen3VlMoe);
    vision["text_config"]["hidden_size"] = Value::Null;
    let error = read(&vision).unwrap_err().to_string();
    assert_eq!(error, "key text_config.hidden_size is missing");
    vision["text_config"]["hidden_size"] = json!(16);
    vision["text_config"]["num_experts_per_tok"] = json!(99);
    let error = read(&vision).unwrap_err().to_string();
    let expected = "key text_config.num_experts_per_tok is 99, expected at most num_experts (8)";
    assert_eq!(error, expected);
    vision.remove("text_config");
    let error = read(&vision).unwrap_err().to_string();
    assert_eq!(error, "key text_config is missing");
}

#[test]
fn a_message_repeats_no_more_of_a_value_than_a_line() {
    let message = refusal(Family::Olmoe, "hidden_act", "ö".repeat(10_000).into());
    assert!(message.len() < 300, "{message}");
}

/// `transformers` re-saves the count of experts under another name than the one it was published with.
#[test]
fn experts_are_counted_under_any_name_and_must_agree() {
    for family in [
        Family::DeepseekV2,
        Family::DeepseekV3,
        Family::Qwen3Moe,
        Family::Olmoe,
    ] {
        for name in ["n_routed_experts", "num_experts", "num_local_experts"] {
            let mut object = keys(family);
            object.remove(family.experts_key());
            object.insert(name.into(), json!(8));
            assert_eq!(read(&object).unwrap(), small(family));
        }
    }
    let message = refusal(Family::Qwen3Moe, "num_local_experts", json!(16));
    let expected = "keys num_experts and num_local_experts contradict each other";
    assert_eq!(message, expected);
}

#[test]
fn rotary_settings_are_found_where_files_of_any_age_keep_them() {
    let family = Family::DeepseekV2;
    let mut object = keys(family);
    let mut nested = object.remove("rope_scaling").expect("YaRN");
    nested["rope_theta"] = object.remove("rope_theta").expect("a base");
    nested.as_object_mut().expect("an object").remove("type");
    object.insert("rope_parameters".into(), nested.clone());
    assert_eq!(
        read(&object).unwrap(),
        small(family),
        "as newer files have it"
    );
    object.insert("rope_theta".into(), json!(5.0));
    assert_eq!(
        read(&object).unwrap(),
        small(family),
        "the nested base wins"
    );
    object.insert("rope_scaling".into(), nested.clone());
    assert_eq!(read(&object).unwrap(), small(family), "twice the same");
    nested["factor"] = json!(4);
    object.insert("rope_scaling".into(), nested);
    let error = read(&object).unwrap_err().to_string();
    let expected = "keys rope_parameters and rope_scaling contradict each other";
    assert_eq!(error, expected);
    for family in [Family::Mixtral, Family::Olmoe] {
        let mut object = keys(family);
        object.remove("rope_theta");
        assert_eq!(read(&object).unwrap().rotary.theta, family.default_theta());
    }
}

/// The three rules for the factor on cosines and sines, and the one for the softmax, by hand:
/// 0.1·ln 40 = 0.36888794541139363.
#[test]
fn yarn_factors_follow_what_the_file_gives() {
    let ms = |mscale: f64| 1.0 + 0.368_887_945_411_393_63 * mscale;
    let yarn = |family, extra: &[(&str, f64)]| {
        let mut description = json!({"rope_type": "yarn", "factor": 40});
        for (key, value) in extra {
            description[key] = json!(value);
        }
        let config = changed(family, &[("rope_scaling", description)]).unwrap();
        let yarn = config.rotary.scaling.expect("YaRN");
        assert_eq!(yarn.original_positions, 64.0, "the model's own positions");
        assert_eq!((yarn.beta_fast, yarn.beta_slow), (32.0, 1.0));
        (yarn.attention_factor, yarn.softmax_factor)
    };
    let near = |(a, b): (f64, f64), (c, d): (f64, f64)| {
        assert!(
            (a - c).abs() < 1e-12 && (b - d).abs() < 1e-12,
            "{a} {b} for {c} {d}"
        );
    };
    let both = [("mscale", 0.5), ("mscale_all_dim", 0.8)];
    let v3 = Family::DeepseekV3;
    near(yarn(v3, &both), (ms(0.5) / ms(0.8), ms(0.8).powi(2)));
    near(
        yarn(v3, &[("mscale_all_dim", 0.8)]),
        (ms(1.0), ms(0.8).powi(2)),
    );
    near(yarn(v3, &[("mscale", 0.5)]), (ms(1.0), 1.0));
    near(
        yarn(v3, &[("mscale", 0.0), ("mscale_all_dim", 0.0)]),
        (ms(1.0), 1.0),
    );
    near(
        yarn(v3, &[both[0], both[1], ("attention_factor", 1.5)]),
        (1.5, ms(0.8).powi(2)),
    );
    near(yarn(Family::Qwen3Moe, &both), (ms(0.5) / ms(0.8), 1.0));
    near(yarn(Family::Qwen3Moe, &[]), (ms(1.0), 1.0));
}

#[test]
fn the_head_dimension_is_derived_only_where_the_file_has_none() {
    let head =
        |changes: &[(&str, Value)]| match changed(Family::Mixtral, changes).unwrap().attention {
            AttentionConfig::Grouped { head, .. } => head,
            AttentionConfig::Latent { .. } => panic!("grouped attention"),
        };
    assert_eq!(head(&[]), 6);
    assert_eq!(
        head(&[("head_dim", Value::Null)]),
        4,
        "hidden size 16, 4 heads"
    );
    let changes = [("head_dim", Value::Null), ("hidden_size", json!(18))];
    let error = changed(Family::Mixtral, &changes).unwrap_err().to_string();
    assert_eq!(
        error,
        "key hidden_size is 18, expected a multiple of num_attention_heads (4)"
    );
}

#[test]
fn null_key_heads_are_as_many_as_query_heads() {
    let config = changed(Family::Mixtral, &[("num_key_value_heads", Value::Null)]).unwrap();
    assert!(matches!(
        config.attention,
        AttentionConfig::Grouped { key_heads: 4, .. }
    ));
}

#[test]
fn a_window_counts_only_where_the_family_and_its_flag_use_it() {
    let window =
        |family, changes: &[(&str, Value)]| match changed(family, changes).unwrap().attention {
            AttentionConfig::Grouped { window, .. } => window,
            AttentionConfig::Latent { .. } => panic!("grouped attention"),
        };
    let sliding = ("sliding_window", json!(9));
    assert_eq!(
        window(Family::Mixtral, std::slice::from_ref(&sliding)),
        Some(9)
    );
    assert_eq!(
        window(Family::Qwen3Moe, std::slice::from_ref(&sliding)),
        None
    );
    let flag = ("use_sliding_window", json!(true));
    assert_eq!(
        window(Family::Qwen3Moe, &[sliding.clone(), flag.clone()]),
        Some(9)
    );
    // Some layers only is what Qwen's own code would make of this, all layers what `transformers` does.
    let some_layers = [sliding, flag, ("max_window_layers", json!(2))];
    let error = changed(Family::Qwen3Moe, &some_layers)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "key max_window_layers is 2, which is not supported (0 would be)"
    );
}

#[test]
fn dense_layers_of_qwen_are_listed_or_between_sparse_ones() {
    let dense =
        |changes: &[(&str, Value)]| changed(Family::Qwen3Moe, changes).unwrap().dense_layers;
    assert_eq!(dense(&[("mlp_only_layers", json!([2, 0, 2]))]), [0, 2]);
    assert_eq!(
        dense(&[("decoder_sparse_step", json!(2))]),
        [0, 2],
        "layers 1, 3, 5 are sparse"
    );
    let both = [
        ("decoder_sparse_step", json!(3)),
        ("mlp_only_layers", json!([2])),
    ];
    assert_eq!(dense(&both), [0, 1, 2]);
}

/// The nested flag of vision models has a default of true that no release means.
#[test]
fn the_outer_flag_ties_the_head() {
    let mut vision = keys(Family::Qwen3VlMoe);
    vision["text_config"]["tie_word_embeddings"] = json!(true);
    assert!(!read(&vision).unwrap().tied_head);
    vision.insert("tie_word_embeddings".into(), json!(true));
    assert!(read(&vision).unwrap().tied_head);
}

#[test]
fn the_first_of_several_token_ids_is_taken() {
    let config = changed(Family::Olmoe, &[("eos_token_id", json!([7, 8]))]).unwrap();
    assert_eq!(config.eos_token_id, Some(7));
}

#[test]
fn renormalisation_that_published_code_disagrees_about_is_ignored_with_a_warning() {
    let family = Family::DeepseekV2;
    let mut object = keys(family);
    object.insert("norm_topk_prob".into(), json!(true));
    assert_eq!(read(&object).unwrap(), small(family));
    let warnings = ModelConfig::warnings(&Value::Object(object).to_string());
    assert!(matches!(&warnings[..], [warning] if warning.contains("norm_topk_prob")));
    assert!(ModelConfig::warnings(&small(Family::DeepseekV3).to_json()).is_empty());
}
