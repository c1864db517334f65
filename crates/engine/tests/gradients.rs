//! Gradients against central differences of the loss, for every kind of attention, gate and routing.
//!
//! For a direction `d` of ±1 entries, `(ℓ(w+εd) − ℓ(w−εd)) / 2ε` should be `⟨g, d⟩`, whose typical size
//! is ‖g‖: a wrong term of more than a per cent of the gradient shows in one of several directions.
//! The loss is a mean of f32 values near 5 and so carries an error of about 1e-7, over 2ε = 1e-3 some
//! 1e-4; the third-order term shrinks with ε² and is below a per cent. Hence `0.01·‖g‖ + 1e-4`.
//!
//! The loss is not smooth: it jumps where a token changes its experts, and bends where a value meets its
//! bound. A bend costs as much as the few values that cross it. A jump would ruin a difference, so every
//! case has a seed under which no token of its few changes its experts within a step; initial values
//! are the same on every machine, and margins are a thousand times wider than the rounding in which
//! machines differ.

use std::collections::BTreeMap;

use connito_engine::config::{
    AttentionConfig, Family, GateConfig, GateGroups, GroupScore, HeadNorm, MixtureConfig, Pairing,
    RotaryConfig, Scoring, YarnConfig,
};
use connito_engine::device::Cpu;
use connito_engine::routing::ExpertMap;
use connito_engine::{
    Holding, Model, ModelConfig, Residency, Routing, Tensor, TrainableSet, expert_parameter_names,
    gradients, parse_expert_name,
};

const STEP: f32 = 5e-4;
const VOCABULARY: usize = 24;

/// A model, what of it is in memory, the routes through it, and what it reads.
#[derive(Debug, Clone)]
struct Case {
    config: ModelConfig,
    seed: u64,
    residency: Residency,
    routing: Routing,
    lengths: Vec<u32>,
}

impl Case {
    /// The whole model on sequences of differing lengths, one of them the shortest that predicts anything.
    fn new(config: ModelConfig, seed: u64) -> Self {
        Self {
            config,
            seed,
            residency: Residency::Whole,
            routing: Routing::Classic,
            lengths: vec![19, 2, 11, 7],
        }
    }

    /// A model whose every part matters: embedding and head are enlarged so that the loss feels the layers,
    /// norm weights differ from 1 and router biases from 0.
    fn model(&self) -> Model {
        let holding = Holding {
            residency: self.residency.clone(),
            ..Holding::whole()
        };
        let mut model = Model::random_on(Cpu::single(), &self.config, &holding, self.seed);
        let names: Vec<String> = model.names().map(str::to_owned).collect();
        for name in names {
            let wave = |index: usize| (index as f32 * 1.7).sin();
            let mut changed = values(&model, &name);
            for (index, value) in changed.iter_mut().enumerate() {
                if name == "lm_head.weight" || name.ends_with("embed_tokens.weight") {
                    *value *= 20.0;
                } else if name.ends_with("norm.weight") {
                    *value += 0.3 * wave(index);
                } else if name.ends_with("bias") {
                    *value += 0.1 * wave(index);
                }
            }
            model
                .set_tensor(&name, &changed)
                .expect("as many values as before");
        }
        model
    }

    fn sequences(&self) -> Vec<Vec<u32>> {
        let sequence = |&length: &u32| {
            let ids = (0..length).map(|position| (position * 7 + position / 5 + length * 5) % 24);
            ids.collect()
        };
        self.lengths.iter().map(sequence).collect()
    }

    fn loss(&self, model: &Model) -> f64 {
        let sequences = self.sequences();
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let losses = model
            .sequence_losses(&sequences, &self.routing)
            .expect("sequences of the model");
        let tokens: usize = losses.iter().map(|loss| loss.tokens).sum();
        losses.iter().map(|loss| loss.sum).sum::<f64>() / tokens as f64
    }

    fn gradients(&self, trainable: &TrainableSet) -> BTreeMap<String, Tensor> {
        let (model, sequences) = (self.model(), self.sequences());
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let (mean, gradients) =
            gradients(&model, trainable, &self.routing, &sequences).expect("experts of the model");
        let loss = self.loss(&model);
        assert!((mean - loss).abs() < 1e-6, "{mean} and {loss} are one loss");
        gradients
    }

    /// Compares every parameter's gradient with the loss, and returns them.
    fn check_everything(&self) -> BTreeMap<String, Tensor> {
        let found = self.gradients(&TrainableSet::Everything);
        let names = self.model();
        let trained = names.names().filter(|name| !name.ends_with("bias"));
        let mut trained: Vec<&str> = trained.collect();
        trained.sort_unstable();
        assert!(
            found.keys().eq(trained.iter()),
            "all but the biases have a gradient"
        );
        for (name, gradient) in &found {
            self.check(name, gradient);
        }
        found
    }

