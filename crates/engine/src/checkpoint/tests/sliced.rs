//! Slices: what they hold, how they are read, and what is refused.

use std::error::Error;

use proptest::prelude::*;
use safetensors::SafeTensors;

use super::written::files;
use super::*;
use crate::device::Cpu;
use crate::routing::ExpertMap;
use crate::{Holding, Model, Residency};

/// Three groups of different sizes whose experts do not stand side by side, over the MoE layers of a
/// model; the last has none in its last layer.
pub(super) fn groups(config: &ModelConfig) -> Vec<ExpertMap> {
    let layers: Vec<usize> = config.moe_layers().collect();
    let across = |experts: &[usize]| -> ExpertMap {
        let layers = layers.iter();
        layers.map(|layer| (*layer, experts.to_vec())).collect()
    };
    let mut groups = vec![across(&[0, 5]), across(&[1, 2, 7]), across(&[3, 4, 6])];
    let last = layers.last().expect("a layer with experts");
    let moved = groups[2].remove(last).expect("experts");
    let first = groups[0].get_mut(last).expect("experts");
    first.extend(moved);
    first.sort_unstable();
    groups
}

/// A slice in a folder of its own.
pub(super) fn slice(model: &Path, experts: &ExpertMap) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let notes = [("connito.group_ids".to_owned(), "[1]".to_owned())].into();
    let plan = SlicePlan {
        model,
        experts,
        notes: &notes,
    };
    write_slice(&plan, folder.path(), &mut |_| {}).expect("the slice is written");
    folder
}

fn slice_refusal(model: &Path, experts: &ExpertMap) -> String {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let out = parent.path().join("new/slice");
    let plan = SlicePlan {
        model,
        experts,
        notes: &BTreeMap::new(),
    };
    let error = write_slice(&plan, &out, &mut |_| {}).expect_err("a refusal");
    assert!(files(parent.path()).is_empty(), "something was left behind");
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    message
}

fn holds(experts: &ExpertMap) -> impl Fn(usize, usize) -> bool {
    let residency = Residency::Slice(experts.clone());
    move |layer, expert| residency.holds(layer, expert)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// What should happen: every parameter of the slice is there, in the bytes of the whole model, and
    /// reads as in the whole model. What should not: any other expert.
    #[test]
    fn a_slice_holds_its_experts_and_the_backbone_and_nothing_else(
        family in proptest::sample::select(Family::ALL.to_vec()),
        experts in proptest::sample::select(LAYOUTS.to_vec()),
        encoding in 0..3_usize,
        shards in 1..4_usize,
        group in 0..3_usize,
    ) {
        let config = small(family);
        let tensors = arranged(&config, experts);
        let whole = match shards {
            1 => folder(&config, &tensors, ENCODINGS[encoding]),
            _ => sharded(&config, &tensors, |name| name.len() % shards),
        };
        let group = &groups(&config)[group];
        let slice = slice(whole.path(), group);
        let (whole, opened) = (open(&whole), open(&slice));
        opened.check(&holds(group)).expect("a whole slice");
        let expected = parameters(&config);
        for name in expected.keys() {
            let expert = crate::names::parse_expert_name(name);
            if expert.is_some_and(|(layer, expert)| !holds(group)(layer, expert)) {
                prop_assert!(opened.parameter(name).is_err(), "{} is there", name);
                continue;
            }
            let read = opened.parameter(name).expect("a parameter of the slice");
            prop_assert!(all_values(&read) == expected[name].1, "{}", name);
            prop_assert_eq!(read.element(), whole.element(name).expect("a parameter"));
        }
        let found: Vec<_> = files(slice.path()).into_keys().collect();
        prop_assert_eq!(found, ["config.json", "model.safetensors"]);
    }
}

/// The same bits in memory, so the same losses, whichever of the two is read.
#[test]
fn a_model_of_a_slice_is_a_slice_of_the_model() {
    for experts in LAYOUTS {
        let config = small(Family::Qwen3VlMoe);
        let whole = folder(&config, &arranged(&config, experts), ENCODINGS[1]);
        for group in groups(&config) {
            let slice = slice(whole.path(), &group);
            let holding = Holding {
                residency: Residency::Slice(group),
                ..Holding::whole()
            };
            let [own, expected] = [&slice, &whole].map(|folder| {
                Model::from_checkpoint(Cpu::single(), &open(folder), &holding).expect("a model")
            });
            let names: Vec<&str> = expected.names().collect();
            assert_eq!(own.names().collect::<Vec<_>>(), names);
            for name in names {
                assert_eq!(own.tensor(name), expected.tensor(name), "{name}");
            }
        }
    }
}

