//! Which experts a token may visit: the four routing modes, checked once against a model and what of it
//! is in memory.
//!
//! `T` are the trained experts of a layer, `F` the kept ones: in memory, but frozen. The router always
//! scores *all* experts, because its rows belong to the backbone; a mode decides afterwards.
//!
//! ```text
//! classic       natural choice over all experts              every expert is in memory
//! masked        natural choice restricted to T
//! frozen-kept   natural choice restricted to T ∪ F
//! fallback      natural choice over all experts; every pick outside T ∪ F gives its place to the best
//!               member of F that is not chosen yet
//! ```
//!
//! `choice.rs` has the choice and the weights of one token, `routes.rs` a batch and the gradient,
//! `statistics.rs` what is counted of them. What a
//! mode means depends on the listed experts alone, never on what else happens to be in memory, so a
//! slice and the whole model route alike. Knows nothing of weights, devices and files.

mod choice;
mod routes;
mod statistics;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use choice::{Slot, select, weigh};
pub(crate) use routes::{Router, Routes};
pub use statistics::{LayerStatistics, Picks, RoutingStatistics};

use crate::config::ModelConfig;

/// Layer → experts, both counted from 0. The order within a layer means nothing and repetitions are
/// harmless.
pub type ExpertMap = BTreeMap<usize, Vec<usize>>;

/// Which experts may be chosen, layer by layer. Every MoE layer has to be listed; an empty list is an
/// answer (its tokens get no routed expert), a forgotten layer is not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Routing {
    /// Every expert: the model as published.
    #[default]
    Classic,
    /// Only the listed ones (in-place expert-specialised fine-tuning).
    Masked {
        /// Routable experts of every MoE layer.
        experts: ExpertMap,
    },
    /// Trained and kept ones alike. A layer that only one of the two maps lists has none of the other.
    FrozenKept {
        /// Experts that are being trained.
        trained: ExpertMap,
        /// Frozen experts in memory; disjoint from the trained ones.
        kept: ExpertMap,
    },
    /// The natural choice, with kept experts in the places of those that are not in memory. A layer that
    /// only one of the two maps lists has none of the other.
    Fallback {
        /// Experts that are being trained; chosen only where the natural choice falls on them.
        trained: ExpertMap,
        /// Frozen experts in memory, which also stand in for absent ones; disjoint from the trained ones.
        kept: ExpertMap,
    },
}

/// Why a routing does not fit a model or what of it is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoutingError {
    /// A layer was listed that is dense or beyond the last one.
    #[error("layer {layer} has no routed experts")]
    NoSuchMoeLayer {
        /// The layer, from 0.
        layer: usize,
    },
    /// An expert was listed that its layer does not have.
    #[error("layer {layer} has no routed expert {expert}")]
    NoSuchExpert {
        /// The layer, from 0.
        layer: usize,
        /// The expert, from 0.
        expert: usize,
    },
    /// A MoE layer was not listed at all.
    #[error("the routing does not list the experts of layer {layer}")]
    UnlistedLayer {
        /// The layer, from 0.
        layer: usize,
    },
    /// An expert was listed as trained and as kept.
    #[error("expert {expert} of layer {layer} is listed both as trained and as kept")]
    TrainedAndKept {
        /// The layer, from 0.
        layer: usize,
        /// The expert, from 0.
        expert: usize,
    },
    /// Classic routing over a slice: the absent expert's share would vanish without a word.
    #[error(
        "classic routing needs every expert, expert {expert} of layer {layer} is not in memory"
    )]
    ClassicNeedsAll {
        /// The layer, from 0.
        layer: usize,
        /// The first expert that is absent.
        expert: usize,
    },
    /// An expert may be chosen but cannot be computed.
    #[error("expert {expert} of layer {layer} is listed but is not in memory")]
    NotResident {
        /// The layer, from 0.
        layer: usize,
        /// The expert, from 0.
        expert: usize,
    },
}

/// How one layer's choice is made. Marks have one entry per expert of the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerRouting {
    /// Over all experts.
    Natural,
    /// Over the marked experts.
    Restricted {
        /// Experts that may be chosen.
        routable: Vec<bool>,
    },
    /// Over all experts, absent picks being replaced by helpers.
    Substituted {
        /// Experts whose natural picks stand.
        resident: Vec<bool>,
        /// Experts that take the places of the others; all of them resident.
        helpers: Vec<bool>,
    },
}

