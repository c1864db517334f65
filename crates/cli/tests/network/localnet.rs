//! Undisturbed networks: what they promise, print and leave behind, and how they stop.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use connito_engine::{Model, Routing};
use serde_json::Value;

use super::progress::{Ended, Network, signal};
use super::{STAGE, assert_every_journal_replays};

/// How far the reported loss may be from one that is computed again: both are sums of f32 losses,
/// taken in another order.
const LOSS_TOLERANCE: f64 = 1e-5;

/// One run of the default cast, looked at by several tests.
pub(super) struct Rehearsal {
    pub(super) out: PathBuf,
    ended: Ended,
    pub(super) summary: Value,
}

pub(super) static REHEARSAL: LazyLock<Rehearsal> = LazyLock::new(|| {
    let _turn = STAGE.turn();
    let out = STAGE.out("rehearsal");
    let ended = Network::start(&out, &["--cycles", "2"]).finish();
    let text = std::fs::read_to_string(out.join("summary.json")).unwrap_or_default();
    Rehearsal {
        out,
        ended,
        summary: serde_json::from_str(&text).unwrap_or_default(),
    }
});

fn list<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key]
        .as_array()
        .unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_network_ends_well_and_prints_the_summary_that_it_writes() {
    let Rehearsal { ended, summary, .. } = &*REHEARSAL;
    assert_eq!(ended.code, Some(0), "{}", ended.told);
    let printed: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(&printed, summary);
    assert_eq!(summary["broken_invariants"], serde_json::json!([]));
}

/// What should happen: exactly the fields that README.md documents.
#[test]
fn the_summary_has_the_documented_fields_and_no_other() {
    let summary = &REHEARSAL.summary;
    assert_eq!(
        keys(summary),
        BTreeSet::from(["broken_invariants", "cycles", "final", "miners"])
    );
    let cycle = BTreeSet::from([
        "accepted",
        "bytes_fetched",
        "bytes_sent",
        "bytes_whole",
        "cycle",
        "heldout_loss_after",
        "heldout_loss_before",
        "passed_gate",
        "recomputed",
        "rejected",
        "rewards",
        "rewards_withheld",
        "state_hashes",
    ]);
    assert_eq!(list(summary, "cycles").len(), 2);
    assert!(
        list(summary, "cycles")
            .iter()
            .all(|told| keys(told) == cycle)
    );
    let miner = BTreeSet::from([
        "conduct",
        "experts_trained",
        "group",
        "hotkey",
        "name",
        "reason_codes",
        "reward",
    ]);
    assert_eq!(list(summary, "miners").len(), 6);
    assert!(
        list(summary, "miners")
            .iter()
            .all(|told| keys(told) == miner)
    );
    let last = BTreeSet::from(["heldout_loss", "heldout_loss_by_domain", "state_hash"]);
    assert_eq!(keys(&summary["final"]), last);

    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    for field in cycle.iter().chain(&miner).chain(&last) {
        // README.md shortens the second of a pair to its ending.
        let named = readme.contains(field) || *field == "heldout_loss_after";
        assert!(named, "README.md does not explain {field}");
    }
}

#[test]
fn every_cycle_agrees_on_one_state_and_pays_everything_out_or_withholds_it() {
    let cycles = list(&REHEARSAL.summary, "cycles");
    for (position, cycle) in cycles.iter().enumerate() {
        let states = cycle["state_hashes"].as_object().unwrap();
        let distinct: BTreeSet<&str> = states
            .values()
            .map(|state| state.as_str().unwrap())
            .collect();
        assert_eq!((states.len(), distinct.len()), (3, 1), "{cycle}");
        let paid: f64 = cycle["rewards"]
            .as_object()
            .unwrap()
            .values()
            .map(number)
            .sum();
        assert!((paid - 1.0).abs() < 1e-9, "{cycle}");
        let miners = list(&REHEARSAL.summary, "miners").iter();
        let codes: Vec<&Value> = miners
            .map(|miner| &list(miner, "reason_codes")[position])
            .filter(|code| !code.is_null())
            .collect();
        let accepted = codes.iter().filter(|code| **code == "accepted").count();
        let told = (cycle["accepted"].as_u64(), cycle["rejected"].as_u64());
        let counted = (accepted as u64, (codes.len() - accepted) as u64);
        assert_eq!(told, (Some(counted.0), Some(counted.1)), "{cycle}");
    }
    assert_eq!(
        cycles[0]["heldout_loss_after"], cycles[1]["heldout_loss_before"],
        "a cycle begins where the last one ended"
    );
    let last = &REHEARSAL.summary["final"];
    assert_eq!(cycles[1]["heldout_loss_after"], last["heldout_loss"]);
    let before = number(&cycles[0]["heldout_loss_before"]);
    assert!(
        number(&last["heldout_loss"]) < before,
        "nothing was learned"
    );
}

