//! The first half of a layer: multi-head latent attention (arXiv 2405.04434, section 2.1) or grouped-query
//! attention (arXiv 2305.13245), and their gradients.
//!
//! In latent attention, keys and values of all heads are expanded from one normalised latent per token;
//! the part of a key that turns with position is shared by all heads and bypasses the latent. In
//! grouped-query attention several query heads read one key head.
//!
//! Shapes: `h` query heads, `g` key heads, `d` head width; `n`/`r`/`v` nope, rope and value widths of a
//! latent head, `c` latent width, `q` the queries' own.

mod grouped;
mod latent;

use super::decoder::Pass;
use crate::config::AttentionConfig;
use crate::device::{AttentionLayout, Device, Rotation, Turn};
use crate::names::Attention;

/// What the gradient needs of the forward pass.
#[derive(Debug)]
pub(super) enum Trace<B> {
    Latent(Box<latent::Trace<B>>),
    Grouped(Box<grouped::Trace<B>>),
}

/// `Attn(x)` for normed `input` `[tokens, hidden]`.
pub(super) fn forward<D: Device>(
    pass: &Pass<'_, D>,
    weights: &Attention<D::Weight>,
    input: D::Buffer,
) -> (D::Buffer, Trace<D::Buffer>) {
    match weights {
        Attention::Latent(weights) => {
            let (output, trace) = latent::forward(pass, weights, input);
            (output, Trace::Latent(Box::new(trace)))
        }
        Attention::Grouped(weights) => {
            let (output, trace) = grouped::forward(pass, weights, input);
            (output, Trace::Grouped(Box::new(trace)))
        }
    }
}

/// Adds the gradients of the weights that are wanted; returns that of the normed input.
pub(super) fn backward<D: Device>(
    pass: &Pass<'_, D>,
    weights: &Attention<D::Weight>,
    trace: Trace<D::Buffer>,
    by_output: &D::Buffer,
    gradients: &mut Attention<Option<D::Gradient>>,
) -> D::Buffer {
    match (weights, trace, gradients) {
        (Attention::Latent(weights), Trace::Latent(trace), Attention::Latent(gradients)) => {
            latent::backward(pass, weights, *trace, by_output, gradients)
        }
        (Attention::Grouped(weights), Trace::Grouped(trace), Attention::Grouped(gradients)) => {
            grouped::backward(pass, weights, *trace, by_output, gradients)
        }
        _ => unreachable!("weights, traces and gradients are built from one configuration"),
    }
}

/// What is in memory only because a weight's gradient multiplies it.
fn if_trained<D: Device>(pass: &Pass<'_, D>, buffer: D::Buffer) -> Option<D::Buffer> {
    pass.trains_backbone.then_some(buffer)
}

/// `dW += dyᵀ·x` where it is wanted.
fn weight_gradient<D: Device>(
    device: &D,
    by_output: &D::Buffer,
    input: Option<&D::Buffer>,
    gradient: &mut Option<D::Gradient>,
) {
    if let (Some(input), Some(gradient)) = (input, gradient) {
        device.linear_weight_gradient(by_output, input, gradient);
    }
}

fn layout<'a, D: Device>(pass: &Pass<'a, D>) -> AttentionLayout<'a> {
    let config = pass.config;
    let scale = 1.0 / (config.key_width() as f64).sqrt();
    let heads = config.num_attention_heads;
    let (key_heads, window, factor) = match config.attention {
        AttentionConfig::Latent { .. } => {
            let yarn = config.rotary.scaling.as_ref();
            (heads, None, yarn.map_or(1.0, |yarn| yarn.softmax_factor))
        }
        AttentionConfig::Grouped {
            key_heads, window, ..
        } => (key_heads, window, 1.0),
    };
    AttentionLayout {
        heads,
        key_heads,
        scale: (scale * factor) as f32,
        window,
        sequences: &pass.batch.sequences,
    }
}

fn rotation<'a, D: Device>(pass: &Pass<'a, D>, heads: usize, turn: Turn) -> Rotation<'a, D> {
    Rotation {
        heads,
        pairing: pass.config.rotary.pairing,
        positions: &pass.batch.positions,
        table: pass.rotary,
        turn,
    }
}
