//! Whole training steps of models whose sizes divide by nothing.

use std::collections::BTreeMap;

use super::{Cpu, threads};
use crate::config::{
    AttentionConfig, Family, GateConfig, HeadNorm, MixtureConfig, ModelConfig, Pairing, Scoring,
};
use crate::element::Element;
use crate::kernels::Level;
use crate::memory::{Activations, GradientMemory, MemoryPlan};
use crate::model::{Holding, Model, Residency};
use crate::names::parse_expert_name;
use crate::optimizer::{AdamW, MomentsFormat};
use crate::routing::Routing;
use crate::tensor::Tensor;
use crate::trainer::{StepReport, TrainableSet, Trainer, gradients};

const VOCABULARY: usize = 101;

/// A sigmoid gate whose bias sends every token to expert 0 and none to expert 4.
fn latent() -> ModelConfig {
    let tiny = ModelConfig::tiny(VOCABULARY);
    ModelConfig {
        family: Family::DeepseekV3,
        hidden_size: 45,
        num_hidden_layers: 3,
        num_attention_heads: 3,
        attention: AttentionConfig::Latent {
            query_rank: Some(19),
            rank: 13,
            nope: 7,
            rope: 6,
            value: 9,
        },
        intermediate_size: 83,
        mixture: MixtureConfig {
            experts: 5,
            per_token: 2,
            width: 37,
            shared_width: 41,
            gate: GateConfig {
                scoring: Scoring::SigmoidWithBias,
                renormalise: true,
                scaling: 2.5,
                ..tiny.mixture.gate
            },
        },
        ..tiny
    }
}

/// Softmax over five experts, norms and bounds on heads, a window, and a head that is the embedding.
fn grouped() -> ModelConfig {
    let latent = latent();
    let mut config = ModelConfig {
        family: Family::Qwen3Moe,
        hidden_size: 70,
        num_hidden_layers: 2,
        num_attention_heads: 6,
        attention: AttentionConfig::Grouped {
            key_heads: 3,
            head: 10,
            norm: HeadNorm::PerHead,
            clip: Some(1.5),
            window: Some(50),
        },
        dense_layers: Vec::new(),
        intermediate_size: 0,
        tied_head: true,
        ..latent
    };
    config.rotary.pairing = Pairing::Halves;
    config.mixture.shared_width = 0;
    config.mixture.gate.scoring = Scoring::Softmax;
    config
}

fn model(cpu: Cpu, config: &ModelConfig, trainable: &TrainableSet, plan: MemoryPlan) -> Model {
    let holding = Holding {
        residency: Residency::Whole,
        trainable: trainable.clone(),
        plan,
    };
    let mut model = Model::random_on(cpu, config, &holding, 3);
    let names: Vec<String> = model.names().map(str::to_owned).collect();
    for name in names {
        if name.ends_with("bias") {
            let bias = [10.0, 0.0, 0.01, -0.01, -10.0];
            model.set_tensor(&name, &bias).expect("five experts");
        }
    }
    model
}

/// Two tokens, one block of queries and one more, several blocks; more rows than any block of them.
fn sequences() -> Vec<Vec<u32>> {
    [2, 130, 43, 3, 250]
        .iter()
        .map(|&length| {
            (0..length)
                .map(|position| (position * position + length) % 101)
                .collect()
        })
        .collect()
}

fn slices(sequences: &[Vec<u32>]) -> Vec<&[u32]> {
    sequences.iter().map(Vec::as_slice).collect()
}

