//! How often every expert is picked, with what weight, and together with whom.
//!
//! A [`Picks`] is what the routers of one layer decided for some tokens; [`RoutingStatistics`] adds them
//! up layer by layer. From these sums follow the scores of ESFT (arXiv 2407.01906) and the partition that
//! puts experts together which fire together.
//!
//! Every sum is over whole numbers, weights being counted in multiples of 2⁻⁶⁰: so the order of addition
//! does not matter, and the same text gives the same statistics to the bit however it is divided into
//! batches and calls. Knows nothing of models, scores and selections.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use crate::config::ModelConfig;

/// What a weight is counted in: far below the precision of a weight in f32, and 2⁶⁸ tokens fit a sum.
const WEIGHT_UNITS: f64 = (1_u64 << 60) as f64;

/// The decisions of one layer's router for some tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Picks {
    /// Slots of a token, at least 1.
    pub per_token: usize,
    /// The expert in every slot `[tokens, per_token]`; `None` for an empty slot.
    pub experts: Vec<Option<usize>>,
    /// Its mixing weight before the family's scaling factor `[tokens, per_token]`; 0 for an empty slot.
    pub weights: Vec<f32>,
}

impl Picks {
    /// Whether all weights are numbers that a mean can be taken of.
    pub(crate) fn are_finite(&self) -> bool {
        self.weights.iter().all(|weight| weight.is_finite())
    }
}

/// What the routers of a model decided for a text, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingStatistics {
    per_token: usize,
    layers: BTreeMap<usize, LayerStatistics>,
}

/// What one layer's router decided, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerStatistics {
    tokens: u64,
    picks: Vec<u64>,
    /// In multiples of 2⁻⁶⁰.
    weights: Vec<u128>,
    /// Tokens that picked both, by the two experts in ascending order. A map, for most pairs of a large
    /// layer never meet.
    pairs: BTreeMap<[usize; 2], u64>,
}

impl RoutingStatistics {
    /// Nothing yet, for every MoE layer of a model.
    #[must_use]
    pub fn new(config: &ModelConfig) -> Self {
        let layer = LayerStatistics::new(config.mixture.experts);
        Self {
            per_token: config.mixture.per_token,
            layers: config
                .moe_layers()
                .map(|index| (index, layer.clone()))
                .collect(),
        }
    }

    /// Experts that a token visits.
    #[must_use]
    pub fn per_token(&self) -> usize {
        self.per_token
    }

    /// Tokens counted: every one passes every layer.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.layers
            .values()
            .map(|layer| layer.tokens)
            .max()
            .unwrap_or(0)
    }

    /// The MoE layers, ascending.
    pub fn layers(&self) -> impl Iterator<Item = (usize, &LayerStatistics)> {
        self.layers.iter().map(|(index, layer)| (*index, layer))
    }

    /// How many tokens picked both of two experts, summed over all layers, as rows of a symmetric matrix
    /// that is 0 on the diagonal: what experts of one index in every layer have in common.
    #[must_use]
    pub fn coactivation(&self) -> Vec<Vec<u64>> {
        let experts = self.layers.values().map(LayerStatistics::experts).max();
        let experts = experts.unwrap_or(0);
        let mut rows = vec![vec![0; experts]; experts];
        for ([first, second], tokens) in self.layers.values().flat_map(LayerStatistics::pairs) {
            rows[first][second] += tokens;
            rows[second][first] += tokens;
        }
        rows
    }

    /// Counts the decisions of one layer; those of a layer that the model does not have are nobody's.
    pub(crate) fn record(&mut self, layer: usize, picks: &Picks) {
        if let Some(layer) = self.layers.get_mut(&layer) {
            layer.record(picks);
        }
    }
}

/// Adds what was counted in another text. Both must come from one model: layers that only one of them
/// knows count for nothing.
impl AddAssign<&Self> for RoutingStatistics {
    fn add_assign(&mut self, other: &Self) {
        for (index, layer) in &mut self.layers {
            if let Some(other) = other.layers.get(index) {
                *layer += other;
            }
        }
    }
}

impl AddAssign for RoutingStatistics {
    fn add_assign(&mut self, other: Self) {
        *self += &other;
    }
}

impl LayerStatistics {
    fn new(experts: usize) -> Self {
        Self {
            tokens: 0,
            picks: vec![0; experts],
            weights: vec![0; experts],
            pairs: BTreeMap::new(),
        }
    }

    /// Routed experts of the layer.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.picks.len()
    }

    /// Tokens that came by.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// How many tokens picked each expert.
    #[must_use]
    pub fn picks(&self) -> &[u64] {
        &self.picks
    }

    /// The summed mixing weight of each expert, before the family's scaling factor.
    pub fn weights(&self) -> impl Iterator<Item = f64> {
        self.weights
            .iter()
            .map(|&units| units as f64 / WEIGHT_UNITS)
    }

    /// The pairs of experts that some token picked both of, ascending, and how many did.
    pub fn pairs(&self) -> impl Iterator<Item = ([usize; 2], u64)> {
        self.pairs.iter().map(|(pair, tokens)| (*pair, *tokens))
    }

    fn record(&mut self, picks: &Picks) {
        let slots = picks.experts.chunks(picks.per_token);
        for (slots, weights) in slots.zip(picks.weights.chunks(picks.per_token)) {
            self.tokens += 1;
            for (index, (&expert, &weight)) in slots.iter().zip(weights).enumerate() {
                let Some(expert) = expert else { continue };
                self.picks[expert] += 1;
                let units = (f64::from(weight) * WEIGHT_UNITS).round_ties_even();
                let sum = &mut self.weights[expert];
                *sum = sum.saturating_add(units as u128);
                for &partner in slots[..index].iter().flatten() {
                    let pair = [expert.min(partner), expert.max(partner)];
                    *self.pairs.entry(pair).or_default() += 1;
                }
            }
        }
    }
}

impl AddAssign<&Self> for LayerStatistics {
    fn add_assign(&mut self, other: &Self) {
        self.tokens += other.tokens;
        add(&mut self.picks, &other.picks);
        for (pair, tokens) in &other.pairs {
            *self.pairs.entry(*pair).or_default() += tokens;
        }
        for (sum, units) in self.weights.iter_mut().zip(&other.weights) {
            *sum = sum.saturating_add(*units);
        }
    }
}

fn add(sums: &mut [u64], counts: &[u64]) {
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum += count;
    }
}
