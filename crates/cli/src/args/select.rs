//! Options of `select` and `affinity`, and of the sample of text that both run through a model.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::partition::GroupingArguments;

/// Options of `select`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SelectArguments {
    /// Hugging Face folder; with --from-scores optional, for what the scores cannot know
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// JSONL file of the domain's training text, may be repeated; never its evaluation text
    #[arg(long, value_name = "FILE", conflicts_with = "from_scores")]
    pub(crate) data: Vec<PathBuf>,
    /// Take the scores of this summary.json instead of running a model
    #[arg(long, value_name = "FILE")]
    pub(crate) from_scores: Option<PathBuf>,
    /// What an expert is judged by
    #[arg(long, value_enum, value_name = "SCORE", default_value_t = ScoreKind::Token)]
    pub(crate) score: ScoreKind,
    /// Take the best experts of a layer until their scores reach this share, above 0 and at most 1
    /// [default: 0.1 for gate, 0.2 for token]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f64>,
    /// Take this many of the best experts of a layer
    #[arg(long, value_name = "K", conflicts_with = "top_p")]
    pub(crate) top_k: Option<usize>,
    /// Choose among the experts of this group, whose scores then count as the whole; where nothing says
    /// which groups there are, of 8, or of as many below as experts divide by
    #[arg(long, value_name = "G")]
    pub(crate) within_group: Option<u16>,
    #[command(flatten)]
    pub(crate) grouping: GroupingArguments,
    #[command(flatten)]
    pub(crate) sample: SampleArguments,
    /// Also write both scores of all experts, as a summary.json
    #[arg(long, value_name = "FILE")]
    pub(crate) scores_out: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The expert configuration to write
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// Options of `affinity`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Where no option says which groups there are: 8, or as many below 8 as experts \
divide by. Groups are ranked by their affinity as a multiple of what it would be if all experts \
scored the same, so that groups of different sizes can be compared."
)]
pub(crate) struct AffinityArguments {
    /// Hugging Face folder
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// JSONL file of one domain's text; several are compared
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) data: Vec<PathBuf>,
    /// What an expert is judged by
    #[arg(long, value_enum, value_name = "SCORE", default_value_t = ScoreKind::Token)]
    pub(crate) score: ScoreKind,
    #[command(flatten)]
    pub(crate) grouping: GroupingArguments,
    #[command(flatten)]
    pub(crate) sample: SampleArguments,
    /// Also count the miners of each group that are there already: their hotkeys, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) hotkeys: Option<PathBuf>,
    /// Tickets of each group, like 64,60,71, or a file of them; a running task's are in its manifest
    /// [default: found by the hotkeys]
    #[arg(long, value_name = "FILE|N,...", requires = "hotkeys")]
    pub(crate) tickets: Option<String>,
    /// Also draw all layers and experts into this SVG file
    #[arg(long, value_name = "FILE")]
    pub(crate) heat_map: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The sample of the ESFT paper: 32 sequences of this length.
pub(crate) const SAMPLE_TOKENS: u32 = 131_072;
/// See [`SAMPLE_TOKENS`].
pub(crate) const SAMPLE_SEQUENCE_LENGTH: u32 = 4_096;
/// Of the draw, unless told otherwise.
pub(crate) const SAMPLE_SEED: u64 = 1;

/// How much text is run through a model.
#[derive(Debug, Clone, Args)]
pub(crate) struct SampleArguments {
    /// Tokens of text to run at most, drawn from all documents
    #[arg(long, value_name = "N", default_value_t = SAMPLE_TOKENS, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tokens: u32,
    /// Longest sequence; longer documents are cut, and none is longer than the model takes
    #[arg(long, value_name = "N", default_value_t = SAMPLE_SEQUENCE_LENGTH, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sequence_length: u32,
    /// Seed of the draw
    #[arg(long, default_value_t = SAMPLE_SEED)]
    pub(crate) seed: u64,
    /// Threads [default: as many as there are cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}

/// The two scores of ESFT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScoreKind {
    /// Its mean mixing weight
    Gate,
    /// Its share of all picks
    Token,
}

impl ScoreKind {
    /// The score as it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Token => "token",
        }
    }
}