fn everything(cpu: Cpu, config: &ModelConfig) -> (f64, BTreeMap<String, Tensor>) {
    let set = TrainableSet::Everything;
    let model = model(cpu, config, &set, MemoryPlan::default());
    let storage = sequences();
    gradients(&model, &set, &Routing::Classic, &slices(&storage)).expect("all of it")
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values
        .map(|value| f64::from(value).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// Instruction sets add in other orders; what they compute is the same up to the rounding of f32.
#[test]
fn every_instruction_set_gives_the_same_losses_and_gradients() {
    for config in [latent(), grouped()] {
        let mut levels = Level::available().into_iter();
        let portable = levels.next().expect("the portable level is always there");
        let (loss, expected) = everything(Cpu::single().with_level(portable), &config);
        for level in levels {
            let (other, found) = everything(Cpu::single().with_level(level), &config);
            assert!(
                (other / loss - 1.0).abs() < 1e-6,
                "{level:?}: {other}, not {loss}"
            );
            for (name, gradient) in found {
                let expected = &expected[&name].values;
                let values = gradient.values.iter().zip(expected);
                let difference = norm(values.map(|(found, expected)| found - expected));
                let size = norm(expected.iter().copied());
                assert!(
                    difference <= 1e-5 * size,
                    "{name} at {level:?}: {difference} of {size}"
                );
            }
        }
    }
}

/// The bias is obeyed: an expert that no token visits has no gradient, one that all visit has.
#[test]
fn an_expert_without_tokens_has_no_gradient() {
    let (_, found) = everything(threads(2), &latent());
    for (name, gradient) in &found {
        let unused = gradient.values.iter().all(|value| *value == 0.0);
        let expert = parse_expert_name(name).map(|(_, expert)| expert);
        assert_eq!(unused, expert == Some(4), "{name}");
    }
}

/// Two steps under a plan: what they report, and every parameter afterwards.
fn trained(
    cpu: Cpu,
    config: &ModelConfig,
    trainable: &TrainableSet,
    plan: MemoryPlan,
) -> (Vec<StepReport>, BTreeMap<String, Tensor>) {
    let mut model = model(cpu, config, trainable, plan);
    let set = trainable.clone();
    let mut trainer = Trainer::new(&model, set, &Routing::Classic, AdamW::default(), plan)
        .expect("a usable plan");
    let storage = sequences();
    let step = |_| {
        trainer
            .step(&mut model, &slices(&storage), 1e-3)
            .expect("finite")
    };
    let reports = (0..2).map(step).collect();
    let tensor = |name: &str| {
        (
            name.to_owned(),
            model.tensor(name).expect("a name of the model"),
        )
    };
    (reports, model.names().map(tensor).collect())
}

/// Work is cut otherwise for every number of threads. What should happen: not one other bit, with all that
/// a plan can ask for.
#[test]
fn training_gives_the_same_bits_on_any_number_of_threads() {
    let small = MemoryPlan {
        frozen: Element::Int8,
        trained: Element::Bf16,
        moments: MomentsFormat::Blockwise8,
        gradients: GradientMemory::Released,
        activations: Activations::Recomputed,
        ..MemoryPlan::default()
    };
    let micro = MemoryPlan {
        pass_tokens: 180,
        ..MemoryPlan::default()
    };
    for config in [latent(), grouped()] {
        let mixture = TrainableSet::Mixture {
            experts: config
                .moe_layers()
                .map(|layer| (layer, vec![0, 2, 4]))
                .collect(),
            shared: true,
            routers: true,
        };
        for (trainable, plan) in [
            (&TrainableSet::Everything, MemoryPlan::default()),
            (&TrainableSet::Everything, micro),
            (&mixture, small),
        ] {
            let alone = trained(Cpu::single(), &config, trainable, plan);
            for count in [2, 3] {
                let shared = trained(threads(count), &config, trainable, plan);
                assert_eq!(shared.0, alone.0, "{count} threads, {plan:?}");
                for (name, tensor) in &alone.1 {
                    assert!(
                        shared.1[name] == *tensor,
                        "{name} on {count} threads, {plan:?}"
                    );
                }
            }
        }
    }
}

/// Evaluation too, down to the logits of a single token.
#[test]
fn evaluation_gives_the_same_bits_on_any_number_of_threads() {
    let set = TrainableSet::Everything;
    for config in [latent(), grouped()] {
        let run = |cpu| {
            let model = model(cpu, &config, &set, MemoryPlan::default());
            let storage = sequences();
            let losses = model.sequence_losses(&slices(&storage), &Routing::Classic);
            let logits = [1, 2, 130].map(|length| {
                let ids = &storage[1][..length];
                model
                    .logits(ids, &Routing::Classic)
                    .expect("ids of the model")
            });
            (losses.expect("sequences of the model"), logits)
        };
        let alone = run(Cpu::single());
        assert!(run(threads(2)) == alone && run(threads(3)) == alone);
    }
}
