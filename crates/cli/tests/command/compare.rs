//! `compare`: what the real command prints, writes and refuses.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::connito;

fn run(options: &str) -> Output {
    let options = ["compare"].into_iter().chain(options.split_whitespace());
    connito(options).output().unwrap()
}

fn printed(options: &str) -> String {
    let output = run(options);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{options}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

fn compared(options: &str) -> Value {
    let line = printed(&format!("{options} --json"));
    assert_eq!(line.lines().count(), 1);
    serde_json::from_str(&line).unwrap()
}

/// One strategy of one model.
fn strategy<'a>(comparison: &'a Value, model: &str, name: &str) -> &'a Value {
    let find = |list: &'a Value, key: &str, value: &str| {
        let list = list.as_array().unwrap();
        list.iter().find(|entry| entry[key] == value).unwrap()
    };
    let model = find(&comparison["models"], "model", model);
    find(&model["strategies"], "strategy", name)
}

fn number(value: &Value, key: &str) -> f64 {
    value[key]
        .as_f64()
        .unwrap_or_else(|| panic!("no {key} in {value}"))
}

#[test]
fn the_page_fits_its_width() {
    for options in [
        "--fail 0,2.5,7.25,15,60,90 --models qwen3-30b-a3b --hours 1",
        "",
        "--models dense-70b --workers 2048 --latency 10000 --tflops 1000000 --down 999.9gbit",
    ] {
        let page = printed(options);
        let wide = page.lines().find(|line| line.chars().count() > 100);
        assert_eq!(wide, None, "{options}");
    }
}

/// Strategy, key and value of a model, worked out by hand or published.
const DENSE: [(&str, &str, f64); 10] = [
    ("data-parallel", "weights_bytes", 140e9),
    ("data-parallel", "training_bytes", 1120e9),
    ("data-parallel", "event_bytes", 278.906e9),
    ("data-parallel", "event_seconds", 111_563.0),
    ("data-parallel", "counted_events_per_hour", 1_536_000.0),
    ("data-parallel-sparse", "event_bytes", 1.91406e9),
    ("data-parallel-sparse", "counted_events_per_hour", 51_200.0),
    ("pipeline", "weights_bytes", 35e9),
    ("pipeline", "event_bytes", 33_554_400.0),
    ("pipeline", "bubble_share", 0.0447761),
];

/// The same of DeepSeek-V2-Lite in eight groups.
const LITE: [(&str, &str, f64); 3] = [
    ("expert-parallel", "weights_bytes", 6_221_978_624.0),
    ("expert-parallel", "event_bytes", 50_079_700.0),
    ("expert-parallel", "counted_events_per_hour", 1706.67),
];

#[test]
fn sizes_and_counts_are_those_of_the_accounts() {
    let all = compared("--hours 1 --fail 0 --models dense-70b,deepseek-v2-lite");
    let dense = DENSE.map(|figure| ("dense-70b", figure));
    let lite = LITE.map(|figure| ("deepseek-v2-lite", figure));
    for (model, (name, key, expected)) in dense.into_iter().chain(lite) {
        let found = number(strategy(&all, model, name), key);
        let off = (found / expected - 1.0).abs();
        assert!(
            off < 1e-5,
            "{model} {name} {key}: {found} instead of {expected}"
        );
    }
    assert_eq!(all["models"][0]["slice"], Value::Null);
}

#[test]
fn a_slice_is_that_of_the_plan() {
    let all = compared("--hours 1 --fail 0 --models qwen3-30b-a3b --groups 4 --experts 5");
    let slice = &all["models"][0]["slice"];
    let options = "plan --config qwen3-30b-a3b --groups 4 --experts 5 --json";
    let plan = connito(options.split(' ')).output().unwrap().stdout;
    let plan: Value = serde_json::from_slice(&plan).unwrap();
    assert_eq!(slice["held_parameters"], plan["parameters"]["held"]);
    assert_eq!(slice["trained_parameters"], plan["parameters"]["trained"]);
    assert_eq!(slice["planned_peak_bytes"], plan["memory"]["total"]);
}

/// What should happen: 256 miners deliver in every cycle; the network that a strategy is played on is the asked one.
#[test]
fn outcomes_follow_the_options() {
    let all = compared("--models deepseek-v2-lite --fail 30,0 --hours 3 --workers 64");
    let outcomes = &strategy(&all, "deepseek-v2-lite", "expert-parallel")["outcomes"];
    assert_eq!(
        [&outcomes[0]["failing"], &outcomes[1]["failing"]],
        [0.0, 0.3]
    );
    assert_eq!(number(&outcomes[0], "events_per_hour"), 426.667);
    let rates = [0, 1].map(|index| number(&outcomes[index], "merged_tokens_per_second"));
    assert!(
        rates[1] < 0.8 * rates[0] && rates[1] > 0.4 * rates[0],
        "{rates:?}"
    );
    let stopped = |replicas| {
        let options =
            format!("--models deepseek-v2-lite --fail 10 --hours 6 --replicas {replicas}");
        let all = compared(&options);
        number(
            &strategy(&all, "deepseek-v2-lite", "pipeline")["outcomes"][0],
            "running_share",
        )
    };
    assert!(
        stopped(4) > stopped(1) + 0.1,
        "replicas keep a pipeline running"
    );
}

