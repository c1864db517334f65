//! `connito chain`: a chain that is served for trying things by hand, and what is done to it.
//!
//! Every test that needs a chain runs one as a process of its own and waits for the line in which it
//! says where it is.

mod killed;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};

use connito_chain::keys::{self, Keypair, Signer};
use serde_json::Value;
use tempfile::TempDir;

use super::connito;

const BOB: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";

/// A chain with a block every 50 ms, killed when dropped.
struct Served {
    process: Child,
    line: String,
    endpoint: String,
}

impl Served {
    fn in_folder(folder: &Path, more: &[&str]) -> Self {
        let mut process = connito(["chain", "--listen", "127.0.0.1:0"])
            .args(more)
            .arg("--folder")
            .arg(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let endpoint = line.split(' ').nth(1).unwrap_or_default().to_owned();
        assert!(endpoint.starts_with("http://127.0.0.1:"), "{line:?}");
        Self {
            process,
            line,
            endpoint,
        }
    }

    /// Runs `chain …` against it: the code, standard output, and the last line of complaint.
    fn asked(&self, arguments: &str) -> (i32, String, String) {
        asked(&format!("{arguments} --endpoint {}", self.endpoint))
    }

    /// What a command that succeeds says.
    fn told(&self, arguments: &str) -> String {
        let (code, said, complaint) = self.asked(arguments);
        assert_eq!(code, 0, "{arguments}: {complaint}");
        assert_eq!(said.lines().count(), 1, "{arguments}: {said}");
        said.trim_end().to_owned()
    }

    fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.told(&format!("{arguments} --json"))).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn asked(arguments: &str) -> (i32, String, String) {
    let output = connito(["chain"])
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        complaint.lines().last().unwrap_or_default().to_owned(),
    )
}

/// What should not happen: an amount that passes through a float.
#[test]
fn money_a_slot_and_stake_are_given_by_hand() {
    let folder = TempDir::new().unwrap();
    let chain = Served::in_folder(folder.path(), &["--block-time", "50ms"]);
    assert!(chain.line.contains("subnet 1"), "{}", chain.line);
    assert!(chain.line.contains("50ms"), "{}", chain.line);

    let told = chain.told("faucet --to //Bob --tao 12.000000001");
    let expected = format!("{BOB} has 12.000000001 TAO at block ");
    assert!(told.starts_with(&expected), "{told}");
    let again = chain.json(&format!("faucet --to {BOB} --tao 0.5"));
    assert_eq!(again["balance_rao"], 12_500_000_001_u64);
    assert_eq!(again["account"], BOB);

    let hotkey = folder.path().join("hotkey.json");
    let pair = Keypair::from_seed(&[3; 32]);
    keys::write(&hotkey, &pair).unwrap();
    let key = hotkey.display();
    let slot = chain.json(&format!("register --coldkey //Bob --hotkey {key}"));
    assert_eq!(slot["hotkey"], pair.hotkey().to_string());
    assert_eq!((&slot["uid"], &slot["netuid"]), (&0.into(), &1.into()));
    assert_eq!(
        slot["balance_rao"], 12_500_000_001_u64,
        "it costs nothing here"
    );

    let told = chain.told(&format!("stake --coldkey //Bob --hotkey {key} --tao 2.5"));
    let expected = format!("{} has a stake of 2.5 TAO in subnet 1", pair.hotkey());
    assert!(told.starts_with(&expected), "{told}");
    assert!(
        told.ends_with(&format!("{BOB} has 10.000000001 TAO left")),
        "{told}"
    );
}

#[test]
fn parameters_are_set_by_name_and_shown_as_they_are_then() {
    let folder = TempDir::new().unwrap();
    let chain = Served::in_folder(folder.path(), &["--block-time", "50ms", "--netuid", "7"]);
    let told = chain.told("set-hyperparameter tempo 20 --owner //Alice");
    assert!(
        told.starts_with("tempo of subnet 7 is 20 at block "),
        "{told}"
    );
    let told = chain.told("set-hyperparameter commit_reveal_weights_enabled true --owner //Alice");
    assert!(told.contains("subnet 7 is true at block"), "{told}");
    let set = chain.json("set-hyperparameter weights_set_rate_limit 0 --owner //Alice --netuid 7");
    assert_eq!(set["parameter"], "weights_set_rate_limit");
    assert_eq!((&set["value"], &set["netuid"]), (&0.into(), &7.into()));

    let refused = |arguments: &str, code: i32, names: &[&str]| {
        let (ended, said, sentence) = chain.asked(arguments);
        assert_eq!(ended, code, "{arguments}: {sentence}");
        assert!(said.is_empty(), "{arguments} printed {said}");
        for name in names {
            assert!(sentence.contains(name), "{arguments}: {sentence}");
        }
    };
    refused(
        "set-hyperparameter tempo 65536 --owner //Alice",
        2,
        &["tempo", "65536"],
    );
    refused(
        "set-hyperparameter tempo 9 --owner //Bob",
        1,
        &["tempo", BOB],
    );
    refused(
        "set-hyperparameter min_burn 1 --owner //Bob",
        1,
        &["owner", BOB],
    );
    refused(
        "set-hyperparameter tempo 9 --owner //Alice --netuid 3",
        2,
        &["3"],
    );
}

