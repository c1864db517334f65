//! The adapter: [`Chain`] over the JSON-RPC of a Substrate node that runs the subtensor runtime.
//!
//! ```text
//! resolve a block ── its runtime (metadata, once a version) ── storage keys by name ── one batch
//!                                                                                   └─ values by name
//! preflight at a pinned block ── call by name ── sign ── submit ── look in every block ── effect
//! ```
//!
//! The embedded chain answers the same protocol, so the code that talks to Bittensor is the code that
//! runs on a laptop. Plain polling over POST is enough: nearly everything that has ever gone wrong with
//! chain clients went wrong in a socket that stayed open. Nothing here decides what a role should do;
//! it knows what a runtime's items are called and what they mean.

mod blocks;
mod calls;
mod commitments;
mod endpoints;
mod figures;
mod json_rpc;
mod metagraph;
mod preflight;
mod runtimes;
mod schedule;
mod sealing;
mod view;
mod writer;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use connito_protocol::ids::{Block, BlockHash, Netuid, Uid};
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use crate::chain::{
    At, BlockRef, Chain, ChainId, ChainKind, CommitmentRecord, Metagraph, Pinned, Receipt,
    SubnetParams, WeightRow,
};
use crate::error::ChainError;
use crate::hex_text;
use crate::keys::Signer;
use crate::operation::Op;
use crate::rpc::RpcTransport;
use crate::runtime::{EventRecord, Runtime, Value};
use commitments::Written;
use json_rpc::{CallError, Question, ask, misshapen};
use metagraph::PALLET;
use runtimes::Runtimes;
use view::View;
use writer::Lanes;

pub use endpoints::EndpointPool;

/// An extension of the embedded chain: an answer that is held back until there is a block.
pub(crate) const WAIT_METHOD: &str = "connito_waitBlock";
/// `System.Number`, which every state has.
pub(crate) const NUMBER_KEY: &str =
    "0x26aa394eea5630e07c48ae0c9558cef702a5c1b19ab7a04f536c519aca4983ac";
/// The time between blocks of the public networks, where the metadata does not say.
const USUAL_BLOCK_TIME_MS: u64 = 12_000;

/// What a connection is to.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// The subnet; if none is named, the only one the chain has besides the root.
    pub netuid: Option<Netuid>,
    /// The chain's first block, if another chain is to be refused.
    pub genesis: Option<BlockHash>,
    /// Where metadata is kept between starts; in memory only if nowhere.
    pub metadata_folder: Option<PathBuf>,
}

/// A subnet at one block, without its neurons.
#[derive(Debug, Clone)]
pub struct SubnetState {
    /// The block.
    pub block: BlockRef,
    /// Taken slots.
    pub neurons: u16,
    /// Neurons with a validator permit.
    pub permits: usize,
    /// Blocks in an epoch.
    pub tempo: u16,
    /// Epochs after which sealed weights come to light.
    pub reveal_period: u64,
    /// The activity cutoff in thousandths of the tempo.
    pub activity_factor_milli: u64,
    /// The parameters.
    pub params: SubnetParams,
}

/// A subnet of a chain, reached through a transport.
#[derive(Debug)]
pub struct SubtensorChain<T> {
    transport: T,
    identity: ChainId,
    runtimes: Runtimes,
    written: Written,
    lanes: Lanes,
    /// Whether the server can hold an answer back until there is a block.
    holds_answers: bool,
    /// The head that a wait has found standing still, and since when.
    standing: Mutex<Option<(Block, Instant)>>,
}

