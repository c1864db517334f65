//! One connection's view of the chain: requests and answers, and the notifications it has subscribed to.
//!
//! A session knows no sockets. Whoever carries its bytes gives every text that comes in to
//! [`Session::handle`], sends the answer, and sends what [`Session::next`] gives in between. A
//! subscription sees every block, one after the other, unless its connection is so slow that a block is
//! discarded before its turn; then it goes on with the oldest that is left. No more is collected than
//! [`MAX_WAITING_BYTES`] and what there is to tell of one block: while so much waits, blocks wait too and new
//! subscriptions are refused. What waits for a subscription is dropped when it is closed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use connito_protocol::ids::Block;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::failure::Failure;
use super::params::Params;
use super::room::Room;
use super::state::{read_keys, version};
use super::{MAX_ANSWER_BYTES, answer};
use crate::embedded::EmbeddedChain;
use crate::embedded::block::Sealed;
use crate::embedded::history::Unreadable;
use crate::embedded::pool::Place;
use crate::hex_text;

/// Subscriptions of one connection.
const MAX_SUBSCRIPTIONS: usize = 64;
/// Storage keys in all of them.
const MAX_WATCHED_KEYS: usize = 1_024;
/// Notifications that wait to be taken.
const MAX_WAITING_BYTES: usize = MAX_ANSWER_BYTES;
/// Blocks that are told of before the connection is asked again whether it takes more.
const BLOCKS_AT_ONCE: u64 = 16;

/// What [`Session::handle`] answers beyond [`EmbeddedChain::handle`].
const UNSUBSCRIBE: [&str; 10] = [
    "author_unwatchExtrinsic",
    "chain_unsubscribeAllHeads",
    "chain_unsubscribeFinalisedHeads",
    "chain_unsubscribeFinalizedHeads",
    "chain_unsubscribeNewHead",
    "chain_unsubscribeNewHeads",
    "chain_unsubscribeRuntimeVersion",
    "state_unsubscribeRuntimeVersion",
    "state_unsubscribeStorage",
    "unsubscribe_newHead",
];

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    chain: Arc<EmbeddedChain>,
    head: watch::Receiver<Block>,
    subscriptions: BTreeMap<u64, Subscription>,
    /// How many there have been, which names the next.
    opened: u64,
    waiting: Waiting,
}

/// Notifications that have not been taken yet, each with its subscription.
#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
}

impl Waiting {
    fn push(&mut self, id: u64, notification: Vec<u8>) {
        self.bytes += notification.len();
        self.queue.push_back((id, notification));
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let (_, notification) = self.queue.pop_front()?;
        self.bytes -= notification.len();
        Some(notification)
    }

    fn forget(&mut self, id: u64) {
        self.queue.retain(|(of, _)| *of != id);
        self.bytes = self.queue.iter().map(|(_, one)| one.len()).sum();
    }

    fn is_full(&self) -> bool {
        self.bytes >= MAX_WAITING_BYTES
    }
}

/// What one subscription waits for.
#[derive(Debug)]
struct Subscription {
    topic: Topic,
    /// The newest block it has been told of.
    told: u64,
}

#[derive(Debug)]
enum Topic {
    /// Every block's header, under this name.
    Heads(&'static str),
    /// Nothing more: this runtime is never replaced.
    RuntimeVersion,
    /// Values that change, by key, with the last one told.
    Storage(BTreeMap<Vec<u8>, Option<Vec<u8>>>),
    /// What becomes of an extrinsic.
    Extrinsic([u8; 32]),
}

impl Topic {
    /// The method that notifications come under.
    fn notification(&self) -> &'static str {
        match self {
            Self::Heads(name) => name,
            Self::RuntimeVersion => "state_runtimeVersion",
            Self::Storage(_) => "state_storage",
            Self::Extrinsic(_) => "author_extrinsicUpdate",
        }
    }
}

impl Session {
    /// A connection that has not asked for anything yet.
    #[must_use]
    pub fn new(chain: Arc<EmbeddedChain>) -> Self {
        let head = chain.head.subscribe();
        Self {
            chain,
            head,
            subscriptions: BTreeMap::new(),
            opened: 0,
            waiting: Waiting::default(),
        }
    }

