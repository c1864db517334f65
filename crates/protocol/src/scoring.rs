//! Proof-of-Loss: from losses per sequence to a utility, and from a utility to a verdict (P-21, P-22).
//!
//! `u = L(Φ; D) − L(Φ+Δ; D)` over the same sequences, weighted by their tokens. The difference is
//! taken sequence by sequence, so most of the spread between easy and hard texts cancels and what is
//! left gives the standard error. Inputs are losses; nothing here knows how they were computed.

use serde::{Deserialize, Serialize};

use crate::reason::ReasonCode;
use crate::report::Measurement;

/// The loss of one sequence: summed over its predicted tokens, in nats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SequenceLoss {
    /// Sum of the cross-entropies.
    pub sum: f64,
    /// Number of predicted tokens; fixed by the data before any update is read.
    pub tokens: u64,
}

/// Mean loss a token over all sequences; `None` without a token or with a loss that is not finite.
#[must_use]
pub fn mean_loss(losses: &[SequenceLoss]) -> Option<f64> {
    let tokens: u64 = losses.iter().map(|loss| loss.tokens).sum();
    let sum: f64 = losses.iter().map(|loss| loss.sum).sum();
    let mean = sum / tokens as f64;
    mean.is_finite().then_some(mean)
}

/// The utility of an update and its standard error.
///
/// With `d` the difference per token in a sequence, `n` its tokens and `N = Σn`:
/// `u = Σ n·d / N` and `SE² = S/(S−1) · Σ n²(d−u)² / N²` over `S` sequences.
///
/// # Errors
/// A loss after the update that is not finite is the update's fault; before it, or on other sequences,
/// nobody can be judged. Neither leaves the divisor.
pub fn utility(before: &[SequenceLoss], after: &[SequenceLoss]) -> Result<Measurement, Unmeasured> {
    let same_tokens = before
        .iter()
        .map(|loss| loss.tokens)
        .eq(after.iter().map(|loss| loss.tokens));
    if !same_tokens || before.len() < 2 || mean_loss(before).is_none() {
        return Err(Unmeasured::NoBaseline);
    }
    if after.iter().any(|loss| !loss.sum.is_finite()) {
        return Err(Unmeasured::NonFiniteLoss);
    }
    let total: f64 = before.iter().map(|loss| loss.tokens as f64).sum();
    let gains: Vec<f64> = before
        .iter()
        .zip(after)
        .map(|(b, a)| b.sum - a.sum)
        .collect();
    let utility = gains.iter().sum::<f64>() / total;
    let spread: f64 = before
        .iter()
        .zip(&gains)
        .map(|(loss, gain)| (gain - utility * loss.tokens as f64).powi(2))
        .sum();
    let count = before.len() as f64;
    let standard_error = (count / (count - 1.0) * spread).sqrt() / total;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a report carries f32; the range is checked on the next line"
    )]
    let measurement = Measurement {
        utility: utility as f32,
        standard_error: standard_error as f32,
    };
    let finite = measurement.utility.is_finite() && measurement.standard_error.is_finite();
    finite
        .then_some(measurement)
        .ok_or(Unmeasured::NonFiniteLoss)
}

/// Why there is no utility.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmeasured {
    /// The state's own loss could not be measured: nobody is charged.
    NoBaseline,
    /// Under the update, some sequence's loss is not finite: the worst loss there is.
    NonFiniteLoss,
}

