//! How an operation is brought into a block: one at a time per signer, followed until its fate is
//! known.
//!
//! ```text
//! read head and subnet at one block → preflight → nonce, era → sign → send
//!   → look for the extrinsic in every new block of its era → its events → its effect → receipt
//! ```
//!
//! Signers do not wait for each other; two operations of one signer never compete for a nonce. What
//! was sent is remembered until its fate is known, so that a repeated or dropped call takes up the
//! same extrinsic; after a restart, an effect that is already there is not asked for again. "Entered
//! the pool" is never taken for success, and silence only for failure once the era has passed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use connito_protocol::ids::{Block, Hotkey};
use tokio::time::{Instant, sleep};

use super::SubtensorChain;
use super::calls;
use super::metagraph::{PALLET, metagraph, subnet};
use super::node::{ERA_BLOCKS, Outcome};
use super::preflight::{self, Facts};
use super::sealing::{self, Sealed, SignedWeights};
use super::view::View;
use crate::chain::{At, BlockRef, Confirmation, Receipt, RevealPlan};
use crate::error::{ChainError, PoolError, Reject};
use crate::hash::blake2_256;
use crate::keys::Signer;
use crate::operation::{Op, OperationId};
use crate::rpc::RpcTransport;
use crate::runtime::{SignedExtrinsic, Value};

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
    op: Op,
    extrinsic: SignedExtrinsic,
    reveal: Option<RevealPlan>,
    /// The last block that can include it.
    last: Block,
    /// The newest block known not to include it.
    looked_until: BlockRef,
    /// The head when it was signed.
    signed_at: Block,
}

impl Sent {
    fn unknown(&self) -> ChainError {
        ChainError::Unknown {
            operation: OperationId(self.extrinsic.hash),
            until_block: self.last,
        }
    }
}

impl<T: RpcTransport> SubtensorChain<T> {
    /// The signed extrinsic of an operation, as of the newest block, for whoever sends it himself.
    ///
    /// # Errors
    /// The chain cannot be read, or its runtime no longer has the call.
    pub async fn prepare(
        &self,
        signer: &dyn Signer,
        op: &Op,
    ) -> Result<SignedExtrinsic, ChainError> {
        preflight::check_alone(op)?;
        let view = self.node.pinned(At::Head).await?;
        Ok(self.sign(&view, signer, op).await?.extrinsic)
    }

    pub(super) async fn write(&self, signer: &dyn Signer, op: Op) -> Result<Receipt, ChainError> {
        preflight::check_alone(&op)?;
        let lane = self.lanes.of(signer.hotkey());
        let mut under_way = lane.lock().await;
        if let Some(sent) = under_way.as_mut().filter(|sent| sent.op == op) {
            // It may not have reached the pool; if it did, the pool says so and nothing happens.
            let _ = self.node.send(&sent.extrinsic).await;
            if let Some(outcome) = self.follow(sent).await? {
                return self
                    .settle(signer.hotkey(), Some(outcome), &mut under_way)
                    .await;
            }
            // Its last block has passed without it: a new one cannot double it.
        }
        if let Some(receipt) = self.sign_and_send(signer, &op, &mut under_way).await? {
            return Ok(receipt);
        }
        let outcome = match under_way.as_mut() {
            Some(sent) => self.follow(sent).await?,
            None => None,
        };
        self.settle(signer.hotkey(), outcome, &mut under_way).await
    }

    /// Forgets the operation once its fate is known and could be told.
    async fn settle(
        &self,
        signer: Hotkey,
        outcome: Option<Outcome>,
        under_way: &mut Option<Sent>,
    ) -> Result<Receipt, ChainError> {
        let result = match (outcome, under_way.as_ref()) {
            (Some(outcome), Some(sent)) => self.conclude(signer, sent, outcome).await,
            (None, Some(lapsed)) => Err(lapsed.unknown()),
            (_, None) => Err(PoolError::Stale.into()),
        };
        if !matches!(result, Err(ChainError::Transport(_))) {
            *under_way = None;
        }
        result
    }

