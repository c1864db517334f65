//! What a `config.json` may say, and the key that is named when it says something else.

use connito_engine::ModelConfig;
use serde_json::{Map, Value, json};

fn tiny() -> Map<String, Value> {
    serde_json::from_str(&ModelConfig::tiny(32).to_json()).expect("what is written is JSON")
}

/// The message about the tiny configuration with one key changed.
fn refusal(key: &str, value: Value) -> String {
    let mut object = tiny();
    object.insert(key.into(), value);
    refusal_of(object)
}

fn refusal_of(object: Map<String, Value>) -> String {
    match ModelConfig::from_json(&Value::Object(object).to_string()) {
        Ok(config) => panic!("accepted {config:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_configuration_comes_back_as_it_was() {
    let config = ModelConfig {
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        routed_scaling_factor: 1.5,
        eos_token_id: Some(2),
        ..ModelConfig::tiny(1000)
    };
    let read = ModelConfig::from_json(&config.to_json()).unwrap();
    assert_eq!(read, config);
}

/// Newer files nest the rotary base under `rope_parameters`.
#[test]
fn the_rotary_base_is_found_where_newer_files_keep_it() {
    let mut object = tiny();
    object.remove("rope_theta");
    let nested = json!({"rope_type": "default", "rope_theta": 25_000.0});
    object.insert("rope_parameters".into(), nested);
    let read = ModelConfig::from_json(&Value::Object(object).to_string()).unwrap();
    assert_eq!(read.rope_theta, 25_000.0);
}

#[test]
fn another_architecture_is_refused() {
    let expected = "model_type is \"llama\", only \"deepseek_v2\" is supported";
    assert_eq!(refusal("model_type", "llama".into()), expected);
    let not_an_object = ModelConfig::from_json("[]").unwrap_err().to_string();
    assert_eq!(not_an_object, "the configuration is not a JSON object");
}

/// A default here would load another model than the one that was trained.
#[test]
fn a_missing_size_is_named_and_gets_no_default() {
    for key in [
        "model_type",
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "moe_intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "kv_lora_rank",
        "qk_nope_head_dim",
        "qk_rope_head_dim",
        "v_head_dim",
        "n_routed_experts",
        "n_shared_experts",
        "num_experts_per_tok",
        "first_k_dense_replace",
        "max_position_embeddings",
    ] {
        let mut object = tiny();
        object.remove(key);
        // Its value is not repeated in another key of the file.
        object.remove("num_key_value_heads");
        assert_eq!(refusal_of(object), format!("key {key} is missing"));
    }
}

#[test]
fn an_impossible_size_is_named_with_what_would_do() {
    for (key, value, expected) in [
        ("kv_lora_rank", json!(0), "a whole number from 1 to 1048576"),
        (
            "vocab_size",
            json!("many"),
            "a whole number from 1 to 1048576",
        ),
        (
            "hidden_size",
            json!(1e300),
            "a whole number from 1 to 1048576",
        ),
        (
            "hidden_size",
            json!(130),
            "a multiple of num_attention_heads (4)",
        ),
        (
            "num_experts_per_tok",
            json!(9),
            "at most n_routed_experts (8)",
        ),
        (
            "first_k_dense_replace",
            json!(5),
            "at most num_hidden_layers (4)",
        ),
        ("qk_rope_head_dim", json!(15), "an even number"),
        ("rms_norm_eps", json!(-1.0), "a positive number"),
        ("eos_token_id", json!([1, 2]), "a token id or null"),
    ] {
        let message = format!("key {key} is {value}, expected {expected}");
        assert_eq!(refusal(key, value), message);
    }
}

/// Ignoring any of these would compute another model without saying so.
#[test]
fn an_option_that_is_not_computed_is_refused_by_its_key() {
    for (key, value, supported) in [
        ("q_lora_rank", json!(1536), "null"),
        ("topk_method", json!("group_limited_greedy"), "\"greedy\""),
        ("scoring_func", json!("sigmoid"), "\"softmax\""),
        ("moe_layer_freq", json!(2), "1"),
        ("hidden_act", json!("gelu"), "\"silu\""),
        ("attention_bias", json!(true), "false"),
        ("mlp_bias", json!(true), "false"),
        ("tie_word_embeddings", json!(true), "false"),
        ("norm_topk_prob", json!(true), "false"),
        ("num_key_value_heads", json!(2), "num_attention_heads"),
        (
            "rope_scaling",
            json!({"factor": 40, "type": "yarn"}),
            "null",
        ),
        (
            "rope_parameters",
            json!({"rope_type": "yarn"}),
            "rope_type \"default\"",
        ),
    ] {
        let message = format!("key {key} is {value}, which is not supported ({supported} is)");
        assert_eq!(refusal(key, value), message);
    }
}
