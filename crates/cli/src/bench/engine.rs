//! `connito bench engine`: tokens per second and peak memory of a configuration and a memory plan.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, anyhow};
use connito_engine::config::ModelConfig;
use connito_engine::device::Cpu;
use connito_engine::element::Element;
use connito_engine::memory::{Activations, GradientMemory, MemoryAccount, StepSize};
use connito_engine::model::Residency;
use connito_engine::optimizer::MomentsFormat;
use connito_engine::{
    AdamW, EngineError, Holding, MemoryPlan, Model, Routing, TrainableSet, Trainer,
};
use serde::Serialize;

use super::{BatchSize, SEED, batch, first_experts, fit, report};
use crate::args::bench::{
    BenchRouting, EngineArguments, FloatType, Gradients, KeptActivations, Mode, Moments, StoredType,
};
use crate::cores::threads;
use crate::exit::{Blame, Failure};
use crate::output::print;

/// Experts of a layer that are trained unless told otherwise.
const TRAINED_EXPERTS: usize = 4;

/// Steps before the clock runs: memory is touched and caches are filled in them.
const WARM_UP_STEPS: usize = 2;

/// Small enough for any shape, large enough for the loss of a repeated batch to fall.
const LEARNING_RATE: f32 = 1e-3;

/// Runs the command.
pub(super) fn run(arguments: &EngineArguments) -> Result<(), Failure> {
    let bench = Bench::new(arguments)?;
    let account = bench.account();
    fit::check(&account, bench.batch)?;
    let device = Cpu::new(bench.threads).environment()?;
    let measured = bench.measure(device).input()?;
    let result = EngineResult {
        tokens_per_second: bench.batch.tokens() as f64 / report::median(measured.seconds),
        peak_rss_bytes: report::peak_rss_bytes(),
        loss_first: measured.loss_first,
        loss_last: measured.loss_last,
        predicted_bytes: account.total(),
        account,
    };
    if arguments.json {
        return print(&serde_json::to_string(&result).environment()?);
    }
    print(&result.text())
}

/// What was measured, as `--json` prints it.
#[derive(Debug, Serialize)]
struct EngineResult {
    /// Input tokens of a step over the median time of a step.
    tokens_per_second: f64,
    /// `null` where the system does not say.
    peak_rss_bytes: Option<u64>,
    /// Before any step, in nats.
    loss_first: f64,
    /// As the last step reports it.
    loss_last: f64,
    /// The account's total.
    predicted_bytes: u64,
    account: MemoryAccount,
}

impl EngineResult {
    fn text(&self) -> String {
        let mut lines = vec![
            format!("{:.0} tokens/s", self.tokens_per_second),
            format!("loss {:.4}, then {:.4}", self.loss_first, self.loss_last),
        ];
        lines.extend(report::account_lines(&self.account, self.peak_rss_bytes));
        lines.join("\n")
    }
}

/// What is measured.
struct Bench {
    config: ModelConfig,
    holding: Holding,
    routing: Routing,
    mode: Mode,
    batch: BatchSize,
    threads: usize,
    /// Timed ones.
    steps: usize,
}

/// What steps reported.
struct Measured {
    seconds: Vec<f64>,
    loss_first: f64,
    loss_last: f64,
}

