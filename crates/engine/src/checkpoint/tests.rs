//! What is stored in any layout comes back, and goes back where it was.
//!
//! Folders are written here by the safetensors crate and with layouts spelled out index by index, so
//! that reader and writer are not tested against themselves.

mod damage;
mod folders;
mod joined;
mod listing;
mod scaled;
mod sliced;
mod written;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

use super::*;
use crate::config::Family;
use crate::config::samples::small;
use crate::device::Rows;
use crate::names::{block, expert_parameter_names, prefix};

/// Row-major values; rows are as wide as the buffers that they are read into, which is all that writing
/// asks for.
impl Rows for [f32] {
    fn rows(&self) -> usize {
        1
    }

    fn width(&self) -> usize {
        self.len()
    }

    fn read_row(&self, row: usize, into: &mut [f32]) {
        let width = into.len();
        into.copy_from_slice(&self[row * width..][..width]);
    }
}

/// Tensors by name, each a shape and its values.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// How a folder stores its experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Experts {
    PerExpert,
    Fused,
    Transposed,
    Slot,
}

const LAYOUTS: [Experts; 4] = [
    Experts::PerExpert,
    Experts::Fused,
    Experts::Transposed,
    Experts::Slot,
];

/// What numbers are stored as, and by which bytes.
type Encoding = (Dtype, FileElement, fn(f32) -> Vec<u8>);

const ENCODINGS: [Encoding; 3] = [
    (Dtype::F32, FileElement::F32, |value| {
        value.to_le_bytes().to_vec()
    }),
    (Dtype::BF16, FileElement::Bf16, |value| {
        value.to_le_bytes()[2..].to_vec()
    }),
    (Dtype::F16, FileElement::F16, half),
];

/// For multiples of 1/64 below 2, as all of these tests store: the exponent and fraction of single
/// precision, shortened.
fn half(value: f32) -> Vec<u8> {
    let bits = value.to_bits();
    let magnitude = match value {
        0.0 => 0,
        _ => ((bits >> 13) & 0x3_ffff) - ((127 - 15) << 10),
    };
    let half = u16::try_from((bits >> 16) & 0x8000 | magnitude).expect("sixteen bits");
    half.to_le_bytes().to_vec()
}

fn everything(_: usize, _: usize) -> bool {
    true
}

/// Every parameter of a model by canonical name, with values that differ from place to place and are
/// exact in all types.
fn parameters(config: &ModelConfig) -> Tensors {
    let mut tensors = Tensors::new();
    let mut state = 1_u32;
    let mut leaf = |parameter: Parameter<'_>| {
        let count = parameter.shape.iter().product();
        let values = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (f32::from((state >> 24) as u8) - 128.0) / 128.0
        });
        let shape = parameter.shape.to_vec();
        tensors.insert(parameter.name, (shape, values.take(count).collect()));
        Ok::<_, std::convert::Infallible>(())
    };
    let Ok(_) = Parameters::build(config, &everything, &mut leaf);
    tensors
}

/// The same model as a checkpoint of this layout names and arranges it.
fn arranged(config: &ModelConfig, experts: Experts) -> Tensors {
    let mut tensors = parameters(config);
    if experts == Experts::PerExpert {
        return tensors;
    }
    for layer in config.moe_layers().collect::<Vec<_>>() {
        let at = format!(
            "{}layers.{layer}.{}.experts",
            prefix(config.family),
            block(config.family)
        );
        let networks = (0..config.mixture.experts).map(|expert| {
            expert_parameter_names(config.family, layer, expert)
                .map(|name| tensors.remove(&name).expect("an expert").1)
        });
        let networks: Vec<_> = networks.collect();
        for (name, tensor) in fuse(config, &networks, experts) {
            tensors.insert(format!("{at}.{name}"), tensor);
        }
    }
    tensors
}

