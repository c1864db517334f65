//! Which parts of a model are trained, in the public format of ESFT.
//!
//! ```text
//! {"experts": {"1": [12, 40], "10": [5], "2": [35, 58]}, "shared_experts": false, "non_expert_modules": false}
//! ```
//!
//! Layers are keys in the order of text, experts stand in descending order of score. What is written has
//! the published files' bytes; what is read may have any layout, but nothing twice. Knows no scores.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use connito_engine::ModelConfig;
use connito_engine::routing::{ExpertMap, RoutingError};
use serde::de::{DeserializeSeed, Error};
use serde::{Deserialize, Deserializer};

use super::SelectionError;
use super::by_index::{ByIndex, from_object, in_text_order};

/// What is trained.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertConfig {
    /// Routed experts by layer, the most important first.
    #[serde(deserialize_with = "experts")]
    pub experts: ExpertMap,
    /// Whether shared experts are trained.
    #[serde(default)]
    pub shared_experts: bool,
    /// Whether everything that is no expert is trained.
    #[serde(default)]
    pub non_expert_modules: bool,
}

impl ExpertConfig {
    /// Routed experts and nothing else.
    #[must_use]
    pub fn routed(experts: ExpertMap) -> Self {
        Self {
            experts,
            shared_experts: false,
            non_expert_modules: false,
        }
    }

    /// How many routed experts are listed, all layers together.
    #[must_use]
    pub fn count(&self) -> usize {
        self.experts.values().map(Vec::len).sum()
    }

    /// Listed layers without experts.
    pub fn empty_layers(&self) -> impl Iterator<Item = usize> {
        let empty = self.experts.iter().filter(|(_, listed)| listed.is_empty());
        empty.map(|(layer, _)| *layer)
    }

    /// Reads an `expert_cfg.json`.
    ///
    /// # Errors
    /// The text is not of this format, or lists a layer or an expert of a layer twice.
    pub fn from_json(json: &str) -> Result<Self, SelectionError> {
        from_object(json).map_err(SelectionError::Config)
    }

    /// The text of an `expert_cfg.json`.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A list of numbers in Rust's notation is JSON, with the blanks that Python puts.
        let layers = in_text_order(&self.experts);
        let layers: Vec<String> = layers
            .map(|(key, listed)| format!("\"{key}\": {listed:?}"))
            .collect();
        format!(
            "{{\"experts\": {{{}}}, \"shared_experts\": {}, \"non_expert_modules\": {}}}",
            layers.join(", "),
            self.shared_experts,
            self.non_expert_modules
        )
    }

    /// Whether a model has all listed experts.
    ///
    /// # Errors
    /// Names the first layer or expert that it does not have.
    pub fn check(&self, config: &ModelConfig) -> Result<(), RoutingError> {
        for (&layer, listed) in &self.experts {
            if !config.is_moe_layer(layer) {
                return Err(RoutingError::NoSuchMoeLayer { layer });
            }
            if let Some(&expert) = listed.iter().find(|id| **id >= config.mixture.experts) {
                return Err(RoutingError::NoSuchExpert { layer, expert });
            }
        }
        Ok(())
    }
}

fn experts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ExpertMap, D::Error> {
    let layers = ByIndex {
        what: "layer",
        value: PhantomData::<Listed>,
    };
    let read = layers.deserialize(deserializer)?.into_iter();
    Ok(read.map(|(layer, listed)| (layer, listed.0)).collect())
}

/// The experts of a layer, each once.
struct Listed(Vec<usize>);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let listed = Vec::<usize>::deserialize(deserializer)?;
        let mut seen = BTreeSet::new();
        match listed.iter().find(|expert| !seen.insert(**expert)) {
            Some(expert) => Err(D::Error::custom(format!("expert {expert} is listed twice"))),
            None => Ok(Self(listed)),
        }
    }
}
