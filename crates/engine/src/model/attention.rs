//! Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1) and its gradient.
//!
//! Keys and values of all heads are expanded from one normalised latent per token; the part of a key
//! that turns with position is shared by all heads and bypasses the latent.
//!
//! Shapes: `h` heads, `n`/`r`/`v` nope, rope and value widths of a head, `c` latent width.

use super::decoder::Pass;
use super::parameters::Attention;
use crate::device::{
    Attended, AttentionInputs, AttentionLayout, Device, LatentHeads, RmsNorm, Rotation,
};

/// ε of the latent norm: a constant of the architecture, whatever `rms_norm_eps` says.
const LATENT_EPSILON: f32 = 1e-6;

/// What the gradient needs of the forward pass.
#[derive(Debug)]
pub(super) struct Trace<B> {
    input: B,
    queries: B,
    latent: B,
    normed_latent: B,
    keys: B,
    values: B,
    attended: Attended<B>,
}

/// `Attn(x)` for normed `input` `[tokens, hidden]`.
pub(super) fn forward<D: Device>(
    pass: &Pass<'_, D>,
    weights: &Attention<&D::Buffer>,
    input: D::Buffer,
) -> (D::Buffer, Trace<D::Buffer>) {
    let device = pass.device;
    let heads = heads(pass);

    let mut queries = device.linear(&input, weights.queries); // [tokens, h·(n+r)]
    device.rotate(&mut queries, &rotation(pass, heads.heads));

    let compressed = device.linear(&input, weights.compress); // [tokens, c+r]
    let (latent, mut shared_key) = device.split_columns(&compressed, pass.config.kv_lora_rank);
    device.rotate(&mut shared_key, &rotation(pass, 1)); // [tokens, r]
    let normed_latent = device.rms_norm(&latent_norm(&latent, weights)); // [tokens, c]

    let expanded = device.linear(&normed_latent, weights.expand); // [tokens, h·(n+v)]
    let (keys, values) = device.assemble_keys_values(&expanded, &shared_key, heads);

    let inputs = AttentionInputs {
        queries: &queries,
        keys: &keys,
        values: &values,
    };
    let attended = device.attention(&inputs, &layout(pass)); // [tokens, h·v]
    let output = device.linear(&attended.output, weights.output); // [tokens, hidden]
    let trace = Trace {
        input,
        queries,
        latent,
        normed_latent,
        keys,
        values,
        attended,
    };
    (output, trace)
}

/// Adds the gradients of the weights that are wanted; returns that of the normed input.
pub(super) fn backward<D: Device>(
    pass: &Pass<'_, D>,
    weights: &Attention<&D::Buffer>,
    trace: Trace<D::Buffer>,
    output_gradient: &D::Buffer,
    gradients: &mut Attention<Option<D::Buffer>>,
) -> D::Buffer {
    let device = pass.device;
    let Trace {
        input,
        queries,
        latent,
        normed_latent,
        keys,
        values,
        attended,
    } = trace;

    let mut by_attended = device.zeros_like(&attended.output);
    device.linear_input_gradient(output_gradient, weights.output, &mut by_attended);
    device.linear_weight_gradient(output_gradient, &attended.output, gradients.output.as_mut());

    let inputs = AttentionInputs {
        queries: &queries,
        keys: &keys,
        values: &values,
    };
    let mut by = device.attention_gradient(&inputs, &attended, &by_attended, &layout(pass));
    let (by_expanded, mut by_shared_key) =
        device.assemble_keys_values_gradient(&by.keys, &by.values, heads(pass));

    let mut by_normed = device.zeros_like(&normed_latent);
    device.linear_input_gradient(&by_expanded, weights.expand, &mut by_normed);
    device.linear_weight_gradient(&by_expanded, &normed_latent, gradients.expand.as_mut());
    let mut by_latent = device.zeros_like(&latent);
    let norm = latent_norm(&latent, weights);
    let norm_gradient = gradients.latent_norm.as_mut();
    device.rms_norm_gradient(&norm, &by_normed, &mut by_latent, norm_gradient);

    // A turn is orthogonal: its gradient is the turn back.
    device.rotate(&mut by_shared_key, &rotation(pass, 1).inverted());
    device.rotate(
        &mut by.queries,
        &rotation(pass, pass.config.num_attention_heads).inverted(),
    );

    let by_compressed = device.join_columns(&by_latent, &by_shared_key);
    let mut by_input = device.zeros_like(&input);
    device.linear_input_gradient(&by_compressed, weights.compress, &mut by_input);
    device.linear_weight_gradient(&by_compressed, &input, gradients.compress.as_mut());
    device.linear_input_gradient(&by.queries, weights.queries, &mut by_input);
    device.linear_weight_gradient(&by.queries, &input, gradients.queries.as_mut());
    by_input
}

fn latent_norm<'a, B>(latent: &'a B, weights: &Attention<&'a B>) -> RmsNorm<'a, B> {
    RmsNorm {
        input: latent,
        weight: weights.latent_norm,
        epsilon: LATENT_EPSILON,
    }
}

fn heads<D: Device>(pass: &Pass<'_, D>) -> LatentHeads {
    LatentHeads {
        heads: pass.config.num_attention_heads,
        nope: pass.config.qk_nope_head_dim,
        rope: pass.config.qk_rope_head_dim,
        value: pass.config.v_head_dim,
    }
}

fn layout<'a, D: Device>(pass: &Pass<'a, D>) -> AttentionLayout<'a> {
    AttentionLayout {
        heads: pass.config.num_attention_heads,
        scale: 1.0 / (pass.config.query_head_width() as f32).sqrt(),
        sequences: &pass.batch.sequences,
    }
}

fn rotation<'a, D: Device>(pass: &Pass<'a, D>, heads: usize) -> Rotation<'a> {
    Rotation {
        heads,
        positions: &pass.batch.positions,
        table: pass.rotary,
        inverse: false,
    }
}
