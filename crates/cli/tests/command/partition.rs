//! `partition` and `assign`: what they print, and what they refuse.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Output;

use connito_chain::keys::{self, Keypair, Signer};
use connito_engine::config::{Family, MixtureConfig};
use connito_engine::{Model, ModelConfig};
use connito_learning::task;
use connito_protocol::assignment::assigned_group;
use connito_protocol::ids::Hotkey;
use connito_protocol::partition::Partition;
use serde_json::Value;
use tempfile::TempDir;

use super::connito;

/// Two MoE layers, 1 and 2, of eight experts.
fn config() -> ModelConfig {
    let tiny = ModelConfig::tiny(40);
    ModelConfig {
        hidden_size: 16,
        intermediate_size: 20,
        num_hidden_layers: 3,
        mixture: MixtureConfig {
            width: 12,
            shared_width: 24,
            ..tiny.mixture
        },
        ..tiny
    }
}

/// The folder in which commands run.
struct Ground(TempDir);

impl Ground {
    fn new() -> Self {
        let ground = Self(tempfile::tempdir().unwrap());
        ground.write("config.json", config().to_json());
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn output(&self, arguments: &str) -> Output {
        connito(arguments.split(' '))
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    fn printed(&self, arguments: &str) -> String {
        let output = self.output(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &str) -> Value {
        let printed = self.printed(&format!("{arguments} --json"));
        assert_eq!(printed.trim_end().lines().count(), 1);
        serde_json::from_str(&printed).unwrap()
    }

    /// The expert indices of each group of the model in `config.json`.
    fn groups(&self, options: &str) -> Vec<Vec<usize>> {
        let partition = self.json(&format!("partition --model config.json {options}"));
        let groups = partition["groups"].as_array().unwrap().iter();
        groups
            .map(|group| serde_json::from_value(group["expert_indices"].clone()).unwrap())
            .collect()
    }

    /// What is said of input that cannot be used.
    fn refused(&self, arguments: &str) -> String {
        let output = self.output(arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}: {told}");
        assert!(output.stdout.is_empty(), "{arguments} printed a result");
        told
    }

    /// A file of hotkeys, in two spellings by turns.
    fn hotkeys(&self, name: &str, count: u32) -> Vec<Hotkey> {
        let hotkey = |number: u32| Hotkey(*blake3_of(number).as_bytes());
        let hotkeys: Vec<_> = (0..count).map(hotkey).collect();
        let spelled = hotkeys.iter().enumerate().map(|(at, hotkey)| match at % 2 {
            0 => format!("{hotkey}\n"),
            _ => format!("  {}\n\n", connito_protocol::ids::BlobId(hotkey.0)),
        });
        self.write(name, spelled.collect::<String>());
        hotkeys
    }
}

fn blake3_of(number: u32) -> blake3::Hash {
    blake3::hash(&number.to_le_bytes())
}

#[test]
fn a_partition_is_the_mappings_of_the_design_and_their_hash() {
    let ground = Ground::new();
    let json = ground.json("partition --model config.json --groups 2");
    let keys: Vec<_> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["groups", "hash"]);
    let partition: Partition = serde_json::from_value(json).unwrap();
    let expected = task::partition(&config(), 2).unwrap();
    assert_eq!(partition.groups(), expected);
}

#[test]
fn strategies_and_sizes_put_experts_where_they_say() {
    let ground = Ground::new();
    assert_eq!(
        ground.groups("--groups 2 --strategy strided"),
        [[0, 2, 4, 6], [1, 3, 5, 7]]
    );
    assert_eq!(
        ground.groups("--sizes 5,1,2"),
        [vec![0, 1, 2, 3, 4], vec![5], vec![6, 7]]
    );
    assert_eq!(
        ground.groups("--groups 3 --allow-uneven"),
        [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7]]
    );
    let all = "[[0,7],[1,6],[2,5],[3,4],[4,3],[5,2],[6,1],[7,0]]";
    ground.write("all.json", format!(r#"{{"1": {all}, "2": {all}}}"#));
    assert_eq!(
        ground.groups("--groups 4 --assignment all.json"),
        [[6, 7], [4, 5], [2, 3], [0, 1]]
    );
    let half = |first: usize| {
        let pairs = (0..4).map(|slot| format!("[{slot},{}]", first + 2 * slot));
        let list = pairs.collect::<Vec<_>>().join(",");
        format!(r#"{{"1": [{list}], "2": [{list}]}}"#)
    };
    ground.write("odd.json", half(1));
    ground.write("even.json", half(0));
    assert_eq!(
        ground.groups("--strategy explicit --assignment odd.json even.json"),
        [[1, 3, 5, 7], [0, 2, 4, 6]]
    );
}

#[test]
fn what_partition_has_printed_is_read_again_under_the_same_hash() {
    let ground = Ground::new();
    let printed =
        ground.printed("partition --model config.json --sizes 6,2 --strategy strided --json");
    ground.write("partition.json", &printed);
    let read = "partition --model config.json --partition partition.json";
    assert_eq!(ground.printed(&format!("{read} --json")), printed);
    ground.write(
        "partition.json",
        printed.replace("experts.7.", "experts.8."),
    );
    assert!(ground.refused(read).contains("partition.json"));
    let other = ModelConfig {
        num_hidden_layers: 4,
        ..config()
    };
    ground.write("config.json", other.to_json());
    ground.write("partition.json", &printed);
    let told = ground.refused(read);
    assert!(
        told.contains("expert 0 of layer 3 belongs to no group"),
        "{told}"
    );
}

/// From a folder with weights, from its file alone, and from a configuration alone.
#[test]
fn every_way_to_name_a_model_gives_the_same_hash() {
    let ground = Ground::new();
    let mut config = config();
    config.family = Family::DeepseekV2;
    Model::random(&config, 3)
        .save(&ground.path("model"))
        .unwrap();
    let of =
        |path: &str| ground.json(&format!("partition --model {path} --groups 4"))["hash"].clone();
    let expected = of("config.json");
    assert_eq!(of("model"), expected);
    assert_eq!(of("model/model.safetensors"), expected);
    std::fs::remove_file(ground.path("model/config.json")).unwrap();
    assert_eq!(of("model"), expected);
    ground.write("model/config.json", {
        let mut other = config.clone();
        other.mixture.experts = 16;
        other.to_json()
    });
    let told = ground.refused("partition --model model --groups 4");
    assert!(
        told.contains("layers.1.mlp.experts.8.down_proj.weight is missing"),
        "{told}"
    );
}

#[test]
fn the_table_says_which_experts_are_where_and_how_much_that_is() {
    let ground = Ground::new();
    ground.hotkeys("hotkeys", 10);
    let table = ground.printed(
        "partition --model config.json --sizes 6,2 --strategy strided --hotkeys hotkeys --tickets 64,64",
    );
    assert!(table.contains("layers   2 with experts: 1-2"), "{table}");
    let row = |group: &str| {
        let row = table
            .lines()
            .find(|line| line.trim_start().starts_with(group));
        row.unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(row("0  ")[..4], ["0", "6", "36", "6912"]);
    assert_eq!(row("1  ")[5..], ["1,", "3"]);
    assert!(table.contains("hash     "));
}

#[test]
fn hotkeys_are_written_into_the_groups_that_they_are_assigned_to() {
    let ground = Ground::new();
    let hotkeys = ground.hotkeys("hotkeys", 40);
    let plain = ground.json("partition --model config.json --groups 2");
    let json =
        ground.json("partition --model config.json --groups 2 --hotkeys hotkeys --tickets 64,32");
    assert_eq!(json["hash"], plain["hash"]);
    let partition: Partition = serde_json::from_value(json).unwrap();
    for mapping in partition.groups() {
        let expected = hotkeys.iter().copied();
        let expected =
            expected.filter(|key| assigned_group(*key, &[64, 32]) == Some(mapping.group_id));
        assert_eq!(mapping.miner_hotkeys, expected.collect::<Vec<_>>());
    }
    // Without tickets both commands find the same.
    let found = ground.json("partition --model config.json --groups 4 --hotkeys hotkeys");
    let assigned = ground.json("assign --groups 4 --hotkeys hotkeys");
    for group in 0..4 {
        let listed = found["groups"][group]["miner_hotkeys"]
            .as_array()
            .unwrap()
            .len();
        assert_eq!(assigned["groups"][group]["hotkeys"], listed);
    }
}

/// What should happen: loads within a tenth of 125, and an assignment that everybody can repeat.
#[test]
fn a_thousand_hotkeys_are_spread_within_a_tenth() {
    let ground = Ground::new();
    let hotkeys = ground.hotkeys("hotkeys", 1000);
    let json = ground.json("assign --hotkeys hotkeys --groups 8");
    let groups = json["groups"].as_array().unwrap();
    let number = |group: &Value, key: &str| group[key].as_u64().unwrap();
    let tickets = groups
        .iter()
        .map(|group| u16::try_from(number(group, "tickets")).unwrap());
    let tickets: Vec<u16> = tickets.collect();
    let mut loads: BTreeMap<u64, u64> = BTreeMap::new();
    let assignment = json["assignment"].as_array().unwrap();
    assert_eq!(assignment.len(), hotkeys.len());
    for (hotkey, assigned) in hotkeys.iter().zip(assignment) {
        let group = number(assigned, "group");
        assert_eq!(
            u64::from(assigned_group(*hotkey, &tickets).unwrap().0),
            group
        );
        *loads.entry(group).or_default() += 1;
    }
    for (at, group) in (0..).zip(groups) {
        let load = number(group, "hotkeys");
        assert_eq!((number(group, "group"), load), (at, loads[&at]));
        assert!((113..=137).contains(&load), "{load}");
        assert_eq!(group["share"].as_f64().unwrap(), load as f64 / 1000.0);
    }
    // In the order of the file and in its spelling.
    assert_eq!(assignment[0]["hotkey"], hotkeys[0].to_string());
    let spelled = blake3_of(1).to_hex().to_string();
    assert_eq!(assignment[1]["hotkey"], spelled);
}

#[test]
fn tickets_that_are_given_are_used_as_they_are() {
    let ground = Ground::new();
    ground.hotkeys("hotkeys", 100);
    for (name, content) in [
        ("lines", "64\n1\n"),
        ("list", "[64, 1]"),
        ("commas", "64,1"),
    ] {
        ground.write(name, content);
    }
    let expected = ground.json("assign --hotkeys hotkeys --groups 2 --tickets 64,1");
    assert_eq!(expected["groups"][1]["tickets"], 1);
    assert!(expected["groups"][0]["hotkeys"].as_u64().unwrap() > 90);
    for file in ["lines", "list", "commas"] {
        let read = ground.json(&format!(
            "assign --hotkeys hotkeys --groups 2 --tickets {file}"
        ));
        assert_eq!(read, expected);
    }
}

/// What should happen: a key file that others can use. What should not: an existing key overwritten.
#[test]
fn a_preferred_group_is_had_by_making_a_hotkey_that_falls_there() {
    let ground = Ground::new();
    let make = "assign --groups 6 --prefer 4 --new-hotkey key";
    let json = ground.json(make);
    let pair = keys::read(&ground.path("key")).unwrap();
    assert_eq!(json["new_hotkey"]["hotkey"], pair.hotkey().to_string());
    assert_eq!(json["new_hotkey"]["group"], 4);
    assert_eq!(assigned_group(pair.hotkey(), &[64; 6]).unwrap().0, 4);
    let before = std::fs::read(ground.path("key")).unwrap();
    assert!(ground.refused(make).contains("key is there already"));
    assert_eq!(std::fs::read(ground.path("key")).unwrap(), before);
    let none = ground.refused("assign --groups 6 --prefer 6 --new-hotkey other");
    assert!(none.contains("--prefer 6"), "{none}");
    let nowhere = ground.refused("assign --groups 6 --prefer 1 --new-hotkey no/key");
    assert!(nowhere.contains("no/key"), "{nowhere}");
    assert!(!ground.path("other").exists());
}

#[test]
fn groups_that_cannot_be_made_are_refused_by_what_is_wrong_with_them() {
    let ground = Ground::new();
    let list = r#"[[0,0],[1,1],[2,2],[3,3]]"#;
    ground.write("half.json", format!(r#"{{"1": {list}, "2": {list}}}"#));
    ground.write("slots.json", r#"{"1": [[1,0]]}"#);
    for (options, named) in [
        ("--model config.json", "--groups"),
        (
            "--model config.json --groups 3",
            "2 of 3 and 1 of 2 (--allow-uneven",
        ),
        ("--model config.json --groups 9", "8 experts into 9 groups"),
        ("--model config.json --groups 0", "--groups"),
        ("--model config.json --groups 2 --sizes 4,4", "--sizes"),
        ("--model config.json --sizes 4,5", "sizes 4,5"),
        ("--model config.json --sizes 8,0", "sizes 8,0"),
        ("--model config.json --sizes 4,,4", "--sizes"),
        ("--model config.json --groups 2 --strategy random", "random"),
        (
            "--model config.json --groups 2 --strategy explicit",
            "--assignment",
        ),
        (
            "--model config.json --groups 2 --strategy strided --assignment half.json",
            "explicit",
        ),
        (
            "--model config.json --groups 2 --assignment half.json",
            "expert 4 of layer 1",
        ),
        (
            "--model config.json --groups 2 --assignment slots.json",
            "slots.json",
        ),
        (
            "--model config.json --groups 2 --assignment absent.json",
            "absent.json",
        ),
        (
            "--model config.json --assignment half.json half.json",
            "expert 0 of layer 1 belongs to group 1 and to an earlier one",
        ),
        (
            "--model config.json --groups 2 --strategy coactivation",
            "--data",
        ),
        ("--model config.json --groups 2 --data text.jsonl", "--data"),
    ] {
        let told = ground.refused(&format!("partition {options}"));
        assert!(told.contains(named), "{options}: {told}");
    }
}

#[test]
fn models_and_partitions_that_cannot_be_read_are_named() {
    let ground = Ground::new();
    ground.write("half.json", r#"{"1": [[0,0]]}"#);
    ground.write("gpt.json", r#"{"model_type": "gpt2"}"#);
    std::fs::create_dir(ground.path("other")).unwrap();
    ground.write(
        "other/weights.json",
        r#"{"weight_map": {"transformer.h.0.attn.weight": "a"}}"#,
    );
    for (options, named) in [
        ("--model config.json --partition absent.json", "absent.json"),
        ("--model config.json --partition config.json", "config.json"),
        (
            "--model config.json --partition config.json --groups 2",
            "--partition",
        ),
        ("--model gpt.json --groups 2", "gpt2"),
        (
            "--model other/weights.json --groups 2",
            "no tensor is named as",
        ),
        ("--model absent --groups 2", "absent"),
        ("--model . --groups 2 --hotkeys absent", "absent"),
        ("--model other --groups 2", "neither config.json"),
        ("--model half.json --groups 2", "half.json"),
    ] {
        let told = ground.refused(&format!("partition {options}"));
        assert!(told.contains(named), "{options}: {told}");
    }
}

#[test]
fn hotkeys_and_tickets_that_cannot_be_used_are_named_by_line() {
    let ground = Ground::new();
    let hotkey = Keypair::from_seed(&[1; 32]).hotkey();
    let hex = connito_protocol::ids::BlobId(hotkey.0);
    ground.write("good", format!("{hotkey}\n"));
    ground.write("bad", format!("\n{hotkey}\n\nnobody\n"));
    ground.write("twice", format!("{hotkey}\n\n0x{hex}\n"));
    ground.write("short", format!("{}\n", &hex.to_string()[1..]));
    ground.write("latin", [0xe9, 0x0a]);
    for (options, named) in [
        ("--hotkeys bad --groups 2", "bad: line 4"),
        ("--hotkeys twice --groups 2", "twice: line 3"),
        ("--hotkeys short --groups 2", "short: line 1"),
        ("--hotkeys latin --groups 2", "latin"),
        ("--hotkeys . --groups 2", "cannot read ."),
        ("--hotkeys absent --groups 2", "absent"),
        ("--hotkeys good", "--groups"),
        ("--hotkeys good --groups 0", "--groups"),
        ("--hotkeys good --groups 65536", "--groups"),
        ("--hotkeys good --groups 65535", "4194240 tickets"),
        ("--hotkeys good --groups 2 --tickets 64", "--tickets 64"),
        ("--hotkeys good --groups 2 --tickets 64,0", "group 1"),
        ("--hotkeys good --groups 2 --tickets 64,1025", "1025"),
        ("--hotkeys good --groups 2 --tickets 64,65536", "65536"),
        ("--hotkeys good --groups 2 --tickets 64,", "--tickets 64,"),
        ("--hotkeys good --groups 2 --tickets absent", "absent"),
        ("--hotkeys good --groups 2 --tickets good", "--tickets good"),
        ("--hotkeys good --groups 2 --prefer 1", "--new-hotkey"),
        ("--groups 2", "--hotkeys"),
        ("--groups 2 --new-hotkey key", "--prefer"),
    ] {
        let told = ground.refused(&format!("assign {options}"));
        assert!(told.contains(named), "{options}: {told}");
    }
}
