//! From accepted updates to the next state: clip, weigh, one Nesterov step (P-30, P-31).
//!
//! ```text
//! m  = max( weighted lower median of ‖Δ‖,  κ · R · √(n/N) )     per tensor of n of the group's N values
//! cᵢ = min(1, m / ‖Δᵢ‖)                                          1 for a zero norm
//! G  = Σ wᵢ cᵢ Δᵢ / Σ wᵢ
//! v  ← μ v + G
//! Φ  ← Φ + η (μ v + G)                                           v is the new one; arXiv 2311.08105 with G = −g
//! ```
//!
//! Everyone must get the same bytes on every machine, so this file uses only `+ − × ÷ √` in one fixed
//! order: no fused multiply-add, no transcendental function, no sum whose order depends on threads. The
//! order of the updates is that of the submissions, which is the chain's.
//!
//! Inputs are read where they lie and outputs written as a stream, tensor by tensor and in each chunk
//! by chunk: however many updates there are, what is held in memory is a few chunks. Each tensor of an
//! update is read twice, for its norm and for the sum.

use connito_engine::Exact;
use connito_protocol::rules::OuterRules;
use rayon::prelude::*;

use crate::shard::Layout;
use crate::store::{BlobSink, StoreError};
use crate::wire::{CHUNK, Encoded, EncodedTensor};

/// How much of its reference norm a group keeps in a cycle at least. Without it a crowd of tiny updates
/// would have the floor of the clip follow the median down within two cycles (A-41).
const REFERENCE_KEPT: f64 = 0.5;

/// Chunks that are summed update by update before the step is taken in them, by one thread: long runs of
/// each update, and a sum that stays in a core's cache.
const BLOCK_CHUNKS: usize = 8;

/// Blocks that threads share before their results are written, in order: 8 MiB of parameters.
const WINDOW_BLOCKS: usize = 64;

/// An accepted update: what it changes, and its weight above zero.
#[derive(Debug, Clone, Copy)]
pub struct Accepted<'a> {
    /// The change.
    pub update: &'a Encoded<'a>,
    /// `max(0, u − z·SE)`.
    pub weight: f64,
}

/// A group before the step.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// Φ, all tensors of the layout.
    pub parameters: &'a Encoded<'a>,
    /// v, laid out like Φ; none while it is zero.
    pub momentum: Option<&'a Encoded<'a>>,
    /// R; none until updates were accepted in the group.
    pub reference_norm: Option<f64>,
}

/// Where the values after the step are written, in the order of the names; headers are the caller's.
pub struct Sinks<'a> {
    /// Φ.
    pub parameters: &'a mut dyn BlobSink,
    /// v.
    pub momentum: &'a mut dyn BlobSink,
}

impl std::fmt::Debug for Sinks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sinks")
    }
}

