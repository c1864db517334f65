//! Options of `connito subnet`.

use clap::{Args, Subcommand};

/// The commands about a subnet.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SubnetCommand {
    /// Say whether a subnet suits the network, and which call mends what does not
    Check(CheckArguments),
}

/// Options of `subnet check`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CheckArguments {
    /// The chain's address, like wss://entrypoint-finney.opentensor.ai:443; more than one: the next is
    /// asked where one fails
    #[arg(long, value_name = "URL", required = true)]
    pub(crate) endpoint: Vec<String>,
    /// The subnet [default: the chain's only one]
    #[arg(long, value_name = "N")]
    pub(crate) netuid: Option<u16>,
    /// The chain's first block, 0x and 64 hexadecimal digits; another chain is refused
    #[arg(long, value_name = "HASH")]
    pub(crate) genesis: Option<String>,
    /// Blocks in one cycle of the network
    #[arg(long, value_name = "BLOCKS", default_value_t = 45, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) cycle: u64,
    /// Print what was found as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
