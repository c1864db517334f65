//! Options of `plan`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::bench::{Gradients, StoredType};
use super::inspect::RoutingMode;

/// Options of `plan`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "With --memory, every one of --experts, --dtype, --master, --optimizer, --gradients \
and --checkpointing that is not given is proposed: first the most experts that fit with any settings, \
then of these settings the most exact. Given up first is what costs least: kept activations, gradients \
that live until the step ends, moments in f32, trained weights in f32, frozen weights in bf16. If \
nothing fits, the exit code is 1."
)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    pub(crate) source: SourceArguments,
    #[command(flatten)]
    pub(crate) experts: ExpertArguments,
    #[command(flatten)]
    pub(crate) step: StepArguments,
    #[command(flatten)]
    pub(crate) settings: SettingArguments,
    /// Say whether this much memory is enough, like 23GiB, and propose what is not given; of a card,
    /// about 1 GiB is the driver's
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<MemorySize>,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Show the formula of every number, in names and in numbers
    #[arg(long)]
    pub(crate) explain: bool,
}

/// Where the model's dimensions come from.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SourceArguments {
    /// A config.json, or deepseek-v2-lite, qwen3-30b-a3b or qwen3-vl-30b-a3b; a file of that name wins
    #[arg(long, value_name = "FILE|NAME")]
    pub(crate) config: Option<String>,
    /// A Hugging Face folder, of which only config.json is read
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
}

/// Which experts are trained, and which are in memory.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ExpertArguments {
    /// Experts of each MoE layer that are trained
    /// [default: 8, or all of a smaller group; with --memory: proposed]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) experts: Option<u32>,
    /// Frozen experts of each MoE layer that are in memory besides; for frozen-kept and fallback
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) kept: u32,
    /// Which experts tokens visit [default: masked, or frozen-kept with --kept]
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) routing: Option<RoutingMode>,
    /// Expert groups; all experts of one group are in memory [default: those that are trained]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) groups: Option<u32>,
    /// Allow groups of different sizes; the plan is that of the largest
    #[arg(long, requires = "groups")]
    pub(crate) allow_uneven: bool,
}

/// What a training step reads.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct StepArguments {
    /// Tokens of a sequence [default: 1024, or the model's positions if they are fewer]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) seq: Option<u32>,
    /// Sequences of a step, all of them in one pass
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) batch: u32,
    /// Threads, each of which has logits and operands of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
}

/// How everything is held.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct SettingArguments {
    /// How frozen matrices are stored [default: bf16]
    #[arg(long, value_enum)]
    pub(crate) dtype: Option<StoredType>,
    /// Whether trained weights are held in f32, or in bf16 and rounded stochastically [default: none]
    #[arg(long, value_enum)]
    pub(crate) master: Option<Master>,
    /// AdamW with its two states in f32 or in a byte each [default: adamw-8bit]
    #[arg(long, value_enum)]
    pub(crate) optimizer: Option<Optimizer>,
    /// Whether gradients of a layer live until the step ends or until the layer is stepped
    /// [default: released]
    #[arg(long, value_enum)]
    pub(crate) gradients: Option<Gradients>,
    /// Whether activations are computed again in the backward pass [default: on]
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "on")]
    pub(crate) checkpointing: Option<Checkpointing>,
}

/// What trained weights are updated in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Master {
    /// The weights themselves are f32
    F32,
    /// The weights are bf16 and there is no other copy
    None,
}

impl Master {
    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::None => "none",
        }
    }
}

/// Optimisers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Optimizer {
    /// States in single precision
    Adamw,
    /// A byte a state, with a scale per block of 256
    #[value(name = "adamw-8bit")]
    Adamw8bit,
}

impl Optimizer {
    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Adamw => "adamw",
            Self::Adamw8bit => "adamw-8bit",
        }
    }
}

/// Whether activations are computed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Checkpointing {
    /// All but a layer's input are
    On,
    /// They are held
    Off,
}

impl Checkpointing {
    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// An amount of memory: a number with a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemorySize {
    pub(crate) bytes: u64,
    /// As it was typed.
    pub(crate) text: String,
}

/// Decimal places that a size may have: more would be less than a byte of every unit in use.
const MOST_PLACES: usize = 9;

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units: [(&str, u128); 8] = [
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("TiB", 1 << 40),
            ("KB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("TB", 1_000_000_000_000),
        ];
        let expected = || "expected a number with a unit, like 24GiB, 24GB or 24576MiB".to_owned();
        let start = text
            .find(|letter: char| letter.is_ascii_alphabetic())
            .ok_or_else(expected)?;
        let (number, unit) = text.split_at(start);
        let named = |(name, _): &&(&str, u128)| name.eq_ignore_ascii_case(unit);
        let (_, unit) = units.iter().find(named).ok_or_else(expected)?;
        let bytes = times(number.trim_end(), *unit).ok_or_else(expected)?;
        if bytes == 0 {
            return Err("must be more than nothing".to_owned());
        }
        Ok(Self {
            bytes,
            text: text.to_owned(),
        })
    }
}

/// A decimal number times a unit, in whole bytes.
fn times(number: &str, unit: u128) -> Option<u64> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let usable = !whole.is_empty() && !fraction.is_empty() && digits(whole) && digits(fraction);
    if !usable || fraction.len() > MOST_PLACES {
        return None;
    }
    let denominator = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = fraction.parse::<u128>().ok()?.checked_mul(unit)? / denominator;
    let bytes = whole.parse::<u128>().ok()?.checked_mul(unit)?;
    u64::try_from(bytes.checked_add(part)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_exactly_and_need_a_unit() {
        for (text, bytes) in [
            ("24GiB", 24 << 30),
            ("24 GiB", 24 << 30),
            ("24gb", 24_000_000_000),
            ("24576MiB", 24 << 30),
            ("1.5GiB", 3 << 29),
            ("0.000000001GB", 1),
            ("7MB", 7_000_000),
        ] {
            assert_eq!(text.parse::<MemorySize>().unwrap().bytes, bytes, "{text}");
        }
        for refused in [
            "",
            "24",
            "GiB",
            "24G",
            "-1GiB",
            "1e3GiB",
            "0GiB",
            "1.GiB",
            ".5GiB",
            "1.2.3GiB",
            "nanGiB",
            "24GiBs",
            "99999999999999999999999999999999999999999GiB",
            "18446744073709551616KB",
            "２GiB",
        ] {
            assert!(refused.parse::<MemorySize>().is_err(), "{refused}");
        }
    }
}
