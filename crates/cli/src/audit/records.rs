//! What an audit reads off the chain: the announced task, and of every cycle the blocks at which its
//! facts are fixed.
//!
//! A folder of the embedded chain is replayed, which verifies every signature and block hash; it gives
//! every block since the first, up to the first damage. A chain behind an address forgets old blocks:
//! of those cycles nothing is read here, and their archives must speak.

use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use connito_chain::embedded::{EmbeddedChain, EmbeddedError};
use connito_chain::rpc::RpcTransport;
use connito_chain::subtensor::{Connection, SubtensorChain};
use connito_chain::{At, Chain, ChainError};
use connito_node::chain_link;
use connito_protocol::announcement::Announcement;
use connito_protocol::audit::{Fixed, Observer};
use connito_protocol::ids::{BlobId, Block, Cycle};
use connito_protocol::snapshot::Snapshot;
use connito_protocol::submission::Network;

use super::blobs::is_address;
use crate::chain_access::{ChainAccess, RemoteChain};
use crate::exit::{Blame, Failure};

/// Cycles of one task that are read at most, some 18 years of the default ones: a chain that says it has
/// more has made them up.
const MAXIMUM_CYCLES: u64 = 1 << 20;

/// A task as the owner's record names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) task: BlobId,
    /// The block that included the record.
    pub(super) since: Block,
}

/// A chain to read, over either transport.
pub(super) enum AuditedChain {
    /// Behind an address.
    Remote(RemoteChain),
    /// From a folder, and where that is damaged.
    Recorded(SubtensorChain<Arc<EmbeddedChain>>, Option<EmbeddedError>),
}

/// The blocks of a cycle, if the chain still has them.
pub(super) type Blocks = Option<Fixed<Arc<Snapshot>>>;

impl AuditedChain {
    /// The chain behind an address or in a folder. Damage in the very first record leaves no chain: that
    /// is the inner error.
    pub(super) async fn open(place: &str) -> Result<Result<Self, EmbeddedError>, Failure> {
        if is_address(place) {
            let access = ChainAccess::to(place);
            let chain = access.connect(access.pool()?).await.environment()?;
            return Ok(Ok(Self::Remote(chain)));
        }
        let folder = Path::new(place);
        std::fs::read_dir(folder)
            .map_err(|error| anyhow::Error::new(error).context(format!("cannot read {place}")))
            .input()?;
        let spec = match EmbeddedChain::stored_genesis(folder) {
            Ok(Some(spec)) => spec,
            Ok(None) => return Err(Failure::Input(anyhow!("{place} holds no chain"))),
            Err(error @ EmbeddedError::Damaged { .. }) => return Ok(Err(error)),
            Err(error) => return Err(error).input(),
        };
        let (chain, damage) = EmbeddedChain::recorded(folder, spec).input()?;
        let chain = SubtensorChain::connect(chain, Connection::default())
            .await
            .environment()?;
        Ok(Ok(Self::Recorded(chain, damage)))
    }

    /// Where the chain's records end because they are damaged.
    pub(super) fn damage(self) -> Option<EmbeddedError> {
        match self {
            Self::Remote(_) => None,
            Self::Recorded(_, damage) => damage,
        }
    }

    /// The chain's name, as seals bind it.
    pub(super) fn network(&self) -> Network {
        match self {
            Self::Remote(chain) => chain_link::network(chain),
            Self::Recorded(chain, _) => chain_link::network(chain),
        }
    }

    /// The task that the owner announced, as of the newest block; and that block.
    pub(super) async fn task(&self) -> Result<(Option<Announced>, Block), Failure> {
        let newest = match self {
            Self::Remote(chain) => newest(chain).await,
            Self::Recorded(chain, _) => newest(chain).await,
        };
        let newest = newest.environment()?;
        Ok((announced(&newest), newest.block))
    }

