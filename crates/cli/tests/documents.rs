//! The documents against the code: what the one names, the other has.
//!
//! Words come from the types that code uses, never from a list kept here, so that a new window, role
//! or code fails a test until it is written down. Knows nothing of whether a text is well put.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use connito_node::refusal::RefusalCode;
use connito_protocol::announcement::{Announcement, Mirrored};
use connito_protocol::conduct::Misconduct;
use connito_protocol::ids::{BlobId, Block, Cycle, GroupId, Hotkey, Seal};
use connito_protocol::machine::Role;
use connito_protocol::reason::{Charged, ReasonCode};
use connito_protocol::rules::{Rules, Windows};
use connito_protocol::schedule::{Moment, Schedule, Window};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(name: &str) -> String {
    let path = root().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name} cannot be read: {error}"))
}

/// Every file below a folder of the repository with this ending, by its path from the root.
fn files(folder: &str, ending: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(root().join(&folder))
            .unwrap_or_else(|error| panic!("{folder} cannot be read: {error}"));
        for entry in entries {
            let entry = entry.expect("a folder can be listed");
            let name = entry.file_name();
            let name = format!("{folder}/{}", name.to_str().expect("names are UTF-8"));
            if entry.file_type().expect("entries have a type").is_dir() {
                folders.push(name);
            } else if name.ends_with(ending) {
                found.insert(name.clone(), read(&name));
            }
        }
    }
    assert!(!found.is_empty(), "no {ending} files below {folder}");
    found
}

/// Every `P-12` or `A-3` in a text: the letter, then at least one digit, and no letter before.
fn citations(text: &str, letter: char) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for (position, _) in text.match_indices(&format!("{letter}-")) {
        let before = text[..position].chars().next_back();
        let digits: String = text[position + 2..]
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        if let (false, Ok(number)) = (before.is_some_and(char::is_alphanumeric), digits.parse()) {
            found.insert(number);
        }
    }
    found
}

fn cited_in_source(letter: char) -> BTreeMap<u32, String> {
    let mut cited = BTreeMap::new();
    for (name, text) in files("crates", ".rs") {
        for number in citations(&text, letter) {
            cited.insert(number, name.clone());
        }
    }
    cited
}

/// The numbers of the headings `### P-12 The seal`, in their order.
fn defined_rules() -> Vec<u32> {
    read("docs/PROTOCOL.md")
        .lines()
        .filter_map(|line| line.strip_prefix("### P-")?.split(' ').next())
        .map(|number| number.parse().expect("a rule has a number"))
        .collect()
}

/// Whether a text explains a word: has it in bold or as code.
fn explains(text: &str, word: &str) -> bool {
    text.contains(&format!("**{word}**")) || text.contains(&format!("`{word}`"))
}

/// The rows of all tables, as their cells.
fn rows(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// Every moment of a cycle under these rules.
fn moments(windows: Windows) -> Vec<Moment> {
    let schedule = Schedule::new(Block(0), windows);
    let moment = |block| schedule.at(Block(block)).expect("the task has begun");
    (0..windows.cycle()).map(moment).collect()
}

/// A unit variant's name as files spell it, or the tag of one with fields.
fn spelled(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value).expect("names are JSON") {
        serde_json::Value::String(name) => name,
        serde_json::Value::Object(tagged) => tagged.keys().next().cloned().unwrap_or_default(),
        other => panic!("{other} is no name"),
    }
}

#[test]
fn the_glossary_explains_every_reason_code_phase_window_and_role() {
    let glossary = read("docs/GLOSSARY.md");
    let mut words: BTreeSet<String> = BTreeSet::new();
    words.extend(ReasonCode::ALL.iter().map(|code| code.text().to_owned()));
    for moment in moments(Rules::default().windows) {
        words.insert(moment.window.phase().name().to_owned());
        words.insert(spelled(&moment.window));
    }
    let (task, victim) = (BlobId([0; 32]), Hotkey([0; 32]));
    let roles = [
        Role::Owner { task },
        Role::Validator,
        Role::Miner,
        Role::Copier { victim },
    ];
    for role in roles {
        // A new role breaks the build here, and is then added above.
        let (Role::Owner { .. } | Role::Validator | Role::Miner | Role::Copier { .. }) = role;
        words.insert(role.name().to_owned());
        words.insert(spelled(&role));
    }
    let missing: Vec<_> = words
        .iter()
        .filter(|word| !explains(&glossary, word))
        .collect();
    assert!(missing.is_empty(), "GLOSSARY.md lacks {missing:?}");
}

