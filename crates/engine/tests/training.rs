//! Losses that depend on nothing but the sequence, and steps that change what they should.

use std::collections::BTreeMap;

use connito_engine::{
    AdamW, EngineError, Model, ModelConfig, Routing, TrainableSet, Trainer, parse_expert_name,
};

const VOCABULARY: usize = 64;

fn model() -> Model {
    Model::random(&ModelConfig::tiny(VOCABULARY), 5)
}

/// Lengths on both sides of the attention's block of 64, more tokens than one pass takes.
fn sequences() -> Vec<Vec<u32>> {
    (0..24u32)
        .map(|index| {
            let length = [2, 63, 64, 65, 128, 150][index as usize % 6];
            (0..length)
                .map(|position| (position * position + index * 3) % VOCABULARY as u32)
                .collect()
        })
        .collect()
}

fn slices(sequences: &[Vec<u32>]) -> Vec<&[u32]> {
    sequences.iter().map(Vec::as_slice).collect()
}

/// Validators evaluate with different numbers of cores and have to agree to the bit.
#[test]
fn losses_do_not_depend_on_threads_nor_on_the_batch() {
    let (model, storage) = (model(), sequences());
    let sequences = slices(&storage);
    let together = model
        .sequence_losses(&sequences, 1, &Routing::Classic)
        .unwrap();
    for threads in [0, 2, 3, 24, 99] {
        assert_eq!(
            model
                .sequence_losses(&sequences, threads, &Routing::Classic)
                .unwrap(),
            together
        );
    }
    for (sequence, loss) in sequences.iter().zip(&together) {
        let alone = model
            .sequence_losses(&[sequence], 1, &Routing::Classic)
            .unwrap();
        assert_eq!(alone, [*loss], "{} tokens", sequence.len());
        assert_eq!(loss.tokens, sequence.len() - 1);
    }
}

/// Position t sees nothing after t: a prefix has the logits that it has in the whole.
#[test]
fn a_token_does_not_see_its_future() {
    let model = model();
    let ids: Vec<u32> = (0..100)
        .map(|position| position * 7 % VOCABULARY as u32)
        .collect();
    let whole = model.logits(&ids).unwrap();
    assert_eq!(whole.shape, [100, VOCABULARY]);
    for length in [1, 40, 64, 65] {
        let prefix = model.logits(&ids[..length]).unwrap();
        for (prefix, whole) in prefix.values.iter().zip(&whole.values) {
            assert!((prefix - whole).abs() < 1e-5);
        }
    }
}

#[test]
fn an_untrained_model_is_about_as_good_as_guessing() {
    let storage = sequences();
    let losses = model()
        .sequence_losses(&slices(&storage), 2, &Routing::Classic)
        .unwrap();
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
    let mut model = model();
    let storage = sequences();
    let sequences = slices(&storage);
    let optimizer = AdamW::default();
    let mut trainer = Trainer::new(
        &model,
        TrainableSet::Everything,
        Routing::Classic,
        optimizer,
        2,
    )
    .unwrap();
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
    let mut model = model();
    let before = model.clone();
    let storage = sequences();
    let sequences = slices(&storage);
    let experts: BTreeMap<usize, Vec<usize>> = (1..4).map(|layer| (layer, vec![1, 2, 6])).collect();
    let routing = Routing::Masked {
        experts: experts.clone(),
    };
    let trainable = TrainableSet::Experts(experts.clone());
    let mut trainer = Trainer::new(&model, trainable, routing, AdamW::default(), 2).unwrap();
    let first = trainer.step(&mut model, &sequences, 3e-3).unwrap().loss;
    for _ in 0..10 {
        trainer.step(&mut model, &sequences, 3e-3).unwrap();
    }
    let last = trainer.step(&mut model, &sequences, 3e-3).unwrap().loss;
    assert!(last < first - 0.05, "from {first} to {last}");

    for (name, tensor) in model.tensors() {
        let trained = parse_expert_name(name)
            .is_some_and(|(layer, expert)| experts[&layer].contains(&expert));
        let changed = before.tensor(name) != Some(tensor);
        assert_eq!(changed, trained, "{name}");
    }
}

