//! `connito audit`: a run's states, recomputed from the first manifest by someone who was not there (P-47).
//!
//! ```text
//! chain ─▶ task ─▶ cycle 0, 1, …: commitments, reveals, scores ─▶ verdicts ─┐
//! blobs ─▶ first state, updates ───────────────────────────────────────────┴▶ merged again
//!                                                                               = the votes' state
//! ```
//!
//! Reading the chain is [`records`]' and what follows from it the protocol's; the arithmetic is the
//! learner's. This file walks from cycle to cycle, says what does not match first, and changes nothing.

mod blobs;
mod records;

use std::collections::BTreeMap;

use anyhow::anyhow;
use connito_chain::local::LocalError;
use connito_learning::audit::{Auditor, Decision};
use connito_learning::task;
use connito_protocol::audit::{Observed, Observer};
use connito_protocol::ids::{BlobId, Block, Cycle, StateId};
use connito_protocol::manifest::{CycleArchive, Document, StateManifest, TaskManifest};
use connito_protocol::schedule::Schedule;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use self::blobs::AuditedBlobs;
use self::records::{AuditedChain, Blocks};
use crate::args::audit::AuditArguments;
use crate::exit::{Blame, Failure};
use crate::output::print;

/// States that are remembered to tell a stale base from an unknown one; it decides no verdict's weight.
const OLDER_STATES: usize = 4;

/// What does not match, and in which cycle.
#[derive(Debug)]
struct Finding {
    cycle: Cycle,
    problem: anyhow::Error,
}

/// What was verified before the first mismatch, if there is one.
#[derive(Debug, Default)]
struct Verified {
    task: Option<BlobId>,
    cycles: u64,
    states: Vec<StateId>,
    submissions: usize,
    merged: usize,
    unnamed: usize,
}

/// Runs the command.
pub(crate) async fn run(arguments: AuditArguments) -> Result<(), Failure> {
    let mut verified = Verified::default();
    let finding = audit(&arguments, &mut verified).await?;
    verified.print(&arguments, finding.as_ref())?;
    match finding {
        None => Ok(()),
        Some(Finding { cycle, problem }) => {
            Err(Failure::Check(anyhow!("cycle {cycle}: {problem:#}")))
        }
    }
}

async fn audit(
    arguments: &AuditArguments,
    verified: &mut Verified,
) -> Result<Option<Finding>, Failure> {
    let chain = match AuditedChain::open(&arguments.chain).await? {
        Ok(chain) => chain,
        Err(damage) => return Ok(Some(damaged(Cycle(0), damage))),
    };
    let blobs = AuditedBlobs::open(&arguments.blobs).await?;
    let (task, head) = chain.task().await?;
    let Some(id) = task else {
        return match chain.damage() {
            Some(damage) => Ok(Some(damaged(Cycle(0), damage))),
            None => Err(Failure::Input(anyhow!(
                "{}: the owner has announced no task",
                arguments.chain
            ))),
        };
    };
    verified.task = Some(id);
    let manifest = match tokio::task::block_in_place(|| read_task(id, &blobs)) {
        Ok(manifest) => manifest,
        Err(finding) => return Ok(Some(finding)),
    };
    let observer = Observer::new(chain.network(), &manifest);
    let cycles = chain.cycles(&observer, head).await?;
    let outcome = tokio::task::block_in_place(|| {
        let layouts = task::layouts(&manifest, &blobs).map_err(of_the_task)?;
        let auditor = Auditor {
            store: &blobs,
            task: &manifest,
            layouts: &layouts,
        };
        let mut walk = Walk::begin(&auditor, &observer, verified)?;
        walk.all(&cycles)?;
        let undecided = Cycle(cycles.len() as u64);
        if let Some(damage) = chain.damage() {
            return Err(damaged(after(&manifest, head), damage));
        }
        let rest = blobs.look_at_the_rest();
        verified.unnamed = rest.map_err(|problem| Finding {
            cycle: undecided,
            problem,
        })?;
        Ok(())
    });
    Ok(outcome.err())
}

fn read_task(id: BlobId, blobs: &AuditedBlobs) -> Result<TaskManifest, Finding> {
    let manifest = task::read_task(id, blobs).map_err(of_the_task)?;
    manifest.check().map_err(of_the_task)?;
    Ok(manifest)
}

fn of_the_task(error: impl std::error::Error + Send + Sync + 'static) -> Finding {
    Finding {
        cycle: Cycle(0),
        problem: anyhow::Error::new(error).context("the task cannot be worked on"),
    }
}

fn damaged(cycle: Cycle, damage: LocalError) -> Finding {
    Finding {
        cycle,
        problem: damage.into(),
    }
}

/// The cycle of the block after `head`.
fn after(task: &TaskManifest, head: Block) -> Cycle {
    let schedule = Schedule::new(task.starts, task.rules.windows);
    let moment = schedule.at(Block(head.0.saturating_add(1)));
    moment.map_or(Cycle(0), |moment| moment.cycle)
}

/// An audit under way: the state that the next cycle builds on, and those before it.
struct Walk<'a> {
    auditor: &'a Auditor<'a>,
    observer: &'a Observer,
    verified: &'a mut Verified,
    base: (StateId, StateManifest),
    older: Vec<StateId>,
}

impl<'a> Walk<'a> {
    fn begin(
        auditor: &'a Auditor<'a>,
        observer: &'a Observer,
        verified: &'a mut Verified,
    ) -> Result<Self, Finding> {
        let base = auditor.begin().map_err(|error| Finding {
            cycle: Cycle(0),
            problem: error.into(),
        })?;
        verified.states.push(base.0);
        Ok(Self {
            auditor,
            observer,
            verified,
            base,
            older: Vec::new(),
        })
    }

