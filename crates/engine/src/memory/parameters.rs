//! What the parameters of a plan take, and what the optimiser holds of them: exact, padding and scales
//! included.
//!
//! Follows from names and shapes. Experts of a layer are all alike, so that one of them is looked at and
//! the others are counted: a model of a hundred thousand experts is priced as fast as one of eight.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use crate::config::ModelConfig;
use crate::device::stored_bytes;
use crate::element::Element;
use crate::formula::Formula;
use crate::model::{Holding, Residency, layout};
use crate::names::{Parameters, Role};
use crate::optimizer::{BLOCK, MomentsFormat};
use crate::trainer::TrainableSet;

use super::F32;

/// Values of parameters that are stored alike, and what they take.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Stored {
    /// In the element of the plan.
    matrices: u64,
    /// In f32, whatever the plan says: norms, routers and their biases.
    vectors: u64,
    /// All of it.
    pub(super) bytes: u64,
}

impl Stored {
    fn add(&mut self, values: u64, bytes: u64, is_vector: bool) {
        let kind = if is_vector {
            &mut self.vectors
        } else {
            &mut self.matrices
        };
        *kind = kind.saturating_add(values);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// What values take by themselves, and what padding and scales add.
    fn formula(&self, element: Element, [matrices, vectors]: [&'static str; 2]) -> Formula {
        let value_bytes = match element {
            Element::F32 => F32,
            Element::Bf16 => 2,
            Element::Int8 | Element::Fp8 => 1,
        };
        let values = (Formula::constant(value_bytes) * Formula::quantity(matrices, self.matrices))
            .plus_if_any(Formula::constant(F32) * Formula::quantity(vectors, self.vectors));
        let rest = self.bytes.saturating_sub(values.count());
        let name = if element.is_scaled() {
            "scales_and_padding"
        } else {
            "padding"
        };
        values.plus_if_any(Formula::quantity(name, rest))
    }
}

/// What parameters take, and what the optimiser holds of them.
#[derive(Debug, Default)]
pub(super) struct ParameterBytes {
    pub(super) frozen: Stored,
    pub(super) trained: Stored,
    /// Trained values with the padding of their matrices, which gradients and moments have too.
    padded: u64,
    /// The same of the layer that has most of each shape: what is alive when gradients are released.
    padded_of_layer: u64,
    /// Blocks of trained values that share the scales of 8-bit moments.
    blocks: u64,
}

impl ParameterBytes {
    pub(super) fn new(config: &ModelConfig, holding: &Holding) -> Self {
        let experts = ExpertCounts::new(config, holding);
        let mut bytes = Self::default();
        // Gradients of one shape go from layer to layer.
        let mut of_layers: BTreeMap<(String, Vec<usize>), u64> = BTreeMap::new();
        let first = |_, expert| expert == 0;
        let Ok(_) = Parameters::build(config, &first, &mut |parameter| {
            let role = parameter.role;
            let [trained, frozen] = match role {
                Role::Expert { layer, .. } => experts.of(layer),
                role if holding.trainable.contains(role) => [1, 0],
                _ => [0, 1],
            };
            let (rows, width) = match *parameter.shape {
                [rows, width] => (rows, width),
                _ => (1, parameter.shape.iter().product()),
            };
            let layout = layout(config, role);
            let values = (rows as u64).saturating_mul(width as u64);
            let is_vector = matches!(role, Role::Norm | Role::Router | Role::RouterBias);
            let stored = |element| {
                let element = if is_vector { Element::F32 } else { element };
                stored_bytes(rows, width, layout, element)
            };
            let frozen_bytes = frozen.saturating_mul(stored(holding.plan.frozen));
            bytes
                .frozen
                .add(frozen.saturating_mul(values), frozen_bytes, is_vector);
            let trained_bytes = trained.saturating_mul(stored(holding.plan.trained));
            bytes
                .trained
                .add(trained.saturating_mul(values), trained_bytes, is_vector);

            let padded = stored(Element::F32) / F32;
            let blocks = trained.saturating_mul(padded.div_ceil(BLOCK as u64));
            bytes.blocks = bytes.blocks.saturating_add(blocks);
            let padded = trained.saturating_mul(padded);
            bytes.padded = bytes.padded.saturating_add(padded);
            let layer = parameter.name.split(".layers.").nth(1).unwrap_or_default();
            let layer = layer.split('.').next().unwrap_or_default().to_owned();
            let of_layer = of_layers
                .entry((layer, parameter.shape.to_vec()))
                .or_default();
            *of_layer = of_layer.saturating_add(padded);
            Ok::<_, Infallible>(())
        });
        let mut largest: BTreeMap<Vec<usize>, u64> = BTreeMap::new();
        for ((_, shape), padded) in of_layers {
            let most = largest.entry(shape).or_default();
            *most = (*most).max(padded);
        }
        bytes.padded_of_layer = largest.values().copied().fold(0, u64::saturating_add);
        bytes
    }

    pub(super) fn frozen_weights(&self, element: Element) -> Formula {
        let names = ["frozen_matrices", "frozen_norms_and_routers"];
        self.frozen.formula(element, names)
    }

    pub(super) fn trained_weights(&self, element: Element) -> Formula {
        let names = ["trained_matrices", "trained_norms_and_routers"];
        self.trained.formula(element, names)
    }

    /// Gradients are f32, whatever the weights are.
    pub(super) fn gradients(&self) -> Formula {
        Formula::constant(F32) * self.padded_values()
    }

    pub(super) fn gradients_of_a_layer(&self) -> Formula {
        let values = Formula::quantity("trained_values_of_a_layer", self.padded_of_layer);
        Formula::constant(F32) * values
    }

    pub(super) fn moments(&self, format: MomentsFormat) -> Formula {
        match format {
            MomentsFormat::F32 => Formula::constant(2 * F32) * self.padded_values(),
            MomentsFormat::Blockwise8 => {
                let blocks = Formula::quantity("blocks_of_256", self.blocks);
                Formula::constant(2) * self.padded_values() + Formula::constant(2 * F32) * blocks
            }
        }
    }

    fn padded_values(&self) -> Formula {
        Formula::quantity("trained_values", self.padded)
    }
}

/// How many experts of every layer are in memory, trained and frozen.
struct ExpertCounts {
    by_layer: BTreeMap<usize, [u64; 2]>,
}

impl ExpertCounts {
    fn new(config: &ModelConfig, holding: &Holding) -> Self {
        let count = |layer| {
            let resident = match &holding.residency {
                Residency::Whole => None,
                Residency::Slice(experts) => Some(listed(config, experts.get(&layer))),
            };
            let held = resident
                .as_ref()
                .map_or(config.mixture.experts, BTreeSet::len);
            let trained = match &holding.trainable {
                TrainableSet::Everything => held,
                TrainableSet::Mixture { experts, .. } => {
                    let trained = listed(config, experts.get(&layer));
                    resident.map_or(trained.len(), |held| held.intersection(&trained).count())
                }
            };
            (layer, [trained as u64, (held - trained) as u64])
        };
        Self {
            by_layer: config.moe_layers().map(count).collect(),
        }
    }

    fn of(&self, layer: usize) -> [u64; 2] {
        self.by_layer.get(&layer).copied().unwrap_or_default()
    }
}

/// The experts of a list that there are.
fn listed(config: &ModelConfig, experts: Option<&Vec<usize>>) -> BTreeSet<usize> {
    let listed = experts.into_iter().flatten().copied();
    listed.filter(|id| *id < config.mixture.experts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Layout;
    use crate::memory::MemoryPlan;

    /// Bytes of every parameter that is held, one by one.
    fn one_by_one(config: &ModelConfig, holding: &Holding) -> [u64; 2] {
        let mut sums = [0; 2];
        let resident = |layer, expert| holding.residency.holds(layer, expert);
        let Ok(_) = Parameters::build(config, &resident, &mut |parameter| {
            let (rows, width) = match *parameter.shape {
                [rows, width] => (rows, width),
                _ => (1, parameter.shape.iter().product()),
            };
            let layout = layout(config, parameter.role);
            let element = holding.element(parameter.role);
            let trained = holding.trainable.contains(parameter.role);
            sums[usize::from(trained)] += stored_bytes(rows, width, layout, element);
            Ok::<_, Infallible>(())
        });
        sums
    }

    /// What should not happen: a layer counted like its neighbour, an expert that is trained and not
    /// there, one that is listed twice, or one that the model does not have.
    #[test]
    fn counted_experts_take_what_each_of_them_takes() {
        let config = ModelConfig::tiny(100);
        let some = [(1, vec![0, 3, 5]), (2, vec![7]), (3, vec![2, 4])];
        let trained = [(1, vec![3]), (2, vec![7]), (3, vec![4])];
        let plan = MemoryPlan {
            frozen: Element::Int8,
            trained: Element::Bf16,
            ..MemoryPlan::default()
        };
        for (residency, trainable) in [
            (Residency::Whole, TrainableSet::Everything),
            (
                Residency::Whole,
                TrainableSet::experts(trained.clone().into()),
            ),
            (
                Residency::Slice(some.clone().into()),
                TrainableSet::Mixture {
                    experts: trained.into(),
                    shared: true,
                    routers: true,
                },
            ),
            (Residency::Slice(some.into()), TrainableSet::Everything),
        ] {
            let holding = Holding {
                residency,
                trainable,
                plan,
            };
            let bytes = ParameterBytes::new(&config, &holding);
            let [frozen, trained] = one_by_one(&config, &holding);
            assert_eq!([bytes.frozen.bytes, bytes.trained.bytes], [frozen, trained]);
            assert_eq!(bytes.frozen_weights(plan.frozen).count(), frozen);
            assert_eq!(bytes.trained_weights(plan.trained).count(), trained);
        }
        let odd = Holding {
            residency: Residency::Slice([(1, vec![0, 0, 99])].into()),
            trainable: TrainableSet::experts([(1, vec![0, 1, 99]), (2, vec![0])].into()),
            plan,
        };
        let of_layer = config.parameters().per_expert;
        assert_eq!(
            ParameterBytes::new(&config, &odd).trained.matrices,
            of_layer
        );
    }

    /// What is padded: panels are whole, tables are not padded.
    #[test]
    fn parameters_are_counted_with_their_padding() {
        let config = ModelConfig::tiny(100);
        let bytes = ParameterBytes::new(&config, &Holding::whole());
        let expected: u64 = {
            let mut sum = 0;
            let Ok(_) = Parameters::build(&config, &|_, _| true, &mut |parameter| {
                let values: usize = match *parameter.shape {
                    [rows, width] if layout(&config, parameter.role) == Layout::Linear => {
                        rows.next_multiple_of(32) * width
                    }
                    _ => parameter.shape.iter().product(),
                };
                sum += 4 * values as u64;
                Ok::<_, Infallible>(())
            });
            sum
        };
        assert_eq!(bytes.trained.bytes + bytes.frozen.bytes, expected);
        assert_eq!(bytes.gradients().count(), bytes.trained.bytes);
    }
}
