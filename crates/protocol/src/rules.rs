//! What a task's owner decides once and everyone then follows: phase lengths, thresholds, rates.
//!
//! All of it is data. `Rules::check` accepts exactly the rules under which a cycle can finish and
//! names the first field that prevents it (P-3, A-104). Nothing here is read from the environment.

use serde::{Deserialize, Serialize};

/// The rules of a task. Part of the task manifest, so its hash is on the chain (P-3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// How a cycle's blocks are divided.
    pub windows: Windows,
    /// Share of its own domains in the text that a group is trained and scored on, 0 to 1. The rest
    /// comes from all other domains: their tokens pass through the group's experts too, and an update
    /// that forgets them is no gain.
    pub own_share: f64,
    /// Which experts of its group a miner trains when it does not choose otherwise.
    pub selection: SelectionRules,
    /// How a miner trains when it does not choose otherwise.
    pub inner: InnerRules,
    /// How an update is judged.
    pub scoring: ScoringRules,
    /// How accepted updates move the canonical state.
    pub outer: OuterRules,
    /// How weights become rewards.
    pub rewards: RewardRules,
    /// Cycles between the one in which a following task is announced and the first one under it (P-39).
    pub notice_cycles: u64,
}

/// Lengths of the six windows of a cycle, in blocks, in the order in which they follow (P-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Windows {
    /// Validators serve the new state; miners fetch what changed.
    pub distribute: u64,
    /// Miners train.
    pub train: u64,
    /// Miners put a sealed commitment on the chain.
    pub seal: u64,
    /// Miners open their commitments and upload.
    pub reveal: u64,
    /// Validators score and report.
    pub score: u64,
    /// Validators merge, measure the gate and vote on the next state.
    pub vote: u64,
}

impl Windows {
    /// Blocks in a cycle.
    #[must_use]
    pub fn cycle(&self) -> u64 {
        self.distribute + self.train + self.seal + self.reveal + self.score + self.vote
    }
}

/// Which experts a training forward pass may choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainingRouting {
    /// Natural routing over all experts; every group's shard must be resident.
    Classic,
    /// Only the trained experts are routable, so no other group is fetched (in-place ESFT).
    Masked,
    /// The trained experts and the kept ones are routable.
    FrozenKept,
    /// Natural routing, the best kept expert in the place of one that is neither trained nor kept.
    Fallback,
}

impl TrainingRouting {
    /// Whether a forward pass runs through experts of other groups, so that their shards are needed.
    #[must_use]
    pub fn visits_other_groups(self) -> bool {
        self != Self::Masked
    }
}

/// Which of its group's experts a miner trains in a cycle (P-36).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectionRules {
    /// What an expert is worth to a text.
    pub score: SelectionScore,
    /// How many of the best are taken.
    pub top: SelectionTop,
    /// Sequences of training text that experts are scored on.
    pub sequences: u32,
}

/// What an expert is worth to a text (expert-specialised fine-tuning, arXiv 2407.01906).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SelectionScore {
    /// The mean weight that the router gives it.
    Gate,
    /// The share of the tokens' choices that fall on it.
    Token,
}

/// How many experts of a layer are taken, best first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SelectionTop {
    /// Until their scores add up to this share of the group's.
    P(f64),
    /// So many.
    K(u32),
}

/// How the tensors of an update are written on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// Four bytes a value, exact.
    F32,
    /// Two bytes a value: the upper half of an f32, rounded to nearest even.
    Bf16,
    /// A byte a value: a multiple of one scale for each chunk of a tensor.
    Int8,
    /// The largest 64 of every 4,096 values, at two bits each.
    Sparse,
}

impl Codec {
    /// All of them, the most exact first.
    pub const ALL: [Self; 4] = [Self::F32, Self::Bf16, Self::Int8, Self::Sparse];

    /// Whether so much is lost on the wire that miners keep account of what they owe (P-38).
    #[must_use]
    pub fn needs_feedback(self) -> bool {
        match self {
            Self::F32 | Self::Bf16 => false,
            Self::Int8 | Self::Sparse => true,
        }
    }
}

/// Defaults of a miner's local training (the inner optimiser is AdamW).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InnerRules {
    /// Optimiser steps a cycle; fewer are taken when the train window ends first.
    pub steps: u32,
    /// Sequences in a batch.
    pub batch_sequences: u32,
    /// Peak learning rate of AdamW.
    pub learning_rate: f32,
    /// Which experts the training forward pass may choose from.
    pub routing: TrainingRouting,
    /// Experts of a layer that stay in memory untrained, with a routing that keeps some.
    pub kept: u32,
    /// How updates are encoded.
    pub codec: Codec,
    /// Share of what the codec left unsent that is still owed a cycle later, 0 to 1 (P-38).
    pub feedback_decay: f32,
    /// What `sparse` multiplies the values by that it sends (P-38).
    pub sparse_gain: f32,
}

