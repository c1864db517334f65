//! The same models in `transformers`: recorded logits, loss and expert gradients of every family and gate.
//!
//! The fixtures are made by `tools/transformers_fixtures.py`; the versions that made them are in the metadata
//! of each `expected.safetensors`. Both sides compute in f32 in different orders of summation, over two or
//! three layers of small widths: rounding alone gives about 1e-6 of the largest logit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use connito_engine::checkpoint::Checkpoint;
use connito_engine::device::Cpu;
use connito_engine::{Holding, Model, Routing, TrainableSet, gradients};
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

struct Expected {
    sequences: Vec<Vec<u32>>,
    tensors: BTreeMap<String, Vec<f32>>,
}

fn expected(folder: &Path) -> Expected {
    let bytes = std::fs::read(folder.join("expected.safetensors")).expect("the recorded file");
    let file = SafeTensors::deserialize(&bytes).expect("whole");
    let ids = file.tensor("ids").expect("recorded ids");
    let (ids, length) = (ids.data().as_chunks::<8>().0, ids.shape()[1]);
    let number = |id: &[u8; 8]| u32::try_from(i64::from_le_bytes(*id)).expect("an id");
    let sequences = ids
        .chunks(length)
        .map(|row| row.iter().map(number).collect());
    let floats = |data: &[u8]| {
        let values = data.as_chunks::<4>().0.iter();
        values.map(|value| f32::from_le_bytes(*value)).collect()
    };
    let tensors = file.iter().filter(|(name, _)| *name != "ids");
    Expected {
        sequences: sequences.collect(),
        tensors: tensors
            .map(|(name, view)| (name.to_owned(), floats(view.data())))
            .collect(),
    }
}

/// A folder's model on two threads.
fn load(checkpoint: &Checkpoint) -> Model {
    let cpu = Cpu::new(2).expect("two threads");
    Model::from_checkpoint(cpu, checkpoint, &Holding::whole()).expect("a model of ours")
}

fn open(folder: &Path) -> Checkpoint {
    Checkpoint::open(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}

#[test]
fn logits_agree_with_transformers() {
    for folder in fixtures() {
        let model = load(&open(&folder));
        let Expected { sequences, tensors } = expected(&folder);
        let mut found = Vec::new();
        for sequence in &sequences {
            let logits = model
                .logits(sequence, &Routing::Classic)
                .expect("ids of the model");
            found.extend(logits.values);
        }
        let expected = &tensors["logits"];
        assert_eq!(found.len(), expected.len(), "{}", folder.display());
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() < 1e-4,
                "{}: logit {index} is {found}, not {expected}",
                folder.display()
            );
        }
    }
}

#[test]
fn losses_agree_with_transformers() {
    for folder in fixtures() {
        let model = load(&open(&folder));
        let Expected { sequences, tensors } = expected(&folder);
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let losses = model
            .sequence_losses(&sequences, &Routing::Classic)
            .expect("ids of the model");
        let tokens: usize = losses.iter().map(|loss| loss.tokens).sum();
        let mean = losses.iter().map(|loss| loss.sum).sum::<f64>() / tokens as f64;
        let expected = f64::from(tensors["loss"][0]);
        assert!(
            (mean - expected).abs() < 1e-5,
            "{}: the loss is {mean}, not {expected}",
            folder.display()
        );
    }
}

/// All experts of all layers, so the lower layers' pass through the upper layers' router weights too.
/// Gradients are compared under the names, shapes and orientations of the stored tensors.
#[test]
fn expert_gradients_agree_with_transformers() {
    for folder in fixtures() {
        let checkpoint = open(&folder);
        let model = load(&checkpoint);
        let Expected { sequences, tensors } = expected(&folder);
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let config = model.config();
        let experts = config
            .moe_layers()
            .map(|layer| (layer, (0..config.mixture.experts).collect()));
        let trainable = TrainableSet::experts(experts.collect());
        let (_, found) =
            gradients(&model, &trainable, &Routing::Classic, &sequences).expect("experts");
        let found = checkpoint
            .as_stored(&found)
            .expect("parameters of the folder");

        let expected: BTreeMap<&str, &Vec<f32>> = tensors
            .iter()
            .filter_map(|(name, values)| Some((name.strip_prefix("gradient.")?, values)))
            .collect();
        assert!(
            found.keys().eq(expected.keys()),
            "{}: the same tensors have gradients",
            folder.display()
        );
        for (name, gradient) in &found {
            compare(
                &format!("{}: {name}", folder.display()),
                &gradient.values,
                expected[name.as_str()],
            );
        }
    }
}

fn compare(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let difference = norm(found.iter().zip(expected).map(|(a, b)| a - b));
    let size = norm(expected.iter().copied());
    assert!(
        size > 1e-5,
        "{name} should be trained by the fixture's tokens"
    );
    assert!(
        difference < 1e-3 * size,
        "{name}: off by {difference} of {size}"
    );
}

fn norm(values: impl Iterator<Item = f32>) -> f32 {
    values.map(|value| value * value).sum::<f32>().sqrt()
}
