//! The client side of the chain's JSON-RPC: [`Chain`] over any transport.
//!
//! Reads are one request each. Waiting is a long poll that degrades to plain polling when the server
//! answers at once, with a watchdog on the head: a chain whose head stands still for ten block
//! times is a broken endpoint, not a slow one. Writing is in `writer.rs`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use connito_protocol::ids::Block;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::writer::Lanes;
use super::{AtParams, Awaited, RpcError, RpcTransport, WaitParams};
use crate::chain::{
    At, BlockRef, Chain, ChainId, CommitmentRecord, Metagraph, Pinned, Receipt, WeightRow,
};
use crate::error::{ChainError, TransportError};
use crate::keys::Signer;
use crate::operation::Op;

/// Block times without a new block after which the endpoint counts as stalled.
const STALLED_AFTER_BLOCKS: u32 = 10;
/// Polls per block time when the server does not hold answers back.
const POLLS_PER_BLOCK: u32 = 4;

/// A chain reached through a transport.
#[derive(Debug)]
pub struct RpcChain<T> {
    pub(super) transport: T,
    pub(super) identity: ChainId,
    pub(super) lanes: Lanes,
    /// The head that a wait has found standing still, and since when.
    standing: Mutex<Option<(Block, Instant)>>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Option<Value>,
    #[serde(default)]
    error: Option<RpcError>,
}

impl<T: RpcTransport> RpcChain<T> {
    /// Asks the chain who it is.
    ///
    /// # Errors
    /// The endpoint cannot be reached or does not speak this interface.
    pub async fn connect(transport: T) -> Result<Self, ChainError> {
        let identity = request(&transport, super::IDENTITY, &json!({}), None).await?;
        let (lanes, standing) = (Lanes::default(), Mutex::new(None));
        Ok(Self {
            transport,
            identity,
            lanes,
            standing,
        })
    }

    pub(super) fn block_time(&self) -> Duration {
        Duration::from_millis(self.identity.block_time_ms)
    }

    /// One request about no block in particular.
    pub(super) async fn call<P, R>(&self, method: &str, params: &P) -> Result<R, ChainError>
    where
        P: Serialize + Sync,
        R: DeserializeOwned,
    {
        request(&self.transport, method, params, None).await
    }

    /// One read at a block.
    pub(super) async fn read<R>(&self, method: &str, at: At) -> Result<R, ChainError>
    where
        R: DeserializeOwned,
    {
        request(&self.transport, method, &AtParams { at }, Some(at)).await
    }

    /// Notes that the head was seen at `head` and the wanted block not there.
    fn watch(&self, head: Block) -> Result<(), ChainError> {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let since = match *standing {
            Some((seen, since)) if seen == head => since,
            _ => standing.insert((head, now)).1,
        };
        let limit = self.block_time() * STALLED_AFTER_BLOCKS;
        if now.duration_since(since) < limit {
            return Ok(());
        }
        Err(ChainError::Transport(TransportError {
            endpoint: self.transport.endpoint().to_owned(),
            problem: format!("no block after {head} for {STALLED_AFTER_BLOCKS} block times"),
            retry: true,
            source: None,
        }))
    }
}

impl<T: RpcTransport> Chain for RpcChain<T> {
    fn identity(&self) -> &ChainId {
        &self.identity
    }

    async fn block(&self, at: At) -> Result<BlockRef, ChainError> {
        self.read(super::BLOCK, at).await
    }

    async fn wait_block(&self, after: Block, deadline: Duration) -> Result<BlockRef, ChainError> {
        let give_up = Instant::now() + deadline;
        loop {
            let asked = Instant::now();
            // Two block times at most, so that the watchdog looks at the head often enough.
            let patience = give_up.duration_since(asked).min(self.block_time() * 2);
            let timeout_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
            let wait = WaitParams { after, timeout_ms };
            let awaited: Awaited = self.call(super::WAIT, &wait).await?;
            if let Some(block) = awaited.block {
                return Ok(block);
            }
            self.watch(awaited.head)?;
            if Instant::now() >= give_up {
                return Err(ChainError::Timeout(after.next()));
            }
            sleep_until(give_up.min(asked + self.block_time() / POLLS_PER_BLOCK)).await;
        }
    }

    async fn metagraph(&self, at: At) -> Result<Pinned<Metagraph>, ChainError> {
        self.read(super::METAGRAPH, at).await
    }

    async fn commitments(&self, at: At) -> Result<Pinned<Vec<CommitmentRecord>>, ChainError> {
        self.read(super::COMMITMENTS, at).await
    }

    async fn weights(&self, at: At) -> Result<Pinned<Vec<WeightRow>>, ChainError> {
        self.read(super::WEIGHTS, at).await
    }

    async fn submit(&self, signer: &dyn Signer, op: Op) -> Result<Receipt, ChainError> {
        self.write(signer, op).await
    }
}

async fn request<T, P, R>(
    transport: &T,
    method: &str,
    params: &P,
    at: Option<At>,
) -> Result<R, ChainError>
where
    T: RpcTransport,
    P: Serialize + Sync,
    R: DeserializeOwned,
{
    let shape = |detail: String| ChainError::Shape {
        item: method.to_owned(),
        spec: None,
        detail,
    };
    // The id is constant: a transport carries one request per answer.
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let answer = transport.call(body.to_string().into_bytes()).await?;
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|error| shape(error.to_string()))?;
    match (answer.result, answer.error) {
        (_, Some(error)) => Err(error.into_chain_error(method, at)),
        (result, None) => serde_json::from_value(result.unwrap_or(Value::Null))
            .map_err(|error| shape(error.to_string())),
    }
}
