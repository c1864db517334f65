//! A scenario: who takes part, over what network, and what goes wrong. Read from TOML and checked.
//!
//! Everything has a default, every unit is in the name, and a key that means nothing is refused. Times
//! are counted in cycles from the task's first block, so that a scenario reads the same under rules with
//! other windows. Which node a fault hits, and when exactly, is the seed's to decide (`faults.rs`).

mod check;

use std::collections::BTreeMap;

use connito_protocol::rules::{Rules, RulesError};
use serde::{Deserialize, Serialize};

use crate::adversary::{HostileMiner, HostileValidator};

/// Most participants of one kind; a slot on the chain has sixteen bits.
const MOST_PARTICIPANTS: u32 = 20_000;

/// A scenario as it stands in its file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// What it shows, in a sentence.
    pub description: String,
    /// Cycles to run.
    pub cycles: u64,
    /// Expert groups, each with a domain of its own.
    pub groups: u16,
    /// Who does the tensor work.
    pub learner: LearnerKind,
    /// The validators.
    pub validators: Validators,
    /// The miners.
    pub miners: Miners,
    /// The chain.
    pub chain: ChainModel,
    /// The links between participants.
    pub links: LinkModel,
    /// How long work takes, and how much two machines differ.
    pub work: WorkModel,
    /// Crashes and broken disks.
    pub faults: FaultModel,
    /// Who comes and goes.
    pub churn: Churn,
    /// Times in which some participants are cut off from all others.
    pub partitions: Vec<Interruption>,
    /// When the owner goes offline for good, in cycles; never if absent.
    pub owner_leaves_at_cycle: Option<f64>,
    /// Rules that differ from the default ones, named as in the task manifest.
    pub rules: toml::Table,
}

/// Who does the tensor work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LearnerKind {
    /// The learner of the real roles over a toy model: every byte is encoded, checked and merged as in
    /// production.
    Toy,
    /// Vectors with a true optimum, for thousands of miners.
    Curve,
}

/// The validators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Validators {
    /// How many follow the rules.
    pub honest: u32,
    /// How many of each kind do not.
    pub hostile: BTreeMap<HostileValidator, u32>,
    /// The hostile ones' share of all stake, in percent; as many heads, as much stake if absent.
    pub hostile_stake_percent: Option<f64>,
    /// How many of the honest ones take ten times as long to measure.
    pub slow: u32,
}

/// The miners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Miners {
    /// How many follow the rules.
    pub honest: u32,
    /// How many hotkeys of each kind do not.
    pub hostile: BTreeMap<HostileMiner, u32>,
    /// How many of the honest ones take ten times as long to train.
    pub slow: u32,
}

/// The chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChainModel {
    /// Time between blocks.
    pub block_seconds: f64,
    /// Writes that never reach the chain; the writer is told.
    pub lost_writes_percent: f64,
    /// Times in which no block is made.
    pub stalls: Vec<Stall>,
    /// Moments in which the newest blocks are taken back and others stand in their place.
    pub forks: Vec<Fork>,
    /// Blocks whose author is in league with the grinders, and may withhold one block to get another
    /// hash.
    pub grinding_authors_percent: f64,
}

/// A time in which no block is made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stall {
    /// When it begins.
    pub at_cycle: f64,
    /// How long it lasts.
    pub seconds: f64,
}

/// A moment in which the newest blocks are taken back and others stand in their place.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fork {
    /// When it happens.
    pub at_cycle: f64,
    /// How many blocks it takes back.
    pub blocks: u32,
}

