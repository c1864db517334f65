//! The network that all strategies are played on: links, rates and outages of its workers.
//!
//! A worker is one machine with a link to the internet and a rate of computing. Rates differ between workers,
//! uniformly around the mean; the internet between them is wide, so that only their own links are narrow. Knows
//! nothing of what is computed or sent.

use super::Conditions;
use super::timeline::{Draws, Purpose, Timeline};

/// What all workers have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NetworkModel {
    /// How many workers there are, those that are down included.
    pub workers: usize,
    /// Mean rate of a worker's link towards the internet.
    pub up_bits_per_second: f64,
    /// Mean rate of a worker's link from the internet.
    pub down_bits_per_second: f64,
    /// Time from one worker to another, or to a store, in one direction.
    pub latency_seconds: f64,
    /// Mean rate at which a worker trains, in floating-point operations that the model asks for.
    pub flop_per_second: f64,
    /// How far rates lie from their mean at most, as a share of it; below 1.
    pub spread: f64,
    /// Mean length of an outage.
    pub outage_seconds: f64,
}

/// A quantity that nothing can be played with.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{quantity} is {value}, must be from {least} to {most}")]
pub struct NetworkError {
    /// The field at fault.
    pub quantity: &'static str,
    /// Its value.
    pub value: f64,
    /// Smallest accepted.
    pub least: f64,
    /// Largest accepted.
    pub most: f64,
}

impl NetworkModel {
    /// Refuses what means nothing, and what would take forever to play.
    pub(super) fn check(&self, conditions: Conditions) -> Result<(), NetworkError> {
        let rates = (1e3, 1e15);
        for (quantity, value, (least, most)) in [
            ("workers", self.workers as f64, (2.0, 4096.0)),
            ("up_bits_per_second", self.up_bits_per_second, rates),
            ("down_bits_per_second", self.down_bits_per_second, rates),
            ("latency_seconds", self.latency_seconds, (0.0, 60.0)),
            ("flop_per_second", self.flop_per_second, (1e6, 1e21)),
            ("spread", self.spread, (0.0, 0.9)),
            ("outage_seconds", self.outage_seconds, (60.0, 864_000.0)),
            ("failing", conditions.failing, (0.0, 0.9)),
            ("hours", conditions.hours, (0.01, 720.0)),
        ] {
            if !(least..=most).contains(&value) {
                return Err(NetworkError {
                    quantity,
                    value,
                    least,
                    most,
                });
            }
        }
        Ok(())
    }
}

/// One worker.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) up_bits_per_second: f64,
    pub(super) down_bits_per_second: f64,
    pub(super) flop_per_second: f64,
    pub(super) timeline: Timeline,
}

impl Worker {
    /// Seconds that sending so many bytes occupies the link.
    pub(super) fn sending(&self, bytes: f64) -> f64 {
        bytes * 8.0 / self.up_bits_per_second
    }

    /// Seconds that receiving so many bytes occupies the link.
    pub(super) fn receiving(&self, bytes: f64) -> f64 {
        bytes * 8.0 / self.down_bits_per_second
    }
}

/// All workers of a network.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) workers: Vec<Worker>,
    pub(super) latency_seconds: f64,
}

impl Cluster {
    /// Draws a network's workers.
    pub(super) fn new(network: &NetworkModel, conditions: Conditions) -> Self {
        let worker = |index| {
            let mut rates = Draws::new(conditions.seed, index, Purpose::Rates);
            let mut about = |mean: f64| mean * (1.0 + network.spread * (2.0 * rates.unit() - 1.0));
            let outages = Draws::new(conditions.seed, index, Purpose::Outages);
            Worker {
                up_bits_per_second: about(network.up_bits_per_second),
                down_bits_per_second: about(network.down_bits_per_second),
                flop_per_second: about(network.flop_per_second),
                timeline: Timeline::new(outages, conditions.failing, network.outage_seconds),
            }
        };
        Self {
            workers: (0..network.workers).map(worker).collect(),
            latency_seconds: network.latency_seconds,
        }
    }

    /// Seconds that a ring all-reduce of so many bytes takes these workers: 2(k−1) hops of a k-th part each, at
    /// the pace of the slowest link.
    pub(super) fn ring_seconds(&self, members: &[usize], bytes: f64) -> f64 {
        let links = members.iter().map(|index| &self.workers[*index]);
        let slowest = links
            .map(|worker| worker.up_bits_per_second.min(worker.down_bits_per_second))
            .fold(f64::INFINITY, f64::min);
        let hops = 2.0 * members.len().saturating_sub(1) as f64;
        let part = bytes / members.len().max(1) as f64;
        hops * (part * 8.0 / slowest + self.latency_seconds)
    }
}
