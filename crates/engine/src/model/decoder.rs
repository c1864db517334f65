//! The decoder from token ids to losses, and back to gradients.
//!
//! ```text
//! x = E[ids]
//! for every layer:   x += Attn(norm₁(x));   x += FFN(norm₂(x))
//! ℓ = cross-entropy of norm(x)·W_headᵀ against the next token
//! ```
//!
//! The backward pass walks the same lines upwards and stops at the lowest layer with something to
//! train. Layers either keep what their gradient needs or are computed again from their input. Knows
//! nothing of threads, files or optimisers, and computes only through the [`Device`].

use super::adaptive_router::{AdaptiveRouter, RouterLearning};
use super::attention;
use super::batch::Batch;
use super::feed_forward::{self, Backward};
use crate::config::ModelConfig;
use crate::device::{Device, HeadGradients, Keep, RmsNorm};
use crate::names::{FeedForward, Layer, Parameters};
use crate::routing::{Picks, RoutingPlan};

/// One batch on its way through the model.
#[derive(Debug)]
pub(crate) struct Pass<'a, D: Device> {
    pub(crate) device: &'a D,
    pub(crate) config: &'a ModelConfig,
    pub(crate) routing: &'a RoutingPlan,
    /// Covers the longest sequence of the batch.
    pub(crate) rotary: &'a D::Rotary,
    pub(crate) batch: &'a Batch<D>,
    /// Whether anything besides routed experts, shared experts and routers is trained.
    pub(crate) trains_backbone: bool,
    /// Corrections to routers, by layer; empty where there are none.
    pub(crate) adaptive: &'a [Option<AdaptiveRouter<D>>],
}

impl<'a, D: Device> Pass<'a, D> {
    /// What corrects a layer's router.
    pub(super) fn adaptive(&self, layer: usize) -> Option<&'a AdaptiveRouter<D>> {
        self.adaptive.get(layer)?.as_ref()
    }
}

/// How far the backward pass goes and what it starts from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BackwardPlan {
    /// Factor on every token's loss: one over the tokens of the whole step.
    pub(crate) scale: f32,
    /// The lowest layer with something to train; nothing below its second half needs a gradient. `None`
    /// when everything is trained.
    pub(crate) lowest_layer: Option<usize>,
    /// Whether the lowest layer's router, or its correction, is trained, whose gradient passes through the logits.
    pub(crate) trains_routers: bool,
    /// Whether layers keep what their gradient needs.
    pub(crate) activations: Activations,
}

/// What a layer holds between its forward and its backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activations {
    /// Everything that its gradient reads.
    Kept,
    /// Its input, from which the rest is computed again: one more forward pass for far less memory.
    Recomputed,
}

/// Where a backward pass finds weights and leaves gradients.
pub(crate) trait GradientSink<D: Device> {
    /// Embedding, final norm and head.
    fn outer(&mut self) -> (&Parameters<D::Weight>, OuterGradients<'_, D::Gradient>);
    /// One layer.
    fn layer(&mut self, index: usize) -> LayerSink<'_, D>;
    /// The gradients of one layer are whole.
    fn finish_layer(&mut self, index: usize);
}

/// One layer's weights, and where its gradients go.
#[derive(Debug)]
pub(crate) struct LayerSink<'a, D: Device> {
    pub(crate) weights: &'a Layer<D::Weight>,
    pub(crate) gradients: &'a mut Layer<Option<D::Gradient>>,
    /// Of the router's correction, if it has one.
    pub(crate) router: Option<&'a mut RouterLearning<D>>,
}

/// Gradients of what is in no layer, where they are wanted.
#[derive(Debug)]
pub(crate) struct OuterGradients<'a, G> {
    pub(crate) embedding: Option<&'a mut G>,
    pub(crate) norm: Option<&'a mut G>,
    pub(crate) head: Option<&'a mut G>,
}

impl<G> OuterGradients<'_, G> {
    /// Nothing is wanted.
    pub(crate) fn none() -> Self {
        Self {
            embedding: None,
            norm: None,
            head: None,
        }
    }
}