    /// Compares one parameter's gradient with the loss along four directions.
    fn check(&self, name: &str, gradient: &Tensor) {
        let mut model = self.model();
        let original = values(&model, name);
        let squares: f32 = gradient.values.iter().map(|value| value * value).sum();
        let size = squares.sqrt();
        assert!(
            size > 1e-3,
            "{name} has a gradient of only {size}: the test would show nothing"
        );
        for seed in 0..4 {
            let mut moved = |step: f32| {
                let moved = original.iter().enumerate();
                let moved = moved.map(|(index, value)| value + step * direction(seed, index));
                let moved: Vec<f32> = moved.collect();
                model
                    .set_tensor(name, &moved)
                    .expect("as many values as before");
                self.loss(&model)
            };
            let difference = ((moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP)) as f32;
            let along = gradient.values.iter().enumerate();
            let inner: f32 = along
                .map(|(index, value)| value * direction(seed, index))
                .sum();
            assert!(
                (difference - inner).abs() < 0.01 * size + 1e-4,
                "{name}: the loss changes by {difference}, the gradient says {inner} (norm {size})"
            );
        }
    }
}

fn values(model: &Model, name: &str) -> Vec<f32> {
    model.tensor(name).expect("a name of the model").values
}

/// 1 or −1.
fn direction(seed: u32, index: usize) -> f32 {
    let bits = (index as u32 + 1).wrapping_mul(0x9e37_79b1) ^ (seed + 1).wrapping_mul(0x85eb_ca6b);
    if (bits.wrapping_mul(0xc2b2_ae35) >> 16) & 1 == 0 {
        1.0
    } else {
        -1.0
    }
}

/// DeepSeek-V2: direct queries, scaled softmax weights, a dense first layer, shared experts.
fn latent() -> ModelConfig {
    let tiny = ModelConfig::tiny(VOCABULARY);
    ModelConfig {
        hidden_size: 16,
        intermediate_size: 20,
        num_attention_heads: 2,
        attention: AttentionConfig::Latent {
            query_rank: None,
            rank: 8,
            nope: 4,
            rope: 4,
            value: 6,
        },
        mixture: MixtureConfig {
            experts: 4,
            width: 12,
            shared_width: 24,
            gate: GateConfig {
                scaling: 1.5,
                ..tiny.mixture.gate
            },
            ..tiny.mixture
        },
        max_position_embeddings: 128,
        ..tiny
    }
}

/// DeepSeek-V2 with YaRN over its short positions, and group-limited choice among six experts.
fn stretched() -> ModelConfig {
    let latent = latent();
    ModelConfig {
        num_hidden_layers: 3,
        rotary: RotaryConfig {
            scaling: Some(YarnConfig {
                factor: 8.0,
                original_positions: 16.0,
                beta_fast: 4.0,
                beta_slow: 0.5,
                attention_factor: 1.2,
                softmax_factor: 1.3,
            }),
            theta: 100.0,
            ..latent.rotary
        },
        mixture: grouped_experts(latent.mixture, GroupScore::Best),
        ..latent
    }
}

/// DeepSeek-V3: queries through a latent of their own, a sigmoid gate with bias and groups.
fn sigmoid(pairing: Pairing) -> ModelConfig {
    let latent = latent();
    let mut mixture = grouped_experts(latent.mixture, GroupScore::BestTwo);
    mixture.gate.scoring = Scoring::SigmoidWithBias;
    mixture.gate.renormalise = true;
    ModelConfig {
        family: Family::DeepseekV3,
        num_hidden_layers: 3,
        attention: AttentionConfig::Latent {
            query_rank: Some(10),
            rank: 8,
            nope: 4,
            rope: 4,
            value: 6,
        },
        rotary: RotaryConfig {
            pairing,
            ..latent.rotary
        },
        mixture,
        ..latent
    }
}

fn grouped_experts(mixture: MixtureConfig, score: GroupScore) -> MixtureConfig {
    MixtureConfig {
        experts: 6,
        gate: GateConfig {
            groups: Some(GateGroups {
                count: 3,
                kept: 2,
                score,
            }),
            ..mixture.gate
        },
        ..mixture
    }
}

