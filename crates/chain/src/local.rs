//! The embedded chain: deterministic blocks, real signatures and limits, no network and no coins.
//!
//! ```text
//! submit ──► pool ──► execute (epoch, rules) ──► log (fsync) ──► history ──► reads
//!                         ▲                                         │
//!                    parent, state ◄────────────────────────────────┘
//! ```
//!
//! A block is made by [`LocalChain::advance`], from a test or from [`LocalChain::run`] once per
//! block time. Block n has the time genesis + n block times whatever the wall clock says, so equal
//! operations in equal blocks give equal hashes. A chain opened on a folder survives being killed
//! at any moment: what was shown had been made durable before. Other processes reach it through
//! [`LocalChain::handle`], a function from JSON-RPC request to answer; sockets are somebody
//! else's business.

mod epoch;
mod execute;
mod genesis;
mod history;
mod log;
mod pool;
mod rules;
mod serve;
mod state;

use std::future::Future;
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connito_protocol::ids::Block;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::chain::{BlockRef, ChainId, ChainKind};
use crate::envelope::SignedOp;
use crate::error::PoolError;
use crate::operation::OperationId;
use execute::{CheckedOp, Executed};
use history::{Entry, History};
use log::{BlockLog, Logged};
use pool::Pool;
use state::State;

pub use execute::{DispatchFailure, Outcome};
pub use genesis::{GenesisError, GenesisNeuron, GenesisSpec};
pub use history::KEPT_BLOCKS;

/// Why the embedded chain cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
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

/// The embedded chain.
#[derive(Debug)]
pub struct LocalChain {
    identity: ChainId,
    /// Held while a block is made; never while anyone reads.
    writer: Mutex<Option<BlockLog>>,
    inner: Mutex<Inner>,
    head: watch::Sender<Block>,
}

#[derive(Debug)]
struct Inner {
    history: History,
    pool: Pool,
}

impl LocalChain {
    /// A chain that ends with the process.
    ///
    /// # Errors
    /// The specification contradicts itself.
    pub fn in_memory(spec: GenesisSpec) -> Result<Arc<Self>, LocalError> {
        spec.check()?;
        let (identity, history) = start(&Arc::new(spec), KEPT_BLOCKS);
        Ok(Self::assemble(identity, history, None))
    }

    /// The chain in a folder, which is created where missing. Replays every block of its log and
    /// verifies each hash.
    ///
    /// # Errors
    /// The specification contradicts itself or is not the one the folder was started with, another
    /// process has the folder open, the log is damaged, or the file system refuses.
    pub fn open(folder: &Path, spec: GenesisSpec) -> Result<Arc<Self>, LocalError> {
        spec.check()?;
        let spec = Arc::new(spec);
        let (identity, mut history) = start(&spec, KEPT_BLOCKS);
        let log = BlockLog::open(folder, &spec, |logged| {
            replay(&identity, &mut history, logged)
        })?;
        Ok(Self::assemble(identity, history, Some(log)))
    }

    /// What a folder's log says, for reading: every block since the first, verified by replaying it, up
    /// to the first that is damaged; and that damage, if there is any. Nothing is locked or written;
    /// blocks made from here on are made in memory.
    ///
    /// # Errors
    /// `spec`, which is what [`Self::stored_genesis`] gave, contradicts itself.
    pub fn recorded(
        folder: &Path,
        spec: GenesisSpec,
    ) -> Result<(Arc<Self>, Option<LocalError>), LocalError> {
        spec.check()?;
        let (identity, mut history) = start(&Arc::new(spec), usize::MAX);
        let read = log::read(folder, |logged| replay(&identity, &mut history, logged));
        Ok((Self::assemble(identity, history, None), read.err()))
    }

    /// The specification a folder's chain was started with, if there is one.
    ///
    /// # Errors
    /// The log is damaged, or the file system refuses.
    pub fn stored_genesis(folder: &Path) -> Result<Option<GenesisSpec>, LocalError> {
        log::stored_spec(folder)
    }