    /// Leaves the operation in `under_way` before the first byte goes out; a receipt if the chain
    /// already shows what is asked for.
    async fn sign_and_send(
        &self,
        signer: &dyn Signer,
        op: &Op,
        under_way: &mut Option<Sent>,
    ) -> Result<Option<Receipt>, ChainError> {
        let mut refused = PoolError::Stale;
        for _ in 0..NONCE_ATTEMPTS {
            let head = self.node.resolve(At::Head).await?;
            let view = self.node.view(head).await?;
            let facts = self.facts(&view, signer.hotkey(), op).await?;
            let since = facts
                .as_ref()
                .and_then(|facts| facts.metagraph.neuron(signer.hotkey()));
            let since = since.map_or(Block(0), |neuron| neuron.registered_at);
            if let Some(receipt) = self.already(&view, (signer.hotkey(), since), op).await? {
                return Ok(Some(receipt));
            }
            if let Some(facts) = &facts {
                preflight::check(op, signer.hotkey(), facts)?;
            }
            let suited = facts
                .as_ref()
                .and_then(|facts| preflight::suited(op, signer.hotkey(), facts));
            let sent = self
                .sign(&view, signer, suited.as_ref().unwrap_or(op))
                .await?;
            // Remembered as asked for, so that asking again takes it up.
            let sent = under_way.insert(Sent {
                op: op.clone(),
                ..sent
            });
            match self.node.send(&sent.extrinsic).await {
                Ok(()) | Err(ChainError::Pool(PoolError::AlreadyImported)) => return Ok(None),
                Err(ChainError::Pool(
                    again @ (PoolError::Stale
                    | PoolError::Future
                    | PoolError::PriorityTooLow
                    | PoolError::Banned
                    // Of a runtime or a fork that has passed meanwhile.
                    | PoolError::BadProof
                    | PoolError::Outdated),
                )) => (refused, *under_way) = (again, None),
                // No answer: it may be in the pool all the same, and is looked for.
                Err(ChainError::Transport(error)) if error.retry => {
                    tracing::warn!(target: "chain::writer", %error, "submitting an operation");
                    return Ok(None);
                }
                Err(ChainError::Rejected(reject)) => {
                    *under_way = None;
                    return Err(completed(reject, op, signer.hotkey(), facts.as_ref()).into());
                }
                Err(error) => {
                    *under_way = None;
                    return Err(error);
                }
            }
        }
        Err(refused.into())
    }

    async fn sign(
        &self,
        view: &View<'_, T>,
        signer: &dyn Signer,
        op: &Op,
    ) -> Result<Sent, ChainError> {
        let sealed = self.sealed(view, signer.hotkey(), op).await?;
        let node = &self.node;
        let (runtime, terms) = node.runtime_and_terms(view.block, signer.hotkey()).await?;
        let call = calls::encode(&runtime, self.identity.netuid, op, sealed.as_ref())?;
        Ok(Sent {
            op: op.clone(),
            extrinsic: runtime.sign(signer, &call, &terms)?,
            reveal: sealed.map(|sealed| sealed.plan),
            last: Block(terms.era.last_block().unwrap_or(u64::MAX)),
            looked_until: view.block,
            signed_at: view.block.number,
        })
    }

    /// The weights, sealed, where the subnet wants them so.
    async fn sealed(
        &self,
        view: &View<'_, T>,
        signer: Hotkey,
        op: &Op,
    ) -> Result<Option<Sealed>, ChainError> {
        let Op::SetWeights {
            weights,
            version_key,
        } = op
        else {
            return Ok(None);
        };
        let netuid = self.identity.netuid;
        let subnet = subnet(view, netuid).await?;
        if !subnet.params.commit_reveal {
            return Ok(None);
        }
        let weights = SignedWeights {
            signer,
            weights,
            version_key: *version_key,
        };
        let block_time_ms = self.identity.block_time_ms;
        sealing::seal(view, netuid, subnet.schedule, block_time_ms, weights)
            .await
            .map(Some)
    }