/// Takes one outer step over at least one accepted update. Gives the new reference norm: the weighted
/// lower median of the updates' norms, or half of the old one where that is more (P-24, A-41).
///
/// # Errors
/// A sink cannot be written.
pub fn outer_step(
    group: &Group<'_>,
    accepted: &[Accepted<'_>],
    (layout, rules): (&Layout, &OuterRules),
    sinks: &mut Sinks<'_>,
) -> Result<Option<f64>, StoreError> {
    let exact = Exact::detect();
    let count = |shape: &Vec<usize>| shape.iter().product::<usize>() as f64;
    let values: f64 = layout.values().map(count).sum();
    let total: f64 = accepted.iter().map(|a| a.weight).sum();
    let floor = rules.clip_floor * group.reference_norm.unwrap_or(0.0);
    let mut squares = vec![0.0; accepted.len()];
    let mut bytes = (Vec::new(), Vec::new());
    for (name, shape) in layout {
        let listed: Vec<Listed<'_>> = accepted
            .iter()
            .zip(&mut squares)
            .filter_map(|(accepted, squares)| {
                let tensor = accepted.update.tensor(name)?;
                let square = sum_of_squares(&tensor, exact);
                *squares += square;
                Some(Listed {
                    tensor,
                    weight: accepted.weight,
                    norm: square.sqrt(),
                })
            })
            .collect();
        let step = TensorStep {
            parameters: group.parameters.tensor(name),
            momentum: group.momentum.and_then(|momentum| momentum.tensor(name)),
            scaled: scaled(&listed, total, floor * (count(shape) / values).sqrt()),
            rates: (rules.learning_rate, rules.momentum),
            exact,
        };
        step.write(shape.iter().product(), &mut bytes, sinks)?;
    }
    let norms = squares.iter().zip(accepted);
    let median = lower_median(norms.map(|(square, a)| (square.sqrt(), a.weight)).collect());
    let kept = group.reference_norm.map(|norm| norm * REFERENCE_KEPT);
    Ok(median.map(|median| kept.map_or(median, |kept| median.max(kept))))
}

/// Writes momentum as it is after the gate refused a step: half of it, so that a refused direction
/// fades.
///
/// # Errors
/// The sink cannot be written.
pub fn damped(
    momentum: &Encoded<'_>,
    layout: &Layout,
    sink: &mut dyn BlobSink,
) -> Result<(), StoreError> {
    let exact = Exact::detect();
    let (mut values, mut bytes) = ([0.0; CHUNK], [0; CHUNK * 4]);
    for tensor in layout.keys().filter_map(|name| momentum.tensor(name)) {
        for (chunk, count) in chunks(tensor.len()) {
            let (values, bytes) = (&mut values[..count], &mut bytes[..count * 4]);
            tensor.read_chunk(chunk, values);
            values.iter_mut().for_each(|value| *value *= 0.5);
            exact.write_f32(values, bytes);
            sink.write(bytes)?;
        }
    }
    Ok(())
}

/// A tensor of an accepted update.
struct Listed<'a> {
    tensor: EncodedTensor<'a>,
    weight: f64,
    norm: f64,
}

/// The step of one tensor, once it is known how much of each update goes into it.
struct TensorStep<'a> {
    parameters: Option<EncodedTensor<'a>>,
    momentum: Option<EncodedTensor<'a>>,
    scaled: Vec<(EncodedTensor<'a>, f32)>,
    rates: (f32, f32),
    exact: Exact,
}

impl TensorStep<'_> {
    fn write(
        &self,
        length: usize,
        bytes: &mut (Vec<u8>, Vec<u8>),
        sinks: &mut Sinks<'_>,
    ) -> Result<(), StoreError> {
        const WINDOW: usize = WINDOW_BLOCKS * BLOCK_CHUNKS * CHUNK;
        for start in (0..length).step_by(WINDOW) {
            let count = WINDOW.min(length - start);
            let parameters = sized(&mut bytes.0, count * 4);
            let momentum = sized(&mut bytes.1, count * 4);
            self.window(start / CHUNK, parameters, momentum);
            sinks.parameters.write(parameters)?;
            sinks.momentum.write(momentum)?;
        }
        Ok(())
    }

    /// Steps the values from chunk `first` on, as many as there are bytes for.
    fn window(&self, first: usize, parameters: &mut [u8], momentum: &mut [u8]) {
        const BYTES: usize = BLOCK_CHUNKS * CHUNK * 4;
        if parameters.len() <= BYTES {
            let mut mean = vec![0.0; parameters.len() / 4];
            return self.block(first, &mut mean, (parameters, momentum));
        }
        let blocks = parameters.par_chunks_mut(BYTES);
        let blocks = blocks.zip(momentum.par_chunks_mut(BYTES)).enumerate();
        let mean = || vec![0.0; BLOCK_CHUNKS * CHUNK];
        blocks.for_each_init(mean, |mean, (block, bytes)| {
            self.block(first + block * BLOCK_CHUNKS, mean, bytes);
        });
    }

    /// Steps one block; `mean` is memory for it.
    fn block(&self, first: usize, mean: &mut [f32], into: (&mut [u8], &mut [u8])) {
        let mean = &mut mean[..into.0.len() / 4];
        mean.fill(0.0);
        for (tensor, factor) in &self.scaled {
            for (chunk, sum) in (first..).zip(mean.chunks_mut(CHUNK)) {
                tensor.add_chunk(chunk, *factor, sum);
            }
        }
        let into = into
            .0
            .chunks_mut(CHUNK * 4)
            .zip(into.1.chunks_mut(CHUNK * 4));
        let (mut parameters, mut momentum) = ([0.0; CHUNK], [0.0; CHUNK]);
        for (chunk, (mean, into)) in (first..).zip(mean.chunks(CHUNK).zip(into)) {
            let (parameters, momentum) =
                (&mut parameters[..mean.len()], &mut momentum[..mean.len()]);
            read_or_zero(self.parameters.as_ref(), chunk, parameters);
            read_or_zero(self.momentum.as_ref(), chunk, momentum);
            self.exact.nesterov(self.rates, mean, momentum, parameters);
            self.exact.write_f32(parameters, into.0);
            self.exact.write_f32(momentum, into.1);
        }
    }
}

