//! Multi-head latent attention.

use super::{if_trained, layout, rotation, weight_gradient};
use crate::config::AttentionConfig;
use crate::device::{AttentionInputs, Device, LatentHeads, RmsNorm, Turn};
use crate::model::decoder::Pass;
use crate::names::{LatentAttention, LatentQueries};

/// ε of the latent norms: a constant of the architecture, whatever `rms_norm_eps` says.
const LATENT_EPSILON: f32 = 1e-6;

/// What the gradient needs of the forward pass.
#[derive(Debug)]
pub(in crate::model) struct Trace<B> {
    input: Option<B>,
    query_latent: Option<QueryLatent<B>>,
    queries: B,
    latent: B,
    normed_latent: Option<B>,
    keys: B,
    values: B,
    output: Option<B>,
    log_sums: B,
}

/// The queries' own latent, before and after its norm.
#[derive(Debug)]
struct QueryLatent<B> {
    latent: B,
    normed: Option<B>,
}

pub(super) fn forward<D: Device>(
    pass: &Pass<'_, D>,
    weights: &LatentAttention<D::Weight>,
    input: D::Buffer,
) -> (D::Buffer, Trace<D::Buffer>) {
    let device = pass.device;
    let heads = heads(pass);

    let (mut queries, query_latent) = queries(pass, &weights.queries, &input); // [tokens, h·(n+r)]
    device.rotate(&mut queries, &rotation(pass, heads.heads, Turn::Forward));

    let compressed = device.linear(&input, &weights.compress); // [tokens, c+r]
    let (latent, mut shared_key) = device.split_columns(&compressed, rank(pass));
    drop(compressed);
    device.rotate(&mut shared_key, &rotation(pass, 1, Turn::Forward)); // [tokens, r]
    let normed_latent = device.rms_norm(&latent_norm(&latent, &weights.latent_norm)); // [tokens, c]

    let expanded = device.linear(&normed_latent, &weights.expand); // [tokens, h·(n+v)]
    let (keys, values) = device.assemble(&expanded, &shared_key, heads);
    drop(expanded);

    let inputs = AttentionInputs {
        queries: &queries,
        keys: &keys,
        values: &values,
    };
    let attended = device.attention(&inputs, &layout(pass)); // [tokens, h·v]
    let output = device.linear(&attended.output, &weights.output); // [tokens, hidden]
    let trace = Trace {
        input: if_trained(pass, input),
        query_latent,
        queries,
        latent,
        normed_latent: if_trained(pass, normed_latent),
        keys,
        values,
        output: if_trained(pass, attended.output),
        log_sums: attended.log_sums,
    };
    (output, trace)
}

/// Queries before rotation.
fn queries<D: Device>(
    pass: &Pass<'_, D>,
    weights: &LatentQueries<D::Weight>,
    input: &D::Buffer,
) -> (D::Buffer, Option<QueryLatent<D::Buffer>>) {
    let device = pass.device;
    match weights {
        LatentQueries::Direct(weight) => (device.linear(input, weight), None),
        LatentQueries::LowRank {
            compress,
            norm,
            expand,
        } => {
            let latent = device.linear(input, compress); // [tokens, q]
            let normed = device.rms_norm(&latent_norm(&latent, norm));
            let queries = device.linear(&normed, expand);
            let normed = if_trained(pass, normed);
            (queries, Some(QueryLatent { latent, normed }))
        }
    }
}

pub(super) fn backward<D: Device>(
    pass: &Pass<'_, D>,
    weights: &LatentAttention<D::Weight>,
    trace: Trace<D::Buffer>,
    by_output: &D::Buffer,
    gradients: &mut LatentAttention<Option<D::Gradient>>,
) -> D::Buffer {
    let device = pass.device;
    let Trace {
        input,
        query_latent,
        queries,
        latent,
        normed_latent,
        keys,
        values,
        output,
        log_sums,
    } = trace;

    let by_attended = device.linear_input_gradient(by_output, &weights.output);
    weight_gradient(device, by_output, output.as_ref(), &mut gradients.output);

    let inputs = AttentionInputs {
        queries: &queries,
        keys: &keys,
        values: &values,
    };
    let mut by = device.attention_gradient(&inputs, &log_sums, &by_attended, &layout(pass));
    drop((queries, keys, values, output, log_sums, by_attended));
    // A turn is orthogonal: its gradient is the turn back.
    let heads = pass.config.num_attention_heads;
    device.rotate(&mut by.queries, &rotation(pass, heads, Turn::Back));

    let at = KeysBackward {
        by_keys: &by.keys,
        by_values: &by.values,
        latent: &latent,
        normed: normed_latent.as_ref(),
    };
    let by_compressed = keys_backward(pass, weights, at, gradients);
    let mut by_input = device.linear_input_gradient(&by_compressed, &weights.compress);
    weight_gradient(
        device,
        &by_compressed,
        input.as_ref(),
        &mut gradients.compress,
    );
    let at = QueriesBackward {
        by_queries: &by.queries,
        input: input.as_ref(),
        latent: query_latent,
    };
    queries_backward(
        pass,
        &weights.queries,
        at,
        &mut gradients.queries,
        &mut by_input,
    );
    by_input
}

