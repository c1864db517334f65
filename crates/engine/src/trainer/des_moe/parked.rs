//! Gradients out of a backward pass's reach for a while: an expert without a place for its gradient is
//! passed through, and not trained.

use crate::names::{FeedForward, Mixture, Parameters, SwiGlu};
use crate::routing::ExpertMap;

/// Gradients of some experts, and where they belong.
#[derive(Debug)]
pub(super) struct Parked<G>(Vec<(usize, usize, SwiGlu<Option<G>>)>);

impl<G> Parked<G> {
    /// Takes out the gradients of the listed experts for which `wanted(layer, expert)` holds.
    pub(super) fn take(
        gradients: &mut Parameters<Option<G>>,
        experts: &ExpertMap,
        wanted: &dyn Fn(usize, usize) -> bool,
    ) -> Self {
        let listed = experts
            .iter()
            .flat_map(|(&layer, listed)| listed.iter().map(move |&expert| (layer, expert)));
        let taken = listed
            .filter(|&(layer, expert)| wanted(layer, expert))
            .filter_map(|(layer, expert)| {
                let places = mixture(gradients, layer)?
                    .experts
                    .get_mut(expert)?
                    .as_mut()?;
                // The places stay: trees of gradients and of weights are walked side by side.
                let gradient = SwiGlu {
                    gate: places.gate.take(),
                    up: places.up.take(),
                    down: places.down.take(),
                };
                Some((layer, expert, gradient))
            });
        Self(taken.collect())
    }

    /// Puts all of them back.
    pub(super) fn put_back(self, gradients: &mut Parameters<Option<G>>) {
        for (layer, expert, gradient) in self.0 {
            if let Some(mixture) = mixture(gradients, layer) {
                mixture.experts[expert] = Some(gradient);
            }
        }
    }
}

fn mixture<T>(tree: &mut Parameters<T>, layer: usize) -> Option<&mut Mixture<T>> {
    match &mut tree.layers.get_mut(layer)?.feed_forward {
        FeedForward::Mixture(mixture) => Some(mixture),
        FeedForward::Dense(_) => None,
    }
}
