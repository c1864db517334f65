//! A Substrate node: its chain's blocks, the runtime that governs each, the state after it, and
//! extrinsics on their way into one.
//!
//! This is all of the adapter that is true of any chain built on FRAME; what a subnet is stands above
//! it. `tools/check_frame.sh` runs it against a runtime that is not Bittensor's.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connito_protocol::ids::{Block, BlockHash, Hotkey};
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::blocks::read_hash;
use super::headers::Headers;
use super::heads::Heads;
use super::json_rpc::{CallError, Question, SUBMIT, ask, ask_all, misshapen};
use super::runtimes::{Named, Runtimes, read_version, version_after};
use super::states::{State, States};
use super::view::{self, View};
use crate::chain::{At, BlockRef};
use crate::error::{ChainError, Reject};
use crate::hex_text;
use crate::rpc::RpcTransport;
use crate::runtime::{Era, EventRecord, Runtime, SignedExtrinsic, SigningTerms, Value};

/// The time between blocks of the public networks, where the metadata does not say.
const USUAL_BLOCK_TIME_MS: u64 = 12_000;
/// Times between blocks that are believed: what is shorter would be polled without end, what is longer
/// never be found to stand still.
const BLOCK_TIMES_MS: std::ops::RangeInclusive<u64> = 10..=600_000;

/// Blocks in which an extrinsic may land. Long enough for a slow block or two; short enough that the
/// fate of an extrinsic is known within a phase of a cycle.
pub(super) const ERA_BLOCKS: u64 = 16;
/// How far behind the head an era begins: a fork of fewer blocks leaves the signature good.
const ANCHOR_DEPTH: u64 = 2;

/// The item in which a state says which version of the runtime made it.
const LAST_UPGRADE: &str = "LastRuntimeUpgrade";

/// A node of one chain, reached through a transport.
#[derive(Debug)]
pub struct Node<T> {
    pub(super) transport: T,
    genesis: BlockHash,
    block_time_ms: u64,
    runtimes: Runtimes,
    /// Whether the server can hold an answer back until there is a block.
    pub(super) holds_answers: bool,
    /// The head that a wait has found standing still, and since when.
    pub(super) standing: Mutex<Option<(Block, Instant)>>,
    pub(super) heads: Heads,
    pub(super) headers: Headers,
    states: States,
}

/// What a block says about an extrinsic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The block that includes it.
    pub block: BlockRef,
    /// Its place in the block.
    pub index: u32,
    /// Why it failed, if it did.
    pub failure: Option<Reject>,
}

impl<T: RpcTransport> Node<T> {
    /// Asks the node which chain it is of, and fetches the metadata of its newest block; with
    /// `metadata_folder`, metadata is kept there between starts.
    ///
    /// # Errors
    /// The node cannot be reached, its metadata cannot be read, or `genesis` is given and is not the
    /// first block of its chain.
    pub async fn connect(
        transport: T,
        genesis: Option<BlockHash>,
        metadata_folder: Option<PathBuf>,
    ) -> Result<Self, ChainError> {
        let connected = Self::connect_at_head(transport, genesis, metadata_folder).await?;
        Ok(connected.0)
    }

    /// As [`Self::connect`], with the head that was found.
    pub(super) async fn connect_at_head(
        transport: T,
        genesis: Option<BlockHash>,
        metadata_folder: Option<PathBuf>,
    ) -> Result<(Self, BlockRef), ChainError> {
        let found = first_block(&transport).await?;
        if genesis.is_some_and(|expected| expected != found) {
            return Err(ChainError::OtherChain {
                endpoint: transport.endpoint().to_owned(),
                found,
            });
        }
        let mut node = Self {
            holds_answers: holds_answers(&transport).await?,
            transport,
            genesis: found,
            block_time_ms: USUAL_BLOCK_TIME_MS,
            runtimes: Runtimes::kept_in(metadata_folder),
            standing: Mutex::new(None),
            heads: Heads::default(),
            headers: Headers::default(),
            states: States::default(),
        };
        let head = node.resolve(At::Head).await?;
        node.block_time_ms = block_time_of(&node.runtime_at(head).await?);
        Ok((node, head))
    }

    /// What carries the requests.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The chain's first block.
    pub fn genesis(&self) -> BlockHash {
        self.genesis
    }