#[test]
fn every_rule_that_the_source_cites_is_defined_once_and_in_order() {
    let defined = defined_rules();
    assert!(
        defined.is_sorted_by(|a, b| a < b),
        "twice or out of order: {defined:?}"
    );
    for (number, file) in cited_in_source('P') {
        assert!(
            defined.contains(&number),
            "{file} cites P-{number}, which PROTOCOL.md does not define"
        );
    }
    for (file, text) in files("docs", ".md") {
        let reserved = |number: &u32| file.ends_with("PROTOCOL.md") && (36..60).contains(number);
        let loose: Vec<_> = citations(&text, 'P')
            .into_iter()
            .filter(|number| !defined.contains(number) && !reserved(number))
            .collect();
        assert!(loose.is_empty(), "{file} mentions rules {loose:?}");
    }
}

#[test]
fn every_abuse_that_the_source_cites_is_listed_with_its_answer() {
    let protocol = read("docs/PROTOCOL.md");
    let listed: BTreeSet<u32> = rows(&protocol)
        .iter()
        .flat_map(|cells| citations(&cells[0], 'A'))
        .collect();
    for (number, file) in cited_in_source('A') {
        assert!(
            listed.contains(&number),
            "{file} cites A-{number}, which PROTOCOL.md does not list"
        );
    }
}

#[test]
fn the_table_of_reason_codes_says_what_the_code_does() {
    let rows = rows(&read("docs/PROTOCOL.md"));
    for code in ReasonCode::ALL {
        let charged = match code.charged_to() {
            Charged::Nobody => "nobody",
            Charged::Miner => "miner",
            Charged::Network => "network",
        };
        let expected = [
            code.wire().to_string(),
            format!("`{}`", code.text()),
            charged.to_owned(),
        ];
        assert!(
            rows.iter().any(|cells| cells.starts_with(&expected)),
            "no row begins with {expected:?}"
        );
    }
}

#[test]
fn the_table_of_conduct_has_a_row_for_every_word_in_the_order_of_the_code() {
    let rows = rows(&read("docs/PROTOCOL.md"));
    let place = |misconduct: Misconduct| {
        let word = format!("`{}`", misconduct.text());
        rows.iter().position(|cells| cells[0] == word)
    };
    let places: Vec<_> = Misconduct::ALL.into_iter().map(place).collect();
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{places:?}"
    );
}

#[test]
fn the_table_of_refusals_says_what_the_code_does() {
    let rows = rows(&read("docs/PROTOCOL.md"));
    for code in RefusalCode::ALL {
        let expected = [format!("`{}`", code.text()), code.status().to_string()];
        assert!(
            rows.iter().any(|cells| cells.starts_with(&expected)),
            "no row begins with {expected:?}"
        );
    }
}

/// Lengths of the windows by default and with fast blocks, and the default offsets.
#[test]
fn the_table_of_the_cycle_says_what_the_rules_do() {
    let rows = rows(&read("docs/PROTOCOL.md"));
    let (default, fast) = (Rules::default().windows, Rules::for_fast_blocks().windows);
    let length = |windows: Windows, wanted: Window| {
        let inside = moments(windows).into_iter();
        inside.filter(|moment| moment.window == wanted).count()
    };
    for (offset, moment) in moments(default).into_iter().enumerate() {
        let opens = offset == 0 || moments(default)[offset - 1].window != moment.window;
        if opens {
            let expected = [
                moment.window.phase().name().to_owned(),
                spelled(&moment.window),
                length(default, moment.window).to_string(),
                length(fast, moment.window).to_string(),
                offset.to_string(),
            ];
            assert!(
                rows.iter().any(|cells| cells.starts_with(&expected)),
                "no row begins with {expected:?}"
            );
        }
    }
}

