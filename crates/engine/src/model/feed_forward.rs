//! The second half of a layer: one SwiGLU network in the dense layers, a mixture in the others.
//!
//! ```text
//! y = down(silu(gate·x) ⊙ up·x)
//! ```

use super::decoder::Pass;
use super::mixture::{self, MixtureTrace};
use super::parameters::{FeedForward, SwiGlu};
use crate::device::Device;

/// What the gradient needs of the forward pass.
#[derive(Debug)]
pub(super) enum Trace<B> {
    Dense(NetworkTrace<B>),
    Mixture(Box<MixtureTrace<B>>),
}

/// What the gradient of one SwiGLU network needs of its forward pass.
#[derive(Debug)]
pub(super) struct NetworkTrace<B> {
    gate: B,
    up: B,
}

/// Where a backward pass through the second half of a layer starts: all `[tokens, hidden]`.
#[derive(Debug)]
pub(super) struct Backward<'a, D: Device> {
    pub(super) device: &'a D,
    /// What the forward pass was given.
    pub(super) input: &'a D::Buffer,
    /// The gradient of what it returned.
    pub(super) output_gradient: &'a D::Buffer,
}

/// `FFN(x)` of `layer` for normed `input` `[tokens, hidden]`.
pub(super) fn forward<D: Device>(
    pass: &Pass<'_, D>,
    layer: usize,
    weights: &FeedForward<&D::Buffer>,
    input: &D::Buffer,
) -> (D::Buffer, Trace<D::Buffer>) {
    match weights {
        FeedForward::Dense(network) => {
            let (output, trace) = network_forward(pass.device, network, input);
            (output, Trace::Dense(trace))
        }
        FeedForward::Mixture(mixture) => {
            let (output, trace) = mixture::forward(pass, layer, mixture, input);
            (output, Trace::Mixture(Box::new(trace)))
        }
    }
}

/// Adds the gradients of the weights that are wanted and, with `input_gradient`, the input's. Without
/// it only routed experts can have gradients: something below is trained whenever anything else is.
pub(super) fn backward<D: Device>(
    at: &Backward<'_, D>,
    weights: &FeedForward<&D::Buffer>,
    trace: Trace<D::Buffer>,
    gradients: &mut FeedForward<Option<D::Buffer>>,
    input_gradient: Option<&mut D::Buffer>,
) {
    match (weights, trace, gradients) {
        (FeedForward::Dense(weights), Trace::Dense(trace), FeedForward::Dense(gradients)) => {
            if let Some(input_gradient) = input_gradient {
                network_backward(at, weights, trace, gradients, input_gradient);
            }
        }
        (FeedForward::Mixture(weights), Trace::Mixture(trace), FeedForward::Mixture(gradients)) => {
            mixture::backward(at, weights, *trace, gradients, input_gradient);
        }
        _ => unreachable!("weights, traces and gradients are built from one configuration"),
    }
}

/// One SwiGLU network for `input` `[tokens, hidden]`.
pub(super) fn network_forward<D: Device>(
    device: &D,
    weights: &SwiGlu<&D::Buffer>,
    input: &D::Buffer,
) -> (D::Buffer, NetworkTrace<D::Buffer>) {
    let gate = device.linear(input, weights.gate); // [tokens, width]
    let up = device.linear(input, weights.up); // [tokens, width]
    let output = device.linear(&device.swiglu(&gate, &up), weights.down); // [tokens, hidden]
    (output, NetworkTrace { gate, up })
}

/// Adds the wanted weight gradients, and the input's to `input_gradient`.
pub(super) fn network_backward<D: Device>(
    at: &Backward<'_, D>,
    weights: &SwiGlu<&D::Buffer>,
    trace: NetworkTrace<D::Buffer>,
    gradients: &mut SwiGlu<Option<D::Buffer>>,
    input_gradient: &mut D::Buffer,
) {
    let device = at.device;
    let NetworkTrace { gate, up } = trace;
    let mut by_hidden = device.zeros_like(&gate); // [tokens, width]
    device.linear_input_gradient(at.output_gradient, weights.down, &mut by_hidden);
    if gradients.down.is_some() {
        let hidden = device.swiglu(&gate, &up); // cheaper to compute again than to keep
        device.linear_weight_gradient(at.output_gradient, &hidden, gradients.down.as_mut());
    }
    let (by_gate, by_up) = device.swiglu_gradient(&gate, &up, &by_hidden);
    device.linear_weight_gradient(&by_gate, at.input, gradients.gate.as_mut());
    device.linear_weight_gradient(&by_up, at.input, gradients.up.as_mut());
    device.linear_input_gradient(&by_gate, weights.gate, input_gradient);
    device.linear_input_gradient(&by_up, weights.up, input_gradient);
}