/// What one layer's gradient needs of its forward pass.
#[derive(Debug)]
struct LayerTrace<D: Device> {
    /// Residual stream before attention.
    input: D::Buffer,
    /// Absent in the lowest trained layer, whose first half has no gradient.
    attention: Option<attention::Trace<D::Buffer>>,
    /// Residual stream between attention and feed-forward.
    middle: D::Buffer,
    normed_middle: D::Buffer,
    feed_forward: feed_forward::Trace<D>,
}

/// What a layer leaves behind.
#[derive(Debug)]
enum LayerMemory<D: Device> {
    Nothing,
    Input(D::Buffer),
    Trace(Box<LayerTrace<D>>),
}

/// The final normed states `[tokens, hidden]`.
pub(crate) fn final_states<D: Device>(
    pass: &Pass<'_, D>,
    weights: &Parameters<D::Weight>,
) -> D::Buffer {
    let mut states = pass.device.embed(&weights.embedding, &pass.batch.ids);
    for (index, layer) in weights.layers.iter().enumerate() {
        states = layer_forward(pass, index, layer, &states, Keep::Nothing).0;
    }
    pass.device.rms_norm(&norm(pass, &states, &weights.norm))
}

/// What the router of every MoE layer decides; nothing is computed beyond the last one.
pub(crate) fn picks<D: Device>(
    pass: &Pass<'_, D>,
    weights: &Parameters<D::Weight>,
) -> Vec<(usize, Picks)> {
    let device = pass.device;
    let mut picks = Vec::new();
    let Some(last) = pass.config.moe_layers().last() else {
        return picks;
    };
    let mut states = device.embed(&weights.embedding, &pass.batch.ids);
    for (index, layer) in weights.layers[..=last].iter().enumerate() {
        let (middle, _) = attention_half(pass, layer, &states);
        let normed = device.rms_norm(&norm(pass, &middle, &layer.middle_norm));
        if let FeedForward::Mixture(mixture) = &layer.feed_forward {
            let routes = feed_forward::route(pass, index, mixture, &normed);
            picks.push((index, device.picks(&routes)));
        }
        if index < last {
            // Routes once more: one product of the router's few rows, against a second way through it.
            let forward = feed_forward::forward;
            states = forward(pass, index, &layer.feed_forward, &normed, Keep::Nothing).0;
            device.add(&middle, &mut states);
        }
    }
    picks
}

/// The loss of every predicted token, sequence after sequence.
pub(crate) fn losses<D: Device>(pass: &Pass<'_, D>, weights: &Parameters<D::Weight>) -> Vec<f32> {
    let states = final_states(pass, weights);
    let predicting = pass.device.gather(&states, &pass.batch.predicting);
    drop(states);
    pass.device
        .cross_entropy(&predicting, weights.head(), &pass.batch.targets, None)
}