    /// What is known about the subnet before signing; nothing for what does not concern it.
    async fn facts(
        &self,
        view: &View<'_, T>,
        signer: Hotkey,
        op: &Op,
    ) -> Result<Option<Facts>, ChainError> {
        if matches!(
            op,
            Op::Transfer { .. } | Op::AddStake { .. } | Op::SetParameter { .. }
        ) {
            return Ok(None);
        }
        let netuid = self.identity.netuid;
        let metagraph = metagraph(view, netuid).await?;
        let used_space = match op {
            Op::Commit(_) => {
                let keys = [netuid.0.into(), signer.0.into()];
                let used = view.value(("Commitments", "UsedSpaceOf"), &keys).await?;
                let number = |name: &str| used.as_ref()?.field(name)?.number::<u64>();
                match number("last_epoch") {
                    Some(epoch) if epoch == metagraph.epoch.index => number("used_space"),
                    _ => None,
                }
            }
            _ => None,
        };
        Ok(Some(Facts {
            next: view.block.number.next(),
            metagraph,
            used_space: used_space.unwrap_or(0),
        }))
    }

    /// The receipt of a record or an endpoint that the chain shows already, written so recently that
    /// it is this very operation, sent before a restart or lost in a fork.
    async fn already(
        &self,
        view: &View<'_, T>,
        (signer, registered_at): (Hotkey, Block),
        op: &Op,
    ) -> Result<Option<Receipt>, ChainError> {
        let keys = [self.identity.netuid.0.into(), signer.0.into()];
        let written = match op {
            Op::Commit(fields) => {
                let record = view.value(("Commitments", "CommitmentOf"), &keys).await?;
                let record = record.as_ref().and_then(super::commitments::record_of);
                record
                    .filter(|(_, written)| written == fields)
                    .map(|(block, _)| block)
            }
            Op::Serve(endpoint) => {
                let axon = view.value((PALLET, "Axons"), &keys).await?;
                let axon = axon.as_ref().and_then(super::metagraph::axon_of);
                axon.filter(|axon| axon.endpoint == Some(*endpoint))
                    .map(|axon| axon.served_at)
            }
            _ => None,
        };
        let now = view.block.number.0;
        let recent = |block: &Block| {
            block.0.saturating_add(ERA_BLOCKS) > now && block.0 > 0 && *block >= registered_at
        };
        let Some(block) = written.filter(recent) else {
            return Ok(None);
        };
        let included = self.node.resolve(At::Number(block)).await?;
        let written = self.written_by(included, signer, op).await?;
        Ok(written.map(|(operation, index)| Receipt {
            operation,
            included,
            index,
            confirmed_by: Confirmation::Effect,
            reveal: None,
        }))
    }

    /// The extrinsic of this block by which `signer` did what `op` asks for.
    async fn written_by(
        &self,
        block: BlockRef,
        signer: Hotkey,
        op: &Op,
    ) -> Result<Option<(OperationId, u32)>, ChainError> {
        let (pallet, names, who): (_, &[&str], _) = match op {
            Op::Commit(_) => ("Commitments", &["Commitment", "TimelockCommitment"], "who"),
            _ => (PALLET, &["AxonServed"], "hotkey"),
        };
        let events = self.node.events(block).await?;
        let index = events.iter().rev().find_map(|event| {
            let named = event.pallet == pallet && names.contains(&&*event.name);
            let account = event
                .fields
                .field(who)
                .or_else(|| event.fields.items()?.get(1));
            let mine = account.and_then(Value::as_hotkey) == Some(signer);
            (named && mine).then_some(event.extrinsic?)
        });
        let Some(index) = index else { return Ok(None) };
        let extrinsics = self.node.extrinsics(block).await?;
        let bytes = usize::try_from(index)
            .ok()
            .and_then(|place| extrinsics.get(place));
        Ok(bytes.map(|bytes| (OperationId(blake2_256(bytes)), index)))
    }

