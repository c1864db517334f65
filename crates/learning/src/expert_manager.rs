//! From a model on disk, or from its configuration alone, to what its experts' partition is made of.
//!
//! ```text
//! folder │ index │ safetensors header │ config.json ──▶ Listing ──▶ ExpertManager ──▶ Partition
//! ```
//!
//! The engine knows how families name tensors and how checkpoints store them; the protocol knows what a
//! partition is. Here the two meet. Nothing but headers and JSON is read, so a model of any size costs
//! no more than its list of tensors.

use std::path::Path;

use connito_engine::ModelConfig;
use connito_engine::checkpoint::{Listing, ListingError};
use connito_engine::expert_parameter_names;
use connito_protocol::partition::{
    Division, Inventory, InventoryError, ParameterKeys, Partition, PartitionError,
};

/// The routed experts of one model, ready to be divided.
#[derive(Debug, Clone)]
pub struct ExpertManager {
    config: Option<ModelConfig>,
    inventory: Inventory,
}

/// Why a model's experts cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum ExpertManagerError {
    /// The files do not tell which experts there are.
    #[error(transparent)]
    Listing(#[from] ListingError),
    /// What they tell is no set of layers with the same experts.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
}

impl ExpertManager {
    /// Lists the experts of the model at `path`: a Hugging Face folder, its
    /// `model.safetensors.index.json`, one safetensors file, or a `config.json` alone.
    ///
    /// A `config.json` beside the weights must agree with them. Fused tensors count as the matrices of
    /// the single experts that they hold. Without a configuration the naming tells the layers and
    /// experts; DeepSeek, Qwen3-MoE and OLMoE have one naming in common, which is why the family is
    /// then not known.
    ///
    /// # Errors
    /// An unreadable or broken file; an unknown family; no tensor that is an expert's; a tensor that is
    /// missing, or that the configuration does not have; layers with different experts.
    pub fn scan(path: &Path) -> Result<Self, ExpertManagerError> {
        let listing = Listing::read(path)?;
        let inventory = Inventory::new(listing.experts()?)?;
        let config = listing.config;
        Ok(Self { config, inventory })
    }

    /// Lists the experts that a configuration asks for.
    ///
    /// # Errors
    /// No layer has experts.
    pub fn from_config(config: &ModelConfig) -> Result<Self, InventoryError> {
        let mut parameters = ParameterKeys::new();
        for layer in config.moe_layers() {
            let of_layer = parameters.entry(layer).or_default();
            for expert in 0..config.mixture.experts {
                let names = expert_parameter_names(config.family, layer, expert);
                of_layer.insert(expert, names.into());
            }
        }
        Ok(Self {
            config: Some(config.clone()),
            inventory: Inventory::new(parameters)?,
        })
    }

    /// What there is to divide.
    #[must_use]
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The configuration, where there was one to be read.
    #[must_use]
    pub fn config(&self) -> Option<&ModelConfig> {
        self.config.as_ref()
    }

    /// Divides the experts.
    ///
    /// # Errors
    /// As [`Partition::divide`].
    pub fn divide(&self, division: &Division<'_>) -> Result<Partition, PartitionError> {
        Partition::divide(&self.inventory, division)
    }
}

#[cfg(test)]
mod tests {
    use connito_engine::config::MixtureConfig;
    use connito_protocol::partition::{Sizes, Strategy, Uneven};

    use super::*;

    /// Two MoE layers of four experts.
    fn config() -> ModelConfig {
        let tiny = ModelConfig::tiny(40);
        ModelConfig {
            num_hidden_layers: 3,
            mixture: MixtureConfig {
                experts: 4,
                ..tiny.mixture
            },
            ..tiny
        }
    }

    /// Writes an index that lists these tensors, and scans it.
    fn indexed(
        tensors: impl IntoIterator<Item = String>,
    ) -> Result<ExpertManager, ExpertManagerError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors.index.json");
        let map: std::collections::BTreeMap<_, _> =
            tensors.into_iter().map(|name| (name, "absent")).collect();
        let index = serde_json::json!({ "weight_map": map });
        std::fs::write(&path, index.to_string()).unwrap();
        ExpertManager::scan(&path)
    }

    fn names() -> Vec<String> {
        let config = config();
        let pairs = (1..3).flat_map(|layer| (0..4).map(move |expert| (layer, expert)));
        pairs
            .flat_map(|(layer, expert)| expert_parameter_names(config.family, layer, expert))
            .collect()
    }

    #[test]
    fn a_configuration_and_the_names_of_its_tensors_give_the_same_partition() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any-name.json");
        std::fs::write(&path, config().to_json()).unwrap();
        let scanned = ExpertManager::scan(&path).unwrap();
        let listed = indexed(names()).unwrap();
        assert_eq!(scanned.config().unwrap().family, config().family);
        assert!(listed.config().is_none());
        let division = Division {
            strategy: Strategy::Strided,
            sizes: Sizes::Groups(2),
            uneven: Uneven::Refused,
        };
        let made = ExpertManager::from_config(&config()).unwrap();
        let partition = made.divide(&division).unwrap();
        assert_eq!(partition.groups()[1].expert_indices, [1, 3]);
        assert_eq!(partition.groups()[1].param_keys.len(), 2 * 2 * 3);
        assert_eq!(scanned.divide(&division).unwrap(), partition);
        assert_eq!(listed.divide(&division).unwrap(), partition);
    }

    #[test]
    fn layers_with_different_experts_are_named() {
        let without = |gone: &str| {
            let left = names().into_iter().filter(|name| !name.contains(gone));
            indexed(left).unwrap_err().to_string()
        };
        assert_eq!(
            without("layers.2.mlp.experts.3"),
            "layer 2 has 3 experts, layer 1 has 4"
        );
        assert_eq!(
            without("layers.2.mlp.experts.1"),
            "layer 2 has no expert 1, but experts after it"
        );
        assert_eq!(
            without("experts.3.up_proj"),
            "tensor model.layers.1.mlp.experts.3.up_proj.weight is missing"
        );
        assert_eq!(
            without("experts"),
            "no tensor is named as a routed expert of a known family"
        );
    }
}