/// One step of each kind of number, by hand: with zero memory AdamW's first direction is the gradient's
/// sign, whatever its size, so a parameter moves by the learning rate plus its decay.
#[test]
fn the_first_step_moves_by_the_learning_rate_and_the_decay() {
    let mut model = model();
    let before = model.clone();
    let storage = sequences();
    let optimizer = AdamW {
        weight_decay: 0.5,
        epsilon: 0.0,
        ..AdamW::default()
    };
    let mut trainer = Trainer::new(
        &model,
        TrainableSet::Everything,
        Routing::Classic,
        optimizer,
        1,
    )
    .unwrap();
    let rate = 1e-3;
    trainer.step(&mut model, &slices(&storage), rate).unwrap();
    for (name, decay) in [("lm_head.weight", 0.5), ("model.norm.weight", 0.0)] {
        let (old, new) = (before.tensor(name).unwrap(), model.tensor(name).unwrap());
        for (old, new) in old.values.iter().zip(&new.values) {
            let sign_step = new - old + rate * decay * old;
            assert!(
                (sign_step.abs() - rate).abs() < 1e-6,
                "{name}: {old} became {new}"
            );
        }
    }
}

/// A poisoned model gives an error, not a poisoned optimiser.
#[test]
fn a_step_that_is_not_finite_is_refused_and_changes_nothing() {
    let mut model = model();
    let name = "model.layers.2.mlp.experts.0.up_proj.weight";
    let mut values = model.tensor(name).unwrap().values.clone();
    values.fill(f32::NAN);
    model.set_tensor(name, &values).unwrap();
    let storage = sequences();
    let losses = model
        .sequence_losses(&slices(&storage), 1, &Routing::Classic)
        .unwrap();
    assert!(
        losses.iter().any(|loss| loss.sum.is_nan()),
        "NaN is seen, not swallowed"
    );

    let head = model.tensor("lm_head.weight").unwrap().clone();
    let optimizer = AdamW::default();
    let mut trainer = Trainer::new(
        &model,
        TrainableSet::Everything,
        Routing::Classic,
        optimizer,
        1,
    )
    .unwrap();
    let error = trainer
        .step(&mut model, &slices(&storage), 1e-3)
        .unwrap_err();
    assert!(matches!(error, EngineError::NotFinite { step: 1 }));
    assert_eq!(model.tensor("lm_head.weight"), Some(&head));
}

/// What should happen: the gradient is the same up to the order of summation (f32, some thousand terms).
#[test]
fn a_step_is_the_same_on_any_number_of_threads_up_to_rounding() {
    let storage = sequences();
    let report = |threads| {
        let mut model = model();
        let set = TrainableSet::Everything;
        let mut trainer =
            Trainer::new(&model, set, Routing::Classic, AdamW::default(), threads).unwrap();
        trainer.step(&mut model, &slices(&storage), 1e-3).unwrap()
    };
    let alone = report(1);
    for threads in [2, 5] {
        let shared = report(threads);
        assert!((shared.loss - alone.loss).abs() < 1e-9);
        assert!((shared.gradient_norm - alone.gradient_norm).abs() < 1e-5 * alone.gradient_norm);
    }
}

#[test]
fn a_trainer_refuses_a_model_that_it_was_not_made_for() {
    let mut other = Model::random(&ModelConfig::tiny(VOCABULARY + 1), 5);
    let optimizer = AdamW::default();
    let mut trainer = Trainer::new(
        &model(),
        TrainableSet::Everything,
        Routing::Classic,
        optimizer,
        1,
    )
    .unwrap();
    let error = trainer.step(&mut other, &[&[1, 2]], 1e-3).unwrap_err();
    assert!(matches!(error, EngineError::AnotherModel));
}

#[test]
fn unusable_sequences_and_sets_are_refused_by_name() {
    let model = model();
    let refused = |sequences: &[&[u32]]| {
        model
            .sequence_losses(sequences, 1, &Routing::Classic)
            .unwrap_err()
            .to_string()
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
        let set = TrainableSet::Experts(experts);
        Trainer::new(&model, set, Routing::Classic, AdamW::default(), 1)
            .unwrap_err()
            .to_string()
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
