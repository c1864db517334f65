//! Which experts matter for a text: the selection of expert-specialised fine-tuning (ESFT, arXiv
//! 2407.01906), over all experts of a layer or within a group of them.
//!
//! ```text
//! statistics of a forward pass ──┐
//!                                ├─► ScoreSummary ─► scores, gate or token ─► select ─► ExpertConfig
//! summary.json ──────────────────┘                                              ▲
//!                                                   top-p or top-k, a group ────┘
//! ```
//!
//! In every layer experts are put in order, descending by score rounded to four decimals, lower ids first
//! among equals. Top-p takes them from the front while the sum so far is below p, and none with a score of
//! 0; top-k takes the first k. Within a group scores are first divided by the group's sum in the layer, so
//! that p means the same for every size of group; a layer whose sum is 0 selects nothing.
//!
//! Pure arithmetic: knows no models, texts and files. What is selected is a proposal; that only these
//! experts are trained is the trainer's part.

mod affinity;
mod by_index;
mod error;
mod expert_config;
mod scores;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use connito_engine::routing::ExpertMap;

pub use affinity::group_affinity;
pub use error::SelectionError;
pub use expert_config::ExpertConfig;
pub use scores::Scores;
pub use summary::ScoreSummary;

/// What an expert is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Score {
    /// Its mean mixing weight, before the family's scaling factor.
    Gate,
    /// Its share of all picks.
    Token,
}

impl Score {
    /// The threshold of the paper.
    #[must_use]
    pub fn usual_threshold(self) -> Threshold {
        match self {
            Self::Gate => Threshold(0.1),
            Self::Token => Threshold(0.2),
        }
    }
}

/// A share of a layer's score: above 0, at most 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Threshold(f64);

impl Threshold {
    /// Takes a number for a threshold.
    ///
    /// # Errors
    /// It is not above 0 and at most 1.
    pub fn new(p: f64) -> Result<Self, SelectionError> {
        if p > 0.0 && p <= 1.0 {
            Ok(Self(p))
        } else {
            Err(SelectionError::Threshold { p })
        }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

/// How much of a layer is selected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// The fewest of the best experts whose scores reach a threshold.
    TopP(Threshold),
    /// A number of the best experts.
    TopK(NonZeroUsize),
}

impl Amount {
    /// A threshold.
    ///
    /// # Errors
    /// As [`Threshold::new`].
    pub fn top_p(p: f64) -> Result<Self, SelectionError> {
        Threshold::new(p).map(Self::TopP)
    }

    /// A number of experts.
    ///
    /// # Errors
    /// The number is 0.
    pub fn top_k(k: usize) -> Result<Self, SelectionError> {
        NonZeroUsize::new(k)
            .map(Self::TopK)
            .ok_or(SelectionError::Nothing)
    }

    /// Checks that no layer has fewer experts to choose from than are wanted of it. A layer without any
    /// selects nothing and is no error: a group need not span all layers.
    ///
    /// # Errors
    /// Names the first layer with too few.
    pub fn check(self, experts: &ExpertMap) -> Result<(), SelectionError> {
        let Self::TopK(wanted) = self else {
            return Ok(());
        };
        let wanted = wanted.get();
        for (&layer, listed) in experts {
            let experts = distinct(listed).len();
            if experts > 0 && wanted > experts {
                return Err(SelectionError::TooMany {
                    wanted,
                    layer,
                    experts,
                });
            }
        }
        Ok(())
    }

    /// The best of `ranked`, which is in order.
    fn of(self, ranked: &[Ranked]) -> Vec<usize> {
        let count = match self {
            Self::TopK(wanted) => wanted.get(),
            Self::TopP(Threshold(p)) => {
                let mut sum = 0.0;
                let enough = |expert: &Ranked| {
                    // Rounded scores may add up to less than 1: what nobody visits fills no gap.
                    let enough = sum >= p || expert.score == 0.0;
                    sum += expert.score;
                    enough
                };
                ranked.iter().position(enough).unwrap_or(ranked.len())
            }
        };
        ranked.iter().take(count).map(|expert| expert.id).collect()
    }
}

/// Selects among all experts.
///
/// # Errors
/// More experts are wanted than a layer has.
pub fn select(scores: &Scores, amount: Amount) -> Result<ExpertConfig, SelectionError> {
    amount.check(&scores.all())?;
    let of_layer = |row: &[f64]| match row.iter().sum::<f64>() {
        0.0 => Vec::new(),
        _ => amount.of(&ranked(row.iter().copied().enumerate())),
    };
    let layers = scores.layers();
    Ok(ExpertConfig::routed(
        layers.map(|(layer, row)| (layer, of_layer(row))).collect(),
    ))
}

/// Selects among the experts of a group. Every layer that has scores is in the result; where the group has
/// no experts, or none that is visited, with an empty list.
///
/// # Errors
/// More experts are wanted than the group has in a layer, or the group lists a layer or an expert without
/// a score.
pub fn select_within(
    scores: &Scores,
    amount: Amount,
    group: &ExpertMap,
) -> Result<ExpertConfig, SelectionError> {
    scores.check_known(group)?;
    amount.check(group)?;
    let of_layer = |layer, row: &[f64]| {
        let members = distinct(group.get(&layer).map_or(&[], Vec::as_slice));
        let sum: f64 = members.iter().map(|&expert| row[expert]).sum();
        if sum == 0.0 {
            return Vec::new();
        }
        let shares = members.into_iter();
        amount.of(&ranked(shares.map(|expert| (expert, row[expert] / sum))))
    };
    let layers = scores.layers();
    let selected = layers.map(|(layer, row)| (layer, of_layer(layer, row)));
    Ok(ExpertConfig::routed(selected.collect()))
}

/// The `count` best experts of every layer that are not trained, whichever their group, best first; all of
/// them where there are fewer. They are what a miner keeps in memory beside those that it trains.
///
/// # Errors
/// A trained layer or expert has no score.
pub fn best_untrained(
    scores: &Scores,
    trained: &ExpertMap,
    count: usize,
) -> Result<ExpertMap, SelectionError> {
    scores.check_known(trained)?;
    let of_layer = |(layer, row): (usize, &[f64])| {
        let trained = trained.get(&layer).map_or(&[][..], Vec::as_slice);
        let others = row.iter().copied().enumerate();
        let others = ranked(others.filter(|(expert, _)| !trained.contains(expert)));
        let best = others.into_iter().take(count);
        (layer, best.map(|expert| expert.id).collect())
    };
    Ok(scores.layers().map(of_layer).collect())
}

/// An expert and its score in four decimals.
#[derive(Debug, Clone, Copy)]
struct Ranked {
    id: usize,
    score: f64,
}

/// Experts by descending rounded score, lower ids first among equals.
fn ranked(scores: impl Iterator<Item = (usize, f64)>) -> Vec<Ranked> {
    let mut ranked: Vec<Ranked> = scores
        .map(|(id, score)| Ranked {
            id,
            score: scores::rounded(score),
        })
        .collect();
    ranked.sort_by(|left, right| {
        right
            .score
            .total_cmp(&left.score)
            .then(left.id.cmp(&right.id))
    });
    ranked
}

/// The experts of a list, each once: an [`ExpertMap`] may repeat them.
fn distinct(listed: &[usize]) -> BTreeSet<usize> {
    listed.iter().copied().collect()
}

/// Values by layer.
type ByLayer<T> = BTreeMap<usize, T>;
