//! The same experts from every kind of path, and what is said where they cannot be told.

use super::*;
use crate::parse_expert_name;

/// Tensors of the size that fits: what they hold is never read.
fn listed(path: &Path) -> ExpertParameters {
    Listing::read(path)
        .and_then(|listing| listing.experts())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn refused(path: &Path) -> String {
    let listing = Listing::read(path).and_then(|listing| listing.experts());
    listing.expect_err("something is wrong").to_string()
}

fn expected(config: &ModelConfig) -> ExpertParameters {
    let mut experts = ExpertParameters::new();
    for name in parameters(config).into_keys() {
        if let Some((layer, expert)) = parse_expert_name(&name) {
            let of_layer = experts.entry(layer).or_default();
            of_layer.entry(expert).or_default().insert(name);
        }
    }
    experts
}

fn without_config(folder: &TempDir) {
    fs::remove_file(folder.path().join(CONFIG)).expect("there was one");
}

#[test]
fn every_family_and_layout_stands_for_the_same_names_with_and_without_its_configuration() {
    for family in Family::ALL {
        let config = small(family);
        for layout in LAYOUTS {
            let folder = folder(&config, &arranged(&config, layout), ENCODINGS[1]);
            let expected = expected(&config);
            let file = folder.path().join("model.safetensors");
            assert_eq!(listed(folder.path()), expected, "{family:?} {layout:?}");
            assert_eq!(listed(&file), expected, "{family:?} {layout:?}");
            assert_eq!(listed(&folder.path().join(CONFIG)), expected, "{family:?}");
            without_config(&folder);
            assert_eq!(listed(folder.path()), expected, "{family:?} {layout:?}");
            assert_eq!(listed(&file), expected, "{family:?} {layout:?}");
        }
    }
}

/// What should happen: the files need not be there. Where they are, their headers are read.
#[test]
fn an_index_is_enough_unless_fused_tensors_hide_the_number_of_experts() {
    let config = small(Family::Qwen3VlMoe);
    for layout in [Experts::PerExpert, Experts::Transposed, Experts::Slot] {
        let folder = sharded(&config, &arranged(&config, layout), |name| name.len() % 3);
        let index = folder.path().join("model.safetensors.index.json");
        for file in 0..3 {
            assert_eq!(listed(&index), expected(&config), "{layout:?}");
            let file = folder.path().join(format!("model-{file:05}.safetensors"));
            fs::remove_file(file).expect("there are three");
        }
        assert_eq!(listed(&index), expected(&config), "{layout:?}");
        without_config(&folder);
        if layout == Experts::Transposed {
            let name = "model.language_model.layers.1.mlp.experts.down_proj";
            assert!(refused(&index).contains(name));
        } else {
            assert_eq!(listed(&index), expected(&config), "{layout:?}");
        }
    }
}

#[test]
fn a_folder_with_nothing_but_a_configuration_is_a_model() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert!(refused(folder.path()).contains("neither config.json"));
    let config = small(Family::DeepseekV3);
    fs::write(folder.path().join(CONFIG), config.to_json()).expect("it is written");
    assert_eq!(listed(folder.path()), expected(&config));
}

/// Changes the tensors of a small model and gives what is said of them with and without configuration.
fn changed(family: Family, layout: Experts, change: impl Fn(&mut Tensors)) -> [String; 2] {
    let config = small(family);
    let mut tensors = arranged(&config, layout);
    change(&mut tensors);
    let folder = folder(&config, &tensors, ENCODINGS[1]);
    let with = refused(folder.path());
    without_config(&folder);
    [with, refused(folder.path())]
}

#[test]
fn tensors_that_are_missing_or_too_many_are_named() {
    let gone = "model.layers.2.mlp.experts.5.up_proj.weight";
    let missing = changed(Family::Olmoe, Experts::PerExpert, |tensors| {
        tensors.remove(gone);
    });
    assert_eq!(
        missing,
        [(); 2].map(|()| format!("tensor {gone} is missing"))
    );

    let down = "model.layers.1.mlp.experts.down_proj";
    let [with, without] = changed(Family::Qwen3Moe, Experts::Fused, |tensors| {
        tensors.remove(down);
    });
    let first = "tensor model.layers.1.mlp.experts.0.down_proj.weight is missing";
    assert_eq!([with.as_str(), &without], [first; 2]);

    let [with, without] = changed(Family::Qwen3Moe, Experts::Fused, |tensors| {
        tensors.insert(down.to_owned(), (vec![7, 0, 3], Vec::new()));
    });
    assert!(
        with.contains(down) && with.contains("[8, 16, 12]"),
        "{with}"
    );
    assert!(
        without.contains(down) && without.contains("[7, 0, 3]"),
        "{without}"
    );

    let own = "model.layers.1.mlp.experts.3.gate_proj.weight";
    let twice = changed(Family::Qwen3Moe, Experts::Fused, |tensors| {
        tensors.insert(own.to_owned(), (vec![12, 16], vec![0.0; 12 * 16]));
    });
    for told in twice {
        assert!(told.contains(own) && told.contains("both hold"), "{told}");
    }
}

