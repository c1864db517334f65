//! Options of `compare`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// Options of `compare`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Every strategy is played on the same network of workers, with the settings that its authors \
publish. Tokens are counted as they are processed; nothing is said of what is learnt from them."
)]
pub(crate) struct CompareArguments {
    /// Models: dense-70b, or what plan --config takes; at most 6, separated by commas
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "dense-70b,qwen3-30b-a3b,deepseek-v2-lite"
    )]
    pub(crate) models: Vec<String>,
    #[command(flatten)]
    pub(crate) network: NetworkArguments,
    /// Groups that the routed experts of a model are divided into
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) groups: u32,
    /// Experts of each layer that a miner trains; all of a smaller group
    #[arg(long, value_name = "K", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) experts: u32,
    /// Workers that stand in for each other at each stage of the 4-stage pipeline
    #[arg(long, value_name = "R", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) replicas: u32,
    /// Percent of the workers that are down at any time; at most 6 values
    #[arg(
        long,
        value_name = "PERCENT",
        value_delimiter = ',',
        default_value = "0,5,10,20,30"
    )]
    pub(crate) fail: Vec<Percent>,
    /// Hours to play at least; whole rounds are played, and ten unless that takes a month
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=168))]
    pub(crate) hours: u16,
    /// Seed of rates and outages
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write comparison.json and five figures (SVG) into this folder, in the place of earlier ones
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// What the workers are.
#[derive(Debug, Clone, Args)]
pub(crate) struct NetworkArguments {
    /// Workers of the network
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(8..=2048))]
    pub(crate) workers: u16,
    /// Rate of a worker's link to the internet, like 20mbit or 1.5gbit
    #[arg(long, value_name = "RATE", default_value = "20mbit")]
    pub(crate) bandwidth: Rate,
    /// Rate of a worker's link from the internet
    #[arg(long, value_name = "RATE", default_value = "100mbit")]
    pub(crate) down: Rate,
    /// Milliseconds from one worker to another, or to a store, in one direction
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u16).range(..=10_000))]
    pub(crate) latency: u16,
    /// Teraflop a second at which a worker trains; an RTX A6000 has 155 in bf16, of which 30 % are 46.5
    #[arg(long, value_name = "TFLOPS", default_value = "46.5")]
    pub(crate) tflops: Teraflops,
}

/// A share of the workers.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct Percent(pub(crate) f64);

/// The largest share of workers that fail: beyond, there is no network to speak of.
const MOST_PERCENT: f64 = 90.0;

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = decimal(text.strip_suffix('%').unwrap_or(text))
            .filter(|percent| *percent <= MOST_PERCENT);
        percent
            .map(Self)
            .ok_or_else(|| format!("expected percent from 0 to {MOST_PERCENT}"))
    }
}

/// A rate of a link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    pub(crate) bits_per_second: f64,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let unit = |name| Some((lower.strip_suffix(name)?, name));
        let (number, unit) = unit("mbit")
            .or_else(|| unit("gbit"))
            .ok_or_else(|| "expected a number with mbit or gbit, like 20mbit".to_owned())?;
        let scale = if unit == "gbit" { 1e9 } else { 1e6 };
        let rate = decimal(number.trim_end()).map(|number| number * scale);
        // Slower, a plain all-reduce takes years to play; faster, no machine sends.
        let rate = rate.filter(|rate| (1e6..=1e12).contains(rate));
        rate.map(|bits_per_second| Self { bits_per_second })
            .ok_or_else(|| "must be from 1mbit to 1000gbit".to_owned())
    }
}

/// A rate of computing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Teraflops(pub(crate) f64);

impl FromStr for Teraflops {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        decimal(text)
            .filter(|number| (0.01..=1e6).contains(number))
            .map(Self)
            .ok_or_else(|| "expected a number from 0.01 to 1000000".to_owned())
    }
}

/// A plain decimal number: no sign, no exponent, no name.
fn decimal(text: &str) -> Option<f64> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse()
        .ok()
        .filter(|number: &f64| plain && number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_need_a_unit_and_a_sensible_size() {
        for (text, rate) in [("20mbit", 20e6), ("1.5Gbit", 1.5e9), ("100 mbit", 100e6)] {
            let bits_per_second = rate;
            assert_eq!(text.parse(), Ok(Rate { bits_per_second }));
        }
        for refused in [
            "20", "mbit", "20kbit", "-1mbit", "1e3mbit", "0mbit", "infmbit", "1001gbit",
        ] {
            assert!(refused.parse::<Rate>().is_err(), "{refused}");
        }
    }

    #[test]
    fn percents_are_plain_numbers_of_at_most_ninety() {
        for (text, percent) in [("0", 0.0), ("2.5", 2.5), ("30%", 30.0)] {
            assert_eq!(text.parse(), Ok(Percent(percent)));
        }
        for refused in ["", "-5", "91", "nan", "1e1", "inf", ".", "5%%"] {
            assert!(refused.parse::<Percent>().is_err(), "{refused}");
        }
    }
}
