//! Models of which only some experts are in memory: they compute what the whole model would, refuse what
//! they cannot, and take new experts one by one.

use std::collections::BTreeMap;

use connito_engine::device::Cpu;
use connito_engine::element::Element;
use connito_engine::optimizer::MomentsFormat;
use connito_engine::routing::ExpertMap;
use connito_engine::{
    AdamW, EngineError, Holding, MemoryPlan, Model, ModelConfig, Residency, Routing, StepReport,
    Tensor, TrainableSet, Trainer, expert_parameter_names,
};

const VOCABULARY: usize = 64;

fn config() -> ModelConfig {
    ModelConfig::tiny(VOCABULARY)
}

fn sequences() -> Vec<Vec<u32>> {
    let sequence = |index: u32| {
        let ids = (0..30 + 17 * index).map(|position| (position * position + index) % 64);
        ids.collect()
    };
    (0..4).map(sequence).collect()
}

fn slices(sequences: &[Vec<u32>]) -> Vec<&[u32]> {
    sequences.iter().map(Vec::as_slice).collect()
}

/// Layer after layer of the tiny model's three.
fn experts(listed: [&[usize]; 3]) -> ExpertMap {
    (1..).zip(listed.map(<[usize]>::to_vec)).collect()
}

fn trained_experts() -> ExpertMap {
    experts([&[0, 5], &[2], &[7, 1]])
}

fn kept_experts() -> ExpertMap {
    experts([&[3], &[4, 6], &[]])
}

/// Trained and kept ones.
fn resident_experts() -> ExpertMap {
    let mut resident = trained_experts();
    for (layer, kept) in kept_experts() {
        resident.entry(layer).or_default().extend(kept);
    }
    resident
}

fn slice() -> Residency {
    Residency::Slice(resident_experts())
}

/// Every mode that the slice allows.
fn routings() -> [Routing; 3] {
    let (trained, kept) = (trained_experts(), kept_experts());
    [
        Routing::Masked {
            experts: trained.clone(),
        },
        Routing::FrozenKept {
            trained: trained.clone(),
            kept: kept.clone(),
        },
        Routing::Fallback { trained, kept },
    ]
}

fn model(residency: Residency, plan: MemoryPlan) -> Model {
    let holding = Holding {
        residency,
        trainable: TrainableSet::experts(trained_experts()),
        plan,
    };
    Model::random_on(Cpu::new(2).expect("two threads"), &config(), &holding, 5)
}

fn trainer(model: &Model, routing: &Routing, plan: MemoryPlan) -> Trainer {
    let trainable = TrainableSet::experts(trained_experts());
    Trainer::new(model, trainable, routing, AdamW::default(), plan).expect("experts in memory")
}

fn tensors(model: &Model) -> BTreeMap<String, Tensor> {
    let tensor = |name: &str| model.tensor(name).expect("a name of the model");
    model
        .names()
        .map(|name| (name.to_owned(), tensor(name)))
        .collect()
}

/// What is not in memory has neither a name nor values; everything else has the whole model's.
#[test]
fn a_slice_holds_the_values_of_the_whole_model() {
    let whole = tensors(&model(Residency::Whole, MemoryPlan::default()));
    let slice = model(slice(), MemoryPlan::default());
    let held = tensors(&slice);
    let absent = 3 * (3 * 8 - resident_experts().values().map(Vec::len).sum::<usize>());
    assert_eq!(held.len() + absent, whole.len());
    for (name, tensor) in &held {
        assert_eq!(*tensor, whole[name], "{name}");
    }
    let [absent, ..] = expert_parameter_names(config().family, 1, 4);
    assert_eq!(slice.tensor(&absent), None);
}

/// Three steps and the losses after them, without and with random bits.
fn train(residency: Residency, routing: &Routing, plan: MemoryPlan) -> (Vec<StepReport>, Model) {
    let mut model = model(residency, plan);
    let mut trainer = trainer(&model, routing, plan);
    let storage = sequences();
    let step = |_| {
        trainer
            .step(&mut model, &slices(&storage), 3e-3)
            .expect("finite")
    };
    let reports = (0..3).map(step).collect();
    (reports, model)
}

