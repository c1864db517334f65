//! The trainer against the ordinary one where both mean the same, and its gradients against differences.
//!
//! Differences as in the engine's `tests/gradients.rs`, with its step and tolerance; the seed is one under
//! which no token changes its experts within a step.

use std::collections::BTreeMap;

use super::*;
use crate::config::{MixtureConfig, ModelConfig};
use crate::device::Layout;
use crate::element::Element;
use crate::memory::Activations;
use crate::tensor::Tensor;
use crate::trainer::gradients;
use crate::{expert_parameter_names, parse_expert_name};

const VOCABULARY: usize = 24;
const STEP: f32 = 5e-4;

/// Two MoE layers above a dense one.
fn config() -> ModelConfig {
    let tiny = ModelConfig::tiny(VOCABULARY);
    ModelConfig {
        hidden_size: 16,
        num_hidden_layers: 3,
        intermediate_size: 20,
        mixture: MixtureConfig {
            experts: 4,
            width: 12,
            shared_width: 24,
            ..tiny.mixture
        },
        ..tiny
    }
}

/// A model whose loss feels its layers.
fn model() -> Model {
    let mut model = Model::random(&config(), 7);
    for name in ["lm_head.weight", "model.embed_tokens.weight"] {
        let values = model.tensor(name).expect("a name of the model").values;
        let enlarged: Vec<f32> = values.iter().map(|value| value * 20.0).collect();
        model.set_tensor(name, &enlarged).expect("as many values");
    }
    model
}

fn experts() -> ExpertMap {
    BTreeMap::from([(1, vec![0, 1, 3]), (2, vec![1, 2])])
}

/// Of two domains.
fn sequences() -> [Vec<Vec<u32>>; 2] {
    let sequence = |length: u32, factor: u32| {
        let ids = (0..length).map(|position| (position * factor + position / 5 + length) % 24);
        ids.collect()
    };
    [
        vec![sequence(19, 7), sequence(2, 5)],
        vec![sequence(11, 5), sequence(17, 11)],
    ]
}

