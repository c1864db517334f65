//! The figures of a run, and what should hold of them.

use std::time::Duration;

use serde::Serialize;

use crate::health::Latencies;
use crate::miners::Sent;
use crate::{Options, Outcome};

/// The most memory that the load may add to the validator at rest.
const MEMORY_BYTES: u64 = 512 << 20;
/// Within this, 99 of 100 health requests are answered.
const HEALTH: Duration = Duration::from_millis(100);
/// Within this a client below the floor is gone: two windows of 10 s, and some.
const EVICTION: Duration = Duration::from_secs(25);

/// The figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    miners: usize,
    bytes: u64,
    accepted: usize,
    lost: usize,
    /// Answers that said to come back.
    busy_answers: u32,
    /// The most of them that one miner had.
    most_busy_answers: u32,
    broken_connections: u32,
    refused: usize,
    wall_seconds: f64,
    megabytes_per_second: f64,
    /// When half and when the last of the accepted ones were in.
    half_accepted_seconds: f64,
    last_accepted_seconds: f64,
    memory_at_rest_mib: u64,
    peak_memory_above_rest_mib: u64,
    health_requests: usize,
    health_failures: usize,
    health_p50_ms: f64,
    health_p99_ms: f64,
    health_max_ms: f64,
    slow_clients: usize,
    slow_clients_evicted: usize,
    slowest_eviction_seconds: f64,
}

/// What was measured beside the uploads.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) wall: Duration,
    pub(crate) at_rest: u64,
    pub(crate) peak: u64,
    pub(crate) latencies: Latencies,
    /// For each client below the floor, after how long it was cut off.
    pub(crate) evictions: Vec<Duration>,
    pub(crate) lost: usize,
}

impl Report {
    pub(crate) fn new(options: &Options, sent: &[Sent], measured: &Measured) -> Self {
        let mut times: Vec<Duration> = sent
            .iter()
            .filter(|sent| sent.accepted)
            .map(|sent| sent.after)
            .collect();
        times.sort_unstable();
        let at = |place: usize| times.get(place).map_or(0.0, Duration::as_secs_f64);
        let milliseconds = |share| measured.latencies.quantile(share).as_secs_f64() * 1e3;
        let evicted = measured.evictions.iter().filter(|time| **time < EVICTION);
        let slowest = measured.evictions.iter().max();
        let wall_seconds = measured.wall.as_secs_f64();
        Self {
            miners: sent.len(),
            bytes: options.bytes,
            accepted: times.len(),
            lost: measured.lost,
            busy_answers: sent.iter().map(|sent| sent.busy).sum(),
            most_busy_answers: sent.iter().map(|sent| sent.busy).max().unwrap_or(0),
            broken_connections: sent.iter().map(|sent| sent.broken).sum(),
            refused: sent.iter().filter(|sent| sent.refused.is_some()).count(),
            wall_seconds,
            megabytes_per_second: times.len() as f64 * options.bytes as f64 / 1e6 / wall_seconds,
            half_accepted_seconds: at(times.len() / 2),
            last_accepted_seconds: at(times.len().saturating_sub(1)),
            memory_at_rest_mib: measured.at_rest >> 20,
            peak_memory_above_rest_mib: measured.peak.saturating_sub(measured.at_rest) >> 20,
            health_requests: measured.latencies.count(),
            health_failures: measured.latencies.failed,
            health_p50_ms: milliseconds(0.5),
            health_p99_ms: milliseconds(0.99),
            health_max_ms: milliseconds(1.0),
            slow_clients: measured.evictions.len(),
            slow_clients_evicted: evicted.count(),
            slowest_eviction_seconds: slowest.map_or(0.0, Duration::as_secs_f64),
        }
    }

    /// What does not hold, in words.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut check = |holds: bool, what: String| {
            if !holds {
                failures.push(what);
            }
        };
        check(
            self.accepted == self.miners,
            format!("{} of {} uploads accepted", self.accepted, self.miners),
        );
        check(
            self.lost == 0,
            format!("{} accepted uploads lost", self.lost),
        );
        check(
            self.peak_memory_above_rest_mib <= MEMORY_BYTES >> 20,
            format!("{} MiB above rest", self.peak_memory_above_rest_mib),
        );
        check(
            self.health_p99_ms < HEALTH.as_secs_f64() * 1e3,
            format!("health takes {:.1} ms at p99", self.health_p99_ms),
        );
        check(
            self.slow_clients_evicted == self.slow_clients,
            format!(
                "{} of {} slow clients evicted",
                self.slow_clients_evicted, self.slow_clients
            ),
        );
        failures
    }

    pub(crate) fn json(&self) -> Outcome<String> {
        Ok(serde_json::to_string(self)?)
    }

    pub(crate) fn text(&self) -> String {
        format!(
            "uploads   {} of {} accepted, {} lost after kill -9, {} refused\n\
             waiting   {} answers to come back, at most {} of one miner; {} broken connections\n\
             time      {:.1} s, {:.0} MB/s; half in after {:.1} s, the last after {:.1} s\n\
             memory    {} MiB at rest, at most {} MiB more\n\
             health    {} requests, {} unanswered; p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms\n\
             slow      {} of {} evicted, the last after {:.1} s",
            self.accepted,
            self.miners,
            self.lost,
            self.refused,
            self.busy_answers,
            self.most_busy_answers,
            self.broken_connections,
            self.wall_seconds,
            self.megabytes_per_second,
            self.half_accepted_seconds,
            self.last_accepted_seconds,
            self.memory_at_rest_mib,
            self.peak_memory_above_rest_mib,
            self.health_requests,
            self.health_failures,
            self.health_p50_ms,
            self.health_p99_ms,
            self.health_max_ms,
            self.slow_clients_evicted,
            self.slow_clients,
            self.slowest_eviction_seconds,
        )
    }
}