/// The links between participants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkModel {
    /// Median time from one participant to another; single ones vary from half to five times that.
    pub latency_milliseconds: f64,
    /// Requests that are lost; the client waits for its timeout.
    pub loss_percent: f64,
    /// How long a client waits for a blob, and for an answer to an upload.
    pub timeout_seconds: f64,
    /// How long it waits for a document, and for a connection to a server that is down.
    pub document_timeout_seconds: f64,
    /// A validator's or the owner's bandwidth in each direction; without limit if absent.
    pub validator_megabits_per_second: Option<f64>,
    /// A miner's bandwidth in each direction; without limit if absent.
    pub miner_megabits_per_second: Option<f64>,
    /// Size of an update on the wire.
    pub update_megabytes: f64,
    /// Size of a shard or a momentum on the wire.
    pub shard_megabytes: f64,
    /// Uploads that one server takes at a time (P-52).
    pub uploads_at_a_time: u32,
}

/// How long work takes, and how much two machines differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkModel {
    /// One optimiser step.
    pub training_step_seconds: f64,
    /// Measuring one update.
    pub scoring_seconds_per_update: f64,
    /// Merging, and measuring the gate.
    pub merging_seconds: f64,
    /// Kinds of processors among validators; one kind measures alike to the bit.
    pub device_classes: u32,
    /// Standard deviation of what two kinds measure of one loss, in nats a token.
    pub device_noise_nats: f64,
}

/// Crashes and broken disks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultModel {
    /// Share of all participants that may crash at all.
    pub crashing_percent: f64,
    /// Crashes of each of these in a cycle, on average. Each hits a random boundary of a random step:
    /// before it is journalled, or before or after any of its effects.
    pub crashes_per_cycle: f64,
    /// Of these crashes, how many tear the journal's last record, as far as lost records leave room.
    pub torn_percent: f64,
    /// Of these crashes, how many are a full disk: the step cannot be journalled and the role stops. As
    /// far as lost and torn records leave room.
    pub disk_full_percent: f64,
    /// Of these crashes, how many lose the last record although the disk called it durable. Outside of
    /// what the protocol promises to survive (a disk that lies): a scenario with it must fail.
    pub lost_records_percent: f64,
    /// How long until the role is started again, on average.
    pub restart_seconds: f64,
    /// The cycle from which on nothing crashes any more, so that liveness can be judged.
    pub until_cycle: Option<f64>,
}

/// Who comes and goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Churn {
    /// Miners that register in a cycle, on average.
    pub joins_per_cycle: f64,
    /// Miners whose registration ends in a cycle, on average.
    pub leaves_per_cycle: f64,
    /// The cycle from which on nobody comes or goes.
    pub until_cycle: Option<f64>,
}

/// A time in which some participants are cut off from all others and from the chain.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interruption {
    /// When it begins.
    pub at_cycle: f64,
    /// How long it lasts.
    pub cycles: f64,
    /// Share of the validators' stake and of the miners that is cut off, less than half.
    pub percent: f64,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            description: String::new(),
            cycles: 5,
            groups: 2,
            learner: LearnerKind::Toy,
            validators: Validators::default(),
            miners: Miners::default(),
            chain: ChainModel::default(),
            links: LinkModel::default(),
            work: WorkModel::default(),
            faults: FaultModel::default(),
            churn: Churn::default(),
            partitions: Vec::new(),
            owner_leaves_at_cycle: None,
            rules: toml::Table::new(),
        }
    }
}

impl Default for Validators {
    fn default() -> Self {
        Self {
            honest: 4,
            hostile: BTreeMap::new(),
            hostile_stake_percent: None,
            slow: 0,
        }
    }
}

impl Default for Miners {
    fn default() -> Self {
        Self {
            honest: 8,
            hostile: BTreeMap::new(),
            slow: 0,
        }
    }
}

impl Default for ChainModel {
    fn default() -> Self {
        Self {
            block_seconds: 12.0,
            lost_writes_percent: 0.0,
            stalls: Vec::new(),
            forks: Vec::new(),
            grinding_authors_percent: 0.0,
        }
    }
}

impl Default for LinkModel {
    fn default() -> Self {
        Self {
            latency_milliseconds: 80.0,
            loss_percent: 0.0,
            timeout_seconds: 30.0,
            document_timeout_seconds: 5.0,
            validator_megabits_per_second: None,
            miner_megabits_per_second: None,
            update_megabytes: 50.0,
            shard_megabytes: 50.0,
            uploads_at_a_time: 256,
        }
    }
}

