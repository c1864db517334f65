//! One step of one pipeline, micro-batch by micro-batch: all forward, then all backward (GPipe, arXiv 1811.06965).
//!
//! ```text
//! stage 0  ▸0 ▸1 ▸2 ▸3 . . . . . . . ◂0 ◂1 ◂2 ◂3
//! stage 1     ▸0 ▸1 ▸2 ▸3 . . . . ◂0 ◂1 ◂2 ◂3
//! stage 2        ▸0 ▸1 ▸2 ▸3 . ◂0 ◂1 ◂2 ◂3        the dots are the bubble
//! ```
//!
//! A stage computes one micro-batch at a time and its link sends one message at a time; both go on while the next
//! micro-batch is computed. One-forward-one-backward has the same bubble and needs less memory, so that the length
//! of a step is the same.

/// How long a stage is busy with one micro-batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StageSeconds {
    pub(super) forward: f64,
    pub(super) backward: f64,
    /// Sending activations to the next stage.
    pub(super) send_forward: f64,
    /// Sending gradients to the stage before.
    pub(super) send_backward: f64,
}

/// Seconds from the first forward pass to the last backward pass.
pub(super) fn step_seconds(
    stages: &[StageSeconds],
    micro_batches: u32,
    latency_seconds: f64,
) -> f64 {
    let forward = stages
        .iter()
        .map(|stage| (stage.forward, stage.send_forward));
    let backward = stages.iter().rev();
    let backward = backward.map(|stage| (stage.backward, stage.send_backward));
    // No gradient exists before the last stage has seen every micro-batch.
    sweep(forward, micro_batches, latency_seconds) + sweep(backward, micro_batches, latency_seconds)
}

/// All micro-batches through all stages in one direction.
fn sweep(
    stages: impl Iterator<Item = (f64, f64)>,
    micro_batches: u32,
    latency_seconds: f64,
) -> f64 {
    // When each micro-batch is there; all are at the first stage from the beginning.
    let mut arrivals = vec![0.0_f64; micro_batches as usize];
    let mut last = 0.0;
    for (computing, sending) in stages {
        let (mut stage_free, mut link_free) = (0.0_f64, 0.0_f64);
        for arrival in &mut arrivals {
            stage_free = stage_free.max(*arrival) + computing;
            link_free = link_free.max(stage_free) + sending;
            *arrival = link_free + latency_seconds;
        }
        last = stage_free;
    }
    last
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::formulas::bubble_share;
    use super::*;

    fn even(forward: f64, backward: f64, sending: f64) -> StageSeconds {
        StageSeconds {
            forward,
            backward,
            send_forward: sending,
            send_backward: sending,
        }
    }

    proptest! {
        /// Without anything to send, the time that is not computing is the bubble of the formula.
        #[test]
        fn the_bubble_is_that_of_the_formula(
            stages in 1..12_u32, micro_batches in 1..100_u32, forward in 0.01..10.0, backward in 0.01..20.0,
        ) {
            let pipeline = vec![even(forward, backward, 0.0); stages as usize];
            let busy = f64::from(micro_batches) * (forward + backward);
            let idle = 1.0 - busy / step_seconds(&pipeline, micro_batches, 0.0);
            prop_assert!((idle - bubble_share(stages, micro_batches)).abs() < 1e-9);
        }
    }

    /// Four stages of ten seconds: three links of 50 ms add 0.37 %, of 500 ms 3.6 %, while three quarters of
    /// the time are bubble at any latency, for one micro-batch.
    #[test]
    fn at_slow_stages_the_bubble_matters_and_the_latency_does_not() {
        let pipeline = [even(10.0, 0.0, 0.0); 4];
        let ways = |latency: f64| {
            // Forward alone, which is what the example counts.
            let whole = sweep(pipeline.iter().map(|s| (s.forward, 0.0)), 1, latency);
            (whole, 1.0 - 40.0 / whole)
        };
        let [(short, short_share), (long, long_share)] = [0.05, 0.5].map(ways);
        assert!((short - 40.15).abs() < 1e-9 && (short_share - 0.0037).abs() < 1e-4);
        assert!((long - 41.5).abs() < 1e-9 && (long_share - 0.036).abs() < 2e-4);
        let idle = 1.0 - 10.0 / step_seconds(&pipeline, 1, 0.0);
        assert!((idle - 0.75).abs() < 1e-9);
    }

    /// A link that is slower than its stage sets the pace: m messages follow each other.
    #[test]
    fn a_narrow_link_sets_the_pace() {
        let pipeline = [even(1.0, 1.0, 13.0); 4];
        let long = step_seconds(&pipeline, 64, 0.05);
        let least = 2.0 * 64.0 * 13.0;
        assert!(long > least && long < 1.1 * least, "{long}");
    }
}
