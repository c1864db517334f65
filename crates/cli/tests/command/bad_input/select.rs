//! Input of `select` and `affinity` that cannot be used. Nothing is ever written.

use super::{Ground, Row, row};

const SCORES: &str = r#"{"1": {"0": 0.5, "1": 0.3, "2": 0.1, "3": 0.1}}"#;

fn summary(rows: &str) -> String {
    format!("{{\"token_scores\": {rows}, \"gate_scores\": {rows}}}")
}

/// A model whose only MoE layer is layer 1, with 8 experts; text; scores of 4 experts.
fn ground() -> Ground {
    let ground = Ground::new();
    ground.model("model");
    ground.write("text.jsonl", "{\"text\": \"one and one are two\"}\n");
    ground.write("scores.json", summary(SCORES));
    ground.write("out.json", "an earlier result");
    ground
}

/// Every file below the ground and its size.
fn files(ground: &Ground) -> Vec<(String, u64)> {
    let mut files = Vec::new();
    for folder in [ground.path("."), ground.path("model")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            files.push((
                format!("{:?}", entry.path()),
                entry.metadata().unwrap().len(),
            ));
        }
    }
    files.sort();
    files
}

fn refused(ground: &Ground, rows: &[Row]) {
    let before = files(ground);
    ground.check(rows);
    assert_eq!(files(ground), before, "something was written");
    assert_eq!(
        std::fs::read_to_string(ground.path("out.json")).unwrap(),
        "an earlier result"
    );
}

