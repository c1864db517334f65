//! Several endpoints of one chain, used one at a time.
//!
//! Public endpoints are slow, limited and sometimes wrong: each has a bucket of requests that refills at
//! the pace its operator allows, and whoever fails or stands still is passed over in favour of the next.
//! An endpoint of another chain is never asked anything but its name: the hash of the first block is
//! compared before the first question goes there. What is asked twice is the caller's business; a read
//! pinned to a hash means the same wherever it is answered.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use connito_protocol::ids::BlockHash;
use serde_json::json;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::{Instant, sleep_until};

use super::json_rpc::{Question, SUBMIT, ask};
use crate::error::{ChainError, TransportError};
use crate::hex_text;
use crate::rpc::RpcTransport;

/// Requests that an endpoint takes at once before its pace holds.
const BURST: u32 = 8;

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
    bucket: Mutex<Bucket>,
    /// Set once its first block has been compared.
    checked: OnceCell<()>,
}

/// Requests that may go out now, and when the next one is added.
#[derive(Debug)]
struct Bucket {
    interval: Duration,
    /// When the bucket was or will be full.
    full_at: Instant,
}

impl Bucket {
    /// When the next request may go out; takes its place.
    fn take(&mut self) -> Instant {
        let now = Instant::now();
        let full_at = self.full_at.max(now) + self.interval;
        self.full_at = full_at;
        full_at
            .checked_sub(self.interval * BURST)
            .map_or(now, |free| free.max(now))
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
                endpoint: "none".to_owned(),
                problem: "no endpoint is configured".to_owned(),
                retry: false,
                source: None,
            });
        }
        let endpoint = |transport| Endpoint {
            transport,
            checked: OnceCell::new(),
            bucket: Mutex::new(Bucket {
                interval,
                full_at: Instant::now(),
            }),
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

    /// Passes over the endpoint at `place`, unless somebody has done so already.
    fn pass_over(&self, place: usize, problem: &str) {
        let next = (place + 1) % self.endpoints.len();
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
    async fn paced(&self, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let free = self.bucket.lock().await.take();
        sleep_until(free).await;
        self.transport.call(body).await
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
        TransportError {
            endpoint: self.transport.endpoint().to_owned(),
            problem,
            retry: true,
            source: None,
        }
    }
}

impl<T: RpcTransport> RpcTransport for EndpointPool<T> {
    fn endpoint(&self) -> &str {
        self.current().1.transport.endpoint()
    }

    /// Tries every endpoint once, beginning with the current one; the first failure is the answer if
    /// all fail. What is submitted is not sent on: the one that failed may have it, and whoever sent it
    /// looks for it before anything else.
    async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let submits = body
            .windows(SUBMIT.len())
            .any(|part| part == SUBMIT.as_bytes());
        let attempts = if submits { 1 } else { self.endpoints.len() };
        let mut first = None;
        for _ in 0..attempts {
            let (place, endpoint) = self.current();
            match self.call_at(endpoint, body.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    self.pass_over(place, &error.problem);
                    first.get_or_insert(error);
                }
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