    /// The time between two blocks, in milliseconds.
    pub(super) fn block_time_ms(&self) -> u64 {
        self.block_time_ms
    }

    pub(super) fn block_time(&self) -> Duration {
        Duration::from_millis(self.block_time_ms)
    }

    /// The runtime that made a block, by which its events and the state after it are read.
    ///
    /// # Errors
    /// The node cannot be reached, or the metadata not be read.
    pub async fn runtime_at(&self, block: BlockRef) -> Result<Runtime, ChainError> {
        let Some(before) = block.number.0.checked_sub(1) else {
            return self.runtime_after(block).await;
        };
        match self.runtime_in((before, block.parent)).await {
            Ok(runtime) => Ok(runtime),
            // The oldest state that a node has: its parent's is gone.
            Err(CallError::Discarded | CallError::NoBlock) => self.runtime_after(block).await,
            Err(CallError::Other(error)) => Err(error),
        }
    }

    /// The runtime that will make the next block, by which an extrinsic for it is signed.
    ///
    /// # Errors
    /// The node cannot be reached, or the metadata not be read.
    pub async fn runtime_after(&self, block: BlockRef) -> Result<Runtime, ChainError> {
        match self.runtime_in((block.number.0, block.hash)).await {
            Ok(runtime) => Ok(runtime),
            Err(error) => Err(self.dated(error.at(block.number)).await),
        }
    }

    async fn runtime_in(&self, state: Named) -> Result<Runtime, CallError> {
        self.runtimes
            .after(&self.transport, self.genesis, state)
            .await
    }

    /// The hash of each of these blocks, in one question; blocks that are not there are left out.
    pub(super) async fn hashes(
        &self,
        blocks: &BTreeSet<Block>,
    ) -> Result<Vec<(Block, BlockHash)>, ChainError> {
        const METHOD: &str = "chain_getBlockHash";
        if blocks.is_empty() {
            return Ok(Vec::new());
        }
        let numbers: Vec<u64> = blocks.iter().map(|block| block.0).collect();
        let answer = ask(&self.transport, Question::new(METHOD, json!([numbers])));
        let answer = answer.await.map_err(|error| error.at(Block(0)))?;
        let listed = answer
            .as_array()
            .filter(|listed| listed.len() == blocks.len());
        let listed = listed.ok_or_else(|| misshapen(METHOD, "not a hash for each block"))?;
        let mut hashes = Vec::with_capacity(listed.len());
        for (block, hash) in blocks.iter().zip(listed) {
            hashes.extend(read_hash(METHOD, hash)?.map(|hash| (*block, hash)));
        }
        Ok(hashes)
    }

