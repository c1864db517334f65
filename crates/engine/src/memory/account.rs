//! The account of a plan: predicted bytes of every part, before anything is allocated.
//!
//! Parameters, gradients and moments follow from names and shapes and are exact, padding included.
//! Activations are counted per token from what each layer's trace holds (the model's files name the same
//! tensors); working memory is what the widest moment of a step holds besides. The prediction is of the
//! peak of a training step; a test holds it against measured peaks.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::{Activations, GradientMemory};
use crate::config::{AttentionConfig, HeadNorm, ModelConfig};
use crate::device::{run_tokens, stored_bytes};
use crate::element::Element;
use crate::model::{Holding, PASS_TOKENS, Residency, layout};
use crate::names::Parameters;
use crate::trainer::TrainableSet;

/// What the program holds before it holds a model: code, stacks, the allocator's own.
const PROGRAM_BYTES: u64 = 12 << 20;

/// Copies of operands that one thread works on.
const THREAD_BYTES: u64 = 2 << 20;

/// Bytes of an f32.
const F32: u64 = 4;

/// Predicted bytes at the peak of a training step, part by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct MemoryAccount {
    /// Parameters that do not change.
    pub frozen_weights: u64,
    /// Parameters that change; in f32 they are their own master copy.
    pub trained_weights: u64,
    /// Gradients that are alive at once.
    pub gradients: u64,
    /// The optimiser's two states.
    pub moments: u64,
    /// What layers hold from their forward to their backward pass.
    pub activations: u64,
    /// What the widest moment of a pass holds besides.
    pub working: u64,
    /// Logits of the tokens whose loss is being computed.
    pub logits: u64,
    /// Code, stacks and operands of the threads.
    pub program: u64,
}

