//! The second half of a layer: one SwiGLU network in the dense layers, a mixture of experts in the others.
//!
//! ```text
//! dense      y = down(silu(gate·x) ⊙ up·x)
//! mixture    y = Shared(x) + Σ_{i∈S} w_i·Expert_i(x)         S and w from the router (routing.rs),
//!                                                            adapted where it is (adaptive_router.rs)
//! ```
//!
//! The gradient of a mixture reaches the input along three ways (routed experts, router, shared experts),
//! the second also when the router is frozen. Where nothing below is trained, the input gradient is not
//! computed at all, and neither is anything about experts without a wanted gradient.

use super::adaptive_router::{AdaptiveRouter, RouterLearning, RouterTrace};
use super::decoder::Pass;
use crate::device::{Device, Gate, Gated, Keep, RoutedExperts, Saved};
use crate::names::{FeedForward, Mixture};

/// What the gradient needs of the forward pass.
#[derive(Debug)]
pub(super) enum Trace<D: Device> {
    Dense(Gated<D::Buffer>),
    Mixture(Box<MixtureTrace<D>>),
}

/// What a mixture's gradient needs of its forward pass.
#[derive(Debug)]
pub(super) struct MixtureTrace<D: Device> {
    routes: D::Routes,
    experts: Gated<D::Buffer>,
    shared: Option<Gated<D::Buffer>>,
    /// Present where the pass adapts the router.
    router: Option<RouterTrace<D>>,
}

/// Where a backward pass through the second half of a layer starts: all `[tokens, hidden]`.
#[derive(Debug)]
pub(super) struct Backward<'a, D: Device> {
    pub(super) device: &'a D,
    /// What the forward pass was given.
    pub(super) input: &'a D::Buffer,
    /// The gradient of what it returned.
    pub(super) output_gradient: &'a D::Buffer,
    /// What the forward pass adapted the router with.
    pub(super) adaptive: Option<&'a AdaptiveRouter<D>>,
}

impl<'a, D: Device> Backward<'a, D> {
    fn saved(&self, gated: Gated<D::Buffer>) -> Saved<'a, D> {
        Saved {
            input: self.input,
            gated,
            by_output: self.output_gradient,
        }
    }
}

/// `FFN(x)` of `layer` for normed `input` `[tokens, hidden]`.
pub(super) fn forward<D: Device>(
    pass: &Pass<'_, D>,
    layer: usize,
    weights: &FeedForward<D::Weight>,
    input: &D::Buffer,
    keep: Keep,
) -> (D::Buffer, Option<Trace<D>>) {
    match weights {
        FeedForward::Dense(network) => {
            let (output, gated) = pass.device.network(input, network, keep);
            (output, gated.map(Trace::Dense))
        }
        FeedForward::Mixture(mixture) => mixture_forward(pass, layer, mixture, input, keep),
    }
}

/// Which experts every token of normed `input` `[tokens, hidden]` visits in `layer`.
pub(super) fn route<D: Device>(
    pass: &Pass<'_, D>,
    layer: usize,
    weights: &Mixture<D::Weight>,
    input: &D::Buffer,
) -> D::Routes {
    let logits = pass.device.linear(input, &weights.router); // [tokens, experts]
    pass.device.route(&logits, &gate(pass, layer, weights))
}

fn gate<'a, D: Device>(
    pass: &Pass<'a, D>,
    layer: usize,
    weights: &'a Mixture<D::Weight>,
) -> Gate<'a, D> {
    Gate {
        rule: &pass.config.mixture.gate,
        routing: pass.routing.layer(layer),
        per_token: pass.config.mixture.per_token,
        bias: weights.bias.as_ref(),
    }
}

fn mixture_forward<D: Device>(
    pass: &Pass<'_, D>,
    layer: usize,
    weights: &Mixture<D::Weight>,
    input: &D::Buffer,
    keep: Keep,
) -> (D::Buffer, Option<Trace<D>>) {
    let device = pass.device;
    let logits = device.linear(input, &weights.router); // [tokens, experts]
    let gate = gate(pass, layer, weights);
    let (routes, router) = match pass.adaptive(layer) {
        None => (device.route(&logits, &gate), None),
        Some(adaptive) => {
            let router = adaptive.forward(device, input, logits, pass.batch.tokens);
            (device.route(&router.adapted, &gate), Some(router))
        }
    };
    let (mut output, shared) = match &weights.shared {
        Some(network) => device.network(input, network, keep),
        None => (device.zeros_like(input), None),
    };
    let experts = device.experts(routed(weights, &routes), input, keep, &mut output);
    let trace = experts.map(|experts| {
        Trace::Mixture(Box::new(MixtureTrace {
            routes,
            experts,
            shared,
            router,
        }))
    });
    (output, trace)
}

