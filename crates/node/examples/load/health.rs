//! How long the validator takes to say that it is well, asked often and on a new connection each time.
//!
//! Asked from a thread that does nothing else: the load's own threads are busy sending, and what they
//! keep a request waiting for is not the validator's delay.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::{Outcome, http};

const PAUSE: Duration = Duration::from_millis(20);

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    sorted: Vec<Duration>,
    /// Requests without an answer. While the validator is being started again there are some.
    pub(crate) failed: usize,
}

impl Latencies {
    pub(crate) fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The time within which this share of the requests was answered.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let place = (self.sorted.len() as f64 * share).ceil() as usize;
        let place = place.clamp(1, self.sorted.len().max(1)) - 1;
        self.sorted.get(place).copied().unwrap_or_default()
    }
}

/// Asks until `enough` resolves.
pub(crate) fn begin(
    address: watch::Receiver<SocketAddr>,
    enough: oneshot::Receiver<()>,
) -> JoinHandle<Outcome<Latencies>> {
    tokio::task::spawn_blocking(move || {
        let own = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(own.block_on(probe(address, enough)))
    })
}

async fn probe(
    address: watch::Receiver<SocketAddr>,
    mut enough: oneshot::Receiver<()>,
) -> Latencies {
    let mut latencies = Latencies::default();
    while enough.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
        let address = *address.borrow();
        let begun = Instant::now();
        match http::get(address, "/v1/health").await {
            Ok(answer) if answer.status == 200 => latencies.sorted.push(begun.elapsed()),
            Ok(_) | Err(_) => latencies.failed += 1,
        }
        tokio::time::sleep(PAUSE).await;
    }
    latencies.sorted.sort_unstable();
    latencies
}
