//! Losses that depend on nothing but the sequence, and steps that change what they should.

use std::collections::BTreeMap;

use connito_engine::device::Cpu;
use connito_engine::{
    AdamW, EngineError, Holding, MemoryPlan, Model, ModelConfig, Routing, SequenceLoss, Tensor,
    TrainableSet, Trainer, gradients, parse_expert_name,
};

const VOCABULARY: usize = 64;

/// The same model on any number of threads.
fn model_on(threads: usize) -> Model {
    let cpu = Cpu::new(threads).expect("a few threads");
    Model::random_on(cpu, &ModelConfig::tiny(VOCABULARY), &Holding::whole(), 5)
}

/// Lengths on both sides of blocks of 32, 42 and 64 positions, more tokens than one pass takes.
fn sequences() -> Vec<Vec<u32>> {
    (0..24u32)
        .map(|index| {
            let length = [2, 43, 64, 65, 128, 170][index as usize % 6];
            (0..length)
                .map(|position| (position * position + index * 3) % VOCABULARY as u32)
                .collect()
        })
        .collect()
}

fn slices(sequences: &[Vec<u32>]) -> Vec<&[u32]> {
    sequences.iter().map(Vec::as_slice).collect()
}

fn losses(model: &Model, sequences: &[&[u32]]) -> Vec<SequenceLoss> {
    let losses = model.sequence_losses(sequences, &Routing::Classic);
    losses.expect("sequences of the model")
}

fn values(model: &Model, name: &str) -> Vec<f32> {
    model.tensor(name).expect("a name of the model").values
}

/// Every parameter by name.
fn tensors(model: &Model) -> BTreeMap<String, Tensor> {
    let named = model
        .names()
        .map(|name| (name.to_owned(), model.tensor(name).expect("its own name")));
    named.collect()
}

/// A trainer of the whole model along the natural routes.
fn trainer(model: &Model, trainable: TrainableSet) -> Trainer {
    let (adamw, plan) = (AdamW::default(), MemoryPlan::default());
    Trainer::new(model, trainable, &Routing::Classic, adamw, plan).expect("a usable plan")
}

/// Validators evaluate with different numbers of cores and have to agree to the bit.
#[test]
fn losses_do_not_depend_on_threads_nor_on_the_batch() {
    let (model, storage) = (model_on(1), sequences());
    let sequences = slices(&storage);
    let together = losses(&model, &sequences);
    for threads in [0, 2, 3] {
        assert_eq!(
            losses(&model_on(threads), &sequences),
            together,
            "{threads} threads"
        );
    }
    let mut backwards = sequences.clone();
    backwards.reverse();
    let mut reversed = losses(&model, &backwards);
    reversed.reverse();
    assert_eq!(reversed, together, "order does not matter");
    for (sequence, loss) in sequences.iter().zip(&together) {
        assert_eq!(
            losses(&model, &[sequence]),
            [*loss],
            "{} tokens alone",
            sequence.len()
        );
        assert_eq!(loss.tokens, sequence.len() - 1);
    }
}

/// Memory is given out again with what it last held. What should not happen: that a result depends on it.
#[test]
fn what_was_computed_before_does_not_matter() {
    let (mut used, storage) = (model_on(2), sequences());
    let sequences = slices(&storage);
    let set = || TrainableSet::Everything;
    let (_, before) = gradients(&used, &set(), &Routing::Classic, &sequences[..3]).unwrap();
    let first = losses(&used, &sequences);

    let name = "model.norm.weight";
    let sound = values(&used, name);
    used.set_tensor(name, &vec![f32::NAN; sound.len()]).unwrap();
    assert!(losses(&used, &sequences)[0].sum.is_nan());
    gradients(&used, &set(), &Routing::Classic, &sequences).unwrap();
    used.set_tensor(name, &sound).unwrap();

    assert_eq!(losses(&used, &sequences), first);
    let (_, after) = gradients(&used, &set(), &Routing::Classic, &sequences[..3]).unwrap();
    assert_eq!(after, before);
}

/// Position t sees nothing after t: a prefix has the logits that it has in the whole, up to rounding.
#[test]
fn a_token_does_not_see_its_future() {
    let model = model_on(1);
    let ids: Vec<u32> = (0..100)
        .map(|position| position * 7 % VOCABULARY as u32)
        .collect();
    let whole = model.logits(&ids, &Routing::Classic).unwrap();
    assert_eq!(whole.shape, [100, VOCABULARY]);
    for length in [1, 32, 42, 43, 65] {
        let prefix = model.logits(&ids[..length], &Routing::Classic).unwrap();
        assert_eq!(prefix.shape, [length, VOCABULARY]);
        for (prefix, whole) in prefix.values.iter().zip(&whole.values) {
            assert!((prefix - whole).abs() < 1e-5);
        }
    }
}

