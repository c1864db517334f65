//! `train` on a small random model: what changes, what does not, and what it says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use connito_engine::tokenizer::Tokenizer;
use connito_engine::{Model, ModelConfig, parse_expert_name};
use serde_json::Value;
use tempfile::TempDir;

use super::connito;

/// A model, two domains and a file of experts.
struct Ground(TempDir);

impl Ground {
    fn new() -> Self {
        let ground = Self(tempfile::tempdir().unwrap());
        let sums = documents(|number| format!("{number} and {number} are {}", 2 * number));
        let words = documents(|number| {
            format!("the {number} th word of a long and winding tale is told here")
        });
        let texts = sums.iter().chain(&words).map(String::as_str);
        let tokenizer = Tokenizer::train(texts, 300).unwrap();
        let mut config = ModelConfig {
            hidden_size: 16,
            intermediate_size: 16,
            num_hidden_layers: 3,
            ..ModelConfig::tiny(tokenizer.vocabulary())
        };
        config.mixture.width = 8;
        Model::random(&config, 1)
            .save(&ground.path("model"))
            .unwrap();
        tokenizer
            .save(&ground.path("model/tokenizer.json"))
            .unwrap();
        std::fs::write(ground.path("model/LICENSE.md"), "as you like").unwrap();
        for (name, texts) in [("sums.jsonl", &sums), ("words.jsonl", &words)] {
            let lines = texts
                .iter()
                .map(|text| format!("{{\"text\": \"{text}\"}}\n"));
            std::fs::write(ground.path(name), lines.collect::<String>()).unwrap();
        }
        let experts = r#"{"experts": {"1": [5, 0, 2], "2": [3, 1]}, "shared_experts": false}"#;
        std::fs::write(ground.path("experts.json"), experts).unwrap();
        let kept = r#"{"experts": {"1": [1], "2": [0]}}"#;
        std::fs::write(ground.path("kept.json"), kept).unwrap();
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn output(&self, arguments: &str) -> Output {
        connito(format!("train {arguments}").split(' '))
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    /// Two domains, few short steps.
    fn trained(&self, arguments: &str) -> Value {
        let output = self.output(&format!(
            "--model model --data sums.jsonl --data words.jsonl --steps 10 --batch 4 \
             --sequence-length 24 --learning-rate 1e-2 --json {arguments}"
        ));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments}: {told}");
        assert_eq!(told, "", "progress is for terminals");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn documents(text: impl Fn(u32) -> String) -> Vec<String> {
    (0..300).map(text).collect()
}

fn tensors(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let model = Model::load(folder).unwrap();
    let named = model
        .names()
        .map(|name| (name.to_owned(), model.tensor(name).unwrap().values));
    named.collect()
}

/// What should happen: both domains are learnt, and the folder is a whole model. What should not happen: a
/// change outside the listed experts.
#[test]
fn both_trainers_change_the_listed_experts_and_nothing_else() {
    let ground = Ground::new();
    let before = tensors(&ground.path("model"));
    for trainer in ["esft", "des-moe"] {
        let result = ground.trained(&format!(
            "--trainer {trainer} --experts experts.json --out {trainer}"
        ));
        assert_eq!(result["trainer"], trainer);
        assert_eq!(result["experts"], 5);
        assert_eq!(result["trained_parameters"], 5 * 3 * 16 * 8);
        for (domain, name) in result["domains"]
            .as_array()
            .unwrap()
            .iter()
            .zip(["sums", "words"])
        {
            assert_eq!(domain["name"], name);
            let (from, to) = (domain["before"].as_f64(), domain["after"].as_f64());
            assert!(to.unwrap() < from.unwrap(), "{result}");
        }
        for (name, after) in tensors(&ground.path(trainer)) {
            let listed = [(1, 5), (1, 0), (1, 2), (2, 3), (2, 1)];
            let listed = parse_expert_name(&name).is_some_and(|at| listed.contains(&at));
            assert_eq!(after != before[&name], listed, "{name}");
        }
        for companion in ["tokenizer.json", "LICENSE.md", "config.json"] {
            let read = |folder: &str| std::fs::read(ground.path(folder).join(companion)).unwrap();
            assert_eq!(read(trainer), read("model"), "{companion}");
        }
    }
}

#[test]
fn every_routing_trains_and_the_same_seed_gives_the_same_bytes() {
    let ground = Ground::new();
    std::fs::create_dir(ground.path("empty")).unwrap();
    let weights =
        |folder: &str| std::fs::read(ground.path(folder).join("model.safetensors")).unwrap();
    for (routing, kept) in [
        ("masked", ""),
        ("frozen-kept", " --kept kept.json"),
        ("fallback", " --kept kept.json"),
    ] {
        for trainer in ["esft", "des-moe"] {
            let arguments = format!(
                "--experts experts.json --routing {routing}{kept} --trainer {trainer} --out"
            );
            let result = ground.trained(&format!("{arguments} {routing}-{trainer}"));
            assert_eq!(result["routing"], routing);
        }
    }
    let again = "--experts experts.json --routing masked --threads 1 --out empty";
    ground.trained(again);
    assert_eq!(weights("empty"), weights("masked-esft"));
}

/// All of `--data` is trained on then, and the losses are those of the other file.
#[test]
fn held_out_files_take_the_place_of_pools() {
    let ground = Ground::new();
    let result = ground.trained("--held-out words.jsonl --held-out sums.jsonl --out crossed");
    let domains = result["domains"].as_array().unwrap();
    assert_eq!(domains[0]["name"], "sums");
    let tokens = |index: usize| domains[index]["tokens"].as_u64().unwrap();
    assert!(
        tokens(0) > tokens(1),
        "words are longer than sums: {result}"
    );
    assert_eq!(result["experts"], 16, "all of both layers");
}

#[test]
fn people_get_a_table() {
    let ground = Ground::new();
    let output = ground.output("--model model --data sums.jsonl --steps 1 --batch 1 --out out");
    let told = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 4, "{told}");
    assert!(lines[0].starts_with("domain") && lines[1].starts_with("sums"));
    assert!(
        lines[2].starts_with("1 steps, ") && lines[3] == "out",
        "{told}"
    );
}

/// Options that cannot be used, and what the complaint names. Without `--model`, those of a good run stand
/// before them.
const UNUSABLE: [(&str, &str); 24] = [
    ("--model absent --data sums.jsonl --out out", "absent"),
    ("--model model --data model --out out", "model"),
    ("--model model --data few.jsonl --out out", "few"),
    ("--out full", "full"),
    ("--out file", "file"),
    ("--out no/out", "no/out"),
    ("--out model/out", "model/out"),
    ("--experts twice.json --out out", "twice.json"),
    ("--experts dense.json --out out", "dense.json"),
    ("--experts absent.json --out out", "absent.json"),
    ("--experts none.json --out out", "none.json"),
    ("--experts shared.json --out out", "shared_experts"),
    ("--experts bare.json --out out", "bare.json"),
    ("--experts one.json --routing masked --out out", "layer 2"),
    ("--routing fallback --out out", "--kept"),
    ("--kept kept.json --out out", "--kept kept.json"),
    ("--routing fallback --kept kept.json --out out", "kept.json"),
    ("--sequence-length 100000 --out out", "--sequence-length"),
    (
        "--held-out sums.jsonl --held-out sums.jsonl --out out",
        "--held-out",
    ),
    ("--data words.jsonl --batch 1 --out out", "--batch 1"),
    ("--learning-rate NaN --out out", "--learning-rate"),
    ("--steps 0 --out out", "--steps"),
    (
        "--learning-rate 3e38 --steps 9 --experts one.json --out out",
        "not finite",
    ),
    // The last step is not followed by another that would notice.
    (
        "--learning-rate 1e30 --steps 1 --out out",
        "--learning-rate",
    ),
];

/// What should happen: code 2, and one sentence that names the thing at fault. What should not happen: a
/// trace of a result.
#[test]
fn input_that_cannot_be_used_leaves_nothing_behind() {
    let ground = Ground::new();
    let write = |name: &str, text: &str| std::fs::write(ground.path(name), text).unwrap();
    write("twice.json", r#"{"experts": {"1": [0, 0]}}"#);
    write("dense.json", r#"{"experts": {"0": [1]}}"#);
    write("absent.json", r#"{"experts": {"1": [8]}}"#);
    write("one.json", r#"{"experts": {"1": [0]}}"#);
    write("none.json", r#"{"experts": {}}"#);
    write(
        "shared.json",
        r#"{"experts": {"1": [0]}, "shared_experts": true}"#,
    );
    write("bare.json", r#"{"1": [0]}"#);
    write("few.jsonl", "{\"text\": \"one\"}\n");
    write("file", "");
    std::fs::create_dir(ground.path("full")).unwrap();
    write("full/precious", "");
    let before = std::fs::read_dir(ground.0.path()).unwrap().count();

    for (options, names) in UNUSABLE {
        let arguments = match options.starts_with("--model") {
            true => options.to_owned(),
            false => format!("--model model --data sums.jsonl {options}"),
        };
        let output = ground.output(&arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {told}");
        assert!(
            told.contains(names) && !told.contains("panicked"),
            "{arguments}: {told}"
        );
        assert!(output.stdout.is_empty());
    }
    let after = std::fs::read_dir(ground.0.path()).unwrap().count();
    assert_eq!(after, before, "something was left behind");
    assert!(!ground.path("model/out").exists());
}