impl<T: RpcTransport> SubtensorChain<T> {
    /// Asks the chain who it is, and fetches its metadata.
    ///
    /// # Errors
    /// The endpoint cannot be reached, is of another chain, or does not have the subnet.
    pub async fn connect(transport: T, to: Connection) -> Result<Self, ChainError> {
        let genesis = first_block(&transport).await?;
        if to.genesis.is_some_and(|expected| expected != genesis) {
            return Err(ChainError::OtherChain {
                endpoint: transport.endpoint().to_owned(),
                found: genesis,
            });
        }
        let holds_answers = holds_answers(&transport).await?;
        let mut chain = Self {
            identity: ChainId {
                genesis,
                netuid: to.netuid.unwrap_or_default(),
                block_time_ms: USUAL_BLOCK_TIME_MS,
                kind: ChainKind::Bittensor,
            },
            transport,
            runtimes: Runtimes::kept_in(to.metadata_folder),
            written: Written::default(),
            lanes: Lanes::default(),
            holds_answers,
            standing: Mutex::new(None),
        };
        if holds_answers {
            chain.identity.kind = ChainKind::Local;
        }
        let head = chain.resolve(At::Head).await?;
        let view = chain.view(head).await?;
        let netuid = subnet_of(&view, to.netuid).await?;
        let block_time_ms = block_time_of(&view.runtime);
        chain.identity.netuid = netuid;
        chain.identity.block_time_ms = block_time_ms;
        Ok(chain)
    }

    /// What carries the requests.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The runtime that governs the newest block, with everything about it that is not as expected.
    ///
    /// # Errors
    /// The chain cannot be reached or its metadata not be read.
    pub async fn runtime(&self) -> Result<Runtime, ChainError> {
        let head = self.resolve(At::Head).await?;
        self.runtime_at(head).await
    }

    /// The subnet at a block, without its neurons.
    ///
    /// # Errors
    /// The chain cannot be read at that block.
    pub async fn subnet_state(&self, at: At) -> Result<SubnetState, ChainError> {
        let view = self.pinned(at).await?;
        match metagraph::subnet(&view, self.identity.netuid).await {
            Ok(subnet) => Ok(subnet.state(view.block)),
            Err(error) => Err(self.dated(error).await),
        }
    }

    fn block_time(&self) -> Duration {
        Duration::from_millis(self.identity.block_time_ms)
    }

    async fn runtime_at(&self, block: BlockRef) -> Result<Runtime, ChainError> {
        let runtime = self
            .runtimes
            .at(&self.transport, self.identity.genesis, block);
        match runtime.await {
            Err(error) => Err(self.dated(error).await),
            runtime => runtime,
        }
    }

    async fn view(&self, block: BlockRef) -> Result<View<'_, T>, ChainError> {
        Ok(View {
            transport: &self.transport,
            runtime: self.runtime_at(block).await?,
            block,
        })
    }

    async fn pinned(&self, at: At) -> Result<View<'_, T>, ChainError> {
        let block = self.resolve(at).await?;
        self.view(block).await
    }

    async fn events(&self, block: BlockRef) -> Result<Vec<EventRecord>, ChainError> {
        let runtime = self.runtime_at(block).await?;
        let key = hex_text::encode(&runtime.storage_key("System", "Events", &[])?);
        let params = json!([key, hex_text::encode(&block.hash.0)]);
        let answer = ask(&self.transport, Question::new("state_getStorage", params)).await;
        let answer = answer.map_err(|error| error.at(block.number))?;
        let Some(bytes) = answer.as_str() else {
            return Ok(Vec::new());
        };
        let bytes = hex_text::decode(bytes);
        let bytes = bytes.ok_or_else(|| misshapen("state_getStorage", "no bytes"))?;
        Ok(runtime.events(&bytes)?)
    }

    async fn weight_rows(&self, view: &View<'_, T>) -> Result<Vec<WeightRow>, ChainError> {
        let index = [Value::from(self.identity.netuid.0)];
        let mut validators = Vec::new();
        for (keys, value) in view.entries((PALLET, "Keys"), &index).await? {
            let uid = keys.get(1).and_then(Value::number::<u16>);
            validators.extend(uid.zip(value.as_hotkey()));
        }
        let validator = |uid| validators.iter().find(|(slot, _)| *slot == uid);
        let mut rows = Vec::new();
        for (keys, value) in view.entries((PALLET, "Weights"), &index).await? {
            let row = keys
                .get(1)
                .and_then(Value::number::<u16>)
                .zip(row_of(&value));
            let (uid, weights) =
                row.ok_or_else(|| misshapen("SubtensorModule.Weights", "no row"))?;
            // Whoever had this uid before is gone, and its weights with it.
            if let Some((_, validator)) = validator(uid) {
                rows.push((uid, *validator, weights));
            }
        }
        rows.sort_unstable_by_key(|(uid, ..)| *uid);
        let rows = rows.into_iter();
        let rows = rows.map(|(_, validator, weights)| WeightRow { validator, weights });
        Ok(rows.collect())
    }
}

