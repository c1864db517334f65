//! Options of `sim`.

use std::path::PathBuf;

use clap::Args;

/// Options of `sim`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SimArguments {
    /// The scenario; see simulations/ for those that come with the program
    #[arg(value_name = "SCENARIO.toml")]
    pub(crate) scenario: PathBuf,
    /// Runs, each with a seed of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) seeds: u64,
    /// Seed of the first run; the others follow
    #[arg(long, value_name = "F", default_value_t = 1)]
    pub(crate) first_seed: u64,
    /// Runs at a time [default: the machine's cores]; the results do not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Where the first failing run goes, as short as it fails [default: SCENARIO-SEED.trace]
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Print the result as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}