/// The losses of [`losses`]; adds the gradients of `plan.scale · Σ losses` to the sink's, unless
/// `go_on(losses)` declines.
pub(crate) fn losses_with_gradients<D: Device>(
    pass: &Pass<'_, D>,
    plan: &BackwardPlan,
    sink: &mut impl GradientSink<D>,
    go_on: impl FnOnce(&[f32]) -> bool,
) -> Vec<f32> {
    let device = pass.device;
    let (states, mut memory) = {
        let (weights, _) = sink.outer();
        forward_for_backward(pass, plan, weights)
    };
    let (losses, by_states) = {
        let (weights, gradients) = sink.outer();
        head_backward(pass, weights, &states, plan.scale, gradients)
    };
    drop(states);
    if !go_on(&losses) {
        return losses;
    }
    let mut by_states = by_states;
    let lowest = plan.lowest_layer.unwrap_or(0);
    for index in (lowest..memory.len()).rev() {
        let left = std::mem::replace(&mut memory[index], LayerMemory::Nothing);
        let to = sink.layer(index);
        let trace = match left {
            LayerMemory::Trace(trace) => *trace,
            LayerMemory::Input(input) => {
                layer_forward(pass, index, to.weights, &input, Keep::Everything)
                    .1
                    .map(|trace| trace.with_input(input))
                    .unwrap_or_else(|| unreachable!("everything was to be kept"))
            }
            LayerMemory::Nothing => {
                unreachable!("layers from the lowest trained one up leave something")
            }
        };
        if plan.lowest_layer == Some(index) {
            let at = Backward {
                device,
                input: &trace.normed_middle,
                output_gradient: &by_states,
                adaptive: pass.adaptive(index),
            };
            let (weights, trace) = (&to.weights.feed_forward, trace.feed_forward);
            let gradients = &mut to.gradients.feed_forward;
            if plan.trains_routers {
                feed_forward::backward(&at, weights, trace, gradients, to.router);
            } else {
                feed_forward::backward_weights(&at, weights, trace, gradients, to.router);
            }
        } else {
            layer_backward(pass, index, to, trace, &mut by_states);
        }
        sink.finish_layer(index);
    }
    let (_, gradients) = sink.outer();
    if let Some(gradient) = gradients.embedding {
        device.embed_gradient(&by_states, &pass.batch.ids, gradient);
    }
    losses
}

/// The last layer's output, and what every layer leaves behind for its gradient.
fn forward_for_backward<D: Device>(
    pass: &Pass<'_, D>,
    plan: &BackwardPlan,
    weights: &Parameters<D::Weight>,
) -> (D::Buffer, Vec<LayerMemory<D>>) {
    let mut states = pass.device.embed(&weights.embedding, &pass.batch.ids);
    let mut memory = Vec::with_capacity(weights.layers.len());
    for (index, layer) in weights.layers.iter().enumerate() {
        let above = plan.lowest_layer.is_none_or(|lowest| index >= lowest);
        let keep = match plan.activations {
            Activations::Kept if above => Keep::Everything,
            Activations::Kept | Activations::Recomputed => Keep::Nothing,
        };
        let (output, trace) = layer_forward(pass, index, layer, &states, keep);
        let input = std::mem::replace(&mut states, output);
        memory.push(match trace {
            Some(trace) => {
                let mut trace = trace.with_input(input);
                if plan.lowest_layer == Some(index) {
                    trace.attention = None;
                }
                LayerMemory::Trace(Box::new(trace))
            }
            None if above => LayerMemory::Input(input),
            None => LayerMemory::Nothing,
        });
    }
    (states, memory)
}

/// Final norm, head and loss; returns the losses and the gradient of the last layer's output.
fn head_backward<D: Device>(
    pass: &Pass<'_, D>,
    weights: &Parameters<D::Weight>,
    states: &D::Buffer,
    scale: f32,
    gradients: OuterGradients<'_, D::Gradient>,
) -> (Vec<f32>, D::Buffer) {
    let device = pass.device;
    let norm = norm(pass, states, &weights.norm);
    let rows = &pass.batch.predicting;
    let predicting = device.gather(&device.rms_norm(&norm), rows); // [predicted, hidden]
    let mut by_predicting = None;
    // A tied head is the embedding: both of its uses add to one gradient.
    let head = match weights.head {
        None => gradients.embedding,
        Some(_) => gradients.head,
    };
    let wanted = HeadGradients {
        scale,
        hidden: &mut by_predicting,
        head,
    };
    let targets = &pass.batch.targets;
    let losses = device.cross_entropy(&predicting, weights.head(), targets, Some(wanted));
    let by_predicting = by_predicting.unwrap_or(predicting); // always set

    let by_normed = device.gather_gradient(&by_predicting, rows, pass.batch.tokens);
    let mut by_states = device.zeros_like(states);
    device.rms_norm_gradient(&norm, &by_normed, &mut by_states, gradients.norm);
    (losses, by_states)
}

/// A [`LayerTrace`] without the layer's input, which the caller owns.
#[derive(Debug)]
struct InnerTrace<D: Device> {
    attention: attention::Trace<D::Buffer>,
    middle: D::Buffer,
    normed_middle: D::Buffer,
    feed_forward: feed_forward::Trace<D>,
}