fn read_or_zero(tensor: Option<&EncodedTensor<'_>>, chunk: usize, into: &mut [f32]) {
    match tensor {
        Some(tensor) => tensor.read_chunk(chunk, into),
        None => into.fill(0.0),
    }
}

/// Memory that is used again, in the length that is needed now.
fn sized(bytes: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if bytes.len() < length {
        bytes.resize(length, 0);
    }
    &mut bytes[..length]
}

/// The factor of each update's tensor in the mean: its share of the weight, clipped (A-40, A-41).
fn scaled<'a>(listed: &[Listed<'a>], total: f64, floor: f64) -> Vec<(EncodedTensor<'a>, f32)> {
    let norms = listed.iter().map(|l| (l.norm, l.weight)).collect();
    let Some(median) = lower_median(norms) else {
        return Vec::new();
    };
    let most = median.max(floor);
    let factor = |listed: &Listed<'a>| {
        let clip = if listed.norm > most {
            most / listed.norm
        } else {
            1.0
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the step is taken in f32; rounding is part of the rule"
        )]
        let factor = (listed.weight / total * clip) as f32;
        (listed.tensor, factor)
    };
    listed.iter().map(factor).collect()
}

/// Σ x² of a tensor: chunk by chunk in f64, the chunks added from first to last, whichever thread was
/// done with its own first.
fn sum_of_squares(tensor: &EncodedTensor<'_>, exact: Exact) -> f64 {
    let of_chunk = |values: &mut [f32; CHUNK], (chunk, count): (usize, usize)| {
        tensor.read_chunk(chunk, &mut values[..count]);
        exact.squares(&values[..count])
    };
    let chunks: Vec<(usize, usize)> = chunks(tensor.len()).collect();
    if chunks.len() <= BLOCK_CHUNKS {
        let mut values = [0.0; CHUNK];
        return chunks
            .into_iter()
            .map(|chunk| of_chunk(&mut values, chunk))
            .sum();
    }
    let squares = chunks.into_par_iter().with_min_len(BLOCK_CHUNKS);
    let squares: Vec<f64> = squares.map_init(|| [0.0; CHUNK], of_chunk).collect();
    squares.iter().sum()
}

/// The chunks of a tensor: their numbers and how many values each has.
fn chunks(length: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = length.div_ceil(CHUNK);
    (0..count).map(move |chunk| (chunk, CHUNK.min(length - chunk * CHUNK)))
}

/// The smallest value such that it and all smaller ones hold at least half of the weight.
fn lower_median(mut weighted: Vec<(f64, f64)>) -> Option<f64> {
    weighted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = weighted.iter().map(|(_, weight)| weight).sum();
    let mut below = 0.0;
    weighted.into_iter().find_map(|(value, weight)| {
        below += weight;
        (below * 2.0 >= total).then_some(value)
    })
}

#[cfg(test)]
mod tests;
