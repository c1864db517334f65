//! What the user typed. Parsing has no effect: nothing is opened, looked up or started here.

pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod chain;
pub(crate) mod compare;
pub(crate) mod inspect;
pub(crate) mod partition;
pub(crate) mod plan;
pub(crate) mod score;
pub(crate) mod select;
pub(crate) mod sim;
pub(crate) mod slice;
pub(crate) mod subnet;
pub(crate) mod train;
pub(crate) mod wallet;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use audit::AuditArguments;
use bench::BenchCommand;
use chain::ChainArguments;
use compare::CompareArguments;
use inspect::{InspectCommand, RoutingMode};
use partition::{AssignArguments, PartitionArguments};
use plan::PlanArguments;
use score::ScoreArguments;
use select::{AffinityArguments, SelectArguments};
use sim::SimArguments;
use slice::{JoinArguments, SliceArguments};
use subnet::SubnetCommand;
use train::{TrainArguments, TrainerKind};
use wallet::WalletCommand;

/// Train a Mixture-of-Experts model together with people you need not trust.
#[derive(Debug, Parser)]
#[command(name = "connito", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done and every invariant held; 1 an invariant, audit or check \
failed; 2 bad usage or input; 3 a needed peer or port is unavailable; 130 interrupted."
)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole network on this machine: chain, owner, validators and miners
    Localnet(LocalnetArguments),
    /// Run the embedded chain alone, or give out money, slots and stake on a chain
    Chain(ChainArguments),
    /// Run the owner alone: make a task, announce it, serve it
    Owner(RoleArguments),
    /// Run one validator alone
    Validator(RoleArguments),
    /// Run one miner alone
    Miner(RoleArguments),
    /// Make the small base model that `localnet` starts from
    Pretrain(PretrainArguments),
    /// Say what a model and its training take: parameters, memory, bytes to upload, GPUs that fit
    Plan(Box<PlanArguments>),
    /// Play data, pipeline and expert parallel training on one network, and compare what they cost
    Compare(CompareArguments),
    /// Divide a model's experts into groups
    Partition(PartitionArguments),
    /// Say which group each hotkey trains
    Assign(AssignArguments),
    /// Rank expert groups for a domain's text, before registering
    Affinity(AffinityArguments),
    /// Choose the experts that matter for a domain's text (ESFT)
    Select(SelectArguments),
    /// Write the part of a checkpoint that a miner of a group needs
    Slice(SliceArguments),
    /// Put trained slices back into the whole checkpoint
    Join(JoinArguments),
    /// Fine-tune a few experts on this machine, outside any network
    Train(TrainArguments),
    /// Measure an update as a validator would
    Score(ScoreArguments),
    /// Run a network of the real role machines in simulated time, with faults and adversaries
    Sim(SimArguments),
    /// Run a role machine again from its journal, or a failing simulation from its trace
    Replay(ReplayArguments),
    /// Recompute every state of a run from its chain and blobs
    Audit(AuditArguments),
    /// Make, list and use keys in the wallets of Bittensor's own tools
    #[command(subcommand)]
    Wallet(WalletCommand),
    /// Hold a subnet of a chain against what the network needs of it
    #[command(subcommand)]
    Subnet(SubnetCommand),
    /// Compute a checkpoint's logits or gradients, for comparison with another framework
    #[command(subcommand)]
    Inspect(InspectCommand),
    /// Measure the engine on this machine
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Options of `localnet`.
#[derive(Debug, Clone, Args)]
pub(crate) struct LocalnetArguments {
    /// Cycles to run
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) cycles: u64,
    /// Miners; with four or more, the last but one copies another and the last does damage
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=24))]
    pub(crate) miners: u16,
    /// Validators
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) validators: u16,
    /// Expert groups [default: one for each data file, 2 for the built-in text]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) groups: Option<u16>,
    #[command(flatten)]
    pub(crate) text: TextArguments,
    #[command(flatten)]
    pub(crate) training: TrainingRules,
    /// Start from this Hugging Face folder (config.json, *.safetensors, tokenizer.json)
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// Where results go; an earlier run's folder is replaced, any other that is not empty is refused
    #[arg(long, value_name = "DIR", default_value = "connito-out")]
    pub(crate) out: PathBuf,
    /// Seed of keys, base model and built-in text
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Time between blocks, like 250ms or 12s [default: 250ms, or longer if this machine needs it]
    #[arg(long, value_name = "TIME")]
    pub(crate) block_time: Option<BlockTime>,
    /// Run every role as a process of its own, and start again what dies
    #[arg(long)]
    pub(crate) processes: bool,
    /// Print the summary as JSON on standard output, and progress as JSON lines on standard error
    #[arg(long)]
    pub(crate) json: bool,
    /// Port of the chain; the owner gets the next one, validators the ones after [default: 0, any free ones]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) port: u16,
}

