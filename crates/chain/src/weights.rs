//! How rewards become chain weights.
//!
//! Chain weights are `u16` and only their ratios count. The largest reward becomes 65,535 and the
//! others are apportioned by largest remainder: each gets the whole part of its exact share, and what
//! is left of the sum goes, one each, to the largest fractions. So no share is off by a whole unit, and
//! the sum of all by less than half a one: what is withheld keeps its part of the whole. A reward below
//! one unit gets one: a small miner is not rounded away. Anything that is not a positive finite number
//! is no reward.

/// One weight per reward, in the same order.
///
/// Only zeros come back when nothing was positive. Sending those would wipe the validator's vote,
/// which the client refuses ([`crate::Reject::AllZeroWeights`]).
#[must_use]
pub fn quantise(rewards: &[f64]) -> Vec<u16> {
    let is_reward = |reward: &f64| reward.is_finite() && *reward > 0.0;
    let largest = rewards
        .iter()
        .copied()
        .filter(is_reward)
        .fold(0.0, f64::max);
    let full = f64::from(u16::MAX);
    // Divided first: the product could overflow, the quotient is at most 1.
    let exact: Vec<f64> = rewards
        .iter()
        .map(|reward| {
            if is_reward(reward) {
                reward / largest * full
            } else {
                0.0
            }
        })
        .collect();
    let mut weights: Vec<u16> = rewards
        .iter()
        .zip(&exact)
        .map(|(reward, exact)| match is_reward(reward) {
            true => exact.floor().clamp(1.0, full) as u16,
            false => 0,
        })
        .collect();
    let apportioned: Vec<usize> = (0..exact.len())
        .filter(|place| exact[*place] >= 1.0)
        .collect();
    let fraction = |place: &usize| exact[*place].fract();
    let left = apportioned.iter().map(fraction).sum::<f64>().round() as usize;
    let mut by_fraction = apportioned;
    by_fraction.sort_by(|a, b| {
        let larger = fraction(b).total_cmp(&fraction(a));
        larger
            .then(rewards[*b].total_cmp(&rewards[*a]))
            .then(a.cmp(b))
    });
    for place in by_fraction.into_iter().take(left) {
        weights[place] = weights[place].saturating_add(1);
    }
    weights
}

/// Scales accepted weights so that the largest is 65,535, halves rounded up, as the chain stores them.
#[must_use]
pub fn upscale(weights: &[u16]) -> Vec<u16> {
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
        assert_eq!(quantise(&[1.0, 65_535.0]), [1, 65_535]);
        assert_eq!(quantise(&[f64::MAX, f64::MIN_POSITIVE]), [65_535, 1]);
    }

    /// Two exact shares of 32,767.5 sum to a whole number, which is what they get between them.
    #[test]
    fn halves_are_not_all_rounded_up() {
        assert_eq!(quantise(&[1.0, 1.0, 2.0]), [32_768, 32_767, 65_535]);
        assert_eq!(
            quantise(&[1.0, 1.0, 1.0, 3.0]),
            [21_845, 21_845, 21_845, 65_535]
        );
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

        /// Rewards within four orders of magnitude, as those of one subnet are: no weight is a unit off,
        /// and neither is their sum.
        #[test]
        fn no_weight_and_not_even_their_sum_is_a_unit_off(
            rewards in proptest::collection::vec(1e-4..1.0_f64, 1..400)
        ) {
            let weights = quantise(&rewards);
            let largest = rewards.iter().copied().fold(0.0, f64::max);
            let exact: Vec<f64> = rewards.iter().map(|r| r / largest * 65_535.0).collect();
            for (weight, exact) in weights.iter().zip(&exact) {
                prop_assert!((f64::from(*weight) - exact).abs() < 1.0);
            }
            let sum: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            prop_assert!((sum - exact.iter().sum::<f64>()).abs() <= 0.5 + 1e-6);
        }

        #[test]
        fn scaling_twice_changes_nothing(weights in proptest::collection::vec(any::<u16>(), 0..40)) {
            let once = upscale(&weights);
            prop_assert_eq!(upscale(&once), once);
        }
    }
}