/// One layer's experts, each gate, up and down, under their names after `experts.`.
fn fuse(config: &ModelConfig, networks: &[[Vec<f32>; 3]], experts: Experts) -> Tensors {
    let (hidden, width) = (config.hidden_size, config.mixture.width);
    let count = networks.len();
    let transpose = |values: &[f32], columns: usize| -> Vec<f32> {
        let rows = values.len() / columns;
        let places = (0..columns).flat_map(|column| (0..rows).map(move |row| (row, column)));
        places
            .map(|(row, column)| values[row * columns + column])
            .collect()
    };
    let mut gate_up = Vec::new();
    let mut down = Vec::new();
    for [gate, up, out] in networks {
        gate_up.push([&gate[..], up].concat());
        down.push(out.clone());
    }
    match experts {
        Experts::PerExpert => Tensors::new(),
        Experts::Fused => Tensors::from([
            (
                "gate_up_proj".into(),
                (vec![count, 2 * width, hidden], gate_up.concat()),
            ),
            (
                "down_proj".into(),
                (vec![count, hidden, width], down.concat()),
            ),
        ]),
        Experts::Transposed => {
            let gate_up = gate_up.iter().flat_map(|values| transpose(values, hidden));
            let down = down.iter().flat_map(|values| transpose(values, width));
            Tensors::from([
                (
                    "gate_up_proj".into(),
                    (vec![count, hidden, 2 * width], gate_up.collect()),
                ),
                (
                    "down_proj".into(),
                    (vec![count, width, hidden], down.collect()),
                ),
            ])
        }
        Experts::Slot => {
            let gate_up = gate_up.into_iter().enumerate().map(|(expert, values)| {
                (
                    format!("{expert}.gate_up_proj"),
                    (vec![2 * width, hidden], values),
                )
            });
            let down = down.into_iter().enumerate().map(|(expert, values)| {
                (format!("{expert}.down_proj"), (vec![hidden, width], values))
            });
            gate_up.chain(down).collect()
        }
    }
}

fn save_file(path: &Path, tensors: &Tensors, (dtype, _, encode): Encoding) {
    let bytes: BTreeMap<&str, Vec<u8>> = tensors
        .iter()
        .map(|(name, (_, values))| {
            (
                name.as_str(),
                values.iter().flat_map(|v| encode(*v)).collect(),
            )
        })
        .collect();
    let views = tensors.iter().map(|(name, (shape, _))| {
        let view = TensorView::new(dtype, shape.clone(), &bytes[name.as_str()]);
        (name, view.expect("whole tensors"))
    });
    safetensors::serialize_to_file(views, None, path).expect("the file is written");
}

/// A folder with a single file.
fn folder(config: &ModelConfig, tensors: &Tensors, encoding: Encoding) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join(CONFIG), config.to_json()).expect("the configuration is written");
    save_file(&folder.path().join("model.safetensors"), tensors, encoding);
    folder
}

/// A folder with several files, over which tensors are dealt by `file_of`.
fn sharded(config: &ModelConfig, tensors: &Tensors, file_of: impl Fn(&str) -> usize) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join(CONFIG), config.to_json()).expect("the configuration is written");
    let mut files: BTreeMap<String, Tensors> = BTreeMap::new();
    let mut map = BTreeMap::new();
    for (name, tensor) in tensors {
        let file = format!("model-{:05}.safetensors", file_of(name));
        files
            .entry(file.clone())
            .or_default()
            .insert(name.clone(), tensor.clone());
        map.insert(name, file);
    }
    for (file, tensors) in &files {
        save_file(&folder.path().join(file), tensors, ENCODINGS[1]);
    }
    let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
    let path = folder.path().join("model.safetensors.index.json");
    fs::write(path, index.to_string()).expect("the index is written");
    folder
}

fn open(folder: &TempDir) -> Checkpoint {
    Checkpoint::open(folder.path()).expect("a checkpoint")
}

fn all_values(rows: &StoredRows<'_>) -> Vec<f32> {
    let mut values = vec![f32::NAN; rows.rows() * rows.width()];
    for (row, into) in values.chunks_exact_mut(rows.width()).enumerate() {
        rows.read_row(row, into);
    }
    values
}

