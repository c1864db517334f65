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
mod headers;
mod heads;
mod json_rpc;
mod metagraph;
mod node;
mod preflight;
mod runtimes;
mod schedule;
mod sealing;
mod states;
mod view;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use connito_protocol::ids::{Block, BlockHash, Netuid, Uid};

use crate::chain::{
    Arrival, At, BlockRef, Chain, ChainId, ChainKind, CommitmentRecord, Metagraph, Pinned, Receipt,
    SubnetParams, WeightRow,
};
use crate::error::ChainError;
use crate::keys::Signer;
use crate::operation::Op;
use crate::rpc::RpcTransport;
use crate::runtime::{Runtime, Value};
use commitments::Written;
use json_rpc::misshapen;
use metagraph::PALLET;
use view::View;
use writer::Lanes;

pub use endpoints::EndpointPool;
pub use node::{Node, Outcome};

/// An extension of the embedded chain: an answer that is held back until there is a block.
pub(crate) const WAIT_METHOD: &str = "connito_waitBlock";
/// `System.Number`, which every state has.
pub(crate) const NUMBER_KEY: &str =
    "0x26aa394eea5630e07c48ae0c9558cef702a5c1b19ab7a04f536c519aca4983ac";

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
    node: Node<T>,
    identity: ChainId,
    written: Written,
    lanes: Lanes,
}

impl<T: RpcTransport> SubtensorChain<T> {
    /// Asks the chain who it is, and fetches its metadata.
    ///
    /// # Errors
    /// The endpoint cannot be reached, is of another chain, or does not have the subnet.
    pub async fn connect(transport: T, to: Connection) -> Result<Self, ChainError> {
        let connected = Node::connect_at_head(transport, to.genesis, to.metadata_folder).await?;
        let (node, head) = connected;
        let netuid = subnet_of(&node.view(head).await?, to.netuid).await?;
        let identity = ChainId {
            genesis: node.genesis(),
            netuid,
            block_time_ms: node.block_time_ms(),
            kind: if node.holds_answers {
                ChainKind::Local
            } else {
                ChainKind::Bittensor
            },
        };
        Ok(Self {
            node,
            identity,
            written: Written::default(),
            lanes: Lanes::default(),
        })
    }

    /// What carries the requests.
    pub fn transport(&self) -> &T {
        &self.node.transport
    }

    /// The runtime that governs the newest block, with everything about it that is not as expected.
    ///
    /// # Errors
    /// The chain cannot be reached or its metadata not be read.
    pub async fn runtime(&self) -> Result<Runtime, ChainError> {
        let head = self.node.resolve(At::Head).await?;
        self.node.runtime_after(head).await
    }

    /// The subnet at a block, without its neurons.
    ///
    /// # Errors
    /// The chain cannot be read at that block.
    pub async fn subnet_state(&self, at: At) -> Result<SubnetState, ChainError> {
        let view = self.node.pinned(at).await?;
        match metagraph::subnet(&view, self.identity.netuid).await {
            Ok(subnet) => Ok(subnet.state(view.block)),
            Err(error) => Err(self.node.dated(error).await),
        }
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

impl<T: RpcTransport> Chain for SubtensorChain<T> {
    fn identity(&self) -> &ChainId {
        &self.identity
    }

    async fn block(&self, at: At) -> Result<BlockRef, ChainError> {
        self.node.resolve(at).await
    }

    async fn wait_block(&self, after: Block, deadline: Duration) -> Result<Arrival, ChainError> {
        self.node.await_block(after, deadline).await
    }

    async fn metagraph(&self, at: At) -> Result<Pinned<Metagraph>, ChainError> {
        let view = self.node.pinned(at).await?;
        match metagraph::metagraph(&view, self.identity.netuid).await {
            Ok(value) => Ok(Pinned {
                at: view.block,
                value,
            }),
            Err(error) => Err(self.node.dated(error).await),
        }
    }

    async fn commitments(&self, at: At) -> Result<Pinned<Vec<CommitmentRecord>>, ChainError> {
        let view = self.node.pinned(at).await?;
        match self.records(&view).await {
            Ok(value) => Ok(Pinned {
                at: view.block,
                value,
            }),
            Err(error) => Err(self.node.dated(error).await),
        }
    }

    async fn weights(&self, at: At) -> Result<Pinned<Vec<WeightRow>>, ChainError> {
        let view = self.node.pinned(at).await?;
        match self.weight_rows(&view).await {
            Ok(value) => Ok(Pinned {
                at: view.block,
                value,
            }),
            Err(error) => Err(self.node.dated(error).await),
        }
    }

    async fn submit(&self, signer: &dyn Signer, op: Op) -> Result<Receipt, ChainError> {
        endpoints::urgently(self.write(signer, op)).await
    }
}
