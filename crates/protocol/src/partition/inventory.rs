//! What there is to divide: layer → expert → the names of its tensors.
//!
//! Whoever knows a model's naming makes one; dividing needs nothing else. Checked where it is made:
//! every layer has the same experts, numbered from 0, and every expert equally many tensors, each of
//! which belongs to it alone. Knows neither shapes nor values.

use std::collections::{BTreeMap, BTreeSet};

/// Tensor names by layer and expert, before they are checked.
pub type ParameterKeys = BTreeMap<usize, BTreeMap<usize, BTreeSet<String>>>;

/// The routed experts of a model and the names of their tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    layers: BTreeMap<usize, Vec<Vec<String>>>,
    experts: usize,
}

impl Inventory {
    /// Takes the tensors of every routed expert.
    ///
    /// # Errors
    /// No experts at all; a layer with a gap in its numbering or with more experts than the first; an
    /// expert with more or fewer tensors than the first; a tensor of two experts.
    pub fn new(parameters: ParameterKeys) -> Result<Self, InventoryError> {
        let first = parameters.iter().find(|(_, experts)| !experts.is_empty());
        let (&first_layer, of_first) = first.ok_or(InventoryError::NoExperts)?;
        let (experts, tensors) = (
            of_first.len(),
            of_first.values().next().map_or(0, BTreeSet::len),
        );
        let mut seen = BTreeSet::new();
        for (&layer, found) in &parameters {
            if let Some(expert) = (0..found.len()).find(|expert| !found.contains_key(expert)) {
                return Err(InventoryError::MissingExpert { layer, expert });
            }
            if found.len() != experts {
                return Err(InventoryError::Experts {
                    layer,
                    found: found.len(),
                    first_layer,
                    expected: experts,
                });
            }
            for (&expert, keys) in found {
                if keys.len() != tensors || keys.is_empty() {
                    return Err(InventoryError::Tensors {
                        layer,
                        expert,
                        found: keys.len(),
                        expected: tensors,
                    });
                }
                if let Some(key) = keys.iter().find(|key| !seen.insert(key.as_str())) {
                    return Err(InventoryError::KeyTwice { key: key.clone() });
                }
            }
        }
        let sorted = |experts: BTreeMap<usize, BTreeSet<String>>| {
            let keys = experts.into_values();
            keys.map(|keys| keys.into_iter().collect()).collect()
        };
        let layers = parameters.into_iter();
        Ok(Self {
            layers: layers.map(|(layer, keys)| (layer, sorted(keys))).collect(),
            experts,
        })
    }

    /// Experts in every layer.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// Layers that have experts, ascending.
    pub fn layers(&self) -> impl Iterator<Item = usize> + '_ {
        self.layers.keys().copied()
    }

    /// The sorted tensor names of an expert; `None` where there is no such layer or expert.
    #[must_use]
    pub fn keys(&self, layer: usize, expert: usize) -> Option<&[String]> {
        self.layers.get(&layer)?.get(expert).map(Vec::as_slice)
    }

    /// Whether a layer has experts.
    #[must_use]
    pub fn has_layer(&self, layer: usize) -> bool {
        self.layers.contains_key(&layer)
    }

    /// Layer and expert of every tensor.
    pub(super) fn places(&self) -> BTreeMap<&str, (usize, usize)> {
        let mut places = BTreeMap::new();
        for (layer, experts) in &self.layers {
            for (expert, keys) in experts.iter().enumerate() {
                places.extend(keys.iter().map(|key| (key.as_str(), (*layer, expert))));
            }
        }
        places
    }
}

/// Why tensors make no inventory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InventoryError {
    /// Nothing to divide.
    #[error("there are no routed experts")]
    NoExperts,
    /// A gap in the numbering.
    #[error("layer {layer} has no expert {expert}, but experts after it")]
    MissingExpert {
        /// The layer.
        layer: usize,
        /// The first expert that is not there.
        expert: usize,
    },
    /// Layers of different sizes.
    #[error("layer {layer} has {found} experts, layer {first_layer} has {expected}")]
    Experts {
        /// The layer.
        layer: usize,
        /// How many experts it has.
        found: usize,
        /// The first layer with experts.
        first_layer: usize,
        /// How many experts that one has.
        expected: usize,
    },
    /// An expert with another number of tensors than the first.
    #[error("expert {expert} of layer {layer} has {found} tensors, others have {expected}")]
    Tensors {
        /// The layer.
        layer: usize,
        /// The expert.
        expert: usize,
        /// How many tensors it has.
        found: usize,
        /// How many the first expert has.
        expected: usize,
    },
    /// A tensor of two experts.
    #[error("tensor {key} belongs to two experts")]
    KeyTwice {
        /// The tensor name.
        key: String,
    },
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Experts of two tensors each.
    pub(crate) fn parameters(layers: &[usize], experts: usize) -> ParameterKeys {
        let keys = |layer: usize, expert: usize| {
            ["down", "up"].map(|matrix| format!("layers.{layer}.experts.{expert}.{matrix}"))
        };
        let of_layer = |layer: usize| {
            let experts = 0..experts;
            experts.map(move |expert| (expert, keys(layer, expert).into()))
        };
        let layers = layers.iter();
        layers
            .map(|layer| (*layer, of_layer(*layer).collect()))
            .collect()
    }

    pub(crate) fn inventory(layers: &[usize], experts: usize) -> Inventory {
        Inventory::new(parameters(layers, experts)).unwrap()
    }

    #[test]
    fn gaps_differences_and_doubles_are_named() {
        assert_eq!(
            Inventory::new(BTreeMap::new()),
            Err(InventoryError::NoExperts)
        );
        let broken = |change: fn(&mut ParameterKeys)| {
            let mut parameters = parameters(&[1, 2], 4);
            change(&mut parameters);
            Inventory::new(parameters).unwrap_err().to_string()
        };
        let gap = broken(|layers| drop(layers.get_mut(&2).unwrap().remove(&1)));
        assert_eq!(gap, "layer 2 has no expert 1, but experts after it");
        let fewer = broken(|layers| drop(layers.get_mut(&2).unwrap().remove(&3)));
        assert_eq!(fewer, "layer 2 has 3 experts, layer 1 has 4");
        let short = broken(|layers| {
            let expert = layers.get_mut(&1).unwrap().get_mut(&2).unwrap();
            expert.pop_last();
        });
        assert_eq!(short, "expert 2 of layer 1 has 1 tensors, others have 2");
        let double = broken(|layers| {
            let keys = layers[&1][&0].clone();
            layers.get_mut(&2).unwrap().insert(3, keys);
        });
        assert_eq!(
            double,
            "tensor layers.1.experts.0.down belongs to two experts"
        );
    }
}