    /// Answers a text at once; empty where there is nothing to answer. The answer to a subscription must be
    /// sent before the next notification is.
    #[must_use]
    pub fn handle(&mut self, text: &[u8]) -> Vec<u8> {
        answer(text, |method, params| self.dispatch(method, params))
    }

    /// The next notification, as soon as there is one. Cancel-safe.
    pub async fn next(&mut self) -> Vec<u8> {
        loop {
            if let Some(notification) = self.waiting.pop() {
                return notification;
            }
            let newest = self.head.borrow_and_update().0;
            self.tell(newest);
            if self.waiting.queue.is_empty() && self.head.changed().await.is_err() {
                // The chain outlives its sessions, which hold it.
                std::future::pending::<()>().await;
            }
        }
    }

    fn dispatch(&mut self, method: &str, mut params: Params) -> Result<Value, Failure> {
        match method {
            "chain_subscribeNewHeads" | "chain_subscribeNewHead" | "subscribe_newHead" => {
                self.heads("chain_newHead", params)
            }
            "chain_subscribeAllHeads" => self.heads("chain_allHead", params),
            "chain_subscribeFinalizedHeads" | "chain_subscribeFinalisedHeads" => {
                self.heads("chain_finalizedHead", params)
            }
            "state_subscribeRuntimeVersion" | "chain_subscribeRuntimeVersion" => {
                params.end()?;
                let head = self.chain.head().number.0;
                let id = self.open(Topic::RuntimeVersion, head)?;
                self.notify(id, &version());
                Ok(json!(id.to_string()))
            }
            "state_subscribeStorage" => self.storage(params),
            "author_submitAndWatchExtrinsic" => self.watch(params),
            _ if UNSUBSCRIBE.contains(&method) => {
                let id: Value = params.next("subscription")?;
                params.end()?;
                let id = id.as_u64().or_else(|| id.as_str()?.parse().ok());
                Ok(json!(id.is_some_and(|id| self.close(id))))
            }
            _ => self.chain.dispatch(method, params),
        }
    }

    fn heads(&mut self, notification: &'static str, params: Params) -> Result<Value, Failure> {
        params.end()?;
        let head = self.chain.block_at(None)?;
        let id = self.open(Topic::Heads(notification), head.header.number)?;
        self.notify(id, &head.header.to_json());
        Ok(json!(id.to_string()))
    }

    fn storage(&mut self, mut params: Params) -> Result<Value, Failure> {
        let keys = read_keys(&mut params)?;
        params.end()?;
        let watched = |subscription: &Subscription| match &subscription.topic {
            Topic::Storage(keys) => keys.len(),
            _ => 0,
        };
        let so_far: usize = self.subscriptions.values().map(watched).sum();
        if so_far + keys.len() > MAX_WATCHED_KEYS {
            let wanted = (so_far + keys.len()) as u64;
            return Err(Failure::too_many(wanted, MAX_WATCHED_KEYS as u64));
        }
        let head = self.chain.block_at(None)?;
        let values = self.chain.read(Some(head.hash), |state| {
            let mut room = Room::default();
            let entry = |key: Vec<u8>| {
                let value = state.value(&key);
                room.take(&key)?;
                room.take(value.unwrap_or_default())?;
                let value = value.map(<[u8]>::to_vec);
                Ok((key, value))
            };
            let entries = keys.into_iter().map(entry);
            entries.collect::<Result<BTreeMap<_, _>, Failure>>()
        })??;
        let first = changes(&head, &values);
        let id = self.open(Topic::Storage(values), head.header.number)?;
        self.notify(id, &first);
        Ok(json!(id.to_string()))
    }

    fn watch(&mut self, mut params: Params) -> Result<Value, Failure> {
        let message = params.bytes("extrinsic")?;
        params.end()?;
        self.check_room()?;
        let before = self.chain.head().number.0;
        let hash = self.chain.admit(&message)?;
        let place = self.chain.pool().place(&hash);
        let id = self.open(Topic::Extrinsic(hash), before)?;
        let status = match place {
            Some(Place::Future) => "future",
            _ => "ready",
        };
        self.notify(id, &json!(status));
        Ok(json!(id.to_string()))
    }

