//! What `inspect` writes, against the engine asked directly.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use connito_engine::config::MixtureConfig;
use connito_engine::{
    Model, ModelConfig, Routing, Tensor, TrainableSet, expert_parameter_names, gradients,
};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

use super::connito;

const IDS: [[u32; 6]; 2] = [[1, 2, 3, 5, 8, 13], [21, 34, 15, 9, 4, 2]];

/// Trained and kept experts of the MoE layers 1 and 2.
fn trained() -> BTreeMap<usize, Vec<usize>> {
    [(1, vec![0, 5]), (2, vec![3])].into()
}

fn kept() -> BTreeMap<usize, Vec<usize>> {
    [(1, vec![2]), (2, vec![6, 7])].into()
}

fn config() -> ModelConfig {
    let tiny = ModelConfig::tiny(40);
    ModelConfig {
        hidden_size: 16,
        intermediate_size: 20,
        num_hidden_layers: 3,
        mixture: MixtureConfig {
            width: 12,
            shared_width: 24,
            ..tiny.mixture
        },
        ..tiny
    }
}

/// A folder with a model and the files that the command line names.
struct Ground {
    folder: TempDir,
    model: Model,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = Model::random(&config(), 3);
        model.save(&folder.path().join("model")).unwrap();
        let ground = Self { folder, model };
        for (name, json) in [
            ("ids.json", serde_json::to_string(&IDS)),
            ("experts.json", serde_json::to_string(&trained())),
            ("kept.json", serde_json::to_string(&kept())),
        ] {
            std::fs::write(ground.path(name), json.unwrap()).unwrap();
        }
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a command line that is split at spaces writes.
    fn inspected(&self, arguments: &str) -> BTreeMap<String, Tensor> {
        self.run(arguments);
        read(&self.path("out.safetensors"))
    }

    fn run(&self, arguments: &str) -> Output {
        let arguments = format!("inspect {arguments} --ids ids.json --out out.safetensors");
        let output = connito(arguments.split(' '))
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments}: {complaint}");
        output
    }

    /// What the engine says of the same.
    fn expected(&self, routing: &Routing) -> BTreeMap<String, Tensor> {
        let trainable = TrainableSet::experts(trained());
        let sequences = IDS.each_ref().map(|ids| ids.as_slice());
        let (loss, mut tensors) = gradients(&self.model, &trainable, routing, &sequences).unwrap();
        let loss = Tensor {
            shape: vec![1],
            values: vec![loss as f32],
        };
        tensors.insert("loss".to_owned(), loss);
        tensors
    }
}

fn read(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().map(|(name, view)| {
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        let values = view.data().chunks_exact(4);
        let values = values.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
        let tensor = Tensor {
            shape: view.shape().to_vec(),
            values: values.collect(),
        };
        (name.to_owned(), tensor)
    });
    tensors.collect()
}

fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) {
    let bytes: Vec<Vec<u8>> = tensors
        .values()
        .map(|tensor| tensor.values.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, tensor), bytes)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).unwrap();
        (name.clone(), view)
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

#[test]
fn logits_are_those_of_the_engine_sequence_by_sequence() {
    let ground = Ground::new();
    let of = |routing: &Routing| {
        let logits = IDS
            .iter()
            .flat_map(|ids| ground.model.logits(ids, routing).unwrap().values);
        Tensor {
            shape: vec![2, 6, 40],
            values: logits.collect(),
        }
    };
    let classic = ground.inspected("logits --model model");
    assert_eq!(
        classic,
        [("logits".to_owned(), of(&Routing::Classic))].into()
    );
    let masked = Routing::Masked { experts: trained() };
    let inspected =
        ground.inspected("logits --model model --routing masked --experts experts.json");
    assert_eq!(inspected["logits"], of(&masked));
    assert_ne!(inspected, classic, "the mask changes nothing");
}

/// What should happen: in every mode, gradients of the listed experts and of nothing else. What should
/// not: that it matters which other experts the command has read.
#[test]
fn gradients_of_every_routing_mode_are_those_of_the_engine() {
    let ground = Ground::new();
    let (trained, kept) = (trained(), kept());
    let modes = [
        ("classic", "", Routing::Classic),
        (
            "masked",
            "",
            Routing::Masked {
                experts: trained.clone(),
            },
        ),
        (
            "frozen-kept",
            " --kept kept.json",
            Routing::FrozenKept {
                trained: trained.clone(),
                kept: kept.clone(),
            },
        ),
        (
            "fallback",
            " --kept kept.json",
            Routing::Fallback { trained, kept },
        ),
    ];
    for (mode, more, routing) in modes {
        let inspected = ground.inspected(&format!(
            "grads --model model --experts experts.json --routing {mode}{more}"
        ));
        assert_eq!(inspected.len(), 3 * 3 + 1, "{mode}");
        assert_eq!(inspected, ground.expected(&routing), "{mode}");
    }
}

