//! Several endpoints of one chain, used one at a time.
//!
//! Public endpoints are slow, limited and sometimes wrong: each has a bucket of requests that refills at
//! the pace its operator allows, and whoever fails or stands still is passed over in favour of the next.
//! What brings an operation into a block has a part of the bucket to itself and does not stand in line
//! with reads. An endpoint that says it is asked too often is left alone for as long as it wants, or
//! for longer each time. An endpoint of another chain is never asked anything but its name: the hash
//! of the first block is compared before the first question goes there. What is asked twice is the
//! caller's business; a read pinned to a hash means the same wherever it is answered.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use connito_protocol::ids::BlockHash;
use serde_json::json;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::{Instant, sleep_until};

use super::json_rpc::{Question, SUBMIT, ask, too_often};
use crate::error::{ChainError, Limit, TransportError};
use crate::hex_text;
use crate::rpc::RpcTransport;

/// Requests that an endpoint takes at once before its pace holds.
const BURST: u32 = 8;
/// Those of them that reads leave to whoever writes: what an operation needs until it is sent.
const KEPT_FOR_WRITING: u32 = 4;
/// How long an endpoint that limits us is left alone, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

tokio::task_local! {
    /// Set while an operation is being brought into a block.
    static WRITING: ();
}

/// Does `work`, whose requests do not wait behind those of others; except for one that a reader has
/// begun and both need, such as the first question about a block.
pub(super) fn urgently<F: Future>(work: F) -> impl Future<Output = F::Output> {
    WRITING.scope((), work)
}

/// Endpoints in the order in which they are preferred.
#[derive(Debug)]
pub struct EndpointPool<T> {
    endpoints: Vec<Endpoint<T>>,
    current: AtomicUsize,
    /// The chain's first block: as configured, or that of the endpoint that answered first.
    genesis: OnceCell<BlockHash>,
}

#[derive(Debug)]
struct Endpoint<T> {
    transport: T,
    bucket: std::sync::Mutex<Bucket>,
    /// Held by the read that goes out next.
    reading: Mutex<()>,
    /// Set once its first block has been compared.
    checked: OnceCell<()>,
}

/// Requests that may go out now, and when the next one is added.
#[derive(Debug)]
struct Bucket {
    interval: Duration,
    /// When the bucket was or will be full.
    full_at: Instant,
    /// Until when the endpoint wants to be left alone.
    rests_until: Instant,
    /// How many times in a row it has said so.
    limited: u32,
}

impl Bucket {
    fn new(interval: Duration) -> Self {
        let now = Instant::now();
        Self {
            interval,
            full_at: now,
            rests_until: now,
            limited: 0,
        }
    }

    /// Takes a request out, leaving `kept` of them; or says when that will be possible.
    fn take(&mut self, kept: u32) -> Result<(), Instant> {
        let now = Instant::now();
        let full_at = self.full_at.max(now) + self.interval;
        let free = full_at.checked_sub(self.interval * (BURST - kept));
        let free = free.unwrap_or(now).max(self.rests_until);
        if free > now {
            return Err(free);
        }
        self.full_at = full_at;
        Ok(())
    }

    fn rest(&mut self, limit: Limit) {
        let longer = FIRST_PAUSE.saturating_mul(1 << self.limited.min(16));
        let pause = limit.pause.unwrap_or(longer);
        self.limited = self.limited.saturating_add(1);
        self.rests_until = Instant::now() + pause.clamp(FIRST_PAUSE, LONGEST_PAUSE);
    }
}

impl<T: RpcTransport> EndpointPool<T> {
    /// A pool of `transports`, each asked once per `interval` in the long run (zero: without a limit).
    /// With `genesis`, endpoints of another chain are refused; without, all must be of the chain of the
    /// first that answers.
    ///
    /// # Errors
    /// There is no transport.
    pub fn new(
        transports: Vec<T>,
        interval: Duration,
        genesis: Option<BlockHash>,
    ) -> Result<Self, TransportError> {
        if transports.is_empty() {
            return Err(TransportError {
                retry: false,
                ..TransportError::new("none", "no endpoint is configured")
            });
        }
        let endpoint = |transport| Endpoint {
            transport,
            checked: OnceCell::new(),
            bucket: Bucket::new(interval).into(),
            reading: Mutex::new(()),
        };
        Ok(Self {
            endpoints: transports.into_iter().map(endpoint).collect(),
            current: AtomicUsize::new(0),
            genesis: OnceCell::new_with(genesis),
        })
    }