impl Bench {
    fn new(arguments: &EngineArguments) -> Result<Self, Failure> {
        let config = read_config(&arguments.config)?;
        let length = arguments.step.seq as usize;
        if length > config.max_position_embeddings {
            return Err(Failure::Input(anyhow!(
                "--seq {length} exceeds the {} positions of {}",
                config.max_position_embeddings,
                arguments.config.display()
            )));
        }
        let experts = config.mixture.experts;
        let trained = arguments.trainable.map(usize::from);
        if let Some(trained) = trained.filter(|trained| *trained > experts) {
            return Err(Failure::Input(anyhow!(
                "--trainable {trained} exceeds the {experts} experts of {}",
                arguments.config.display()
            )));
        }
        let trained = first_experts(&config, trained.unwrap_or(TRAINED_EXPERTS.min(experts)));
        let (residency, routing) = match arguments.routing {
            BenchRouting::Classic => (Residency::Whole, Routing::Classic),
            BenchRouting::Masked => (
                Residency::Slice(trained.clone()),
                Routing::Masked {
                    experts: trained.clone(),
                },
            ),
        };
        Ok(Self {
            batch: BatchSize {
                sequences: usize::from(arguments.step.batch),
                length,
            },
            holding: Holding {
                residency,
                trainable: TrainableSet::experts(trained),
                plan: plan(arguments),
            },
            routing,
            mode: arguments.mode,
            threads: threads(arguments.step.threads),
            steps: usize::from(arguments.steps),
            config,
        })
    }

    fn account(&self) -> MemoryAccount {
        let size = StepSize {
            tokens: self.batch.tokens(),
            threads: self.threads,
        };
        match self.mode {
            Mode::Train => MemoryAccount::of_training(&self.config, &self.holding, size),
            Mode::Forward => MemoryAccount::of_evaluation(&self.config, &self.holding, size),
        }
    }

    fn measure(&self, device: Cpu) -> Result<Measured, EngineError> {
        let mut model = Model::random_on(device, &self.config, &self.holding, SEED);
        let sequences = batch(self.config.vocab_size, self.batch);
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        if self.mode == Mode::Forward {
            return self.time(|| {
                let losses = model.sequence_losses(&sequences, &self.routing)?;
                let tokens: usize = losses.iter().map(|loss| loss.tokens).sum();
                Ok(losses.iter().map(|loss| loss.sum).sum::<f64>() / tokens as f64)
            });
        }
        let trainable = self.holding.trainable.clone();
        let (adamw, plan) = (AdamW::default(), self.holding.plan);
        let mut trainer = Trainer::new(&model, trainable, &self.routing, adamw, plan)?;
        self.time(|| Ok(trainer.step(&mut model, &sequences, LEARNING_RATE)?.loss))
    }

    /// Repeats a step, which returns the loss before it.
    fn time(
        &self,
        mut step: impl FnMut() -> Result<f64, EngineError>,
    ) -> Result<Measured, EngineError> {
        let loss_first = step()?;
        for _ in 1..WARM_UP_STEPS {
            step()?;
        }
        let mut measured = Measured {
            seconds: Vec::with_capacity(self.steps),
            loss_first,
            loss_last: loss_first,
        };
        for _ in 0..self.steps {
            let begun = Instant::now();
            measured.loss_last = step()?;
            measured.seconds.push(begun.elapsed().as_secs_f64());
        }
        Ok(measured)
    }
}

fn read_config(path: &Path) -> Result<ModelConfig, Failure> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}", path.display()))
        .input()?;
    ModelConfig::from_json(&text)
        .with_context(|| path.display().to_string())
        .input()
}

fn plan(arguments: &EngineArguments) -> MemoryPlan {
    let memory = &arguments.memory;
    let trained = match arguments.dtype {
        FloatType::F32 => Element::F32,
        FloatType::Bf16 => Element::Bf16,
    };
    MemoryPlan {
        frozen: match memory.frozen {
            None => trained,
            Some(StoredType::F32) => Element::F32,
            Some(StoredType::Bf16) => Element::Bf16,
            Some(StoredType::Int8) => Element::Int8,
            Some(StoredType::Fp8) => Element::Fp8,
        },
        trained,
        moments: match memory.moments {
            Moments::F32 => MomentsFormat::F32,
            Moments::Blockwise8 => MomentsFormat::Blockwise8,
        },
        gradients: match memory.gradients {
            Gradients::Kept => GradientMemory::Kept,
            Gradients::Released => GradientMemory::Released,
        },
        activations: match memory.activations {
            KeptActivations::Kept => Activations::Kept,
            KeptActivations::Recomputed => Activations::Recomputed,
        },
        ..MemoryPlan::default()
    }
}
