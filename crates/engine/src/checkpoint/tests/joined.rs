//! Slices that are put back: what changes, what does not, and what is refused.

use std::error::Error;
use std::path::PathBuf;

use proptest::prelude::*;

use super::sliced::{groups, retell, slice};
use super::written::files;
use super::*;
use crate::routing::ExpertMap;

fn joined(base: &Path, slices: &[&TempDir]) -> Result<(TempDir, JoinReport), JoinError> {
    let out = tempfile::tempdir().expect("a temporary folder");
    let slices: Vec<PathBuf> = slices.iter().map(|slice| slice.path().into()).collect();
    let report = join_slices(base, &slices, out.path(), &mut |_| {})?;
    Ok((out, report))
}

fn join_refusal(base: &TempDir, slices: &[&TempDir]) -> String {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let paths: Vec<PathBuf> = slices.iter().map(|slice| slice.path().into()).collect();
    let out = parent.path().join("out");
    let error = join_slices(base.path(), &paths, &out, &mut |_| {}).expect_err("a refusal");
    assert!(files(parent.path()).is_empty(), "something was left behind");
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    // The folders' names are of no interest.
    for (number, path) in paths.iter().enumerate() {
        message = message.replace(&*path.to_string_lossy(), &format!("S{number}"));
    }
    message.replace(&*base.path().to_string_lossy(), "B")
}

/// The folder with other values for one parameter, by the writer that is not tested here.
fn changed(source: &Path, name: &str, values: &[f32]) -> TempDir {
    let target = tempfile::tempdir().expect("a temporary folder");
    let replace = |asked: &str| -> Option<Box<dyn Rows + '_>> {
        (asked == name).then(|| Box::new(values) as _)
    };
    let opened = Checkpoint::open(source).expect("a checkpoint");
    opened
        .write(target.path(), &replace)
        .expect("it is written");
    target
}

fn base_of(config: &ModelConfig, experts: Experts, encoding: usize, shards: usize) -> TempDir {
    let tensors = arranged(config, experts);
    let base = match shards {
        1 => folder(config, &tensors, ENCODINGS[encoding]),
        _ => sharded(config, &tensors, |name| name.len() % shards),
    };
    fs::write(base.path().join("tokenizer.json"), "{}").expect("a file");
    base
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// What should happen: all slices, or some, give the model that they came from, and one that was
    /// trained changes what a writer of that one parameter changes. What should not: any other byte.
    #[test]
    fn what_was_not_trained_is_bit_for_bit_what_it_was(
        family in proptest::sample::select(Family::ALL.to_vec()),
        experts in proptest::sample::select(LAYOUTS.to_vec()),
        (encoding, shards) in (0..3_usize, 1..4_usize),
        absent in 0..4_usize,
        matrix in 0..3_usize,
    ) {
        let config = small(family);
        let base = base_of(&config, experts, encoding, shards);
        let groups = groups(&config);
        let slices: Vec<TempDir> = groups.iter().map(|group| slice(base.path(), group)).collect();
        let present: Vec<&TempDir> = slices
            .iter()
            .enumerate()
            .filter_map(|(number, slice)| (number != absent).then_some(slice))
            .collect();
        let (out, report) = joined(base.path(), &present).expect("slices of the model");
        prop_assert!(files(out.path()) == files(base.path()));
        let held = groups.iter().enumerate().filter(|(number, _)| *number != absent);
        let held: usize = held.map(|(_, group)| group.values().map(Vec::len).sum::<usize>()).sum();
        prop_assert_eq!((report.experts, report.changed), (held, 0));
        prop_assert!(report.conversions.is_empty());

        let (layer, expert) = (2, 7);
        let name = &expert_parameter_names(family, layer, expert)[matrix];
        let values: Vec<f32> = (0..12 * 16).map(|n| n as f32 / 64.0 - 1.0).collect();
        let trained = changed(slices[1].path(), name, &values);
        let (out, report) = joined(base.path(), &[&slices[0], &trained]).expect("slices");
        let expected = changed(base.path(), name, &values);
        prop_assert!(files(out.path()) == files(expected.path()));
        prop_assert!(files(out.path()) != files(base.path()));
        prop_assert_eq!(report.changed, 1);
    }

    /// Another trainer knows nothing of our notes, keeps no backbone, and stores experts as it likes.
    #[test]
    fn experts_of_another_trainer_go_where_the_base_has_them(
        family in proptest::sample::select(Family::ALL.to_vec()),
        base in proptest::sample::select(LAYOUTS.to_vec()),
        own in proptest::sample::select(LAYOUTS.to_vec()),
        (base_encoding, own_encoding) in (0..3_usize, 0..3_usize),
    ) {
        let config = small(family);
        let halved = |tensors: Tensors| -> Tensors {
            let halved = tensors.into_iter().map(|(name, (shape, values))| {
                (name, (shape, values.iter().map(|value| value / 2.0).collect()))
            });
            halved.collect()
        };
        let mut tensors = halved(arranged(&config, own));
        tensors.retain(|name, _| name.contains(".experts.") && !name.contains(".experts.3."));
        let base = base_of(&config, base, base_encoding, 1);
        let slice = folder(&config, &tensors, ENCODINGS[own_encoding]);
        fs::remove_file(slice.path().join(CONFIG)).expect("a file");
        let (out, report) = joined(base.path(), &[&slice]).expect("a slice of the model");
        let mut expected = parameters(&config);
        for (name, (_, values)) in halved(parameters(&config)) {
            let fused = matches!(own, Experts::Fused | Experts::Transposed);
            if let Some((_, expert)) = crate::names::parse_expert_name(&name)
                && (fused || expert != 3)
            {
                expected.get_mut(&name).expect("a parameter").1 = values;
            }
        }
        prop_assert!(read_back(&open(&out)) == expected);
        let converts = base_encoding != own_encoding;
        prop_assert_eq!(report.conversions.len(), usize::from(converts));
        prop_assert!(report.conversions.iter().all(|conversion| conversion.tensors == tensors.len()));
    }
}