/// A [`Routing`] that fits its model: how every layer chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoutingPlan {
    layers: Vec<LayerRouting>,
}

impl RoutingPlan {
    /// Checks a routing against the model and against `resident(layer, expert)`, what of it is in memory.
    ///
    /// # Errors
    /// Layers or experts that the model does not have, a MoE layer that is not listed, an expert both
    /// trained and kept, and an expert that may be chosen but is not in memory. The lowest layer is named.
    pub(crate) fn new(
        routing: &Routing,
        config: &ModelConfig,
        resident: &dyn Fn(usize, usize) -> bool,
    ) -> Result<Self, RoutingError> {
        let nobody = ExpertMap::new();
        let (trained, kept) = match routing {
            Routing::Classic => return Self::classic(config, resident),
            Routing::Masked { experts } => (experts, &nobody),
            Routing::FrozenKept { trained, kept } | Routing::Fallback { trained, kept } => {
                (trained, kept)
            }
        };
        check_listed(trained, config)?;
        check_listed(kept, config)?;

        let mut layers = vec![LayerRouting::Natural; config.num_hidden_layers];
        for layer in config.moe_layers() {
            let listed = Listed::new(layer, trained.get(&layer), kept.get(&layer))?;
            let absent = |expert: &&usize| !resident(layer, **expert);
            if let Some(&expert) = listed.trained.iter().chain(listed.kept).find(absent) {
                return Err(RoutingError::NotResident { layer, expert });
            }
            let experts = config.mixture.experts;
            layers[layer] = match routing {
                Routing::Fallback { .. } => LayerRouting::Substituted {
                    resident: marks(experts, &[listed.trained, listed.kept]),
                    helpers: marks(experts, &[listed.kept]),
                },
                Routing::Classic | Routing::Masked { .. } | Routing::FrozenKept { .. } => {
                    LayerRouting::Restricted {
                        routable: marks(experts, &[listed.trained, listed.kept]),
                    }
                }
            };
        }
        Ok(Self { layers })
    }

    /// How `layer` chooses; meaningless for a dense layer.
    pub(crate) fn layer(&self, layer: usize) -> &LayerRouting {
        &self.layers[layer]
    }

    fn classic(
        config: &ModelConfig,
        resident: &dyn Fn(usize, usize) -> bool,
    ) -> Result<Self, RoutingError> {
        for layer in config.moe_layers() {
            if let Some(expert) =
                (0..config.mixture.experts).find(|&expert| !resident(layer, expert))
            {
                return Err(RoutingError::ClassicNeedsAll { layer, expert });
            }
        }
        Ok(Self {
            layers: vec![LayerRouting::Natural; config.num_hidden_layers],
        })
    }
}

/// What a routing says about one layer.
struct Listed<'a> {
    trained: &'a [usize],
    kept: &'a [usize],
}

impl<'a> Listed<'a> {
    fn new(
        layer: usize,
        trained: Option<&'a Vec<usize>>,
        kept: Option<&'a Vec<usize>>,
    ) -> Result<Self, RoutingError> {
        if trained.is_none() && kept.is_none() {
            return Err(RoutingError::UnlistedLayer { layer });
        }
        let (trained, kept) = (
            trained.map_or(&[][..], Vec::as_slice),
            kept.map_or(&[][..], Vec::as_slice),
        );
        match trained.iter().find(|expert| kept.contains(expert)) {
            Some(&expert) => Err(RoutingError::TrainedAndKept { layer, expert }),
            None => Ok(Self { trained, kept }),
        }
    }
}

/// Every listed layer has experts, and every listed expert is one of them.
fn check_listed(experts: &ExpertMap, config: &ModelConfig) -> Result<(), RoutingError> {
    for (&layer, listed) in experts {
        if !config.is_moe_layer(layer) {
            return Err(RoutingError::NoSuchMoeLayer { layer });
        }
        if let Some(&expert) = listed.iter().find(|&&id| id >= config.mixture.experts) {
            return Err(RoutingError::NoSuchExpert { layer, expert });
        }
    }
    Ok(())
}

/// One mark per expert: whether any of the lists has it.
fn marks(experts: usize, lists: &[&[usize]]) -> Vec<bool> {
    let mut marks = vec![false; experts];
    for &expert in lists.iter().copied().flatten() {
        marks[expert] = true;
    }
    marks
}