impl MemoryAccount {
    /// All parts.
    #[must_use]
    pub fn total(&self) -> u64 {
        [
            self.frozen_weights,
            self.trained_weights,
            self.gradients,
            self.moments,
            self.activations,
            self.working,
            self.logits,
            self.program,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

/// What a step reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSize {
    /// Tokens of the step, all sequences together.
    pub tokens: usize,
    /// Threads that share the work.
    pub threads: usize,
}

impl MemoryAccount {
    /// Predicts the peak of training `holding` of a model by steps of a given size.
    #[must_use]
    pub fn of_training(config: &ModelConfig, holding: &Holding, step: StepSize) -> Self {
        let plan = &holding.plan;
        let parameters = parameters(config, holding);
        let pass = StepSize {
            tokens: match plan.gradients {
                GradientMemory::Kept => step.tokens.min(plan.pass_tokens),
                GradientMemory::Released => step.tokens,
            },
            ..step
        };
        let tokens = pass.tokens as u64;
        let counts = TokenFloats::new(config, holding);
        let layers = counts.of_layers(&holding.trainable);
        let trained_layers = layers.len() as u64;
        let hidden = config.hidden_size as u64;
        let widest = layers.iter().copied().max().unwrap_or(0);
        let activations = match plan.activations {
            Activations::Kept => layers.iter().sum::<u64>(),
            Activations::Recomputed => hidden * trained_layers + widest,
        };
        Self {
            frozen_weights: parameters.frozen,
            trained_weights: parameters.trained,
            gradients: match plan.gradients {
                GradientMemory::Kept => parameters.gradients,
                GradientMemory::Released => parameters.largest_gradients,
            },
            moments: parameters.moments,
            activations: bytes(tokens, activations),
            working: bytes(tokens, counts.working()),
            logits: logits(config, pass),
            program: PROGRAM_BYTES + THREAD_BYTES * step.threads as u64,
        }
    }

    /// Predicts the peak of evaluating `holding`, for sequences that are not longer than a pass.
    #[must_use]
    pub fn of_evaluation(config: &ModelConfig, holding: &Holding, step: StepSize) -> Self {
        let parameters = parameters(config, holding);
        let tokens = step.tokens.min(PASS_TOKENS) as u64;
        Self {
            frozen_weights: parameters.frozen + parameters.trained,
            trained_weights: 0,
            gradients: 0,
            moments: 0,
            // The residual stream and its norm around both halves of a layer.
            activations: bytes(tokens, 4 * config.hidden_size as u64),
            working: bytes(tokens, TokenFloats::new(config, holding).evaluated()),
            logits: logits(config, step),
            program: PROGRAM_BYTES + THREAD_BYTES * step.threads as u64,
        }
    }
}

/// Bytes of so many f32 for each of so many tokens.
fn bytes(tokens: u64, values: u64) -> u64 {
    tokens.saturating_mul(values).saturating_mul(F32)
}

/// Every thread's run of logits.
fn logits(config: &ModelConfig, step: StepSize) -> u64 {
    let tokens = run_tokens(config.vocab_size).min(step.tokens.div_ceil(step.threads));
    bytes(tokens as u64, (step.threads * config.vocab_size) as u64)
}

/// Exact bytes of parameters and what the optimiser holds of them.
#[derive(Debug, Default)]
struct ParameterBytes {
    frozen: u64,
    trained: u64,
    gradients: u64,
    /// Of the layer that has most of each shape: what is alive when gradients are released.
    largest_gradients: u64,
    moments: u64,
}

fn parameters(config: &ModelConfig, holding: &Holding) -> ParameterBytes {
    let mut bytes = ParameterBytes::default();
    // Gradients of one shape go from layer to layer.
    let mut of_layers: BTreeMap<(String, Vec<usize>), u64> = BTreeMap::new();
    let resident = |layer, expert| holding.residency.holds(layer, expert);
    let Ok(_) = Parameters::build(config, &resident, &mut |parameter| {
        let (rows, width) = match *parameter.shape {
            [rows, width] => (rows, width),
            _ => (1, parameter.shape.iter().product()),
        };
        let layout = layout(config, parameter.role);
        let element = holding.element(parameter.role);
        let stored = stored_bytes(rows, width, layout, element);
        if holding.trainable.contains(parameter.role) {
            let in_f32 = stored_bytes(rows, width, layout, Element::F32);
            bytes.trained = bytes.trained.saturating_add(stored);
            bytes.gradients = bytes.gradients.saturating_add(in_f32);
            bytes.moments += holding.plan.moments.bytes((in_f32 / F32) as usize);
            let layer = parameter.name.split(".layers.").nth(1).unwrap_or_default();
            let layer = layer.split('.').next().unwrap_or_default().to_owned();
            *of_layers
                .entry((layer, parameter.shape.to_vec()))
                .or_default() += in_f32;
        } else {
            bytes.frozen = bytes.frozen.saturating_add(stored);
        }
        Ok::<_, Infallible>(())
    });
    let mut largest: BTreeMap<Vec<usize>, u64> = BTreeMap::new();
    for ((_, shape), gradient) in of_layers {
        let most = largest.entry(shape).or_default();
        *most = (*most).max(gradient);
    }
    bytes.largest_gradients = largest.values().sum();
    bytes
}

/// Counts of f32 values per token.
struct TokenFloats<'a> {
    config: &'a ModelConfig,
    /// Routed experts that a token visits at most: no more than a layer has in memory.
    visits: usize,
}

impl<'a> TokenFloats<'a> {
    fn new(config: &'a ModelConfig, holding: &Holding) -> Self {
        let per_token = config.mixture.per_token;
        let visits = match &holding.residency {
            Residency::Whole => per_token,
            Residency::Slice(experts) => {
                let most = experts.values().map(Vec::len).max().unwrap_or(0);
                per_token.min(most)
            }
        };
        Self { config, visits }
    }

    /// What every layer from the lowest trained one up holds for its gradient.
    fn of_layers(&self, trainable: &TrainableSet) -> Vec<u64> {
        let config = self.config;
        let lowest = trainable.lowest_layer(config);
        let everything = *trainable == TrainableSet::Everything;
        (lowest.unwrap_or(0)..config.num_hidden_layers)
            .map(|layer| {
                let attention = match lowest {
                    Some(lowest) if lowest == layer => 0,
                    _ if everything => self.attention() + self.attention_inputs(),
                    _ => self.attention(),
                };
                let streams = 3 * config.hidden_size;
                (streams + attention + self.feed_forward(layer)) as u64
            })
            .collect()
    }

