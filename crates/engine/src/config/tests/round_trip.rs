//! Whatever can be configured survives being written and read, and no text makes the reader panic.

use proptest::collection::btree_set;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::*;

fn families() -> impl Strategy<Value = Family> {
    select(Family::ALL.to_vec())
}

fn yarn(latent: bool) -> impl Strategy<Value = YarnConfig> {
    let softmax = if latent {
        0.0..2.0
    } else {
        0.0..f64::MIN_POSITIVE
    };
    (1.0..100.0, 1..100_000_u32, 0.01..=1.0, 0.5..2.0, softmax).prop_map(
        |(factor, original, slow, attention_factor, mscale): (f64, _, _, _, f64)| YarnConfig {
            factor,
            original_positions: f64::from(original),
            beta_fast: 32.0,
            beta_slow: slow,
            attention_factor,
            softmax_factor: (0.1 * mscale * factor.ln() + 1.0).powi(2),
        },
    )
}

fn latent() -> impl Strategy<Value = AttentionConfig> {
    (
        option::of(1..99_usize),
        1..99_usize,
        1..99_usize,
        1..50_usize,
        1..99_usize,
    )
        .prop_map(
            |(query_rank, rank, nope, half, value)| AttentionConfig::Latent {
                query_rank,
                rank,
                nope,
                rope: 2 * half,
                value,
            },
        )
}

fn grouped(family: Family, heads: usize) -> impl Strategy<Value = AttentionConfig> {
    let divisors: Vec<_> = (1..=heads)
        .filter(|number| heads.is_multiple_of(*number))
        .collect();
    let clip = option::of(0.01..99.0_f32);
    (select(divisors), 1..99_usize, clip, option::of(1..99_usize)).prop_map(
        move |(key_heads, half, clip, window)| AttentionConfig::Grouped {
            key_heads,
            head: 2 * half,
            norm: match family {
                Family::Mixtral => HeadNorm::Absent,
                Family::Olmoe => HeadNorm::Whole,
                _ => HeadNorm::PerHead,
            },
            clip: clip.filter(|_| family == Family::Olmoe),
            window: window.filter(|_| matches!(family, Family::Mixtral | Family::Qwen3Moe)),
        },
    )
}

fn mixtures(family: Family) -> impl Strategy<Value = MixtureConfig> {
    let latent = family.has_latent_attention();
    let sizes = (1..5_usize, 1..5_usize, 2..5_usize, 1..99_usize, 0..3_usize);
    let gate = (any::<bool>(), any::<bool>(), 0.01..99.0_f32);
    (sizes, gate).prop_map(move |(sizes, (grouped, flag, scaling))| {
        let (kept, more, members, width, shared) = sizes;
        let score = match family {
            Family::DeepseekV3 => GroupScore::BestTwo,
            _ => GroupScore::Best,
        };
        let groups = GateGroups {
            count: kept + more,
            kept,
            score,
        };
        MixtureConfig {
            experts: groups.count * members,
            per_token: kept,
            width,
            shared_width: if latent { shared * width } else { 0 },
            gate: GateConfig {
                scoring: match family {
                    Family::DeepseekV3 => Scoring::SigmoidWithBias,
                    _ => Scoring::Softmax,
                },
                groups: Some(groups).filter(|_| family == Family::DeepseekV3 || latent && grouped),
                renormalise: match family {
                    Family::DeepseekV2 => false,
                    Family::Mixtral | Family::Qwen3VlMoe => true,
                    _ => flag,
                },
                scaling: if latent { scaling } else { 1.0 },
            },
        }
    })
}

/// Norms over whole projections tie the hidden size to the heads.
fn hidden_size(family: Family, attention: AttentionConfig, columns: usize, heads: usize) -> usize {
    match attention {
        AttentionConfig::Grouped { head, .. } if family == Family::Olmoe => head * heads,
        _ => columns * heads,
    }
}

