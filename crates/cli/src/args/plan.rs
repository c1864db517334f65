//! Options of `plan`.

use clap::Args;

/// Options of `plan`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PlanArguments {
    /// A config.json, or the name of a built-in configuration
    #[arg(long, value_name = "FILE|NAME")]
    pub(crate) config: Option<String>,
}