/// Where the backward pass through keys and values starts.
struct KeysBackward<'a, B> {
    by_keys: &'a B,
    by_values: &'a B,
    latent: &'a B,
    normed: Option<&'a B>,
}

/// The gradient of the compressed latent and rotated key part, side by side.
fn keys_backward<D: Device>(
    pass: &Pass<'_, D>,
    weights: &LatentAttention<D::Weight>,
    at: KeysBackward<'_, D::Buffer>,
    gradients: &mut LatentAttention<Option<D::Gradient>>,
) -> D::Buffer {
    let device = pass.device;
    let (by_expanded, mut by_shared_key) =
        device.assemble_gradient(at.by_keys, at.by_values, heads(pass));
    device.rotate(&mut by_shared_key, &rotation(pass, 1, Turn::Back));

    let by_normed = device.linear_input_gradient(&by_expanded, &weights.expand);
    weight_gradient(device, &by_expanded, at.normed, &mut gradients.expand);
    let mut by_latent = device.zeros_like(at.latent);
    let norm = latent_norm(at.latent, &weights.latent_norm);
    let by_norm = gradients.latent_norm.as_mut();
    device.rms_norm_gradient(&norm, &by_normed, &mut by_latent, by_norm);
    device.join_columns(&by_latent, &by_shared_key)
}

/// Where the backward pass through the queries starts.
struct QueriesBackward<'a, B> {
    by_queries: &'a B,
    input: Option<&'a B>,
    latent: Option<QueryLatent<B>>,
}

fn queries_backward<D: Device>(
    pass: &Pass<'_, D>,
    weights: &LatentQueries<D::Weight>,
    at: QueriesBackward<'_, D::Buffer>,
    gradients: &mut LatentQueries<Option<D::Gradient>>,
    by_input: &mut D::Buffer,
) {
    let device = pass.device;
    match (weights, gradients, at.latent) {
        (LatentQueries::Direct(weight), LatentQueries::Direct(gradient), _) => {
            device.linear_input_gradient_add(at.by_queries, weight, by_input);
            weight_gradient(device, at.by_queries, at.input, gradient);
        }
        (
            LatentQueries::LowRank {
                compress,
                norm,
                expand,
            },
            LatentQueries::LowRank {
                compress: by_compress,
                norm: by_norm,
                expand: by_expand,
            },
            Some(QueryLatent { latent, normed }),
        ) => {
            let by_normed = device.linear_input_gradient(at.by_queries, expand);
            weight_gradient(device, at.by_queries, normed.as_ref(), by_expand);
            let mut by_latent = device.zeros_like(&latent);
            let norm = latent_norm(&latent, norm);
            device.rms_norm_gradient(&norm, &by_normed, &mut by_latent, by_norm.as_mut());
            device.linear_input_gradient_add(&by_latent, compress, by_input);
            weight_gradient(device, &by_latent, at.input, by_compress);
        }
        _ => unreachable!("weights, traces and gradients are built from one configuration"),
    }
}

fn latent_norm<'a, D: Device>(latent: &'a D::Buffer, weight: &'a D::Weight) -> RmsNorm<'a, D> {
    RmsNorm {
        input: latent,
        weight,
        epsilon: LATENT_EPSILON,
    }
}

fn heads<D: Device>(pass: &Pass<'_, D>) -> LatentHeads {
    let AttentionConfig::Latent {
        nope, rope, value, ..
    } = pass.config.attention
    else {
        unreachable!("weights are built from the configuration")
    };
    LatentHeads {
        heads: pass.config.num_attention_heads,
        nope,
        rope,
        value,
    }
}

fn rank<D: Device>(pass: &Pass<'_, D>) -> usize {
    match pass.config.attention {
        AttentionConfig::Latent { rank, .. } => rank,
        AttentionConfig::Grouped { .. } => {
            unreachable!("weights are built from the configuration")
        }
    }
}
