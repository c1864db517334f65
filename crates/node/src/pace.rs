//! The slowest that a peer may be: so many bytes in every window of time spent waiting for it.
//!
//! Only time during which the peer kept us waiting counts, so a slow disk of ours is never charged
//! to it, and a connection that rests between requests is not slow. Used for bodies in both
//! directions. Knows nothing of HTTP.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// A floor under a transfer's speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinimumRate {
    /// Bytes a second, on average over a window.
    pub bytes_per_second: u64,
    /// Time spent waiting after which the average is judged.
    pub window: Duration,
}

impl MinimumRate {
    /// Bytes that have to move in one window.
    fn floor(self) -> u64 {
        // A window is seconds to minutes, so its milliseconds fit; the product saturates.
        let milliseconds = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX);
        self.bytes_per_second.saturating_mul(milliseconds) / 1000
    }
}

/// The peer moved less than the floor in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the transfer is slower than {} bytes a second", .0.bytes_per_second)]
pub struct TooSlow(pub MinimumRate);

/// One transfer, measured.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: MinimumRate,
    waited: Duration,
    moved: u64,
}

impl Pace {
    pub(crate) fn new(rate: MinimumRate) -> Self {
        Self {
            rate,
            waited: Duration::ZERO,
            moved: 0,
        }
    }

    /// Bytes that the peer sent or took.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes as u64);
    }

    /// How long the peer may still keep us waiting before [`Pace::judge`] is due.
    pub(crate) fn patience(&self) -> Duration {
        self.rate.window.saturating_sub(self.waited)
    }

    /// Time that the peer kept us waiting.
    pub(crate) fn waited(&mut self, time: Duration) {
        self.waited = self.waited.saturating_add(time);
    }

    /// Judges the window if it is over, and begins the next one.
    pub(crate) fn judge(&mut self) -> Result<(), TooSlow> {
        if self.waited < self.rate.window {
            return Ok(());
        }
        let moved = std::mem::take(&mut self.moved);
        self.waited = Duration::ZERO;
        if moved < self.rate.floor() {
            Err(TooSlow(self.rate))
        } else {
            Ok(())
        }
    }

    /// Waits for the peer's next piece. Dropping the future loses nothing that `next` does not lose.
    pub(crate) async fn wait<F: Future>(&mut self, next: F) -> Result<F::Output, TooSlow> {
        let mut next = pin!(next);
        loop {
            let start = Instant::now();
            let arrived = timeout(self.patience(), next.as_mut()).await;
            self.waited(start.elapsed());
            match arrived {
                Ok(piece) => return Ok(piece),
                Err(_) => self.judge()?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: MinimumRate = MinimumRate {
        bytes_per_second: 1000,
        window: Duration::from_secs(10),
    };

    #[test]
    fn a_window_is_judged_by_what_moved_in_it_and_not_before() {
        let mut pace = Pace::new(RATE);
        pace.moved(9_999);
        pace.waited(Duration::from_secs(9));
        assert_eq!(pace.judge(), Ok(()), "the window is not over");
        pace.moved(1);
        pace.waited(Duration::from_secs(1));
        assert_eq!(pace.judge(), Ok(()), "10,000 bytes in 10 s");
        pace.moved(9_999);
        pace.waited(Duration::from_secs(10));
        assert_eq!(
            pace.judge(),
            Err(TooSlow(RATE)),
            "what came before is spent"
        );
    }

    /// With the runtime's clock paused, a silent peer takes exactly as long as the window.
    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_given_up_after_one_window() {
        let start = Instant::now();
        let silence = Pace::new(RATE).wait(std::future::pending::<()>()).await;
        assert_eq!(silence, Err(TooSlow(RATE)));
        assert_eq!(start.elapsed(), RATE.window);
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_slowness_is_not_charged_to_the_peer() {
        let mut pace = Pace::new(RATE);
        pace.wait(async {}).await.unwrap();
        tokio::time::advance(Duration::from_secs(60)).await;
        pace.wait(async {}).await.unwrap();
        assert_eq!(pace.patience(), RATE.window);
    }
}
