//! `sim` and what it leaves behind: equal seeds give equal results, every scenario in `simulations/` is
//! one, a run that fails says so and can be shown again, and bad input leaves nothing behind.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use super::connito;

/// A network that is over in a moment.
const SMALL: &str = "cycles = 2\n[validators]\nhonest = 3\n[miners]\nhonest = 4\n";

/// Disks that lose what they called durable: no role survives that.
const LYING: &str = "cycles = 3\n[validators]\nhonest = 3\n[miners]\nhonest = 4\n[faults]\n\
    crashes_per_cycle = 20\nlost_records_percent = 100\n";

fn folder(scenario: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("net.toml"), scenario).unwrap();
    folder
}

fn run(folder: &TempDir, arguments: &str) -> Output {
    connito(arguments.split(' '))
        .current_dir(folder.path())
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    let text = str::from_utf8(&output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    serde_json::from_str(text).unwrap()
}

fn last_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().last().unwrap_or_default().to_owned()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// Everything but the time that it took, on one thread or on two.
#[test]
fn equal_seeds_give_equal_results() {
    let folder = folder(SMALL);
    let result = |threads: &str| {
        let output = run(
            &folder,
            &format!("sim net.toml --seeds 3 --threads {threads} --json"),
        );
        assert_eq!(output.status.code(), Some(0), "{}", last_line(&output));
        let mut result = json(&output);
        assert!(result["elapsed_seconds"].take().is_f64());
        result
    };
    let one = result("1");
    assert_eq!(one, result("2"));
    assert_eq!(
        (one["violations"].as_u64(), one["seeds"].as_u64()),
        (Some(0), Some(3))
    );
    assert_eq!(one["honest_reward_share"].as_f64(), Some(1.0));
    assert_eq!(
        names(folder.path()),
        ["net.toml"],
        "a run that holds leaves nothing behind"
    );
}

/// What should happen: exit code 1, the seed named, a trace, and a replay that ends as the run did.
#[test]
fn a_failing_run_is_named_kept_and_shown_again() {
    let folder = folder(LYING);
    let output = run(&folder, "sim net.toml --seeds 5 --trace net.trace --json");
    assert_eq!(output.status.code(), Some(1));
    let result = json(&output);
    let failure = &result["failures"][0];
    let invariant = failure["invariant"].as_str().unwrap().to_owned();
    assert!(last_line(&output).contains(&format!("seed {} violates {invariant}", failure["seed"])));

    let shown = run(&folder, "replay net.trace");
    assert_eq!(shown.status.code(), Some(0), "{}", last_line(&shown));
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains(&invariant), "{text}");
    let shown = json(&run(&folder, "replay net.trace --json"));
    assert_eq!(shown["reproduced"].as_bool(), Some(true));
    assert_eq!(shown["invariant"].as_str(), Some(invariant.as_str()));
    assert_eq!(
        shown["steps"],
        shown["lines"].as_array().unwrap().last().unwrap()["step"]
    );
}

/// The recipe of docs/SIMULATOR.md, word for word, on a shipped scenario in which nothing goes wrong.
#[test]
fn any_scenario_can_be_made_to_fail_as_the_documents_say() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../simulations/calm.toml");
    let calm = std::fs::read_to_string(shipped).unwrap();
    let recipe = "\n[faults]\nlost_records_percent = 100\ncrashes_per_cycle = 20\n";
    let folder = folder(&format!("{calm}{recipe}"));
    let output = run(&folder, "sim net.toml");
    assert_eq!(output.status.code(), Some(1), "{}", last_line(&output));
    assert_eq!(names(folder.path()), ["net-1.trace", "net.toml"]);
    let shown = run(&folder, "replay net-1.trace");
    assert_eq!(shown.status.code(), Some(0), "{}", last_line(&shown));
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("seed 1 violates"), "{text}");
}

/// A trace whose run no longer fails, and one that is none.
#[test]
fn a_trace_that_does_not_fail_any_more_is_said_to_be_one() {
    let folder = folder(LYING);
    run(&folder, "sim net.toml --seeds 5 --trace net.trace");
    let trace = std::fs::read_to_string(folder.path().join("net.trace")).unwrap();
    let honest = trace.replacen("lost_records_percent = 100", "lost_records_percent = 0", 1);
    assert_ne!(trace, honest);
    std::fs::write(folder.path().join("net.trace"), honest).unwrap();
    let output = run(&folder, "replay net.trace");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        last_line(&output).contains("does not fail as it did"),
        "{}",
        last_line(&output)
    );

    std::fs::write(
        folder.path().join("cut.trace"),
        &trace[..trace.find('\n').unwrap() / 2],
    )
    .unwrap();
    std::fs::write(folder.path().join("line.trace"), format!("{trace}{{}}\n")).unwrap();
    for (name, says) in [
        ("cut.trace", "line 1 of cut.trace"),
        ("line.trace", "of line.trace"),
    ] {
        let output = run(&folder, &format!("replay {name}"));
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(last_line(&output).contains(says), "{}", last_line(&output));
    }
}

