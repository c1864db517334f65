//! A DeepSeek-V2 model: its weights under their Hugging Face names, and its losses on token sequences.
//!
//! The arithmetic is in `decoder`, `attention`, `feed_forward` and `mixture`, which read like equations;
//! this file keeps the weights whole (every name and shape checked once, on entry) and divides
//! sequences among threads. Results do not depend on the number of threads nor on which sequences are
//! evaluated together, to the bit. Training is trainer.rs, files are checkpoint.rs.

mod attention;
pub(crate) mod batch;
pub(crate) mod decoder;
mod feed_forward;
mod mixture;
pub(crate) mod parameters;

use std::collections::BTreeMap;
use std::convert::Infallible;

use batch::Batch;
use decoder::Pass;
use parameters::Parameters;

use crate::config::ModelConfig;
use crate::device::{Cpu, Device, RotaryTable};
use crate::error::EngineError;
use crate::random::Stream;
use crate::routing::{Routing, RoutingPlan};
use crate::tensor::Tensor;

/// A configuration and every weight that it asks for, in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    config: ModelConfig,
    /// Exactly the names and shapes of [`Model::expected_tensors`].
    tensors: BTreeMap<String, Tensor>,
}

/// How well a model predicts one sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SequenceLoss {
    /// Summed next-token cross-entropy in nats.
    pub sum: f64,
    /// How many tokens were predicted: one fewer than the sequence has.
    pub tokens: usize,
}

impl Model {
    /// An untrained model, a pure function of configuration and seed, the same on every machine.
    ///
    /// Matrices have variance 1/inputs (at width 2,048 the customary deviation of 0.02), those that write
    /// into the residual stream are smaller by √(2·layers) so that depth does not inflate it (Radford et
    /// al. 2019, GPT-2); embedding and head have deviation 0.02, so that the first loss is about
    /// ln(vocabulary); norm weights are 1.
    #[must_use]
    pub fn random(config: &ModelConfig, seed: u64) -> Self {
        let depth = (2.0 * config.num_hidden_layers as f32).sqrt();
        let tensors = Self::expected_tensors(config)
            .into_iter()
            .map(|(name, shape)| {
                let count = shape.iter().product();
                let values = match shape.as_slice() {
                    [_, inputs] => {
                        let fan_in = 1.0 / (*inputs as f32).sqrt();
                        let deviation = if name.contains("embed_tokens") || name.contains("lm_head")
                        {
                            0.02
                        } else if name.contains("o_proj") || name.contains("down_proj") {
                            fan_in / depth
                        } else {
                            fan_in
                        };
                        Stream::new(seed, &name).uniform(count, deviation)
                    }
                    _ => vec![1.0; count],
                };
                (name, Tensor { shape, values })
            });
        Self {
            config: config.clone(),
            tensors: tensors.collect(),
        }
    }

    /// Takes weights by name.
    ///
    /// # Errors
    ///
    /// Names the first tensor that is missing, misshapen or not part of the configured model.
    pub fn from_tensors(
        config: &ModelConfig,
        tensors: BTreeMap<String, Tensor>,
    ) -> Result<Self, EngineError> {
        let expected = Self::expected_tensors(config);
        for (name, shape) in &expected {
            let tensor = tensors.get(name).ok_or_else(|| missing(name))?;
            if tensor.shape != *shape {
                return Err(misshapen(name, shape, tensor.shape.clone()));
            }
            if tensor.values.len() != shape.iter().product::<usize>() {
                return Err(misshapen(name, shape, vec![tensor.values.len()]));
            }
        }
        if let Some(name) = tensors.keys().find(|name| !expected.contains_key(*name)) {
            return Err(EngineError::UnexpectedTensor { name: name.clone() });
        }
        Ok(Self {
            config: config.clone(),
            tensors,
        })
    }

    /// Names and shapes of a configuration's weights.
    #[must_use]
    pub fn expected_tensors(config: &ModelConfig) -> BTreeMap<String, Vec<usize>> {
        let mut leaf = |name, shape: &[usize]| Ok::<_, Infallible>((name, shape.to_vec()));
        let Ok(parameters) = Parameters::build(config, &mut leaf);
        parameters.into_leaves().into_iter().collect()
    }

