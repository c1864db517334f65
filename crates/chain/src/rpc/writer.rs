//! How an operation is brought into a block: one at a time per signer, followed until its fate is
//! known.
//!
//! ```text
//! read head, metagraph, account at one block → preflight → sign (nonce, last block) → send
//!   → look for it in every new block until its last one → verify the effect → receipt
//! ```
//!
//! Signers do not wait for each other; two operations of one signer never compete for a nonce. What
//! was sent is remembered until its fate is known, so that a repeated or dropped call takes up the
//! same operation. "Entered the pool" is never taken for success, and silence only for failure
//! once the last block has passed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use connito_protocol::ids::{Block, Hotkey};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::preflight::{self, Facts};
use super::{Account, AccountParams, RpcChain, RpcTransport, SubmitParams};
use crate::chain::{
    At, BlockRef, Chain, CommitmentRecord, Confirmation, Metagraph, Pinned, Receipt,
};
use crate::envelope::SignedOp;
use crate::error::{ChainError, PoolError, Reject};
use crate::keys::Signer;
use crate::local::Outcome;
use crate::operation::{Op, OperationId, encode_call};

/// Blocks in which an operation may land. Long enough for a slow block or two; short enough that the
/// fate of an operation is known within a phase of a cycle.
const MORTALITY_BLOCKS: u64 = 8;
/// How often a nonce that somebody else was faster with is replaced.
const NONCE_ATTEMPTS: u32 = 3;
/// Block times granted beyond the last block before the fate is called unknown.
const GRACE_BLOCKS: u64 = 10;

/// One lane per signer: the operation it waits for, if any.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<BTreeMap<Hotkey, Lane>>);

type Lane = Arc<tokio::sync::Mutex<Option<Sent>>>;

impl Lanes {
    fn of(&self, signer: Hotkey) -> Lane {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lanes.entry(signer).or_default())
    }
}

/// An operation under way.
#[derive(Debug, Clone)]
struct Sent {
    signed: SignedOp,
    /// The newest block known not to include it.
    looked_until: Block,
}

impl Sent {
    fn id(&self) -> OperationId {
        self.signed.id()
    }

    fn last(&self) -> Block {
        self.signed.envelope.valid_until
    }

    fn unknown(&self) -> ChainError {
        ChainError::Unknown {
            operation: self.id(),
            until_block: self.last(),
        }
    }
}

impl<T: RpcTransport> RpcChain<T> {
    pub(super) async fn write(&self, signer: &dyn Signer, op: Op) -> Result<Receipt, ChainError> {
        preflight::check_alone(&op)?;
        let call = encode_call(self.identity.netuid, &op);
        let lane = self.lanes.of(signer.hotkey());
        let mut under_way = lane.lock().await;

        if let Some(sent) = under_way
            .as_mut()
            .filter(|sent| sent.signed.envelope.call == call)
        {
            // It may not have reached the pool; if it did, the pool says so and nothing happens.
            let _ = self.send(&sent.signed).await;
            let found = self.follow(sent).await?;
            if found.is_some() {
                return self
                    .settle(signer.hotkey(), &op, found, &mut under_way)
                    .await;
            }
            // Its last block has passed without it: a new one cannot double it.
        }
        self.sign_and_send(signer, &op, &mut under_way).await?;
        let found = match under_way.as_mut() {
            Some(sent) => self.follow(sent).await?,
            None => None,
        };
        self.settle(signer.hotkey(), &op, found, &mut under_way)
            .await
    }

    /// Forgets the operation once its fate is known and could be told.
    async fn settle(
        &self,
        signer: Hotkey,
        op: &Op,
        found: Option<(BlockRef, Outcome)>,
        under_way: &mut Option<Sent>,
    ) -> Result<Receipt, ChainError> {
        let result = match (found, under_way.as_ref()) {
            (Some((block, outcome)), _) => self.conclude(signer, op, block, outcome).await,
            (None, Some(lapsed)) => Err(lapsed.unknown()),
            (None, None) => Err(PoolError::Stale.into()),
        };
        if !matches!(result, Err(ChainError::Transport(_))) {
            *under_way = None;
        }
        result
    }

    /// Leaves the operation in `under_way` before the first byte goes out.
    async fn sign_and_send(
        &self,
        signer: &dyn Signer,
        op: &Op,
        under_way: &mut Option<Sent>,
    ) -> Result<(), ChainError> {
        let mut refused = PoolError::Stale;
        for _ in 0..NONCE_ATTEMPTS {
            let head = self.block(At::Head).await?;
            let (facts, nonce) = self.facts(signer.hotkey(), head).await?;
            preflight::check(op, signer.hotkey(), &facts)?;
            let last = Block(head.number.0 + MORTALITY_BLOCKS);
            let signed = SignedOp::sign(signer, &self.identity, op, nonce, last)
                .map_err(|_| Reject::TooLarge)?;
            let sent = under_way.insert(Sent {
                signed,
                looked_until: head.number,
            });
            match self.send(&sent.signed).await {
                Ok(()) | Err(ChainError::Pool(PoolError::AlreadyImported)) => return Ok(()),
                Err(ChainError::Pool(
                    again @ (PoolError::Stale
                    | PoolError::Future
                    | PoolError::PriorityTooLow
                    | PoolError::Outdated),
                )) => (refused, *under_way) = (again, None),
                // No answer: it may be in the pool all the same.
                Err(error @ ChainError::Transport(_)) => return Err(error),
                Err(error) => {
                    *under_way = None;
                    return Err(self.completed(error, op, signer.hotkey(), &facts));
                }
            }
        }
        Err(refused.into())
    }