fn routed<'a, D: Device>(
    weights: &'a Mixture<D::Weight>,
    routes: &'a D::Routes,
) -> RoutedExperts<'a, D> {
    RoutedExperts {
        experts: &weights.experts,
        routes,
    }
}

/// Adds the gradients of the weights that are wanted; returns that of the input.
pub(super) fn backward<D: Device>(
    at: &Backward<'_, D>,
    weights: &FeedForward<D::Weight>,
    trace: Trace<D>,
    gradients: &mut FeedForward<Option<D::Gradient>>,
    router: Option<&mut RouterLearning<D>>,
) -> D::Buffer {
    let device = at.device;
    match (weights, trace, gradients) {
        (FeedForward::Dense(network), Trace::Dense(gated), FeedForward::Dense(gradients)) => {
            let mut by_input = device.zeros_like(at.input);
            device.network_gradient(
                network,
                at.saved(gated),
                Some(gradients),
                Some(&mut by_input),
            );
            by_input
        }
        (FeedForward::Mixture(weights), Trace::Mixture(trace), FeedForward::Mixture(gradients)) => {
            mixture_backward(at, weights, *trace, gradients, router)
        }
        _ => unreachable!("weights, traces and gradients are built from one configuration"),
    }
}

fn mixture_backward<D: Device>(
    at: &Backward<'_, D>,
    weights: &Mixture<D::Weight>,
    trace: MixtureTrace<D>,
    gradients: &mut Mixture<Option<D::Gradient>>,
    router: Option<&mut RouterLearning<D>>,
) -> D::Buffer {
    let device = at.device;
    let mut by_input = device.zeros_like(at.input);
    if let Some((network, gated)) = weights.shared.as_ref().zip(trace.shared) {
        let gradients = gradients.shared.as_mut();
        device.network_gradient(network, at.saved(gated), gradients, Some(&mut by_input));
    }
    let by_logits = device.experts_gradient(
        routed(weights, &trace.routes),
        at.saved(trace.experts),
        &mut gradients.experts,
        Some(&mut by_input),
    );
    if let Some(by_logits) = by_logits {
        device.linear_input_gradient_add(&by_logits, &weights.router, &mut by_input);
        if let Some(gradient) = &mut gradients.router {
            device.linear_weight_gradient(&by_logits, at.input, gradient);
        }
        if let Some((adaptive, adapted)) = at.adaptive.zip(trace.router.as_ref()) {
            adaptive.input_gradient_add(at, adapted, &by_logits, &mut by_input);
            if let Some(router) = router {
                router.count(device, &trace.routes);
                adaptive.learn(at, adapted, &by_logits, router);
            }
        }
    }
    by_input
}

/// As [`backward`] where neither the input's nor the router's gradient is wanted.
pub(super) fn backward_weights<D: Device>(
    at: &Backward<'_, D>,
    weights: &FeedForward<D::Weight>,
    trace: Trace<D>,
    gradients: &mut FeedForward<Option<D::Gradient>>,
    router: Option<&mut RouterLearning<D>>,
) {
    let (FeedForward::Mixture(weights), Trace::Mixture(trace), FeedForward::Mixture(gradients)) =
        (weights, trace, gradients)
    else {
        return; // a dense layer's network is trained only together with everything
    };
    let device = at.device;
    if let Some(router) = router {
        router.count(device, &trace.routes);
    }
    if let Some((network, gated)) = weights.shared.as_ref().zip(trace.shared) {
        device.network_gradient(network, at.saved(gated), gradients.shared.as_mut(), None);
    }
    device.experts_gradient(
        routed(weights, &trace.routes),
        at.saved(trace.experts),
        &mut gradients.experts,
        None,
    );
}
