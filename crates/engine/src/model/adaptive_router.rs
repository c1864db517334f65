//! A correction to a frozen router that is learnt beside it (arXiv 2509.16882), for a local trainer.
//!
//! ```text
//! R_adapt(h) = R(h) + W₂·gelu(W₁·h + b₁) + b₂
//! ```
//!
//! The paper initialises W₂ "from the router", whose shape does not allow a copy. This reading adds to the
//! router instead and begins with W₂ = b₂ = 0: until it has learnt something, routing is the model's own.
//! Biases are the last columns of their maps, which read an input with a 1 appended.
//!
//! Two gradients come back from one pass. The hidden states get that of the task's loss, like everything
//! below them; W and b get the one of `λ·KL + (1−λ)·loss`, where the divergence is that of R_adapt from
//! R. Knows no schedule and no domains; never part of a checkpoint.

use super::feed_forward::Backward;
use crate::config::ModelConfig;
use crate::device::{Blend, Device, Distilled, Layout};
use crate::element::Element;
use crate::random::Stream;
use crate::tensor::Tensor;

/// The correction of one layer's router.
#[derive(Debug)]
pub(crate) struct AdaptiveRouter<D: Device> {
    /// `W₁|b₁`, `[width, hidden+1]`, and `W₂|b₂`, `[experts, width+1]`.
    pub(crate) maps: [D::Weight; 2],
    /// `[1, 1]`: the 1 that is appended.
    one: D::Weight,
    hidden: usize,
    width: usize,
}

/// What its gradient needs of the forward pass.
#[derive(Debug)]
pub(super) struct RouterTrace<D: Device> {
    /// `R(h)`, `[tokens, experts]`.
    original: D::Buffer,
    /// `R_adapt(h)`, `[tokens, experts]`.
    pub(super) adapted: D::Buffer,
    /// `W₁·h + b₁`, `[tokens, width]`.
    features: D::Buffer,
    /// `[tokens, 1]`.
    ones: D::Buffer,
}

/// What backward passes leave of one layer's router.
#[derive(Debug)]
pub(crate) struct RouterLearning<D: Device> {
    /// Of both maps; `None` once the router no longer learns.
    pub(crate) gradients: Option<[D::Gradient; 2]>,
    pub(crate) blend: Blend,
    /// Summed over tokens.
    pub(crate) divergence: f64,
    /// Of every expert.
    pub(crate) visits: Vec<u64>,
}

impl<D: Device> RouterLearning<D> {
    /// Counts which experts a batch has visited.
    pub(super) fn count(&mut self, device: &D, routes: &D::Routes) {
        for expert in device.picks(routes).experts.into_iter().flatten() {
            self.visits[expert] += 1;
        }
    }
}

impl<D: Device> AdaptiveRouter<D> {
    /// The correction that corrects nothing yet, `width` wide; W₁ after Kaiming (arXiv 1502.01852).
    pub(crate) fn new(device: &D, config: &ModelConfig, width: usize, stream: Stream) -> Self {
        let (hidden, experts) = (config.hidden_size, config.mixture.experts);
        let mut first = Tensor::zeros(&[width, hidden + 1]);
        let deviation = (2.0 / hidden as f32).sqrt();
        for row in 0..width {
            let row_values = &mut first.row_mut(row)[..hidden];
            stream.fill((row * hidden) as u64, deviation, row_values);
        }
        let second = Tensor::zeros(&[experts, width + 1]);
        let one = Tensor::matrix(1, 1, vec![1.0]);
        let map = |tensor: &Tensor| device.weight(tensor, Layout::Linear, Element::F32);
        Self {
            maps: [map(&first), map(&second)],
            one: device.weight(&one, Layout::Table, Element::F32),
            hidden,
            width,
        }
    }

    /// `R_adapt` from `R`'s `logits` `[tokens, experts]` on the same `input` `[tokens, hidden]`.
    pub(super) fn forward(
        &self,
        device: &D,
        input: &D::Buffer,
        logits: D::Buffer,
        tokens: usize,
    ) -> RouterTrace<D> {
        let ones = device.embed(&self.one, &device.indices(&vec![0; tokens])); // [tokens, 1]
        let [first, second] = &self.maps;
        let features = device.linear(&device.join_columns(input, &ones), first);
        let bent = device.join_columns(&device.gelu(&features), &ones);
        let mut adapted = device.linear(&bent, second);
        device.add(&logits, &mut adapted);
        RouterTrace {
            original: logits,
            adapted,
            features,
            ones,
        }
    }

    /// Adds the gradients of W and b to what they have learnt so far; `by_logits` `[tokens, experts]` is the
    /// gradient of the task's loss.
    pub(super) fn learn(
        &self,
        at: &Backward<'_, D>,
        trace: &RouterTrace<D>,
        by_logits: &D::Buffer,
        learning: &mut RouterLearning<D>,
    ) {
        let Some([by_first, by_second]) = &mut learning.gradients else {
            return;
        };
        let device = at.device;
        let logits = Distilled {
            teacher: &trace.original,
            student: &trace.adapted,
        };
        let mut signal = device.copy(by_logits);
        learning.divergence += device.distil(logits, &learning.blend, &mut signal);
        let bent = device.join_columns(&device.gelu(&trace.features), &trace.ones);
        device.linear_weight_gradient(&signal, &bent, by_second);
        let by_features = self.feature_gradient(device, trace, &signal);
        let input = device.join_columns(at.input, &trace.ones);
        device.linear_weight_gradient(&by_features, &input, by_first);
    }

    /// Adds the gradient that reaches the input through the correction; `R`'s own path is the layer's.
    pub(super) fn input_gradient_add(
        &self,
        at: &Backward<'_, D>,
        trace: &RouterTrace<D>,
        by_logits: &D::Buffer,
        by_input: &mut D::Buffer,
    ) {
        let device = at.device;
        let by_features = self.feature_gradient(device, trace, by_logits);
        let by_extended = device.linear_input_gradient(&by_features, &self.maps[0]);
        let (by_hidden, _) = device.split_columns(&by_extended, self.hidden);
        device.add(&by_hidden, by_input);
    }

    /// `[tokens, width]`.
    fn feature_gradient(
        &self,
        device: &D,
        trace: &RouterTrace<D>,
        by_adapted: &D::Buffer,
    ) -> D::Buffer {
        let by_bent = device.linear_input_gradient(by_adapted, &self.maps[1]);
        let (mut by_features, _) = device.split_columns(&by_bent, self.width);
        device.gelu_gradient(&trace.features, &mut by_features);
        by_features
    }
}