/// What should happen: the slice's wider numbers are rounded to nearest even, ties included.
#[test]
fn wider_numbers_are_rounded_to_nearest_even() {
    let config = small(Family::Qwen3Moe);
    let base = base_of(&config, Experts::PerExpert, 1, 1);
    let mut tensors = parameters(&config);
    tensors.retain(|name, _| name.contains(".layers.1.mlp.experts.3."));
    let name = expert_parameter_names(config.family, 1, 3)[1].clone();
    let (_, values) = tensors.get_mut(&name).unwrap();
    let halves = (0..12 * 16).map(|n| 1.0 + n as f32 / 256.0);
    *values = halves.collect();
    let slice = folder(&config, &tensors, ENCODINGS[0]);
    let (out, report) = joined(base.path(), &[&slice]).unwrap();
    let read = all_values(&open(&out).parameter(&name).unwrap());
    assert_eq!(read[..4], [1.0, 1.0, 1.0 + 2.0 / 256.0, 1.0 + 4.0 / 256.0]);
    let [conversion] = &report.conversions[..] else {
        panic!("{:?}", report.conversions);
    };
    assert_eq!((&*conversion.from, &*conversion.to), ("F32", "BF16"));
    assert_eq!(conversion.tensors, 3);
}

/// A trainer may keep the backbone in single precision; it must be the base's all the same.
#[test]
fn only_experts_may_be_trained() {
    let config = small(Family::DeepseekV2);
    let base = base_of(&config, Experts::PerExpert, 1, 1);
    let mut tensors = parameters(&config);
    tensors.retain(|name, _| !name.contains(".experts.7."));
    let wide = folder(&config, &tensors, ENCODINGS[0]);
    let (out, _) = joined(base.path(), &[&wide]).unwrap();
    assert!(files(out.path()) == files(base.path()));
    for name in [
        "model.norm.weight",
        "model.layers.1.mlp.gate.weight",
        "model.layers.2.mlp.shared_experts.up_proj.weight",
    ] {
        let mut tensors = tensors.clone();
        *tensors.get_mut(name).unwrap().1.last_mut().unwrap() += 0.5;
        for encoding in ENCODINGS {
            let trained = folder(&config, &tensors, encoding);
            let expected = format!(
                "tensor {name} of S0 is not the model's, and only routed experts may be trained"
            );
            assert_eq!(join_refusal(&base, &[&trained]), expected);
        }
    }
}

