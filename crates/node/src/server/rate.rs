//! Token buckets: how often one address or one hotkey may ask.
//!
//! A bucket fills at a steady rate up to its burst; a request takes one token or is told when the
//! next one is there. The table of buckets is bounded: full buckets are forgotten first, which loses
//! nothing, and a table that is still crowded is emptied, which forgives everyone once rather than
//! letting a crowd of addresses grow memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Sustained, a second.
    pub per_second: f64,
    /// At once, after a rest.
    pub burst: f64,
}

/// Large enough for every address that is being served, at about 100 bytes each.
const MAX_BUCKETS: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct TokenBuckets<K> {
    buckets: Mutex<BTreeMap<K, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    rate: Rate,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn tokens_at(&self, now: Instant) -> f64 {
        let rest = now.saturating_duration_since(self.filled).as_secs_f64();
        (self.tokens + rest * self.rate.per_second).min(self.rate.burst)
    }
}

impl<K: Ord> TokenBuckets<K> {
    pub(super) fn new() -> Self {
        Self {
            buckets: Mutex::new(BTreeMap::new()),
        }
    }

    /// Takes a token, or says how long until there is one.
    pub(super) fn take(&self, key: K, rate: Rate, now: Instant) -> Result<(), Duration> {
        // The table is consistent between any two statements, so a poisoned lock is usable.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| bucket.tokens_at(now) < bucket.rate.burst);
            if buckets.len() > MAX_BUCKETS / 2 {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket {
            rate,
            tokens: rate.burst,
            filled: now,
        });
        let tokens = bucket.tokens_at(now);
        bucket.filled = now;
        if tokens >= 1.0 {
            bucket.tokens = tokens - 1.0;
            Ok(())
        } else {
            bucket.tokens = tokens;
            let wait = (1.0 - tokens) / rate.per_second;
            Err(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 2.0,
        burst: 3.0,
    };

    #[test]
    fn a_burst_is_allowed_and_then_the_sustained_rate() {
        let buckets = TokenBuckets::new();
        let start = Instant::now();
        for _ in 0..3 {
            buckets.take("a", RATE, start).unwrap();
        }
        let wait = buckets.take("a", RATE, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(500));
        buckets.take("b", RATE, start).unwrap();
        buckets.take("a", RATE, start + wait).unwrap();
        buckets.take("a", RATE, start + wait).unwrap_err();
    }

    #[test]
    fn the_table_does_not_grow_with_the_number_of_askers() {
        let buckets = TokenBuckets::new();
        let start = Instant::now();
        for asker in 0..MAX_BUCKETS * 2 {
            buckets.take(asker, RATE, start).unwrap();
        }
        assert!(buckets.buckets.lock().unwrap().len() <= MAX_BUCKETS);
    }
}
