//! Hugging Face folders: what is written comes back, and what is broken is named.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs;
use std::path::Path;

use connito_engine::{EngineError, Model, ModelConfig, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

fn model() -> Model {
    Model::random(
        &ModelConfig {
            bos_token_id: Some(3),
            ..ModelConfig::tiny(32)
        },
        9,
    )
}

fn saved() -> (tempfile::TempDir, Model) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = model();
    model.save(folder.path()).expect("the model is written");
    (folder, model)
}

fn tensors(model: &Model) -> BTreeMap<String, Tensor> {
    model
        .tensors()
        .map(|(name, tensor)| (name.to_owned(), tensor.clone()))
        .collect()
}

/// Writes tensors as `kind`, each value encoded by `encode`.
fn write_as(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    kind: Dtype,
    encode: impl Fn(f32) -> Vec<u8>,
) {
    let bytes: BTreeMap<&String, Vec<u8>> = tensors
        .iter()
        .map(|(name, tensor)| {
            (
                name,
                tensor
                    .values
                    .iter()
                    .flat_map(|value| encode(*value))
                    .collect(),
            )
        })
        .collect();
    let views = tensors.iter().map(|(name, tensor)| {
        (
            name,
            TensorView::new(kind, tensor.shape.clone(), &bytes[name]).expect("whole tensors"),
        )
    });
    safetensors::serialize_to_file(views, None, path).expect("the file is written");
}

fn f32_bytes(value: f32) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

/// A whole message as the command line prints it: the error and its causes.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[test]
fn a_saved_model_comes_back_as_it_was() {
    let (folder, model) = saved();
    assert_eq!(Model::load(folder.path()).unwrap(), model);
    let mut files: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    files.sort();
    assert_eq!(
        files,
        ["config.json", "model.safetensors"],
        "no unfinished file is left behind"
    );
}

/// What `transformers` looks for before it believes that a file is PyTorch's.
#[test]
fn the_weights_file_says_that_it_is_in_pytorch_layout() {
    let (folder, _) = saved();
    let bytes = fs::read(folder.path().join("model.safetensors")).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    assert_eq!(metadata.metadata().as_ref(), Some(&format));
}

#[test]
fn shards_are_found_through_their_index() {
    let (folder, model) = saved();
    let all = tensors(&model);
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let mut map = BTreeMap::new();
    for shard in 0..3 {
        let file = format!("model-{:05}-of-00003.safetensors", shard + 1);
        let own = all
            .iter()
            .skip(shard)
            .step_by(3)
            .map(|(name, tensor)| (name.clone(), tensor.clone()));
        let own: BTreeMap<_, _> = own.collect();
        write_as(&folder.path().join(&file), &own, Dtype::F32, f32_bytes);
        map.extend(own.into_keys().map(|name| (name, file.clone())));
    }
    let index = folder.path().join("model.safetensors.index.json");
    fs::write(&index, serde_json::json!({ "weight_map": map }).to_string()).unwrap();
    assert_eq!(Model::load(folder.path()).unwrap(), model);

    fs::write(
        &index,
        r#"{"weight_map": {"lm_head.weight": "../elsewhere.safetensors"}}"#,
    )
    .unwrap();
    assert!(matches!(
        Model::load(folder.path()),
        Err(EngineError::IndexEntry { .. })
    ));
}

/// bf16 is the upper half of an f32; cutting the lower half off and reading back must give just that.
#[test]
fn sixteen_bit_weights_are_read_into_f32() {
    let (folder, model) = saved();
    let file = folder.path().join("model.safetensors");
    write_as(&file, &tensors(&model), Dtype::BF16, |value| {
        f32_bytes(value)[2..].to_vec()
    });
    let read = Model::load(folder.path()).unwrap();
    for ((name, read), (_, written)) in read.tensors().zip(model.tensors()) {
        for (read, written) in read.values.iter().zip(&written.values) {
            assert_eq!(read.to_bits(), written.to_bits() & 0xffff_0000, "{name}");
        }
    }

    let ones = tensors(&model);
    write_as(&file, &ones, Dtype::F16, |_| vec![0x00, 0x3c]);
    let read = Model::load(folder.path()).unwrap();
    assert!(
        read.tensors()
            .all(|(_, tensor)| tensor.values.iter().all(|value| *value == 1.0))
    );

    write_as(&file, &ones, Dtype::I32, f32_bytes);
    let error = Model::load(folder.path()).unwrap_err().to_string();
    assert_eq!(
        error,
        "tensor lm_head.weight is stored as I32, only f32, f16 and bf16 are read"
    );
}

/// Wherever a download broke off: in the length, in the header, between tensors, one byte before the end.
#[test]
fn a_truncated_weights_file_is_named() {
    let (folder, _) = saved();
    let file = folder.path().join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    for length in [0, 5, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&file, &bytes[..length]).unwrap();
        let error = Model::load(folder.path()).unwrap_err();
        let expected = format!("{} is not a complete safetensors file", file.display());
        assert_eq!(error.to_string(), expected, "cut to {length} bytes");
        assert!(error.source().is_some());
    }
    fs::remove_file(&file).unwrap();
    let error = Model::load(folder.path()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read {}", file.display()));
}

#[test]
fn a_tensor_that_is_missing_misshapen_or_foreign_is_named() {
    let (folder, model) = saved();
    let refused = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut tensors = tensors(&model);
        change(&mut tensors);
        write_as(
            &folder.path().join("model.safetensors"),
            &tensors,
            Dtype::F32,
            f32_bytes,
        );
        Model::load(folder.path()).unwrap_err().to_string()
    };
    let name = "model.layers.3.mlp.experts.7.down_proj.weight";
    let missing = refused(&|tensors| {
        tensors.remove(name);
    });
    assert_eq!(missing, format!("tensor {name} is missing"));
    let misshapen = refused(&|tensors| {
        tensors.insert(name.into(), Tensor::zeros(&[64, 128]));
    });
    assert_eq!(
        misshapen,
        format!("tensor {name} should have shape [128, 64], found [64, 128]")
    );
    let foreign = refused(&|tensors| {
        tensors.insert(
            "model.layers.4.input_layernorm.weight".into(),
            Tensor::zeros(&[128]),
        );
    });
    let expected =
        "tensor model.layers.4.input_layernorm.weight does not belong to the configured model";
    assert_eq!(foreign, expected);
}

#[test]
fn values_that_do_not_fill_a_tensor_are_refused() {
    let mut model = model();
    let error = model
        .set_tensor("model.norm.weight", &[1.0; 127])
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "tensor model.norm.weight should have shape [128], found [127]"
    );
    let error = model
        .set_tensor("model.norm.bias", &[1.0; 128])
        .unwrap_err()
        .to_string();
    assert_eq!(error, "tensor model.norm.bias is missing");

    let mut tensors = tensors(&model);
    tensors.get_mut("model.norm.weight").unwrap().values.pop();
    let error = Model::from_tensors(model.config(), tensors)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "tensor model.norm.weight should have shape [128], found [127]"
    );
}

#[test]
fn a_broken_configuration_file_is_named_with_its_key() {
    let (folder, _) = saved();
    let file = folder.path().join("config.json");
    fs::write(&file, r#"{"model_type": "mixtral"}"#).unwrap();
    let error = Model::load(folder.path()).unwrap_err();
    let expected = format!(
        "unusable configuration {}: model_type is \"mixtral\", only \"deepseek_v2\" is supported",
        file.display()
    );
    assert_eq!(chain(&error), expected);
}
