//! The direction of dependencies, as ARCHITECTURE.md lists it, against what cargo says.
//!
//! The list in the document is the only one there is: this test reads it, so that the two cannot part.
//! Direct dependencies are compared crate by crate, those of tests and build scripts included; that
//! no runtime or network reaches the crates without I/O is asked of the whole tree below them. Cargo
//! is run offline: everything that it needs was there to build this test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What all packages of the workspace are called, before their folder's name.
const PREFIX: &str = "connito-";

/// Crates whose presence means that somebody sleeps, listens or sends.
const INPUT_AND_OUTPUT: [&str; 8] = [
    "axum", "futures", "hyper", "mio", "reqwest", "socket2", "tokio", "tower",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--offline", "--locked"])
        .current_dir(root())
        .output()
        .expect("cargo built this test, so it runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "cargo {arguments:?} failed: {complaint}"
    );
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

/// The list of ARCHITECTURE.md: a crate, and the crates of ours that it may use.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md"))
        .expect("ARCHITECTURE.md can be read");
    let line = |line: &str| {
        let (name, uses) = line.split_once("──▶")?;
        let uses = uses.split(',').map(|name| name.trim().to_owned());
        let uses = uses.filter(|name| name != "–").collect();
        Some((name.trim().to_owned(), uses))
    };
    text.lines()
        .skip_while(|line| !line.starts_with("## Crates"))
        .skip_while(|line| !line.starts_with("```"))
        .skip(1)
        .take_while(|line| !line.starts_with("```"))
        .map(|text| line(text).unwrap_or_else(|| panic!("no arrow in `{text}`")))
        .collect()
}

/// What the manifests say, in the same form.
fn declared() -> BTreeMap<String, BTreeSet<String>> {
    let json = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&json).expect("cargo prints JSON");
    let ours = |name: &serde_json::Value| Some(name.as_str()?.strip_prefix(PREFIX)?.to_owned());
    let packages = metadata["packages"].as_array().expect("a list of packages");
    packages
        .iter()
        .map(|package| {
            let name = ours(&package["name"])
                .unwrap_or_else(|| panic!("{} lacks the prefix {PREFIX}", package["name"]));
            let uses = package["dependencies"].as_array().into_iter().flatten();
            (name, uses.filter_map(|used| ours(&used["name"])).collect())
        })
        .collect()
}

/// What should happen: a new crate, or a new dependency between ours, is written down first.
/// What should not: a dependency that the document does not know, in tests neither.
#[test]
fn crates_depend_on_each_other_only_as_the_architecture_says() {
    let (documented, declared) = (documented(), declared());
    let names = |map: &BTreeMap<String, BTreeSet<String>>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&documented),
        names(&declared),
        "ARCHITECTURE.md lists other crates than there are"
    );
    for (name, uses) in &declared {
        let forbidden: Vec<_> = uses.difference(&documented[name]).collect();
        assert!(
            forbidden.is_empty(),
            "{name} depends on {forbidden:?}, which ARCHITECTURE.md does not allow"
        );
    }
}

/// A list that allowed circles, or everything to everyone, would allow anything.
#[test]
fn the_documented_directions_have_no_circle_and_a_foundation() {
    let documented = documented();
    assert!(
        documented["protocol"].is_empty(),
        "protocol stands on nothing"
    );
    let mut placed: BTreeSet<String> = BTreeSet::new();
    while placed.len() < documented.len() {
        let next: Vec<_> = documented
            .iter()
            .filter(|(name, uses)| !placed.contains(*name) && uses.is_subset(&placed))
            .map(|(name, _)| name.clone())
            .collect();
        assert!(!next.is_empty(), "a circle among those not in {placed:?}");
        placed.extend(next);
    }
}

#[test]
fn nothing_that_waits_or_talks_is_below_the_crates_without_input_and_output() {
    for name in ["protocol", "engine", "learning", "sim"] {
        let package = format!("{PREFIX}{name}");
        let tree = cargo(&[
            "tree",
            "--package",
            &package,
            "--edges",
            "normal",
            "--prefix",
            "none",
        ]);
        let below: BTreeSet<_> = tree
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert!(below.contains(package.as_str()), "no tree of {package}");
        let found: Vec<_> = INPUT_AND_OUTPUT
            .iter()
            .filter(|forbidden| below.contains(*forbidden))
            .collect();
        assert!(found.is_empty(), "{package} reaches {found:?}");
    }
}
