//! The trace of a run: one line a step, with what makes it possible to run it again.
//!
//! The first line holds the scenario, the seed, the number of steps and what was violated; every other
//! line is a step or a fault. Showing a trace runs the scenario again as far as it went and compares
//! what is violated: a trace proves itself, or it says that the program has changed. Lines are for
//! people; whoever wants every byte of a step runs it.

use std::collections::VecDeque;

use connito_protocol::event::{Effect, Event, Milestone};
use connito_protocol::job::{Advanced, Job, Outcome};
use serde::{Deserialize, Serialize};

use crate::faults::Fault;
use crate::monitor::Violation;
use crate::node::{Node, Survival};
use crate::queue::{Micros, SECOND};

/// Lines kept, the newest: enough for all of a small run, and bounded for a large one.
const MOST_LINES: usize = 100_000;

/// The first line of a trace file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceHeader {
    /// Tells a trace from any other file, and one version from the next.
    pub trace: String,
    /// The scenario, as TOML.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Steps until the violation.
    pub steps: u64,
    /// What was violated.
    pub violation: Violation,
}

impl TraceHeader {
    /// What `trace` says in this version.
    pub const VERSION: &'static str = "connito simulation 1";
}

/// A line of a trace file after the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceLine {
    /// Steps made when it happened, this one included.
    pub step: u64,
    /// Simulated time, in seconds.
    pub seconds: f64,
    /// Whose step: number and kind. Nothing for a fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What it heard, or what went wrong.
    pub event: String,
    /// What it asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<String>,
    /// How its life ended here, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
}

/// The lines of a run.
#[derive(Debug, Default)]
pub struct Trace {
    lines: VecDeque<TraceLine>,
}

impl Trace {
    /// The lines, the oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<TraceLine> {
        self.lines.iter().cloned().collect()
    }

    pub(crate) fn step(
        &mut self,
        (step, now): (u64, Micros),
        node: &Node,
        (event, effects): (&Event, &[Effect]),
        survival: Survival,
    ) {
        let end = (!survival.lives).then(|| match (survival.durable, survival.effects) {
            (false, 0) => "dies before the step is durable".to_owned(),
            (false, _) => "dies, and its disk has lost the step".to_owned(),
            (true, _) => format!(
                "dies after {} of {} effects",
                survival.effects,
                effects.len()
            ),
        });
        self.push(TraceLine {
            step,
            seconds: now as f64 / SECOND as f64,
            node: Some(format!("{} {}", node.id.0, node.kind.name())),
            event: event_in_words(event),
            effects: effects.iter().map(effect_in_words).collect(),
            end,
        });
    }

    pub(crate) fn fault(&mut self, step: u64, now: Micros, fault: &Fault) {
        self.push(TraceLine {
            step,
            seconds: now as f64 / SECOND as f64,
            node: None,
            event: format!("{fault:?}"),
            effects: Vec::new(),
            end: None,
        });
    }

    fn push(&mut self, line: TraceLine) {
        if self.lines.len() == MOST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

fn event_in_words(event: &Event) -> String {
    match event {
        Event::Started => "started".to_owned(),
        Event::Block(snapshot) if snapshot.block == snapshot.head => {
            format!("block {}", snapshot.block)
        }
        Event::Block(snapshot) => format!("block {} of {}", snapshot.block, snapshot.head),
        Event::Document { blob, document, .. } => {
            let bytes = document.bytes().len();
            format!("document {} of {bytes} bytes", blob.short())
        }
        Event::Fetched { blob, .. } => format!("fetched {}", blob.short()),
        Event::FetchFailed { blob, absent } => match absent {
            true => format!("nobody has {}", blob.short()),
            false => format!("{} could not be had", blob.short()),
        },
        Event::Uploaded {
            hotkey,
            cycle,
            blob,
            ..
        } => format!(
            "upload of {} for cycle {cycle} by {}",
            blob.short(),
            hotkey.short()
        ),
        Event::Delivered { to, answer, .. } => format!("{} answered {answer:?}", to.short()),
        Event::Finished { outcome, .. } => match outcome {
            Outcome::Trained(trained) => {
                format!(
                    "trained {} in {} steps",
                    trained.update.short(),
                    trained.steps
                )
            }
            Outcome::Scored { findings, .. } => format!("scored {} updates", findings.len()),
            Outcome::Merged(merged) => format!(
                "merged: gate {} to {:?}",
                merged.incumbent_loss, merged.candidate_loss
            ),
            Outcome::Advanced(Advanced { to, groups, .. }) => {
                format!("recomputed {} groups of {}", groups.len(), to.short())
            }
            Outcome::Failed { cause, .. } => format!("job failed: {cause}"),
        },
        Event::ChainRefused { reason } => format!("chain refused: {reason}"),
        Event::Receipt { cycle, receipt } => match receipt {
            Some(receipt) => {
                let by = receipt.validator.short();
                format!("receipt of cycle {cycle} by {by}: {}", receipt.code)
            }
            None => format!("nobody has a receipt of cycle {cycle}"),
        },
        Event::TaskGiven { task } => format!("given task {}", task.short()),
    }
}

fn effect_in_words(effect: &Effect) -> String {
    match effect {
        Effect::Fetch(fetch) => format!("fetch {}", fetch.blob.short()),
        Effect::Store { bytes } => format!("store {} bytes", bytes.len()),
        Effect::Forget { blobs } => format!("forget {} blobs", blobs.len()),
        Effect::Announce { announcement } => format!("announce {announcement:?}"),
        Effect::SetWeights { weights } => format!("set {} weights", weights.len()),
        Effect::Serve { endpoint } => format!("serve at {}", endpoint.url()),
        Effect::Deliver { blob, to, .. } => format!("deliver {} to {}", blob.short(), to.short()),
        Effect::Run(job) => match job {
            Job::Train(job) => format!("train group {} for cycle {}", job.group, job.cycle),
            Job::Advance(job) => format!("recompute {}", job.to.short()),
            Job::Score(job) => {
                format!("score {} updates of cycle {}", job.updates.len(), job.cycle)
            }
            Job::Merge(job) => {
                format!(
                    "merge {} updates of cycle {}",
                    job.accepted.len(),
                    job.cycle
                )
            }
        },
        Effect::Answer { answer, .. } => format!("answer {answer:?}"),
        Effect::Issue(receipts) => {
            format!("{} receipts of cycle {}", receipts.count(), receipts.cycle)
        }
        Effect::AskReceipt { cycle, from } => {
            format!(
                "ask {} validators for the receipt of cycle {cycle}",
                from.len()
            )
        }
        Effect::Tell(milestone) => match milestone {
            Milestone::Judged { cycle, quorum, .. } => {
                format!("tell judged cycle {cycle}, quorum {quorum}")
            }
            Milestone::Measured { cycle, .. } => format!("tell measured cycle {cycle}"),
            Milestone::Concluded {
                cycle,
                state,
                passed,
                ..
            } => format!("tell concluded cycle {cycle}: {} {passed:?}", state.short()),
            other => format!("tell {other:?}"),
        },
    }
}