/// Two ways to one number: the loss is the cross-entropy of the logits.
#[test]
fn losses_follow_from_logits() {
    let (model, storage) = (model_on(2), sequences());
    let ids = &storage[4];
    let logits = model.logits(ids, &Routing::Classic).unwrap();
    let rows = logits.values.chunks_exact(VOCABULARY).zip(&ids[1..]);
    let expected: f64 = rows
        .map(|(row, &target)| {
            let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
            sum.ln() - f64::from(row[target as usize])
        })
        .sum();
    let found = losses(&model, &[ids])[0].sum;
    assert!((found - expected).abs() < 1e-4, "{found}, not {expected}");
}

#[test]
fn an_untrained_model_is_about_as_good_as_guessing() {
    let storage = sequences();
    let losses = losses(&model_on(2), &slices(&storage));
    let tokens: usize = losses.iter().map(|loss| loss.tokens).sum();
    let mean = losses.iter().map(|loss| loss.sum).sum::<f64>() / tokens as f64;
    assert!(
        (mean - (VOCABULARY as f64).ln()).abs() < 0.1,
        "mean loss {mean}"
    );
}

/// What should happen: a few steps on one batch lower its loss clearly. Twelve steps at this rate halve it
/// when everything is trained.
#[test]
fn a_few_steps_on_everything_lower_the_loss() {
    let mut model = model_on(2);
    let storage = sequences();
    let sequences = slices(&storage);
    let mut trainer = trainer(&model, TrainableSet::Everything);
    let mut losses = Vec::new();
    for _ in 0..12 {
        let report = trainer.step(&mut model, &sequences, 1e-2).unwrap();
        assert!(report.gradient_norm > 0.0);
        losses.push(report.loss);
    }
    assert!(losses[11] < 0.7 * losses[0], "{losses:?}");
}

/// What should happen: the listed experts learn. What should not: anything else changes by a bit.
#[test]
fn masked_expert_training_lowers_the_loss_and_touches_nothing_else() {
    let mut model = model_on(2);
    let before = tensors(&model);
    let storage = sequences();
    let sequences = slices(&storage);
    let experts: BTreeMap<usize, Vec<usize>> = (1..4).map(|layer| (layer, vec![1, 2, 6])).collect();
    let routing = Routing::Masked {
        experts: experts.clone(),
    };
    let trainable = TrainableSet::experts(experts.clone());
    let (adamw, plan) = (AdamW::default(), MemoryPlan::default());
    let mut trainer = Trainer::new(&model, trainable, &routing, adamw, plan).unwrap();
    let first = trainer.step(&mut model, &sequences, 3e-3).unwrap().loss;
    for _ in 0..10 {
        trainer.step(&mut model, &sequences, 3e-3).unwrap();
    }
    let last = trainer.step(&mut model, &sequences, 3e-3).unwrap().loss;
    assert!(last < first - 0.05, "from {first} to {last}");

    for (name, tensor) in tensors(&model) {
        let trained = parse_expert_name(&name)
            .is_some_and(|(layer, expert)| experts[&layer].contains(&expert));
        assert_eq!(before[&name] != tensor, trained, "{name}");
    }
}

/// What should happen: shared experts, routers and the listed experts change. What should not: attention,
/// norms, embedding, head, the dense layer and all other experts.
#[test]
fn a_mixture_is_trained_in_its_parts_and_nothing_else_changes() {
    let mut model = model_on(2);
    let before = tensors(&model);
    let storage = sequences();
    let trainable = TrainableSet::Mixture {
        experts: BTreeMap::from([(2, vec![0])]),
        shared: true,
        routers: true,
    };
    let mut trainer = trainer(&model, trainable);
    trainer.step(&mut model, &slices(&storage), 1e-3).unwrap();
    for (name, tensor) in tensors(&model) {
        let trained = parse_expert_name(&name) == Some((2, 0))
            || name.contains(".mlp.shared_experts.")
            || name.ends_with(".mlp.gate.weight");
        assert_eq!(before[&name] != tensor, trained, "{name}");
    }
}