    /// The state after a block.
    pub(super) async fn view(&self, block: BlockRef) -> Result<View<'_, T>, ChainError> {
        let state = self.states.after(block.hash);
        let opened = state.runtime.get_or_try_init(|| self.open(block, &state));
        let runtime = opened.await?.clone();
        Ok(View {
            transport: &self.transport,
            block,
            runtime,
            state,
        })
    }

    /// Asks for everything that is usually looked at, together with the version of the runtime by which
    /// it is read.
    async fn open(&self, block: BlockRef, state: &State) -> Result<Runtime, ChainError> {
        let mut keys = self.states.habits();
        keys.insert(view::system_key(LAST_UPGRADE));
        let keys = keys.into_iter().collect();
        let named = (block.number, block.hash);
        let mut values = view::values(&self.transport, named, keys).await?;
        let version = values.remove(&view::system_key(LAST_UPGRADE)).flatten();
        state.remember(values);
        match self.met(version) {
            Some(runtime) => Ok(runtime),
            None => self.runtime_at(block).await,
        }
    }

    /// The runtime that a state says it was made by, unless it does not say or the version is new.
    fn met(&self, last_upgrade: Option<Vec<u8>>) -> Option<Runtime> {
        let spec = view::spec_of(&last_upgrade?)?;
        self.runtimes.of_spec(spec)
    }

    pub(super) async fn pinned(&self, at: At) -> Result<View<'_, T>, ChainError> {
        let block = self.resolve(at).await?;
        self.view(block).await
    }

    /// The value of a storage item after a block; its default, or nothing, where nothing was written.
    ///
    /// # Errors
    /// The runtime does not have the item or the keys do not fit it; the state is gone; the value is
    /// not of the item's type.
    pub async fn storage(
        &self,
        block: BlockRef,
        item: (&'static str, &'static str),
        keys: &[Value],
    ) -> Result<Option<Value>, ChainError> {
        self.view(block).await?.value(item, keys).await
    }

    /// The events of a block.
    ///
    /// # Errors
    /// The state is gone, or the events are not those of the block's runtime.
    pub async fn events(&self, block: BlockRef) -> Result<Arc<[EventRecord]>, ChainError> {
        self.events_in((block.number, block.hash)).await
    }

    /// As [`Self::events`], of a block of which the header need not be known.
    pub(super) async fn events_in(
        &self,
        block: (Block, BlockHash),
    ) -> Result<Arc<[EventRecord]>, ChainError> {
        match self.states.find(block.1) {
            Some(state) => {
                let events = state.events.get_or_try_init(|| self.read_events(block));
                Ok(Arc::clone(events.await?))
            }
            None => self.read_events(block).await,
        }
    }

    async fn read_events(
        &self,
        (number, hash): (Block, BlockHash),
    ) -> Result<Arc<[EventRecord]>, ChainError> {
        let [upgrade, events] = [LAST_UPGRADE, "Events"].map(view::system_key);
        let keys = vec![upgrade.clone(), events.clone()];
        let mut values = view::values(&self.transport, (number, hash), keys).await?;
        let version = values.remove(&upgrade).flatten();
        let Some(bytes) = values.remove(&events).flatten() else {
            return Ok(Arc::default());
        };
        let runtime = match self.met(version) {
            Some(runtime) => runtime,
            None => self.runtime_at(self.resolve(At::Hash(hash)).await?).await?,
        };
        Ok(runtime.events(&bytes)?.into())
    }

    /// The nonce of the account's next extrinsic, counting those that wait in the pool.
    ///
    /// # Errors
    /// The node cannot be reached or its answer not be read.
    pub async fn next_nonce(&self, account: Hotkey) -> Result<u64, ChainError> {
        let answer = ask(&self.transport, nonce_of(account)).await;
        read_nonce(&answer.map_err(|error| error.at(Block(0)))?)
    }

    /// What the account's next extrinsic is signed under, as of `head`: a short era that begins a
    /// little below it.
    ///
    /// # Errors
    /// The node cannot be reached or its answers not be read.
    pub async fn terms(&self, head: BlockRef, account: Hotkey) -> Result<SigningTerms, ChainError> {
        let nonce = self.next_nonce(account).await?;
        self.terms_under(head, nonce).await
    }

    /// As [`Self::terms`], with the runtime that will make the next block, in one body.
    pub(super) async fn runtime_and_terms(
        &self,
        head: BlockRef,
        account: Hotkey,
    ) -> Result<(Runtime, SigningTerms), ChainError> {
        let state = (head.number.0, head.hash);
        if let Some(runtime) = self.runtimes.remembered(state) {
            return Ok((runtime, self.terms(head, account).await?));
        }
        let questions = vec![nonce_of(account), version_after(head.hash)];
        let asked = async {
            let answers = ask_all(&self.transport, questions).await?;
            let mut answers = answers.into_iter();
            let nonce = read_nonce(&answers.next().unwrap_or_default())?;
            let version = read_version(&answers.next().unwrap_or_default())?;
            let (transport, genesis) = (&self.transport, self.genesis);
            let runtime = self
                .runtimes
                .of_version(transport, genesis, (state, version));
            Ok::<_, CallError>((runtime.await?, nonce))
        };
        match asked.await {
            Ok((runtime, nonce)) => Ok((runtime, self.terms_under(head, nonce).await?)),
            Err(error) => Err(self.dated(error.at(head.number)).await),
        }
    }

    async fn terms_under(&self, head: BlockRef, nonce: u64) -> Result<SigningTerms, ChainError> {
        let anchor = Block(head.number.0.saturating_sub(ANCHOR_DEPTH));
        let hash = match self.headers.line(head).get(&anchor) {
            Some(hash) => *hash,
            None => self.resolve(At::Number(anchor)).await?.hash,
        };
        Ok(SigningTerms {
            genesis: self.genesis.0,
            nonce,
            tip: 0,
            era: Era::Mortal {
                period: ERA_BLOCKS,
                current: anchor.0,
                hash: hash.0,
            },
        })
    }

    /// Hands an extrinsic to the node's pool, which says nothing yet about its fate.
    ///
    /// # Errors
    /// The pool refuses it, or the node cannot be reached.
    pub async fn send(&self, extrinsic: &SignedExtrinsic) -> Result<(), ChainError> {
        let params = json!([hex_text::encode(&extrinsic.bytes)]);
        let question = Question::new(SUBMIT, params);
        let answer = ask(&self.transport, question).await;
        answer.map(|_| ()).map_err(|error| error.at(Block(0)))
    }

    /// What a block says about an extrinsic; nothing if it does not include it.
    ///
    /// # Errors
    /// The block or its events cannot be read, or say nothing about an extrinsic that is there.
    pub async fn outcome(
        &self,
        block: BlockRef,
        extrinsic: &SignedExtrinsic,
    ) -> Result<Option<Outcome>, ChainError> {
        let extrinsics = self.extrinsics(block).await?;
        let place = extrinsics
            .iter()
            .position(|bytes| *bytes == extrinsic.bytes);
        let Some(index) = place.and_then(|place| u32::try_from(place).ok()) else {
            return Ok(None);
        };
        let failure = self.failure(block, index).await?;
        Ok(Some(Outcome {
            block,
            index,
            failure,
        }))
    }

    /// Why the extrinsic at `index` failed, if it did: by the names of the block's own runtime.
    async fn failure(&self, block: BlockRef, index: u32) -> Result<Option<Reject>, ChainError> {
        let runtime = self.view(block).await?.runtime;
        for event in self.events(block).await?.iter() {
            if event.extrinsic != Some(index) || event.pallet != "System" {
                continue;
            }
            match &*event.name {
                "ExtrinsicSuccess" => return Ok(None),
                "ExtrinsicFailed" => {
                    let error = event.fields.field("dispatch_error");
                    let error = error.or_else(|| event.fields.items()?.first());
                    let failure = error.map(|error| runtime.dispatch_error(error));
                    let failure =
                        failure.ok_or_else(|| misshapen("System.ExtrinsicFailed", "no error"))?;
                    return Ok(Some(Reject::from_dispatch(&failure.pallet, &failure.name)));
                }
                _ => {}
            }
        }
        Err(misshapen(
            "System.Events",
            format!("nothing about extrinsic {index} of block {}", block.number),
        ))
    }
}

