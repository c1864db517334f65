//! The embedded chain: a Substrate node in miniature, for one machine and for tests.
//!
//! ```text
//! bytes ──► signature ──► pool ──► execute (pallets) ──► log (fsync) ──► history ──► reads
//!                                     ▲                                    │
//!                               parent, state ◄────────────────────────────┘
//! ```
//!
//! A block is made by [`EmbeddedChain::advance`], from a test or from [`EmbeddedChain::run`] once per
//! block time. Block n has the time genesis + n block times whatever the wall clock says, so equal
//! extrinsics in equal blocks give equal hashes. A chain opened on a folder survives being killed
//! at any moment: what was shown had been made durable before.
//!
//! Others reach it through [`EmbeddedChain::handle`], a function from a JSON-RPC request to its answer, and
//! [`Session`], which adds the subscriptions of a connection. Both speak as a node of the Bittensor
//! network does, so that its tools and this crate's own adapter meet here what they meet there. Sockets
//! are somebody else's business.
//!
//! | what a real node has | here |
//! |---|---|
//! | fees | none; tips are read and ignored |
//! | finality some blocks behind the head | the head is final |
//! | a trie's state root | the hash of a set (`set_hash.rs`); no proofs |
//! | bodies and headers of all blocks | those of the last [`KEPT_BLOCKS`], and the hashes of all |

mod block;
mod call;
mod data;
mod event;
mod execute;
mod extrinsic;
mod failure;
mod genesis;
mod history;
mod log;
mod pallets;
mod pool;
mod refusal;
mod restore;
mod serve;
mod set_hash;
mod snapshot;
mod storage;
mod store;
mod system;

use std::future::Future;
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use connito_protocol::ids::{Block, BlockHash};
use parity_scale_codec::Decode;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::chain::{BlockRef, ChainId, ChainKind};
use crate::error::{PoolError, TransportError};
use crate::rpc::RpcTransport;
use execute::{Checked, Made};
use extrinsic::Extrinsic;
use history::History;
use log::BlockLog;
use pool::{Place, Pool};
use refusal::Refusal;
use storage::AccountId;

pub use genesis::{GenesisBalance, GenesisError, GenesisNeuron, GenesisSpec};
pub use history::KEPT_BLOCKS;
pub use serve::{MAX_BODY_BYTES, Session};