/// Any reader of the format finds what the slice is, and every number at a multiple of its size.
#[test]
fn a_slice_says_what_it_is_and_lies_as_others_write_it() {
    let config = small(Family::Qwen3VlMoe);
    let whole = folder(
        &config,
        &arranged(&config, Experts::Transposed),
        ENCODINGS[1],
    );
    for companion in ["tokenizer.json", "merges.txt", "generation_config.json"] {
        fs::write(whole.path().join(companion), companion).unwrap();
    }
    for stranger in ["pytorch_model.bin", "consolidated.pth", ".hidden"] {
        fs::write(whole.path().join(stranger), "old weights").unwrap();
    }
    let group: ExpertMap = [(1, vec![7, 2]), (2, vec![4])].into();
    let slice = slice(whole.path(), &group);
    let found = files(slice.path());
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    let expected = [
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "tokenizer.json",
    ];
    assert_eq!(names, expected);
    let bytes = &found["model.safetensors"];
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    let text = header.metadata().clone().unwrap();
    let text = |key: &str| text[key].clone();
    assert_eq!(text("format"), "pt");
    assert_eq!(text("connito.experts"), r#"{"1":[2,7],"2":[4]}"#);
    assert_eq!(text("connito.group_ids"), "[1]");
    assert_eq!(text("connito.config").len(), 64);
    let file = SafeTensors::deserialize(bytes).unwrap();
    let at = "model.language_model.layers.1.mlp.experts";
    let fused = file.tensor(&format!("{at}.gate_up_proj")).unwrap();
    assert_eq!(fused.shape(), [2, 16, 24]);
    let whole = fs::read(whole.path().join("model.safetensors")).unwrap();
    let whole = SafeTensors::deserialize(&whole).unwrap();
    let all = whole.tensor(&format!("{at}.gate_up_proj")).unwrap();
    let row = all.data().len() / 8;
    assert_eq!(fused.data()[..row], all.data()[2 * row..3 * row]);
    assert_eq!(fused.data()[row..], all.data()[7 * row..]);
}

/// What should happen: the tower comes along, for it is part of what the model is. What should not: a
/// module that nobody reads, whose experts belong to no group.
#[test]
fn passengers_come_along_and_what_nobody_reads_stays() {
    for (family, name, comes) in [
        (
            Family::Qwen3VlMoe,
            "model.visual.blocks.0.attn.qkv.weight",
            true,
        ),
        (
            Family::DeepseekV3,
            "model.layers.3.mlp.experts.0.gate_proj.weight",
            false,
        ),
        (Family::DeepseekV3, "model.layers.3.eh_proj.weight", false),
        (
            Family::DeepseekV2,
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            false,
        ),
    ] {
        let config = small(family);
        let mut tensors = parameters(&config);
        tensors.insert(name.into(), (vec![2], vec![1.0, 2.0]));
        let whole = folder(&config, &tensors, ENCODINGS[0]);
        let slice = slice(whole.path(), &groups(&config)[0]);
        assert_eq!(
            open(&slice).files.tensors.contains_key(name),
            comes,
            "{name}"
        );
    }
}

#[test]
fn a_model_that_is_not_whole_or_not_its_own_is_not_sliced() {
    let config = small(Family::Olmoe);
    let group = &groups(&config)[0];
    let tensors = parameters(&config);
    let whole = sharded(&config, &tensors, |name| name.len() % 2);
    let shard = whole.path().join("model-00001.safetensors");
    let bytes = fs::read(&shard).unwrap();
    let refused = || slice_refusal(whole.path(), group);
    fs::write(&shard, &bytes[..bytes.len() - 1]).unwrap();
    let cut = format!("{} is not a complete safetensors file: ", shard.display());
    assert!(refused().starts_with(&cut), "{}", refused());
    fs::remove_file(&shard).unwrap();
    let absent = format!("cannot read {}: ", shard.display());
    assert!(refused().starts_with(&absent), "{}", refused());
    fs::create_dir(&shard).unwrap();
    assert!(refused().starts_with(&absent), "{}", refused());
    fs::remove_dir(&shard).unwrap();

    // The same tensors once more in the other file.
    fs::copy(whole.path().join("model-00000.safetensors"), &shard).unwrap();
    let (first, _) = tensors
        .iter()
        .find(|(name, _)| name.len() % 2 == 0)
        .unwrap();
    assert!(
        refused().starts_with(&format!("tensor {first} is in ")),
        "{}",
        refused()
    );

    let other = "model.layers.1.mlp.experts.8.gate_proj.weight";
    let mut more = tensors.clone();
    more.insert(other.into(), (vec![12, 16], vec![0.0; 12 * 16]));
    let more = folder(&config, &more, ENCODINGS[0]);
    assert_eq!(
        slice_refusal(more.path(), group),
        format!("tensor {other} does not belong to the configured model")
    );
}

#[test]
fn experts_that_the_model_does_not_have_cannot_be_taken() {
    let config = small(Family::DeepseekV2);
    let whole = folder(&config, &parameters(&config), ENCODINGS[0]);
    let refused = |layer, expert| slice_refusal(whole.path(), &[(layer, vec![expert])].into());
    assert_eq!(refused(0, 0), "layer 0 has no routed experts");
    assert_eq!(refused(1, 8), "layer 1 has no routed expert 8");
    let none = [(1, vec![])].into();
    assert_eq!(
        slice_refusal(whole.path(), &none),
        "a slice without experts has nothing to train"
    );
}

/// The account of a slice comes from whoever made the file.
#[test]
fn a_slice_that_lies_about_its_experts_is_refused() {
    let config = small(Family::Qwen3Moe);
    let tensors = arranged(&config, Experts::Fused);
    for (experts, expected) in [
        ("[]", "the experts are not listed by layer"),
        (r#"{"1":[0.5]}"#, "the experts are not listed by layer"),
        (
            r#"{"1":[3,2]}"#,
            "the experts of layer 1 are not in ascending order",
        ),
        (
            r#"{"1":[2,2]}"#,
            "the experts of layer 1 are not in ascending order",
        ),
        (r#"{"1":[8]}"#, "layer 1 has no routed expert 8"),
        (
            r#"{"18446744073709551615":[1]}"#,
            "layer 18446744073709551615 has no routed experts",
        ),
    ] {
        let liar = folder(&config, &tensors, ENCODINGS[0]);
        let path = liar.path().join("model.safetensors");
        retell(&path, &[("connito.experts", experts)]);
        let error = Checkpoint::open(liar.path()).unwrap_err();
        let message = format!(
            "{} does not say properly which experts it holds",
            path.display()
        );
        assert_eq!(error.to_string(), message);
        assert_eq!(error.source().unwrap().to_string(), expected, "{experts}");
    }
    let liar = folder(&config, &tensors, ENCODINGS[0]);
    let path = liar.path().join("model.safetensors");
    retell(&path, &[("connito.experts", r#"{"1":[2,5],"2":[0]}"#)]);
    let held = |_, expert| expert == 2;
    let refused = refusal(open(&liar).check(&held));
    assert!(
        refused.contains("should have shape [2, 24, 16], found [8, 24, 16]"),
        "{refused}"
    );
}

/// Writes a file anew with other text in its header.
pub(super) fn retell(path: &Path, text: &[(&str, &str)]) {
    let bytes = fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let text = text.iter();
    let text = text.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let text = safetensors::serialize(file.tensors(), Some(text.collect()));
    fs::write(path, text.expect("a safetensors file")).expect("the file is written");
}

/// What should not happen: a result inside of what is read, or beside something else.
#[test]
fn a_slice_is_written_to_a_folder_of_its_own() {
    let config = small(Family::Olmoe);
    let whole = folder(&config, &parameters(&config), ENCODINGS[0]);
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("file"), "somebody's").unwrap();
    let before = [files(whole.path()), files(place.path())];
    let experts = &groups(&config)[0];
    let notes = BTreeMap::new();
    let plan = SlicePlan {
        model: whole.path(),
        experts,
        notes: &notes,
    };
    let write = |out: &Path| write_slice(&plan, out, &mut |_| {});
    for out in [whole.path().to_owned(), whole.path().join("new/slice")] {
        let message = write(&out).unwrap_err().to_string();
        assert!(message.ends_with("which is only read"), "{message}");
    }
    let message = write(place.path()).unwrap_err().to_string();
    assert!(message.contains("is not empty"), "{message}");
    for out in ["file", "file/slice", "absent/../slice"] {
        let error = write(&place.path().join(out)).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&*place.path().to_string_lossy())
                || error.to_string().starts_with("cannot write"),
            "{error}"
        );
    }
    assert_eq!([files(whole.path()), files(place.path())], before);
    write(&place.path().join("new/slice")).unwrap();
    assert_eq!(files(&place.path().join("new/slice")).len(), 2);
    let names = fs::read_dir(place.path().join("new")).unwrap().count();
    assert_eq!(names, 1, "nothing unfinished is left");
}