impl Default for WorkModel {
    fn default() -> Self {
        Self {
            training_step_seconds: 10.0,
            scoring_seconds_per_update: 0.2,
            merging_seconds: 2.0,
            device_classes: 2,
            device_noise_nats: 1e-6,
        }
    }
}

impl Default for FaultModel {
    fn default() -> Self {
        Self {
            crashing_percent: 100.0,
            crashes_per_cycle: 0.0,
            torn_percent: 30.0,
            disk_full_percent: 10.0,
            lost_records_percent: 0.0,
            restart_seconds: 10.0,
            until_cycle: None,
        }
    }
}

impl FaultModel {
    /// Whether anything crashes at all.
    pub(crate) fn strike(&self) -> bool {
        self.crashing_percent > 0.0 && self.crashes_per_cycle > 0.0
    }
}

impl Default for Churn {
    fn default() -> Self {
        Self {
            joins_per_cycle: 0.0,
            leaves_per_cycle: 0.0,
            until_cycle: None,
        }
    }
}

/// Why a scenario cannot be run. Names the key.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Not TOML of a scenario's shape.
    #[error("line {line}, `{text}`: {problem}")]
    Toml {
        /// The line, counted from 1.
        line: usize,
        /// The beginning of what stands there.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A number outside of its range, or none.
    #[error("{key} is {}, must be from {least} to {most}", check::in_words(*value))]
    Range {
        /// The key.
        key: String,
        /// What it is.
        value: f64,
        /// Smallest accepted.
        least: f64,
        /// Largest accepted.
        most: f64,
    },
    /// Rules that no task may have.
    #[error("the rules cannot be followed")]
    Rules(#[source] RulesError),
    /// A rule that does not exist, or of another type.
    #[error("rules: {0}")]
    UnknownRule(String),
    /// The task that follows from it cannot be published.
    #[error("the scenario's task cannot be published: {0}")]
    Task(String),
}

impl Scenario {
    /// Reads and checks a scenario.
    ///
    /// # Errors
    /// Names the first key that is unknown, of another type or out of range.
    pub fn from_toml(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text).map_err(|error| unreadable(text, &error))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The rules of the scenario's task: the default ones, but for those that it names.
    ///
    /// # Errors
    /// A rule does not exist, is of another type, or is out of range.
    pub fn task_rules(&self) -> Result<Rules, ScenarioError> {
        let unknown = |error: &dyn std::fmt::Display| {
            ScenarioError::UnknownRule(shortened(error.to_string().trim_end()))
        };
        let default = toml::Value::try_from(Rules::default()).map_err(|error| unknown(&error))?;
        let mut rules = default;
        overlay(&mut rules, &toml::Value::Table(self.rules.clone()));
        let rules: Rules = rules.try_into().map_err(|error| unknown(&error))?;
        rules.check().map_err(ScenarioError::Rules)?;
        Ok(rules)
    }

    /// All miners, hostile or not.
    #[must_use]
    pub fn all_miners(&self) -> u32 {
        self.miners.honest + self.miners.hostile.values().sum::<u32>()
    }

    /// All validators, hostile or not.
    #[must_use]
    pub fn all_validators(&self) -> u32 {
        self.validators.honest + self.validators.hostile.values().sum::<u32>()
    }

    /// Whether old blocks are of no use to anybody: nobody is ever behind by more than a few.
    pub(crate) fn forgets_blocks(&self) -> bool {
        !self.faults.strike()
            && self.churn.joins_per_cycle == 0.0
            && self.partitions.is_empty()
            && self.chain.forks.is_empty()
            && self.all_miners() > 500
    }
}

/// The beginning of a sentence that may repeat what a file says, on one line.
fn shortened(sentence: &str) -> String {
    const MOST_LETTERS: usize = 300;
    let mut letters = sentence.chars();
    let beginning = letters.by_ref().take(MOST_LETTERS);
    let mut beginning: String = beginning
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    if letters.next().is_some() {
        beginning.push('…');
    }
    beginning
}

/// An error of the library without the picture that it draws.
fn unreadable(text: &str, error: &toml::de::Error) -> ScenarioError {
    const MOST_LETTERS: usize = 60;
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let number = text.as_bytes()[..start]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count();
    let line = text.lines().nth(number).unwrap_or_default().trim();
    ScenarioError::Toml {
        line: number + 1,
        text: line
            .chars()
            .take(MOST_LETTERS)
            .flat_map(char::escape_debug)
            .collect(),
        problem: shortened(error.message()),
    }
}

/// Lays a table over another; what only the upper one has is kept, to be refused by whoever reads it.
fn overlay(below: &mut toml::Value, above: &toml::Value) {
    match (below, above) {
        (toml::Value::Table(below), toml::Value::Table(above)) => {
            for (key, value) in above {
                match below.get_mut(key) {
                    Some(place) => overlay(place, value),
                    None => {
                        below.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (below, above) => *below = above.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_a_calm_network() {
        assert_eq!(Scenario::from_toml("").unwrap(), Scenario::default());
    }

    #[test]
    fn a_rule_is_changed_by_its_name_and_an_unknown_one_refused() {
        let scenario = Scenario::from_toml("[rules.windows]\nscore = 6").unwrap();
        let rules = scenario.task_rules().unwrap();
        assert_eq!((rules.windows.score, rules.windows.vote), (6, 2));
        for unusable in [
            "[rules.windows]\nscor = 6",
            "[rules]\nwindows = 3",
            "[rules.windows]\nscore = 0",
        ] {
            assert!(Scenario::from_toml(unusable).is_err(), "{unusable}");
        }
    }

    #[test]
    fn numbers_out_of_range_and_numbers_that_are_none_are_refused_by_key() {
        for (text, key) in [
            ("cycles = 0", "cycles"),
            ("[miners]\nhonest = 1_000_000", "miners.honest"),
            ("[links]\nloss_percent = nan", "links.loss_percent"),
            ("[chain]\nblock_seconds = inf", "chain.block_seconds"),
            (
                "[validators]\nhostile_stake_percent = 60",
                "hostile_stake_percent",
            ),
            (
                "[[partitions]]\nat_cycle = 1\ncycles = 1\npercent = 80",
                "partitions.percent",
            ),
            (
                "[chain]\nforks = [{ at_cycle = nan, blocks = 1 }]",
                "chain.forks.at_cycle",
            ),
            (
                "[chain]\nforks = [{ at_cycle = 1, blocks = 0 }]",
                "chain.forks.blocks",
            ),
            (
                "[chain]\nforks = [{ at_cycle = 1, blocks = 9 }]",
                "chain.forks.blocks",
            ),
            ("[churn]\njoins_per_cycle = 1e300", "is 1e300, must be"),
            (
                "cycles = 100\n[churn]\njoins_per_cycle = 1000",
                "churn.joins_per_cycle",
            ),
        ] {
            let error = Scenario::from_toml(text).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    /// A sentence, however much of it the file repeats.
    #[test]
    fn a_key_of_a_hundred_kilobytes_is_not_printed_whole() {
        let key = "a".repeat(100_000);
        for text in [format!("{key} = 1"), format!("[rules]\n{key} = 1")] {
            let error = Scenario::from_toml(&text).unwrap_err().to_string();
            assert!(error.len() < 1_000, "{}", error.len());
        }
    }

    #[test]
    fn keys_and_adversaries_that_do_not_exist_are_refused() {
        for text in [
            "cycle = 3",
            "[miners.hostile]\nangel = 1",
            "[links]\nlatency_ms = 3",
        ] {
            assert!(
                matches!(Scenario::from_toml(text), Err(ScenarioError::Toml { line, .. }) if line > 0),
                "{text}"
            );
        }
    }
}