/// Why the embedded chain cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The specification contradicts itself.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// Another process has the folder open.
    #[error("chain folder {} is in use by another process", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder holds the chain of another specification.
    #[error("{} was started with another genesis specification", path.display())]
    OtherGenesis {
        /// The block log.
        path: PathBuf,
    },
    /// The folder holds a chain that another version of this program made, by other rules. It is not damaged.
    #[error(
        "chain folder {} was made by another version of this program (chain version {version}, here {})",
        folder.display(), log::VERSION
    )]
    OtherVersion {
        /// The folder.
        folder: PathBuf,
        /// The version that its log states.
        version: String,
    },
    /// The log does not hold what was written.
    #[error("{} is damaged at byte {offset}: {problem}", path.display())]
    Damaged {
        /// The block log.
        path: PathBuf,
        /// Where the frame starts that cannot be read.
        offset: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The file system refused. After a failed write the chain makes no more blocks.
    #[error("cannot use {}", path.display())]
    Storage {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What decides when a running chain makes a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Every block time, whether anything waits or not.
    BlockTime,
    /// As soon as an extrinsic waits, and never otherwise.
    Demand,
}

/// The embedded chain.
#[derive(Debug)]
pub struct EmbeddedChain {
    identity: ChainId,
    spec: GenesisSpec,
    /// Held while a block is made; never while anyone reads.
    writer: Mutex<Option<BlockLog>>,
    /// Locked before the history where both are.
    pool: Mutex<Pool>,
    history: RwLock<History>,
    head: watch::Sender<Block>,
    arrival: Notify,
    described: serve::Described,
}

impl EmbeddedChain {
    /// A chain that ends with the process.
    ///
    /// # Errors
    /// The specification contradicts itself.
    pub fn in_memory(spec: GenesisSpec) -> Result<Arc<Self>, EmbeddedError> {
        spec.check()?;
        let history = restore::beginning(&spec, KEPT_BLOCKS);
        Ok(Self::assemble(spec, history, None))
    }

    /// The chain in a folder, which is created where missing. Carries out again every block that can still be
    /// read and verifies the log as a whole.
    ///
    /// # Errors
    /// The specification contradicts itself or is not the one the folder was started with, another
    /// process has the folder open, the log is damaged, or the file system refuses.
    pub fn open(folder: &Path, spec: GenesisSpec) -> Result<Arc<Self>, EmbeddedError> {
        spec.check()?;
        let (history, log) = restore::open(folder, &spec)?;
        Ok(Self::assemble(spec, history, Some(log)))
    }

    /// What a folder's log says, for reading: every block since the first, carried out again, up
    /// to the first that is damaged; and that damage, if there is any. Nothing is locked or written;
    /// blocks made from here on are made in memory.
    ///
    /// # Errors
    /// `spec`, which is what [`Self::stored_genesis`] gave, contradicts itself.
    pub fn recorded(
        folder: &Path,
        spec: GenesisSpec,
    ) -> Result<(Arc<Self>, Option<EmbeddedError>), EmbeddedError> {
        spec.check()?;
        let (history, read) = restore::recorded(folder, &spec);
        Ok((Self::assemble(spec, history, None), read.err()))
    }

    /// The specification a folder's chain was started with, if there is one.
    ///
    /// # Errors
    /// The log is damaged, or the file system refuses.
    pub fn stored_genesis(folder: &Path) -> Result<Option<GenesisSpec>, EmbeddedError> {
        log::stored_spec(folder)
    }

    fn assemble(spec: GenesisSpec, history: History, log: Option<BlockLog>) -> Arc<Self> {
        let genesis = history.hash(0).unwrap_or_default();
        let identity = ChainId {
            genesis: BlockHash(genesis),
            netuid: spec.netuid,
            block_time_ms: spec.block_time_ms,
            kind: ChainKind::Local,
        };
        let head = watch::Sender::new(Block(history.head().header.number));
        Arc::new(Self {
            identity,
            spec,
            writer: Mutex::new(log),
            pool: Mutex::default(),
            history: RwLock::new(history),
            head,
            arrival: Notify::new(),
            described: serve::Described::default(),
        })
    }

    /// Which chain this is.
    #[must_use]
    pub fn identity(&self) -> &ChainId {
        &self.identity
    }

    /// The newest block.
    #[must_use]
    pub fn head(&self) -> BlockRef {
        self.history().head().reference()
    }

    /// Takes a signed extrinsic in for a block to come, and gives the hash under which it waits.
    ///
    /// # Errors
    /// Every [`PoolError`] except [`PoolError::Future`]: what skips a nonce waits.
    pub fn submit(&self, extrinsic: &[u8]) -> Result<[u8; 32], PoolError> {
        Ok(self.admit(extrinsic)?)
    }

    fn admit(&self, message: &[u8]) -> Result<[u8; 32], Refusal> {
        let extrinsic = Extrinsic::decode(message)?;
        let hash = extrinsic.hash;
        self.pool().check_new(&hash)?;
        let genesis = self.identity.genesis.0;
        let (birth, next) = {
            let history = self.history();
            let (head, state) = (history.head(), history.store().head());
            let birth = Checked::birth(&extrinsic, head, &state, genesis)?;
            (birth, head.header.number + 1)
        };
        // Without a lock: verifying a signature takes longer than everything else together.
        let checked = Checked::new(extrinsic, birth, &genesis, next)?;

        let mut pool = self.pool();
        let history = self.history();
        let state = history.store().head();
        let (signer, call) = (checked.extrinsic.signer, &checked.extrinsic.call);
        let nonce = system::nonce(&state, signer);
        if checked.extrinsic.nonce < nonce {
            return Err(Refusal::Stale);
        }
        let number = history.head().header.number + 1;
        let block = pallets::Block {
            number,
            time_ms: self.spec.time_of(Block(number)),
        };
        pallets::validate(&state, signer, call, &block).map_err(Refusal::Custom)?;
        if pool.admit(checked, nonce)? == Place::Ready {
            self.arrival.notify_one();
        }
        Ok(hash)
    }

    /// Makes the next `blocks` blocks and returns the last one. Each takes in what waits, as far as it has
    /// room.
    ///
    /// # Errors
    /// The block could not be made durable. It was then not made, and none will be any more.
    pub fn advance(&self, blocks: u64) -> Result<BlockRef, EmbeddedError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..blocks {
            self.make_block(&mut writer)?;
        }
        Ok(self.head())
    }

    fn make_block(&self, log: &mut Option<BlockLog>) -> Result<(), EmbeddedError> {
        let waiting = self.pool().for_block();
        let mut made = {
            // Readers go on meanwhile: they see the parent until the block is durable.
            let history = self.history();
            let offered = (self.identity.genesis.0, waiting.as_slice());
            execute::next_block(history.store(), history.head(), &self.spec, offered)
        };
        if let Some(log) = log {
            log.append_block(&made.block)?;
        }
        let number = made.block.header.number;
        {
            let mut pool = self.pool();
            let mut history = self.history.write().unwrap_or_else(PoisonError::into_inner);
            let nonce = |account| nonce_after(&made, &history, account);
            let gone = pool.settle(number, &made.fates, nonce);
            made.block.dropped.extend(gone);
            history.push(made);
            if pool.is_waiting() {
                self.arrival.notify_one();
            }
        }
        self.head.send_replace(Block(number));
        if let Some(log) = log.as_ref().filter(|_| number % snapshot::EVERY == 0) {
            self.take_snapshot(log.folder());
        }
        Ok(())
    }

    /// A snapshot only saves time, so the chain goes on without it.
    fn take_snapshot(&self, folder: &Path) {
        let (number, bytes) = {
            let history = self.history();
            let header = &history.head().header;
            let state = history.store().head();
            (header.number, snapshot::encode(header, state))
        };
        if let Err(error) = snapshot::write(folder, number, &bytes) {
            tracing::warn!(target: "chain::embedded", %error, number, "no snapshot");
        }
    }

    /// Makes a block every block time until `shutdown` completes. Blocks that the process was too
    /// late for are not made up: their numbers simply come later.
    ///
    /// # Errors
    /// A block could not be made durable.
    pub async fn run(
        self: Arc<Self>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), EmbeddedError> {
        self.run_at(Pace::BlockTime, shutdown).await
    }

    /// Makes blocks at a pace until `shutdown` completes.
    ///
    /// # Errors
    /// A block could not be made durable.
    pub async fn run_at(
        self: Arc<Self>,
        pace: Pace,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), EmbeddedError> {
        let period = Duration::from_millis(self.identity.block_time_ms);
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(()),
                _ = ticks.tick(), if pace == Pace::BlockTime => {}
                () = self.arrival.notified(), if pace == Pace::Demand => {}
            }
            let chain = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || chain.advance(1)).await {
                Ok(made) => made.map(|_| ())?,
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    // Cancelled: the runtime is shutting down.
                    Err(_) => return Ok(()),
                },
            }
        }
    }

    /// Nothing that can fail changes the pool, so that of a poisoned lock is still whole.
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing that can fail changes the history, so that of a poisoned lock is still whole.
    fn history(&self) -> RwLockReadGuard<'_, History> {
        self.history.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The nonce of an account after a block that is about to become the newest.
fn nonce_after(made: &Made, history: &History, account: AccountId) -> u32 {
    match made.changes.get(&system::ACCOUNT.key(&(account,))) {
        Some(Some(bytes)) => {
            let info = system::AccountInfo::decode(&mut bytes.as_slice());
            info.map_or(0, |info| info.nonce)
        }
        Some(None) => 0,
        None => system::nonce(&history.store().head(), account),
    }
}

/// The embedded chain in the same process: the same bytes, no sockets.
impl RpcTransport for Arc<EmbeddedChain> {
    fn endpoint(&self) -> &str {
        "in this process"
    }

    async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        Ok(self.handle_async(&body).await)
    }
}