#[test]
fn the_same_seed_prints_the_same_and_another_one_does_not() {
    let of = |seed| {
        printed(&format!(
            "--models dense-70b --hours 1 --seed {seed} --json"
        ))
    };
    assert_eq!(of(3), of(3));
    assert_ne!(of(3), of(4));
}

/// What should happen: six files in a new folder, or in the place of earlier ones. What should not: a file of
/// another name touched.
#[test]
fn a_folder_gets_the_numbers_and_the_figures() {
    let ground = tempfile::tempdir().unwrap();
    let out = ground.path().join("out");
    let options = format!(
        "--models qwen3-30b-a3b --hours 1 --json --out {}",
        out.display()
    );
    let line = printed(&options);
    fs::write(out.join("notes.txt"), "mine").unwrap();
    fs::write(out.join("comparison.json"), "old").unwrap();
    assert_eq!(printed(&options), line);
    assert_eq!(
        fs::read_to_string(out.join("comparison.json")).unwrap(),
        line
    );
    let entries = fs::read_dir(&out).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [
        "bytes-per-hour.svg",
        "comparison.json",
        "computing-share.svg",
        "events-per-hour.svg",
        "memory-per-worker.svg",
        "notes.txt",
        "throughput-under-failures.svg",
    ];
    assert_eq!(names, expected);
    for name in names.iter().filter(|name| name.ends_with(".svg")) {
        let svg = fs::read_to_string(out.join(name)).unwrap();
        assert!(
            svg.starts_with("<svg ") && svg.ends_with("</svg>\n"),
            "{name}"
        );
    }
}

/// What should happen: whoever changes a number, a claim or a figure changes the document as well.
#[test]
fn the_document_shows_what_the_command_prints_and_draws() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let document = fs::read_to_string(docs.join("COMPARISON.md")).unwrap();
    let ground = tempfile::tempdir().unwrap();
    let page = printed(&format!("--out {}", ground.path().display()));
    let shown: Vec<&str> = document
        .split("```text\n")
        .skip(1)
        .filter_map(|block| block.split("```").next())
        .collect();
    assert_eq!(shown.join("\n"), page, "docs/COMPARISON.md is out of date");
    for entry in fs::read_dir(ground.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".svg") {
            let kept = fs::read_to_string(docs.join("comparison").join(name)).unwrap();
            let drawn = fs::read_to_string(&path).unwrap();
            assert!(kept == drawn, "docs/comparison/{name} is out of date");
            assert!(document.contains(&format!("(comparison/{name})")));
        }
    }
}

/// One sentence that names what is at fault, exit code 2, and nothing printed or written.
#[test]
fn what_cannot_be_compared_is_named_and_nothing_is_written() {
    let ground = tempfile::tempdir().unwrap();
    fs::write(ground.path().join("file"), "mine").unwrap();
    fs::create_dir_all(ground.path().join("taken/comparison.json")).unwrap();
    for (options, names) in [
        ("--models gpt-9 --out new", ["gpt-9", "qwen3-30b-a3b"]),
        (
            "--models absent.json --out new",
            ["cannot read", "absent.json"],
        ),
        (
            "--models dense-70b,dense-70b --out new",
            ["dense-70b", "twice"],
        ),
        ("--models a,b,c,d,e,f,g --out new", ["--models", "6"]),
        ("--models , --out new", ["--models", "a name"]),
        ("--groups 7 --out new", ["--groups 7", "128"]),
        (
            "--groups 4294967295 --out new",
            ["--groups 4294967295", "128"],
        ),
        ("--fail 0,1,2,3,4,5,6 --out new", ["--fail", "6"]),
        (
            "--models dense-70b --hours 1 --out file",
            ["--out file", "no folder"],
        ),
        (
            "--models dense-70b --hours 1 --out absent/out",
            ["--out absent/out", "absent"],
        ),
        (
            "--models dense-70b --hours 1 --out taken",
            ["taken/comparison.json", "no regular file"],
        ),
    ] {
        let arguments = ["compare"].into_iter().chain(options.split(' '));
        let output = connito(arguments)
            .current_dir(ground.path())
            .output()
            .unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{options}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert!(output.stdout.is_empty(), "{options}");
        for name in names {
            assert!(complaint.contains(name), "{name} is not in: {complaint}");
        }
        assert!(!ground.path().join("new").exists(), "{options}");
    }
    assert_eq!(
        fs::read_to_string(ground.path().join("file")).unwrap(),
        "mine"
    );
    assert_eq!(
        fs::read_dir(ground.path().join("taken")).unwrap().count(),
        1
    );
}

#[test]
fn options_that_mean_nothing_are_refused_by_the_parser() {
    for options in [
        "--bandwidth 20",
        "--bandwidth -20mbit",
        "--down 0mbit",
        "--down 99999999999999999999gbit",
        "--fail 100",
        "--fail -1",
        "--fail nan",
        "--fail 0,,5",
        "--hours 0",
        "--hours 1000",
        "--workers 4",
        "--workers 70000",
        "--latency 10001",
        "--latency 0.5",
        "--tflops 0",
        "--tflops inf",
        "--replicas 0",
        "--experts 0",
        "--groups 0",
        "--seed -1",
        "--models",
    ] {
        let output = run(options);
        assert_eq!(output.status.code(), Some(2), "{options}");
        assert!(output.stdout.is_empty(), "{options}");
    }
}
