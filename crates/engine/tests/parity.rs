//! The same model in `transformers`: recorded logits, loss and expert gradients.
//!
//! The fixture is made by `tools/transformers_fixture.py`; the versions that made it are in the metadata
//! of `expected.safetensors`. Both sides compute in f32 in different orders of summation, over three
//! layers of widths up to 48: rounding alone gives about 1e-6 of the largest logit.

use std::collections::BTreeMap;
use std::path::PathBuf;

use connito_engine::{Model, Routing, TrainableSet, gradients};
use safetensors::SafeTensors;

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/deepseek_v2_tiny")
}

struct Expected {
    sequences: Vec<Vec<u32>>,
    tensors: BTreeMap<String, Vec<f32>>,
}

fn expected() -> Expected {
    let bytes = std::fs::read(fixture().join("expected.safetensors")).expect("the recorded file");
    let file = SafeTensors::deserialize(&bytes).expect("whole");
    let ids = file.tensor("ids").expect("recorded ids");
    let (ids, length) = (ids.data().as_chunks::<8>().0, ids.shape()[1]);
    let sequences = ids
        .chunks(length)
        .map(|row| {
            row.iter()
                .map(|id| i64::from_le_bytes(*id) as u32)
                .collect()
        })
        .collect();
    let floats = |data: &[u8]| {
        data.as_chunks::<4>()
            .0
            .iter()
            .map(|value| f32::from_le_bytes(*value))
            .collect()
    };
    let tensors = file
        .iter()
        .filter(|(name, _)| *name != "ids")
        .map(|(name, view)| (name.to_owned(), floats(view.data())))
        .collect();
    Expected { sequences, tensors }
}

#[test]
fn logits_agree_with_transformers() {
    let model = Model::load(&fixture()).unwrap();
    let Expected { sequences, tensors } = expected();
    let mut found = Vec::new();
    for sequence in &sequences {
        found.extend(model.logits(sequence).unwrap().values);
    }
    let expected = &tensors["logits"];
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() < 1e-4,
            "logit {index}: {found} instead of {expected}"
        );
    }
}

#[test]
fn the_loss_agrees_with_transformers() {
    let model = Model::load(&fixture()).unwrap();
    let Expected { sequences, tensors } = expected();
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let losses = model
        .sequence_losses(&sequences, 1, &Routing::Classic)
        .unwrap();
    let tokens: usize = losses.iter().map(|loss| loss.tokens).sum();
    let mean = losses.iter().map(|loss| loss.sum).sum::<f64>() / tokens as f64;
    let expected = f64::from(tensors["loss"][0]);
    assert!(
        (mean - expected).abs() < 1e-5,
        "{mean} instead of {expected}"
    );
}

/// All experts of all layers, so the lower layer's pass through the upper layer's router weights too.
#[test]
fn expert_gradients_agree_with_transformers() {
    let model = Model::load(&fixture()).unwrap();
    let Expected { sequences, tensors } = expected();
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let config = model.config();
    let experts = config
        .moe_layers()
        .map(|layer| (layer, (0..config.n_routed_experts).collect()));
    let trainable = TrainableSet::Experts(experts.collect());
    let (_, found) = gradients(&model, &trainable, &Routing::Classic, &sequences).unwrap();

    let expected: BTreeMap<&str, &Vec<f32>> = tensors
        .iter()
        .filter_map(|(name, values)| Some((name.strip_prefix("gradient.")?, values)))
        .collect();
    assert!(
        found.keys().eq(expected.keys()),
        "the same parameters have gradients"
    );
    for (name, gradient) in &found {
        let expected = expected[name.as_str()];
        let difference = norm(gradient.values.iter().zip(expected).map(|(a, b)| a - b));
        let size = norm(expected.iter().copied());
        assert!(
            size > 1e-4,
            "{name} should be trained by the fixture's tokens"
        );
        assert!(
            difference < 1e-3 * size,
            "{name}: off by {difference} of {size}"
        );
    }
}

fn norm(values: impl Iterator<Item = f32>) -> f32 {
    values.map(|value| value * value).sum::<f32>().sqrt()
}
