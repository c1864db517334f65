//! The decoder from token ids to losses, and back to gradients.
//!
//! ```text
//! x = E[ids]
//! for every layer:   x += Attn(norm₁(x));   x += FFN(norm₂(x))
//! ℓ = cross-entropy of norm(x)·W_headᵀ against the next token
//! ```
//!
//! The backward pass walks the same lines upwards and stops at the lowest layer with something to
//! train. Knows nothing of threads, files or optimisers, and computes only through the [`Device`].

use super::attention;
use super::batch::Batch;
use super::feed_forward::{self, Backward};
use super::parameters::{Layer, Parameters};
use crate::config::ModelConfig;
use crate::device::{Device, HeadGradients, RmsNorm, RotaryTable};
use crate::routing::RoutingPlan;

/// One batch on its way through the model.
#[derive(Debug)]
pub(crate) struct Pass<'a, D> {
    pub(crate) device: &'a D,
    pub(crate) config: &'a ModelConfig,
    pub(crate) routing: &'a RoutingPlan,
    /// Covers the longest sequence of the batch.
    pub(crate) rotary: &'a RotaryTable,
    pub(crate) batch: &'a Batch,
}

/// Gradients under accumulation: a buffer for every weight that is trained.
#[derive(Debug)]
pub(crate) struct Gradients<B> {
    pub(crate) parameters: Parameters<Option<B>>,
    /// The lowest layer with a trained expert when only experts are trained; nothing below it, nor that
    /// layer's own input, needs a gradient. `None` when everything is trained.
    pub(crate) lowest_layer: Option<usize>,
}

/// What one layer's gradient needs of its forward pass.
#[derive(Debug)]
struct LayerTrace<B> {
    /// Residual stream before attention.
    input: B,
    attention: attention::Trace<B>,
    /// Residual stream between attention and feed-forward.
    middle: B,
    normed_middle: B,
    feed_forward: feed_forward::Trace<B>,
}

/// The final normed states `[tokens, hidden]`.
pub(crate) fn final_states<D: Device>(
    pass: &Pass<'_, D>,
    weights: &Parameters<&D::Buffer>,
) -> D::Buffer {
    let mut states = pass.device.gather_rows(weights.embedding, &pass.batch.ids);
    for (index, layer) in weights.layers.iter().enumerate() {
        states = layer_forward(pass, index, layer, states).0;
    }
    pass.device.rms_norm(&norm(pass, &states, weights.norm))
}

/// The loss of every predicted token, sequence after sequence.
pub(crate) fn losses<D: Device>(pass: &Pass<'_, D>, weights: &Parameters<&D::Buffer>) -> Vec<f32> {
    let states = final_states(pass, weights);
    let predicting = pass.device.gather_rows(&states, &pass.batch.predicting());
    let targets = pass.batch.targets();
    pass.device
        .cross_entropy(&predicting, weights.head, &targets, None)
}

/// The same losses; adds the gradient of `scale` times their sum.
pub(crate) fn losses_with_gradients<D: Device>(
    pass: &Pass<'_, D>,
    weights: &Parameters<&D::Buffer>,
    scale: f32,
    gradients: &mut Gradients<D::Buffer>,
) -> Vec<f32> {
    let device = pass.device;
    let mut states = device.gather_rows(weights.embedding, &pass.batch.ids);
    let mut traces = Vec::with_capacity(weights.layers.len());
    for (index, layer) in weights.layers.iter().enumerate() {
        let (output, trace) = layer_forward(pass, index, layer, states);
        states = output;
        let keep = gradients.lowest_layer.is_none_or(|lowest| index >= lowest);
        traces.extend(keep.then_some((index, trace)));
    }

    let (losses, mut by_states) =
        head_backward(pass, weights, &states, scale, &mut gradients.parameters);
    for (index, trace) in traces.into_iter().rev() {
        let weights = &weights.layers[index];
        let layer = &mut gradients.parameters.layers[index];
        if gradients.lowest_layer == Some(index) {
            let at = Backward {
                device,
                input: &trace.normed_middle,
                output_gradient: &by_states,
            };
            let (weights, gradients) = (&weights.feed_forward, &mut layer.feed_forward);
            feed_forward::backward(&at, weights, trace.feed_forward, gradients, None);
        } else {
            layer_backward(pass, weights, trace, layer, &mut by_states);
        }
    }
    if let Some(gradient) = &mut gradients.parameters.embedding {
        device.gather_rows_gradient(&by_states, &pass.batch.ids, gradient);
    }
    losses
}