#[test]
fn what_the_chain_refuses_is_a_failed_check_that_says_why() {
    let folder = TempDir::new().unwrap();
    let chain = Served::in_folder(folder.path(), &["--block-time", "50ms"]);
    chain.told("register --coldkey //Alice --hotkey //Bob");
    for (arguments, named) in [
        (
            "register --coldkey //Alice --hotkey //Bob",
            "already registered",
        ),
        ("stake --coldkey //Eve --hotkey //Bob --tao 1", "Balance"),
        ("faucet --to //Bob --tao 18446744073.709551615", "Funds"),
        ("faucet --from //Eve --to //Bob --tao 1", "Funds"),
    ] {
        let (code, said, sentence) = chain.asked(arguments);
        assert_eq!(code, 1, "{arguments}: {sentence}");
        assert!(sentence.contains(named), "{arguments}: {sentence}");
        assert!(said.is_empty(), "{arguments} printed {said}");
    }
}

/// What should not happen: a folder whose chain is gone because it was opened with other options.
#[test]
fn a_chain_goes_on_where_it_was_and_only_as_what_it_was() {
    let folder = TempDir::new().unwrap();
    let first = Served::in_folder(folder.path(), &["--block-time", "50ms"]);
    let given = first.json("faucet --to //Bob --tao 3");
    drop(first);
    let path = folder.path().display();
    for (option, named) in [("--netuid 2", "subnet 1"), ("--block-time 1s", "50ms")] {
        let (code, said, sentence) =
            asked(&format!("--listen 127.0.0.1:0 --folder {path} {option}"));
        assert_eq!(code, 2, "{sentence}");
        assert!(
            sentence.contains(named) && said.is_empty(),
            "{said}{sentence}"
        );
    }
    let second = Served::in_folder(folder.path(), &[]);
    let more = second.json("faucet --to //Bob --tao 1");
    assert_eq!(more["balance_rao"], 4_000_000_000_u64);
    assert!(more["block"].as_u64() > given["block"].as_u64());
}

/// Runs a command that ends with a code, prints nothing, and names something.
fn refuses(arguments: &str, expected: i32, named: &str) {
    let (code, said, sentence) = asked(arguments);
    assert_eq!(code, expected, "{arguments}: {sentence}");
    assert!(sentence.contains(named), "{arguments}: {sentence}");
    assert!(said.is_empty(), "{arguments} printed {said}");
}

#[test]
fn only_this_machine_is_served_and_keys_that_everybody_has_are_only_good_here() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chain");
    let everywhere = format!("--listen 0.0.0.0:0 --folder {}", path.display());
    refuses(&everywhere, 2, "--listen 0.0.0.0:0");
    assert!(!path.exists(), "a refused chain has left a folder behind");
    for endpoint in [
        "https://chain.example",
        "http://127.0.0.1@chain.example:9944",
        "http://localhost.chain.example",
    ] {
        let faucet = format!("faucet --to {BOB} --endpoint {endpoint}");
        refuses(&faucet, 2, "//Alice");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let faucet = format!("faucet --to {BOB} --endpoint http://{nobody}");
    refuses(&faucet, 3, "cannot connect");
}

#[test]
fn what_cannot_be_meant_is_named_before_anything_is_sent() {
    for (arguments, named) in [
        ("faucet --to //Bob --endpoint nowhere", "nowhere"),
        ("faucet --to //Bob --tao 1.0000000001", "--help"),
        ("stake --coldkey //Bob/ --hotkey //Bob --tao 1", "//Bob/"),
        (
            "stake --coldkey absent.json --hotkey //Bob --tao 1",
            "absent.json",
        ),
        ("register --coldkey //Bob --hotkey 5nobody", "5nobody"),
        (
            "set-hyperparameter temper 3 --owner //Alice",
            "weights_set_rate_limit",
        ),
        ("set-hyperparameter tempo -3 --owner //Alice", "--help"),
        (
            "set-hyperparameter tempo 3.5 --owner //Alice",
            "whole number",
        ),
        (
            "set-hyperparameter commit_reveal_weights_enabled 2 --owner //Alice",
            "true or false",
        ),
        ("--config chain.toml --netuid 3", "--help"),
    ] {
        refuses(arguments, 2, named);
    }
}

/// A new subnet suits; with epochs of sixteen cycles a validator's writes do not fit, and the call that
/// mends it is named.
#[test]
fn a_subnet_is_held_against_what_the_network_needs_of_it() {
    let folder = TempDir::new().unwrap();
    let chain = Served::in_folder(&folder.path().join("chain"), &["--block-time", "50ms"]);
    let check = || {
        let output = connito(["subnet", "check", "--json", "--endpoint", &chain.endpoint])
            .output()
            .unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), found, complaint)
    };
    let (code, found, complaint) = check();
    assert_eq!((code, complaint.as_str()), (0, ""));
    assert_eq!((&found["netuid"], &found["spec"]), (&1.into(), &461.into()));
    assert_eq!(found["misfits"], Value::Array(Vec::new()));

    chain.told("set-hyperparameter tempo 720 --owner //Alice");
    let (code, found, complaint) = check();
    assert_eq!(code, 1);
    assert!(complaint.contains("1 parameters"), "{complaint}");
    let parameters = found["parameters"].as_array().unwrap();
    let tempo = parameters.iter().find(|one| one["parameter"] == "tempo");
    let tempo = tempo.unwrap();
    assert_eq!(
        (&tempo["suits"], &tempo["root_only"]),
        (&false.into(), &false.into())
    );
    assert_eq!(
        tempo["call"],
        "SubtensorModule.set_tempo(netuid=1, tempo=450)"
    );
}