/// All parameters that a checkpoint has, as [`parameters`] lists them.
fn read_back(checkpoint: &Checkpoint) -> Tensors {
    let mut tensors = Tensors::new();
    let mut leaf = |parameter: Parameter<'_>| {
        let rows = checkpoint.parameter(&parameter.name)?;
        let tensor = (parameter.shape.to_vec(), all_values(&rows));
        tensors.insert(parameter.name, tensor);
        Ok::<_, CheckpointError>(())
    };
    Parameters::build(checkpoint.config(), &everything, &mut leaf).expect("all parameters");
    tensors
}

fn refusal<T>(result: Result<T, CheckpointError>) -> String {
    match result {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_layout_of_every_family_is_read_as_the_same_parameters() {
    for family in Family::ALL {
        let config = small(family);
        let expected = parameters(&config);
        for experts in LAYOUTS {
            for encoding in ENCODINGS {
                let folder = folder(&config, &arranged(&config, experts), encoding);
                let checkpoint = open(&folder);
                checkpoint.check(&everything).expect("a whole model");
                assert_eq!(checkpoint.config(), &config);
                assert!(
                    read_back(&checkpoint) == expected,
                    "{family:?} {experts:?} {:?}",
                    encoding.0
                );
                assert!(checkpoint.warnings().is_empty());
                for name in expected.keys() {
                    assert_eq!(checkpoint.element(name).unwrap(), encoding.1);
                }
            }
        }
    }
}

/// Reading many rows at once takes another way through a transposed matrix.
#[test]
fn rows_come_alike_one_by_one_and_together() {
    let config = small(Family::Qwen3VlMoe);
    for experts in LAYOUTS {
        let folder = folder(&config, &arranged(&config, experts), ENCODINGS[1]);
        let checkpoint = open(&folder);
        for name in expert_parameter_names(config.family, 2, 5) {
            let rows = checkpoint.parameter(&name).unwrap();
            let expected = all_values(&rows);
            for (first, count) in [(0, rows.rows()), (3, 1), (2, 7), (1, 0)] {
                let mut values = vec![f32::NAN; count * rows.width()];
                rows.read_rows(first, &mut values);
                assert_eq!(
                    values,
                    expected[first * rows.width()..][..values.len()],
                    "{name}"
                );
            }
        }
    }
}

/// Layers are loaded by several threads at once.
#[test]
fn a_checkpoint_and_its_rows_are_shared_between_threads() {
    fn shared<T: Sync + Send>() {}
    shared::<Checkpoint>();
    shared::<StoredRows<'_>>();
}

#[test]
fn shards_are_found_through_their_index() {
    for experts in LAYOUTS {
        let config = small(Family::DeepseekV3);
        let folder = sharded(&config, &arranged(&config, experts), |name| name.len() % 3);
        let checkpoint = open(&folder);
        checkpoint.check(&everything).unwrap();
        assert!(read_back(&checkpoint) == parameters(&config));
    }
}

/// What should happen: the slice opens and reads. What should not happen: a demand for the file that
/// holds nothing but other experts, until one of those is asked for.
#[test]
fn a_slice_opens_without_the_files_that_hold_only_other_experts() {
    let config = small(Family::DeepseekV2);
    let foreign = |name: &str| crate::names::parse_expert_name(name).is_some_and(|(_, e)| e >= 4);
    let folder = sharded(&config, &parameters(&config), |name| {
        usize::from(foreign(name))
    });
    fs::remove_file(folder.path().join("model-00001.safetensors")).unwrap();
    let checkpoint = open(&folder);
    checkpoint.check(&|_, expert| expert < 4).unwrap();
    let name = &expert_parameter_names(config.family, 1, 3)[1];
    assert_eq!(
        all_values(&checkpoint.parameter(name).unwrap()),
        parameters(&config)[name].1
    );
    let name = &expert_parameter_names(config.family, 1, 4)[0];
    let path = folder.path().join("model-00001.safetensors");
    let expected = format!("tensor {name} lies in {}, which is missing", path.display());
    assert_eq!(refusal(checkpoint.check(&|_, expert| expert < 5)), expected);
}

/// Experts that are not resident may be left out of a folder altogether.
#[test]
fn a_slice_needs_no_tensors_for_other_experts() {
    let config = small(Family::Qwen3Moe);
    let mut tensors = arranged(&config, Experts::Slot);
    tensors.retain(|name, _| !name.contains("experts.7."));
    let folder = folder(&config, &tensors, ENCODINGS[0]);
    let checkpoint = open(&folder);
    checkpoint.check(&|_, expert| expert < 7).unwrap();
    let expected = "tensor model.layers.1.mlp.experts.7.gate_proj.weight is missing";
    assert_eq!(refusal(checkpoint.check(&everything)), expected);
}

/// A head that is there is used whatever the flag says; without one, a tied model has no head of its own.
#[test]
fn a_stored_head_wins_over_the_flag() {
    let untied = small(Family::Qwen3Moe);
    let mut tied = untied.clone();
    tied.tied_head = true;
    let both = folder(&tied, &parameters(&untied), ENCODINGS[0]);
    assert_eq!(open(&both).config(), &untied);
    open(&both).check(&everything).unwrap();

    let none = folder(&tied, &parameters(&tied), ENCODINGS[0]);
    assert_eq!(open(&none).config(), &tied);
    open(&none).check(&everything).unwrap();

    let lost = folder(&untied, &parameters(&tied), ENCODINGS[0]);
    assert_eq!(
        refusal(open(&lost).check(&everything)),
        "tensor lm_head.weight is missing"
    );
}

/// In memory `transformers` names this block of Mixtral's as every other family's.
#[test]
fn mixtral_is_read_under_both_names_of_its_block() {
    let config = small(Family::Mixtral);
    for experts in LAYOUTS {
        let renamed: Tensors = arranged(&config, experts)
            .into_iter()
            .map(|(name, tensor)| (name.replace("block_sparse_moe", "mlp"), tensor))
            .collect();
        let folder = folder(&config, &renamed, ENCODINGS[0]);
        open(&folder).check(&everything).unwrap();
        assert!(read_back(&open(&folder)) == parameters(&config));
    }
}

/// Where both readings fit, `transformers` takes `[out, in]`; so do we, and say so.
#[test]
fn a_shape_that_fits_both_orientations_is_read_untransposed_with_a_warning() {
    let mut config = small(Family::Qwen3Moe);
    config.hidden_size = 2 * config.mixture.width;
    let folder = folder(&config, &arranged(&config, Experts::Fused), ENCODINGS[0]);
    let checkpoint = open(&folder);
    assert!(read_back(&checkpoint) == parameters(&config));
    let expected = "tensor model.layers.1.mlp.experts.gate_up_proj has a shape that fits both \
        orientations and is read as [out, in]";
    assert_eq!(checkpoint.warnings()[0], expected);
    assert_eq!(
        checkpoint.warnings().len(),
        2,
        "one per layer; down_proj has only one reading"
    );
}

/// Old files hold frequencies, DeepSeek-V3 one layer too many, vision models a tower.
#[test]
fn tensors_that_are_known_to_be_of_no_use_are_passed_over() {
    for (family, name) in [
        (
            Family::DeepseekV2,
            "model.layers.0.self_attn.rotary_emb.inv_freq",
        ),
        (
            Family::DeepseekV3,
            "model.layers.3.mlp.experts.0.gate_proj.weight",
        ),
        (Family::DeepseekV3, "model.layers.3.eh_proj.weight"),
        (Family::Qwen3VlMoe, "model.visual.blocks.0.attn.qkv.weight"),
    ] {
        let config = small(family);
        let mut tensors = parameters(&config);
        tensors.insert(name.into(), (vec![2], vec![1.0, 2.0]));
        open(&folder(&config, &tensors, ENCODINGS[0]))
            .check(&everything)
            .unwrap();
    }
}
