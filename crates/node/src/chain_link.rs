//! Between the chain and a role machine: blocks become snapshots, effects become operations.
//!
//! Reading: every block once, in order, each from reads pinned to that block. Where a fork has taken
//! blocks back, those that stand in their place follow: the machine sees a number again and goes on
//! from what it knew before the first of them (P-9). Writing: one task per hotkey, one operation after
//! the other; what the chain refuses comes back as an event, and what is lost is asked for again by the
//! machine, which looks at the chain and not at receipts. Sealed weights are looked for when they should
//! show, because a chain that could not open them says nothing; weights that come too soon are set when
//! their time has come, unless there are newer ones by then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use connito_chain::keys::{Keypair, Signer as _};
use connito_chain::{
    At, BlockRef, Chain, ChainError, Field, Op, Receipt, Reject, RevealPlan, quantise, upscale,
};
use connito_protocol::event::{Effect, Event};
use connito_protocol::ids::{Block, BlockHash, Hotkey, Uid};
use connito_protocol::machine::Step;
use connito_protocol::snapshot::{self, Participant, Record, Snapshot};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use crate::compute::Head;

/// How long one wait for a block may take before it is asked for again.
const BLOCK_DEADLINE: Duration = Duration::from_secs(30);

/// The least time between two looks at what has been set.
const SHORTEST_LOOK: Duration = Duration::from_secs(1);

/// Pause after a failed read, so that a chain that is down is not hammered.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Pause after an answer that is not understood.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(2);

/// Blocks before the head with which a role without a journal begins: it needs to have seen a task's
/// start or the last vote. Less than the 2,400 that a chain keeps.
const FIRST_LOOK_BACK_BLOCKS: u64 = 2_000;

/// Blocks whose hashes are remembered, so that a fork of as many is noticed.
const REMEMBERED_BLOCKS: usize = 128;

/// Longest payload of a `Raw` field; longer ones go into a `BigRaw` field.
const RAW_FIELD_BYTES: usize = 128;

/// The chain as of a block, as a machine sees it.
///
/// # Errors
/// The chain cannot be read at that block.
pub async fn snapshot<C: Chain>(chain: &C, at: At, head: Block) -> Result<Snapshot, ChainError> {
    let metagraph = chain.metagraph(at).await?;
    let at = At::Hash(metagraph.at.hash);
    let commitments = chain.commitments(at).await?;
    let neurons = &metagraph.value.neurons;
    let participants = neurons.iter().map(|neuron| Participant {
        uid: neuron.uid,
        hotkey: neuron.hotkey,
        stake: neuron.stake_rao,
        validator_permit: neuron.validator_permit,
        endpoint: neuron.endpoint.map(|endpoint| snapshot::Endpoint {
            ip: endpoint.ip,
            port: endpoint.port,
        }),
        weights_set: neuron.last_update,
    });
    let registered: BTreeMap<Hotkey, Block> = neurons
        .iter()
        .map(|neuron| (neuron.hotkey, neuron.registered_at))
        .collect();
    let records = commitments.value.into_iter().filter_map(|commitment| {
        // The chain keeps the record of a hotkey that has lost its slot, and of one that has a new one.
        if *registered.get(&commitment.hotkey)? > commitment.block {
            return None;
        }
        let bytes = match commitment.fields.into_iter().next()? {
            Field::Raw(bytes) | Field::BigRaw(bytes) => bytes,
            // Other kinds of fields are never ours.
            _ => return None,
        };
        let record = Record {
            block: commitment.block,
            index: commitment.index,
            bytes: bytes.into(),
        };
        Some((commitment.hotkey, record))
    });
    Ok(Snapshot {
        block: metagraph.at.number,
        hash: metagraph.at.hash,
        head: head.max(metagraph.at.number),
        owner: metagraph.value.owner,
        participants: participants.collect(),
        records: Arc::new(records.collect()),
        readings: Default::default(),
    })
}

/// The newest blocks that were handed on, oldest first: those of the machine's journal to begin with,
/// so that a fork is noticed that happened while nobody looked.
#[derive(Debug, Default)]
pub(crate) struct Told(VecDeque<(Block, BlockHash)>);

impl Told {
    /// The blocks that a machine has seen.
    pub(crate) fn of(steps: &[Step]) -> Self {
        let mut told = Self::default();
        for step in steps {
            if let Event::Block(snapshot) = &step.event {
                told.push(snapshot);
            }
        }
        told
    }

