//! Options of `bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Speed and memory of training or evaluating a model with random weights
    Engine(EngineArguments),
    /// Training steps of a shard of DeepSeek-V2-Lite at its full size
    Shard(ShardArguments),
}

/// Options of `bench engine`.
#[derive(Debug, Clone, Args)]
pub(crate) struct EngineArguments {
    /// The model's config.json; no weights are read
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// How weights are stored
    #[arg(long, value_enum, default_value_t = FloatType::F32)]
    pub(crate) dtype: FloatType,
    /// What a step is
    #[arg(long, value_enum, default_value_t = Mode::Train)]
    pub(crate) mode: Mode,
    /// Experts of each MoE layer that are trained, from expert 0 on
    /// [default: 4, or all if there are fewer]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) trainable: Option<u16>,
    #[command(flatten)]
    pub(crate) step: StepArguments,
    #[command(flatten)]
    pub(crate) memory: MemoryArguments,
    /// Timed steps, after two that are not
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(crate) steps: u16,
    /// Which experts are in memory and may be visited
    #[arg(long, value_enum, default_value_t = BenchRouting::Classic)]
    pub(crate) routing: BenchRouting,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// One random batch, repeated.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct StepArguments {
    /// Sequences of a step
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(crate) batch: u16,
    /// Tokens of a sequence
    #[arg(
        long,
        value_name = "N",
        default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(2..=1 << 20)
    )]
    pub(crate) seq: u32,
    /// Threads [default: as many as there are cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}

/// What is held in memory, and how.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct MemoryArguments {
    /// How frozen matrices are stored [default: as --dtype says]
    #[arg(long, value_enum)]
    pub(crate) frozen: Option<StoredType>,
    /// The optimiser's two states of a trained value
    #[arg(long, value_enum, default_value_t = Moments::F32)]
    pub(crate) moments: Moments,
    /// Whether gradients of a layer live until the step ends or until the layer is stepped
    #[arg(long, value_enum, default_value_t = Gradients::Kept)]
    pub(crate) gradients: Gradients,
    /// Whether layers keep what their backward pass needs or compute it again
    #[arg(long, value_enum, default_value_t = KeptActivations::Kept)]
    pub(crate) activations: KeptActivations,
}

/// Options of `bench shard`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ShardArguments {
    /// Training steps
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(crate) steps: u16,
    /// Experts of each MoE layer that are held and trained
    #[arg(
        long,
        value_name = "N",
        default_value_t = 8,
        value_parser = clap::value_parser!(u16).range(1..=64)
    )]
    pub(crate) experts: u16,
    /// Tokens of a sequence
    #[arg(
        long,
        value_name = "N",
        default_value_t = 512,
        value_parser = clap::value_parser!(u32).range(2..=163_840)
    )]
    pub(crate) seq: u32,
    /// Sequences of a step
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(crate) batch: u16,
    /// Threads [default: as many as there are cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// A floating-point type that can be trained in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FloatType {
    /// Single precision
    F32,
    /// Its upper half; trained values are rounded stochastically
    Bf16,
}

/// A type that weights can be stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoredType {
    /// Single precision
    F32,
    /// Its upper half
    Bf16,
    /// Integers with a scale per row
    Int8,
    /// e4m3 floats with a scale per row
    Fp8,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Forward pass, backward pass and AdamW
    Train,
    /// Losses only
    Forward,
}

/// Formats of AdamW's states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Moments {
    /// Single precision
    F32,
    /// A byte each, with a scale per block of 256
    #[value(name = "8bit")]
    Blockwise8,
}

/// How long gradients live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Gradients {
    /// Until the step ends
    Kept,
    /// Until their layer is stepped
    Released,
}

/// What happens to activations between forward and backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeptActivations {
    /// They are held
    Kept,
    /// All but a layer's input are computed again
    Recomputed,
}

/// Routing modes of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchRouting {
    /// All experts
    Classic,
    /// The trained ones, and only they are in memory
    Masked,
}
