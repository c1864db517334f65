//! Several endpoints of one chain: passing over those that fail, never asking those of another chain,
//! keeping to the pace that public ones allow, and leaving alone those that ask for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connito_chain::embedded::EmbeddedChain;
use connito_chain::rpc::RpcTransport;
use connito_chain::subtensor::{Connection, EndpointPool, SubtensorChain};
use connito_chain::{At, Chain, ChainError, TransportError};
use connito_protocol::ids::{Block, Netuid};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::network::*;

/// What an endpoint makes of an answer: the question, and what a node would answer.
type Alter = fn(&Value, Value) -> Value;

/// A public endpoint that can be switched off or made to misbehave, and counts what it is asked.
#[derive(Debug, Clone)]
pub(crate) struct Switched {
    name: &'static str,
    chain: Arc<EmbeddedChain>,
    off: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    /// What was asked, newest last.
    methods: Arc<Mutex<VecDeque<String>>>,
    alters: Arc<Mutex<Option<Alter>>>,
}

impl Switched {
    pub(crate) fn new(name: &'static str, chain: &Arc<EmbeddedChain>) -> Self {
        Self {
            name,
            chain: Arc::clone(chain),
            off: Arc::default(),
            asked: Arc::default(),
            methods: Arc::default(),
            alters: Arc::default(),
        }
    }

    /// From now on its answers are what `alter` makes of them.
    pub(crate) fn alter(&self, alter: Alter) {
        *self.alters.lock().unwrap() = Some(alter);
    }