#[test]
fn a_slice_of_another_model_is_refused_by_name() {
    let config = small(Family::Qwen3Moe);
    let base = base_of(&config, Experts::PerExpert, 1, 1);
    let refused = |config: &ModelConfig, text: &[(&str, &str)], change: &dyn Fn(&mut Tensors)| {
        let mut tensors = parameters(config);
        tensors.retain(|name, _| name.contains(".experts.2."));
        change(&mut tensors);
        let slice = folder(config, &tensors, ENCODINGS[1]);
        retell(&slice.path().join("model.safetensors"), text);
        join_refusal(&base, &[&slice])
    };
    let same = |_: &mut Tensors| {};
    assert_eq!(
        refused(&config, &[("connito.config", "00")], &same),
        "S0/model.safetensors was taken beside another config.json than B/config.json"
    );
    let mut wider = config.clone();
    wider.hidden_size = 20;
    let message = refused(&wider, &[], &same);
    assert!(message.starts_with("S0 is no slice of the model: tensor model.layers.1.mlp.experts.2.down_proj.weight should have shape [16, 12]"), "{message}");
    let name = expert_parameter_names(config.family, 1, 2)[2].clone();
    assert_eq!(
        refused(&config, &[], &|tensors| drop(tensors.remove(&name))),
        format!("S0 is no slice of the model: tensor {name} is missing")
    );
    let stranger = "model.layers.1.mlp.experts.2.gate_proj.bias";
    assert_eq!(
        refused(&config, &[], &|tensors| drop(
            tensors.insert(stranger.into(), (vec![1], vec![0.0]))
        )),
        format!(
            "S0 is no slice of the model: tensor {stranger} does not belong to the configured model"
        )
    );
    let listed = [("connito.experts", r#"{"1":[2,3],"2":[2]}"#)];
    let message = refused(&config, &listed, &same);
    assert!(
        message.contains("tensor model.layers.1.mlp.experts.3.gate_proj.weight is missing"),
        "{message}"
    );
    assert_eq!(
        refused(&config, &[], &|tensors| {
            tensors.retain(|_, _| false);
            let name = "model.norm.weight";
            tensors.insert(name.into(), parameters(&config)[name].clone());
        }),
        "S0 holds no experts"
    );
}

#[test]
fn rows_without_names_and_experts_that_two_slices_hold_are_refused() {
    let config = small(Family::Qwen3VlMoe);
    let base = base_of(&config, Experts::Transposed, 1, 1);
    let groups = groups(&config);
    let first = slice(base.path(), &groups[0]);
    let mut more: ExpertMap = groups[1].clone();
    more.get_mut(&2).unwrap().push(5);
    let second = slice(base.path(), &more);
    assert_eq!(
        join_refusal(&base, &[&first, &second]),
        "expert 5 of layer 2 is in S0 and in S1"
    );
    retell(&second.path().join("model.safetensors"), &[]);
    let at = "model.language_model.layers.1.mlp.experts.down_proj";
    assert_eq!(
        join_refusal(&base, &[&second]),
        format!("tensor {at} of S0 has 3 of 8 experts and the file does not say which")
    );
}

/// What should happen: a refusal where training spoilt a number, or the base's type cannot hold it. What
/// should not: that the base's own spoilt numbers keep it from being joined.
#[test]
fn numbers_that_are_not_finite_are_refused_unless_they_were_there() {
    let config = small(Family::Mixtral);
    let name = expert_parameter_names(config.family, 1, 5)[0].clone();
    for experts in LAYOUTS {
        let base = base_of(&config, experts, 2, 1);
        let group = &groups(&config)[0];
        for spoilt in [f32::NAN, f32::NEG_INFINITY] {
            let mut values = parameters(&config)[&name].1.clone();
            values[7] = spoilt;
            let trained = changed(slice(base.path(), group).path(), &name, &values);
            let message = join_refusal(&base, &[&trained]);
            assert!(
                message.contains("has values that are not finite as F16"),
                "{message}"
            );
            assert!(
                message.contains("layers.1.block_sparse_moe.experts."),
                "{message}"
            );

            let spoilt = changed(base.path(), &name, &values);
            let untrained = slice(spoilt.path(), group);
            let (out, report) = joined(spoilt.path(), &[&untrained]).unwrap();
            assert!(files(out.path()) == files(spoilt.path()));
            assert_eq!(report.changed, 0);
        }
        let mut tensors = parameters(&config);
        tensors.retain(|name, _| name.contains(".layers.1.") && name.contains(".experts.5."));
        tensors.get_mut(&name).unwrap().1[3] = 1e6;
        let wide = folder(&config, &tensors, ENCODINGS[0]);
        assert_eq!(
            join_refusal(&base, &[&wide]),
            format!("tensor {name} of S0 has values that are not finite as F16")
        );
    }
}

/// What should not happen: a base or a slice that is written over, or half a checkpoint.
#[test]
fn a_joined_checkpoint_is_written_to_a_folder_of_its_own() {
    let config = small(Family::Olmoe);
    let base = base_of(&config, Experts::PerExpert, 0, 2);
    let slice = slice(base.path(), &groups(&config)[0]);
    let before = [files(base.path()), files(slice.path())];
    let slices = [slice.path().to_owned()];
    for input in [&base, &slice] {
        for out in [input.path().to_owned(), input.path().join("out")] {
            let error = join_slices(base.path(), &slices, &out, &mut |_| {}).unwrap_err();
            assert!(error.to_string().ends_with("which is only read"), "{error}");
        }
    }
    assert_eq!([files(base.path()), files(slice.path())], before);
}
