//! What is counted of the routers, against counting by hand.
//!
//! The router of a layer is looked at from outside: a model that ends with that layer, whose experts add
//! nothing and whose final norm and head are the layer's second norm and router, has the router's logits
//! for its own. Counting them is then a matter of two loops. The recorded models of every family and gate
//! serve as input.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use connito_engine::config::{GateConfig, Scoring};
use connito_engine::device::Cpu;
use connito_engine::routing::{ExpertMap, LayerRouting, select, weigh};
use connito_engine::{Model, ModelConfig, Routing, RoutingStatistics, Tensor};
use safetensors::SafeTensors;

/// Every recorded folder, by name.
fn fixtures() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let entries = std::fs::read_dir(folder).expect("the recorded folders");
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.join("expected.safetensors").is_file())
        .collect();
    folders.sort();
    assert!(folders.len() >= 18, "a fixture for every family and gate");
    folders
}

/// The recorded token ids.
fn sequences(folder: &Path) -> Vec<Vec<u32>> {
    let bytes = std::fs::read(folder.join("expected.safetensors")).expect("the recorded file");
    let file = SafeTensors::deserialize(&bytes).expect("whole");
    let ids = file.tensor("ids").expect("recorded ids");
    let number = |id: &[u8; 8]| u32::try_from(i64::from_le_bytes(*id)).expect("an id");
    let values: Vec<u32> = ids.data().as_chunks::<8>().0.iter().map(number).collect();
    values.chunks(ids.shape()[1]).map(<[u32]>::to_vec).collect()
}

fn slices(sequences: &[Vec<u32>]) -> Vec<&[u32]> {
    sequences.iter().map(Vec::as_slice).collect()
}

/// A layer of `model` as the last one of a model whose logits are those of the layer's router, and the
/// bias of its choice.
fn router(model: &Model, layer: usize) -> (Model, Option<Vec<f32>>) {
    let whole = model.config();
    let config = ModelConfig {
        num_hidden_layers: layer + 1,
        dense_layers: whole
            .dense_layers
            .iter()
            .copied()
            .filter(|dense| *dense <= layer)
            .collect(),
        tied_head: false,
        ..whole.clone()
    };
    let within = |part: &str| {
        let prefix = format!("layers.{layer}.");
        let named = |name: &&str| name.contains(&prefix) && name.ends_with(part);
        let name = model.names().find(named)?;
        model.tensor(name)
    };
    let mut head = within(".gate.weight").expect("a router");
    let vocabulary = config.vocab_size;
    assert!(
        head.shape[0] <= vocabulary,
        "room for a logit of each expert"
    );
    head.values.resize(vocabulary * config.hidden_size, 0.0);
    head.shape = vec![vocabulary, config.hidden_size];
    let norm = within("post_attention_layernorm.weight").expect("a second norm");

    let tensors = Model::expected_tensors(&config).into_iter();
    let tensors: BTreeMap<String, Tensor> = tensors
        .map(|(name, shape)| {
            let last = name.contains(&format!("layers.{layer}."));
            let tensor = match name.as_str() {
                "lm_head.weight" => head.clone(),
                other if other.ends_with("model.norm.weight") => norm.clone(),
                other if last && (other.contains("down_proj") || other.contains(".w2.")) => {
                    Tensor::zeros(&shape)
                }
                other => model.tensor(other).expect("a tensor of the whole model"),
            };
            (name, tensor)
        })
        .collect();
    let bias = within("e_score_correction_bias").map(|bias| bias.values);
    let model = Model::from_tensors(&config, &tensors).expect("the lower part of a model");
    (model, bias)
}

/// Picks and weights of one layer as they are said, token by token.
fn counted(
    (router, bias): &(Model, Option<Vec<f32>>),
    sequences: &[Vec<u32>],
    routing: &Routing,
    mode: &LayerRouting,
) -> (Vec<u64>, Vec<f64>) {
    let mixture = router.config().mixture;
    let gate = GateConfig {
        scaling: 1.0,
        ..mixture.gate
    };
    let (mut picks, mut sums) = (vec![0; mixture.experts], vec![0.0; mixture.experts]);
    for sequence in sequences {
        let logits = router.logits(sequence, routing).expect("ids of the model");
        for logits in logits.values.chunks(router.config().vocab_size) {
            let logits = &logits[..mixture.experts];
            let exponents: Vec<f32> = logits.iter().map(|logit| logit.exp()).collect();
            let all: f32 = exponents.iter().sum();
            let score = |exponent: &f32| match gate.scoring {
                Scoring::Softmax => exponent / all,
                Scoring::SigmoidWithBias => exponent / (1.0 + exponent),
            };
            let scores: Vec<f32> = exponents.iter().map(score).collect();
            let biases = bias.iter().flatten().chain(std::iter::repeat(&0.0));
            let choice = scores.iter().zip(biases).map(|(score, bias)| score + bias);
            let choice: Vec<f32> = choice.collect();
            let mut slots = vec![None; mixture.per_token];
            let mut weights = vec![0.0; mixture.per_token];
            select(&gate, mode, &scores, &choice, &mut slots);
            weigh(&gate, &slots, &mut weights);
            for (slot, weight) in slots.iter().flatten().zip(weights) {
                picks[slot.expert] += 1;
                sums[slot.expert] += f64::from(weight);
            }
        }
    }
    (picks, sums)
}