/// Neither of these is wrong without a configuration: it is another model then.
#[test]
fn experts_that_the_configuration_does_not_have_are_named() {
    for name in [
        "model.layers.1.mlp.experts.8.gate_proj.weight",
        "model.layers.7.mlp.experts.0.gate_proj.weight",
        "model.layers.1.block_sparse_moe.experts.0.w1.weight",
    ] {
        let [with, _] = changed(Family::Qwen3Moe, Experts::PerExpert, |tensors| {
            tensors.insert(name.to_owned(), (vec![12, 16], vec![0.0; 12 * 16]));
        });
        assert!(with.contains(name), "{with}");
        assert!(with.contains("none of the configured model"), "{with}");
    }
}

#[test]
fn names_of_no_family_or_of_two_are_refused() {
    let config = small(Family::Mixtral);
    let tensors = arranged(&config, Experts::PerExpert);
    let renamed = |from: &str, to: &str, of: &dyn Fn(&str) -> bool| -> Tensors {
        let tensors = tensors.clone().into_iter();
        tensors
            .map(|(name, tensor)| match of(&name) {
                true => (name.replace(from, to), tensor),
                false => (name, tensor),
            })
            .collect()
    };
    let without = |tensors: &Tensors| {
        let folder = folder(&config, tensors, ENCODINGS[1]);
        without_config(&folder);
        folder
    };
    let nobody = without(&renamed("experts", "specialists", &|_| true));
    assert!(refused(nobody.path()).contains("no tensor is named as"));
    let both = renamed("block_sparse_moe", "mlp", &|_| true);
    // In memory Mixtral's block is called so, and its matrices still are its own.
    assert_eq!(listed(without(&both).path()), expected(&config));
    let mut both = tensors.clone();
    both.extend(arranged(&small(Family::Qwen3Moe), Experts::PerExpert));
    let told = refused(without(&both).path());
    assert!(told.contains("different families"), "{told}");
    // What should not happen: that an expert is in no group because its number is spelled oddly.
    for odd in [".03.", ".+3.", ".-1.", ".99999999999999999999."] {
        let spelled = renamed(".3.", odd, &|name| name.contains(".experts.3."));
        let told = refused(without(&spelled).path());
        assert!(told.contains(&format!("experts{odd}")), "{told}");
    }
}

/// The module that predicts several tokens at once has experts of its own, which nobody trains.
#[test]
fn experts_of_the_prediction_module_do_not_count() {
    let config = small(Family::DeepseekV3);
    let mut tensors = arranged(&config, Experts::PerExpert);
    for name in ["eh_proj.weight", "mlp.experts.0.up_proj.weight"] {
        tensors.insert(format!("model.layers.3.{name}"), (vec![1], vec![0.0]));
    }
    let folder = folder(&config, &tensors, ENCODINGS[1]);
    assert_eq!(listed(folder.path()), expected(&config));
    without_config(&folder);
    assert_eq!(listed(folder.path()), expected(&config));
}

#[test]
fn paths_that_are_no_model_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("it is written");
        path
    };
    for (path, told) in [
        (folder.path().join("absent"), "cannot read"),
        (path("words.txt", "some words"), "no JSON by its content"),
        (path("list.json", "[1, 2]"), "no JSON by its content"),
        (
            path("gpt.json", r#"{"model_type": "gpt2"}"#),
            "unusable configuration",
        ),
        (
            path("torn.json", r#"{"weight_map": {"a": 3}}"#),
            "not an index",
        ),
        (
            path("none.json", r#"{"weight_map": {}}"#),
            "no tensor is named as",
        ),
        (
            path("out.json", r#"{"weight_map": {"a": "../b.safetensors"}}"#),
            "not a file name",
        ),
        (
            path("torn.safetensors", "\u{1}"),
            "not a complete safetensors file",
        ),
    ] {
        let refusal = refused(&path);
        assert!(refusal.contains(told), "{refusal}");
    }
}

/// What should not happen: memory by a number that a name or a shape claims.
#[test]
fn numbers_beyond_all_models_cost_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let index = folder.path().join("index.json");
    let claim =
        r#"{"weight_map": {"model.layers.0.mlp.experts.18446744073709551615.down_proj": "a"}}"#;
    fs::write(&index, claim).expect("it is written");
    assert!(refused(&index).contains("is missing"));
    let file = folder.path().join("model.safetensors");
    let huge = "model.layers.0.mlp.experts.down_proj";
    let table = format!(
        r#"{{"{huge}":{{"dtype":"F32","shape":[1000000000000,0,1],"data_offsets":[0,0]}}}}"#
    );
    let bytes = [&(table.len() as u64).to_le_bytes()[..], table.as_bytes()].concat();
    fs::write(&file, bytes).expect("it is written");
    assert!(refused(&file).contains(huge));
}
