//! Which parameters change, and how far down a backward pass must therefore go.

use crate::config::ModelConfig;
use crate::device::Device;
use crate::error::EngineError;
use crate::model::Model;
use crate::names::Role;
use crate::routing::{ExpertMap, RoutingError};

/// Which parameters change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrainableSet {
    /// All of them: the full fine-tune, and pretraining.
    Everything,
    /// Parts of the MoE layers; the rest of the backbone is frozen.
    Mixture {
        /// Routed experts, layer by layer.
        experts: ExpertMap,
        /// Whether the shared experts of all layers change.
        shared: bool,
        /// Whether the routers of all layers change. The bias of a DeepSeek-V3 gate never does: it has
        /// no gradient.
        routers: bool,
    },
}

impl TrainableSet {
    /// Only the listed routed experts.
    #[must_use]
    pub fn experts(experts: ExpertMap) -> Self {
        Self::Mixture {
            experts,
            shared: false,
            routers: false,
        }
    }

    /// Whether a parameter of this role changes.
    pub(crate) fn contains(&self, role: Role) -> bool {
        match self {
            Self::Everything => role != Role::RouterBias,
            Self::Mixture {
                experts,
                shared,
                routers,
            } => match role {
                Role::Expert { layer, expert } => experts
                    .get(&layer)
                    .is_some_and(|listed| listed.contains(&expert)),
                Role::Shared => *shared,
                Role::Router => *routers,
                _ => false,
            },
        }
    }

    pub(super) fn check<D: Device>(&self, model: &Model<D>) -> Result<(), EngineError> {
        let Self::Mixture { experts, .. } = self else {
            return Ok(());
        };
        let config = model.config();
        for (&layer, listed) in experts {
            if !config.is_moe_layer(layer) {
                return Err(RoutingError::NoSuchMoeLayer { layer }.into());
            }
            for &expert in listed {
                if expert >= config.mixture.experts {
                    return Err(RoutingError::NoSuchExpert { layer, expert }.into());
                }
                if !model.is_resident(layer, expert) {
                    return Err(RoutingError::NotResident { layer, expert }.into());
                }
            }
        }
        let mut roles = model.descriptions().iter().map(|parameter| parameter.role);
        if roles.any(|role| self.contains(role)) {
            Ok(())
        } else {
            Err(EngineError::NothingToTrain)
        }
    }

    /// The lowest layer with something to train; `None` when that is everything.
    pub(crate) fn lowest_layer(&self, config: &ModelConfig) -> Option<usize> {
        match self {
            Self::Everything => None,
            Self::Mixture { .. } => {
                (0..config.num_hidden_layers).find(|layer| self.trains_layer(*layer, config))
            }
        }
    }

    /// How many layers have something to train.
    pub(super) fn trained_layers(&self, config: &ModelConfig) -> usize {
        (0..config.num_hidden_layers)
            .filter(|layer| self.trains_layer(*layer, config))
            .count()
    }

    fn trains_layer(&self, layer: usize, config: &ModelConfig) -> bool {
        match self {
            Self::Everything => true,
            Self::Mixture {
                experts,
                shared,
                routers,
            } => {
                let listed = experts.get(&layer).is_some_and(|listed| !listed.is_empty());
                let shared = *shared && config.mixture.shared_width > 0;
                config.is_moe_layer(layer) && (listed || shared || *routers)
            }
        }
    }

    pub(super) fn trains_routers(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Mixture { routers, .. } => *routers,
        }
    }
}
