//! A mixture of experts: the k routed ones that each token visits, and the shared ones that all do.
//!
//! ```text
//! y = Shared(x) + Σ_{i∈S} w_i·Expert_i(x)              S and w from the router (routing.rs)
//! ```
//!
//! Tokens are sorted by expert, so every expert multiplies consecutive rows. The gradient reaches the
//! input along three ways (routed experts, router, shared experts), the second also when the router is
//! frozen. Where nothing below is trained, the input gradient is not computed at all, and neither is
//! anything about experts without a wanted gradient.

use super::decoder::Pass;
use super::feed_forward::{Backward, NetworkTrace, network_backward, network_forward};
use super::parameters::{Mixture, SwiGlu};
use crate::device::{Device, RowMap};
use crate::routing::Dispatch;
use crate::tensor::Tensor;

/// What the gradient needs of the forward pass.
#[derive(Debug)]
pub(super) struct MixtureTrace<B> {
    /// Probabilities `[tokens, experts]`, on the host.
    scores: Tensor,
    dispatch: Dispatch,
    /// `[slots, width]`, rows sorted by expert.
    gate: B,
    /// `[slots, width]`.
    up: B,
    /// `[slots, hidden]`, before weighting.
    outputs: B,
    shared: NetworkTrace<B>,
}

/// The mixture of `layer` for normed `input` `[tokens, hidden]`.
pub(super) fn forward<D: Device>(
    pass: &Pass<'_, D>,
    layer: usize,
    weights: &Mixture<&D::Buffer>,
    input: &D::Buffer,
) -> (D::Buffer, MixtureTrace<D::Buffer>) {
    let device = pass.device;
    let probabilities = device.softmax(&device.linear(input, weights.router)); // [tokens, experts]
    let (tokens, experts) = (device.rows(&probabilities), pass.config.n_routed_experts);
    let scores = Tensor::matrix(tokens, experts, device.download(&probabilities));
    let dispatch = Dispatch::new(&scores, pass.routing.routable(layer), pass.config);

    let rows = device.gather_rows(input, &dispatch.tokens); // [slots, hidden]
    let groups = &dispatch.groups;
    let gate = device.grouped_linear(&rows, &each(weights, |expert| expert.gate), groups);
    let up = device.grouped_linear(&rows, &each(weights, |expert| expert.up), groups);
    let hidden = device.swiglu(&gate, &up); // [slots, width]
    let outputs = device.grouped_linear(&hidden, &each(weights, |expert| expert.down), groups);

    let (mut output, shared) = network_forward(device, &weights.shared, input);
    device.scatter_rows(&outputs, dispatch.row_map(), &mut output); // [tokens, hidden]
    let trace = MixtureTrace {
        scores,
        dispatch,
        gate,
        up,
        outputs,
        shared,
    };
    (output, trace)
}

/// Adds the wanted weight gradients; with `input_gradient`, also the input's.
pub(super) fn backward<D: Device>(
    at: &Backward<'_, D>,
    weights: &Mixture<&D::Buffer>,
    trace: MixtureTrace<D::Buffer>,
    gradients: &mut Mixture<Option<D::Buffer>>,
    mut input_gradient: Option<&mut D::Buffer>,
) {
    let device = at.device;
    let experts = &mut gradients.experts;
    let by_weights = experts_backward(at, weights, &trace, experts, input_gradient.as_deref_mut());
    let Some(input_gradient) = input_gradient else {
        return;
    };

    let by_logits = trace.dispatch.logit_gradient(&trace.scores, &by_weights);
    let (tokens, experts) = (by_logits.rows(), by_logits.width());
    let by_logits = device.upload(tokens, experts, by_logits.values); // [tokens, experts]
    device.linear_input_gradient(&by_logits, weights.router, input_gradient);
    device.linear_weight_gradient(&by_logits, at.input, gradients.router.as_mut());

    let shared = &mut gradients.shared;
    network_backward(at, &weights.shared, trace.shared, shared, input_gradient);
}

/// The routed experts' share of [`backward`]; returns `∂ℓ/∂w` of every slot.
fn experts_backward<D: Device>(
    at: &Backward<'_, D>,
    weights: &Mixture<&D::Buffer>,
    trace: &MixtureTrace<D::Buffer>,
    gradients: &mut [SwiGlu<Option<D::Buffer>>],
    input_gradient: Option<&mut D::Buffer>,
) -> Vec<f32> {
    let device = at.device;
    let (dispatch, gate, up) = (&trace.dispatch, &trace.gate, &trace.up);
    let mut groups = dispatch.groups.clone();
    if input_gradient.is_none() {
        for (group, expert) in groups.iter_mut().zip(gradients.iter()) {
            if expert.gate.is_none() {
                *group = group.start..group.start; // nobody asks for this expert's rows
            }
        }
    }

    let (by_outputs, by_weights) =
        device.scatter_rows_gradient(&trace.outputs, dispatch.row_map(), at.output_gradient);
    let mut by_hidden = device.zeros_like(gate); // [slots, width]
    let down = each(weights, |expert| expert.down);
    device.grouped_input_gradient(&by_outputs, &down, &groups, &mut by_hidden);
    let mut wanted = each_wanted(gradients, |expert| &mut expert.down);
    device.grouped_weight_gradient(&by_outputs, &device.swiglu(gate, up), &groups, &mut wanted);

    let (by_gate, by_up) = device.swiglu_gradient(gate, up, &by_hidden);
    let rows = device.gather_rows(at.input, &dispatch.tokens); // [slots, hidden]
    let mut wanted = each_wanted(gradients, |expert| &mut expert.gate);
    device.grouped_weight_gradient(&by_gate, &rows, &groups, &mut wanted);
    let mut wanted = each_wanted(gradients, |expert| &mut expert.up);
    device.grouped_weight_gradient(&by_up, &rows, &groups, &mut wanted);

    if let Some(input_gradient) = input_gradient {
        let mut by_rows = device.zeros_like(&rows);
        let gate = each(weights, |expert| expert.gate);
        device.grouped_input_gradient(&by_gate, &gate, &groups, &mut by_rows);
        let up = each(weights, |expert| expert.up);
        device.grouped_input_gradient(&by_up, &up, &groups, &mut by_rows);
        device.gather_rows_gradient(&by_rows, &dispatch.tokens, input_gradient);
    }
    by_weights
}

impl Dispatch {
    /// Where every slot's output goes, and with what weight.
    fn row_map(&self) -> RowMap<'_> {
        RowMap {
            rows: &self.tokens,
            scales: &self.weights,
        }
    }
}

/// One matrix of every expert.
fn each<'a, B>(weights: &Mixture<&'a B>, matrix: impl Fn(&SwiGlu<&'a B>) -> &'a B) -> Vec<&'a B> {
    weights.experts.iter().map(matrix).collect()
}

/// The gradient of one matrix of every expert, where wanted.
fn each_wanted<B>(
    experts: &mut [SwiGlu<Option<B>>],
    matrix: impl Fn(&mut SwiGlu<Option<B>>) -> &mut Option<B>,
) -> Vec<Option<&mut B>> {
    let gradients = experts.iter_mut().map(|expert| matrix(expert).as_mut());
    gradients.collect()
}