/// Grouped-query attention with halves turned together; three query heads read each key head.
fn grouped(family: Family, norm: HeadNorm) -> ModelConfig {
    let latent = latent();
    let mut mixture = latent.mixture;
    mixture.shared_width = 0;
    mixture.gate.scaling = 1.0;
    mixture.gate.renormalise = family != Family::Olmoe;
    ModelConfig {
        family,
        num_hidden_layers: 2,
        num_attention_heads: 6,
        attention: AttentionConfig::Grouped {
            key_heads: 2,
            head: 6,
            norm,
            clip: (family == Family::Olmoe).then_some(2.0),
            window: (family == Family::Mixtral).then_some(5),
        },
        rotary: RotaryConfig {
            pairing: Pairing::Halves,
            ..latent.rotary
        },
        dense_layers: Vec::new(),
        intermediate_size: 0,
        mixture,
        ..latent
    }
}

#[test]
fn latent_attention_and_a_softmax_gate_have_the_gradient_of_the_loss() {
    Case::new(latent(), 40).check_everything();
}

#[test]
fn stretched_positions_and_group_limited_experts_have_the_gradient_of_the_loss() {
    Case::new(stretched(), 24).check_everything();
}

#[test]
fn low_rank_queries_and_a_sigmoid_gate_have_the_gradient_of_the_loss() {
    Case::new(sigmoid(Pairing::Interleaved), 4).check_everything();
}

#[test]
fn latent_attention_with_halves_turned_together_has_the_gradient_of_the_loss() {
    Case::new(sigmoid(Pairing::Halves), 20).check_everything();
}

#[test]
fn grouped_attention_with_a_norm_of_every_head_has_the_gradient_of_the_loss() {
    Case::new(grouped(Family::Qwen3Moe, HeadNorm::PerHead), 15).check_everything();
}

/// The bound holds for about one value in twenty; without it the loss is another one.
#[test]
fn grouped_attention_with_whole_norms_and_a_bound_has_the_gradient_of_the_loss() {
    let case = Case::new(grouped(Family::Olmoe, HeadNorm::Whole), 28);
    let mut unbounded = case.clone();
    if let AttentionConfig::Grouped { clip, .. } = &mut unbounded.config.attention {
        *clip = None;
    }
    assert_ne!(case.loss(&case.model()), unbounded.loss(&unbounded.model()));
    case.check_everything();
}

/// More positions than two blocks of queries, so that windows begin and end inside and outside of them.
#[test]
fn grouped_attention_with_a_window_has_the_gradient_of_the_loss() {
    let mut case = Case::new(grouped(Family::Mixtral, HeadNorm::Absent), 1);
    case.lengths = vec![97, 2];
    case.check_everything();
}

/// Sequences of several blocks also without a window.
#[test]
fn long_sequences_have_the_gradient_of_the_loss() {
    let mut case = Case::new(latent(), 29);
    case.config.num_hidden_layers = 2;
    case.lengths = vec![90, 43];
    case.check_everything();
}

/// The embedding is read at one end and multiplied by at the other: its gradient is the sum of what both
/// uses would have on their own. What should happen also on widths that fill no panel.
#[test]
fn a_tied_head_has_the_gradient_of_both_of_its_uses() {
    let untied = Case::new(grouped(Family::Qwen3Moe, HeadNorm::PerHead), 17);
    let mut tied = untied.clone();
    tied.config.tied_head = true;
    let found = tied.check_everything();
    assert!(!found.contains_key("lm_head.weight"));

    let embedding = values(&tied.model(), "model.embed_tokens.weight");
    let mut model = untied.model();
    model
        .set_tensor("lm_head.weight", &embedding)
        .expect("the same shape");
    let sequences = untied.sequences();
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let set = TrainableSet::Everything;
    let (_, both) = gradients(&model, &set, &Routing::Classic, &sequences).expect("all of it");
    let uses = both["model.embed_tokens.weight"]
        .values
        .iter()
        .zip(&both["lm_head.weight"].values);
    for (index, (one, other)) in uses.enumerate() {
        let sum = found["model.embed_tokens.weight"].values[index];
        assert!(
            (sum - (one + other)).abs() < 1e-5,
            "value {index} is {sum}, not {one} + {other}"
        );
    }
}

/// An expert of the lowest MoE layer changes what the routers of the two layers above see, so its
/// gradient passes through their weights although they are frozen. What should not happen: a gradient for
/// anything that is not listed.
#[test]
fn listed_experts_have_their_gradients_and_nothing_else_has_one() {
    let case = Case::new(latent(), 40);
    let listed = BTreeMap::from([(1, vec![0, 3]), (3, vec![2])]);
    let found = case.gradients(&TrainableSet::experts(listed));
    let mut names: Vec<String> = [(1, 0), (1, 3), (3, 2)]
        .map(|(layer, expert)| expert_parameter_names(Family::DeepseekV2, layer, expert))
        .concat();
    names.sort();
    assert!(found.keys().eq(names.iter()));
    for (name, gradient) in &found {
        case.check(name, gradient);
    }
}

