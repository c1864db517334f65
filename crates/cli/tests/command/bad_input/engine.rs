//! Input of `inspect` and `bench` that cannot be used.

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
            if !options.contains(option) {
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
    ground.check(&rows);
}

#[test]
fn models_and_places_for_results_that_cannot_be_used_are_named() {
    let ground = ground();
    let rows = [
        both("--model absent", &["absent/config.json"]),
        both("--model lacking", &["lacking", "experts.2.up_proj"]),
        both("--out nowhere/out.safetensors", &["nowhere"]),
        both("--out model", &["model"]),
    ];
    ground.check(&rows.into_iter().flatten().collect::<Vec<_>>());
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
        bench("absent.json", &["absent.json"]),
        bench("torn.json", &["torn.json", "line 1"]),
        bench("bare.json", &["bare.json", "key ", "is missing"]),
        bench(
            "model/config.json --trainable 9",
            &["--trainable 9", "8 experts"],
        ),
        bench("model/config.json --seq 300", &["--seq 300", "256"]),
    ]);
}