/// What a measured utility is worth (P-22).
#[must_use]
pub fn judge(measurement: Measurement, significance: f64) -> ReasonCode {
    let gain = measurement.significant_gain(significance);
    let best_case =
        f64::from(measurement.utility) + significance * f64::from(measurement.standard_error);
    if gain > 0.0 {
        ReasonCode::Accepted
    } else if best_case < 0.0 {
        ReasonCode::Harmful
    } else {
        ReasonCode::NoGain
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn losses(values: &[(f64, u64)]) -> Vec<SequenceLoss> {
        values
            .iter()
            .map(|&(sum, tokens)| SequenceLoss { sum, tokens })
            .collect()
    }

    /// By hand: gains 2 and 1 over 10 tokens each, so u = 0.15; deviations ±0.5, so
    /// SE = √(2/1 · 0.5) / 20 = 0.05.
    #[test]
    fn the_utility_of_two_sequences_agrees_with_the_hand_computed_one() {
        let before = losses(&[(30.0, 10), (20.0, 10)]);
        let after = losses(&[(28.0, 10), (19.0, 10)]);
        let measured = utility(&before, &after).unwrap();
        assert!((measured.utility - 0.15).abs() < 1e-6);
        assert!((measured.standard_error - 0.05).abs() < 1e-6);
        assert_eq!(judge(measured, 1.0), ReasonCode::Accepted);
        assert_eq!(judge(measured, 4.0), ReasonCode::NoGain);
    }

    /// Named after the incident in which batches with a loss that was not a number fell out of the
    /// divisor and the remaining ones won.
    #[test]
    fn hard_batches_that_overflow_do_not_leave_the_divisor() {
        let before = losses(&[(10.0, 10), (90.0, 10)]);
        let after = losses(&[(1.0, 10), (f64::NAN, 10)]);
        assert_eq!(utility(&before, &after), Err(Unmeasured::NonFiniteLoss));
        assert_eq!(
            utility(&after, &before),
            Err(Unmeasured::NoBaseline),
            "without a base loss nobody is charged"
        );
        let fewer = losses(&[(10.0, 10), (90.0, 9)]);
        assert_eq!(
            utility(&before, &fewer),
            Err(Unmeasured::NoBaseline),
            "another draw"
        );
    }

    /// A number from 0 to 1, not 0.
    fn uniform(index: u64) -> f64 {
        let hash = blake3::hash(&index.to_le_bytes());
        let bytes = hash.as_bytes().first_chunk().copied().unwrap_or_default();
        (u64::from_le_bytes(bytes) >> 12 | 1) as f64 / (1_u64 << 52) as f64
    }

    /// of updates that are worth nothing on average, whose effects have the heavy tails that
    /// real ones have, the rule lets through about what a normal distribution would, and pays them less.
    #[test]
    fn updates_that_are_worth_nothing_are_seldom_accepted_and_earn_little() {
        const NULLS: u64 = 3_000;
        const SEQUENCES: u64 = 32;
        let judged = |null: u64| {
            let draws = (0..SEQUENCES).map(|sequence| {
                let draw = null << 8 | sequence;
                // A Laplace distribution: many sequences hardly change, a few do much.
                let size = -uniform(draw).ln();
                let change = if uniform(draw | 1 << 40) < 0.5 {
                    size
                } else {
                    -size
                };
                let tokens = 40 + sequence * 3;
                (tokens, 3.0 * tokens as f64, change)
            });
            let (before, after): (Vec<_>, Vec<_>) = draws
                .map(|(tokens, sum, change)| ((sum, tokens), (sum - change, tokens)))
                .unzip();
            utility(&losses(&before), &losses(&after)).unwrap()
        };
        let measured: Vec<Measurement> = (0..NULLS).map(judged).collect();
        for (z, accepted, paid) in [(0.0, 0.5, 0.42), (1.0, 0.17, 0.09), (2.0, 0.025, 0.011)] {
            let passed = measured
                .iter()
                .filter(|m| judge(**m, z) == ReasonCode::Accepted)
                .count();
            let share = passed as f64 / NULLS as f64;
            assert!(
                (share - accepted).abs() < 0.3 * accepted,
                "z = {z}: {share}"
            );
            let in_errors =
                |m: &Measurement| m.significant_gain(z).max(0.0) / f64::from(m.standard_error);
            let weight = measured.iter().map(in_errors).sum::<f64>() / NULLS as f64;
            assert!(weight < 1.3 * paid, "z = {z}: {weight}");
        }
    }

    proptest! {
        /// What is gained one way is lost the other way, with the same error.
        #[test]
        fn undoing_an_update_has_the_opposite_utility(
            values in proptest::collection::vec((0.1..100.0_f64, 0.1..100.0_f64, 1..200_u64), 2..40),
        ) {
            let before: Vec<_> = values.iter().map(|v| SequenceLoss { sum: v.0, tokens: v.2 }).collect();
            let after: Vec<_> = values.iter().map(|v| SequenceLoss { sum: v.1, tokens: v.2 }).collect();
            let (there, back) = (utility(&before, &after).unwrap(), utility(&after, &before).unwrap());
            prop_assert!((there.utility + back.utility).abs() < 1e-4);
            prop_assert!((there.standard_error - back.standard_error).abs() < 1e-4);
        }
    }
}
