//! The account of a plan: predicted bytes of every part, before anything is allocated.
//!
//! Parameters, gradients and moments follow from names and shapes and are exact, padding included
//! (`parameters.rs`). Activations are counted per token (`tokens.rs`); working memory is what the widest
//! moment of a step holds besides. The prediction is of the peak of a training step; a test holds it
//! against measured peaks. Every part is a formula, and the account its value: who plans with it can show
//! how it came about.

use super::parameters::ParameterBytes;
use super::tokens::TokenFloats;
use super::{Activations, F32, GradientMemory};
use crate::config::ModelConfig;
use crate::device::run_tokens;
use crate::formula::Formula;
use crate::model::{Holding, PASS_TOKENS};

/// What the program holds before it holds a model: code, stacks, the allocator's own.
const PROGRAM_BYTES: u64 = 12 << 20;

/// Copies of operands that one thread works on.
const THREAD_BYTES: u64 = 2 << 20;

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

/// How the parts of a [`MemoryAccount`] come about, under the same names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryFormulas {
    /// See [`MemoryAccount::frozen_weights`].
    pub frozen_weights: Formula,
    /// See [`MemoryAccount::trained_weights`].
    pub trained_weights: Formula,
    /// See [`MemoryAccount::gradients`].
    pub gradients: Formula,
    /// See [`MemoryAccount::moments`].
    pub moments: Formula,
    /// See [`MemoryAccount::activations`].
    pub activations: Formula,
    /// See [`MemoryAccount::working`].
    pub working: Formula,
    /// See [`MemoryAccount::logits`].
    pub logits: Formula,
    /// See [`MemoryAccount::program`].
    pub program: Formula,
}

impl MemoryFormulas {
    /// The bytes. What no machine could hold is the largest number.
    #[must_use]
    pub fn account(&self) -> MemoryAccount {
        MemoryAccount {
            frozen_weights: self.frozen_weights.count(),
            trained_weights: self.trained_weights.count(),
            gradients: self.gradients.count(),
            moments: self.moments.count(),
            activations: self.activations.count(),
            working: self.working.count(),
            logits: self.logits.count(),
            program: self.program.count(),
        }
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

impl MemoryFormulas {
    /// Says how the peak of training `holding` of a model by steps of a given size comes about.
    #[must_use]
    pub fn of_training(config: &ModelConfig, holding: &Holding, step: StepSize) -> Self {
        let plan = &holding.plan;
        let parameters = ParameterBytes::new(config, holding);
        let pass = StepSize {
            tokens: match plan.gradients {
                GradientMemory::Kept => step.tokens.min(plan.pass_tokens),
                GradientMemory::Released => step.tokens,
            },
            ..step
        };
        let counts = TokenFloats::new(config, holding);
        let layers = counts.of_layers(&holding.trainable);
        let of_token = match plan.activations {
            Activations::Kept => Formula::quantity("values_of_all_layers", layers.iter().sum()),
            Activations::Recomputed => {
                let widest = layers.iter().copied().max().unwrap_or(0);
                Formula::quantity("hidden_size", config.hidden_size as u64)
                    * Formula::quantity("layers_from_the_first_trained", layers.len() as u64)
                    + Formula::quantity("values_of_the_widest_layer", widest)
            }
        };
        Self {
            frozen_weights: parameters.frozen_weights(plan.frozen),
            trained_weights: parameters.trained_weights(plan.trained),
            gradients: match plan.gradients {
                GradientMemory::Kept => parameters.gradients(),
                GradientMemory::Released => parameters.gradients_of_a_layer(),
            },
            moments: parameters.moments(plan.moments),
            activations: bytes(pass.tokens, of_token),
            working: bytes(
                pass.tokens,
                Formula::quantity("working_values", counts.working()),
            ),
            logits: logits(config, pass),
            program: program(step),
        }
    }
}

impl MemoryAccount {
    /// Predicts the peak of training `holding` of a model by steps of a given size.
    #[must_use]
    pub fn of_training(config: &ModelConfig, holding: &Holding, step: StepSize) -> Self {
        MemoryFormulas::of_training(config, holding, step).account()
    }

    /// Predicts the peak of evaluating `holding`, for sequences that are not longer than a pass.
    #[must_use]
    pub fn of_evaluation(config: &ModelConfig, holding: &Holding, step: StepSize) -> Self {
        let parameters = ParameterBytes::new(config, holding);
        let tokens = step.tokens.min(PASS_TOKENS);
        // The residual stream and its norm around both halves of a layer.
        let streams = Formula::quantity("streams", 4 * config.hidden_size as u64);
        let evaluated = TokenFloats::new(config, holding).evaluated();
        Self {
            frozen_weights: parameters
                .frozen
                .bytes
                .saturating_add(parameters.trained.bytes),
            trained_weights: 0,
            gradients: 0,
            moments: 0,
            activations: bytes(tokens, streams).count(),
            working: bytes(tokens, Formula::quantity("working_values", evaluated)).count(),
            logits: logits(config, step).count(),
            program: program(step).count(),
        }
    }
}

/// Bytes of so many f32 for each of so many tokens.
fn bytes(tokens: usize, values: Formula) -> Formula {
    Formula::constant(F32) * Formula::quantity("tokens", tokens as u64) * values
}

/// Every thread's run of logits.
fn logits(config: &ModelConfig, step: StepSize) -> Formula {
    let share = step.tokens.div_ceil(step.threads.max(1));
    let tokens = run_tokens(config.vocab_size).min(share);
    Formula::constant(F32)
        * Formula::quantity("threads", step.threads as u64)
        * Formula::quantity("tokens_of_a_run", tokens as u64)
        * Formula::quantity("vocab_size", config.vocab_size as u64)
}

fn program(step: StepSize) -> Formula {
    let threads = Formula::quantity("threads", step.threads as u64);
    Formula::quantity("program_itself", PROGRAM_BYTES)
        + Formula::quantity("operands_of_a_thread", THREAD_BYTES) * threads
}