/// Not computing what is frozen must not change what is computed: the same arithmetic, the same bits. The
/// lowest trained layer is another one in every case, and is the dense layer's neighbour in the first.
#[test]
fn freezing_the_rest_leaves_a_gradient_as_it_was() {
    let cases = [
        Case::new(latent(), 40),
        Case::new(sigmoid(Pairing::Interleaved), 1),
        Case::new(grouped(Family::Olmoe, HeadNorm::Whole), 1),
    ];
    for case in cases {
        let everything = case.gradients(&TrainableSet::Everything);
        for layer in case.config.moe_layers() {
            for parts in 0..8 {
                let [listed, shared, routers] = [1, 2, 4].map(|part| parts & part != 0);
                let shared = shared && case.config.mixture.shared_width > 0;
                if !(listed || shared || routers) {
                    continue;
                }
                let experts = if listed { vec![1, 2] } else { Vec::new() };
                let trainable = TrainableSet::Mixture {
                    experts: BTreeMap::from([(layer, experts.clone())]),
                    shared,
                    routers,
                };
                let wanted = |name: &&String| match parse_expert_name(name) {
                    Some((of, expert)) => of == layer && experts.contains(&expert),
                    None => {
                        (shared && name.contains("shared_experts"))
                            || (routers && name.ends_with("mlp.gate.weight"))
                    }
                };
                let found = case.gradients(&trainable);
                assert!(
                    found.keys().eq(everything.keys().filter(wanted)),
                    "{trainable:?}"
                );
                for (name, gradient) in found {
                    assert_eq!(gradient, everything[&name], "{name} of {trainable:?}");
                }
            }
        }
    }
}

/// Layer 1 has fewer routable experts than slots, layer 3 has none: empty slots carry no gradient, and
/// the weights are not renormalised.
#[test]
fn masked_routing_has_the_gradient_of_its_own_loss() {
    let mut case = Case::new(latent(), 17);
    let experts = BTreeMap::from([(1, vec![2]), (2, vec![0, 1, 3]), (3, vec![])]);
    case.routing = Routing::Masked { experts };
    let found = case.gradients(&TrainableSet::Everything);
    for (name, gradient) in &found {
        let unused = gradient.values.iter().all(|value| *value == 0.0);
        let routable = match parse_expert_name(name) {
            Some((layer, expert)) => [vec![2], vec![0, 1, 3], vec![]][layer - 1].contains(&expert),
            None => name != "model.layers.3.mlp.gate.weight",
        };
        assert_eq!(
            unused, !routable,
            "{name}: only what is used has a gradient"
        );
        if routable {
            case.check(name, gradient);
        }
    }
}

/// The three modes that a slice allows, on a slice: what is not in memory has no gradient, what is kept has
/// one if it is asked for, and the rest of the model feels the detours.
fn check_slice(case: &Case, [trained, kept]: [&[usize]; 2]) {
    let on_every_layer = |experts: &[usize]| -> ExpertMap {
        let layers = case.config.moe_layers();
        layers.map(|layer| (layer, experts.to_vec())).collect()
    };
    let (trained, kept) = (on_every_layer(trained), on_every_layer(kept));
    let mut resident = trained.clone();
    for (layer, experts) in &mut resident {
        experts.extend(&kept[layer]);
    }
    for routing in [
        Routing::Masked {
            experts: resident.clone(),
        },
        Routing::FrozenKept {
            trained: trained.clone(),
            kept: kept.clone(),
        },
        Routing::Fallback {
            trained: trained.clone(),
            kept: kept.clone(),
        },
    ] {
        let mut case = case.clone();
        case.residency = Residency::Slice(resident.clone());
        case.routing = routing;
        let everything = case.check_everything();
        let own = case.gradients(&TrainableSet::experts(trained.clone()));
        let matrices: usize = trained.values().map(|experts| 3 * experts.len()).sum();
        assert_eq!(own.len(), matrices);
        for (name, gradient) in own {
            assert_eq!(gradient, everything[&name], "{name} with the rest frozen");
        }
    }
}

#[test]
fn a_slice_has_the_gradient_of_its_own_loss_behind_a_softmax() {
    check_slice(&Case::new(latent(), 38), [&[0, 2], &[3]]);
}

#[test]
fn a_slice_has_the_gradient_of_its_own_loss_behind_renormalised_weights() {
    let config = grouped(Family::Qwen3Moe, HeadNorm::PerHead);
    check_slice(&Case::new(config, 20), [&[1, 3], &[0]]);
}

#[test]
fn a_slice_has_the_gradient_of_its_own_loss_behind_a_sigmoid_and_groups() {
    check_slice(
        &Case::new(sigmoid(Pairing::Interleaved), 2),
        [&[0, 3], &[1, 4]],
    );
}