    /// The last one.
    pub(crate) fn last(&self) -> Option<Block> {
        self.0.back().map(|(number, _)| *number)
    }

    fn push(&mut self, snapshot: &Snapshot) {
        // In the place of those that were taken back.
        while self.last().is_some_and(|last| last >= snapshot.block) {
            self.0.pop_back();
        }
        self.0.push_back((snapshot.block, snapshot.hash));
        if self.0.len() > REMEMBERED_BLOCKS {
            self.0.pop_front();
        }
    }

    /// Whether `block` stands on the last block that was handed on, or on nothing that is known.
    fn carries(&self, block: BlockRef) -> bool {
        let (Some(before), Some((last, hash))) = (block.number.0.checked_sub(1), self.0.back())
        else {
            return true;
        };
        *last != Block(before) || *hash == block.parent
    }

    /// Forgets the blocks that the chain has taken back; the last one that still stands, if any does.
    async fn rewind<C: Chain>(&mut self, chain: &C) -> Result<Option<Block>, ChainError> {
        while let Some((number, hash)) = self.0.back().copied() {
            if chain.block(At::Number(number)).await?.hash == hash {
                return Ok(Some(number));
            }
            self.0.pop_back();
        }
        Ok(None)
    }
}

/// Feeds every block after those told to the driver, until the driver stops listening. Where nothing was
/// told yet, it begins some way below the head, wherever that turns out to be: a head that was made up
/// is forgotten with the endpoint that named it.
pub(crate) async fn feed<C: Chain>(
    chain: Arc<C>,
    mut told: Told,
    head: Head,
    events: mpsc::Sender<Event>,
) {
    let mut last = told.last();
    while !events.is_closed() {
        let after = match last {
            Some(last) => last,
            None => match chain.block(At::Head).await {
                Ok(head) => Block(head.number.0.saturating_sub(FIRST_LOOK_BACK_BLOCKS)),
                Err(error) => {
                    debug!(target: "chain::feed", error = &error as &dyn std::error::Error, "the chain cannot be read");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
            },
        };
        match next(&*chain, after, &head, &mut told).await {
            Ok(Some(snapshot)) => {
                last = Some(snapshot.block);
                told.push(&snapshot);
                if events.send(Event::Block(Arc::new(snapshot))).await.is_err() {
                    return;
                }
            }
            Ok(None) => {
                // Of an endpoint that lags behind nothing can be learnt: the next round asks again.
                match told.rewind(&*chain).await {
                    Ok(standing) if standing != Some(after) => {
                        let from = standing.unwrap_or_else(|| Block(after.0.saturating_sub(1)));
                        warn!(target: "chain::feed", %after, %from, "blocks were taken back");
                        last = Some(from);
                    }
                    _ => tokio::time::sleep(RETRY_PAUSE).await,
                }
            }
            Err(ChainError::Timeout(_)) => {}
            Err(ChainError::Pruned {
                oldest: Some(oldest),
                wanted,
            }) => {
                warn!(target: "chain::feed", %wanted, %oldest, "blocks were pruned before they were seen");
                last = Some(Block(oldest.0.max(after.0 + 1) - 1));
            }
            Err(error @ ChainError::Shape { .. }) => {
                // It may be an answer that was garbled on its way; if not, people should know why the role
                // stands still.
                warn!(target: "chain::feed", error = &error as &dyn std::error::Error, "a block is not understood");
                tokio::time::sleep(UNREADABLE_PAUSE).await;
            }
            Err(error) => {
                debug!(target: "chain::feed", error = &error as &dyn std::error::Error, "the chain cannot be read");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// The next block; nothing if it does not stand on the last one.
async fn next<C: Chain>(
    chain: &C,
    after: Block,
    head: &Head,
    told: &mut Told,
) -> Result<Option<Snapshot>, ChainError> {
    let arrival = chain.wait_block(after, BLOCK_DEADLINE).await?;
    if !told.carries(arrival.block) {
        return Ok(None);
    }
    head.set(arrival.head);
    // Where it is behind the head, the machine should know that it is catching up.
    snapshot(chain, At::Hash(arrival.block.hash), arrival.head)
        .await
        .map(Some)
}

/// What waits for the writer: at most one operation of a kind, the newest. An older record that has not
/// gone out yet is of no use any more.
#[derive(Debug, Default)]
struct Waiting {
    record: Option<Op>,
    endpoint: Option<Op>,
    weights: Option<Op>,
}

impl Waiting {
    fn replace(&mut self, operation: Op) {
        let place = match operation {
            Op::Serve(_) => &mut self.endpoint,
            Op::SetWeights { .. } => &mut self.weights,
            _ => &mut self.record,
        };
        *place = Some(operation);
    }

    /// Records first: windows are short.
    fn next(&mut self) -> Option<Op> {
        self.record
            .take()
            .or_else(|| self.endpoint.take())
            .or_else(|| self.weights.take())
    }
}

/// The one writer of a hotkey.
#[derive(Debug)]
pub(crate) struct Writer(watch::Sender<Waiting>);

impl Writer {
    /// Starts the writing task; it ends when the writer is dropped.
    pub(crate) fn start<C: Chain + 'static>(
        chain: Arc<C>,
        keypair: Arc<Keypair>,
        head: Head,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let (waiting, changed) = watch::channel(Waiting::default());
        let task = WritingTask {
            chain,
            keypair,
            head,
            events,
            waiting: waiting.clone(),
            sealed: None,
            postponed: None,
        };
        tokio::spawn(task.run(changed));
        Self(waiting)
    }

    /// Queues what an effect asks of the chain; other effects are none of its business.
    pub(crate) fn write(&self, effect: &Effect) {
        if let Some(operation) = operation(effect) {
            self.0.send_modify(|waiting| waiting.replace(operation));
        }
    }
}

/// Waits until a record waits.
async fn newer_record(waiting: &mut watch::Receiver<Waiting>) {
    if waiting
        .wait_for(|waiting| waiting.record.is_some())
        .await
        .is_err()
    {
        std::future::pending::<()>().await;
    }
}

/// What writes for one hotkey.
struct WritingTask<C> {
    chain: Arc<C>,
    keypair: Arc<Keypair>,
    head: Head,
    events: mpsc::Sender<Event>,
    waiting: watch::Sender<Waiting>,
    /// Weights that were sealed, and when they must show.
    sealed: Option<(Op, RevealPlan)>,
    /// Weights that came too soon, and the first block that takes them.
    postponed: Option<(Op, Block)>,
}

impl<C: Chain> WritingTask<C> {
    async fn run(mut self, mut changed: watch::Receiver<Waiting>) {
        let block_time = Duration::from_millis(self.chain.identity().block_time_ms);
        let mut looks = tokio::time::interval(block_time.clamp(SHORTEST_LOOK, BLOCK_DEADLINE));
        loop {
            tokio::select! {
                // Cannot fail: this task holds a sender itself.
                _ = changed.changed() => {}
                _ = looks.tick() => {
                    self.look_for_sealed().await;
                    self.take_up_postponed();
                }
                () = self.events.closed() => return,
            }
            while let Some(operation) = self.take() {
                if matches!(operation, Op::SetWeights { .. }) {
                    self.postponed = None;
                }
                let submitted = tokio::select! {
                    submitted = self.chain.submit(&*self.keypair, operation.clone()) => submitted,
                    // Windows are short: a record does not wait for the fate of the one before it, which
                    // it replaces whether that has landed or not.
                    () = newer_record(&mut changed), if matches!(operation, Op::Commit(_)) => continue,
                };
                match submitted {
                    Ok(receipt) => self.remember(operation, receipt),
                    Err(error) => {
                        let reason = sentence(&error);
                        self.postpone(operation, &error);
                        debug!(target: "chain::writer", %reason, "an operation was not included");
                        if self
                            .events
                            .send(Event::ChainRefused { reason })
                            .await
                            .is_err()
                        {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Taking is no news: nobody is woken by it.
    fn take(&self) -> Option<Op> {
        let mut operation = None;
        self.waiting.send_if_modified(|waiting| {
            operation = waiting.next();
            false
        });
        operation
    }

    fn remember(&mut self, operation: Op, receipt: Receipt) {
        if let Some(plan) = receipt.reveal {
            self.sealed = Some((operation, plan));
        }
    }

    /// Weights that only came too soon are kept for the block that takes them.
    fn postpone(&mut self, operation: Op, error: &ChainError) {
        let ChainError::Rejected(Reject::RateLimited { retry_at }) = error else {
            return;
        };
        if matches!(operation, Op::SetWeights { .. }) {
            self.postponed = retry_at.map(|first| (operation, first));
        }
    }

    /// Once the next block takes them: newer ones that wait already are better.
    fn take_up_postponed(&mut self) {
        let next = self.head.block().next();
        if let Some((operation, _)) = self.postponed.take_if(|(_, first)| *first <= next) {
            self.waiting.send_modify(|waiting| {
                waiting.weights.get_or_insert(operation);
            });
        }
    }

    /// Once sealed weights should show: if they do not, they are set again.
    async fn look_for_sealed(&mut self) {
        let head = self.head.block();
        let due = self
            .sealed
            .as_ref()
            .is_some_and(|(_, plan)| plan.visible_by <= head);
        let Some((operation, plan)) = self.sealed.take_if(|_| due) else {
            return;
        };
        match self.shows(&operation).await {
            Ok(true) => debug!(target: "chain::writer", round = plan.round, "sealed weights show"),
            Ok(false) => {
                warn!(target: "chain::writer", round = plan.round, by = %plan.visible_by, "sealed weights were dropped by the chain and are set again");
                // Newer ones that wait already are better.
                self.waiting.send_modify(|waiting| {
                    waiting.weights.get_or_insert(operation);
                });
            }
            Err(error) => {
                debug!(target: "chain::writer", error = &error as &dyn std::error::Error, "the weights cannot be read");
                self.sealed = Some((operation, plan));
            }
        }
    }

    /// Whether the chain shows these weights as ours. It leaves out slots that were taken over since,
    /// and scales what is left.
    async fn shows(&self, operation: &Op) -> Result<bool, ChainError> {
        let Op::SetWeights { weights, .. } = operation else {
            return Ok(true);
        };
        let rows = self.chain.weights(At::Head).await?.value;
        let row = rows
            .iter()
            .find(|row| row.validator == self.keypair.hotkey());
        let Some(row) = row else { return Ok(false) };
        let shown: BTreeSet<Uid> = row.weights.iter().map(|(uid, _)| *uid).collect();
        let kept = weights
            .iter()
            .filter(|(uid, weight)| *weight > 0 && shown.contains(uid));
        let (uids, values): (Vec<Uid>, Vec<u16>) = kept.copied().unzip();
        let scaled: BTreeMap<Uid, u16> = uids.into_iter().zip(upscale(&values)).collect();
        let shown = row
            .weights
            .iter()
            .copied()
            .filter(|(_, weight)| *weight > 0);
        Ok(!scaled.is_empty() && scaled == shown.collect())
    }
}

fn operation(effect: &Effect) -> Option<Op> {
    match effect {
        Effect::Announce { announcement } => {
            let bytes = announcement.encode();
            let field = if bytes.len() <= RAW_FIELD_BYTES {
                Field::Raw(bytes)
            } else {
                Field::BigRaw(bytes)
            };
            Some(Op::Commit(vec![field]))
        }
        Effect::SetWeights { weights } => {
            let (uids, values): (Vec<Uid>, Vec<f64>) = weights.iter().copied().unzip();
            Some(Op::SetWeights {
                weights: uids.into_iter().zip(quantise(&values)).collect(),
                version_key: 0,
            })
        }
        Effect::Serve { endpoint } => Some(Op::Serve(connito_chain::Endpoint {
            ip: endpoint.ip,
            port: endpoint.port,
        })),
        Effect::Fetch(_)
        | Effect::Store { .. }
        | Effect::Forget { .. }
        | Effect::Deliver { .. }
        | Effect::Run(_)
        | Effect::Answer { .. }
        | Effect::Issue(_)
        | Effect::AskReceipt { .. }
        | Effect::Tell(_) => None,
    }
}

/// An error with its causes, as one line.
pub(crate) fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The hash of the chain's first block and the subnet, as seals bind them.
#[must_use]
pub fn network<C: Chain>(chain: &C) -> connito_protocol::submission::Network {
    let identity = chain.identity();
    connito_protocol::submission::Network {
        genesis: BlockHash(identity.genesis.0),
        netuid: identity.netuid,
    }
}

#[cfg(test)]
mod tests;
