//! What the chain would say, computed before anything is signed.
//!
//! Inputs are the operation, its signer and what was read at one block; the question is whether the
//! *next* block would take it. Only certain rejections are returned: where an epoch ends in
//! between, or the state does not tell, the chain decides. The same figures complete a
//! rejection that came back as a bare name. Two guards are ours alone: weights that are all zero
//! would be stored and wipe the validator's vote, and oversized fields make the real runtime trap.

use std::collections::BTreeSet;

use connito_protocol::ids::{Block, Hotkey, Uid};

use crate::chain::{Metagraph, Neuron};
use crate::error::Reject;
use crate::fields;
use crate::operation::{MAX_WEIGHTS, Op};

/// What a writer knows when it decides.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The block that would include the operation.
    pub(super) next: Block,
    pub(super) metagraph: Metagraph,
    /// Commitment bytes the signer has written in the current epoch.
    pub(super) used_space: u64,
}

/// What is wrong with the operation whatever the chain's state.
pub(super) fn check_alone(op: &Op) -> Result<(), Reject> {
    match op {
        Op::Commit(record) => fields::check(record).map_err(|_| Reject::TooLarge),
        Op::Serve(endpoint) if endpoint.port == 0 => Err(Reject::InvalidEndpoint),
        Op::SetWeights { weights, .. } => {
            let distinct: BTreeSet<_> = weights.iter().map(|(uid, _)| uid).collect();
            if weights.len() > MAX_WEIGHTS || distinct.len() < weights.len() {
                return Err(Reject::BadUids);
            }
            if weights.iter().all(|(_, weight)| *weight == 0) {
                return Err(Reject::AllZeroWeights);
            }
            Ok(())
        }
        Op::Register { .. }
        | Op::Serve(_)
        | Op::Transfer { .. }
        | Op::AddStake { .. }
        | Op::SetParameter { .. } => Ok(()),
    }
}

/// What the next block would certainly reject.
pub(super) fn check(op: &Op, signer: Hotkey, facts: &Facts) -> Result<(), Reject> {
    let neuron = facts.metagraph.neuron(signer);
    match op {
        Op::Register {
            hotkey,
            max_burn_rao,
        } => {
            let price = facts.metagraph.params.burn_rao;
            if facts.metagraph.neuron(*hotkey).is_some() {
                return Err(Reject::AlreadyRegistered);
            }
            if max_burn_rao.is_some_and(|limit| price > limit) {
                return Err(Reject::BurnTooHigh { price: Some(price) });
            }
            Ok(())
        }
        Op::Serve(_) => {
            let neuron = neuron.ok_or(Reject::NotRegistered)?;
            not_before(serve_again_at(neuron, facts), facts)
        }
        Op::Commit(record) => {
            neuron.ok_or(Reject::NotRegistered)?;
            let full = facts.used_space.saturating_add(fields::charge(record))
                > facts.metagraph.params.commit_space;
            if full && !facts.epoch_ends() {
                Err(facts.space())
            } else {
                Ok(())
            }
        }
        Op::SetWeights { weights, .. } => {
            check_weights(weights, neuron.ok_or(Reject::NotRegistered)?, facts)
        }
        // Not the subnet's to judge.
        Op::Transfer { .. } | Op::AddStake { .. } | Op::SetParameter { .. } => Ok(()),
    }
}

/// The weights as the subnet wants them, where that is a matter of form: zeros where it demands more
/// entries than there are rewards, and its own version key where it has one.
pub(super) fn suited(op: &Op, signer: Hotkey, facts: &Facts) -> Option<Op> {
    let Op::SetWeights {
        weights,
        version_key,
    } = op
    else {
        return None;
    };
    let Metagraph {
        params, neurons, ..
    } = &facts.metagraph;
    // A vote for oneself needs no length, and no permit as long as it has no other entry.
    let least = match (weights.as_slice(), facts.metagraph.neuron(signer)) {
        ([(uid, _)], Some(own)) if *uid == own.uid => 1,
        _ => usize::from(params.min_allowed_weights).min(neurons.len()),
    };
    let mut weights = weights.clone();
    for neuron in neurons {
        if weights.len() >= least {
            break;
        }
        if weights.iter().all(|(uid, _)| *uid != neuron.uid) {
            weights.push((neuron.uid, 0));
        }
    }
    Some(Op::SetWeights {
        weights,
        version_key: (*version_key).max(params.weights_version_key),
    })
}

/// Fills in the figures that the name of a rejection does not carry.
pub(super) fn complete(reject: Reject, op: &Op, signer: Hotkey, facts: &Facts) -> Reject {
    let params = &facts.metagraph.params;
    let neuron = facts.metagraph.neuron(signer);
    match (reject, op) {
        (Reject::RateLimited { .. }, Op::Serve(_)) => Reject::RateLimited {
            retry_at: neuron.map(|neuron| serve_again_at(neuron, facts)),
        },
        (Reject::RateLimited { .. }, Op::SetWeights { .. }) => Reject::RateLimited {
            retry_at: neuron.map(|neuron| weigh_again_at(neuron, facts)),
        },
        (Reject::CommitSpace { .. }, _) => facts.space(),
        (Reject::TooFewWeights { .. }, _) => Reject::TooFewWeights {
            min: params.min_allowed_weights,
        },
        (Reject::VersionKey { .. }, _) => Reject::VersionKey {
            need: params.weights_version_key,
        },
        (Reject::BurnTooHigh { .. }, _) => Reject::BurnTooHigh {
            price: Some(params.burn_rao),
        },
        (other, _) => other,
    }
}

impl Facts {
    fn epoch_ends(&self) -> bool {
        self.metagraph
            .epoch
            .next_epoch_block
            .is_none_or(|end| end <= self.next)
    }

    fn space(&self) -> Reject {
        Reject::CommitSpace {
            used: Some(self.used_space),
            max: self.metagraph.params.commit_space,
            resets_at: self.metagraph.epoch.next_epoch_block,
        }
    }
}

fn check_weights(weights: &[(Uid, u16)], neuron: &Neuron, facts: &Facts) -> Result<(), Reject> {
    let Metagraph {
        params,
        neurons,
        owner,
        ..
    } = &facts.metagraph;
    if neuron.stake_rao < params.stake_threshold_rao {
        return Err(Reject::StakeTooLow);
    }
    not_before(weigh_again_at(neuron, facts), facts)?;
    let only_itself = matches!(weights, [(uid, _)] if *uid == neuron.uid);
    let is_owner = *owner == Some(neuron.hotkey);
    if !neuron.validator_permit && !only_itself && !is_owner && !facts.epoch_ends() {
        return Err(Reject::NoPermit);
    }
    if weights
        .iter()
        .any(|(uid, _)| !neurons.iter().any(|neuron| neuron.uid == *uid))
    {
        return Err(Reject::BadUids);
    }
    Ok(())
}

fn not_before(first: Block, facts: &Facts) -> Result<(), Reject> {
    if first > facts.next {
        Err(Reject::RateLimited {
            retry_at: Some(first),
        })
    } else {
        Ok(())
    }
}

fn serve_again_at(neuron: &Neuron, facts: &Facts) -> Block {
    after(neuron.served_at, facts.metagraph.params.serving_rate_limit)
}

fn weigh_again_at(neuron: &Neuron, facts: &Facts) -> Block {
    after(
        neuron.last_update,
        facts.metagraph.params.weights_rate_limit,
    )
}

/// Block 0 stands for never.
fn after(last: Block, limit: u64) -> Block {
    if last.0 == 0 {
        last
    } else {
        Block(last.0.saturating_add(limit))
    }
}