    fn current(&self) -> (usize, &Endpoint<T>) {
        let place = self.current.load(Ordering::Relaxed) % self.endpoints.len();
        (place, &self.endpoints[place])
    }

    /// Passes over the endpoint at `place`, unless somebody has done so already: for the next one that
    /// may be asked at once, or for whichever may be asked first.
    fn pass_over(&self, place: usize, problem: &str) {
        let (now, count) = (Instant::now(), self.endpoints.len());
        let others = (1..=count).map(|step| (place + step) % count);
        let next = others.min_by_key(|other| self.endpoints[*other].bucket().rests_until.max(now));
        let next = next.unwrap_or(place);
        let order = Ordering::Relaxed;
        let moved = self.current.compare_exchange(place, next, order, order);
        if moved.is_ok() && next != place {
            let (from, to) = (&self.endpoints[place], &self.endpoints[next]);
            tracing::warn!(
                target: "chain::endpoints",
                from = from.transport.endpoint(), to = to.transport.endpoint(), problem,
                "passing over an endpoint"
            );
        }
    }

    async fn call_at(
        &self,
        endpoint: &Endpoint<T>,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, TransportError> {
        let check = || self.check(endpoint);
        endpoint.checked.get_or_try_init(check).await?;
        endpoint.paced(body).await
    }

    /// Compares the endpoint's first block with the chain's.
    async fn check(&self, endpoint: &Endpoint<T>) -> Result<(), TransportError> {
        let found = endpoint.genesis().await?;
        let expected = self.genesis.get_or_init(async || found).await;
        if found == *expected {
            return Ok(());
        }
        Err(endpoint.failed(format!(
            "is of another chain: its first block is {found}, not {expected}"
        )))
    }
}

impl<T: RpcTransport> Endpoint<T> {
    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn paced(&self, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        self.await_turn().await;
        let answer = self.transport.call(body).await?;
        if let Some(limit) = too_often(&answer) {
            return Err(limit.of(self.transport.endpoint()));
        }
        self.bucket().limited = 0;
        Ok(answer)
    }

    /// Waits until a request may go out: reads one after the other, writers as soon as there is one.
    async fn await_turn(&self) {
        let writes = WRITING.try_with(|()| ()).is_ok();
        let (_line, kept) = match writes {
            true => (None, 0),
            false => (Some(self.reading.lock().await), KEPT_FOR_WRITING),
        };
        loop {
            let taken = self.bucket().take(kept);
            let Err(free) = taken else { return };
            sleep_until(free).await;
        }
    }

    async fn genesis(&self) -> Result<BlockHash, TransportError> {
        let question = Question::new("chain_getBlockHash", json!([0]));
        let answer = match ask(&self.transport, question).await {
            Ok(answer) => answer,
            Err(error) => {
                return Err(match error.at(connito_protocol::ids::Block(0)) {
                    ChainError::Transport(error) => error,
                    other => self.failed(other.to_string()),
                });
            }
        };
        let hash = answer.as_str().and_then(hex_text::decode);
        let hash: Option<[u8; 32]> = hash.and_then(|hash| hash.try_into().ok());
        hash.map(BlockHash)
            .ok_or_else(|| self.failed("does not name its first block".to_owned()))
    }

    fn failed(&self, problem: String) -> TransportError {
        TransportError::new(self.transport.endpoint(), problem)
    }
}

impl<T: RpcTransport> RpcTransport for EndpointPool<T> {
    fn endpoint(&self) -> &str {
        self.current().1.transport.endpoint()
    }

    /// Tries every endpoint once, beginning with the current one; the first failure is the answer if
    /// all fail. What is submitted is not sent on, unless it was refused unread: the one that failed
    /// may have it, and whoever sent it looks for it before anything else.
    async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let submits = body
            .windows(SUBMIT.len())
            .any(|part| part == SUBMIT.as_bytes());
        let mut first = None;
        for _ in 0..self.endpoints.len() {
            let (place, endpoint) = self.current();
            let error = match self.call_at(endpoint, body.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if let Some(limit) = error.limit {
                endpoint.bucket().rest(limit);
            }
            let may_be_taken = submits && error.limit.is_none();
            self.pass_over(place, &error.problem);
            first.get_or_insert(error);
            if may_be_taken {
                break;
            }
        }
        let (_, endpoint) = self.current();
        Err(first.unwrap_or_else(|| endpoint.failed("no answer".to_owned())))
    }

    fn give_up(&self, problem: &str) -> usize {
        let (place, _) = self.current();
        self.pass_over(place, problem);
        self.endpoints.len()
    }
}
