//! Options of `partition` and `assign`, and how every command is told which groups there are.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

/// Groups where nothing is said and any will do, as in the network's own example.
const USUAL_GROUPS: u16 = 8;

/// How a model's experts are divided into groups.
#[derive(Debug, Clone, Args)]
pub(crate) struct GroupingArguments {
    /// Expert groups
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    #[arg(conflicts_with = "sizes")]
    pub(crate) groups: Option<u16>,
    /// Experts of each group, like 32,16,8,8, instead of groups of one size
    #[arg(long, value_name = "N,...", value_delimiter = ',', num_args = 1)]
    pub(crate) sizes: Option<Vec<usize>>,
    /// How experts are put into groups [default: contiguous, or explicit with --assignment]
    #[arg(long, value_enum, value_name = "STRATEGY")]
    pub(crate) strategy: Option<Strategy>,
    /// expert_assignment.json of each group in order, or one of all experts, cut into runs of slots
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) assignment: Vec<PathBuf>,
    /// Allow groups of different sizes, and groups without experts in some layers
    #[arg(long)]
    pub(crate) allow_uneven: bool,
    /// Take the groups from what `partition --json` printed
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = ["groups", "sizes", "strategy", "assignment", "allow_uneven"])]
    pub(crate) partition: Option<PathBuf>,
}

impl GroupingArguments {
    /// The option that says which groups there are, if one does.
    pub(crate) fn stated(&self) -> Option<&'static str> {
        let options = [
            ("--groups", self.groups.is_some()),
            ("--sizes", self.sizes.is_some()),
            ("--partition", self.partition.is_some()),
            ("--assignment", !self.assignment.is_empty()),
        ];
        let stated = options.into_iter().find(|(_, stated)| *stated);
        stated.map(|(option, _)| option)
    }

    /// These options, with a usual number of groups where none says which there are: 8, or as many below
    /// as this number of experts divides by.
    pub(crate) fn or_usual(&self, experts: usize) -> Self {
        let mut grouping = self.clone();
        if grouping.stated().is_none() {
            let divides = |groups: &u16| experts.is_multiple_of(usize::from(*groups));
            grouping.groups = (1..=USUAL_GROUPS).rev().find(divides);
        }
        grouping
    }

    /// The option that says how groups are made, if one does.
    pub(crate) fn manner(&self) -> Option<&'static str> {
        match (self.strategy, self.allow_uneven) {
            (Some(_), _) => Some("--strategy"),
            (None, true) => Some("--allow-uneven"),
            (None, false) => None,
        }
    }

    /// The files that are read, each with its option.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let lists = self.assignment.iter();
        let lists = lists.map(|path| ("--assignment", path.as_path()));
        let partition = self.partition.as_deref();
        lists.chain(partition.map(|path| ("--partition", path)))
    }
}

/// The ways to divide experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Strategy {
    /// Experts 0 to n−1 to group 0, the next n to group 1
    Contiguous,
    /// Expert i to group i modulo N
    Strided,
    /// As --assignment lists them
    Explicit,
    /// Experts that tokens of --data visit together
    Coactivation,
}

/// Options of `partition`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PartitionArguments {
    /// Hugging Face folder, its config.json, its index, or one safetensors file
    #[arg(long, value_name = "PATH")]
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) grouping: GroupingArguments,
    /// JSONL file of text for --strategy coactivation, may be repeated
    #[arg(long = "data", value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// Write into each group the hotkeys of this file, one a line, that are assigned to it
    #[arg(long, value_name = "FILE")]
    pub(crate) hotkeys: Option<PathBuf>,
    /// Tickets of each group, like 64,60,71, or a file of them [default: found by the hotkeys]
    #[arg(long, value_name = "FILE|N,...", requires = "hotkeys")]
    pub(crate) tickets: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `assign`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AssignArguments {
    /// Hotkeys, one a line: ss58 addresses or 64 hexadecimal digits
    #[arg(long, value_name = "FILE", required_unless_present = "new_hotkey")]
    pub(crate) hotkeys: Option<PathBuf>,
    /// Expert groups
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) groups: u16,
    /// Tickets of each group, like 64,60,71, or a file of them; a running task's are in its manifest
    /// [default: found so that the hotkeys spread evenly, beginning with 64 for each group]
    #[arg(long, value_name = "FILE|N,...")]
    pub(crate) tickets: Option<String>,
    /// Make a key that is assigned to one of the groups of --prefer, and write it to this new file
    #[arg(long, value_name = "FILE", requires = "prefer")]
    pub(crate) new_hotkey: Option<PathBuf>,
    /// A group that the new hotkey may be assigned to, may be repeated
    #[arg(long, value_name = "G", requires = "new_hotkey")]
    pub(crate) prefer: Vec<u16>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
