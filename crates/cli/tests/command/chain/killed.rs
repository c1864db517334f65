//! A chain's process killed while it makes blocks and extrinsics come in.
//!
//! What a killed chain may lose is what nobody has seen in a block: extrinsics that it had taken into its
//! pool. Every block that was ever served as the head is there again, under the same hash, because it was
//! durable before it was shown. Nothing here waits for a time: a process is killed as soon as enough of its
//! blocks and extrinsics have been seen, in the middle of whatever it is doing then.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use connito_chain::embedded::EmbeddedChain;
use connito_chain::keys::{Keypair, Signer};
use connito_chain::rpc::{HttpTransport, RpcTransport};
use connito_chain::runtime::{BUNDLED_VERSION, Era, Runtime, SigningTerms, Value, bundled};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::sync::watch;

use super::{Served, refuses};
use crate::connito;

/// How often the process is killed.
const KILLS: usize = 3;
/// What has been seen of a process when it is killed: blocks, and extrinsics in them.
const ENOUGH: (usize, usize) = (12, 40);
/// What every extrinsic moves, from an account to its neighbour.
const RAO: u64 = 1_000_000;

/// What was seen of a chain, from outside and over all its processes.
#[derive(Default)]
struct Seen {
    /// The hash of every block that was served as the newest.
    served: BTreeMap<u64, String>,
    /// The signed extrinsics in those blocks, in their order.
    confirmed: Vec<String>,
    /// The extrinsics for which the chain answered that they wait, by nonce.
    accepted: BTreeMap<u64, String>,
}

/// One process's chain, as a client knows it.
#[derive(Clone)]
struct Client(HttpTransport);

impl Client {
    fn of(chain: &Served) -> Self {
        Self(HttpTransport::new(&chain.endpoint).unwrap())
    }

    /// The answer, or nothing once the process is gone.
    async fn answer(&self, method: &str, params: Json) -> Option<Json> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.0.call(request.to_string().into_bytes()).await.ok()?;
        Some(serde_json::from_slice(&answer).unwrap())
    }

    /// The result, from a process that lives.
    async fn result(&self, method: &str, params: Json) -> Json {
        let mut answer = self.answer(method, params).await.unwrap();
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    /// What an account has, in rao.
    async fn balance(&self, of: &Keypair) -> u64 {
        let runtime = runtime();
        let item = ("System", "Account");
        let key = runtime.storage_key(item.0, item.1, &[of.hotkey().into()]);
        let key = format!("0x{}", hex(&key.unwrap()));
        let bytes = self.result("state_getStorage", json!([key])).await;
        let bytes = bytes.as_str().map(unhex);
        let value = runtime.storage_value(item.0, item.1, bytes.as_deref());
        let free = value.unwrap().unwrap();
        let free = free.field("data").and_then(|data| data.field("free"));
        free.and_then(Value::number).unwrap()
    }
}

