//! What a folder may not be, and which file or tensor is named.

use std::error::Error;

use super::*;

fn refused(change: impl Fn(&mut Tensors)) -> String {
    let config = small(Family::DeepseekV2);
    let mut tensors = parameters(&config);
    change(&mut tensors);
    let folder = folder(&config, &tensors, ENCODINGS[0]);
    refusal(Checkpoint::open(folder.path()).and_then(|checkpoint| checkpoint.check(&everything)))
}

#[test]
fn a_tensor_that_is_missing_misshapen_or_foreign_is_named() {
    let name = "model.layers.2.mlp.experts.7.down_proj.weight";
    let missing = refused(|tensors| drop(tensors.remove(name)));
    assert_eq!(missing, format!("tensor {name} is missing"));
    let misshapen = refused(|tensors| {
        tensors.insert(name.into(), (vec![12, 16], vec![0.0; 12 * 16]));
    });
    assert_eq!(
        misshapen,
        format!("tensor {name} should have shape [16, 12], found [12, 16]")
    );
    for foreign in [
        "model.layers.3.input_layernorm.weight",
        "model.layers.0.mlp.experts.0.gate_proj.weight",
        "model.layers.1.mlp.experts.8.gate_proj.weight",
        "model.layers.1.mlp.experts.07.gate_proj.weight",
        "model.layers.1.self_attn.q_proj.bias",
        "model.layers.1.self_attn.q_proj.bias_scale_inv",
        "model.visual.patch_embed.weight",
    ] {
        let message = refused(|tensors| {
            tensors.insert(foreign.into(), (vec![16], vec![0.0; 16]));
        });
        assert_eq!(
            message,
            format!("tensor {foreign} does not belong to the configured model")
        );
    }
}

#[test]
fn a_misshapen_fused_tensor_is_named_with_the_shape_that_would_do() {
    let config = small(Family::Qwen3VlMoe);
    let mut tensors = arranged(&config, Experts::Fused);
    let name = "model.language_model.layers.1.mlp.experts.gate_up_proj";
    tensors.insert(name.into(), (vec![8, 23, 16], vec![0.0; 8 * 23 * 16]));
    let folder = folder(&config, &tensors, ENCODINGS[0]);
    let expected = format!("tensor {name} should have shape [8, 24, 16], found [8, 23, 16]");
    assert_eq!(refusal(open(&folder).check(&everything)), expected);
}

/// Two spellings of one matrix would make the model depend on the order of reading.
#[test]
fn a_parameter_that_is_stored_twice_is_refused() {
    let config = small(Family::DeepseekV2);
    let mut tensors = parameters(&config);
    tensors.extend(arranged(&config, Experts::Slot));
    let folder = folder(&config, &tensors, ENCODINGS[0]);
    let expected = "tensors model.layers.1.mlp.experts.0.down_proj and \
        model.layers.1.mlp.experts.0.down_proj.weight both hold \
        model.layers.1.mlp.experts.0.down_proj.weight";
    assert_eq!(refusal(Checkpoint::open(folder.path())), expected);
}

#[test]
fn numbers_of_another_type_are_refused_where_they_are_needed() {
    let config = small(Family::DeepseekV2);
    let integers: Encoding = (Dtype::I32, FileElement::F32, |value| {
        value.to_le_bytes().to_vec()
    });
    let folder = folder(&config, &parameters(&config), integers);
    let expected = "tensor model.embed_tokens.weight is stored as I32, only F32, F16, BF16 and scaled \
        F8_E4M3 are read";
    assert_eq!(refusal(open(&folder).check(&everything)), expected);
}

#[test]
fn a_name_that_is_no_parameter_is_missing() {
    let config = small(Family::DeepseekV2);
    let folder = folder(&config, &parameters(&config), ENCODINGS[0]);
    let expected = "tensor model.norm.bias is missing";
    assert_eq!(
        refusal(open(&folder).parameter("model.norm.bias")),
        expected
    );
}

#[test]
fn an_index_reaches_no_file_outside_its_folder() {
    let config = small(Family::Olmoe);
    for listed in ["../elsewhere.safetensors", "/etc/passwd", "..", "", "a/b"] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG), config.to_json()).unwrap();
        let index = folder.path().join("model.safetensors.index.json");
        let text = serde_json::json!({"weight_map": {"lm_head.weight": listed}});
        fs::write(&index, text.to_string()).unwrap();
        let expected = format!(
            "{} lists {listed:?}, which is not a file name",
            index.display()
        );
        assert_eq!(refusal(Checkpoint::open(folder.path())), expected);
    }
}

#[test]
fn an_index_that_is_wrong_about_a_file_is_refused() {
    let config = small(Family::Olmoe);
    let folder = sharded(&config, &parameters(&config), |name| name.len() % 2);
    let path = folder.path().join("model.safetensors.index.json");
    let text = fs::read_to_string(&path).unwrap();
    let wrong = text.replace(
        r#""model.norm.weight":"model-00001"#,
        r#""model.norm.weight":"model-00000"#,
    );
    assert_ne!(wrong, text);
    fs::write(&path, wrong).unwrap();
    let file = folder.path().join("model-00000.safetensors");
    let expected = format!(
        "tensor model.norm.weight is not in {}, where the index has it",
        file.display()
    );
    assert_eq!(refusal(Checkpoint::open(folder.path())), expected);
    fs::write(&path, "[]").unwrap();
    let expected = format!("{} is not an index of weights files", path.display());
    assert_eq!(refusal(Checkpoint::open(folder.path())), expected);
}

#[test]
fn an_absent_or_broken_configuration_is_named_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(CONFIG);
    let expected = format!("cannot read {}", path.display());
    assert_eq!(refusal(Checkpoint::open(folder.path())), expected);
    fs::write(&path, r#"{"model_type": "mixtral"}"#).unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("unusable configuration {}", path.display())
    );
    let source = error.source().expect("a cause").to_string();
    assert_eq!(source, "key num_hidden_layers is missing");
    fs::write(&path, small(Family::Mixtral).to_json()).unwrap();
    let weights = folder.path().join("model.safetensors");
    let expected = format!("cannot read {}", weights.display());
    assert_eq!(refusal(Checkpoint::open(folder.path())), expected);
}

#[test]
fn warnings_about_the_configuration_are_passed_on() {
    let config = small(Family::DeepseekV2);
    let folder = folder(&config, &parameters(&config), ENCODINGS[0]);
    let text = config
        .to_json()
        .replace(r#""norm_topk_prob": false"#, r#""norm_topk_prob": true"#);
    fs::write(folder.path().join(CONFIG), text).unwrap();
    assert!(open(&folder).warnings()[0].contains("norm_topk_prob"));
}
