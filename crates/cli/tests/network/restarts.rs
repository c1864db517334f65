//! Killing processes of a running network, in every window of the cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use connito_protocol::event::{Effect, Event, Milestone, UploadAnswer};
use connito_protocol::ids::{Cycle, Hotkey};
use serde_json::Value;

use super::progress::{Network, signal};
use super::{STAGE, assert_every_journal_replays, cast, steps};

/// Who is killed when: one validator and one honest miner in every window, each once the one before
/// is long back, and in between the two that everybody depends on.
const KILLS: [(u64, &str, &[&str]); 8] = [
    (0, "distribute", &["validator-0", "miner-0"]),
    (0, "seal", &["validator-1", "miner-1"]),
    (0, "score", &["validator-2", "miner-2"]),
    (1, "train", &["validator-0", "miner-3"]),
    (1, "reveal", &["validator-1", "miner-0"]),
    (1, "vote", &["validator-2", "miner-1"]),
    (2, "distribute", &["owner"]),
    (2, "reveal", &["chain"]),
];

/// What should happen: whoever is killed comes back, replays its journal and takes up the cycle; the
/// run keeps every promise that an undisturbed run keeps. What should not: an update that a validator
/// took and then forgot, or one scored twice.
#[test]
fn processes_killed_in_every_window_come_back_and_the_run_keeps_its_promises() {
    let _turn = STAGE.turn();
    let mut network = Network::start(&STAGE.out("killed"), &["--processes", "--cycles", "3"]);
    let out = network.out.clone();
    let mut deaths: BTreeMap<&str, u32> = BTreeMap::new();
    for (cycle, window, names) in KILLS {
        network.wait_for(|network, fact| {
            opens(fact, cycle, window)
                && names
                    .iter()
                    .all(|name| network.processes.contains_key(*name))
        });
        for name in names {
            assert!(signal("KILL", network.processes[*name]), "{name} is up");
            *deaths.entry(name).or_default() += 1;
        }
        for name in names {
            let starts = 1 + deaths[name];
            network.wait_for_start(name, starts);
        }
    }
    let ended = network.finish();

    assert_eq!(ended.code, Some(0), "{}", ended.told);
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(summary["broken_invariants"], serde_json::json!([]));
    assert_every_journal_replays(&out);
    for name in cast().iter().filter(|name| name.starts_with("validator")) {
        assert_no_accepted_upload_is_lost_or_scored_twice(&out, name);
    }
}

fn opens(fact: &Value, cycle: u64, window: &str) -> bool {
    fact["event"] == "window" && fact["cycle"] == cycle && fact["window"] == window
}

impl Network {
    fn wait_for_start(&mut self, name: &str, starts: u32) {
        while self.starts.get(name).copied().unwrap_or(0) < starts {
            self.wait_for(|_, fact| fact["started"] == name);
        }
    }
}

/// Whatever a validator answered with "accepted" is among what it measured in that cycle, and it
/// measured each cycle at most once.
fn assert_no_accepted_upload_is_lost_or_scored_twice(out: &Path, name: &str) {
    let mut accepted: BTreeMap<Cycle, BTreeSet<Hotkey>> = BTreeMap::new();
    let mut measured: BTreeMap<Cycle, BTreeSet<Hotkey>> = BTreeMap::new();
    for step in steps(out, name) {
        for effect in &step.effects {
            match (&step.event, effect) {
                (
                    Event::Uploaded { hotkey, cycle, .. },
                    Effect::Answer {
                        answer: UploadAnswer::Accepted,
                        ..
                    },
                ) => {
                    accepted.entry(*cycle).or_default().insert(*hotkey);
                }
                (_, Effect::Tell(Milestone::Measured { cycle, findings })) => {
                    let hotkeys = findings.iter().map(|(hotkey, _)| *hotkey).collect();
                    let before = measured.insert(*cycle, hotkeys);
                    assert_eq!(before, None, "{name} scored cycle {cycle} twice");
                }
                _ => {}
            }
        }
    }
    assert!(!measured.is_empty(), "{name} never scored");
    for (cycle, measured) in &measured {
        let accepted = accepted.remove(cycle).unwrap_or_default();
        assert!(
            accepted.is_subset(measured),
            "{name} took an update in cycle {cycle} and did not score it"
        );
    }
}
