//! The measurement of one update: which sequences, what they lose, what that is worth (P-20, P-21).
//!
//! ```text
//! pools, seed ──draw──▶ sequences ──base──▶ losses before ─┐
//!                           └────base + Δ──▶ losses after ─┴──▶ utility, standard error
//! ```
//!
//! A validator and a miner that wants to know its number beforehand both come here, so that they find the
//! same, to the bit. Sequences and their tokens are fixed before an update is read (A-65), losses are the
//! backend's cross-entropies and nothing else, and all sequences are run for every update: an evaluation
//! that may end early is another evaluation (A-72). Knows no jobs, no stores and no other updates.

use connito_engine::data::documents::TokenDocuments;
use connito_protocol::ids::{BlobId, GroupId, Seed};
use connito_protocol::job::Finding;
use connito_protocol::manifest::Domain;
use connito_protocol::report::Measurement;
use connito_protocol::scoring::{SequenceLoss, Unmeasured, mean_loss, utility};

use crate::backend::{Backend, BackendError};
use crate::shard::Shard;

/// Sequences of a pool at least: fewer have no spread.
const POOL_SEQUENCES: usize = 2;

/// A scoring pool and how many sequences are drawn from it.
pub type PoolShare = (BlobId, usize);

/// The scoring pools for a group, with the number of sequences to draw from each: the group's own share is
/// divided among its own domains, the rest among the others.
#[must_use]
pub fn pool_shares(
    domains: &[Domain],
    group: GroupId,
    (own_share, sequences): (f64, u32),
) -> Vec<PoolShare> {
    let is_own = |domain: &&Domain| domain.group == group;
    let own = domains.iter().filter(is_own).count();
    let others = domains.len() - own;
    let share = if others == 0 { 1.0 } else { own_share };
    let of_own = each_of(f64::from(sequences) * share, own);
    let of_others = each_of(f64::from(sequences) * (1.0 - share), others);
    let count = |domain| if is_own(&domain) { of_own } else { of_others };
    domains
        .iter()
        .map(|domain| (domain.scoring, count(domain)))
        .collect()
}

/// What each of several pools gives of a number of sequences.
#[must_use]
pub fn each_of(sequences: f64, pools: usize) -> usize {
    let each = (sequences / pools.max(1) as f64).round() as usize;
    each.max(POOL_SEQUENCES)
}

/// Draws from a pool: by one seed, a different draw in each.
#[must_use]
pub fn draw(documents: &TokenDocuments, (pool, count): PoolShare, seed: &Seed) -> Vec<Vec<u32>> {
    let mut hasher = blake3::Hasher::new_derive_key("connito/1 draw from a pool");
    hasher.update(&seed.0).update(&pool.0);
    let picks = documents.sample(hasher.finalize().as_bytes(), count);
    let picked = documents.select(&picks).into_iter();
    picked.map(<[u32]>::to_vec).collect()
}

/// Sequences with the losses of the state that updates build on: measured once, the same for all of them.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Pool by pool.
    sequences: Vec<Vec<Vec<u32>>>,
    before: Vec<SequenceLoss>,
}

/// What an update does to the losses.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Utility and standard error.
    pub measurement: Measurement,
    /// Mean loss of the state.
    pub loss_before: f64,
    /// Mean loss with the update.
    pub loss_after: f64,
    /// What each sequence's loss falls by, per token: how the update works, whatever its numbers are.
    pub changes: Vec<f64>,
}

impl Measured {
    /// What is told of it.
    #[must_use]
    pub fn finding(&self) -> Finding {
        Finding::Measured {
            measurement: self.measurement,
            loss_before: self.loss_before,
            loss_after: self.loss_after,
        }
    }
}

impl Evaluation {
    /// Measures the state that the backend holds.
    ///
    /// # Errors
    /// A sequence does not fit the model.
    pub fn of_base(
        backend: &mut impl Backend,
        sequences: Vec<Vec<Vec<u32>>>,
    ) -> Result<Self, BackendError> {
        let before = losses(backend, &sequences)?;
        Ok(Self { sequences, before })
    }

    /// Number of sequences.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.before.len()
    }

    /// Number of predicted tokens.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.before.iter().map(|loss| loss.tokens).sum()
    }

    /// Predicted tokens of every sequence.
    #[must_use]
    pub fn lengths(&self) -> Vec<u64> {
        self.before.iter().map(|loss| loss.tokens).collect()
    }

    /// Installs `base + update` and measures it. It stays installed.
    ///
    /// # Errors
    /// The update does not fit the model. What it does to the losses is no error, but may be unmeasurable.
    pub fn measure(
        &self,
        backend: &mut impl Backend,
        (base, update): (&Shard, &Shard),
    ) -> Result<Result<Measured, Unmeasured>, BackendError> {
        backend.install_sum(base, update)?;
        let after = losses(backend, &self.sequences)?;
        Ok(utility(&self.before, &after).map(|measurement| Measured {
            measurement,
            loss_before: mean_loss(&self.before).unwrap_or(f64::MAX),
            loss_after: mean_loss(&after).unwrap_or(f64::MAX),
            changes: changes(&self.before, &after),
        }))
    }
}

/// Losses of all sequences, evaluated pool by pool.
///
/// # Errors
/// A sequence does not fit the model.
pub fn losses(
    backend: &mut impl Backend,
    sequences: &[Vec<Vec<u32>>],
) -> Result<Vec<SequenceLoss>, BackendError> {
    let mut losses = Vec::new();
    for pool in sequences {
        let views: Vec<&[u32]> = pool.iter().map(Vec::as_slice).collect();
        losses.extend(backend.losses(&views)?);
    }
    Ok(losses)
}

fn changes(before: &[SequenceLoss], after: &[SequenceLoss]) -> Vec<f64> {
    let pairs = before.iter().zip(after);
    pairs
        .map(|(before, after)| (before.sum - after.sum) / before.tokens.max(1) as f64)
        .collect()
}
