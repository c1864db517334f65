//! Options of `chain` and of what is done to a chain by hand.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::BlockTime;
use crate::tao::Tao;

const AFTER_HELP: &str = "KEY is a key file, or a development name like //Alice: an account of \
every development chain, whose secret everybody knows, taken only for chains of this machine.";

/// Options of `chain`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ChainArguments {
    #[command(flatten)]
    pub(crate) serve: ServeArguments,
    /// What to do to a chain that runs; to run one if nothing
    #[command(subcommand)]
    pub(crate) command: Option<ChainCommand>,
}

/// Which chain is run.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArguments {
    /// The chain's configuration, see config/ for a commented example; without it, a chain for trying
    /// things by hand that belongs to //Alice
    #[arg(long, value_name = "FILE", conflicts_with_all = ["folder", "listen", "netuid", "block_time"])]
    pub(crate) config: Option<PathBuf>,
    /// Where the blocks are kept
    #[arg(long, value_name = "DIR", default_value = "connito-chain")]
    pub(crate) folder: PathBuf,
    /// Where it is served, over HTTP and WebSocket; only on this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9944")]
    pub(crate) listen: SocketAddr,
    /// The subnet [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) netuid: Option<u16>,
    /// Time between blocks, like 250ms or 12s [default: 12s]
    #[arg(long, value_name = "TIME")]
    pub(crate) block_time: Option<BlockTime>,
}

/// What is done to a chain by hand.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ChainCommand {
    /// Give an account money
    Faucet(FaucetArguments),
    /// Give a hotkey a slot in the subnet
    Register(RegisterArguments),
    /// Stake a coldkey's money on a hotkey
    Stake(StakeArguments),
    /// Set one of the subnet's parameters, as its owner
    SetHyperparameter(SetHyperparameterArguments),
}

/// The chain that is meant, and how its answer is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReachArguments {
    /// Where the chain is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9944")]
    pub(crate) endpoint: String,
    /// The subnet; the chain's only one if none is named
    #[arg(long)]
    pub(crate) netuid: Option<u16>,
    /// Print what holds now as one JSON object, amounts in rao
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `chain faucet`.
#[derive(Debug, Clone, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct FaucetArguments {
    /// Who gets it, as ss58
    #[arg(long, value_name = "ADDRESS|KEY")]
    pub(crate) to: String,
    /// How much
    #[arg(long, value_name = "TAO", default_value = "1000")]
    pub(crate) tao: Tao,
    /// Whose money it is
    #[arg(long, value_name = "KEY", default_value = "//Alice")]
    pub(crate) from: String,
    #[command(flatten)]
    pub(crate) reach: ReachArguments,
}

/// Options of `chain register`.
#[derive(Debug, Clone, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct RegisterArguments {
    /// Who pays, and owns the hotkey from then on
    #[arg(long, value_name = "KEY")]
    pub(crate) coldkey: String,
    /// Who gets the slot, as ss58 or as a key
    #[arg(long, value_name = "ADDRESS|KEY")]
    pub(crate) hotkey: String,
    /// The highest acceptable price; any price when absent
    #[arg(long, value_name = "TAO")]
    pub(crate) max_burn: Option<Tao>,
    #[command(flatten)]
    pub(crate) reach: ReachArguments,
}

/// Options of `chain stake`.
#[derive(Debug, Clone, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct StakeArguments {
    /// Whose money it is
    #[arg(long, value_name = "KEY")]
    pub(crate) coldkey: String,
    /// On whom it is staked, as ss58 or as a key
    #[arg(long, value_name = "ADDRESS|KEY")]
    pub(crate) hotkey: String,
    /// How much
    #[arg(long, value_name = "TAO")]
    pub(crate) tao: Tao,
    #[command(flatten)]
    pub(crate) reach: ReachArguments,
}

/// Options of `chain set-hyperparameter`.
#[derive(Debug, Clone, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct SetHyperparameterArguments {
    /// The parameter, like tempo or weights_set_rate_limit
    pub(crate) name: String,
    /// Its value: a number, or true or false; amounts in rao
    pub(crate) value: String,
    /// The coldkey that owns the subnet
    #[arg(long, value_name = "KEY")]
    pub(crate) owner: String,
    #[command(flatten)]
    pub(crate) reach: ReachArguments,
}
