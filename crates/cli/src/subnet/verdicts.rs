//! Which of a subnet's parameters do not suit the network, why, and what would.
//!
//! Inputs are the parameters at one block and what the network's rules demand. The numbers behind the
//! demands: the chain takes 31 small writes of a hotkey in an epoch, and a validator makes up to three
//! a cycle; weights are set every so many blocks by rule; a validator that sets none within the
//! activity cutoff counts as absent; a miner needs a few cycles before it can be judged.

use connito_chain::parameters::Parameter;
use connito_chain::subtensor::SubnetState;

/// Small writes of one hotkey that an epoch has room for: 3,100 bytes, of which each costs 100.
const WRITES_PER_EPOCH: u64 = 31;
/// Writes of a validator in a cycle whose reports are mirrored: report, attestation, vote.
const WRITES_PER_CYCLE: u64 = 3;
/// Cycles in which a new miner should be safe from being pruned: one to see how it is done, two to
/// earn.
const CYCLES_OF_IMMUNITY: u64 = 3;

/// What the network's rules demand of the chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demands {
    /// Blocks in one cycle.
    pub(super) cycle_blocks: u64,
    /// Blocks between two settings of weights.
    pub(super) weight_interval: u64,
}

/// What is thought of one parameter.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) parameter: &'static Parameter,
    pub(super) value: u64,
    /// Nothing if it suits.
    pub(super) problem: Option<Problem>,
}

/// Why a parameter does not suit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) why: String,
    /// A value that suits.
    pub(super) better: u64,
}

/// Judges every parameter that matters, in the order of names.
pub(super) fn judge(state: &SubnetState, demands: Demands) -> Vec<Verdict> {
    let params = &state.params;
    let factor = state.activity_factor_milli;
    let judged = [
        ("activity_cutoff_factor", factor, activity(state, demands)),
        (
            "commit_reveal_weights_interval",
            state.reveal_period,
            reveal_period(state),
        ),
        (
            "immunity_period",
            params.immunity_period.into(),
            immunity(params.immunity_period.into(), demands),
        ),
        (
            "serving_rate_limit",
            params.serving_rate_limit,
            serving(params.serving_rate_limit, demands),
        ),
        (
            "tempo",
            state.tempo.into(),
            tempo(state.tempo.into(), demands),
        ),
        (
            "weights_set_rate_limit",
            params.weights_rate_limit,
            weights_rate(params.weights_rate_limit, demands),
        ),
    ];
    let verdict = |(name, value, problem)| {
        let parameter = Parameter::named(name)?;
        Some(Verdict {
            parameter,
            value,
            problem,
        })
    };
    judged.into_iter().filter_map(verdict).collect()
}

fn problem(suits: bool, better: u64, why: impl FnOnce() -> String) -> Option<Problem> {
    (!suits).then(|| Problem { why: why(), better })
}

/// Three writes a cycle must fit an epoch, and an epoch must end at all.
fn tempo(tempo: u64, demands: Demands) -> Option<Problem> {
    let cycles_that_fit = WRITES_PER_EPOCH / WRITES_PER_CYCLE;
    let longest = demands.cycle_blocks.saturating_mul(cycles_that_fit);
    let cycles = tempo.div_ceil(demands.cycle_blocks.max(1));
    let writes = cycles * WRITES_PER_CYCLE;
    problem(
        (1..=longest).contains(&tempo),
        longest.min(u16::MAX.into()),
        || match tempo {
            0 => "no epoch ever ends, so nobody is paid and no room for commitments comes back"
                .to_owned(),
            _ => format!(
                "an epoch holds {cycles} cycles and up to {writes} writes of a validator, and the chain takes \
             {WRITES_PER_EPOCH}"
            ),
        },
    )
}

fn weights_rate(limit: u64, demands: Demands) -> Option<Problem> {
    let interval = demands.weight_interval;
    problem(limit <= interval, interval, || {
        format!(
            "weights are set every {interval} blocks, and the chain refuses them until {limit} have passed"
        )
    })
}

fn reveal_period(state: &SubnetState) -> Option<Problem> {
    let period = state.reveal_period;
    problem(!state.params.commit_reveal || period <= 1, 1, || {
        format!("sealed weights count {period} epochs after they were set")
    })
}

fn immunity(period: u64, demands: Demands) -> Option<Problem> {
    let least = demands.cycle_blocks.saturating_mul(CYCLES_OF_IMMUNITY);
    problem(period >= least, least.min(u16::MAX.into()), || {
        format!(
            "a new miner can be pruned before {CYCLES_OF_IMMUNITY} cycles of {} blocks have shown what it can do",
            demands.cycle_blocks
        )
    })
}

fn activity(state: &SubnetState, demands: Demands) -> Option<Problem> {
    let tempo = u64::from(state.tempo.max(1));
    let least = demands.weight_interval.saturating_mul(2);
    let better = least.saturating_mul(1_000).div_ceil(tempo);
    problem(state.params.activity_cutoff >= least, better, || {
        format!(
            "a validator counts as absent after {} blocks, and sets weights every {}",
            state.params.activity_cutoff, demands.weight_interval
        )
    })
}

fn serving(limit: u64, demands: Demands) -> Option<Problem> {
    let cycle = demands.cycle_blocks.max(50);
    problem(limit <= cycle, cycle, || {
        format!("a validator that moves is not found for {limit} blocks, longer than a cycle")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NINE_MINUTES: Demands = Demands {
        cycle_blocks: 45,
        weight_interval: 100,
    };

    #[test]
    fn an_epoch_of_ten_cycles_has_room_for_three_writes_each_and_a_longer_one_has_not() {
        assert_eq!(tempo(360, NINE_MINUTES), None);
        assert_eq!(tempo(450, NINE_MINUTES), None);
        let long = tempo(451, NINE_MINUTES).unwrap();
        assert_eq!(long.better, 450);
        assert_eq!(
            long.why,
            "an epoch holds 11 cycles and up to 33 writes of a validator, and the chain takes 31"
        );
        assert!(tempo(0, NINE_MINUTES).is_some());
    }

    #[test]
    fn what_is_proposed_suits() {
        for cycle_blocks in [1, 45, 300, 7_200] {
            let demands = Demands {
                cycle_blocks,
                ..NINE_MINUTES
            };
            for given in [0, 1, 99, 5_000, 50_400] {
                for judge in [tempo, weights_rate, immunity, serving] {
                    if let Some(problem) = judge(given, demands) {
                        assert_eq!(judge(problem.better, demands), None, "{given} {demands:?}");
                    }
                }
            }
        }
    }
}
