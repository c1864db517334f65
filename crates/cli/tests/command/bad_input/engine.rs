//! Input of `inspect` and `bench` that cannot be used.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::{Ground, Row, replaced, row};

/// Rows of `inspect logits` and `inspect grads` with the same files, and what both should name.
fn both(options: &str, names: &[&'static str]) -> [Row; 2] {
    ["logits", "grads"].map(|what| {
        let mut arguments = format!("inspect {what} {options}");
        for (option, default) in [
            ("--model", "model"),
            ("--ids", "ids.json"),
            ("--experts", "experts.json"),
            ("--out", "out.safetensors"),
        ] {
            // Experts mean nothing to logits of all of them.
            let meant = option != "--experts" || what == "grads" || options.contains("--routing");
            if meant && !options.contains(option) {
                arguments = format!("{arguments} {option} {default}");
            }
        }
        row(&arguments, 2, names)
    })
}

/// A model whose only MoE layer is layer 1, with 8 experts and 300 ids at most.
fn ground() -> Ground {
    let ground = Ground::new();
    for name in ["model", "lacking"] {
        ground.model(name);
    }
    ground.change("lacking/model.safetensors", |weights| {
        replaced(&weights, "experts.2.up_proj", "experts.2.pu_proj")
    });
    for (name, content) in [
        ("ids.json", "[[1, 2, 3], [4, 5, 6]]"),
        ("experts.json", r#"{"1": [0, 2]}"#),
        ("kept.json", r#"{"1": [1, 3]}"#),
    ] {
        ground.write(name, content);
    }
    ground
}

#[test]
fn token_ids_that_cannot_be_run_are_named_with_their_file() {
    let ground = ground();
    let long: Vec<u32> = vec![1; 1000];
    for (name, content) in [
        ("torn.json", "[[1, 2, 3], [4".to_owned()),
        ("flat.json", "[1, 2, 3]".to_owned()),
        ("negative.json", "[[1, -2, 3]]".to_owned()),
        ("none.json", "[]".to_owned()),
        ("hollow.json", "[[], []]".to_owned()),
        ("uneven.json", "[[1, 2, 3], [4, 5]]".to_owned()),
        ("foreign.json", "[[1, 2, 3], [4, 50000, 6]]".to_owned()),
        ("long.json", format!("[{long:?}]")),
    ] {
        ground.write(name, content);
    }
    let ids = |file: &str, names: &[&'static str]| both(&format!("--ids {file}"), names);
    let rows = [
        ids("absent.json", &["absent.json"]),
        ids("torn.json", &["torn.json", "line 1"]),
        ids("flat.json", &["flat.json", "line 1"]),
        ids("negative.json", &["negative.json", "-2"]),
        ids("none.json", &["none.json"]),
        ids("hollow.json", &["hollow.json", "sequence 0"]),
        ids("uneven.json", &["uneven.json", "sequence 1"]),
        ids("foreign.json", &["foreign.json", "sequence 1", "50000"]),
        ids("long.json", &["long.json", "sequence 0", "1000"]),
    ];
    ground.check(&rows.into_iter().flatten().collect::<Vec<_>>());
}

#[test]
fn experts_and_routings_that_do_not_fit_the_model_are_named() {
    let ground = ground();
    for (name, content) in [
        ("list.json", "[0, 2]"),
        ("words.json", r#"{"one": [0, 2]}"#),
        ("dense.json", r#"{"0": [0]}"#),
        ("beyond.json", r#"{"7": [0]}"#),
        ("ninth.json", r#"{"1": [0, 8]}"#),
        ("nobody.json", "{}"),
        ("shared.json", r#"{"1": [2]}"#),
    ] {
        ground.write(name, content);
    }
    let masked = |file: &str, names: &[&'static str]| {
        both(&format!("--routing masked --experts {file}"), names)
    };
    let rows = [
        masked("absent.json", &["absent.json"]),
        masked("list.json", &["list.json", "line 1"]),
        masked("words.json", &["words.json", "line 1"]),
        masked("dense.json", &["dense.json", "layer 0"]),
        masked("beyond.json", &["beyond.json", "layer 7"]),
        masked("ninth.json", &["ninth.json", "layer 1", "expert 8"]),
        masked("nobody.json", &["nobody.json"]),
        both("--routing frozen-kept", &["frozen-kept", "--kept"]),
        both("--routing fallback", &["fallback", "--kept"]),
        both("--kept kept.json", &["kept.json", "classic"]),
        both(
            "--routing masked --kept kept.json",
            &["kept.json", "masked"],
        ),
        both("--routing fallback --kept absent.json", &["absent.json"]),
        both(
            "--routing fallback --kept ninth.json",
            &["ninth.json", "expert 8"],
        ),
        both(
            "--routing frozen-kept --kept shared.json",
            &["shared.json", "expert 2", "layer 1"],
        ),
    ];
    let mut rows: Vec<Row> = rows.into_iter().flatten().collect();
    rows.push(row(
        "inspect logits --model model --ids ids.json --routing masked --out out.safetensors",
        2,
        &["masked", "--experts"],
    ));
    rows.push(row(
        "inspect logits --model model --ids ids.json --experts experts.json --out out.safetensors",
        2,
        &["classic", "--experts", "experts.json"],
    ));
    ground.check(&rows);
}

/// What should not happen: that the last of two lists counts without a word.
#[test]
fn layers_and_experts_that_are_listed_twice_are_named() {
    let ground = ground();
    ground.write("again.json", r#"{"1": [0], "1": [2]}"#);
    ground.write("twins.json", r#"{"1": [0, 2, 0]}"#);
    let again = ["again.json", "layer 1", "twice"];
    let twins = ["twins.json", "layer 1", "expert 0", "twice"];
    let rows = [
        both("--routing masked --experts again.json", &again),
        both("--routing masked --experts twins.json", &twins),
        both("--routing fallback --kept again.json", &again),
    ];
    ground.check(&rows.into_iter().flatten().collect::<Vec<_>>());
}

#[test]
fn models_and_places_for_results_that_cannot_be_used_are_named() {
    let ground = ground();
    let rows = [
        both("--model absent", &["cannot read absent/config.json"]),
        both("--model lacking", &["lacking", "experts.2.up_proj"]),
        both("--out nowhere/out.safetensors", &["nowhere"]),
        both("--out model", &["model"]),
    ];
    ground.check(&rows.into_iter().flatten().collect::<Vec<_>>());
}

/// What should not happen: that a result takes the place of what the command reads, of something that
/// is no file, or of what a link points to.
#[test]
fn a_result_never_takes_the_place_of_anything_but_a_result() {
    let ground = ground();
    let at = |name: &str| ground.path(name);
    ground.write("elsewhere.json", "[]");
    symlink(at("elsewhere.json"), at("link.safetensors")).unwrap();
    ground.write("store/weights", "a downloaded file");
    symlink(at("store/weights"), at("model/extra.json")).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    let files = ["ids.json", "experts.json", "kept.json", "elsewhere.json"];
    let files = [&files[..], &["store/weights", "model/model.safetensors"]].concat();
    let read = || files.iter().map(|name| std::fs::read(at(name)).unwrap());
    let before: Vec<Vec<u8>> = read().collect();
    let kept = "--routing fallback --kept kept.json --out";
    let rows = [
        both("--out link.safetensors", &["link.safetensors", "regular"]),
        both("--out socket", &["socket", "regular"]),
        both("--out /dev/null", &["/dev/null", "regular"]),
        both("--out ./ids.json", &["./ids.json", "--ids"]),
        both(
            &format!("{kept} model/../kept.json"),
            &["kept.json", "--kept"],
        ),
        both(
            &format!("{kept} experts.json"),
            &["experts.json", "--experts"],
        ),
        both(
            "--out model/model.safetensors",
            &["model/model.safetensors", "--model"],
        ),
        both(
            "--out model/new.safetensors",
            &["model/new.safetensors", "--model"],
        ),
        both("--out store/weights", &["store/weights", "--model"]),
    ];
    ground.check(&rows.into_iter().flatten().collect::<Vec<_>>());
    assert!(before.into_iter().eq(read()), "a file has changed");
    assert!(!at("model/new.safetensors").exists());
}

#[test]
fn benchmarks_that_cannot_be_run_name_the_file_key_or_option() {
    let ground = ground();
    ground.write("torn.json", "{\"model_type\": ");
    ground.write("bare.json", r#"{"model_type": "deepseek_v2"}"#);
    let bench = |options: &str, names: &[&'static str]| {
        row(&format!("bench engine --config {options}"), 2, names)
    };
    ground.check(&[
        bench("absent.json", &["cannot read absent.json"]),
        bench("torn.json", &["torn.json", "line 1"]),
        bench("bare.json", &["bare.json", "key ", "is missing"]),
        bench(
            "model/config.json --trainable 9",
            &["--trainable 9", "8 experts"],
        ),
        bench("model/config.json --seq 300", &["--seq 300", "256"]),
    ]);
}