fn with_batches<R>(work: impl FnOnce(&[DomainBatch<'_>]) -> R) -> R {
    let storage = sequences();
    let slices = storage
        .each_ref()
        .map(|domain| domain.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let batches = [0, 1].map(|domain| DomainBatch {
        domain,
        sequences: &slices[domain],
    });
    work(&batches)
}

fn trainer(model: &Model, routing: &Routing, settings: Settings) -> DesMoe {
    let with = (AdamW::default(), MemoryPlan::default());
    DesMoe::new(model, experts(), routing, settings, with).expect("experts of the model")
}

fn narrow(steps: u64) -> Settings {
    Settings {
        router_width: Some(10),
        ..Settings::new(steps)
    }
}

fn values(model: &Model) -> BTreeMap<String, Vec<f32>> {
    let named = model.names().map(|name| {
        let tensor = model.tensor(name).expect("a name of the model");
        (name.to_owned(), tensor.values)
    });
    named.collect()
}

/// Corrections of more than nothing.
fn correct(trainer: &mut DesMoe, device: &Cpu) {
    for (layer, router) in trainer.routers.adaptive.iter_mut().enumerate() {
        let Some(router) = router else { continue };
        let wave = |index: usize| 0.5 * ((index + 3 * layer) as f32 * 1.7).sin();
        let second = Tensor::matrix(4, 11, (0..44).map(wave).collect());
        router.maps[1] = device.weight(&second, Layout::Linear, Element::F32);
    }
}

/// Hides from domain 0 all experts but 1, from domain 1 expert 1, in both layers.
fn masked(mut trainer: DesMoe) -> DesMoe {
    trainer.trainer.steps = trainer.settings.steps / 2;
    trainer.affinity = Affinity::new(trainer.settings.threshold);
    for (domain, visits) in [(0, vec![0, 9, 0, 0]), (1, vec![9, 0, 9, 9])] {
        let layers = [(1, visits.clone()), (2, visits)];
        trainer.affinity.observe(domain, 10, layers);
    }
    trainer.affinity.refresh();
    trainer
}

fn routings() -> [Routing; 4] {
    let (trained, kept) = (experts(), BTreeMap::from([(1, vec![2]), (2, vec![0])]));
    [
        Routing::Classic,
        Routing::Masked { experts: experts() },
        Routing::FrozenKept {
            trained: trained.clone(),
            kept: kept.clone(),
        },
        Routing::Fallback { trained, kept },
    ]
}

/// What should happen: the ordinary trainer's first step, to the bit, along every routing. What should not
/// happen: that a correction of nothing shows.
#[test]
fn begins_as_the_model_routes() {
    for routing in routings() {
        let (mut ours, mut expected) = (model(), model());
        let (adamw, plan) = (AdamW::default(), MemoryPlan::default());
        let set = TrainableSet::experts(experts());
        let mut ordinary =
            Trainer::new(&expected, set, &routing, adamw, plan).expect("experts of the model");
        let [first, _] = sequences();
        let first: Vec<&[u32]> = first.iter().map(Vec::as_slice).collect();
        let report = ordinary.step(&mut expected, &first, 1e-2).expect("finite");

        let mut trainer = trainer(&ours, &routing, narrow(10));
        let batch = DomainBatch {
            domain: 5,
            sequences: &first,
        };
        let found = trainer.step(&mut ours, &[batch], 1e-2).expect("finite");
        assert_eq!(found.step, report, "{routing:?}");
        assert_eq!(found.losses, [report.loss]);
        let router = found.router.expect("the routers learn");
        assert_eq!((router.divergence_weight, router.divergence), (1.0, 0.0));
        assert_eq!(values(&ours), values(&expected), "{routing:?}");
    }
}

/// The signal that one layer's router learns from, and its gradients towards both maps.
fn signal(trainer: &mut DesMoe, model: &Model, layer: usize, share: f64) -> (f64, [Vec<f32>; 2]) {
    with_batches(|batches| {
        let sequences: Vec<&[u32]> = batches
            .iter()
            .flat_map(|batch| batch.sequences.iter().copied())
            .collect();
        let (tokens, predicted) = (49.0, 45.0);
        trainer.routers.listen(Blend {
            temperature: 0.7,
            task: (1.0 - share) as f32,
            divergence: (share / tokens) as f32,
        });
        let inner = &trainer.trainer;
        let set = &inner.trainable;
        let mut plan = inner.plan.backward(set, model.config(), 1.0 / 45.0);
        plan.trains_routers = true;
        let setting = Setting {
            trainable: set,
            routing: &inner.routing,
            plan: &inner.plan,
            adaptive: &trainer.routers.adaptive,
        };
        let mut gradients = super::super::gradient_tree(model, set);
        let mut sink = KeptSink {
            weights: model.parameters(),
            gradients: &mut gradients,
            routers: &mut trainer.routers.learning,
        };
        let loss = setting.backward(model, &sequences, &plan, &mut sink) / predicted;
        let learning = trainer.routers.learning[layer].as_ref().expect("adapted");
        let read = |gradient| model.device().read_gradient(gradient);
        let learnt = learning.gradients.as_ref().expect("learning");
        let learnt = learnt.each_ref().map(read);
        let divergence = learning.divergence / tokens;
        trainer.routers.clear(model.device());
        (share * divergence + (1.0 - share) * loss, learnt)
    })
}

/// Divergence alone, both, and loss alone, in the lowest trained layer and above it.
#[test]
fn routers_learn_along_the_gradient_of_their_signal() {
    let model = model();
    let device = model.device().clone();
    for (share, layer, map) in [
        (1.0, 1, 0),
        (1.0, 2, 1),
        (0.5, 1, 1),
        (0.5, 2, 0),
        (0.0, 1, 0),
        (0.0, 2, 1),
    ] {
        let mut trainer = trainer(&model, &Routing::Classic, narrow(10));
        correct(&mut trainer, &device);
        let (_, gradients) = signal(&mut trainer, &model, layer, share);
        let gradient = &gradients[map];
        let norm: f32 = gradient.iter().map(|value| value * value).sum();
        let norm = norm.sqrt();
        assert!(norm > 1e-3, "a gradient of {norm} shows nothing");
        let maps = |trainer: &DesMoe| {
            let router = trainer.routers.adaptive[layer].as_ref().expect("adapted");
            device.read_weight(&router.maps[map])
        };
        let original = maps(&trainer);
        let shape = [[10, 17], [4, 11]][map];
        for seed in 0..4 {
            let mut moved = |step: f32| {
                let each = original.iter().enumerate();
                let moved = each.map(|(index, value)| value + step * direction(seed, index));
                let moved = Tensor::matrix(shape[0], shape[1], moved.collect());
                let router = trainer.routers.adaptive[layer].as_mut().expect("adapted");
                router.maps[map] = device.weight(&moved, Layout::Linear, Element::F32);
                signal(&mut trainer, &model, layer, share).0
            };
            let difference = (moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP);
            agrees(difference as f32, along(gradient, seed), norm);
        }
    }
}

/// The loss that an expert answers for is that of the domains that train it; corrected routers above it
/// pass its gradient on.
#[test]
fn masked_experts_learn_from_their_domains_alone() {
    let original = model();
    let mut trainer = masked(trainer(&original, &Routing::Classic, narrow(10)));
    correct(&mut trainer, &original.device().clone());
    for (layer, expert, of) in [(1, 1, 0), (1, 3, 1), (2, 1, 0), (2, 2, 1)] {
        let mut found = |model: &Model| {
            let set = TrainableSet::experts(experts());
            let mut gradients = super::super::gradient_tree(model, &set);
            let losses =
                with_batches(|batches| trainer.accumulate(model, batches, &mut gradients).losses);
            let named = model.descriptions().iter().zip(gradients.into_leaves());
            let named = named.filter_map(|(parameter, gradient)| {
                Some((
                    parameter.name.clone(),
                    model.device().read_gradient(&gradient?),
                ))
            });
            (losses, named.collect::<BTreeMap<_, _>>())
        };
        let (_, gradients) = found(&original);
        for name in expert_parameter_names(config().family, layer, expert) {
            let gradient = &gradients[&name];
            let norm: f32 = gradient.iter().map(|value| value * value).sum();
            let norm = norm.sqrt();
            assert!(norm > 1e-3, "{name}: a gradient of {norm} shows nothing");
            for seed in 0..2 {
                let mut moved = |step: f32| {
                    let mut model = model();
                    let mut values = model.tensor(&name).expect("a name").values;
                    for (index, value) in values.iter_mut().enumerate() {
                        *value += step * direction(seed, index);
                    }
                    model.set_tensor(&name, &values).expect("as many values");
                    // Tokens of the domain that predict, of 45.
                    found(&model).0[of] * [19.0, 26.0][of] / 45.0
                };
                let difference = (moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP);
                agrees(difference as f32, along(gradient, seed), norm);
            }
        }
    }
}

fn along(gradient: &[f32], seed: u32) -> f32 {
    let each = gradient.iter().enumerate();
    each.map(|(index, value)| value * direction(seed, index))
        .sum()
}

fn agrees(difference: f32, inner: f32, norm: f32) {
    assert!(
        (difference - inner).abs() < 0.01 * norm + 1e-4,
        "the signal changes by {difference}, the gradient says {inner} (norm {norm})"
    );
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

/// Without corrections, the sum over domains of what each trains is what the ordinary gradients of each add
/// up to.
#[test]
fn domains_add_up_to_the_gradient_of_both() {
    let model = model();
    let mut trainer = masked(trainer(&model, &Routing::Classic, narrow(10)));
    let set = TrainableSet::experts(experts());
    with_batches(|batches| {
        let mut tree = super::super::gradient_tree(&model, &set);
        trainer.accumulate(&model, batches, &mut tree);
        let named = model.descriptions().iter().zip(tree.into_leaves());
        for (parameter, gradient) in named {
            let Some(gradient) = gradient else { continue };
            let found = model.device().read_gradient(&gradient);
            let (_, expert) = parse_expert_name(&parameter.name).expect("an expert");
            let domain = usize::from(expert != 1);
            let sequences = batches[domain].sequences;
            let (_, of_domain) =
                gradients(&model, &set, &Routing::Classic, sequences).expect("a batch");
            let share = [19.0, 26.0][domain] / 45.0;
            for (found, expected) in found.iter().zip(&of_domain[&parameter.name].values) {
                assert!(
                    (found - expected * share).abs() < 1e-6,
                    "{}",
                    parameter.name
                );
            }
        }
    });
}

/// Every part of a run at work: all three phases, a refresh in each.
fn run(threads: usize, activations: Activations) -> (Vec<Report>, Model) {
    let mut model = model().on(Cpu::new(threads).expect("threads"));
    let settings = Settings {
        refresh_steps: 2,
        ..narrow(10)
    };
    let plan = MemoryPlan {
        activations,
        ..MemoryPlan::default()
    };
    let with = (AdamW::default(), plan);
    let mut trainer = DesMoe::new(&model, experts(), &Routing::Classic, settings, with)
        .expect("experts of the model");
    let reports = with_batches(|batches| {
        let step = |_| trainer.step(&mut model, batches, 1e-2).expect("finite");
        (0..10).map(step).collect()
    });
    (reports, model)
}

#[test]
fn gives_the_same_bits_on_any_number_of_threads() {
    let (reports, model) = run(1, Activations::Kept);
    for (threads, activations) in [(3, Activations::Kept), (2, Activations::Recomputed)] {
        let (others, other) = run(threads, activations);
        assert_eq!(others, reports);
        assert_eq!(values(&other), values(&model));
    }
}

/// What should happen: three phases, masks from the second on, silent routers in the third, and a falling
/// loss. What should not happen: a change to anything but the trained experts.
#[test]
fn a_run_changes_nothing_but_the_trained_experts() {
    let (reports, trained) = run(1, Activations::Kept);
    let phases: Vec<Phase> = reports.iter().map(|report| report.phase).collect();
    let expected = [
        [Phase::WarmUp; 2].as_slice(),
        &[Phase::Stabilisation; 5],
        &[Phase::Consolidation; 3],
    ];
    assert_eq!(phases, expected.concat());
    for report in &reports {
        let warm = report.phase == Phase::WarmUp;
        assert_eq!(report.trained_share == 1.0, warm, "{report:?}");
        let learns = report.phase != Phase::Consolidation;
        assert_eq!(report.router.is_some(), learns);
    }
    let divergence = reports[6].router.map(|router| router.divergence);
    assert!(
        divergence.is_some_and(|value| value > 0.0),
        "{divergence:?}"
    );
    assert!(reports[9].step.loss < reports[0].step.loss - 0.1);

    for (name, before) in values(&model()) {
        let listed = parse_expert_name(&name).is_some_and(|(layer, expert)| {
            experts()
                .get(&layer)
                .is_some_and(|listed| listed.contains(&expert))
        });
        let after = trained.tensor(&name).expect("a name").values;
        assert!(listed || after == before, "{name} has changed");
    }
}

/// What should not happen: that decay or an old step's momentum moves it.
#[test]
fn an_expert_that_no_domain_trains_stands_still() {
    let mut model = model();
    let mut trainer = trainer(&model, &Routing::Classic, narrow(10));
    with_batches(|batches| {
        trainer.step(&mut model, batches, 1e-2).expect("finite");
        trainer = masked(trainer);
        let before = values(&model);
        let report = trainer
            .step(&mut model, &batches[..1], 1e-2)
            .expect("finite");
        assert_eq!(
            report.trained_share, 0.4,
            "expert 1 of both layers, of five"
        );
        for (name, after) in values(&model) {
            let moves = parse_expert_name(&name).is_some_and(|(_, expert)| expert == 1);
            assert_eq!(after != before[&name], moves, "{name}");
        }
    });
}

#[test]
fn a_step_that_is_not_finite_leaves_everything_as_it_was() {
    let mut model = model();
    let name = "model.norm.weight";
    let healthy = model.tensor(name).expect("a name").values;
    let mut trainer = trainer(&model, &Routing::Classic, narrow(10));
    with_batches(|batches| {
        let mut spoilt = healthy.clone();
        spoilt[3] = f32::NAN;
        model.set_tensor(name, &spoilt).expect("as many values");
        let error = trainer.step(&mut model, batches, 1e-2);
        assert!(matches!(error, Err(EngineError::NotFinite { step: 1 })));
        model.set_tensor(name, &healthy).expect("as many values");
        let after = trainer.step(&mut model, batches, 1e-2).expect("finite");
        assert_eq!(after, run(1, Activations::Kept).0[0]);
    });
}

#[test]
fn refuses_what_it_cannot_do() {
    let model = model();
    let attempt = |settings: Settings, plan: MemoryPlan| {
        let with = (AdamW::default(), plan);
        let made = DesMoe::new(&model, experts(), &Routing::Classic, settings, with);
        made.err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    let plan = MemoryPlan::default();
    for (settings, part) in [
        (Settings::new(0), "steps"),
        (
            Settings {
                refresh_steps: 0,
                ..narrow(1)
            },
            "refresh_steps",
        ),
        (
            Settings {
                router_width: Some(0),
                ..narrow(1)
            },
            "router_width",
        ),
        (
            Settings {
                temperature: 0.0,
                ..narrow(1)
            },
            "temperature",
        ),
        (
            Settings {
                threshold: f64::NAN,
                ..narrow(1)
            },
            "threshold",
        ),
    ] {
        let told = attempt(settings, plan);
        assert!(told.contains(part), "{told:?} does not name {part}");
    }
    let released = MemoryPlan {
        gradients: GradientMemory::Released,
        ..plan
    };
    let eight = MemoryPlan {
        moments: MomentsFormat::Blockwise8,
        ..plan
    };
    for plan in [released, eight] {
        assert!(attempt(narrow(1), plan).contains("kept"));
    }
    let mut trainer = trainer(&model, &Routing::Classic, narrow(1));
    let nothing = trainer.step(&mut self::model(), &[], 1e-2);
    assert!(matches!(
        nothing,
        Err(EngineError::DesMoe(DesMoeError::NoDomains))
    ));
}

/// Even of steps that no run will ever have.
#[test]
fn phases_divide_any_number_of_steps() {
    for steps in [1, 2, 10, 999, u64::MAX] {
        let settings = Settings::new(steps);
        assert_eq!(settings.phase(0), Phase::WarmUp);
        assert_eq!(settings.phase(steps), Phase::Consolidation);
        assert_eq!(settings.divergence_weight(0), 1.0);
        assert_eq!(settings.divergence_weight(u64::MAX), 0.0);
    }
    let phases = [1, 2, 6, 7].map(|taken| Settings::new(10).phase(taken));
    let [warm, stable, last] = [Phase::WarmUp, Phase::Stabilisation, Phase::Consolidation];
    assert_eq!(phases, [warm, stable, stable, last]);
}