    /// Looks through every block up to the operation's last one, and sends it again after each that
    /// does not have it. Nothing means that it did not land and cannot any more. Transport failures are
    /// sat out for as long as it can matter.
    async fn follow(&self, sent: &mut Sent) -> Result<Option<Outcome>, ChainError> {
        let looked = sent.looked_until.number;
        let blocks = sent
            .last
            .0
            .saturating_sub(looked.0)
            .saturating_add(GRACE_BLOCKS);
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        let give_up = Instant::now() + self.node.block_time().saturating_mul(blocks);
        while sent.looked_until.number < sent.last {
            match self.look(sent, give_up).await {
                Ok(Some(found)) => return Ok(Some(found)),
                // Whoever has it says so; whoever lost it has it again.
                Ok(None) => drop(self.node.send(&sent.extrinsic).await),
                Err(ChainError::Transport(error)) if error.retry && Instant::now() < give_up => {
                    tracing::warn!(target: "chain::writer", %error, "following an operation");
                    sleep(self.node.block_time() / 2).await;
                    // It may be the sending that failed.
                    let _ = self.node.send(&sent.extrinsic).await;
                }
                // An endpoint that lags behind the one before it.
                Err(ChainError::UnknownBlock(_)) if Instant::now() < give_up => {
                    sleep(self.node.block_time() / 2).await;
                }
                Err(ChainError::Transport(_) | ChainError::Timeout(_)) => {
                    return Err(sent.unknown());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Looks into the next block, waiting for it first. Where it stands on another block than the one
    /// that was looked into last, those before it are looked into again.
    async fn look(&self, sent: &mut Sent, give_up: Instant) -> Result<Option<Outcome>, ChainError> {
        let patience = give_up.duration_since(Instant::now());
        let looked = sent.looked_until;
        let block = self.node.await_block(looked.number, patience).await?.block;
        if block.parent != looked.hash && looked.number > sent.signed_at {
            sent.looked_until = self.node.resolve(At::Number(sent.signed_at)).await?;
            return Ok(None);
        }
        let outcome = self.node.outcome(block, &sent.extrinsic).await?;
        sent.looked_until = block;
        Ok(outcome)
    }

    async fn conclude(
        &self,
        signer: Hotkey,
        sent: &Sent,
        outcome: Outcome,
    ) -> Result<Receipt, ChainError> {
        let view = self.node.view(outcome.block).await?;
        if let Some(reject) = outcome.failure {
            // The figures are a courtesy; without them the rejection still stands.
            let facts = self.facts(&view, signer, &sent.op).await.ok().flatten();
            return Err(completed(reject, &sent.op, signer, facts.as_ref()).into());
        }
        let shown = self.shows(&view, signer, &sent.op).await?;
        Ok(Receipt {
            operation: OperationId(sent.extrinsic.hash),
            included: outcome.block,
            index: outcome.index,
            confirmed_by: if shown {
                Confirmation::Effect
            } else {
                Confirmation::Outcome
            },
            reveal: sent.reveal,
        })
    }

    /// Whether the state after the including block is what the operation asked for.
    async fn shows(&self, view: &View<'_, T>, signer: Hotkey, op: &Op) -> Result<bool, ChainError> {
        let netuid = self.identity.netuid;
        if let Op::Commit(fields) = op {
            let keys = [netuid.0.into(), signer.0.into()];
            let record = view.value(("Commitments", "CommitmentOf"), &keys).await?;
            let record = record.as_ref().and_then(super::commitments::record_of);
            return Ok(
                record.is_some_and(|(block, shown)| block == view.block.number && shown == *fields)
            );
        }
        if matches!(
            op,
            Op::Transfer { .. } | Op::AddStake { .. } | Op::SetParameter { .. }
        ) {
            return Ok(false);
        }
        let metagraph = metagraph(view, netuid).await?;
        let neuron = metagraph.neuron(signer);
        Ok(match op {
            Op::Register { hotkey, .. } => {
                let neuron = metagraph.neuron(*hotkey);
                neuron.is_some_and(|neuron| neuron.registered_at == view.block.number)
            }
            Op::Serve(endpoint) => neuron.is_some_and(|n| n.endpoint == Some(*endpoint)),
            Op::SetWeights { .. } => neuron.is_some_and(|n| n.last_update == view.block.number),
            _ => false,
        })
    }
}

fn completed(reject: Reject, op: &Op, signer: Hotkey, facts: Option<&Facts>) -> Reject {
    match facts {
        Some(facts) => preflight::complete(reject, op, signer, facts),
        None => reject,
    }
}