/// A file that was changed by hand: what is shown is what happens, and the command says where they differ.
#[test]
fn a_trace_that_was_edited_is_told_from_one_that_was_not() {
    let folder = folder(LYING);
    run(&folder, "sim net.toml --seeds 5 --trace net.trace");
    let trace = std::fs::read_to_string(folder.path().join("net.trace")).unwrap();
    let (first, rest) = trace.split_once('\n').unwrap();
    let (second, others) = rest.split_once('\n').unwrap();
    let header: Value = serde_json::from_str(first).unwrap();
    let recorded = format!("\"steps\":{}", header["steps"]);
    let with_steps = |steps: &str| trace.replacen(&recorded, &format!("\"steps\":{steps}"), 1);
    let edited = second.replacen("\"event\":\"", "\"event\":\"\\u001b[2Jedited ", 1);
    assert_ne!(edited, second);
    for (changed, says) in [
        (format!("{first}\n"), "line 2 of"),
        (format!("{first}\n{others}"), "line 2 of"),
        (format!("{first}\n{edited}\n{others}"), "line 2 of"),
        (format!("{trace}{second}\n"), "is not what happens"),
        (with_steps("0"), "after 0 steps"),
        (
            with_steps("18446744073709551615"),
            "after 18446744073709551615 steps",
        ),
        (
            trace.replacen("\"detail\":\"", "\"detail\":\"\\u001b[2J", 1),
            "does not fail as it did",
        ),
    ] {
        assert_ne!(changed, trace, "{says}");
        std::fs::write(folder.path().join("edited.trace"), changed).unwrap();
        let output = run(&folder, "replay edited.trace");
        assert_eq!(output.status.code(), Some(1), "{says}");
        assert!(last_line(&output).contains(says), "{}", last_line(&output));
        let shown = [output.stdout, output.stderr].concat();
        assert!(!shown.contains(&0x1b), "{says}");
    }
}

#[test]
fn scenarios_that_cannot_be_run_are_refused_by_key_and_leave_nothing() {
    for (scenario, says) in [
        ("cycle = 3", "cycle"),
        ("cycles = 0", "cycles is 0"),
        ("[miners]\nhonest = 1e9", "honest"),
        ("[miners.hostile]\nangel = 1", "angel"),
        (
            "[miners.hostile]\ntwins = 1\nlazy = 4294967295",
            "miners.hostile.lazy is 4294967295",
        ),
        (
            "[validators]\nhonest = 2\nhostile = { liar = 3 }",
            "validators.hostile is 3",
        ),
        (
            "[validators]\nhonest = 1\nhostile = { liar = 1 }",
            "validators.hostile is 1",
        ),
        ("[links]\nloss_percent = nan", "loss_percent"),
        (
            "[faults]\nlost_records_percent = 101",
            "faults.lost_records_percent",
        ),
        ("[rules.windows]\nscore = 0", "score"),
        ("[rules]\nsurprise = 1", "surprise"),
        ("\u{0}", "net.toml"),
    ] {
        let folder = folder(scenario);
        let output = run(&folder, "sim net.toml --trace net.trace");
        assert_eq!(
            output.status.code(),
            Some(2),
            "{scenario}: {}",
            last_line(&output)
        );
        assert!(
            last_line(&output).contains(says),
            "{scenario}: {}",
            last_line(&output)
        );
        assert!(output.stdout.is_empty());
        assert_eq!(names(folder.path()), ["net.toml"]);
    }
}

#[test]
fn options_that_make_no_run_are_refused_and_the_scenario_is_left_alone() {
    let folder = folder(SMALL);
    for arguments in [
        "sim absent.toml",
        "sim .",
        "sim net.toml --seeds 0",
        "sim net.toml --seeds 2 --first-seed 18446744073709551615",
        "sim net.toml --trace net.toml",
        "sim net.toml --trace absent/net.trace",
    ] {
        let output = run(&folder, arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments}: {}",
            last_line(&output)
        );
    }
    assert_eq!(
        std::fs::read_to_string(folder.path().join("net.toml")).unwrap(),
        SMALL
    );
}

/// The scenarios that come with the program are scenarios, and say what they show.
#[test]
fn every_shipped_scenario_can_be_read() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../simulations");
    let shipped = names(&folder);
    for name in [
        "calm",
        "churn",
        "hostile-third",
        "minority-validators-lie",
        "mixed",
    ] {
        assert!(shipped.contains(&format!("{name}.toml")), "{name}");
    }
    for name in shipped {
        let text = std::fs::read_to_string(folder.join(&name)).unwrap();
        let scenario = connito_sim::Scenario::from_toml(&text);
        let scenario = scenario.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            scenario.description.ends_with('.'),
            "{name} says what it shows"
        );
    }
}