/// Every third expert is trained, the ones after them are kept.
fn parts(config: &ModelConfig, layers: usize) -> [ExpertMap; 2] {
    [0, 1].map(|part| {
        let moe = config.moe_layers().filter(|layer| *layer < layers);
        let experts = (0..config.mixture.experts).filter(|expert| expert % 3 == part);
        moe.map(|layer| (layer, experts.clone().collect()))
            .collect()
    })
}

/// The four modes over the lowest `layers`, and how each of those layers chooses.
fn modes(config: &ModelConfig, layers: usize) -> Vec<(Routing, LayerRouting)> {
    let [trained, kept] = parts(config, layers);
    let marks = |parts: &[usize]| -> Vec<bool> {
        let experts = 0..config.mixture.experts;
        experts
            .map(|expert| parts.contains(&(expert % 3)))
            .collect()
    };
    let restricted = |parts| LayerRouting::Restricted {
        routable: marks(parts),
    };
    let substituted = LayerRouting::Substituted {
        resident: marks(&[0, 1]),
        helpers: marks(&[1]),
    };
    let experts = trained.clone();
    let (both, others) = ((trained.clone(), kept.clone()), (trained, kept));
    vec![
        (Routing::Classic, LayerRouting::Natural),
        (Routing::Masked { experts }, restricted(&[0])),
        (
            Routing::FrozenKept {
                trained: both.0,
                kept: both.1,
            },
            restricted(&[0, 1]),
        ),
        (
            Routing::Fallback {
                trained: others.0,
                kept: others.1,
            },
            substituted,
        ),
    ]
}

/// The weights are sums of a few dozen f32, so they agree to a few parts in a million of the largest.
#[test]
fn picks_and_weights_are_those_counted_by_hand_for_every_gate_and_mode() {
    for folder in fixtures() {
        let model = Model::load(&folder).expect("a model of ours");
        let config = model.config().clone();
        let text = sequences(&folder);
        let wholes = modes(&config, config.num_hidden_layers);
        let statistics: Vec<RoutingStatistics> = wholes
            .iter()
            .map(|(routing, _)| model.routing_statistics(&slices(&text), routing))
            .collect::<Result<_, _>>()
            .expect("a text and routings of the model");
        for layer in config.moe_layers() {
            let router = router(&model, layer);
            let lower = modes(&config, layer + 1);
            for ((routing, mode), statistics) in lower.iter().zip(&statistics) {
                let at = format!("{}, layer {layer}, {mode:?}", folder.display());
                let (picks, weights) = counted(&router, &text, routing, mode);
                let (_, found) = statistics
                    .layers()
                    .find(|(index, _)| *index == layer)
                    .expect("every MoE layer");
                assert_eq!(found.picks(), picks, "{at}");
                assert_eq!(found.tokens(), text.concat().len() as u64, "{at}");
                for (found, right) in found.weights().zip(weights) {
                    assert!((found - right).abs() < 2e-5, "{found} {right} {at}");
                }
            }
        }
    }
}

/// What should happen: the same statistics, to the bit. What should not: that a token is lost, the first
/// and the only one of a sequence included.
#[test]
fn neither_batches_nor_threads_matter() {
    for folder in fixtures() {
        let model = Model::load(&folder).expect("a model of ours");
        let mut text = sequences(&folder);
        let more = text[0].clone();
        text.extend(more.chunks(1).map(<[u32]>::to_vec));
        let whole = model
            .routing_statistics(&slices(&text), &Routing::Classic)
            .expect("a text of the model");
        assert_eq!(whole.tokens(), text.concat().len() as u64);

        let model = model.on(Cpu::new(3).expect("three threads"));
        let mut parts = RoutingStatistics::new(model.config());
        for sequence in text.iter().rev() {
            parts += model
                .routing_statistics(&[sequence], &Routing::Classic)
                .expect("a text of the model");
        }
        assert_eq!(parts, whole, "{}", folder.display());
    }
}

/// Of `k` picks each has `k − 1` partners, so an expert is in that many times as many pairs as it was picked.
#[test]
fn every_pick_is_counted_once_with_each_of_its_partners() {
    for folder in fixtures() {
        let model = Model::load(&folder).expect("a model of ours");
        let statistics = model
            .routing_statistics(&slices(&sequences(&folder)), &Routing::Classic)
            .expect("a text of the model");
        let others = statistics.per_token() as u64 - 1;
        let experts = model.config().mixture.experts;
        let mut summed = vec![vec![0; experts]; experts];
        for (layer, counted) in statistics.layers() {
            let mut partners = vec![0; experts];
            for ([first, second], tokens) in counted.pairs() {
                assert!(first < second, "{}, layer {layer}", folder.display());
                summed[first][second] += tokens;
                summed[second][first] += tokens;
                partners[first] += tokens;
                partners[second] += tokens;
            }
            let expected = counted.picks().iter().map(|picks| picks * others);
            let expected: Vec<u64> = expected.collect();
            assert_eq!(partners, expected, "{}, layer {layer}", folder.display());
        }
        assert_eq!(statistics.coactivation(), summed);
    }
}

#[test]
fn a_model_whose_weights_are_spoilt_is_refused_by_layer() {
    let config = ModelConfig::tiny(40);
    let mut model = Model::random(&config, 1);
    let name = "model.layers.2.mlp.gate.weight";
    let mut router = model.tensor(name).expect("a router").values;
    router[5] = f32::NAN;
    model.set_tensor(name, &router).expect("as long as before");
    let error = model
        .routing_statistics(&[&[1, 2, 3]], &Routing::Classic)
        .expect_err("scores are not numbers");
    assert!(error.to_string().contains("layer 2"), "{error}");
}