    fn check_room(&self) -> Result<(), Failure> {
        if self.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return Err(Failure::invalid_request("too many subscriptions"));
        }
        if self.waiting.is_full() {
            return Err(Failure::invalid_request("too many notifications wait"));
        }
        Ok(())
    }

    fn open(&mut self, topic: Topic, told: u64) -> Result<u64, Failure> {
        self.check_room()?;
        self.opened += 1;
        self.subscriptions
            .insert(self.opened, Subscription { topic, told });
        Ok(self.opened)
    }

    /// Ends a subscription with what waits for it. Says whether there was one.
    fn close(&mut self, id: u64) -> bool {
        self.waiting.forget(id);
        self.subscriptions.remove(&id).is_some()
    }

    fn notify(&mut self, id: u64, result: &Value) {
        let Some(subscription) = self.subscriptions.get(&id) else {
            return;
        };
        let method = subscription.topic.notification();
        self.waiting.push(id, notification(method, id, result));
    }

    /// Collects what each subscription has to be told up to the newest block.
    fn tell(&mut self, newest: u64) {
        let Self {
            chain,
            subscriptions,
            waiting,
            ..
        } = self;
        subscriptions.retain(|id, subscription| {
            let method = subscription.topic.notification();
            for _ in 0..BLOCKS_AT_ONCE {
                if subscription.told >= newest || waiting.is_full() {
                    break;
                }
                let Some(block) = after(chain, subscription.told) else {
                    break;
                };
                subscription.told = block.header.number;
                let (results, is_over) = subscription.topic.news(chain, &block);
                for result in &results {
                    waiting.push(*id, notification(method, *id, result));
                }
                if is_over {
                    return false;
                }
            }
            true
        });
    }
}

impl Topic {
    /// What there is to tell of a block, and whether that was the last.
    fn news(&mut self, chain: &EmbeddedChain, block: &Sealed) -> (Vec<Value>, bool) {
        match self {
            Self::Heads(_) => (vec![block.header.to_json()], false),
            Self::RuntimeVersion => (Vec::new(), false),
            Self::Storage(values) => (changed(values, chain, block), false),
            Self::Extrinsic(hash) => {
                let hash_of = |message: &Vec<u8>| crate::hash::blake2_256(message);
                if block.extrinsics.iter().any(|one| hash_of(one) == *hash) {
                    let block = hex_text::encode(&block.hash);
                    let fate = vec![json!({ "inBlock": block }), json!({ "finalized": block })];
                    return (fate, true);
                }
                if block.dropped.contains(hash) {
                    return (vec![json!("invalid")], true);
                }
                (Vec::new(), false)
            }
        }
    }
}

/// The values that a block has changed, remembering them.
fn changed(
    values: &mut BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    chain: &EmbeddedChain,
    block: &Sealed,
) -> Vec<Value> {
    let update = chain.read(Some(block.hash), |state| {
        let mut update = Vec::new();
        for (key, last) in values.iter_mut() {
            let now = state.value(key);
            if now != last.as_deref() {
                *last = now.map(<[u8]>::to_vec);
                update.push((key.clone(), last.clone()));
            }
        }
        update
    });
    let update = update.unwrap_or_default();
    match update.is_empty() {
        true => Vec::new(),
        false => vec![changes(
            block,
            update.iter().map(|(key, value)| (key, value)),
        )],
    }
}

/// The block after a height, or the oldest that is left after it.
fn after(chain: &EmbeddedChain, number: u64) -> Option<Arc<Sealed>> {
    let history = chain.history();
    match history.at(number + 1) {
        Ok(block) => Some(Arc::clone(block)),
        Err(Unreadable::Unknown) => None,
        Err(Unreadable::Discarded(_)) => history.at(history.store().oldest()).ok().map(Arc::clone),
    }
}

/// A set of values as `state_storage` shows it.
fn changes<'a>(
    block: &Sealed,
    values: impl IntoIterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>,
) -> Value {
    let changes: Vec<(String, Option<String>)> = values
        .into_iter()
        .map(|(key, value)| {
            (
                hex_text::encode(key),
                value.as_deref().map(hex_text::encode),
            )
        })
        .collect();
    json!({ "block": hex_text::encode(&block.hash), "changes": changes })
}

fn notification(method: &str, id: u64, result: &Value) -> Vec<u8> {
    let params = json!({ "subscription": id.to_string(), "result": result });
    let notification = json!({ "jsonrpc": "2.0", "method": method, "params": params });
    notification.to_string().into_bytes()
}