/// Final norm, head and loss; returns the losses and the gradient of the last layer's output.
fn head_backward<D: Device>(
    pass: &Pass<'_, D>,
    weights: &Parameters<&D::Buffer>,
    states: &D::Buffer,
    scale: f32,
    gradients: &mut Parameters<Option<D::Buffer>>,
) -> (Vec<f32>, D::Buffer) {
    let device = pass.device;
    let norm = norm(pass, states, weights.norm);
    let rows = pass.batch.predicting();
    let predicting = device.gather_rows(&device.rms_norm(&norm), &rows); // [predicted, hidden]
    let mut by_predicting = device.zeros_like(&predicting);
    let head = HeadGradients {
        scale,
        hidden: &mut by_predicting,
        head: gradients.head.as_mut(),
    };
    let targets = pass.batch.targets();
    let losses = device.cross_entropy(&predicting, weights.head, &targets, Some(head));

    let mut by_normed = device.zeros_like(states);
    device.gather_rows_gradient(&by_predicting, &rows, &mut by_normed);
    let mut by_states = device.zeros_like(states);
    device.rms_norm_gradient(&norm, &by_normed, &mut by_states, gradients.norm.as_mut());
    (losses, by_states)
}

fn layer_forward<D: Device>(
    pass: &Pass<'_, D>,
    index: usize,
    weights: &Layer<&D::Buffer>,
    input: D::Buffer,
) -> (D::Buffer, LayerTrace<D::Buffer>) {
    let device = pass.device;
    let normed = device.rms_norm(&norm(pass, &input, weights.input_norm));
    let (mut middle, attention) = attention::forward(pass, &weights.attention, normed);
    device.add(&input, &mut middle);

    let normed_middle = device.rms_norm(&norm(pass, &middle, weights.middle_norm));
    let (mut output, feed_forward) =
        feed_forward::forward(pass, index, &weights.feed_forward, &normed_middle);
    device.add(&middle, &mut output);
    let trace = LayerTrace {
        input,
        attention,
        middle,
        normed_middle,
        feed_forward,
    };
    (output, trace)
}

/// Turns `by_states`, the gradient of the layer's output, into that of its input. The residual paths
/// need no code: each norm's gradient is added to what flows past it.
fn layer_backward<D: Device>(
    pass: &Pass<'_, D>,
    weights: &Layer<&D::Buffer>,
    trace: LayerTrace<D::Buffer>,
    gradients: &mut Layer<Option<D::Buffer>>,
    by_states: &mut D::Buffer,
) {
    let device = pass.device;
    let LayerTrace {
        input,
        attention,
        middle,
        normed_middle,
        feed_forward,
    } = trace;

    let mut by_normed = device.zeros_like(&normed_middle);
    let at = Backward {
        device,
        input: &normed_middle,
        output_gradient: by_states,
    };
    let (second_half, second_gradients) = (&weights.feed_forward, &mut gradients.feed_forward);
    feed_forward::backward(
        &at,
        second_half,
        feed_forward,
        second_gradients,
        Some(&mut by_normed),
    );
    let middle_norm = norm(pass, &middle, weights.middle_norm);
    let norm_gradient = gradients.middle_norm.as_mut();
    device.rms_norm_gradient(&middle_norm, &by_normed, by_states, norm_gradient);

    let by_normed = attention::backward(
        pass,
        &weights.attention,
        attention,
        by_states,
        &mut gradients.attention,
    );
    let input_norm = norm(pass, &input, weights.input_norm);
    let norm_gradient = gradients.input_norm.as_mut();
    device.rms_norm_gradient(&input_norm, &by_normed, by_states, norm_gradient);
}

fn norm<'a, D: Device>(
    pass: &Pass<'_, D>,
    input: &'a D::Buffer,
    weight: &'a D::Buffer,
) -> RmsNorm<'a, D::Buffer> {
    let epsilon = pass.config.rms_norm_eps as f32;
    RmsNorm {
        input,
        weight,
        epsilon,
    }
}