    /// The task that the owner announced as of the block before `since`; none either where the chain has
    /// forgotten that block.
    pub(super) async fn announced_before(
        &self,
        since: Block,
    ) -> Result<Option<Announced>, Failure> {
        let Some(before) = since.0.checked_sub(1).map(Block) else {
            return Ok(None);
        };
        let snapshot = match self {
            Self::Remote(chain) => chain_link::snapshot(chain, At::Number(before), before).await,
            Self::Recorded(chain, _) => {
                chain_link::snapshot(chain, At::Number(before), before).await
            }
        };
        match snapshot {
            Ok(snapshot) => Ok(announced(&snapshot).filter(|earlier| earlier.since < since)),
            Err(ChainError::Pruned { .. }) => Ok(None),
            Err(error) => Err(error).environment(),
        }
    }

    /// Every cycle whose votes were counted by block `head`, from `first` on.
    pub(super) async fn cycles(
        &self,
        observer: &Observer,
        first: Cycle,
        head: Block,
    ) -> Result<Vec<(Cycle, Blocks)>, Failure> {
        let last = Cycle(first.0.saturating_add(MAXIMUM_CYCLES));
        if observer.blocks(last).voted <= head {
            return Err(Failure::Environment(anyhow!(
                "the chain's newest block is said to be {head}, more than {MAXIMUM_CYCLES} cycles after \
                 cycle {first} began"
            )));
        }
        let read = match self {
            Self::Remote(chain) => cycles(chain, observer, (first, head)).await,
            Self::Recorded(chain, _) => cycles(chain, observer, (first, head)).await,
        };
        read.environment()
    }
}

fn announced(snapshot: &Snapshot) -> Option<Announced> {
    match snapshot.announcement(snapshot.owner?)? {
        (record, Announcement::Task { task }) => Some(Announced {
            task,
            since: record.block,
        }),
        _ => None,
    }
}

async fn newest<T: RpcTransport>(chain: &SubtensorChain<T>) -> Result<Snapshot, ChainError> {
    let head = chain.block(At::Head).await?.number;
    chain_link::snapshot(chain, At::Number(head), head).await
}

async fn cycles<T: RpcTransport>(
    chain: &SubtensorChain<T>,
    observer: &Observer,
    (first, head): (Cycle, Block),
) -> Result<Vec<(Cycle, Blocks)>, ChainError> {
    let mut read = Vec::new();
    let mut oldest = Block(0);
    for cycle in (first.0..).map(Cycle) {
        let blocks = observer.blocks(cycle);
        if blocks.voted > head {
            break;
        }
        if blocks.begun < oldest {
            read.push((cycle, None));
            continue;
        }
        let blocks = match snapshots(chain, &blocks, head).await {
            Ok(blocks) => Some(blocks),
            Err(ChainError::Pruned { oldest: told, .. }) => {
                oldest = told.unwrap_or(oldest);
                None
            }
            Err(error) => return Err(error),
        };
        read.push((cycle, blocks));
    }
    Ok(read)
}

async fn snapshots<T: RpcTransport>(
    chain: &SubtensorChain<T>,
    blocks: &Fixed<Block>,
    head: Block,
) -> Result<Fixed<Arc<Snapshot>>, ChainError> {
    let read = async |block| {
        let snapshot = chain_link::snapshot(chain, At::Number(block), head).await;
        snapshot.map(Arc::new)
    };
    // The first block first: where the chain has forgotten that, it need not be asked for the others.
    let begun = read(blocks.begun).await?;
    let mut scoring = Vec::new();
    for block in &blocks.scoring {
        scoring.push(read(*block).await?);
    }
    Ok(Fixed {
        begun,
        sealed: read(blocks.sealed).await?,
        revealed: read(blocks.revealed).await?,
        seeded: read(blocks.seeded).await?,
        scoring,
        scored: read(blocks.scored).await?,
        attested: read(blocks.attested).await?,
        voted: read(blocks.voted).await?,
    })
}