    fn all(&mut self, cycles: &[Blocks]) -> Result<(), Finding> {
        let bar = ProgressBar::new(cycles.len() as u64).with_message("auditing");
        let style = ProgressStyle::with_template("{msg} {bar:40} cycle {pos} of {len}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let pruned = self.pruned(cycles)?;
        for (cycle, blocks) in (0..).map(Cycle).zip(cycles) {
            let audited = match blocks {
                Some(blocks) => {
                    let base = (cycle, self.base.0);
                    let observed = self.observer.from_chain(base, &self.older, blocks);
                    let tally = self.observer.decided(cycle, &blocks.voted);
                    let decision = tally.map(|tally| Decision {
                        next: tally.next,
                        vote: Some(tally.vote),
                    });
                    self.cycle(observed, decision)
                }
                None => self.pruned_cycle(pruned.get(&cycle).copied()),
            };
            audited.map_err(|problem| Finding { cycle, problem })?;
            self.verified.cycles += 1;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn cycle(
        &mut self,
        observed: Option<Observed>,
        decision: Option<Decision>,
    ) -> anyhow::Result<()> {
        let Some(observed) = observed else {
            return Err(anyhow!("its blocks are not those of the schedule"));
        };
        self.auditor.uploads(&observed)?;
        self.verified.submissions += observed.verdicts.len();
        let Some(decision) = decision else {
            return Ok(());
        };
        let base = (self.base.0, &self.base.1);
        let next = self.auditor.successor(base, &observed, &decision)?;
        self.verified.merged += next.merged.len();
        self.verified.states.push(decision.next);
        let before = std::mem::replace(&mut self.base, (decision.next, next));
        self.older.push(before.0);
        let surplus = self.older.len().saturating_sub(OLDER_STATES);
        self.older.drain(..surplus);
        Ok(())
    }

    /// A cycle of which the chain has nothing any more: its archive tells what stood there.
    fn pruned_cycle(&mut self, next: Option<StateId>) -> anyhow::Result<()> {
        let Some(next) = next else { return Ok(()) };
        let manifest = self.auditor.state(next)?;
        let archive = manifest.archive;
        let archive = archive.ok_or_else(|| anyhow!("state {next} names no archive"))?;
        let read = CycleArchive::from_bytes;
        let archive = self.auditor.document("archive", archive, read)?;
        if archive.base != self.base.0 {
            return Err(anyhow!("the archive of state {next} is of another base"));
        }
        let observed = self.observer.from_archive(&archive);
        let observed = observed
            .map_err(|error| anyhow::Error::new(error).context("the archive cannot be trusted"))?;
        let decision = Decision { next, vote: None };
        self.cycle(Some(observed), Some(decision))
    }

    /// The states that pruned cycles led to: the ancestors of the first state that kept votes name.
    fn pruned(&self, cycles: &[Blocks]) -> Result<BTreeMap<Cycle, StateId>, Finding> {
        let kept = cycles.iter().position(Option::is_some);
        let kept = kept.unwrap_or(cycles.len());
        let mut states = BTreeMap::new();
        if kept == 0 {
            return Ok(states);
        }
        let named = (0..)
            .map(Cycle)
            .zip(cycles)
            .find_map(|(cycle, blocks)| self.observer.decided(cycle, &blocks.as_ref()?.voted));
        let named = named.ok_or_else(|| Finding {
            cycle: Cycle(0),
            problem: anyhow!("the chain keeps no vote that names a state"),
        })?;
        let mut state = named.next;
        // Each step leads to an earlier cycle, so there are no more of them than cycles.
        let mut cycle = Cycle(cycles.len() as u64);
        loop {
            let finding = |problem| Finding { cycle, problem };
            let manifest = self.auditor.state(state);
            let manifest = manifest.map_err(|error| finding(error.into()))?;
            let Some(parent) = manifest.parent else {
                return Ok(states);
            };
            let led_here = manifest.cycle.0.checked_sub(1).map(Cycle);
            let led_here = led_here.filter(|led_here| *led_here < cycle);
            cycle = led_here.ok_or_else(|| {
                finding(anyhow!("state {state} is of a cycle before its parent's"))
            })?;
            if cycle.0 < kept as u64 {
                states.insert(cycle, state);
            }
            state = parent;
        }
    }
}

impl Verified {
    fn print(&self, arguments: &AuditArguments, finding: Option<&Finding>) -> Result<(), Failure> {
        let last = self.states.last();
        if arguments.json {
            let mismatch = finding.map(|Finding { cycle, problem }| {
                json!({ "cycle": cycle, "what": format!("{problem:#}") })
            });
            let object = json!({
                "task": self.task.map(|task| task.to_string()),
                "cycles": self.cycles,
                "states": self.states.len(),
                "submissions": self.submissions,
                "merged_updates": self.merged,
                "unnamed_blobs": self.unnamed,
                "last_state": last.map(|state| state.to_string()),
                "mismatch": mismatch,
            });
            return print(&serde_json::to_string(&object).environment()?);
        }
        if finding.is_some() {
            return Ok(());
        }
        print(&format!(
            "{} cycles, {} states, {} submissions, {} merged updates: all as recomputed\nlast state {}",
            self.cycles,
            self.states.len(),
            self.submissions,
            self.merged,
            last.map_or("none".to_owned(), ToString::to_string),
        ))
    }
}
