//! One score for every routed expert of every MoE layer, checked where it is made.
//!
//! Rows have one length, values are finite, not negative, and add up to a number. Rounding to the four
//! decimals of published files is here too, so that all who round do it alike. Knows not where scores
//! come from nor what is done with them.

use connito_engine::ModelConfig;
use connito_engine::routing::ExpertMap;

use super::{ByLayer, SelectionError};

/// Scores by layer and expert.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores(ByLayer<Vec<f64>>);

impl Scores {
    /// Takes one row per MoE layer, with one score for each of its experts.
    ///
    /// # Errors
    /// There are no scores, a row is shorter than another, a score is negative or not finite, or a row's
    /// sum is not finite.
    pub fn new(layers: ByLayer<Vec<f64>>) -> Result<Self, SelectionError> {
        let experts = layers.values().map(Vec::len).max().unwrap_or(0);
        if experts == 0 {
            return Err(SelectionError::NoScores);
        }
        for (&layer, row) in &layers {
            let unusable = |score: &f64| !score.is_finite() || *score < 0.0;
            if let Some(expert) = row.iter().position(unusable) {
                let score = row[expert];
                return Err(SelectionError::NotAScore {
                    layer,
                    expert,
                    score,
                });
            }
            if row.len() < experts {
                let expert = row.len();
                return Err(SelectionError::UnknownExpert { layer, expert });
            }
            if !row.iter().sum::<f64>().is_finite() {
                return Err(SelectionError::TooLarge { layer });
            }
        }
        Ok(Self(layers))
    }

    /// The rows, by ascending layer.
    pub fn layers(&self) -> impl Iterator<Item = (usize, &[f64])> {
        self.0.iter().map(|(layer, row)| (*layer, row.as_slice()))
    }

    /// Experts of a layer.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.0.values().next().map_or(0, Vec::len)
    }

    /// Every expert of every layer.
    #[must_use]
    pub fn all(&self) -> ExpertMap {
        let every = |(&layer, row): (&usize, &Vec<f64>)| (layer, (0..row.len()).collect());
        self.0.iter().map(every).collect()
    }

    /// Whether these are scores of a model's MoE layers and of nothing else.
    ///
    /// # Errors
    /// Names the first layer that only one of them has, or where the numbers of experts differ.
    pub fn check(&self, config: &ModelConfig) -> Result<(), SelectionError> {
        let experts = config.mixture.experts;
        for (layer, row) in self.layers() {
            if !config.is_moe_layer(layer) {
                return Err(SelectionError::ForeignLayer { layer });
            }
            if row.len() != experts {
                let scored = row.len();
                return Err(SelectionError::ForeignExperts {
                    layer,
                    scored,
                    experts,
                });
            }
        }
        match config
            .moe_layers()
            .find(|layer| !self.0.contains_key(layer))
        {
            Some(layer) => Err(SelectionError::UnknownLayer { layer }),
            None => Ok(()),
        }
    }

    /// Whether all listed experts have scores.
    pub(super) fn check_known(&self, experts: &ExpertMap) -> Result<(), SelectionError> {
        for (&layer, listed) in experts {
            let Some(row) = self.0.get(&layer) else {
                return Err(SelectionError::UnknownLayer { layer });
            };
            if let Some(&expert) = listed.iter().find(|expert| **expert >= row.len()) {
                return Err(SelectionError::UnknownExpert { layer, expert });
            }
        }
        Ok(())
    }
}

/// A score in four decimals, the nearest ones; of two that are equally near the one with an even last
/// digit, as Python rounds and published files were written.
pub(super) fn rounded(score: f64) -> f64 {
    // The library writes exact decimals and reads the nearest number. A sum of shares is never -0.
    format!("{:.4}", score.abs()).parse().unwrap_or(score)
}
