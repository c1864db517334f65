//! What is counted while a strategy is played, and the rates that follow.

use super::network::Cluster;

/// Sums over a play.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Time played.
    pub(super) seconds: f64,
    /// Workers that the strategy can use.
    pub(super) workers: usize,
    /// Times that the shared model moved.
    pub(super) rounds: u64,
    pub(super) processed_tokens: f64,
    pub(super) merged_tokens: f64,
    pub(super) sent_bytes: f64,
    pub(super) received_bytes: f64,
    pub(super) events: f64,
    /// Worker-seconds of computing, in vain or not.
    pub(super) computing_seconds: f64,
    /// Worker-seconds up.
    pub(super) live_seconds: f64,
    /// See [`Outcome::running_share`].
    pub(super) running_share: Option<f64>,
}

impl Tally {
    /// Ends the play: `workers` have been up for so long.
    pub(super) fn close(&mut self, cluster: &mut Cluster, workers: usize, seconds: f64) {
        let used = cluster.workers.iter_mut().take(workers);
        self.live_seconds = used
            .map(|worker| worker.timeline.up_seconds(0.0, seconds))
            .sum();
        (self.workers, self.seconds) = (workers, seconds);
    }

    pub(super) fn outcome(&self) -> Outcome {
        let per = |sum: f64, of: f64| if of > 0.0 { sum / of } else { 0.0 };
        let worker_hours = self.workers as f64 * self.seconds / 3600.0;
        Outcome {
            hours: self.seconds / 3600.0,
            workers: self.workers,
            rounds: self.rounds,
            processed_tokens_per_second: per(self.processed_tokens, self.seconds),
            merged_tokens_per_second: per(self.merged_tokens, self.seconds),
            sent_bytes_per_worker_hour: per(self.sent_bytes, worker_hours),
            received_bytes_per_worker_hour: per(self.received_bytes, worker_hours),
            events_per_hour: per(self.events, self.seconds / 3600.0),
            idle_share: 1.0 - per(self.computing_seconds, self.live_seconds).min(1.0),
            running_share: self.running_share,
        }
    }
}

/// What came of a play.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Hours that were played.
    pub hours: f64,
    /// Workers that took part: those that do not fill a pipeline do not.
    pub workers: usize,
    /// Times that the shared model moved.
    pub rounds: u64,
    /// Tokens that the network trained on, in vain or not.
    pub processed_tokens_per_second: f64,
    /// Tokens of which the shared model has something.
    pub merged_tokens_per_second: f64,
    /// Bytes sent by a worker in an hour, on the average.
    pub sent_bytes_per_worker_hour: f64,
    /// Bytes received by a worker in an hour, on the average.
    pub received_bytes_per_worker_hour: f64,
    /// Exchanges of all workers: one for each worker that takes part in a round, one for each message between
    /// stages, one for each update that arrives in time.
    pub events_per_hour: f64,
    /// Share of the time up in which a worker does not compute: it waits, sends or receives.
    pub idle_share: f64,
    /// Of pipelines, the share of the time between merges in which a whole one is up.
    pub running_share: Option<f64>,
}