impl<D: Device> InnerTrace<D> {
    fn with_input(self, input: D::Buffer) -> LayerTrace<D> {
        LayerTrace {
            input,
            attention: Some(self.attention),
            middle: self.middle,
            normed_middle: self.normed_middle,
            feed_forward: self.feed_forward,
        }
    }
}

fn layer_forward<D: Device>(
    pass: &Pass<'_, D>,
    index: usize,
    weights: &Layer<D::Weight>,
    input: &D::Buffer,
    keep: Keep,
) -> (D::Buffer, Option<InnerTrace<D>>) {
    let device = pass.device;
    let (middle, attention) = attention_half(pass, weights, input);
    let attention = (keep == Keep::Everything).then_some(attention);

    let normed_middle = device.rms_norm(&norm(pass, &middle, &weights.middle_norm));
    let (mut output, feed_forward) =
        feed_forward::forward(pass, index, &weights.feed_forward, &normed_middle, keep);
    device.add(&middle, &mut output);
    let trace = attention
        .zip(feed_forward)
        .map(|(attention, feed_forward)| InnerTrace {
            attention,
            middle,
            normed_middle,
            feed_forward,
        });
    (output, trace)
}

/// `x + Attn(norm₁(x))`, and what its gradient needs.
fn attention_half<D: Device>(
    pass: &Pass<'_, D>,
    weights: &Layer<D::Weight>,
    input: &D::Buffer,
) -> (D::Buffer, attention::Trace<D::Buffer>) {
    let normed = pass
        .device
        .rms_norm(&norm(pass, input, &weights.input_norm));
    let (mut middle, trace) = attention::forward(pass, &weights.attention, normed);
    pass.device.add(input, &mut middle);
    (middle, trace)
}

/// Turns `by_states`, the gradient of the layer's output, into that of its input. The residual paths
/// need no code: each norm's gradient is added to what flows past it.
fn layer_backward<D: Device>(
    pass: &Pass<'_, D>,
    index: usize,
    to: LayerSink<'_, D>,
    trace: LayerTrace<D>,
    by_states: &mut D::Buffer,
) {
    let device = pass.device;
    let LayerSink {
        weights,
        gradients,
        router,
    } = to;
    let LayerTrace {
        input,
        attention,
        middle,
        normed_middle,
        feed_forward,
    } = trace;

    let at = Backward {
        device,
        input: &normed_middle,
        output_gradient: by_states,
        adaptive: pass.adaptive(index),
    };
    let (second_half, second_gradients) = (&weights.feed_forward, &mut gradients.feed_forward);
    let by_normed =
        feed_forward::backward(&at, second_half, feed_forward, second_gradients, router);
    drop(normed_middle);
    let middle_norm = norm(pass, &middle, &weights.middle_norm);
    let norm_gradient = gradients.middle_norm.as_mut();
    device.rms_norm_gradient(&middle_norm, &by_normed, by_states, norm_gradient);
    drop((middle, by_normed));

    let Some(attention) = attention else {
        return; // only the lowest trained layer has none, and does not come here
    };
    let by_normed = attention::backward(
        pass,
        &weights.attention,
        attention,
        by_states,
        &mut gradients.attention,
    );
    let input_norm = norm(pass, &input, &weights.input_norm);
    let norm_gradient = gradients.input_norm.as_mut();
    device.rms_norm_gradient(&input_norm, &by_normed, by_states, norm_gradient);
}

fn norm<'a, D: Device>(
    pass: &Pass<'_, D>,
    input: &'a D::Buffer,
    weight: &'a D::Weight,
) -> RmsNorm<'a, D> {
    RmsNorm {
        input,
        weight,
        epsilon: pass.config.rms_norm_eps as f32,
    }
}

impl<W> Parameters<W> {
    /// The map from hidden states to logits: the head, or the embedding where it is both.
    pub(super) fn head(&self) -> &W {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}
