//! `connito bench`: what the engine takes in time and memory on this machine, with random weights.
//!
//! Both benchmarks hold part of a model, predict what that will take, repeat one fixed random batch and
//! report the prediction beside the process's measured peak. Speed and memory depend on shapes, not on
//! values, so no checkpoint is needed; losses are reported because steps that do not lower the loss of
//! a batch that is repeated are not worth timing. `engine.rs` measures any configuration, `shard.rs`
//! one model at its full size. What the machine has no memory for is refused before any of it is taken.

mod engine;
mod fit;
mod report;
mod shard;

use connito_engine::ModelConfig;
use connito_engine::routing::ExpertMap;

use crate::args::bench::BenchCommand;
use crate::exit::Failure;

/// Seed of the initial weights.
const SEED: u64 = 1;

/// Runs the command.
pub(crate) fn run(command: &BenchCommand) -> Result<(), Failure> {
    match command {
        BenchCommand::Engine(arguments) => engine::run(arguments),
        BenchCommand::Shard(arguments) => shard::run(arguments),
    }
}

/// Experts 0 to `count` − 1 of every MoE layer.
fn first_experts(config: &ModelConfig, count: usize) -> ExpertMap {
    let layers = config.moe_layers();
    layers.map(|layer| (layer, (0..count).collect())).collect()
}

/// How many token ids the repeated batch has.
#[derive(Debug, Clone, Copy)]
struct BatchSize {
    sequences: usize,
    /// Tokens of a sequence.
    length: usize,
}

impl BatchSize {
    /// Of all sequences together; a number that cannot be held stays the largest, which fits nowhere.
    fn tokens(self) -> usize {
        self.sequences.saturating_mul(self.length)
    }
}

/// The batch that is repeated: token ids that look random and are the same in every run.
fn batch(vocabulary: usize, size: BatchSize) -> Vec<Vec<u32>> {
    let mut stream = blake3::Hasher::new_derive_key("connito/1 benchmark batch").finalize_xof();
    let mut id = || {
        let mut bytes = [0; 8];
        stream.fill(&mut bytes);
        // The remainder is below a vocabulary's size, which fits 32 bits.
        (u64::from_le_bytes(bytes) % vocabulary as u64) as u32
    };
    let sequence = |_| (0..size.length).map(|_| id()).collect();
    (0..size.sequences).map(sequence).collect()
}