    fn assemble(identity: ChainId, history: History, log: Option<BlockLog>) -> Arc<Self> {
        let head = watch::Sender::new(history.head().block.number);
        let inner = Mutex::new(Inner {
            history,
            pool: Pool::default(),
        });
        Arc::new(Self {
            identity,
            writer: Mutex::new(log),
            inner,
            head,
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
        self.inner().history.head().block
    }

    /// Takes an operation in for the next block.
    ///
    /// # Errors
    /// Every [`PoolError`] except [`PoolError::Other`].
    pub fn submit(&self, operation: SignedOp) -> Result<OperationId, PoolError> {
        // Before the lock: verifying a signature takes longer than everything else together.
        let checked = CheckedOp::new(operation, self.identity.genesis, self.identity.netuid)?;
        let Inner { history, pool } = &mut *self.inner();
        pool.admit(checked, history.head())
    }

    /// Makes the next `blocks` blocks and returns the last one. The first takes every waiting
    /// operation in.
    ///
    /// # Errors
    /// The block could not be made durable. It was then not made, and none will be any more.
    pub fn advance(&self, blocks: u64) -> Result<BlockRef, LocalError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..blocks {
            self.make_block(&mut writer)?;
        }
        Ok(self.head())
    }

    fn make_block(&self, log: &mut Option<BlockLog>) -> Result<(), LocalError> {
        let (parent, waiting) = {
            let inner = self.inner();
            (inner.history.head().clone(), inner.pool.waiting().to_vec())
        };
        // Readers go on meanwhile: they see the parent until the block is durable.
        let executed = execute::next_block(&parent.block, &parent.state, &waiting);
        if let Some(log) = log {
            log.append_block(
                executed.block.number,
                executed.block.hash,
                &executed.included,
            )?;
        }
        if executed.dropped > 0 {
            tracing::warn!(target: "chain::local", dropped = executed.dropped, "operations outlived");
        }
        let number = executed.block.number;
        let mut inner = self.inner();
        inner.history.push(entry(executed));
        inner.pool.settle(waiting.len());
        drop(inner);
        self.head.send_replace(number);
        Ok(())
    }

    /// Makes a block every block time until `shutdown` completes. Blocks that the process was too
    /// late for are not made up: their numbers simply come later.
    ///
    /// # Errors
    /// A block could not be made durable.
    pub async fn run(
        self: Arc<Self>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), LocalError> {
        let period = Duration::from_millis(self.identity.block_time_ms);
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(()),
                _ = ticks.tick() => {}
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

    /// Nothing that can fail runs under this lock, so a poisoned one is still whole.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(spec: &Arc<GenesisSpec>, kept: usize) -> (ChainId, History) {
    let (block, state) = execute::genesis(spec, State::genesis(Arc::clone(spec)));
    let identity = ChainId {
        genesis: block.hash,
        netuid: spec.netuid,
        block_time_ms: spec.block_time_ms,
        kind: ChainKind::Local,
    };
    (
        identity,
        History::new(
            Entry {
                block,
                state,
                outcomes: Arc::default(),
            },
            kept,
        ),
    )
}

/// Carries out one logged block again; anything but the very same block is a reason to stop.
fn replay(identity: &ChainId, history: &mut History, logged: &Logged) -> Result<(), String> {
    let expected = history.head().block.number.next();
    if logged.number != expected {
        return Err(format!(
            "block {} where block {expected} belongs",
            logged.number
        ));
    }
    let check = |signed: &SignedOp| {
        CheckedOp::new(signed.clone(), identity.genesis, identity.netuid)
            .map_err(|error| format!("block {expected}: {error}"))
    };
    let operations = logged
        .operations
        .iter()
        .map(check)
        .collect::<Result<Vec<_>, _>>()?;
    let parent = history.head();
    let executed = execute::next_block(&parent.block, &parent.state, &operations);
    if executed.dropped > 0 || executed.block.hash != logged.hash {
        return Err(format!(
            "block {expected} does not have its recorded hash when replayed"
        ));
    }
    history.push(entry(executed));
    Ok(())
}

fn entry(executed: Executed) -> Entry {
    let Executed {
        block,
        state,
        outcomes,
        ..
    } = executed;
    Entry {
        block,
        state,
        outcomes: Arc::new(outcomes),
    }
}