/// Every rule by its path, with its default. The windows have a table of their own.
#[test]
fn the_table_of_rules_knows_every_rule_and_its_default() {
    let rows = rows(&read("docs/PROTOCOL.md"));
    // By way of text: that is how the shortest spelling of an f32 is kept.
    let json = serde_json::to_string(&Rules::default()).expect("rules are JSON");
    let json: serde_json::Value = serde_json::from_str(&json).expect("rules are JSON");
    let mut defaults = BTreeMap::new();
    for (section, value) in json.as_object().expect("rules are an object") {
        match value.as_object() {
            Some(rules) => defaults.extend(
                rules
                    .iter()
                    .map(|(rule, value)| (format!("`{section}.{rule}`"), value)),
            ),
            None => {
                defaults.insert(format!("`{section}`"), value);
            }
        }
    }
    defaults.retain(|rule, _| !rule.starts_with("`windows."));
    for (rule, default) in defaults {
        let row = rows.iter().find(|cells| cells[0] == rule);
        let stated = &row.unwrap_or_else(|| panic!("no row for {rule}"))[1];
        let agrees = match default.as_str() {
            Some(word) => *stated == format!("`{word}`"),
            None if default.is_object() => *stated == format!("`{default}`"),
            None => stated.parse().ok() == default.as_f64(),
        };
        assert!(agrees, "{rule} is {default} by default, not {stated}");
    }
}

#[test]
fn the_table_of_announcements_states_their_true_lengths() {
    let rows = rows(&read("docs/PROTOCOL.md"));
    let (cycle, group, seal) = (Cycle(1), GroupId(1), Seal([1; 32]));
    let update = BlobId([2; 32]);
    let announcements = [
        Announcement::Task { task: update },
        Announcement::Sealed { cycle, group, seal },
        Announcement::Revealed {
            cycle,
            group,
            seal,
            update,
            salt: [3; 16],
        },
        Announcement::Reported(Mirrored {
            cycle,
            submissions: [0; 8],
            body: update,
        }),
    ];
    for announcement in announcements {
        let bytes = announcement.encode();
        let (kind, length) = (format!("{} ", bytes[3]), bytes.len().to_string());
        let stated = |cells: &Vec<String>| {
            cells[0].starts_with(&kind) && cells.last().is_some_and(|last| *last == length)
        };
        assert!(
            rows.iter().any(stated),
            "no row for {announcement:?} with {length} bytes"
        );
    }
}

#[test]
fn every_source_file_opens_with_what_it_is_about() {
    for (file, text) in files("crates", ".rs") {
        let first = text.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("//!") || first.starts_with("#!"),
            "{file} has no header"
        );
        assert!(
            text.lines().take(4).any(|line| line.starts_with("//!")),
            "{file} has no header"
        );
    }
}

#[test]
fn the_readme_names_the_two_commands_that_a_newcomer_needs_and_ci_runs_them() {
    let (readme, ci) = (read("README.md"), read(".ci/run"));
    let first_screen: Vec<_> = readme.lines().take(40).collect();
    for command in ["cargo run --release -- localnet", "cargo test --workspace"] {
        assert!(
            first_screen.iter().any(|line| line.contains(command)),
            "the README's first screen lacks `{command}`"
        );
        assert!(ci.contains(command), ".ci/run does not run `{command}`");
    }
}

/// A link in a document leads to a file that is there, and to a heading that is there.
#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let mut documents = files("docs", ".md");
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        documents.insert(name.to_owned(), read(name));
    }
    for (file, text) in &documents {
        let folder = Path::new(file).parent().unwrap_or(Path::new(""));
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap_or_default();
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => root().join(file),
                path => root().join(folder).join(path),
            };
            assert!(
                target.exists(),
                "{file} links to {path}, which is not there"
            );
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(&target).expect("documents are text");
                assert!(
                    text.lines().any(|line| heading_anchor(line) == anchor),
                    "{file} links to #{anchor}, and {path} has no such heading"
                );
            }
        }
    }
}

/// The anchor that a heading gets, as code hosts make it.
fn heading_anchor(line: &str) -> String {
    let Some(heading) = line.strip_prefix('#') else {
        return String::new();
    };
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The documents' own words for paths: every file that ARCHITECTURE.md sends a reader to exists.
#[test]
fn every_place_that_the_architecture_names_is_there() {
    let crates: Vec<_> = [
        "protocol", "engine", "learning", "chain", "node", "sim", "cli",
    ]
    .map(|name| format!("{name}/"))
    .into();
    for quoted in read("ARCHITECTURE.md").split('`').skip(1).step_by(2) {
        if crates.iter().any(|name| quoted.starts_with(name)) {
            let path = root().join("crates").join(quoted);
            assert!(path.exists(), "ARCHITECTURE.md names {quoted}");
        }
    }
}