    async fn send(&self, signed: &SignedOp) -> Result<(), ChainError> {
        let params = SubmitParams {
            operation: signed.to_bytes(),
        };
        self.call::<_, Value>(super::SUBMIT, &params)
            .await
            .map(|_| ())
    }

    async fn facts(&self, signer: Hotkey, at: BlockRef) -> Result<(Facts, u64), ChainError> {
        let pinned = At::Hash(at.hash);
        let metagraph: Pinned<Metagraph> = self.read(super::METAGRAPH, pinned).await?;
        let params = AccountParams {
            account: signer,
            at: pinned,
        };
        let account: Account = self.call(super::ACCOUNT, &params).await?;
        let facts = Facts {
            next: at.number.next(),
            metagraph: metagraph.value,
            used_space: account.used_space,
        };
        Ok((facts, account.nonce))
    }

    /// Looks through every block up to the operation's last one. Nothing means that it did not land
    /// and cannot any more. Transport failures are sat out for as long as it can matter.
    async fn follow(&self, sent: &mut Sent) -> Result<Option<(BlockRef, Outcome)>, ChainError> {
        let blocks = sent.last().0.saturating_sub(sent.looked_until.0) + GRACE_BLOCKS;
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        let give_up = Instant::now() + self.block_time().saturating_mul(blocks);
        while sent.looked_until < sent.last() {
            match self.look(sent, give_up).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => sent.looked_until = sent.looked_until.next(),
                Err(ChainError::Transport(error)) if error.retry && Instant::now() < give_up => {
                    tracing::warn!(target: "chain::writer", %error, "following an operation");
                    sleep(self.block_time() / 2).await;
                }
                Err(ChainError::Transport(_) | ChainError::Timeout(_)) => {
                    return Err(sent.unknown());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Looks into the next block, waiting for it first.
    async fn look(
        &self,
        sent: &Sent,
        give_up: Instant,
    ) -> Result<Option<(BlockRef, Outcome)>, ChainError> {
        let patience = give_up.duration_since(Instant::now());
        let block = self.wait_block(sent.looked_until, patience).await?;
        let outcomes: Pinned<Vec<Outcome>> =
            self.read(super::OUTCOMES, At::Hash(block.hash)).await?;
        let id = sent.id();
        let found = outcomes
            .value
            .into_iter()
            .find(|outcome| outcome.operation == id);
        Ok(found.map(|outcome| (block, outcome)))
    }

    async fn conclude(
        &self,
        signer: Hotkey,
        op: &Op,
        included: BlockRef,
        outcome: Outcome,
    ) -> Result<Receipt, ChainError> {
        if let Some(failure) = &outcome.failure {
            let reject = Reject::from_dispatch(&failure.pallet, &failure.name);
            // The figures are a courtesy; without them the rejection still stands.
            return Err(match self.facts(signer, included).await {
                Ok((facts, _)) => preflight::complete(reject, op, signer, &facts).into(),
                Err(_) => reject.into(),
            });
        }
        let shown = self.shows(signer, op, included, outcome.index).await?;
        let confirmed_by = if shown {
            Confirmation::Effect
        } else {
            Confirmation::Outcome
        };
        let (operation, index) = (outcome.operation, outcome.index);
        Ok(Receipt {
            operation,
            included,
            index,
            confirmed_by,
        })
    }

    /// Whether the state after the including block is what the operation asked for.
    async fn shows(
        &self,
        signer: Hotkey,
        op: &Op,
        included: BlockRef,
        index: u32,
    ) -> Result<bool, ChainError> {
        let at = At::Hash(included.hash);
        if matches!(op, Op::Commit(_)) {
            let records: Pinned<Vec<CommitmentRecord>> = self.read(super::COMMITMENTS, at).await?;
            let mine = |record: &&CommitmentRecord| record.hotkey == signer;
            let mine = records.value.iter().find(mine);
            return Ok(mine.is_some_and(|r| (r.block, r.index) == (included.number, index)));
        }
        let metagraph: Pinned<Metagraph> = self.read(super::METAGRAPH, at).await?;
        let neuron = metagraph.value.neuron(signer);
        Ok(match op {
            Op::Register { hotkey, .. } => {
                let neuron = metagraph.value.neuron(*hotkey);
                neuron.is_some_and(|neuron| neuron.registered_at == included.number)
            }
            Op::Serve(endpoint) => neuron.is_some_and(|n| n.endpoint == Some(*endpoint)),
            Op::SetWeights { .. } => neuron.is_some_and(|n| n.last_update == included.number),
            Op::Commit(_) => false,
        })
    }

    fn completed(&self, error: ChainError, op: &Op, signer: Hotkey, facts: &Facts) -> ChainError {
        match error {
            ChainError::Rejected(reject) => preflight::complete(reject, op, signer, facts).into(),
            other => other,
        }
    }
}
