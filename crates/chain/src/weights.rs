//! How rewards become chain weights.
//!
//! Chain weights are `u16` and only their ratios count. The largest reward becomes 65,535 and every
//! other one its rounded share of that, but never less than 1 while it is positive: a small miner
//! is not rounded away. Anything that is not a positive finite number is no reward.

/// One weight per reward, in the same order.
///
/// Only zeros come back when nothing was positive. Sending those would wipe the validator's vote,
/// which the client refuses ([`crate::Reject::AllZeroWeights`]).
#[must_use]
pub fn quantise(rewards: &[f64]) -> Vec<u16> {
    let is_reward = |reward: f64| reward.is_finite() && reward > 0.0;
    let largest = rewards
        .iter()
        .copied()
        .filter(|r| is_reward(*r))
        .fold(0.0, f64::max);
    rewards
        .iter()
        .map(|&reward| {
            if !is_reward(reward) {
                return 0;
            }
            // Divided first: the product could overflow, the quotient is at most 1.
            let scaled = (reward / largest * f64::from(u16::MAX)).round();
            scaled.clamp(1.0, f64::from(u16::MAX)) as u16
        })
        .collect()
}

/// Scales accepted weights so that the largest is 65,535, halves rounded up, as the chain stores them.
#[must_use]
pub(crate) fn upscale(weights: &[u16]) -> Vec<u16> {
    let largest = u64::from(weights.iter().copied().max().unwrap_or(0));
    if largest == 0 {
        return weights.to_vec();
    }
    let full = u64::from(u16::MAX);
    weights
        .iter()
        .map(|&weight| ((u64::from(weight) * full * 2 + largest) / (largest * 2)) as u16)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_largest_reward_is_full_and_the_smallest_is_still_seen() {
        assert_eq!(quantise(&[1.0, 2.0, 1e-300, 0.0]), [32_768, 65_535, 1, 0]);
        assert_eq!(quantise(&[f64::MAX, f64::MIN_POSITIVE]), [65_535, 1]);
    }

    #[test]
    fn what_is_no_reward_gets_no_weight_and_disturbs_nobody() {
        assert_eq!(
            quantise(&[f64::NAN, f64::INFINITY, -3.0, 5.0]),
            [0, 0, 0, 65_535]
        );
        assert_eq!(quantise(&[0.0, -1.0]), [0, 0]);
        assert!(quantise(&[]).is_empty());
    }

    #[test]
    fn the_chain_scales_one_and_two_as_the_real_runtime_does() {
        assert_eq!(upscale(&[1, 2]), [32_768, 65_535]);
        assert_eq!(upscale(&[0, 0]), [0, 0]);
    }

    proptest! {
        #[test]
        fn order_is_kept_and_positive_stays_positive(
            rewards in proptest::collection::vec(any::<f64>(), 0..40)
        ) {
            let weights = quantise(&rewards);
            prop_assert_eq!(weights.len(), rewards.len());
            let positive = |r: f64| r.is_finite() && r > 0.0;
            for (reward, weight) in rewards.iter().zip(&weights) {
                prop_assert_eq!(positive(*reward), *weight > 0);
                for (other, other_weight) in rewards.iter().zip(&weights) {
                    if positive(*reward) && positive(*other) && reward < other {
                        prop_assert!(weight <= other_weight);
                    }
                }
            }
            if rewards.iter().any(|r| positive(*r)) {
                prop_assert_eq!(weights.iter().max(), Some(&u16::MAX));
            }
        }

        #[test]
        fn scaling_twice_changes_nothing(weights in proptest::collection::vec(any::<u16>(), 0..40)) {
            let once = upscale(&weights);
            prop_assert_eq!(upscale(&once), once);
        }
    }
}
