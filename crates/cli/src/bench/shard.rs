//! `connito bench shard`: training steps of one expert group of DeepSeek-V2-Lite at its full size.
//!
//! The backbone and the group's experts are held in bf16, everything else of the 15.7 billion parameters
//! is not there; tokens visit the group's experts only. To fit an ordinary machine, trained weights are
//! rounded stochastically instead of having a master copy, AdamW's states take a byte each, gradients
//! are released layer by layer and activations computed again. Weights are random: this shows that the
//! steps fit and what they take, not what they are worth.

use std::time::Instant;

use connito_engine::device::Cpu;
use connito_engine::element::Element;
use connito_engine::memory::{Activations, GradientMemory, MemoryAccount, StepSize};
use connito_engine::model::Residency;
use connito_engine::optimizer::MomentsFormat;
use connito_engine::{
    AdamW, EngineError, Holding, MemoryPlan, Model, ModelConfig, Routing, TrainableSet, Trainer,
};
use serde::Serialize;

use super::{BatchSize, SEED, batch, first_experts, fit, report};
use crate::args::bench::ShardArguments;
use crate::built_in;
use crate::cores::threads;
use crate::exit::{Blame, Failure};
use crate::output::print;

/// AdamW moves every value by about this much a step: a hundredth of the initial deviation.
const LEARNING_RATE: f32 = 2e-4;

/// Smallest memory of everything that a step needs.
const PLAN: MemoryPlan = MemoryPlan {
    frozen: Element::Bf16,
    trained: Element::Bf16,
    moments: MomentsFormat::Blockwise8,
    gradients: GradientMemory::Released,
    activations: Activations::Recomputed,
    // Released gradients need all tokens of a step in one pass, whatever this says.
    pass_tokens: usize::MAX,
};

/// Runs the command.
pub(super) fn run(arguments: &ShardArguments) -> Result<(), Failure> {
    let config = built_in::parse(built_in::DEEPSEEK_V2_LITE)?;
    let shard = Shard::new(config, arguments);
    let mut result = shard.result();
    fit::check(&result.account, shard.batch)?;
    shard
        .train(usize::from(arguments.steps), &mut result)
        .environment()?;
    result.peak_rss_bytes = report::peak_rss_bytes();
    if arguments.json {
        return print(&serde_json::to_string(&result).environment()?);
    }
    print(&result.text())
}

/// What was predicted and measured, as `--json` prints it.
#[derive(Debug, Serialize)]
struct ShardResult {
    /// Before every step, in nats.
    losses: Vec<f64>,
    /// `null` where the system does not say.
    peak_rss_bytes: Option<u64>,
    /// The account's total.
    predicted_bytes: u64,
    seconds_per_step: Vec<f64>,
    account: MemoryAccount,
    parameters_held: u64,
    parameters_trained: u64,
}

impl ShardResult {
    fn text(&self) -> String {
        let mut lines = vec![format!(
            "{} parameters held, {} of them trained",
            self.parameters_held, self.parameters_trained
        )];
        lines.extend(report::account_lines(&self.account, self.peak_rss_bytes));
        let steps = self.losses.iter().zip(&self.seconds_per_step).zip(1..);
        lines.extend(steps.map(|((loss, seconds), step)| told(step, *loss, *seconds)));
        lines.join("\n")
    }
}

fn told(step: usize, loss: f64, seconds: f64) -> String {
    format!("step {step}: loss {loss:.4}, {seconds:.1} s")
}

/// The part of the model that is held, and the batch.
struct Shard {
    config: ModelConfig,
    holding: Holding,
    routing: Routing,
    batch: BatchSize,
    threads: usize,
    /// Of every MoE layer.
    experts: u64,
}

impl Shard {
    fn new(config: ModelConfig, arguments: &ShardArguments) -> Self {
        let experts = first_experts(&config, usize::from(arguments.experts));
        Self {
            batch: BatchSize {
                sequences: usize::from(arguments.batch),
                length: arguments.seq as usize,
            },
            holding: Holding {
                residency: Residency::Slice(experts.clone()),
                trainable: TrainableSet::experts(experts.clone()),
                plan: PLAN,
            },
            routing: Routing::Masked { experts },
            threads: threads(arguments.threads),
            experts: u64::from(arguments.experts),
            config,
        }
    }

    /// Everything that is known before the first step.
    fn result(&self) -> ShardResult {
        let account = MemoryAccount::of_training(
            &self.config,
            &self.holding,
            StepSize {
                tokens: self.batch.tokens(),
                threads: self.threads,
            },
        );
        let parameters = self.config.parameters();
        let moe_layers = self.config.moe_layers().count() as u64;
        let trained = parameters.per_expert * self.experts * moe_layers;
        ShardResult {
            losses: Vec::new(),
            peak_rss_bytes: None,
            predicted_bytes: account.total(),
            seconds_per_step: Vec::new(),
            account,
            parameters_held: parameters.backbone + parameters.shared + trained,
            parameters_trained: trained,
        }
    }

    /// Takes the steps, telling of each as it ends.
    fn train(&self, steps: usize, result: &mut ShardResult) -> Result<(), EngineError> {
        eprintln!(
            "generating {} parameters; {:.1} GB are predicted to be needed",
            result.parameters_held,
            result.predicted_bytes as f64 / 1e9
        );
        let begun = Instant::now();
        let device = Cpu::new(self.threads)?;
        let mut model = Model::random_on(device, &self.config, &self.holding, SEED);
        let (trainable, adamw) = (self.holding.trainable.clone(), AdamW::default());
        let mut trainer = Trainer::new(&model, trainable, &self.routing, adamw, PLAN)?;
        eprintln!("generated in {:.1} s", begun.elapsed().as_secs_f64());
        let sequences = batch(self.config.vocab_size, self.batch);
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        for step in 1..=steps {
            let begun = Instant::now();
            let report = trainer.step(&mut model, &sequences, LEARNING_RATE)?;
            let seconds = begun.elapsed().as_secs_f64();
            eprintln!("{}", told(step, report.loss, seconds));
            result.losses.push(report.loss);
            result.seconds_per_step.push(seconds);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 26 of 27 layers with 8 experts of 3 · 2048 · 1408 parameters, on a backbone of 1.31 billion.
    #[test]
    fn the_default_shard_is_the_published_one() {
        let config = built_in::parse(built_in::DEEPSEEK_V2_LITE).unwrap();
        let arguments = ShardArguments {
            steps: 3,
            experts: 8,
            seq: 512,
            batch: 1,
            threads: Some(2),
            json: false,
        };
        let result = Shard::new(config, &arguments).result();
        assert_eq!(result.parameters_held, 3_110_989_312);
        assert_eq!(result.parameters_trained, 1_799_356_416);
        assert!(result.predicted_bytes < 14_000_000_000, "{result:?}");
    }
}