fn runtime() -> Runtime {
    Runtime::from_metadata(bundled(), BUNDLED_VERSION).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.strip_prefix("0x").unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn development(name: &str) -> Keypair {
    Keypair::development(name).unwrap()
}

/// A transfer from `//Alice` to `//Bob` that may be included at any time, but only once.
fn transfer(genesis: [u8; 32], nonce: u64) -> String {
    let to = Value::variant_of("Id", [development("//Bob").hotkey().into()]);
    let arguments = [("dest", to), ("value", RAO.into())];
    let call = runtime()
        .call("Balances", "transfer_keep_alive", &arguments)
        .unwrap();
    let terms = SigningTerms {
        genesis,
        nonce,
        tip: 0,
        era: Era::Immortal,
    };
    let signed = runtime().sign(&development("//Alice"), &call, &terms);
    format!("0x{}", hex(&signed.unwrap().bytes))
}

/// Writes down every new head and what it includes until the process is gone.
async fn watch_heads(
    client: Client,
    mut after: u64,
    enough: watch::Sender<(usize, usize)>,
) -> (BTreeMap<u64, String>, Vec<String>) {
    let (mut served, mut confirmed) = (BTreeMap::new(), Vec::new());
    while let Some(waited) = client
        .answer("connito_waitBlock", json!([after, 10_000]))
        .await
    {
        let Some(hash) = waited["result"]["hash"].as_str() else {
            continue;
        };
        after += 1;
        served.insert(after, hash.to_owned());
        let Some(block) = client.answer("chain_getBlock", json!([hash])).await else {
            break;
        };
        let all = block["result"]["block"]["extrinsics"].as_array().unwrap();
        // The first sets the time, and nobody has signed it.
        let signed = all[1..].iter().map(|one| one.as_str().unwrap().to_owned());
        confirmed.extend(signed);
        enough.send_replace((served.len(), confirmed.len()));
    }
    (served, confirmed)
}

/// Sends one transfer after another until the process is gone. Gives those that it had answered for.
async fn send_transfers(client: Client, genesis: [u8; 32], first: u64) -> BTreeMap<u64, String> {
    let mut accepted = BTreeMap::new();
    for nonce in first.. {
        let message = transfer(genesis, nonce);
        let submitted = client.answer("author_submitExtrinsic", json!([message]));
        let Some(answer) = submitted.await else { break };
        assert!(answer["result"].is_string(), "{answer}");
        accepted.insert(nonce, message);
    }
    accepted
}

/// Uses a chain until it is killed, in the middle of blocks and of extrinsics.
async fn kill_while_used(mut chain: Served, seen: &mut Seen) {
    let client = Client::of(&chain);
    let genesis = client.result("chain_getBlockHash", json!([0])).await;
    let genesis = unhex(genesis.as_str().unwrap()).try_into().unwrap();
    let nonce = next_nonce(&client).await;
    let head = client.result("chain_getHeader", json!([])).await;
    let head = u64::from_str_radix(&head["number"].as_str().unwrap()[2..], 16).unwrap();

    let (enough, mut progress) = watch::channel((0, 0));
    let heads = tokio::spawn(watch_heads(client.clone(), head, enough));
    let sender = tokio::spawn(send_transfers(client, genesis, nonce));
    let reached = progress.wait_for(|(blocks, sent)| *blocks >= ENOUGH.0 && *sent >= ENOUGH.1);
    reached.await.unwrap();
    chain.process.kill().unwrap();
    chain.process.wait().unwrap();

    let (served, confirmed) = heads.await.unwrap();
    seen.served.extend(served);
    seen.confirmed.extend(confirmed);
    seen.accepted.extend(sender.await.unwrap());
}

async fn next_nonce(client: &Client) -> u64 {
    let alice = development("//Alice").hotkey().to_string();
    let nonce = client.result("system_accountNextIndex", json!([alice]));
    nonce.await.as_u64().unwrap()
}

/// Holds a chain against everything that was seen of the processes that served it before.
async fn compare(client: &Client, seen: &Seen) {
    let heights: Vec<u64> = seen.served.keys().copied().collect();
    let hashes = client.result("chain_getBlockHash", json!([heights])).await;
    let expected: Vec<&String> = seen.served.values().collect();
    assert_eq!(hashes, json!(expected), "a block that was served is gone");

    // Every included transfer used one nonce, and a transfer that was confirmed is among them.
    let nonce = next_nonce(client).await;
    assert!(nonce as usize >= seen.confirmed.len());
    for message in &seen.confirmed {
        let answer = client.answer("author_submitExtrinsic", json!([message]));
        let answer = answer.await.unwrap();
        assert_eq!(answer["error"]["code"], 1010, "sent again: {answer}");
        let data = answer["error"]["data"].as_str().unwrap_or_default();
        assert!(data.contains("outdated"), "sent again: {answer}");
    }
    let bob = client.balance(&development("//Bob")).await;
    assert_eq!(bob, nonce * RAO, "what was carried out, and only once");
}

/// What the pool had taken in and no block: its senders send it again, as it is.
async fn send_again_what_is_lost(client: &Client, seen: &Seen) {
    let nonce = next_nonce(client).await;
    for message in seen.accepted.range(nonce..).map(|(_, message)| message) {
        let hash = client.result("author_submitExtrinsic", json!([message]));
        assert!(hash.await.is_string());
    }
}

fn restarted(folder: &Path) -> Served {
    // A process killed as it starts, wherever it has got to, is no obstacle either.
    let mut early = connito(["chain", "--listen", "127.0.0.1:0", "--folder"])
        .arg(folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    early.kill().unwrap();
    early.wait().unwrap();
    Served::in_folder(folder, &[])
}

#[tokio::test]
async fn a_killed_chain_has_every_block_it_had_served_and_carries_nothing_out_twice() {
    let folder = TempDir::new().unwrap();
    let mut seen = Seen::default();
    let mut chain = Served::in_folder(folder.path(), &["--block-time", "50ms"]);
    for _ in 0..KILLS {
        kill_while_used(chain, &mut seen).await;
        chain = restarted(folder.path());
        let client = Client::of(&chain);
        compare(&client, &seen).await;
        send_again_what_is_lost(&client, &seen).await;
    }
    assert!(seen.confirmed.len() >= KILLS * ENOUGH.1);
    kill_while_used(chain, &mut seen).await;

    // What is on the disk is the chain that was seen, carried out once more by somebody else.
    let spec = EmbeddedChain::stored_genesis(folder.path()).unwrap();
    let (read, damage) = EmbeddedChain::recorded(folder.path(), spec.unwrap()).unwrap();
    assert!(damage.is_none(), "{damage:?}");
    let (height, hash) = seen.served.last_key_value().unwrap();
    assert!(read.head().number.0 >= *height);
    let request =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "chain_getBlockHash", "params": [height] });
    let answer: Json =
        serde_json::from_slice(&read.handle(request.to_string().as_bytes())).unwrap();
    assert_eq!(answer["result"], *hash);
}

/// What should not happen: two processes that write one log, or a lock that outlives its owner.
#[test]
fn a_folder_is_locked_for_as_long_as_its_process_lives() {
    let folder = TempDir::new().unwrap();
    let mut first = Served::in_folder(folder.path(), &["--block-time", "50ms"]);
    let second = format!("--listen 127.0.0.1:0 --folder {}", folder.path().display());
    refuses(&second, 2, "is in use by another process");
    first.process.kill().unwrap();
    first.process.wait().unwrap();
    assert!(fs::exists(folder.path().join("lock")).unwrap());
    Served::in_folder(folder.path(), &[]);
}