/// Gate and up columns side by side, expert after expert: the released Qwen3-VL layout.
fn fused(model: &BTreeMap<String, Tensor>, layer: usize) -> [(String, Tensor); 2] {
    let config = config();
    let (experts, hidden) = (config.mixture.experts, config.hidden_size);
    let width = config.mixture.width;
    let mut gate_up = Tensor::zeros(&[experts, hidden, 2 * width]);
    let mut down = Tensor::zeros(&[experts, width, hidden]);
    for expert in 0..experts {
        let [gate, up, out] = expert_parameter_names(config.family, layer, expert);
        for (column, name) in [(0, gate), (width, up)] {
            let Some(matrix) = model.get(&name) else {
                continue;
            };
            for (index, value) in matrix.values.iter().enumerate() {
                let (row, input) = (index / hidden, index % hidden);
                let at = (expert * hidden + input) * 2 * width + column + row;
                gate_up.values[at] = *value;
            }
        }
        for (index, value) in model
            .get(&out)
            .into_iter()
            .flat_map(|m| m.values.iter().enumerate())
        {
            let (row, input) = (index / width, index % width);
            down.values[(expert * width + input) * hidden + row] = *value;
        }
    }
    let name = |matrix| format!("model.layers.{layer}.mlp.experts.{matrix}");
    [(name("gate_up_proj"), gate_up), (name("down_proj"), down)]
}

/// What should happen: gradients in the shape and orientation of the checkpoint's own tensors, zero for
/// experts that were not asked for.
#[test]
fn gradients_of_a_fused_checkpoint_are_fused_alike() {
    let ground = Ground::new();
    let path = ground.path("model/model.safetensors");
    let stored = read(&path);
    let mut refused = stored.clone();
    refused.retain(|name, _| !name.contains(".experts."));
    for layer in [1, 2] {
        refused.extend(fused(&stored, layer));
    }
    write(&path, &refused);

    let inspected = ground.inspected("grads --model model --experts experts.json");
    let of_each = ground.expected(&Routing::Classic);
    let mut expected: BTreeMap<String, Tensor> = BTreeMap::new();
    for layer in [1, 2] {
        expected.extend(fused(&of_each, layer));
    }
    expected.insert("loss".to_owned(), of_each["loss"].clone());
    assert_eq!(inspected, expected);
}

/// What should happen: the file replaces an earlier one, others may read it, and nothing else is left.
#[test]
fn a_result_is_a_file_like_any_other_and_the_only_one() {
    let ground = Ground::new();
    let names = || {
        let entries = std::fs::read_dir(ground.folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    std::fs::write(ground.path("out.safetensors"), "an earlier result").unwrap();
    let before: BTreeSet<_> = names();
    assert!(
        ground
            .inspected("logits --model model")
            .contains_key("logits")
    );
    assert_eq!(before, names());
    let mode = |name: &str| {
        let metadata = std::fs::metadata(ground.path(name)).unwrap();
        metadata.permissions().mode()
    };
    assert_eq!(mode("out.safetensors"), mode("ids.json"));
}

/// What should happen: the result is written, for it is what was asked for, and one line says which
/// sequence or tensor is the first to blame.
#[test]
fn results_that_are_not_finite_are_written_with_a_warning() {
    let ground = Ground::new();
    let path = ground.path("model/model.safetensors");
    let mut stored = read(&path);
    // Only the second sequence has this id.
    let table = stored.get_mut("model.embed_tokens.weight").unwrap();
    table.values[21 * 16] = f32::NAN;
    write(&path, &stored);
    for (what, blamed) in [
        ("logits", "logits of sequence 1"),
        ("grads --experts experts.json", "tensor loss"),
    ] {
        let output = ground.run(&format!("{what} --model model"));
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains(blamed), "{told}");
        assert!(told.contains("out.safetensors"), "{told}");
        let name = what.split(' ').next().unwrap().replace("grads", "loss");
        let written = read(&ground.path("out.safetensors"));
        assert!(written[&name].values.iter().any(|value| value.is_nan()));
    }
}
