//! Which sources failed lately: they are asked last, so that one that keeps silent costs its time once
//! and not at every fetch.
//!
//! A memory of one process, bounded and soon forgotten: it decides the order and nothing else. Knows
//! nothing of why a source failed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Addresses that are remembered: every slot of a subnet.
const REMEMBERED: usize = 256;

/// After which time a failure counts no more. About five cycles of fast blocks, half a cycle of slow ones.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// When each source failed. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub(super) struct FailedLately(Arc<Mutex<BTreeMap<String, Instant>>>);

impl FailedLately {
    /// The source failed now.
    pub(super) fn note(&self, source: &str) {
        let mut failed = self.lock();
        failed.insert(source.to_owned(), Instant::now());
        if failed.len() > REMEMBERED {
            let oldest = failed.iter().min_by_key(|(_, at)| **at);
            let oldest = oldest.map(|(source, _)| source.clone());
            oldest.map(|source| failed.remove(&source));
        }
    }

    /// The source delivered.
    pub(super) fn forgive(&self, source: &str) {
        self.lock().remove(source);
    }

    /// The sources in their order, but for those that failed lately: they come last.
    pub(super) fn last<'a>(&self, sources: &'a [String]) -> Vec<&'a String> {
        let mut failed = self.lock();
        failed.retain(|_, at| at.elapsed() < FORGOTTEN_AFTER);
        let has_failed = |source: &&String| failed.contains_key(*source);
        let (last, mut order): (Vec<_>, Vec<_>) = sources.iter().partition(has_failed);
        order.extend(last);
        order
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_failed_comes_last_until_it_is_forgiven_or_forgotten() {
        let sources = ["a", "b", "c"].map(str::to_owned);
        let failed = FailedLately::default();
        let order = || {
            failed
                .last(&sources)
                .into_iter()
                .cloned()
                .collect::<String>()
        };
        failed.note("a");
        failed.note("b");
        assert_eq!(order(), "cab");
        failed.forgive("a");
        assert_eq!(order(), "acb");
        tokio::time::advance(FORGOTTEN_AFTER).await;
        assert_eq!(order(), "abc");
    }

    #[test]
    fn no_more_is_remembered_than_a_subnet_has_slots() {
        let failed = FailedLately::default();
        (0..2 * REMEMBERED).for_each(|number| failed.note(&number.to_string()));
        assert_eq!(failed.lock().len(), REMEMBERED);
    }
}