/// How the miners of a rehearsal train, where it differs from the default rules.
#[derive(Debug, Clone, Args)]
pub(crate) struct TrainingRules {
    /// Train a group's best experts of each layer until they hold this share of its token score
    #[arg(long, value_name = "P", conflicts_with = "top_k")]
    pub(crate) top_p: Option<f64>,
    /// Train this many of a group's experts in each layer
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<u32>,
    /// Which experts tokens visit while a miner trains [default: classic]
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) routing: Option<RoutingMode>,
    /// Frozen experts of a layer that frozen-kept and fallback keep routable
    #[arg(long, value_name = "N")]
    pub(crate) kept: Option<u32>,
    /// How updates are encoded [default: bf16]
    #[arg(long, value_enum, value_name = "CODEC")]
    pub(crate) codec: Option<CodecName>,
    /// How miners fine-tune
    #[arg(long, value_enum, value_name = "TRAINER", default_value_t = TrainerKind::Esft)]
    pub(crate) trainer: TrainerKind,
}

/// How the tensors of an update are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CodecName {
    /// Four bytes a value
    F32,
    /// Two bytes a value
    Bf16,
    /// One byte a value
    Int8,
    /// The largest 64 of every 4,096 values
    Sparse,
}

/// Where text comes from.
#[derive(Debug, Clone, Args)]
pub(crate) struct TextArguments {
    /// JSONL file of one domain, may be repeated: {"text"}, {"question","answer"} or {"messages"}
    #[arg(long = "data", value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
}

/// Options of `pretrain`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PretrainArguments {
    #[command(flatten)]
    pub(crate) text: TextArguments,
    /// Seed of the initial weights and of the built-in text
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Also copy the model into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// Options of a role that runs alone.
#[derive(Debug, Clone, Args)]
pub(crate) struct RoleArguments {
    /// The role's configuration; see config/ for commented examples
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// Options of `replay`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReplayArguments {
    /// The journal, as found in OUT/journal, or the trace that `sim` left behind
    pub(crate) journal: PathBuf,
    /// Print what happened as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// A time between blocks: a whole number with `ms` or `s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockTime(pub(crate) Duration);

impl FromStr for BlockTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, unit_ms) = match text.strip_suffix("ms") {
            Some(digits) => (digits, 1),
            None => (text.strip_suffix('s').unwrap_or(""), 1000),
        };
        let number: u64 = digits
            .parse()
            .map_err(|_| "expected a whole number with ms or s, like 250ms or 12s".to_owned())?;
        let milliseconds = number.saturating_mul(unit_ms);
        if !(50..=60_000).contains(&milliseconds) {
            return Err("must be from 50ms to 60s".to_owned());
        }
        Ok(Self(Duration::from_millis(milliseconds)))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn block_times_need_a_unit() {
        assert_eq!("250ms".parse(), Ok(BlockTime(Duration::from_millis(250))));
        assert_eq!("12s".parse(), Ok(BlockTime(Duration::from_secs(12))));
        for refused in ["250", "s", "", "1h", "0ms", "99999999999999999999s", "1.5s"] {
            assert!(refused.parse::<BlockTime>().is_err(), "{refused}");
        }
    }

    #[test]
    fn the_definitions_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }
}