fn configurations() -> impl Strategy<Value = ModelConfig> {
    (families(), 1..9_usize, 1..9_usize).prop_flat_map(|(family, heads, layers)| {
        let is_latent = family.has_latent_attention();
        let attention = if is_latent {
            latent().boxed()
        } else {
            grouped(family, heads).boxed()
        };
        let dense = (btree_set(0..layers, 0..=layers), 0..=layers);
        let sizes = (1..999_usize, 1..99_usize, 1..99_usize, 1..9999_usize);
        let rotary = (1.5..1e7_f64, any::<bool>(), option::of(yarn(is_latent)));
        let rest = (any::<bool>(), 1e-9..1e-3_f64, option::of(any::<u32>()));
        (attention, mixtures(family), dense, sizes, rotary, rest).prop_map(
            move |(attention, mixture, dense, sizes, rotary, rest)| {
                let (vocab_size, hidden, intermediate, positions) = sizes;
                let (theta, interleaved, scaling) = rotary;
                let (tied_head, rms_norm_eps, token) = rest;
                let dense_layers: Vec<_> = match family {
                    Family::DeepseekV2 | Family::DeepseekV3 => (0..dense.1).collect(),
                    Family::Qwen3Moe | Family::Qwen3VlMoe => dense.0.into_iter().collect(),
                    Family::Olmoe | Family::Mixtral => Vec::new(),
                };
                ModelConfig {
                    family,
                    vocab_size,
                    hidden_size: hidden_size(family, attention, hidden, heads),
                    num_hidden_layers: layers,
                    num_attention_heads: heads,
                    attention,
                    rotary: RotaryConfig {
                        theta,
                        pairing: match family {
                            Family::DeepseekV2 => Pairing::Interleaved,
                            Family::DeepseekV3 if interleaved => Pairing::Interleaved,
                            _ => Pairing::Halves,
                        },
                        scaling,
                    },
                    intermediate_size: if dense_layers.is_empty() {
                        0
                    } else {
                        intermediate
                    },
                    dense_layers,
                    mixture,
                    rms_norm_eps,
                    max_position_embeddings: positions,
                    tied_head,
                    bos_token_id: token,
                    eos_token_id: token.map(|id| id / 2),
                }
            },
        )
    })
}

proptest! {
    #[test]
    fn a_configuration_comes_back_as_it_was(config in configurations()) {
        let text = config.to_json();
        let read = ModelConfig::from_json(&text);
        prop_assert_eq!(read.map_err(|error| format!("{error} in {text}")), Ok(config));
    }

    /// The account is a closed form of what the walk over names lists.
    #[test]
    fn the_account_is_the_sum_over_all_shapes(config in configurations()) {
        use crate::names::{Parameter, Parameters};
        let mut total = 0_usize;
        let mut leaf = |parameter: Parameter<'_>| {
            total += parameter.shape.iter().product::<usize>();
            Ok::<_, std::convert::Infallible>(())
        };
        let Ok(_) = Parameters::build(&config, &|_, _| true, &mut leaf);
        prop_assert_eq!(config.parameters().total, total as u64);
    }

    /// What should happen: a configuration or a refusal. What should not happen: a panic, or sizes that
    /// cannot be multiplied.
    #[test]
    fn hostile_values_are_refused_or_computable(
        family in families(),
        key in 0..40_usize,
        value in hostile(),
        again in hostile(),
        second in 0..40_usize,
    ) {
        let mut file: serde_json::Value =
            serde_json::from_str(&samples::small(family).to_json()).expect("JSON");
        let nested = file.get("text_config").is_some();
        let text = if nested { &mut file["text_config"] } else { &mut file };
        let keys: Vec<String> = text.as_object().into_iter().flat_map(|text| text.keys().cloned()).collect();
        text[&keys[key % keys.len()]] = value;
        text[&keys[second % keys.len()]] = again;
        if let Ok(config) = ModelConfig::from_json(&file.to_string()) {
            let account = config.parameters();
            prop_assert!(account.total >= account.backbone);
        }
    }

    #[test]
    fn arbitrary_text_is_refused(text in any::<String>()) {
        prop_assert!(ModelConfig::from_json(&text).is_err());
        prop_assert!(ModelConfig::warnings(&text).is_empty());
    }
}

fn hostile() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::json;
    prop_oneof![
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        (0..21_u32).prop_map(|power| json!(1_u64 << power)),
        select(vec![
            json!(null),
            json!(true),
            json!("yarn"),
            json!([]),
            json!([0, 1, u64::MAX]),
            json!({}),
            json!({"rope_type": "yarn", "factor": 1e300, "mscale": 1e300}),
            json!({"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 0}),
            json!({"full_attention": {"rope_type": "default"}}),
        ]),
    ]
}