/// Miners hold slices, auditors may hold everything: routes do not depend on what else is in memory, so
/// both get the same losses and the same trained experts, to the bit, also where weights and moments are
/// rounded at random.
#[test]
fn a_slice_trains_as_the_whole_model_does() {
    let small = MemoryPlan {
        trained: Element::Bf16,
        moments: MomentsFormat::Blockwise8,
        ..MemoryPlan::default()
    };
    let storage = sequences();
    for plan in [MemoryPlan::default(), small] {
        for routing in routings() {
            let (expected, whole) = train(Residency::Whole, &routing, plan);
            let (found, slice) = train(slice(), &routing, plan);
            assert_eq!(found, expected);
            assert_eq!(
                slice
                    .sequence_losses(&slices(&storage), &routing)
                    .expect("sequences"),
                whole
                    .sequence_losses(&slices(&storage), &routing)
                    .expect("sequences"),
            );
            let expected = tensors(&whole);
            for (name, tensor) in tensors(&slice) {
                assert_eq!(tensor, expected[&name], "{name} of {routing:?}");
            }
        }
    }
}

/// The modes are three, not one: on the same experts each takes other routes.
#[test]
fn routing_modes_differ() {
    let model = model(slice(), MemoryPlan::default());
    let storage = sequences();
    let losses = routings().map(|routing| {
        let losses = model.sequence_losses(&slices(&storage), &routing);
        losses
            .expect("sequences")
            .iter()
            .map(|loss| loss.sum)
            .sum::<f64>()
    });
    assert!(losses[0] != losses[1] && losses[1] != losses[2] && losses[0] != losses[2]);
}

/// Every mode is the classic model where nothing is left out.
#[test]
fn leaving_nothing_out_is_the_classic_model() {
    let model = Model::random(&config(), 3);
    let storage = sequences();
    let losses = |routing: &Routing| {
        let losses = model.sequence_losses(&slices(&storage), routing);
        losses.expect("sequences of the model")
    };
    let all = || experts([&[0, 1, 2, 3, 4, 5, 6, 7]; 3]);
    let (trained, kept) = (experts([&[0, 1, 2, 7]; 3]), experts([&[6, 5, 4, 3]; 3]));
    let classic = losses(&Routing::Classic);
    assert_eq!(losses(&Routing::Masked { experts: all() }), classic);
    assert_eq!(
        losses(&Routing::FrozenKept {
            trained: trained.clone(),
            kept: kept.clone()
        }),
        classic
    );
    assert_eq!(losses(&Routing::Fallback { trained, kept }), classic);
}

/// What should happen: an expert that may not be chosen has no influence at all, not even a broken one.
#[test]
fn experts_that_may_not_be_chosen_change_nothing() {
    let mut model = Model::random(&config(), 3);
    let storage = sequences();
    let losses = |model: &Model, routing: &Routing| {
        let losses = model.sequence_losses(&slices(&storage), routing);
        losses.expect("sequences of the model")
    };
    let before = routings().map(|routing| losses(&model, &routing));
    for (layer, expert) in [(1, 4), (2, 0), (3, 6)] {
        for name in expert_parameter_names(config().family, layer, expert) {
            let values = model.tensor(&name).expect("the whole model").values;
            model
                .set_tensor(&name, &vec![f32::NAN; values.len()])
                .expect("the same shape");
        }
    }
    assert_eq!(routings().map(|routing| losses(&model, &routing)), before);
    let classic = losses(&model, &Routing::Classic);
    assert!(
        classic.iter().any(|loss| loss.sum.is_nan()),
        "the classic model does visit them"
    );
}

