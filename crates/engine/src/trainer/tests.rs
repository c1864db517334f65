//! What a step accumulates, before AdamW sees it.

use super::*;
use crate::device::Cpu;
use crate::memory::Activations;
use crate::routing::ExpertMap;

const VOCABULARY: usize = 64;

fn model() -> Model {
    Model::random(&ModelConfig::tiny(VOCABULARY), 5)
}

fn sequences() -> Vec<Vec<u32>> {
    let sequence = |length: u32| {
        let ids = (0..length).map(|position| (position * position + length) % VOCABULARY as u32);
        ids.collect()
    };
    [40, 2, 65, 90, 33].map(sequence).to_vec()
}

/// Every trained parameter's gradient of one step, in the model's order, and the loss.
fn accumulated(trainable: &TrainableSet, plan: MemoryPlan) -> (f64, Vec<Vec<f32>>) {
    let (model, storage) = (model(), sequences());
    let sequences: Vec<&[u32]> = storage.iter().map(Vec::as_slice).collect();
    let routing = model
        .routing_plan(&Routing::Classic)
        .expect("the whole model");
    let setting = Setting {
        trainable,
        routing: &routing,
        plan: &plan,
        adaptive: &[],
    };
    let mut gradients = gradient_tree(&model, trainable);
    let loss = setting.accumulate(&model, &sequences, &mut gradients);
    let read = |gradient: &<Cpu as Device>::Gradient| model.device().read_gradient(gradient);
    (
        loss,
        gradients.leaves().into_iter().flatten().map(read).collect(),
    )
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values
        .map(|value| f64::from(value).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// Passes below one sequence, between sequences, and above all of them: the mean is over the tokens of
/// the step, not of the pass, so only the order of sums differs.
#[test]
fn micro_batches_sum_to_the_same_gradient() {
    let mixture = TrainableSet::Mixture {
        experts: BTreeMap::from([(1, vec![0, 3]), (3, vec![5])]),
        shared: true,
        routers: true,
    };
    for trainable in [TrainableSet::Everything, mixture] {
        let (loss, expected) = accumulated(&trainable, MemoryPlan::default());
        for pass_tokens in [1, 70, 131] {
            let plan = MemoryPlan {
                pass_tokens,
                ..MemoryPlan::default()
            };
            let (other, found) = accumulated(&trainable, plan);
            assert!((other / loss - 1.0).abs() < 1e-12, "{other}, not {loss}");
            for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let values = found.iter().zip(expected);
                let difference = norm(values.map(|(found, expected)| found - expected));
                let size = norm(expected.iter().copied());
                assert!(
                    difference <= 1e-6 * size,
                    "parameter {index}: {difference} of {size}"
                );
            }
        }
    }
}

#[test]
fn recomputed_layers_leave_the_same_bits() {
    let recomputed = MemoryPlan {
        activations: Activations::Recomputed,
        ..MemoryPlan::default()
    };
    let set = TrainableSet::Everything;
    assert_eq!(
        accumulated(&set, recomputed),
        accumulated(&set, MemoryPlan::default())
    );
}

/// What should not happen: that a step finds anything of the one before it in the memory that both use.
#[test]
fn gradients_are_clear_between_steps() {
    let storage = sequences();
    let sequences: Vec<&[u32]> = storage.iter().map(Vec::as_slice).collect();
    for gradients in [GradientMemory::Kept, GradientMemory::Released] {
        let plan = MemoryPlan {
            gradients,
            ..MemoryPlan::default()
        };
        let set = TrainableSet::experts(BTreeMap::from([(1, vec![0, 3]), (2, vec![1, 3, 5])]));
        let mut model = model();
        let adamw = AdamW::default();
        let mut trainer =
            Trainer::new(&model, set, &Routing::Classic, adamw, plan).expect("experts");
        // A rate of zero leaves the model as it is.
        let mut step =
            |sequences: &[&[u32]]| trainer.step(&mut model, sequences, 0.0).expect("finite");
        let first = step(&sequences);
        step(&sequences[1..3]);
        assert_eq!(step(&sequences), first);
    }
}

/// The walk of the released gradients counts on it.
#[test]
fn first_leaves_are_where_the_layers_begin() {
    let model = model();
    let firsts = first_leaves(model.parameters());
    assert_eq!(firsts.len(), 4);
    for (layer, first) in firsts.into_iter().enumerate() {
        let name = format!("model.layers.{layer}.input_layernorm.weight");
        assert_eq!(model.descriptions()[first].name, name);
    }
}

/// A layer's share of the norm counts the layers that have something to train, not those between them; a
/// family without shared experts trains none, whatever is asked for.
#[test]
fn layers_without_anything_to_train_take_no_share() {
    let config = ModelConfig::tiny(24);
    let experts = || ExpertMap::from([(1, vec![2]), (2, vec![]), (3, vec![0])]);
    let listed = TrainableSet::experts(experts());
    assert_eq!(listed.trained_layers(&config), 2);
    assert_eq!(listed.lowest_layer(&config), Some(1));

    let with_shared = TrainableSet::Mixture {
        experts: ExpertMap::from([(3, vec![0])]),
        shared: true,
        routers: false,
    };
    assert_eq!(with_shared.trained_layers(&config), 3);
    let mut without = config;
    without.mixture.shared_width = 0;
    assert_eq!(with_shared.trained_layers(&without), 1);
    assert_eq!(with_shared.lowest_layer(&without), Some(3));
}
