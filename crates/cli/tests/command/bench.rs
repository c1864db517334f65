//! What `bench engine` reports: the peak that a memory plan predicts against the one of the process.

use std::collections::BTreeSet;
#[cfg(target_os = "linux")]
use std::process::Command;

use serde_json::{Value, json};

use super::connito;

/// How far the prediction may be off, as a part of the measured peak.
const TOLERANCE: f64 = 0.1;

/// Latent attention, one dense layer, shared experts.
fn deepseek() -> Value {
    json!({
        "model_type": "deepseek_v2",
        "vocab_size": 4096,
        "hidden_size": 256,
        "intermediate_size": 1024,
        "moe_intermediate_size": 256,
        "num_hidden_layers": 4,
        "first_k_dense_replace": 1,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "q_lora_rank": null,
        "kv_lora_rank": 128,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 32,
        "v_head_dim": 32,
        "n_routed_experts": 16,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "norm_topk_prob": false,
        "routed_scaling_factor": 1.0,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 512,
        "tie_word_embeddings": false,
    })
}

/// Grouped attention with norms, experts in every layer.
fn qwen() -> Value {
    json!({
        "model_type": "qwen3_moe",
        "vocab_size": 8192,
        "hidden_size": 256,
        "intermediate_size": 1024,
        "moe_intermediate_size": 128,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "num_experts": 32,
        "num_experts_per_tok": 4,
        "norm_topk_prob": true,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 512,
        "attention_bias": false,
        "tie_word_embeddings": false,
    })
}

/// What a benchmark of a model prints with options that are split at spaces.
fn measured(config: &Value, options: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let arguments = format!("bench engine --config config.json --threads 2 --json {options}");
    let output = connito(arguments.split(' '))
        .current_dir(folder.path())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{options}: {complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// The system tells of the peak only there.
#[cfg(target_os = "linux")]
fn assert_predicted(result: &Value, options: &str) {
    let (predicted, peak) = (&result["predicted_bytes"], &result["peak_rss_bytes"]);
    let quotient = number(predicted) / number(peak);
    assert!(
        (quotient - 1.0).abs() <= TOLERANCE,
        "{options}: {predicted} bytes were predicted, {peak} measured: {}",
        result["account"]
    );
    let parts = result["account"].as_object().unwrap().values().map(number);
    assert_eq!(parts.sum::<f64>(), number(predicted));
}

/// What should happen: every field of a plan changes the prediction as it changes the peak. Each of
/// the three differs from the others in everything that it can.
#[cfg(target_os = "linux")]
#[test]
fn the_predicted_peak_is_the_measured_one() {
    let cases = [
        (deepseek(), "--steps 2"),
        (
            deepseek(),
            "--steps 2 --dtype bf16 --frozen int8 --moments 8bit --gradients released \
             --activations recomputed --routing masked",
        ),
        (qwen(), "--steps 2 --mode forward"),
    ];
    for (config, options) in cases {
        assert_predicted(&measured(&config, options), options);
    }
}

#[test]
fn training_lowers_the_loss_of_the_repeated_batch_and_evaluating_does_not() {
    let options = "--steps 3 --batch 2 --seq 64";
    let trained = measured(&deepseek(), options);
    let fields: BTreeSet<&str> = trained
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "tokens_per_second",
        "peak_rss_bytes",
        "loss_first",
        "loss_last",
        "predicted_bytes",
        "account",
    ];
    assert_eq!(fields, expected.into());
    assert!(number(&trained["tokens_per_second"]) > 0.0);
    // Random weights know nothing: every id is as likely as any other.
    let guessing = 4096_f64.ln();
    assert!(
        (number(&trained["loss_first"]) - guessing).abs() < 0.5,
        "{trained}"
    );
    assert!(
        number(&trained["loss_last"]) < number(&trained["loss_first"]),
        "{trained}"
    );

    let evaluated = measured(&deepseek(), &format!("{options} --mode forward"));
    assert_eq!(evaluated["loss_first"], evaluated["loss_last"]);
    let difference = number(&evaluated["loss_first"]) - number(&trained["loss_first"]);
    assert!(difference.abs() < 1e-5, "{evaluated}");
}

/// What should happen: an answer at once, of the environment's code, with both numbers.
#[cfg(target_os = "linux")]
#[test]
fn what_the_machine_has_no_memory_for_is_refused_before_any_is_taken() {
    let mut large = deepseek();
    for (key, size) in [
        ("hidden_size", 16384),
        ("moe_intermediate_size", 16384),
        ("n_routed_experts", 4096),
    ] {
        large[key] = size.into();
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("large.json"), large.to_string()).unwrap();
    for arguments in [
        "bench engine --config large.json",
        "bench engine --config large.json --mode forward",
        "bench shard --seq 163840 --batch 65535",
    ] {
        let output = connito(arguments.split(' '))
            .current_dir(folder.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{arguments}: {told}");
        assert_eq!(told.lines().count(), 1, "{arguments}: {told}");
        assert!(told.contains("B of memory, the machine has "), "{told}");
    }
}

/// Address space for the program, but not for a thousand stacks. One arena with room to spare, for the C
/// library ends a process in which a thread that has just begun finds no memory for its own books.
#[cfg(target_os = "linux")]
#[test]
fn threads_that_cannot_be_started_are_the_environments_fault() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), deepseek().to_string()).unwrap();
    let program = env!("CARGO_BIN_EXE_connito");
    let bench = "bench engine --config config.json --threads 1024";
    let output = Command::new("sh")
        .args([
            "-c",
            &format!("ulimit -v 1000000 && exec {program} {bench}"),
        ])
        .env("MALLOC_ARENA_MAX", "1")
        .env("MALLOC_TOP_PAD_", "33554432")
        .current_dir(folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    let last = told.lines().last().unwrap();
    assert!(last.contains("1024 threads"), "{told}");
}
