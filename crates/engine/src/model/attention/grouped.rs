//! Grouped-query attention, with the norms and bounds that families put on queries and keys.
//!
//! ```text
//! q, k, v = W·x      q, k ← norm(q), norm(k)      q, k, v ← clip(q, k, v)      q, k ← turned
//! ```

use super::{if_trained, layout, rotation, weight_gradient};
use crate::config::AttentionConfig;
use crate::device::{AttentionInputs, Device, RmsNorm, Turn};
use crate::model::decoder::Pass;
use crate::names::GroupedAttention;

/// What the gradient needs of the forward pass.
#[derive(Debug)]
pub(in crate::model) struct Trace<B> {
    input: Option<B>,
    queries: Projected<B>,
    keys: Projected<B>,
    values: Projected<B>,
    output: Option<B>,
    log_sums: B,
}

/// One of queries, keys and values on its way from the projection to attention.
#[derive(Debug)]
struct Projected<B> {
    /// Before the norm, where there is one.
    raw: Option<B>,
    /// Before the bound, where there is one.
    unbounded: Option<B>,
    /// What attention reads.
    ready: B,
}

pub(super) fn forward<D: Device>(
    pass: &Pass<'_, D>,
    weights: &GroupedAttention<D::Weight>,
    input: D::Buffer,
) -> (D::Buffer, Trace<D::Buffer>) {
    let device = pass.device;
    let [query_norm, key_norm] = norms(weights);
    let mut queries = project(pass, &input, &weights.queries, query_norm); // [tokens, h·d]
    let mut keys = project(pass, &input, &weights.keys, key_norm); // [tokens, g·d]
    let values = project(pass, &input, &weights.values, None);
    let [heads, key_heads] = heads(pass);
    device.rotate(&mut queries.ready, &rotation(pass, heads, Turn::Forward));
    device.rotate(&mut keys.ready, &rotation(pass, key_heads, Turn::Forward));

    let inputs = AttentionInputs {
        queries: &queries.ready,
        keys: &keys.ready,
        values: &values.ready,
    };
    let attended = device.attention(&inputs, &layout(pass)); // [tokens, h·d]
    let output = device.linear(&attended.output, &weights.output); // [tokens, hidden]
    let trace = Trace {
        input: if_trained(pass, input),
        queries,
        keys,
        values,
        output: if_trained(pass, attended.output),
        log_sums: attended.log_sums,
    };
    (output, trace)
}

fn project<D: Device>(
    pass: &Pass<'_, D>,
    input: &D::Buffer,
    weight: &D::Weight,
    norm: Option<&D::Weight>,
) -> Projected<D::Buffer> {
    let device = pass.device;
    let mut ready = device.linear(input, weight);
    let raw = norm.map(|weight| {
        let normed = device.rms_norm(&head_norm(pass, &ready, weight));
        std::mem::replace(&mut ready, normed)
    });
    let unbounded = bound(pass).map(|bound| {
        let unbounded = device.copy(&ready);
        device.clip(&mut ready, bound);
        unbounded
    });
    Projected {
        raw,
        unbounded,
        ready,
    }
}

pub(super) fn backward<D: Device>(
    pass: &Pass<'_, D>,
    weights: &GroupedAttention<D::Weight>,
    trace: Trace<D::Buffer>,
    by_output: &D::Buffer,
    gradients: &mut GroupedAttention<Option<D::Gradient>>,
) -> D::Buffer {
    let device = pass.device;
    let Trace {
        input,
        queries,
        keys,
        values,
        output,
        log_sums,
    } = trace;
    let by_attended = device.linear_input_gradient(by_output, &weights.output);
    weight_gradient(device, by_output, output.as_ref(), &mut gradients.output);
    let inputs = AttentionInputs {
        queries: &queries.ready,
        keys: &keys.ready,
        values: &values.ready,
    };
    let mut by = device.attention_gradient(&inputs, &log_sums, &by_attended, &layout(pass));
    let [heads, key_heads] = heads(pass);
    device.rotate(&mut by.queries, &rotation(pass, heads, Turn::Back));
    device.rotate(&mut by.keys, &rotation(pass, key_heads, Turn::Back));

    let [query_norm, key_norm] = norms(weights);
    let [by_query_norm, by_key_norm] = match &mut gradients.norms {
        Some([query, key]) => [query.as_mut(), key.as_mut()],
        None => [None, None],
    };
    let by_queries = unproject(pass, (queries, query_norm), by.queries, by_query_norm);
    let by_keys = unproject(pass, (keys, key_norm), by.keys, by_key_norm);
    let by_values = unproject(pass, (values, None), by.values, None);

    let mut by_input = device.linear_input_gradient(&by_queries, &weights.queries);
    device.linear_input_gradient_add(&by_keys, &weights.keys, &mut by_input);
    device.linear_input_gradient_add(&by_values, &weights.values, &mut by_input);
    let input = input.as_ref();
    weight_gradient(device, &by_queries, input, &mut gradients.queries);
    weight_gradient(device, &by_keys, input, &mut gradients.keys);
    weight_gradient(device, &by_values, input, &mut gradients.values);
    by_input
}

/// From the gradient of what attention reads to that of the projection.
fn unproject<D: Device>(
    pass: &Pass<'_, D>,
    (projected, norm): (Projected<D::Buffer>, Option<&D::Weight>),
    by_ready: D::Buffer,
    by_norm: Option<&mut D::Gradient>,
) -> D::Buffer {
    let device = pass.device;
    let mut by_ready = by_ready;
    if let (Some(unbounded), Some(bound)) = (&projected.unbounded, bound(pass)) {
        device.clip_gradient(unbounded, bound, &mut by_ready);
    }
    let (Some(raw), Some(weight)) = (&projected.raw, norm) else {
        return by_ready;
    };
    let mut by_raw = device.zeros_like(raw);
    let norm = head_norm(pass, raw, weight);
    device.rms_norm_gradient(&norm, &by_ready, &mut by_raw, by_norm);
    by_raw
}

fn norms<W>(weights: &GroupedAttention<W>) -> [Option<&W>; 2] {
    match &weights.norms {
        Some([query, key]) => [Some(query), Some(key)],
        None => [None, None],
    }
}

/// A norm's width is that of its weight: one head, or the whole projection.
fn head_norm<'a, D: Device>(
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

fn heads<D: Device>(pass: &Pass<'_, D>) -> [usize; 2] {
    let heads = pass.config.num_attention_heads;
    match pass.config.attention {
        AttentionConfig::Grouped { key_heads, .. } => [heads, key_heads],
        AttentionConfig::Latent { .. } => [heads, heads],
    }
}

fn bound<D: Device>(pass: &Pass<'_, D>) -> Option<f32> {
    match pass.config.attention {
        AttentionConfig::Grouped { clip, .. } => clip,
        AttentionConfig::Latent { .. } => None,
    }
}
