//! Options of `connito audit`.

use clap::Args;

/// Options of `audit`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AuditArguments {
    /// The chain: its address, like http://127.0.0.1:9944, or the embedded chain's folder, OUT/chain
    #[arg(long, value_name = "URL|DIR")]
    pub(crate) chain: String,
    /// The blobs: the address of a server that has them, or a blob store's folder, OUT/blobs
    #[arg(long, value_name = "URL|DIR")]
    pub(crate) blobs: String,
    /// Print what was verified as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