fn measured(options: &str, names: &[&'static str]) -> Row {
    let mut arguments = format!("select {options}");
    for (option, default) in [
        ("--model", "model"),
        ("--data", "text.jsonl"),
        ("--out", "out.json"),
    ] {
        if !options.contains(option) {
            arguments = format!("{arguments} {option} {default}");
        }
    }
    row(&arguments, 2, names)
}

fn recorded(options: &str, names: &[&'static str]) -> Row {
    let from = if options.contains("--from-scores") {
        ""
    } else {
        " --from-scores scores.json"
    };
    row(&format!("select {options}{from} --out out.json"), 2, names)
}

#[test]
fn rules_that_mean_nothing_are_refused_before_anything_is_read() {
    let ground = ground();
    let rows = ["0", "-0.1", "1.5", "NaN", "inf"].map(|p| {
        recorded(
            &format!("--from-scores absent.json --top-p {p}"),
            &["--top-p", "above 0 and at most 1"],
        )
    });
    refused(&ground, &rows);
    refused(
        &ground,
        &[
            recorded(
                "--from-scores absent.json --top-k 0",
                &["--top-k", "at least 1"],
            ),
            recorded("--top-k 5", &["scores.json", "layer 1", "4 experts"]),
            recorded(
                "--top-k 3 --groups 2 --within-group 0",
                &["group 0", "2 experts"],
            ),
            measured("--top-k 9 --data absent.jsonl", &["model", "8 experts"]),
            measured(
                "--top-k 5 --groups 2 --within-group 1 --data absent.jsonl",
                &["4 experts"],
            ),
            row("select --out out.json", 2, &["--model", "--from-scores"]),
            row("select --model model --out out.json", 2, &["--data"]),
        ],
    );
}

#[test]
fn groups_that_there_are_not_are_named() {
    let ground = ground();
    let mapping = |group, experts: &str, layer| {
        format!(
            "{{\"group_id\": {group}, \"expert_indices\": [{experts}], \"layer_indices\": [{layer}], \
             \"miner_hotkeys\": [], \"param_keys\": [\"model.layers.{layer}.mlp.experts.{experts}.up_proj.weight\"]}}"
        )
    };
    let partition =
        |groups: &[String]| format!("{{\"groups\": [{}], \"hash\": \"\"}}", groups.join(","));
    ground.write("layer.json", partition(&[mapping(0, "0", 7)]));
    ground.write("torn.json", "{\"groups\": [");
    let whole = super::connito("partition --model model --groups 2 --json".split(' '));
    let whole = { whole }.current_dir(ground.path(".")).output().unwrap();
    ground.write("whole.json", String::from_utf8(whole.stdout).unwrap());
    refused(
        &ground,
        &[
            recorded("--groups 2", &["--within-group"]),
            recorded("--strategy strided", &["--strategy", "--within-group"]),
            recorded(
                "--partition whole.json --within-group 0",
                &["whole.json", "expert 4 of layer 1 has no score"],
            ),
            recorded(
                "--groups 2 --within-group 2",
                &["--within-group 2", "2 groups"],
            ),
            recorded(
                "--groups 3 --within-group 0",
                &["3 groups", "--allow-uneven"],
            ),
            recorded("--groups 9 --within-group 0", &["9 groups", "4 experts"]),
            recorded(
                "--groups 2 --within-group 0 --strategy explicit",
                &["--assignment"],
            ),
            recorded(
                "--groups 2 --within-group 0 --strategy coactivation",
                &["--model"],
            ),
            recorded("--partition absent.json --within-group 0", &["absent.json"]),
            recorded("--partition torn.json --within-group 0", &["torn.json"]),
            recorded(
                "--partition layer.json --within-group 0",
                &["layer.json", "hash"],
            ),
            measured("--groups 2 --within-group 5", &["--within-group 5"]),
        ],
    );
}

#[test]
fn scores_that_cannot_be_used_are_named_with_their_file() {
    let ground = ground();
    for (name, rows) in [
        ("huge.json", r#"{"1": {"0": 0.5, "1": 1e999}}"#),
        ("nan.json", r#"{"1": {"0": 0.5, "1": NaN}}"#),
        ("negative.json", r#"{"1": {"0": 0.5, "1": -0.5}}"#),
        ("word.json", r#"{"one": {"0": 0.5}}"#),
        ("twice.json", r#"{"1": {"0": 0.5}, "1": {"0": 0.5}}"#),
        (
            "hole.json",
            r#"{"1": {"0": 0.5, "2": 0.5}, "2": {"0": 0.5, "1": 0.5}}"#,
        ),
        ("none.json", "{}"),
        ("dense.json", r#"{"0": {"0": 1}}"#),
    ] {
        ground.write(name, summary(rows));
    }
    ground.write("list.json", "[]");
    let from =
        |file: &str, names: &[&'static str]| recorded(&format!("--from-scores {file}"), names);
    refused(
        &ground,
        &[
            from("absent.json", &["cannot read absent.json"]),
            from("model", &["cannot read model"]),
            from("list.json", &["list.json", "not a score summary"]),
            from("huge.json", &["huge.json", "layer 1", "expert 1"]),
            from("nan.json", &["nan.json", "layer 1", "expert 1"]),
            from(
                "negative.json",
                &["negative.json", "layer 1", "expert 1", "-0.5"],
            ),
            from("word.json", &["word.json", "\"one\""]),
            from("twice.json", &["twice.json", "layer 1", "twice"]),
            from("hole.json", &["hole.json", "layer 1", "expert 1"]),
            from("none.json", &["none.json", "no scores"]),
            from("dense.json --model model", &["dense.json", "layer 0"]),
            from(
                "scores.json --model model",
                &["scores.json", "layer 1", "4 experts", "8"],
            ),
            from("scores.json --model absent", &["absent"]),
        ],
    );
}

#[test]
fn models_and_texts_that_cannot_be_run_are_named() {
    let ground = ground();
    for model in ["mute", "foreign", "narrow", "spoilt"] {
        ground.model(model);
    }
    std::fs::remove_file(ground.path("mute/tokenizer.json")).unwrap();
    ground.write("foreign/config.json", r#"{"model_type": "llama"}"#);
    ground.change("narrow/config.json", |json| {
        let text = String::from_utf8(json).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["vocab_size"] = 20.into();
        config.to_string().into_bytes()
    });
    // All bits set are no number.
    ground.change("spoilt/model.safetensors", |mut weights| {
        let data = 8 + u64::from_le_bytes(*weights.first_chunk().unwrap()) as usize;
        weights[data..].fill(0xff);
        weights
    });
    ground.write("empty.jsonl", "\n\n");
    ground.write("torn.jsonl", "{\"text\": \"good\"}\n{\"text\": ");
    let mut rows = vec![row(
        "affinity --model model --data text.jsonl --groups 9",
        2,
        &["9", "8"],
    )];
    for (options, name) in [
        ("--model absent", "absent"),
        ("--model mute", "mute/tokenizer.json"),
        ("--model foreign", "llama"),
        ("--model narrow", "narrow"),
        ("--model spoilt", "spoilt: the router of layer 1"),
        ("--data absent.jsonl", "absent.jsonl"),
        ("--data empty.jsonl", "empty.jsonl"),
        ("--data torn.jsonl", "torn.jsonl, line 2"),
        ("--data model", "model"),
    ] {
        rows.push(measured(options, &[name]));
        let default = match options.contains("--model") {
            true => "--data text.jsonl",
            false => "--model model",
        };
        let affinity = format!("affinity {options} {default} --groups 2 --heat-map map.svg");
        rows.push(row(&affinity, 2, &[name]));
    }
    refused(&ground, &rows);
}

#[test]
fn results_do_not_take_the_place_of_input() {
    let ground = ground();
    ground.write("list.json", r#"{"1": [[0, 0]]}"#);
    refused(
        &ground,
        &[
            measured("--out nowhere/out.json", &["nowhere"]),
            measured("--out model", &["model", "regular file"]),
            measured("--out text.jsonl", &["text.jsonl", "--data"]),
            measured("--out model/config.json", &["model/config.json", "--model"]),
            measured("--scores-out out.json", &["--scores-out", "out.json"]),
            recorded(
                "--scores-out scores.json",
                &["scores.json", "--from-scores"],
            ),
            row(
                "affinity --model model --data text.jsonl --groups 2 --heat-map text.jsonl",
                2,
                &["--heat-map", "--data"],
            ),
            row(
                "affinity --model model --data text.jsonl --assignment list.json --groups 2 \
                 --heat-map list.json",
                2,
                &["--heat-map", "--assignment"],
            ),
            measured(
                "--within-group 0 --assignment list.json --groups 2 --out list.json",
                &["--out", "--assignment"],
            ),
            measured(
                "--within-group 0 --partition list.json --scores-out list.json",
                &["--scores-out", "--partition"],
            ),
        ],
    );
}