#[test]
fn what_is_not_in_memory_is_neither_routed_to_nor_trained() {
    let model = model(slice(), MemoryPlan::default());
    let refused = |routing: &Routing| {
        let error = model
            .sequence_losses(&[&[1, 2]], routing)
            .expect_err("not in memory");
        error.to_string()
    };
    assert_eq!(
        refused(&Routing::Classic),
        "classic routing needs every expert, expert 1 of layer 1 is not in memory"
    );
    let beyond = || experts([&[0], &[2, 3], &[7]]);
    let absent = "expert 3 of layer 2 is listed but is not in memory";
    assert_eq!(refused(&Routing::Masked { experts: beyond() }), absent);
    let (trained, kept) = (experts([&[0], &[2], &[7]]), experts([&[3], &[3], &[]]));
    assert_eq!(
        refused(&Routing::FrozenKept {
            trained: trained.clone(),
            kept: kept.clone()
        }),
        absent
    );
    assert_eq!(refused(&Routing::Fallback { trained, kept }), absent);

    let set = TrainableSet::experts(beyond());
    let (adamw, plan) = (AdamW::default(), MemoryPlan::default());
    let refused =
        Trainer::new(&model, set, &routings()[0], adamw, plan).expect_err("not in memory");
    assert_eq!(
        refused.to_string(),
        "expert 3 of layer 2 is listed but is not in memory"
    );
}

/// A trainer remembers moments parameter by parameter and routes that it has checked. What should not
/// happen: that it steps a model of the same architecture of which it knows neither.
#[test]
fn a_trainer_refuses_a_model_that_holds_something_else() {
    let plan = MemoryPlan::default();
    let slice = model(slice(), plan);
    let before = tensors(&slice);
    let mut trainer = trainer(&slice, &routings()[0], plan);
    let other_slice = Residency::Slice(experts([&[0], &[2], &[7]]));
    let int8 = MemoryPlan {
        trained: Element::Int8,
        ..plan
    };
    for mut other in [
        model(Residency::Whole, plan),
        model(other_slice, plan),
        model(self::slice(), int8),
    ] {
        let refused = trainer.step(&mut other, &[&[1, 2, 3]], 1e-3);
        assert!(matches!(refused, Err(EngineError::AnotherModel)));
    }
    let mut own = model(self::slice(), plan);
    trainer
        .step(&mut own, &[&[1, 2, 3]], 1e-3)
        .expect("another one of the same kind");
    assert_ne!(tensors(&own), before);
}

/// Merged experts come in one matrix at a time. What should happen: the loss is that of a model built
/// with them. What should not: a bit of anything else changes.
#[test]
fn new_values_of_one_expert_change_only_it() {
    let mut model = Model::random(&config(), 5);
    let (before, other) = (tensors(&model), tensors(&Model::random(&config(), 6)));
    let merged = expert_parameter_names(config().family, 2, 3);
    let mut expected = before.clone();
    for name in &merged {
        model
            .set_tensor(name, &other[name].values)
            .expect("the same shape");
        expected.insert(name.clone(), other[name].clone());
    }
    assert_eq!(tensors(&model), expected);

    let built = Model::from_tensors(&config(), &expected).expect("a whole model");
    let storage = sequences();
    let losses = |model: &Model| {
        let losses = model.sequence_losses(&slices(&storage), &Routing::Classic);
        losses.expect("sequences of the model")
    };
    assert_eq!(losses(&model), losses(&built));
    assert_ne!(
        losses(&model),
        losses(&Model::random(&config(), 5)),
        "the expert is visited"
    );
}

#[test]
fn values_that_do_not_fit_are_refused_and_change_nothing() {
    let mut model = model(slice(), MemoryPlan::default());
    let before = tensors(&model);
    let [absent, ..] = expert_parameter_names(config().family, 1, 4);
    let refused = model
        .set_tensor(&absent, &[0.0; 64 * 128])
        .expect_err("not in memory");
    assert_eq!(refused.to_string(), format!("tensor {absent} is missing"));
    let [present, ..] = expert_parameter_names(config().family, 1, 5);
    let refused = model
        .set_tensor(&present, &[0.0; 5])
        .expect_err("too few values");
    assert_eq!(
        refused.to_string(),
        format!("tensor {present} should have shape [64, 128], found [5]")
    );
    assert_eq!(tensors(&model), before);
}