fn row_of(value: &Value) -> Option<Vec<(Uid, u16)>> {
    let entry = |entry: &Value| {
        let [uid, weight] = entry.items()? else {
            return None;
        };
        Some((Uid(uid.number()?), weight.number()?))
    };
    value.items()?.iter().map(entry).collect()
}

async fn first_block(transport: &impl RpcTransport) -> Result<BlockHash, ChainError> {
    const METHOD: &str = "chain_getBlockHash";
    let answer = ask(transport, Question::new(METHOD, json!([0]))).await;
    let answer = answer.map_err(|error| error.at(Block(0)))?;
    blocks::read_hash(METHOD, &answer)?.ok_or(ChainError::UnknownBlock(At::Number(Block(0))))
}

/// A node that does not say which methods it has is asked nothing but the usual ones.
async fn holds_answers(transport: &impl RpcTransport) -> Result<bool, ChainError> {
    match ask(transport, Question::new("rpc_methods", json!([]))).await {
        Ok(answer) => {
            let methods = answer.get("methods").and_then(Json::as_array);
            Ok(methods.is_some_and(|methods| methods.iter().any(|name| name == WAIT_METHOD)))
        }
        Err(CallError::Other(error @ ChainError::Transport(_))) => Err(error),
        Err(_) => Ok(false),
    }
}

/// The subnet that is meant: the one named, which must be there, or the only one besides the root.
async fn subnet_of<T: RpcTransport>(
    view: &View<'_, T>,
    named: Option<Netuid>,
) -> Result<Netuid, ChainError> {
    let mut there = Vec::new();
    for (keys, added) in view.entries((PALLET, "NetworksAdded"), &[]).await? {
        if added.as_bool() == Some(true) {
            there.extend(keys.first().and_then(Value::number).map(Netuid));
        }
    }
    there.retain(|netuid| netuid.0 != 0);
    match (named, there.as_slice()) {
        (Some(named), there) if there.contains(&named) => Ok(named),
        (Some(named), _) => Err(ChainError::NoSubnet(named)),
        (None, [only]) => Ok(*only),
        (None, there) => Err(ChainError::WhichSubnet { there: there.len() }),
    }
}

fn block_time_of(runtime: &Runtime) -> u64 {
    let slot = runtime.constant("Aura", "SlotDuration").ok();
    let slot = slot.as_ref().and_then(Value::number::<u64>);
    slot.filter(|slot| *slot > 0).unwrap_or(USUAL_BLOCK_TIME_MS)
}

impl<T: RpcTransport> Chain for SubtensorChain<T> {
    fn identity(&self) -> &ChainId {
        &self.identity
    }

    async fn block(&self, at: At) -> Result<BlockRef, ChainError> {
        self.resolve(at).await
    }

    async fn wait_block(&self, after: Block, deadline: Duration) -> Result<BlockRef, ChainError> {
        self.await_block(after, deadline).await
    }

    async fn metagraph(&self, at: At) -> Result<Pinned<Metagraph>, ChainError> {
        let view = self.pinned(at).await?;
        match metagraph::metagraph(&view, self.identity.netuid).await {
            Ok(value) => Ok(Pinned {
                at: view.block,
                value,
            }),
            Err(error) => Err(self.dated(error).await),
        }
    }

    async fn commitments(&self, at: At) -> Result<Pinned<Vec<CommitmentRecord>>, ChainError> {
        let view = self.pinned(at).await?;
        match self.records(&view).await {
            Ok(value) => Ok(Pinned {
                at: view.block,
                value,
            }),
            Err(error) => Err(self.dated(error).await),
        }
    }

    async fn weights(&self, at: At) -> Result<Pinned<Vec<WeightRow>>, ChainError> {
        let view = self.pinned(at).await?;
        match self.weight_rows(&view).await {
            Ok(value) => Ok(Pinned {
                at: view.block,
                value,
            }),
            Err(error) => Err(self.dated(error).await),
        }
    }

    async fn submit(&self, signer: &dyn Signer, op: Op) -> Result<Receipt, ChainError> {
        self.write(signer, op).await
    }
}