    /// From now on it answers as a node does.
    pub(crate) fn behave(&self) {
        *self.alters.lock().unwrap() = None;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl RpcTransport for Switched {
    fn endpoint(&self) -> &str {
        self.name
    }

    async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8_lossy(&body).into_owned();
        self.methods.lock().unwrap().push_back(text);
        if self.off.load(Ordering::Relaxed) {
            return Err(TransportError::new(self.name, "switched off"));
        }
        let question: Value = serde_json::from_slice(&body).unwrap();
        let mut answer: Value = serde_json::from_slice(&self.chain.handle(&body)).unwrap();
        if question["method"] == "rpc_methods" {
            // Without the extension: as a public node answers.
            answer["result"]["methods"] = Value::Array(Vec::new());
        }
        let alter = *self.alters.lock().unwrap();
        let answer = match alter {
            Some(alter) => alter(&question, answer),
            None => answer,
        };
        Ok(answer.to_string().into_bytes())
    }
}

/// A client of several endpoints.
pub(crate) type Pooled = SubtensorChain<EndpointPool<Switched>>;

/// A client that prefers the first of two endpoints, and both of them.
pub(crate) async fn two(
    names: [&'static str; 2],
    chains: [&Arc<EmbeddedChain>; 2],
) -> (Pooled, Switched, Switched) {
    let first = Switched::new(names[0], chains[0]);
    let second = Switched::new(names[1], chains[1]);
    let client = pooled(&[&first, &second], Duration::ZERO).await;
    (client.unwrap(), first, second)
}

pub(crate) async fn pooled(
    endpoints: &[&Switched],
    interval: Duration,
) -> Result<Pooled, ChainError> {
    let endpoints = endpoints.iter().map(|endpoint| (*endpoint).clone());
    let pool = EndpointPool::new(endpoints.collect(), interval, None)?;
    SubtensorChain::connect(pool, Connection::default()).await
}

pub(crate) fn chain() -> Arc<EmbeddedChain> {
    EmbeddedChain::in_memory(spec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_is_passed_over_and_not_asked_again() {
    let chain = chain();
    let (client, first, second) = two(["first", "second"], [&chain; 2]).await;
    assert_eq!(
        second.asked(),
        0,
        "the first answers, so nobody else is asked"
    );
    first.off.store(true, Ordering::Relaxed);
    client.metagraph(At::Head).await.unwrap();
    let asked = first.asked();
    client.metagraph(At::Head).await.unwrap();
    assert_eq!(first.asked(), asked);
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_the_error_names_the_first_that_did() {
    let chain = chain();
    let (client, first, second) = two(["first", "second"], [&chain; 2]).await;
    first.off.store(true, Ordering::Relaxed);
    second.off.store(true, Ordering::Relaxed);
    let error = client.block(At::Head).await.unwrap_err();
    assert_eq!(error.to_string(), "chain endpoint first: switched off");
    // They come back.
    second.off.store(false, Ordering::Relaxed);
    client.block(At::Head).await.unwrap();
}

/// What should not happen: a read of another chain, however long the right one is away.
#[tokio::test(start_paused = true)]
async fn an_endpoint_of_another_chain_is_asked_for_its_name_and_nothing_else() {
    let mut other = spec();
    other.genesis_time_ms += 1;
    let other = EmbeddedChain::in_memory(other).unwrap();
    let (client, ours, theirs) = two(["ours", "theirs"], [&chain(), &other]).await;
    ours.off.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        assert!(client.metagraph(At::Head).await.is_err());
    }
    let asked = theirs.methods.lock().unwrap();
    assert!(!asked.is_empty());
    assert!(
        asked.iter().all(|body| body.contains("chain_getBlockHash")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_chain_that_is_not_the_one_meant_is_refused_by_its_first_block() {
    let chain = chain();
    let meant = Connection {
        genesis: Some(connito_protocol::ids::BlockHash([7; 32])),
        ..Connection::default()
    };
    let refused = SubtensorChain::connect(Arc::clone(&chain), meant).await;
    let expected = format!(
        "chain endpoint in this process is of another chain: its first block is {}",
        chain.identity().genesis
    );
    assert_eq!(refused.unwrap_err().to_string(), expected);
}

#[tokio::test]
async fn a_subnet_that_is_not_there_is_named() {
    let missing = Connection {
        netuid: Some(Netuid(77)),
        ..Connection::default()
    };
    let refused = SubtensorChain::connect(chain(), missing).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the chain has no subnet 77"
    );
}

/// Nine at once, then one a second: what a public endpoint's operator allows.
#[tokio::test(start_paused = true)]
async fn a_public_endpoint_is_asked_no_more_often_than_it_allows() {
    let endpoint = Switched::new("public", &chain());
    let client = pooled(&[&endpoint], Duration::from_secs(1)).await.unwrap();
    let (began, asked) = (Instant::now(), endpoint.asked());
    for _ in 0..30 {
        client.block(At::Head).await.unwrap();
    }
    let requests = endpoint.asked() - asked;
    let seconds = began.elapsed().as_secs();
    assert_eq!(requests, 30);
    assert!((21..=30).contains(&seconds), "{seconds} s");
}

/// The first endpoint still answers, but its chain stands still: the watchdog passes it over.
#[tokio::test(start_paused = true)]
async fn an_endpoint_without_new_blocks_is_passed_over_for_one_that_has_them() {
    let (still, moving) = (chain(), chain());
    moving.advance(2).unwrap();
    let (client, _, _) = two(["still", "moving"], [&still, &moving]).await;
    let wait = Duration::from_secs(60);
    let stalled = client.wait_block(Block(0), wait).await;
    let expected = "chain endpoint still: no block after 0 for 10 block times";
    assert_eq!(stalled.unwrap_err().to_string(), expected);
    let next = client.wait_block(Block(0), wait).await.unwrap();
    assert_eq!(next.block.number, Block(1));
}

/// A block named by its hash is the same everywhere; one endpoint not having it yet is no answer.
#[tokio::test(start_paused = true)]
async fn a_block_that_one_endpoint_lacks_is_read_at_the_next() {
    let (behind, ahead) = (chain(), chain());
    let block = ahead.advance(3).unwrap();
    let (client, _, _) = two(["behind", "ahead"], [&behind, &ahead]).await;
    let read = client.metagraph(At::Hash(block.hash)).await.unwrap();
    assert_eq!(read.at.number, Block(3));
    let nowhere = At::Hash(connito_protocol::ids::BlockHash([9; 32]));
    let absent = client.metagraph(nowhere).await.unwrap_err();
    assert!(matches!(absent, ChainError::UnknownBlock(at) if at == nowhere));
}

fn limited(data: &Value) -> Value {
    let error = json!({ "code": -32_005, "message": "slow down", "data": data });
    json!({ "jsonrpc": "2.0", "id": 0, "error": error })
}

/// What should not happen: that a role stands still, or asks on, because one endpoint has had enough.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_limits_us_is_left_alone_in_favour_of_the_next() {
    let chain = chain();
    let (client, first, second) = two(["first", "second"], [&chain; 2]).await;
    first.alter(|_, _| limited(&json!({ "retry_after": 30 })));
    let asked = first.asked();
    client.metagraph(At::Head).await.unwrap();
    assert_eq!(first.asked(), asked + 1);
    // Not even when the other one fails: that may be over sooner.
    second.off.store(true, Ordering::Relaxed);
    first.behave();
    let error = client.block(At::Head).await.unwrap_err();
    assert_eq!(error.to_string(), "chain endpoint second: switched off");
    assert_eq!(first.asked(), asked + 1);
    tokio::time::advance(Duration::from_secs(30)).await;
    client.block(At::Head).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_only_endpoint_is_asked_ever_less_often_while_it_limits_us() {
    let only = Switched::new("only", &chain());
    let client = pooled(&[&only], Duration::ZERO).await.unwrap();
    only.alter(|_, _| limited(&Value::Null));
    let began = Instant::now();
    let mut waited = Vec::new();
    for _ in 0..9 {
        let error = client.block(At::Head).await.unwrap_err();
        let expected = "chain endpoint only: limits how often it is asked: slow down (-32005)";
        assert_eq!(error.to_string(), expected);
        waited.push(began.elapsed().as_secs());
    }
    assert_eq!(waited, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
    only.behave();
    client.block(At::Head).await.unwrap();
    only.alter(|_, _| limited(&Value::Null));
    let _ = client.block(At::Head).await;
    only.behave();
    let again = Instant::now();
    client.block(At::Head).await.unwrap();
    assert_eq!(again.elapsed().as_secs(), 1, "all is forgiven");
}

/// What was refused unread is in nobody's pool; anything else may be, and is not sent twice.
#[tokio::test(start_paused = true)]
async fn an_operation_that_one_endpoint_has_no_time_for_is_sent_by_the_next() {
    let chain = chain();
    let (client, first, second) = two(["first", "second"], [&chain; 2]).await;
    first.alter(|question, answer| match &question["method"] {
        method if method == "author_submitExtrinsic" => limited(&Value::Null),
        _ => answer,
    });
    tokio::spawn(async move { client.submit(&pair(MINER), commit("once")).await });
    let sent = |endpoint: &Switched| {
        let asked = endpoint.methods.lock().unwrap();
        asked
            .iter()
            .any(|body| body.contains("author_submitExtrinsic"))
    };
    while !sent(&second) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(sent(&first));
}

/// A node may be started without batches; one question after the other does as well.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_takes_no_batches_is_asked_one_by_one() {
    let chain = chain();
    let plain = Switched::new("plain", &chain);
    plain.alter(|question, answer| match question {
        Value::Array(_) => {
            let message = "Batched requests are not supported by this server";
            let error = json!({ "code": -32_005, "message": message });
            json!({ "jsonrpc": "2.0", "id": null, "error": error })
        }
        _ => answer,
    });
    let client = pooled(&[&plain], Duration::ZERO).await.unwrap();
    let signed = client.prepare(&pair(MINER), &commit("alone")).await;
    chain.submit(&signed.unwrap().bytes).unwrap();
}

/// Whoever catches up asks as often as the endpoint allows; an operation must not wait for its turn
/// among twenty questions.
#[tokio::test(start_paused = true)]
async fn an_operation_goes_out_before_the_reads_that_stand_in_line() {
    let endpoint = Switched::new("public", &chain());
    let client = pooled(&[&endpoint], Duration::from_secs(1)).await.unwrap();
    let client = Arc::new(client);
    for _ in 0..20 {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.block(At::Head).await });
    }
    tokio::task::yield_now().await;
    let began = Instant::now();
    tokio::spawn(async move { client.submit(&pair(MINER), commit("urgent")).await });
    let is_sent = || {
        let asked = endpoint.methods.lock().unwrap();
        asked
            .iter()
            .any(|body| body.contains("author_submitExtrinsic"))
    };
    while !is_sent() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
}
