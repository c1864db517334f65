//! What can be said of the strategies without playing them.
//!
//! Symbols as they are usually written: n workers, P parameters, s steps per hour, C cycles per hour, m
//! micro-batches, p stages, r replicas of a stage, q the share of time that a worker is up. All bytes are those of
//! one worker and one event. Tests hold plays without spread and outages against these.

/// Values of which SparseLoCo keeps some together.
const CHUNK: f64 = 4096.0;

/// Values kept of a chunk: 1.56 %.
const KEPT: f64 = 64.0;

/// Bits of a kept value: a 12-bit place and a 2-bit value.
const KEPT_BITS: f64 = 14.0;

/// Bytes that one worker sends in a ring all-reduce of `bytes`: 2·(n−1)/n of them. It receives as many.
#[must_use]
pub fn ring_bytes(workers: usize, bytes: f64) -> f64 {
    2.0 * workers.saturating_sub(1) as f64 / workers.max(1) as f64 * bytes
}

/// Bytes of an update of so many values, 64 of every 4,096 kept at 14 bit (arXiv 2508.15706), with so many bytes
/// of scale for each 4,096.
#[must_use]
pub fn sparse_bytes(values: u64, scale_bytes: u32) -> f64 {
    values as f64 / CHUNK * (KEPT * KEPT_BITS / 8.0 + f64::from(scale_bytes))
}

/// Seconds that `bytes` take on a link.
#[must_use]
pub fn transfer_seconds(bytes: f64, bits_per_second: f64) -> f64 {
    bytes * 8.0 / bits_per_second
}

/// Events per hour of data parallelism that exchanges every `steps_per_exchange` steps: n·s/H.
#[must_use]
pub fn data_parallel_events(workers: usize, steps_per_hour: f64, steps_per_exchange: u32) -> f64 {
    workers as f64 * steps_per_hour / f64::from(steps_per_exchange)
}

/// Events per hour of expert parallelism: n·C.
#[must_use]
pub fn expert_parallel_events(workers: usize, cycle_seconds: f64) -> f64 {
    workers as f64 * 3600.0 / cycle_seconds
}

/// Messages of one step of one pipeline: forward and backward, each micro-batch, each boundary.
#[must_use]
pub fn pipeline_messages(stages: u32, micro_batches: u32) -> f64 {
    2.0 * f64::from(stages.saturating_sub(1)) * f64::from(micro_batches)
}

/// Share of a step in which a stage of a pipeline waits even if nothing has to be sent: (p−1)/(m+p−1).
#[must_use]
pub fn bubble_share(stages: u32, micro_batches: u32) -> f64 {
    let filling = f64::from(stages.saturating_sub(1));
    filling / (f64::from(micro_batches) + filling)
}

/// Share of the time in which every stage has a worker that is up: (1−(1−q)^r)^p.
#[must_use]
pub fn pipeline_availability(up_share: f64, stages: u32, replicas: u32) -> f64 {
    let stage = 1.0 - (1.0 - up_share).powf(f64::from(replicas));
    stage.powf(f64::from(stages))
}

/// Share of the time that is not computing where computing and synchronising take turns.
#[must_use]
pub fn synchronising_share(computing_seconds: f64, synchronising_seconds: f64) -> f64 {
    synchronising_seconds / (computing_seconds + synchronising_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64) {
        let off = (value / expected - 1.0).abs();
        assert!(off < 0.005, "{value} instead of {expected}");
    }

    /// 256 workers, 100 steps a minute, links of 20 Mbit/s: worked out by hand.
    #[test]
    fn the_worked_table_is_reproduced() {
        let home = |bytes| transfer_seconds(bytes, 20e6);
        let dense = 70_000_000_000;

        close(data_parallel_events(256, 6000.0, 1), 1_536_000.0);
        close(ring_bytes(256, 2.0 * dense as f64), 278.9e9);
        close(home(ring_bytes(256, 2.0 * dense as f64)), 31.0 * 3600.0);

        close(data_parallel_events(256, 6000.0, 30), 51_200.0);
        close(sparse_bytes(dense, 0), 1.914e9);
        close(home(sparse_bytes(dense, 0)), 12.76 * 60.0);

        close(2.0 * 2048.0 * 8192.0, 33.55e6);
        close(home(2.0 * 2048.0 * 8192.0), 13.42);

        close(expert_parallel_events(256, 540.0), 1706.7);
        close(sparse_bytes(1_799_356_416, 0), 49.2e6);
        close(home(sparse_bytes(1_799_356_416, 0)), 19.68);
        close(sparse_bytes(1_799_356_416, 2), 50_079_744.0);
        close(sparse_bytes(3_623_878_656, 0), 99.1e6);
    }

    #[test]
    fn bubbles_and_availabilities_are_those_of_the_table() {
        for (micro_batches, share) in [(1, 0.75), (4, 0.429), (8, 0.273), (16, 0.158), (64, 0.0448)]
        {
            close(bubble_share(4, micro_batches), share);
        }
        for (up, stages, replicas, share) in [
            (0.99, 4, 1, 0.961),
            (0.99, 8, 1, 0.923),
            (0.95, 4, 1, 0.815),
            (0.95, 8, 1, 0.663),
            (0.90, 4, 1, 0.656),
            (0.90, 8, 1, 0.430),
            (0.99, 4, 2, 0.9996),
            (0.95, 4, 2, 0.990),
            (0.90, 4, 2, 0.961),
        ] {
            close(pipeline_availability(up, stages, replicas), share);
        }
    }

    /// Templar's update of a 72B model, as its paper gives it (arXiv 2603.08163).
    #[test]
    fn a_published_update_has_its_published_size() {
        close(sparse_bytes(72_000_000_000, 0), 1.97e9);
    }
}