impl InnerRules {
    /// The same rules with updates in another codec, and with the peak rate that goes with it: twice as
    /// high with `sparse`, whose updates reach the state late and in part.
    #[must_use]
    pub fn with_codec(self, codec: Codec) -> Self {
        let rate = |codec| match codec {
            Codec::F32 | Codec::Bf16 | Codec::Int8 => 1.0,
            Codec::Sparse => 2.0,
        };
        Self {
            codec,
            learning_rate: self.learning_rate * (rate(codec) / rate(self.codec)),
            ..self
        }
    }
}

/// How an update is judged (P-20 to P-27).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoringRules {
    /// Longest sequence, in tokens; longer documents are cut.
    pub sequence_length: u32,
    /// Sequences drawn from the scoring pools for each group in a cycle.
    pub sequences: u32,
    /// Sequences drawn from each domain's gate pool in a cycle.
    pub gate_sequences: u32,
    /// Standard errors that a gain must exceed to count (P-22).
    pub significance: f64,
    /// Absolute cosine from which two updates are one.
    pub duplicate_cosine: f64,
    /// Share of an update's energy in experts of others above which it is a copy.
    pub copied_share: f64,
    /// Correlation of the changes of the sequences' losses from which two updates are one function
    ///
    pub same_function: f64,
    /// Cycles for which accepted updates are remembered against copies.
    pub duplicate_memory: u64,
    /// Largest norm of an update, in multiples of the group's reference norm.
    pub norm_bound: f64,
    /// Cycles for which an update may build on a state that has been replaced, where its group did not
    /// change.
    pub rebase_window: u64,
    /// Seats in the committee that scores a group in a cycle; with no more voters than that, all of
    /// them score everything (P-43).
    pub scorers_per_update: u32,
    /// Most opened updates of a group that are scored in a cycle (P-43).
    pub updates_per_group: u32,
    /// Validators that a miner uploads its update to; the others fetch it there (P-16).
    pub receivers_per_update: u32,
    /// How far two gains may lie apart and still agree, in nats a token (P-45).
    pub agreement: f64,
    /// Submissions of a cycle that all voters score again in the next one (P-46).
    pub reviews: u32,
    /// Cycles for which nobody is drawn whose report a review contradicted (P-46).
    pub exclusion: u64,
}

/// The outer optimiser: Nesterov on the weighted mean of accepted updates (arXiv 2311.08105).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OuterRules {
    /// η.
    pub learning_rate: f32,
    /// μ.
    pub momentum: f32,
    /// κ: the part of the reference norm, spread evenly over the group's values, below which no tensor
    /// of an update is clipped.
    pub clip_floor: f64,
}

/// How weights become rewards (P-40, P-41).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardRules {
    /// Share of the past kept when a cycle's reward enters a miner's history, 0 to 1.
    pub history: f64,
    /// Cycles that a miner may go unscored through no fault of its own before its history decays; eight
    /// others give one back.
    pub unscored_grace: u64,
    /// Blocks between two settings of weights on the chain.
    pub weight_interval: u64,
}

impl Default for Rules {
    /// The 45-block cycle at twelve seconds a block: nine minutes.
    fn default() -> Self {
        Self {
            windows: Windows {
                distribute: 5,
                train: 30,
                seal: 3,
                reveal: 2,
                score: 3,
                vote: 2,
            },
            own_share: 0.5,
            selection: SelectionRules {
                score: SelectionScore::Token,
                top: SelectionTop::P(0.8),
                sequences: 32,
            },
            inner: InnerRules {
                steps: 24,
                batch_sequences: 8,
                learning_rate: 1e-3,
                routing: TrainingRouting::Classic,
                kept: 16,
                codec: Codec::Bf16,
                feedback_decay: 0.95,
                sparse_gain: 2.0,
            },
            scoring: ScoringRules {
                sequence_length: 128,
                sequences: 32,
                gate_sequences: 16,
                significance: 1.0,
                duplicate_cosine: 0.95,
                copied_share: 0.5,
                same_function: 0.995,
                duplicate_memory: 2,
                norm_bound: 8.0,
                rebase_window: 1,
                scorers_per_update: 16,
                updates_per_group: 256,
                receivers_per_update: 8,
                agreement: 1e-3,
                reviews: 2,
                exclusion: 160,
            },
            outer: OuterRules {
                learning_rate: 0.7,
                momentum: 0.9,
                clip_floor: 0.25,
            },
            rewards: RewardRules {
                history: 0.5,
                unscored_grace: 2,
                weight_interval: 100,
            },
            notice_cycles: 1,
        }
    }
}

