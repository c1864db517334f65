//! Options of `score`.

use std::path::PathBuf;

use clap::Args;
use connito_protocol::ids::{Seed, StateId};

/// Options of `score`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "After `localnet` any update can be measured on any text:\n\n  \
                  connito score --base OUT/model --update OUT/blobs/ab/abcd… \\\n    \
                  --data OUT/heldout.jsonl --seed HEX\n\n\
                  To repeat a validator's own measurement, bit for bit, take base, seed and update from its\n\
                  receipt below OUT/roles/validator-0/receipts:\n\n  \
                  connito score --task OUT/task.json --blobs OUT/blobs --state HEX \\\n    \
                  --update OUT/blobs/ab/abcd… --seed HEX\n\n\
                  The exit code is 0 for an update that could be measured, whatever it is worth, and 1 for one\n\
                  that validators refuse."
)]
pub(crate) struct ScoreArguments {
    /// Hugging Face folder of the state that the update builds on, such as a localnet's OUT/model
    #[arg(long, value_name = "DIR", required_unless_present = "state")]
    pub(crate) base: Option<PathBuf>,
    /// The update as it is uploaded, such as OUT/blobs/ab/abcd…
    #[arg(long, value_name = "FILE")]
    pub(crate) update: PathBuf,
    /// What to measure on, may be repeated: text as JSONL, a pool as validators hold it, or lines of
    /// {"ids": [...]} like OUT/heldout.jsonl
    #[arg(long = "data", value_name = "FILE", required_unless_present = "task")]
    pub(crate) data: Vec<PathBuf>,
    /// Seed of the draw: up to 64 hexadecimal digits, zeros in front may be left out
    #[arg(long, value_name = "HEX", value_parser = seed)]
    pub(crate) seed: Seed,
    /// Sequences to draw from all --data together, at least 2 from each
    #[arg(
        long,
        value_name = "N",
        default_value_t = 32,
        value_parser = clap::value_parser!(u32).range(2..=1_000_000),
        conflicts_with = "task"
    )]
    pub(crate) sequences: u32,
    /// Tokens of a sequence at most [default: 128, or the model's positions if they are fewer]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(2..),
        conflicts_with = "task"
    )]
    pub(crate) sequence_length: Option<u32>,
    /// The task's manifest, such as OUT/task.json: its pools, shares and rules instead of --data
    #[arg(long, value_name = "FILE", requires = "blobs", conflicts_with = "data")]
    pub(crate) task: Option<PathBuf>,
    /// The folder with the task's blobs, such as OUT/blobs; nothing is written to it
    #[arg(long, value_name = "DIR", requires = "task")]
    pub(crate) blobs: Option<PathBuf>,
    /// Put this state together from --blobs, instead of --base; a receipt calls it base
    #[arg(long, value_name = "HEX", requires = "task", conflicts_with = "base")]
    pub(crate) state: Option<StateId>,
    /// Threads [default: as many as there are cores]; the numbers do not depend on them
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// The 32 bytes of a seed that may be written as a number.
fn seed(text: &str) -> Result<Seed, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text).to_ascii_lowercase();
    if digits.is_empty() || digits.len() > 64 {
        return Err("expected 1 to 64 hexadecimal digits".to_owned());
    }
    let padded = format!("{digits:0>64}").parse();
    padded.map_err(|error: connito_protocol::ids::IdError| error.to_string())
}
