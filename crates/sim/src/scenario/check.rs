//! Whether a scenario can be run: every number within a range that is written here, beside its key.
//!
//! Comparisons are such that a number that is none fails them. Knows nothing of what a key does.

use super::{MOST_PARTICIPANTS, Scenario, ScenarioError};
use crate::chain::MOST_TAKEN_BACK;

impl Scenario {
    /// Names the first key that is out of range.
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        in_range("cycles", self.cycles as f64, 1.0, 1_000.0)?;
        in_range("groups", f64::from(self.groups), 1.0, 64.0)?;
        self.check_participants()?;
        self.check_chain()?;
        self.check_links()?;
        self.check_work()?;
        self.check_faults()?;
        let most = self.cycles as f64;
        for interruption in &self.partitions {
            in_range("partitions.at_cycle", interruption.at_cycle, 0.0, most)?;
            in_range("partitions.cycles", interruption.cycles, 0.0, most)?;
            in_range("partitions.percent", interruption.percent, 0.0, 49.0)?;
        }
        if let Some(cycle) = self.owner_leaves_at_cycle {
            in_range("owner_leaves_at_cycle", cycle, 0.0, most)?;
        }
        self.task_rules().map(|_| ())
    }

    fn check_participants(&self) -> Result<(), ScenarioError> {
        let most = f64::from(MOST_PARTICIPANTS);
        for (kind, count) in &self.validators.hostile {
            let key = format!("validators.hostile.{}", kind.name());
            in_range(&key, f64::from(*count), 0.0, 1_000.0)?;
        }
        for (kind, count) in &self.miners.hostile {
            let key = format!("miners.hostile.{}", kind.name());
            in_range(&key, f64::from(*count), 0.0, most)?;
        }
        in_range(
            "validators.honest",
            f64::from(self.validators.honest),
            1.0,
            1_000.0,
        )?;
        in_range("miners.honest", f64::from(self.miners.honest), 0.0, most)?;
        in_range("all miners", f64::from(self.all_miners()), 0.0, most)?;
        in_range(
            "all validators",
            f64::from(self.all_validators()),
            1.0,
            1_000.0,
        )?;
        let slow = f64::from(self.validators.slow);
        in_range(
            "validators.slow",
            slow,
            0.0,
            f64::from(self.validators.honest),
        )?;
        let slow = f64::from(self.miners.slow);
        in_range("miners.slow", slow, 0.0, f64::from(self.miners.honest))?;
        match self.validators.hostile_stake_percent {
            // Half or more is a majority, which no protocol of votes survives.
            Some(percent) => in_range("validators.hostile_stake_percent", percent, 0.0, 49.9),
            // As many heads, as much stake.
            None => {
                let hostile = self.all_validators() - self.validators.honest;
                let most = f64::from(self.validators.honest) - 1.0;
                in_range(
                    "the sum of validators.hostile",
                    f64::from(hostile),
                    0.0,
                    most,
                )
            }
        }
    }

    fn check_chain(&self) -> Result<(), ScenarioError> {
        let chain = &self.chain;
        in_range("chain.block_seconds", chain.block_seconds, 0.1, 600.0)?;
        percent("chain.lost_writes_percent", chain.lost_writes_percent)?;
        percent(
            "chain.grinding_authors_percent",
            chain.grinding_authors_percent,
        )?;
        for stall in &chain.stalls {
            in_range(
                "chain.stalls.at_cycle",
                stall.at_cycle,
                0.0,
                self.cycles as f64,
            )?;
            in_range("chain.stalls.seconds", stall.seconds, 0.0, 1e6)?;
        }
        for fork in &chain.forks {
            let most = self.cycles as f64;
            in_range("chain.forks.at_cycle", fork.at_cycle, 0.0, most)?;
            let (blocks, most) = (f64::from(fork.blocks), f64::from(MOST_TAKEN_BACK));
            in_range("chain.forks.blocks", blocks, 1.0, most)?;
        }
        Ok(())
    }

    fn check_links(&self) -> Result<(), ScenarioError> {
        let links = &self.links;
        in_range(
            "links.latency_milliseconds",
            links.latency_milliseconds,
            0.0,
            60_000.0,
        )?;
        percent("links.loss_percent", links.loss_percent)?;
        in_range("links.timeout_seconds", links.timeout_seconds, 0.1, 600.0)?;
        let documents = links.document_timeout_seconds;
        in_range("links.document_timeout_seconds", documents, 0.1, 600.0)?;
        in_range("links.update_megabytes", links.update_megabytes, 0.0, 1e6)?;
        in_range("links.shard_megabytes", links.shard_megabytes, 0.0, 1e6)?;
        let at_a_time = f64::from(links.uploads_at_a_time);
        in_range("links.uploads_at_a_time", at_a_time, 1.0, 1e6)?;
        let speeds = [
            (
                "links.validator_megabits_per_second",
                links.validator_megabits_per_second,
            ),
            (
                "links.miner_megabits_per_second",
                links.miner_megabits_per_second,
            ),
        ];
        for (key, speed) in speeds {
            in_range(key, speed.unwrap_or(1.0), 0.001, 1e6)?;
        }
        Ok(())
    }

    fn check_work(&self) -> Result<(), ScenarioError> {
        let work = &self.work;
        in_range(
            "work.training_step_seconds",
            work.training_step_seconds,
            0.0,
            1e6,
        )?;
        let scoring = work.scoring_seconds_per_update;
        in_range("work.scoring_seconds_per_update", scoring, 0.0, 1e6)?;
        in_range("work.merging_seconds", work.merging_seconds, 0.0, 1e6)?;
        in_range(
            "work.device_classes",
            f64::from(work.device_classes),
            1.0,
            1_000.0,
        )?;
        in_range("work.device_noise_nats", work.device_noise_nats, 0.0, 1.0)
    }

    fn check_faults(&self) -> Result<(), ScenarioError> {
        let (faults, churn) = (&self.faults, &self.churn);
        percent("faults.crashing_percent", faults.crashing_percent)?;
        in_range(
            "faults.crashes_per_cycle",
            faults.crashes_per_cycle,
            0.0,
            1_000.0,
        )?;
        let ends_of_a_crash = [
            ("faults.torn_percent", faults.torn_percent),
            ("faults.disk_full_percent", faults.disk_full_percent),
            ("faults.lost_records_percent", faults.lost_records_percent),
        ];
        for (key, share) in ends_of_a_crash {
            percent(key, share)?;
        }
        in_range("faults.restart_seconds", faults.restart_seconds, 0.0, 1e6)?;
        in_range("churn.joins_per_cycle", churn.joins_per_cycle, 0.0, 1_000.0)?;
        in_range(
            "churn.leaves_per_cycle",
            churn.leaves_per_cycle,
            0.0,
            1_000.0,
        )?;
        let joining = churn.joins_per_cycle * churn.until_cycle.unwrap_or(self.cycles as f64);
        in_range(
            "all miners with those that churn.joins_per_cycle adds",
            f64::from(self.all_miners()) + joining,
            0.0,
            f64::from(MOST_PARTICIPANTS),
        )?;
        let ends = [
            ("faults.until_cycle", faults.until_cycle),
            ("churn.until_cycle", churn.until_cycle),
        ];
        for (key, end) in ends {
            in_range(key, end.unwrap_or(0.0), 0.0, self.cycles as f64)?;
        }
        Ok(())
    }
}

/// A number as it stands in a sentence: one of hundreds of digits in powers of ten.
pub(super) fn in_words(value: f64) -> String {
    const MOST_DIGITS: f64 = 1e15;
    match value.abs() >= MOST_DIGITS && value.is_finite() {
        true => format!("{value:e}"),
        false => value.to_string(),
    }
}

fn percent(key: &str, value: f64) -> Result<(), ScenarioError> {
    in_range(key, value, 0.0, 100.0)
}

fn in_range(key: &str, value: f64, least: f64, most: f64) -> Result<(), ScenarioError> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err(ScenarioError::Range {
        key: key.to_owned(),
        value,
        least,
        most,
    })
}