impl Rules {
    /// The same cycle for blocks of a fraction of a second: arithmetic does not get faster because
    /// blocks do, so scoring and voting take blocks from training.
    #[must_use]
    pub fn for_fast_blocks() -> Self {
        let windows = Windows {
            distribute: 4,
            train: 18,
            seal: 3,
            reveal: 4,
            score: 10,
            vote: 6,
        };
        Self {
            windows,
            ..Self::default()
        }
    }

    /// Names the first rule under which a cycle could not finish.
    ///
    /// # Errors
    /// A window is empty, a rate is not finite or out of range, or nothing would be scored.
    pub fn check(&self) -> Result<(), RulesError> {
        self.check_windows()?;
        self.check_ranges()
    }

    fn check_windows(&self) -> Result<(), RulesError> {
        let w = &self.windows;
        let lengths = [
            ("windows.distribute", w.distribute, 1),
            ("windows.train", w.train, 1),
            // A commitment is included in the block after it is sent, and is repeated once if lost.
            ("windows.seal", w.seal, 2),
            ("windows.reveal", w.reveal, 2),
            ("windows.score", w.score, 2),
            ("windows.vote", w.vote, 2),
        ];
        for (rule, value, least) in lengths {
            if value < least || value > MAXIMUM_WINDOW_BLOCKS {
                return Err(RulesError::Window {
                    rule,
                    value,
                    least,
                    most: MAXIMUM_WINDOW_BLOCKS,
                });
            }
        }
        Ok(())
    }

    fn check_ranges(&self) -> Result<(), RulesError> {
        let scoring = &self.scoring;
        let tiny = 1e-9_f32;
        let number = f64::from;
        in_range("own_share", self.own_share, 0.1, 1.0)?;
        let sequences = number(self.selection.sequences);
        in_range("selection.sequences", sequences, 1.0, 1e6)?;
        match self.selection.top {
            SelectionTop::P(share) => in_range("selection.top", share, 1e-6, 1.0)?,
            SelectionTop::K(experts) => in_range("selection.top", number(experts), 1.0, 1e6)?,
        }
        in_range("inner.kept", number(self.inner.kept), 0.0, 1e6)?;
        in_range("inner.steps", number(self.inner.steps), 1.0, 1e6)?;
        in_range(
            "inner.batch_sequences",
            number(self.inner.batch_sequences),
            1.0,
            1e4,
        )?;
        in_range(
            "inner.learning_rate",
            self.inner.learning_rate.into(),
            tiny.into(),
            1.0,
        )?;
        in_range(
            "scoring.sequence_length",
            number(scoring.sequence_length),
            2.0,
            1e6,
        )?;
        in_range("scoring.sequences", number(scoring.sequences), 2.0, 1e6)?;
        in_range(
            "scoring.gate_sequences",
            number(scoring.gate_sequences),
            1.0,
            1e6,
        )?;
        in_range("scoring.significance", scoring.significance, 0.0, 10.0)?;
        in_range(
            "scoring.duplicate_cosine",
            scoring.duplicate_cosine,
            0.5,
            1.0,
        )?;
        in_range("scoring.copied_share", scoring.copied_share, 0.0, 1.0)?;
        in_range("scoring.same_function", scoring.same_function, 0.5, 1.0)?;
        in_range(
            "scoring.duplicate_memory",
            scoring.duplicate_memory as f64,
            0.0,
            1e3,
        )?;
        in_range("scoring.norm_bound", scoring.norm_bound, 1.0, 1e3)?;
        let window = scoring.rebase_window as f64;
        in_range("scoring.rebase_window", window, 0.0, MAXIMUM_REBASE_WINDOW)?;
        in_range("notice_cycles", self.notice_cycles as f64, 1.0, 1e3)?;
        self.check_committees()?;
        self.check_rates()
    }

    fn check_committees(&self) -> Result<(), RulesError> {
        let (scoring, number) = (&self.scoring, f64::from);
        let (scorers, updates) = (scoring.scorers_per_update, scoring.updates_per_group);
        in_range("scoring.scorers_per_update", number(scorers), 1.0, 1024.0)?;
        in_range("scoring.updates_per_group", number(updates), 1.0, 1e4)?;
        let receivers = number(scoring.receivers_per_update);
        in_range("scoring.receivers_per_update", receivers, 1.0, 1024.0)?;
        in_range("scoring.agreement", scoring.agreement, 1e-6, 1.0)?;
        in_range("scoring.reviews", number(scoring.reviews), 0.0, 64.0)?;
        in_range("scoring.exclusion", scoring.exclusion as f64, 0.0, 1e6)
    }

