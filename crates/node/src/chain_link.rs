//! Between the chain and a role machine: blocks become snapshots, effects become operations.
//!
//! Reading: every block once, in order, each from reads pinned to that block. Writing: one task per
//! hotkey, one operation after the other; what the chain refuses comes back as an event, and what is
//! lost is asked for again by the machine, which looks at the chain and not at receipts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use connito_chain::keys::Keypair;
use connito_chain::{At, Chain, ChainError, Field, Op, quantise};
use connito_protocol::event::{Effect, Event};
use connito_protocol::ids::{Block, BlockHash, Uid};
use connito_protocol::snapshot::{self, Participant, Record, Snapshot};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use crate::compute::Head;

/// How long one wait for a block may take before it is asked for again.
const BLOCK_DEADLINE: Duration = Duration::from_secs(30);

/// Pause after a failed read, so that a chain that is down is not hammered.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Longest payload of a `Raw` field; longer ones go into a `BigRaw` field.
const RAW_FIELD_BYTES: usize = 128;

/// The chain as of block `number`, as a machine sees it.
///
/// # Errors
/// The chain cannot be read at that block.
pub async fn snapshot<C: Chain>(
    chain: &C,
    number: Block,
    head: Block,
) -> Result<Snapshot, ChainError> {
    let metagraph = chain.metagraph(At::Number(number)).await?;
    let at = At::Hash(metagraph.at.hash);
    let commitments = chain.commitments(at).await?;
    let participants = metagraph.value.neurons.iter().map(|neuron| Participant {
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
    let records = commitments.value.into_iter().filter_map(|commitment| {
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
        records: records.collect::<BTreeMap<_, _>>(),
    })
}

/// Feeds every block after `after` to the driver, until the driver stops listening.
pub(crate) async fn feed<C: Chain>(
    chain: Arc<C>,
    mut after: Block,
    head: Head,
    events: mpsc::Sender<Event>,
) {
    while !events.is_closed() {
        match next(&*chain, after, &head).await {
            Ok(snapshot) => {
                after = snapshot.block;
                if events.send(Event::Block(Arc::new(snapshot))).await.is_err() {
                    return;
                }
            }
            Err(ChainError::Timeout(_)) => {}
            Err(ChainError::Pruned {
                oldest: Some(oldest),
                wanted,
            }) => {
                warn!(target: "chain::feed", %wanted, %oldest, "blocks were pruned before they were seen");
                after = Block(oldest.0.max(after.0 + 1) - 1);
            }
            Err(error) => {
                debug!(target: "chain::feed", error = &error as &dyn std::error::Error, "the chain cannot be read");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn next<C: Chain>(chain: &C, after: Block, head: &Head) -> Result<Snapshot, ChainError> {
    let block = chain.wait_block(after, BLOCK_DEADLINE).await?;
    // Behind the head by more than this block: the machine should know that it is catching up.
    let newest = chain.block(At::Head).await?.number;
    head.advance(newest);
    snapshot(chain, block.number, newest).await
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
        events: mpsc::Sender<Event>,
    ) -> Self {
        let (waiting, mut changed) = watch::channel(Waiting::default());
        let taken = waiting.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // Cannot fail: this task holds a sender itself.
                    _ = changed.changed() => {}
                    () = events.closed() => return,
                }
                loop {
                    let mut operation = None;
                    // Taking is no news: nobody is woken by it.
                    taken.send_if_modified(|waiting| {
                        operation = waiting.next();
                        false
                    });
                    let Some(operation) = operation else { break };
                    if let Err(error) = chain.submit(&*keypair, operation).await {
                        let reason = sentence(&error);
                        debug!(target: "chain::writer", %reason, "an operation was not included");
                        if events.send(Event::ChainRefused { reason }).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Self(waiting)
    }

    /// Queues what an effect asks of the chain; other effects are none of its business.
    pub(crate) fn write(&self, effect: &Effect) {
        if let Some(operation) = operation(effect) {
            self.0.send_modify(|waiting| waiting.replace(operation));
        }
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
