//! Folders that are written: what is replaced, what is copied, and what an interruption leaves.

use proptest::prelude::*;
use safetensors::SafeTensors;

use super::*;

fn replace_nothing(_: &str) -> Option<Box<dyn Rows>> {
    None
}

pub(super) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("a file"))
        })
        .collect()
}

#[test]
fn a_checkpoint_without_new_values_is_copied_byte_for_byte() {
    let config = small(Family::Qwen3VlMoe);
    let source = sharded(&config, &arranged(&config, Experts::Transposed), |name| {
        name.len() % 3
    });
    for companion in [
        "tokenizer.json",
        "LICENSE",
        "generation_config.json",
        "merges.txt",
    ] {
        fs::write(source.path().join(companion), companion).unwrap();
    }
    let expected = files(source.path());
    for stranger in [
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        ".hidden",
        "consolidated.pth",
    ] {
        fs::write(source.path().join(stranger), "old weights").unwrap();
    }
    fs::write(source.path().join("other.safetensors"), "not listed").unwrap();
    fs::create_dir(source.path().join("folder")).unwrap();
    let target = tempfile::tempdir().unwrap();
    let target = target.path().join("new/checkpoint");
    open(&source).write(&target, &replace_nothing).unwrap();
    assert_eq!(files(&target), expected);
}

/// Which parameters are replaced in a run of the property below, by a hash of their names.
fn is_replaced(name: &str, seed: u32) -> bool {
    let hash = name.bytes().fold(seed, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(16_777_619)
    });
    hash.is_multiple_of(3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// What should happen: every replaced parameter reads back as given. What should not happen: a change
    /// of any other one, of a table of tensors, or of the size of a file.
    #[test]
    fn new_values_go_where_the_old_ones_were(
        family in proptest::sample::select(Family::ALL.to_vec()),
        experts in proptest::sample::select(LAYOUTS.to_vec()),
        encoding in 0..3_usize,
        seed in any::<u32>(),
    ) {
        let config = small(family);
        let source = folder(&config, &arranged(&config, experts), ENCODINGS[encoding]);
        let mut expected = parameters(&config);
        for (name, (_, values)) in &mut expected {
            if is_replaced(name, seed) {
                values.iter_mut().for_each(|value| *value = 0.5 - *value / 2.0);
            }
        }
        // Halves of the stored numbers are exact in every type.
        let replace = |name: &str| -> Option<Box<dyn Rows + '_>> {
            is_replaced(name, seed).then(|| Box::new(&expected[name].1[..]) as _)
        };
        let target = tempfile::tempdir().expect("a temporary folder");
        open(&source).write(target.path(), &replace).expect("the checkpoint is written");
        prop_assert!(read_back(&open(&target)) == expected);
        let tables = [&source, &target].map(|folder| {
            let bytes = fs::read(folder.path().join("model.safetensors")).expect("the weights");
            let (length, _) = SafeTensors::read_metadata(&bytes).expect("a safetensors file");
            (bytes.len(), bytes[..length + 8].to_vec())
        });
        prop_assert_eq!(&tables[0], &tables[1]);
    }
}

/// Half way between two stored numbers the even one is taken, in every layout.
#[test]
fn new_values_are_rounded_to_the_stored_type() {
    let config = small(Family::Qwen3Moe);
    for experts in LAYOUTS {
        let source = folder(&config, &arranged(&config, experts), ENCODINGS[1]);
        let target = tempfile::tempdir().unwrap();
        let name = &expert_parameter_names(config.family, 1, 3)[1];
        let given: Vec<f32> = (0..12 * 16).map(|n| 1.0 + n as f32 / 256.0).collect();
        let replace = |asked: &str| -> Option<Box<dyn Rows + '_>> {
            (asked == name).then(|| Box::new(&given[..]) as _)
        };
        open(&source).write(target.path(), &replace).unwrap();
        let read = all_values(&open(&target).parameter(name).unwrap());
        assert_eq!(
            read[..4],
            [1.0, 1.0, 1.0 + 2.0 / 256.0, 1.0 + 4.0 / 256.0],
            "{experts:?}"
        );
    }
}

/// New values may come from another checkpoint, of another layout and type.
#[test]
fn rows_of_one_checkpoint_can_be_written_into_another() {
    let config = small(Family::Olmoe);
    let values = folder(
        &config,
        &arranged(&config, Experts::Transposed),
        ENCODINGS[2],
    );
    let zeros: Tensors = arranged(&config, Experts::Fused)
        .into_iter()
        .map(|(name, (shape, values))| (name, (shape, vec![0.0; values.len()])))
        .collect();
    let zeros = folder(&config, &zeros, ENCODINGS[0]);
    let values = open(&values);
    let replace =
        |name: &str| -> Option<Box<dyn Rows + '_>> { Some(Box::new(values.parameter(name).ok()?)) };
    let target = tempfile::tempdir().unwrap();
    open(&zeros).write(target.path(), &replace).unwrap();
    assert!(read_back(&open(&target)) == parameters(&config));
}

