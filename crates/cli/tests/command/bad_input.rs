//! Input that cannot be used: one sentence that names the thing at fault, and a documented code.
//!
//! Every case is a row of a table; the rows of a table run side by side, for some of them wait.

mod engine;
mod select;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use connito_chain::keys::{self, Keypair, Signer};
use connito_engine::tokenizer::Tokenizer;
use connito_engine::{Model, ModelConfig};
use connito_node::journal::Journal;
use connito_protocol::Identity;
use connito_protocol::event::{Effect, Event, Milestone};
use connito_protocol::ids::{BlockHash, Netuid};
use connito_protocol::machine::{Character, Machine, Role, Step};
use connito_protocol::submission::Network;
use tempfile::TempDir;

use super::connito;

/// A command line, the code that it should end with, and what its last line should name.
struct Row {
    arguments: Vec<String>,
    code: i32,
    names: Vec<&'static str>,
}

/// A command line that is split at spaces.
fn row(arguments: &str, code: i32, names: &[&'static str]) -> Row {
    Row {
        arguments: arguments.split(' ').map(str::to_owned).collect(),
        code,
        names: names.to_vec(),
    }
}

/// A folder in which the rows of one table run. It is each command's working directory, cache and
/// place for results, so that rows name short relative paths.
struct Ground(TempDir);

impl Ground {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Runs all rows and tells of all that did not end as they should.
    fn check(&self, rows: &[Row]) {
        let wrong: Vec<String> = std::thread::scope(|scope| {
            let runs: Vec<_> = rows
                .iter()
                .map(|row| scope.spawn(|| self.wrong(row)))
                .collect();
            runs.into_iter()
                .filter_map(|run| run.join().unwrap())
                .collect()
        });
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }

    fn wrong(&self, row: &Row) -> Option<String> {
        let output = connito(&row.arguments)
            .current_dir(self.0.path())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("RUST_BACKTRACE", "1")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        let last = told.lines().last().unwrap_or_default();
        let mut wrong = Vec::new();
        if output.status.code() != Some(row.code) {
            wrong.push(format!("{}, not code {}", output.status, row.code));
        }
        let sentence = last.strip_prefix("connito: ").unwrap_or_default();
        if sentence.is_empty() {
            wrong.push("the last line is not a sentence of the command's".to_owned());
        }
        let unnamed = row.names.iter().filter(|name| !sentence.contains(**name));
        wrong.extend(unnamed.map(|name| format!("{name} is not named")));
        let lower = told.to_lowercase();
        let leaks = ["panicked", "backtrace"].into_iter();
        wrong.extend(
            leaks
                .filter(|leak| lower.contains(leak))
                .map(|leak| format!("says {leak}")),
        );
        (!wrong.is_empty()).then(|| {
            let arguments = row.arguments.join(" ");
            format!("{arguments}\n    {}\n    {last}", wrong.join(", "))
        })
    }

    /// A small model that can be loaded.
    fn model(&self, name: &str) {
        let texts = ["one and one are two", "two and two are four"];
        let tokenizer = Tokenizer::train(texts.into_iter(), 300).unwrap();
        let mut config = ModelConfig {
            hidden_size: 16,
            intermediate_size: 16,
            num_hidden_layers: 2,
            ..ModelConfig::tiny(tokenizer.vocabulary())
        };
        config.mixture.width = 8;
        let folder = self.path(name);
        Model::random(&config, 1).save(&folder).unwrap();
        tokenizer.save(&folder.join("tokenizer.json")).unwrap();
    }

    /// Changes one file of a model.
    fn change(&self, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let content = std::fs::read(self.path(name)).unwrap();
        self.write(name, change(content));
    }
}

/// Replaces the only occurrence, without changing the length of anything around it.
fn replaced(content: &[u8], from: &str, to: &str) -> Vec<u8> {
    let at = content
        .windows(from.len())
        .position(|window| window == from.as_bytes())
        .unwrap();
    [&content[..at], to.as_bytes(), &content[at + from.len()..]].concat()
}

#[test]
fn text_that_cannot_be_read_is_named_with_its_file_and_line() {
    let ground = Ground::new();
    let good = "{\"text\": \"one and one are two\"}\n";
    ground.write("good.jsonl", good);
    ground.write("torn.jsonl", format!("{good}{good}{{\"text\": \"on\n"));
    ground.write("shapeless.jsonl", format!("{good}{{\"words\": \"one\"}}\n"));
    ground.write("number.jsonl", format!("{good}{{\"text\": 3}}\n"));
    ground.write("list.jsonl", "[\"one\"]\n");
    ground.write(
        "latin.jsonl",
        [good.as_bytes(), b"{\"text\": \"caf\xe9\"}\n"].concat(),
    );
    ground.write("empty.jsonl", "");
    ground.write("few.jsonl", good);
    std::fs::create_dir(ground.path("folder.jsonl")).unwrap();
    let mut rows = Vec::new();
    for command in ["localnet", "pretrain"] {
        let data = |file: &str, names: &[&'static str]| {
            row(
                &format!("{command} --data {file} --out {command}-{file}"),
                2,
                names,
            )
        };
        rows.extend([
            data("absent.jsonl", &["absent.jsonl"]),
            data("torn.jsonl", &["torn.jsonl", "line 3"]),
            data("shapeless.jsonl", &["shapeless.jsonl", "line 2"]),
            data("number.jsonl", &["number.jsonl", "line 2", "text"]),
            data("list.jsonl", &["list.jsonl", "line 1"]),
            data("latin.jsonl", &["latin.jsonl", "line 2", "UTF-8"]),
            data("empty.jsonl", &["empty.jsonl"]),
            data("few.jsonl", &["few"]),
            data("folder.jsonl", &["folder.jsonl"]),
        ]);
    }
    ground.check(&rows);
}

#[test]
fn models_that_cannot_be_used_are_named_by_file_key_or_tensor() {
    let ground = Ground::new();
    for name in [
        "llama", "biased", "lora", "torn", "lacking", "mute", "garbled", "bare", "text",
    ] {
        ground.model(name);
    }
    let key =
        |from: &'static str, to: &'static str| move |config: Vec<u8>| replaced(&config, from, to);
    ground.change("llama/config.json", key("deepseek_v2", "llama"));
    ground.change(
        "biased/config.json",
        key("\"attention_bias\": false", "\"attention_bias\": true"),
    );
    ground.change(
        "lora/config.json",
        key("\"q_lora_rank\": null", "\"q_lora_rank\": 8"),
    );
    ground.change("torn/model.safetensors", |mut weights| {
        weights.truncate(weights.len() / 2);
        weights
    });
    ground.change(
        "lacking/model.safetensors",
        key("model.norm.weight", "model.morn.weight"),
    );
    std::fs::remove_file(ground.path("mute/tokenizer.json")).unwrap();
    ground.write("garbled/tokenizer.json", "{}");
    std::fs::remove_file(ground.path("bare/model.safetensors")).unwrap();
    ground.write("text/config.json", "hidden_size = 16");
    let model = |folder: &str, names: &[&'static str]| {
        row(
            &format!("localnet --model {folder} --out out-{folder}"),
            2,
            names,
        )
    };
    ground.check(&[
        model("absent", &["absent"]),
        model("llama", &["llama/config.json", "model_type"]),
        model("biased", &["biased/config.json", "attention_bias"]),
        model("lora", &["layers.0.self_attn.q_a_proj.weight"]),
        model("torn", &["torn/model.safetensors"]),
        model("lacking", &["model.norm.weight"]),
        model("mute", &["mute/tokenizer.json"]),
        model("garbled", &["garbled/tokenizer.json"]),
        model("bare", &["bare"]),
        model("text", &["text/config.json"]),
    ]);
}

/// What should not happen: a folder that is not ours being replaced.
#[test]
fn a_local_network_that_cannot_start_says_why_and_destroys_nothing() {
    let ground = Ground::new();
    ground.model("model");
    ground.write("foreign/thesis.tex", "ten years of work");
    ground.write("file", "a file");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut in_use = row(
        &format!("localnet --model model --out a --port {port}"),
        3,
        &["port"],
    );
    in_use.names.push(port.to_string().leak());
    ground.check(&[
        in_use,
        row("localnet --model model --out b --port 65535", 2, &["65535"]),
        row(
            "localnet --model model --out c --groups 4",
            2,
            &["--groups 4"],
        ),
        row("localnet --model model --out d --kept 2", 2, &["--kept 2"]),
        row("localnet --model model --out d --top-p 2", 2, &["--top-p"]),
        row(
            "localnet --model model --out d --top-k 9",
            2,
            &["--top-k 9"],
        ),
        row("localnet --model model --out foreign", 2, &["foreign"]),
        row("localnet --model model --out file", 2, &["file"]),
    ]);
    let kept = |name| std::fs::read_to_string(ground.path(name)).unwrap();
    assert_eq!(kept("foreign/thesis.tex"), "ten years of work");
    assert_eq!(kept("file"), "a file");
}

/// A mistake in the command line should not cost the results of an earlier run.
#[test]
fn an_earlier_run_survives_a_command_line_that_cannot_be_run() {
    let ground = Ground::new();
    ground.write("out/.connito-run", "");
    ground.write("out/summary.json", "{}");
    ground.check(&[row(
        "localnet --data absent.jsonl --out out",
        2,
        &["absent.jsonl"],
    )]);
    assert!(ground.path("out/summary.json").is_file(), "it is gone");
}

/// A chain that nobody serves: the port was free a moment ago.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// The configuration of a role whose key is in this file, with more lines from line 5 on.
fn config(hotkey: &str, more: &str) -> String {
    let chain = nowhere();
    format!(
        "chain = \"{chain}\"\nhotkey = \"{hotkey}\"\nfolder = \"role\"\njournal = \"role/journal\"\n{more}"
    )
}

#[test]
fn configurations_that_cannot_be_read_are_named_by_file_line_and_key() {
    let ground = Ground::new();
    ground.write("latin.toml", b"# caf\xe9\n");
    ground.write("torn.toml", "chain = \"http://127\n");
    ground.write("short.toml", "chain = \"http://127.0.0.1:1\"\n");
    ground.write("key.toml", config("key.json", "thread = 2\n"));
    ground.write("type.toml", config("key.json", "threads = \"two\"\n"));
    ground.check(&[
        row("miner --config absent.toml", 2, &["absent.toml"]),
        row("miner --config latin.toml", 2, &["latin.toml"]),
        row("miner --config torn.toml", 2, &["torn.toml", "line 1"]),
        row("miner --config short.toml", 2, &["short.toml", "hotkey"]),
        row(
            "miner --config key.toml",
            2,
            &["key.toml", "line 5", "thread"],
        ),
        row("miner --config type.toml", 2, &["type.toml", "line 5"]),
        row("chain --config key.toml", 2, &["key.toml", "line"]),
    ]);
}

#[test]
fn a_role_that_cannot_start_names_the_key_the_port_or_the_chain() {
    let ground = Ground::new();
    let pair = Keypair::from_seed(&[7; 32]);
    for name in ["key.json", "open.json"] {
        keys::write(&ground.path(name), &pair).unwrap();
    }
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(ground.path("open.json"), open).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let port: &'static str = address.port().to_string().leak();
    let elsewhere = config("key.json", "").replacen("http://", "not a url ", 1);
    ground.write("open.toml", config("open.json", ""));
    ground.write("keyless.toml", config("absent.json", ""));
    ground.write("elsewhere.toml", elsewhere);
    ground.write("alone.toml", config("key.json", ""));
    ground.write(
        "taken.toml",
        config("key.json", &format!("listen = \"{address}\"\n")),
    );
    ground.check(&[
        row("miner --config open.toml", 2, &["open.json", "0600"]),
        row("miner --config keyless.toml", 2, &["absent.json"]),
        row("miner --config elsewhere.toml", 2, &["not a url"]),
        row("validator --config alone.toml", 2, &["listen"]),
        row("validator --config taken.toml", 3, &[port]),
        // Waits for its chain as long as a chain may take to start.
        row("miner --config alone.toml", 3, &["http://127.0.0.1:"]),
    ]);
}

/// A miner's journal of three lines, made by the machine itself.
fn journal(path: &Path, change: impl Fn(usize, &mut Vec<Effect>)) {
    let character = Character {
        identity: Identity {
            hotkey: Keypair::from_seed(&[7; 32]).hotkey(),
            network: Network {
                genesis: BlockHash([1; 32]),
                netuid: Netuid(1),
            },
            endpoint: None,
        },
        role: Role::Miner,
    };
    let mut machine = Machine::new(&character);
    let (mut journal, _) = Journal::create_or_open::<_, Step>(path, &character).unwrap();
    for position in 0..2 {
        let mut effects = machine.handle(&Event::Started);
        change(position, &mut effects);
        let event = Event::Started;
        journal.append(&Step { event, effects }).unwrap();
    }
}

#[test]
fn a_journal_that_cannot_be_read_is_input_and_one_that_tells_otherwise_is_a_failed_check() {
    let ground = Ground::new();
    journal(&ground.path("whole"), |_, _| {});
    let replayed = connito(["replay"])
        .arg(ground.path("whole"))
        .output()
        .unwrap();
    assert!(replayed.status.success(), "the journal itself is in order");

    journal(&ground.path("altered"), |position, effects| {
        if position == 1 {
            effects.push(Effect::Tell(Milestone::NotRegistered));
        }
    });
    ground.write("damaged", std::fs::read(ground.path("whole")).unwrap());
    ground.change("damaged", |content| {
        let first = content.iter().position(|byte| *byte == b'\n').unwrap();
        let mut content = content;
        content[first + 15] ^= 1;
        content
    });
    ground.write("empty", "");
    ground.write("prose", "Once upon a time\n");
    ground.check(&[
        row("replay absent", 2, &["absent"]),
        row("replay damaged", 2, &["damaged", "line 2"]),
        row("replay empty", 2, &["empty"]),
        row("replay prose", 2, &["prose", "line 1"]),
        row("replay altered", 1, &["altered", "3"]),
    ]);
}