    fn check_rates(&self) -> Result<(), RulesError> {
        let (rewards, small, most_momentum) = (&self.rewards, 1e-6_f32, 0.999_f32);
        let decay = self.inner.feedback_decay;
        in_range("inner.feedback_decay", decay.into(), 0.0, 1.0)?;
        let gain = self.inner.sparse_gain;
        in_range("inner.sparse_gain", gain.into(), 1.0, 64.0)?;
        in_range(
            "outer.learning_rate",
            self.outer.learning_rate.into(),
            small.into(),
            2.0,
        )?;
        in_range(
            "outer.momentum",
            self.outer.momentum.into(),
            0.0,
            most_momentum.into(),
        )?;
        in_range("outer.clip_floor", self.outer.clip_floor, 0.0, 1.0)?;
        in_range("rewards.history", rewards.history, 0.0, 0.999)?;
        in_range(
            "rewards.unscored_grace",
            rewards.unscored_grace as f64,
            0.0,
            1e3,
        )?;
        in_range(
            "rewards.weight_interval",
            rewards.weight_interval as f64,
            1.0,
            1e6,
        )
    }
}

/// Refuses what is outside of a range, and what is no number.
fn in_range(rule: &'static str, value: f64, least: f64, most: f64) -> Result<(), RulesError> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err(RulesError::Range {
        rule,
        value,
        least,
        most,
    })
}

/// Whoever joins fetches as many manifests before it can take part.
const MAXIMUM_REBASE_WINDOW: f64 = 4.0;

/// About a week of twelve-second blocks: longer windows are a mistake in units.
const MAXIMUM_WINDOW_BLOCKS: u64 = 50_400;

/// Why rules cannot be followed. Names the rule.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RulesError {
    /// A window in which nothing could happen, or which would never end.
    #[error("rule {rule} is {value} blocks, must be from {least} to {most}")]
    Window {
        /// The rule at fault.
        rule: &'static str,
        /// Its value, in blocks.
        value: u64,
        /// Smallest accepted.
        least: u64,
        /// Largest accepted.
        most: u64,
    },
    /// A number outside its range, or not a number.
    #[error("rule {rule} is {value}, must be from {least} to {most}")]
    Range {
        /// The rule at fault.
        rule: &'static str,
        /// Its value.
        value: f64,
        /// Smallest accepted.
        least: f64,
        /// Largest accepted.
        most: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_rules_and_the_fast_ones_make_cycles_of_45_blocks() {
        for rules in [Rules::default(), Rules::for_fast_blocks()] {
            assert_eq!(rules.check(), Ok(()));
            assert_eq!(rules.windows.cycle(), 45);
        }
    }

    #[test]
    fn a_codec_comes_with_its_rate_and_changes_no_other_rule() {
        let inner = Rules::default().inner;
        assert_eq!(inner.with_codec(inner.codec), inner);
        let sparse = inner.with_codec(Codec::Sparse);
        assert_eq!(sparse.learning_rate, 2.0 * inner.learning_rate);
        let with_its_rate = InnerRules {
            codec: Codec::Sparse,
            learning_rate: sparse.learning_rate,
            ..inner
        };
        assert_eq!(sparse, with_its_rate);
        assert_eq!(sparse.with_codec(Codec::Sparse), sparse);
        assert_eq!(sparse.with_codec(inner.codec), inner);
    }

    /// What should happen: the rule is named. What should not: a cycle in which nobody can commit.
    #[test]
    fn an_empty_window_and_a_rate_that_is_no_number_are_refused_by_name() {
        let mut rules = Rules::default();
        rules.windows.seal = 0;
        assert!(
            rules
                .check()
                .unwrap_err()
                .to_string()
                .contains("windows.seal")
        );

        let mut rules = Rules::default();
        rules.outer.learning_rate = f32::NAN;
        assert!(
            rules
                .check()
                .unwrap_err()
                .to_string()
                .contains("outer.learning_rate")
        );
    }

    #[test]
    fn a_rule_at_its_stated_limit_is_accepted_and_one_beyond_it_refused() {
        let mut rules = Rules::default();
        rules.outer.momentum = 0.999;
        rules.outer.learning_rate = 1e-6;
        rules.inner.learning_rate = 1e-9;
        rules.rewards.weight_interval = 1_000_000;
        assert_eq!(rules.check(), Ok(()));
        rules.rewards.weight_interval = u64::MAX;
        assert!(
            rules
                .check()
                .unwrap_err()
                .to_string()
                .contains("rewards.weight_interval")
        );
    }

    #[test]
    fn an_unknown_rule_is_refused_rather_than_ignored() {
        let mut json = serde_json::to_value(Rules::default()).unwrap();
        json["scoring"]["sequnces"] = 3.into();
        assert!(serde_json::from_value::<Rules>(json).is_err());
    }
}