/// One step of each kind of number, by hand: with zero memory AdamW's first direction is the gradient's
/// sign, whatever its size, so a parameter moves by the learning rate plus its decay.
#[test]
fn the_first_step_moves_by_the_learning_rate_and_the_decay() {
    let (mut model, before) = (model_on(1), model_on(1));
    let storage = sequences();
    let adamw = AdamW {
        weight_decay: 0.5,
        epsilon: 0.0,
        ..AdamW::default()
    };
    let (set, plan) = (TrainableSet::Everything, MemoryPlan::default());
    let mut trainer = Trainer::new(&model, set, &Routing::Classic, adamw, plan).unwrap();
    let rate = 1e-3;
    trainer.step(&mut model, &slices(&storage), rate).unwrap();
    for (name, decay) in [("lm_head.weight", 0.5), ("model.norm.weight", 0.0)] {
        for (old, new) in values(&before, name).iter().zip(values(&model, name)) {
            let sign_step = new - old + rate * decay * old;
            assert!(
                (sign_step.abs() - rate).abs() < 1e-6,
                "{name}: {old} became {new}"
            );
        }
    }
}

/// A poisoned model gives an error, not a poisoned optimiser: once it is mended, training goes on as if
/// nothing had been tried.
#[test]
fn a_step_that_is_not_finite_is_refused_and_changes_nothing() {
    let (mut model, storage) = (model_on(2), sequences());
    let sequences = slices(&storage);
    let name = "model.layers.2.mlp.experts.0.up_proj.weight";
    let sound = values(&model, name);
    model
        .set_tensor(name, &vec![f32::NAN; sound.len()])
        .unwrap();
    assert!(
        losses(&model, &sequences)
            .iter()
            .any(|loss| loss.sum.is_nan()),
        "NaN is seen, not swallowed"
    );

    let mut trained = trainer(&model, TrainableSet::Everything);
    let error = trained.step(&mut model, &sequences, 1e-3).unwrap_err();
    assert!(matches!(error, EngineError::NotFinite { step: 1 }));
    model.set_tensor(name, &sound).unwrap();
    assert_eq!(tensors(&model), tensors(&model_on(2)));

    let mut untroubled = model_on(2);
    let mut other = trainer(&untroubled, TrainableSet::Everything);
    let after = trained.step(&mut model, &sequences, 1e-3).unwrap();
    assert_eq!(
        after,
        other.step(&mut untroubled, &sequences, 1e-3).unwrap()
    );
    assert_eq!(tensors(&model), tensors(&untroubled));
}

/// What should happen: reports and all parameters are the same bits.
#[test]
fn training_is_the_same_on_any_number_of_threads() {
    let storage = sequences();
    let run = |threads| {
        let mut model = model_on(threads);
        let mut trainer = trainer(&model, TrainableSet::Everything);
        let mut step = |_| trainer.step(&mut model, &slices(&storage), 1e-3).unwrap();
        let reports: Vec<_> = (0..2).map(&mut step).collect();
        (reports, tensors(&model))
    };
    let alone = run(1);
    for threads in [2, 3] {
        let shared = run(threads);
        assert_eq!(shared.0, alone.0, "{threads} threads");
        for (name, tensor) in &alone.1 {
            assert_eq!(shared.1[name], *tensor, "{name} on {threads} threads");
        }
    }
}

#[test]
fn a_trainer_refuses_a_model_that_it_was_not_made_for() {
    let mut other = Model::random(&ModelConfig::tiny(VOCABULARY + 1), 5);
    let mut trainer = trainer(&model_on(1), TrainableSet::Everything);
    let error = trainer.step(&mut other, &[&[1, 2]], 1e-3).unwrap_err();
    assert!(matches!(error, EngineError::AnotherModel));
}

#[test]
fn unusable_sequences_and_sets_are_refused_by_name() {
    let model = model_on(1);
    let refused = |sequences: &[&[u32]]| {
        let error = model
            .sequence_losses(sequences, &Routing::Classic)
            .unwrap_err();
        error.to_string()
    };
    assert_eq!(refused(&[]), "no sequences were given");
    assert_eq!(
        refused(&[&[1, 2], &[3]]),
        "sequence 1 has 1 tokens, the model takes 2 to 256"
    );
    assert_eq!(
        refused(&[&[0; 257]]),
        "sequence 0 has 257 tokens, the model takes 2 to 256"
    );
    assert_eq!(
        refused(&[&[1, 64]]),
        "sequence 0 holds token id 64, the vocabulary has 64"
    );

    let refused = |experts: BTreeMap<usize, Vec<usize>>| {
        let (adamw, plan) = (AdamW::default(), MemoryPlan::default());
        let set = TrainableSet::experts(experts);
        let error = Trainer::new(&model, set, &Routing::Classic, adamw, plan).unwrap_err();
        error.to_string()
    };
    assert_eq!(
        refused(BTreeMap::from([(1, vec![])])),
        "no expert was named for training"
    );
    assert_eq!(
        refused(BTreeMap::from([(1, vec![8])])),
        "layer 1 has no routed expert 8"
    );
    assert_eq!(
        refused(BTreeMap::from([(0, vec![1])])),
        "layer 0 has no routed experts"
    );
}