#[test]
fn a_folder_with_anything_in_it_is_not_written_to() {
    let config = small(Family::Olmoe);
    let source = folder(&config, &parameters(&config), ENCODINGS[0]);
    let expected = format!(
        "{} is not empty, a checkpoint is written to a folder of its own",
        source.path().display()
    );
    assert_eq!(
        refusal(open(&source).write(source.path(), &replace_nothing)),
        expected
    );
    open(&source).check(&everything).unwrap();
}

/// What should happen: an error about the missing file. What should not happen: half a checkpoint.
#[test]
fn a_slice_of_a_checkpoint_cannot_be_written_as_a_whole() {
    let config = small(Family::Olmoe);
    let source = sharded(&config, &parameters(&config), |name| name.len() % 2);
    let missing = source.path().join("model-00001.safetensors");
    fs::remove_file(&missing).unwrap();
    let target = tempfile::tempdir().unwrap();
    let error = refusal(open(&source).write(target.path(), &replace_nothing));
    assert_eq!(error, format!("cannot read {}", missing.display()));
    assert!(files(target.path()).is_empty());
}

#[test]
fn a_new_model_of_every_family_comes_back_as_it_was() {
    for family in Family::ALL {
        let config = small(family);
        let expected = parameters(&config);
        let values = |name: &str| -> Option<Box<dyn Rows + '_>> {
            Some(Box::new(&expected.get(name)?.1[..]))
        };
        for element in [FileElement::F32, FileElement::Bf16, FileElement::F16] {
            let target = tempfile::tempdir().unwrap();
            write_new(target.path(), &config, element, &values).unwrap();
            let checkpoint = open(&target);
            checkpoint.check(&everything).unwrap();
            assert_eq!(checkpoint.config(), &config);
            assert!(read_back(&checkpoint) == expected, "{family:?} {element:?}");
            let found: Vec<_> = files(target.path()).into_keys().collect();
            assert_eq!(
                found,
                ["config.json", "model.safetensors"],
                "nothing unfinished is left"
            );
        }
    }
}

/// What `transformers` looks for before it believes that a file is PyTorch's, and where numbers begin.
#[test]
fn a_new_file_is_in_pytorch_layout_and_always_the_same() {
    let config = small(Family::DeepseekV3);
    let expected = parameters(&config);
    let values =
        |name: &str| -> Option<Box<dyn Rows + '_>> { Some(Box::new(&expected.get(name)?.1[..])) };
    let [first, second] = [(), ()].map(|()| {
        let target = tempfile::tempdir().unwrap();
        write_new(target.path(), &config, FileElement::Bf16, &values).unwrap();
        files(target.path())
    });
    assert_eq!(first, second);
    let bytes = &first["model.safetensors"];
    let (length, metadata) = SafeTensors::read_metadata(bytes).unwrap();
    assert_eq!(length % 8, 0);
    let format = metadata
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get("format"));
    assert_eq!(format.map(String::as_str), Some("pt"));
    let bias = metadata
        .info("model.layers.1.mlp.gate.e_score_correction_bias")
        .unwrap();
    assert_eq!(bias.dtype, Dtype::F32, "as published");
    let text = String::from_utf8(first["config.json"].clone()).unwrap();
    assert!(text.contains(r#""torch_dtype": "bfloat16""#));
}

/// The class of this family in `transformers` reads no other layout.
#[test]
fn a_new_vision_model_has_fused_experts() {
    let config = small(Family::Qwen3VlMoe);
    let expected = parameters(&config);
    let values =
        |name: &str| -> Option<Box<dyn Rows + '_>> { Some(Box::new(&expected.get(name)?.1[..])) };
    let target = tempfile::tempdir().unwrap();
    write_new(target.path(), &config, FileElement::F32, &values).unwrap();
    let bytes = fs::read(target.path().join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut found: Vec<_> = file.names().into_iter().map(str::to_owned).collect();
    found.sort();
    let expected: Vec<_> = arranged(&config, Experts::Fused).into_keys().collect();
    assert_eq!(found, expected);
}

/// What should happen: an error that names the parameter. What should not happen: a folder that opens.
#[test]
fn a_new_model_that_lacks_a_parameter_is_not_written() {
    let config = small(Family::Mixtral);
    let expected = parameters(&config);
    let values = |name: &str| -> Option<Box<dyn Rows + '_>> {
        let known = name != "model.norm.weight";
        known.then(|| Box::new(&expected[name].1[..]) as _)
    };
    let target = tempfile::tempdir().unwrap();
    let error = refusal(write_new(target.path(), &config, FileElement::F32, &values));
    assert_eq!(error, "tensor model.norm.weight is missing");
    assert!(files(target.path()).is_empty());
    let error = refusal(write_new(
        target.path(),
        &config,
        FileElement::F8E4M3,
        &values,
    ));
    assert!(
        error.ends_with("is stored as F8_E4M3, which is read but not written"),
        "{error}"
    );
}