    /// Queries, keys, values, and what their norms and bounds need.
    fn attention(&self) -> usize {
        let config = self.config;
        let heads = config.num_attention_heads;
        let (keys, values) = (config.key_width(), config.value_width());
        match config.attention {
            AttentionConfig::Latent {
                query_rank, rank, ..
            } => heads * (2 * keys + values + 1) + rank + query_rank.unwrap_or(0),
            AttentionConfig::Grouped {
                key_heads,
                norm,
                clip,
                ..
            } => {
                let projected = heads * keys + key_heads * keys;
                let normed = if norm == HeadNorm::Absent {
                    0
                } else {
                    projected
                };
                let clipped = if clip.is_some() {
                    projected + key_heads * values
                } else {
                    0
                };
                projected + key_heads * values + normed + clipped + heads
            }
        }
    }

    /// What attention's own matrices are multiplied with, which is held only where they are trained.
    fn attention_inputs(&self) -> usize {
        let config = self.config;
        let latents = match config.attention {
            AttentionConfig::Latent {
                query_rank, rank, ..
            } => rank + query_rank.unwrap_or(0),
            AttentionConfig::Grouped { .. } => 0,
        };
        config.hidden_size + latents + config.num_attention_heads * config.value_width()
    }

    /// Gate and up of every network that a token goes through.
    fn feed_forward(&self, layer: usize) -> usize {
        let config = self.config;
        if config.is_moe_layer(layer) {
            let mixture = &config.mixture;
            2 * (self.visits * mixture.width + mixture.shared_width) + 2 * mixture.experts
        } else {
            2 * config.intermediate_size
        }
    }

    /// What a layer takes besides the residual stream when nothing is kept. Buffers of one size serve
    /// one after the other, but attention's sizes do not serve the networks: both stay allocated.
    fn evaluated(&self) -> u64 {
        let config = self.config;
        let heads = config.num_attention_heads;
        let (keys, values) = (config.key_width(), config.value_width());
        let attention = match config.attention {
            AttentionConfig::Latent {
                query_rank,
                rank,
                nope,
                rope,
                ..
            } => {
                let expanded = heads * (nope + values);
                let latents = 3 * rank + 2 * rope + 2 * query_rank.unwrap_or(0);
                heads * (2 * keys + 2 * values + 1) + expanded + latents
            }
            AttentionConfig::Grouped { .. } => self.attention() + heads * values,
        };
        let mixture = &config.mixture;
        let networks = self.visits * config.hidden_size + 3 * mixture.experts;
        (attention + networks) as u64
    }

    /// What a layer's backward pass takes besides what its forward pass kept: products and gradients of
    /// every visit, gradients of attention's inputs, the residual stream's. Sizes of one do not serve the
    /// other: both stay allocated.
    fn working(&self) -> u64 {
        let config = self.config;
        let (mixture, hidden) = (&config.mixture, config.hidden_size);
        let visited = self.visits * (hidden + mixture.width);
        let shared = if mixture.shared_width > 0 {
            mixture.shared_width + hidden
        } else {
            0
        };
        let heads = config.num_attention_heads;
        let (keys, values) = (config.key_width(), config.value_width());
        let attention = match config.attention {
            AttentionConfig::Latent { .. } => heads * (2 * keys + values),
            AttentionConfig::Grouped { key_heads, .. } => (heads + key_heads) * (keys + values) / 2,
        };
        (10 * hidden + visited + shared + attention) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Layout;

    /// What is padded: panels are whole, tables are not padded.
    #[test]
    fn parameters_are_counted_with_their_padding() {
        let config = ModelConfig::tiny(100);
        let holding = Holding::whole();
        let bytes = parameters(&config, &holding);
        let expected: u64 = {
            let mut sum = 0;
            let Ok(_) = Parameters::build(&config, &|_, _| true, &mut |parameter| {
                let values: usize = match *parameter.shape {
                    [rows, width] if layout(&config, parameter.role) == Layout::Linear => {
                        rows.next_multiple_of(32) * width
                    }
                    _ => parameter.shape.iter().product(),
                };
                sum += 4 * values as u64;
                Ok::<_, Infallible>(())
            });
            sum
        };
        assert_eq!(bytes.trained + bytes.frozen, expected);
        assert_eq!(bytes.gradients, bytes.trained);
    }
}
