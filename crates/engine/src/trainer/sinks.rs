//! Where a backward pass leaves gradients: kept until the step is whole, or one layer's at a time.

use std::collections::BTreeMap;

use super::{Stepping, TrainableSet};
use crate::device::Device;
use crate::model::Description;
use crate::model::adaptive_router::RouterLearning;
use crate::model::decoder::{GradientSink, LayerSink, OuterGradients};
use crate::names::{Layer, Parameters};

/// Gradients of everything at once.
pub(super) struct KeptSink<'a, D: Device> {
    pub(super) weights: &'a Parameters<D::Weight>,
    pub(super) gradients: &'a mut Parameters<Option<D::Gradient>>,
    /// Of corrected routers, by layer; empty where there are none.
    pub(super) routers: &'a mut [Option<RouterLearning<D>>],
}

impl<D: Device> GradientSink<D> for KeptSink<'_, D> {
    fn outer(&mut self) -> (&Parameters<D::Weight>, OuterGradients<'_, D::Gradient>) {
        let outer = OuterGradients {
            embedding: self.gradients.embedding.as_mut(),
            norm: self.gradients.norm.as_mut(),
            head: self.gradients.head.as_mut().and_then(Option::as_mut),
        };
        (self.weights, outer)
    }

    fn layer(&mut self, index: usize) -> LayerSink<'_, D> {
        LayerSink {
            weights: &self.weights.layers[index],
            gradients: &mut self.gradients.layers[index],
            router: self.routers.get_mut(index).and_then(Option::as_mut),
        }
    }

    fn finish_layer(&mut self, _: usize) {}
}

/// Cleared gradients by shape, to be used by one layer after the other.
#[derive(Debug)]
pub(super) struct GradientPool<D: Device>(BTreeMap<Vec<usize>, Vec<D::Gradient>>);

impl<D: Device> Default for GradientPool<D> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// Gradients of one layer at a time, which is stepped as soon as they are whole.
pub(super) struct ReleasedSink<'a, D: Device> {
    pub(super) device: &'a D,
    pub(super) weights: &'a mut Parameters<D::Weight>,
    pub(super) trainable: &'a TrainableSet,
    pub(super) descriptions: &'a [Description],
    /// The first leaf of every layer in the model's order.
    pub(super) first_leaves: Vec<usize>,
    pub(super) stepping: Stepping,
    pub(super) moments: &'a mut [Option<D::Moments>],
    /// Of one layer's gradient.
    pub(super) largest_norm: f64,
    pub(super) pool: &'a mut GradientPool<D>,
    pub(super) current: Option<Layer<Option<D::Gradient>>>,
    /// Sum of squares of all gradients so far.
    pub(super) squares: f64,
}

pub(super) fn first_leaves<W>(weights: &Parameters<W>) -> Vec<usize> {
    let mut next = 1; // the embedding comes first
    let layers = weights.layers.iter().map(|layer| {
        let first = next;
        layer.map_ref(&mut |_| next += 1);
        first
    });
    layers.collect()
}

impl<D: Device> GradientSink<D> for ReleasedSink<'_, D> {
    fn outer(&mut self) -> (&Parameters<D::Weight>, OuterGradients<'_, D::Gradient>) {
        (self.weights, OuterGradients::none())
    }

    fn layer(&mut self, index: usize) -> LayerSink<'_, D> {
        let mut descriptions = self.descriptions[self.first_leaves[index]..].iter();
        let weights = &self.weights.layers[index];
        let gradients = weights.map_ref(&mut |weight| {
            let parameter = descriptions.next()?;
            self.trainable.contains(parameter.role).then(|| {
                let spare = self.pool.0.get_mut(&parameter.shape).and_then(Vec::pop);
                spare.unwrap_or_else(|| self.device.gradient(weight))
            })
        });
        LayerSink {
            weights,
            gradients: self.current.insert(gradients),
            router: None,
        }
    }

    fn finish_layer(&mut self, index: usize) {
        let Some(gradients) = self.current.take() else {
            return;
        };
        let mut squares = 0.0;
        gradients.map_ref(&mut |gradient| {
            squares += gradient
                .as_ref()
                .map_or(0.0, |gradient| self.device.sum_of_squares(gradient));
        });
        self.squares += squares;
        // After one gradient that is not finite nothing more is stepped: the sum never recovers.
        let clip = (self.largest_norm / squares.sqrt()).min(1.0) as f32;
        let mut gradients = flatten(gradients).into_iter();
        let mut leaf = self.first_leaves[index];
        self.weights.layers[index].map_mut(&mut |weight| {
            let (parameter, moments) = (&self.descriptions[leaf], &mut self.moments[leaf]);
            let step = self.stepping.of(parameter, clip);
            leaf += 1;
            let (Some(mut gradient), Some(moments)) = (gradients.next().flatten(), moments) else {
                return;
            };
            if self.squares.is_finite() {
                self.device.adamw(weight, &gradient, moments, &step);
            }
            self.device.clear(&mut gradient);
            let shape = parameter.shape.clone();
            self.pool.0.entry(shape).or_default().push(gradient);
        });
    }
}

fn flatten<G>(layer: Layer<Option<G>>) -> Vec<Option<G>> {
    let mut leaves = Vec::new();
    layer.map(&mut |leaf| leaves.push(leaf));
    leaves
}
