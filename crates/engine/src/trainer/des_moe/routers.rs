//! The corrections of all layers' routers: their signal, their gradients and their steps.
//!
//! A correction exists in every MoE layer with a trained expert. Its signal is set once a step, for λ is
//! the step's; what passes leave is read once per domain (visits) and once a step (divergence, gradients).

use super::super::{clip, norm};
use super::Settings;
use crate::device::{Blend, Device};
use crate::model::Model;
use crate::model::adaptive_router::{AdaptiveRouter, RouterLearning};
use crate::optimizer::{AdamW, MomentsFormat};
use crate::random::Stream;
use crate::routing::ExpertMap;

/// One entry for each of the model's layers in all three, `None` where nothing is corrected.
#[derive(Debug)]
pub(super) struct Routers<D: Device> {
    pub(super) adaptive: Vec<Option<AdaptiveRouter<D>>>,
    pub(super) learning: Vec<Option<RouterLearning<D>>>,
    moments: Vec<Option<[D::Moments; 2]>>,
}

impl<D: Device> Routers<D> {
    /// Corrections that correct nothing yet.
    pub(super) fn new(model: &Model<D>, experts: &ExpertMap, settings: &Settings) -> Self {
        let (device, config) = (model.device(), model.config());
        let width = settings.router_width.unwrap_or(4 * config.hidden_size);
        let adaptive: Vec<_> = (0..config.num_hidden_layers)
            .map(|layer| {
                let wanted = experts.get(&layer).is_some_and(|listed| !listed.is_empty());
                wanted.then(|| {
                    let name = format!("layers.{layer}.adaptive_router");
                    AdaptiveRouter::new(device, config, width, Stream::new(settings.seed, &name))
                })
            })
            .collect();
        let each = || adaptive.iter().map(Option::as_ref);
        let learning = each().map(|router| {
            Some(RouterLearning {
                gradients: Some(router?.maps.each_ref().map(|map| device.gradient(map))),
                blend: settings.blend(0, 1),
                divergence: 0.0,
                visits: vec![0; config.mixture.experts],
            })
        });
        let zeros = |map| device.moments(map, MomentsFormat::F32);
        let moments = each().map(|router| Some(router?.maps.each_ref().map(zeros)));
        Self {
            learning: learning.collect(),
            moments: moments.collect(),
            adaptive,
        }
    }

    /// What all corrections learn from until the next call.
    pub(super) fn listen(&mut self, blend: Blend) {
        for learning in self.learning.iter_mut().flatten() {
            learning.blend = blend;
            learning.divergence = 0.0;
        }
    }

    /// Ends the learning and frees its memory.
    pub(super) fn freeze(&mut self) {
        for learning in self.learning.iter_mut().flatten() {
            learning.gradients = None;
        }
        self.moments.fill_with(|| None);
    }

    /// Layer → visits of every expert since the last call.
    pub(super) fn take_visits(&mut self) -> Vec<(usize, Vec<u64>)> {
        let layers = self.learning.iter_mut().enumerate();
        let visited = layers.filter_map(|(layer, learning)| {
            let visits = &mut learning.as_mut()?.visits;
            let none = vec![0; visits.len()];
            Some((layer, std::mem::replace(visits, none)))
        });
        visited.collect()
    }

    /// Mean over layers of the divergence summed over tokens.
    pub(super) fn divergence(&self) -> f64 {
        let each = self.learning.iter().flatten();
        let (mut sum, mut layers) = (0.0, 0);
        for learning in each {
            sum += learning.divergence;
            layers += 1;
        }
        sum / f64::from(layers.max(1))
    }

    /// Of all corrections as one.
    pub(super) fn gradient_norm(&self, device: &D) -> f64 {
        let learning = self.learning.iter().flatten();
        norm(
            device,
            learning.flat_map(|learning| learning.gradients.iter().flatten()),
        )
    }

    /// Steps every correction that learns; `norm` is the gradient's.
    pub(super) fn step(&mut self, device: &D, adamw: AdamW, (number, rate): (u64, f32), norm: f64) {
        // Both maps are f32: no random bits are used.
        let step = adamw.step(number, rate, clip(norm), 0);
        let layers = self.adaptive.iter_mut().zip(&self.learning);
        for ((router, learning), moments) in layers.zip(&mut self.moments) {
            let gradients = learning
                .as_ref()
                .and_then(|learning| learning.gradients.as_ref());
            let (Some(router), Some(gradients), Some(moments)) = (router, gradients, moments)
            else {
                continue;
            };
            for ((map, gradient), moments) in router.maps.iter_mut().zip(gradients).zip(moments) {
                device.adamw(map, gradient, moments, &step);
            }
        }
    }

    /// Makes all gradients zero.
    pub(super) fn clear(&mut self, device: &D) {
        let learning = self.learning.iter_mut().flatten();
        for gradient in learning.flat_map(|learning| learning.gradients.iter_mut().flatten()) {
            device.clear(gradient);
        }
    }
}