const NONCE_METHOD: &str = "system_accountNextIndex";

fn nonce_of(account: Hotkey) -> Question {
    Question::new(NONCE_METHOD, json!([account.to_string()]))
}

fn read_nonce(answer: &Json) -> Result<u64, ChainError> {
    let nonce = answer.as_u64();
    nonce.ok_or_else(|| misshapen(NONCE_METHOD, "no nonce"))
}

async fn first_block(transport: &impl RpcTransport) -> Result<BlockHash, ChainError> {
    const METHOD: &str = "chain_getBlockHash";
    let answer = ask(transport, Question::new(METHOD, json!([0]))).await;
    let answer = answer.map_err(|error| error.at(Block(0)))?;
    read_hash(METHOD, &answer)?.ok_or(ChainError::UnknownBlock(At::Number(Block(0))))
}

/// A node that does not say which methods it has is asked nothing but the usual ones.
async fn holds_answers(transport: &impl RpcTransport) -> Result<bool, ChainError> {
    match ask(transport, Question::new("rpc_methods", json!([]))).await {
        Ok(answer) => {
            let methods = answer.get("methods").and_then(Json::as_array);
            Ok(
                methods
                    .is_some_and(|methods| methods.iter().any(|name| name == super::WAIT_METHOD)),
            )
        }
        Err(CallError::Other(error @ ChainError::Transport(_))) => Err(error),
        Err(_) => Ok(false),
    }
}

fn block_time_of(runtime: &Runtime) -> u64 {
    let slot = runtime.constant("Aura", "SlotDuration").ok();
    let slot = slot.as_ref().and_then(Value::number::<u64>);
    slot.filter(|slot| BLOCK_TIMES_MS.contains(slot))
        .unwrap_or(USUAL_BLOCK_TIME_MS)
}