#[test]
fn copying_and_damage_earn_nothing_and_honest_work_does() {
    for miner in list(&REHEARSAL.summary, "miners") {
        let accepted = list(miner, "reason_codes")
            .iter()
            .filter(|code| **code == "accepted");
        let (accepted, reward) = (accepted.count(), number(&miner["reward"]));
        match miner["conduct"].as_str().unwrap() {
            "honest" => assert_eq!(accepted > 0, reward > 0.0, "{miner}"),
            _ => assert_eq!((accepted, reward), (0, 0.0), "{miner}"),
        }
    }
    let conduct: Vec<&str> = list(&REHEARSAL.summary, "miners")
        .iter()
        .map(|miner| miner["conduct"].as_str().unwrap())
        .collect();
    let expected = [
        "honest", "honest", "honest", "honest", "copying", "damaging",
    ];
    assert_eq!(conduct, expected);
}

/// What should happen: the loss that a stranger computes from `model/` and `heldout.jsonl` alone is
/// the one in the summary, over everything and domain by domain.
#[test]
fn the_final_loss_can_be_computed_again_from_what_is_left_behind() {
    let Rehearsal { out, summary, .. } = &*REHEARSAL;
    let model = Model::load(&out.join("model")).unwrap();
    let text = std::fs::read_to_string(out.join("heldout.jsonl")).unwrap();
    let lines: Vec<(String, Vec<u32>)> = text
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(keys(&line), BTreeSet::from(["domain", "ids"]));
            let ids = serde_json::from_value(line["ids"].clone()).unwrap();
            (line["domain"].as_str().unwrap().to_owned(), ids)
        })
        .collect();
    let mean = |domain: Option<&str>| {
        let chosen = lines
            .iter()
            .filter(|(of, _)| domain.is_none_or(|domain| domain == of));
        let sequences: Vec<&[u32]> = chosen.map(|(_, ids)| ids.as_slice()).collect();
        let losses = model
            .sequence_losses(&sequences, &Routing::Classic)
            .unwrap();
        let tokens: usize = losses.iter().map(|loss| loss.tokens).sum();
        losses.iter().map(|loss| loss.sum).sum::<f64>() / tokens as f64
    };
    let last = &summary["final"];
    let close = |told: &Value, domain| {
        let (told, again) = (number(told), mean(domain));
        assert!(
            (told - again).abs() < LOSS_TOLERANCE,
            "{domain:?}: {told} and {again}"
        );
    };
    close(&last["heldout_loss"], None);
    let domains = last["heldout_loss_by_domain"].as_object().unwrap();
    assert_eq!(domains.len(), 3);
    for (domain, told) in domains {
        close(told, Some(domain));
    }
}

#[test]
fn a_run_leaves_what_the_readme_lists_and_every_journal_replays() {
    let out = &REHEARSAL.out;
    for file in [
        "summary.json",
        "heldout.jsonl",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "config/chain.toml",
        "config/miner-5.toml",
        "keys/owner.json",
    ] {
        assert!(out.join(file).is_file(), "{file} is missing");
    }
    for folder in ["journal", "chain", "blobs", "config", "keys", "roles"] {
        let mut entries = out.join(folder).read_dir().unwrap();
        assert!(entries.next().is_some(), "{folder} is empty");
    }
    assert!(!out.join("log").exists(), "there were no processes to log");
    assert_every_journal_replays(out);
}

/// What should happen: an interrupt stops every process before the command itself ends, and what is
/// left may be replaced by the next run, here one on a file of somebody else's text.
#[test]
fn an_interrupted_run_leaves_no_process_and_gives_way_to_the_next() {
    let _turn = STAGE.turn();
    let out = STAGE.out("interrupted");
    let mut network = Network::start(&out, &["--processes"]);
    network.wait_for(|_, fact| fact["event"] == "window" && fact["window"] == "train");
    let processes: Vec<u32> = network.processes.values().copied().collect();
    assert_eq!(processes.len(), 11, "ten roles and the chain");
    assert!(signal("INT", network.process()));
    let ended = network.finish();
    assert_eq!(ended.code, Some(130), "{}", ended.told);
    assert!(
        ended.told.ends_with("connito: interrupted\n"),
        "{}",
        ended.told
    );
    for process in processes {
        assert!(!signal("0", process), "process {process} is still there");
    }

    assert!(out.join("log").is_dir());
    let data = mathematics();
    let mut arguments = vec!["--cycles", "1"];
    if let Some(data) = &data {
        arguments.extend(["--data", data.to_str().unwrap()]);
    }
    let ended = Network::start(&out, &arguments).finish();
    assert_eq!(ended.code, Some(0), "{}", ended.told);
    assert!(
        !out.join("log").exists(),
        "something of the run before is left"
    );
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    let domains = keys(&summary["final"]["heldout_loss_by_domain"]);
    let of_file = BTreeSet::from(["train"]);
    assert_eq!(domains == of_file, data.is_some(), "{domains:?}");
}

/// Grade-school mathematics (GSM8K) beside the repository, where somebody has put it.
fn mathematics() -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/gsm8k/train.jsonl");
    if !file.is_file() {
        eprintln!(
            "{} is not there: the built-in text is used instead",
            file.display()
        );
        return None;
    }
    Some(file)
}