    /// The architecture.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The weight called `name`.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// All weights, in name order.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Replaces the values of one weight.
    ///
    /// # Errors
    ///
    /// When there is no such weight, or it has another number of values.
    pub fn set_tensor(&mut self, name: &str, values: &[f32]) -> Result<(), EngineError> {
        let tensor = self.tensor_mut(name)?;
        if tensor.values.len() != values.len() {
            return Err(misshapen(name, &tensor.shape, vec![values.len()]));
        }
        tensor.values.copy_from_slice(values);
        Ok(())
    }

    /// The loss of every sequence, in order. Sequences may differ in length.
    ///
    /// # Errors
    ///
    /// When there are no sequences, one is shorter than two tokens or longer than the model's positions,
    /// an id lies outside the vocabulary, or the routing does not fit the model.
    pub fn sequence_losses(
        &self,
        sequences: &[&[u32]],
        threads: usize,
        routing: &Routing,
    ) -> Result<Vec<SequenceLoss>, EngineError> {
        batch::check(sequences, 2, &self.config)?;
        let routing = RoutingPlan::new(routing, &self.config)?;
        let weights = self.weights()?;
        let rotary = self.rotary_table(sequences);
        let shares = batch::shares(sequences, threads);
        let of_shares = batch::on_threads(shares, |share| {
            let of_passes = batch::passes(share).map(|sequences| {
                let batch = Batch::new(sequences);
                let losses = decoder::losses(&self.pass(&routing, &rotary, &batch), &weights);
                sum_by_sequence(&batch, &losses)
            });
            of_passes.collect::<Vec<_>>().concat()
        });
        Ok(of_shares.concat())
    }

    /// The logits `[tokens, vocabulary]` of one sequence, with classic routing.
    ///
    /// # Errors
    ///
    /// When the sequence is empty or too long, or an id lies outside the vocabulary.
    pub fn logits(&self, ids: &[u32]) -> Result<Tensor, EngineError> {
        batch::check(&[ids], 1, &self.config)?;
        let routing = RoutingPlan::new(&Routing::Classic, &self.config)?;
        let weights = self.weights()?;
        let rotary = self.rotary_table(&[ids]);
        let batch = Batch::new(&[ids]);
        let states = decoder::final_states(&self.pass(&routing, &rotary, &batch), &weights);
        Ok(Cpu.linear(&states, weights.head))
    }

    pub(crate) fn tensor_mut(&mut self, name: &str) -> Result<&mut Tensor, EngineError> {
        self.tensors.get_mut(name).ok_or_else(|| missing(name))
    }

    /// The weights as the decoder walks them.
    pub(crate) fn weights(&self) -> Result<Parameters<&Tensor>, EngineError> {
        Parameters::build(&self.config, &mut |name, _| {
            self.tensors.get(&name).ok_or_else(|| missing(&name))
        })
    }

    /// Rotary angles for the longest of these sequences.
    pub(crate) fn rotary_table(&self, sequences: &[&[u32]]) -> RotaryTable {
        let longest = sequences
            .iter()
            .map(|sequence| sequence.len())
            .max()
            .unwrap_or(0);
        RotaryTable::new(
            self.config.qk_rope_head_dim,
            self.config.rope_theta,
            longest,
        )
    }

    /// One batch of checked sequences on the CPU.
    pub(crate) fn pass<'a>(
        &'a self,
        routing: &'a RoutingPlan,
        rotary: &'a RotaryTable,
        batch: &'a Batch,
    ) -> Pass<'a, Cpu> {
        Pass {
            device: &Cpu,
            config: &self.config,
            routing,
            rotary,
            batch,
        }
    }
}

/// Adds up the losses of every sequence, in token order and in f64.
fn sum_by_sequence(batch: &Batch, losses: &[f32]) -> Vec<SequenceLoss> {
    let mut rest = losses;
    let sums = batch.sequences.iter().map(|sequence| {
        let (own, others) = rest.split_at(sequence.len() - 1);
        rest = others;
        SequenceLoss {
            sum: own.iter().map(|&loss| f64::from(loss)).sum(),
            tokens: own.len(),
        }
    });
    sums.collect()
}

fn missing(name: &str) -> EngineError {
    EngineError::MissingTensor {
        name: name.to_owned(),
    }
}

fn misshapen(name: &str, expected: &[usize], found: Vec<usize>) -> EngineError {
    EngineError::MisshapenTensor {
        name: name.to_owned(),
        expected: expected.to_vec(),
        found,
    }
}
