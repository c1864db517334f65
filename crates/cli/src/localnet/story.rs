//! What happened, told by the journals: the one projection that progress, summary and verdict are
//! read from. It adds nothing of its own; whatever is not in a journal did not happen.

use std::collections::{BTreeMap, BTreeSet};

use connito_protocol::announcement::Announcement;
use connito_protocol::conduct::Misconduct;
use connito_protocol::consensus::Verdict;
use connito_protocol::event::{Delivery, Effect, Event, Milestone};
use connito_protocol::ids::{BlobId, Block, Cycle, Hotkey, StateId};
use connito_protocol::job::Job;
use connito_protocol::machine::Step;
use connito_protocol::manifest::{Document, TaskManifest};
use connito_protocol::rewards::CycleRewards;
use connito_protocol::schedule::Schedule;

/// Everything known of a run.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// The newest block that any role has handled.
    pub(crate) block: Block,
    /// The task that the run began with, once somebody loaded it.
    pub(crate) task: Option<BlobId>,
    /// Its schedule.
    pub(crate) schedule: Option<Schedule>,
    /// Cycle by cycle.
    pub(crate) cycles: BTreeMap<Cycle, CycleStory>,
    /// What each miner is doing, by name.
    pub(crate) miners: BTreeMap<String, MinerState>,
    /// In which blocks each role was started again, by name.
    pub(crate) restarts: BTreeMap<String, Vec<Block>>,
    blocks: BTreeMap<String, Block>,
    update_bytes: BTreeMap<BlobId, u64>,
    delivered: BTreeSet<(Hotkey, BlobId)>,
}

/// Everything known of a cycle.
#[derive(Debug, Default)]
pub(crate) struct CycleStory {
    /// The verdicts, as the first role to see them read them off the chain.
    pub(crate) verdicts: Option<Vec<Verdict>>,
    /// Roles that read other verdicts off the same chain.
    pub(crate) dissenters: BTreeSet<String>,
    /// What voters did wrong, as the first role to tell of it says.
    pub(crate) conduct: Option<BTreeMap<Hotkey, Misconduct>>,
    /// What was earned.
    pub(crate) rewards: Option<CycleRewards>,
    /// Each validator's gate: loss of the incumbent and of the candidate, and its vote.
    pub(crate) gates: BTreeMap<String, (f64, Option<f64>, bool)>,
    /// What each validator committed to.
    pub(crate) committed: BTreeMap<Hotkey, StateId>,
    /// Whether the gate passed; `None` when the votes decided nothing.
    pub(crate) passed: Option<bool>,
    /// The canonical state afterwards, as each role has it.
    pub(crate) concluded: BTreeMap<String, StateId>,
    /// When each role had the complete base of this cycle.
    pub(crate) ready: BTreeMap<String, (Block, StateId)>,
    /// What it took each role to hold that base.
    pub(crate) adopted: BTreeMap<String, Adopted>,
    /// Bytes of updates that validators received.
    pub(crate) bytes_sent: u64,
    /// How often each validator finished measuring.
    pub(crate) measured: BTreeMap<String, u32>,
    /// How many experts each miner selected and trained, over all layers.
    pub(crate) experts_trained: BTreeMap<String, u32>,
}

/// What it took a role to hold a cycle's base (P-37).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Adopted {
    /// Bytes that came over the network for it.
    pub(crate) bytes_fetched: u64,
    /// Bytes of the shards that were missing: what fetching them whole would have taken.
    pub(crate) bytes_whole: u64,
    /// Whether some of it was recomputed from the state before.
    pub(crate) recomputed: bool,
}

/// What a miner is doing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum MinerState {
    #[default]
    Waiting,
    Training,
    Trained {
        first: f64,
        last: f64,
    },
    Sealed,
    Revealed,
    Delivered(usize),
}

/// Something new that is worth a line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum News {
    /// The first block of a cycle's work.
    Began(Cycle),
    /// Verdicts are known.
    Judged(Cycle),
    /// The cycle's outcome is known.
    Concluded(Cycle),
    /// What voters did wrong in the cycle is known.
    Misconduct(Cycle),
    /// A role could not do something.
    Trouble { name: String, what: String },
}

impl Story {
    /// Takes in one step of one role's journal.
    pub(crate) fn hear(&mut self, name: &str, step: &Step) -> Vec<News> {
        let mut news = Vec::new();
        match &step.event {
            Event::Block(snapshot) => {
                self.block = self.block.max(snapshot.block);
                self.blocks.insert(name.to_owned(), snapshot.block);
            }
            Event::Started => {
                if let Some(block) = self.blocks.get(name) {
                    self.restarts
                        .entry(name.to_owned())
                        .or_default()
                        .push(*block);
                }
            }
            Event::Document { document, .. } if self.schedule.is_none() => {
                // Of the documents that roles read, only the task is one.
                let task = TaskManifest::from_bytes(document.bytes()).ok();
                self.schedule = task.map(|task| task.schedule());
            }
            Event::Delivered {
                blob,
                to,
                answer: Delivery::Accepted,
            } => self.on_delivered(name, *blob, *to),
            Event::Delivered {
                answer: Delivery::Refused(reason),
                ..
            } => news.push(News::Trouble {
                name: name.to_owned(),
                what: format!("its upload was refused: {reason}"),
            }),
            _ => {}
        }
        for effect in &step.effects {
            self.on_effect(name, effect, &mut news);
        }
        news
    }

    fn cycle(&mut self, cycle: Cycle) -> &mut CycleStory {
        self.cycles.entry(cycle).or_default()
    }

    fn on_delivered(&mut self, name: &str, blob: BlobId, to: Hotkey) {
        let current = self.cycles.keys().next_back().copied().unwrap_or_default();
        if self.delivered.insert((to, blob)) {
            let bytes = self.update_bytes.get(&blob).copied().unwrap_or(0);
            self.cycle(current).bytes_sent += bytes;
        }
        let state = self.miners.entry(name.to_owned()).or_default();
        *state = match state {
            MinerState::Delivered(count) => MinerState::Delivered(*count + 1),
            _ => MinerState::Delivered(1),
        };
    }

    fn on_effect(&mut self, name: &str, effect: &Effect, news: &mut Vec<News>) {
        match effect {
            Effect::Run(Job::Train(_)) => self.set_miner(name, MinerState::Training),
            Effect::Announce {
                announcement: Announcement::Sealed { .. },
            } => {
                self.set_miner(name, MinerState::Sealed);
            }
            Effect::Announce {
                announcement: Announcement::Revealed { .. },
            } if !matches!(self.miners.get(name), Some(MinerState::Delivered(_))) => {
                self.set_miner(name, MinerState::Revealed);
            }
            Effect::Tell(milestone) => self.on_milestone(name, milestone, news),
            _ => {}
        }
    }

    fn set_miner(&mut self, name: &str, state: MinerState) {
        self.miners.insert(name.to_owned(), state);
    }

    fn on_milestone(&mut self, name: &str, milestone: &Milestone, news: &mut Vec<News>) {
        let block = self.blocks.get(name).copied().unwrap_or_default();
        let owned = name.to_owned();
        match milestone {
            Milestone::TaskLoaded { task } => {
                self.task.get_or_insert(*task);
            }
            Milestone::BaseReady { .. } => self.on_base(owned, (block, milestone), news),
            Milestone::Trained(trained) => {
                self.update_bytes.insert(trained.update, trained.bytes);
                let experts = &mut self.cycle(trained.cycle).experts_trained;
                experts.insert(owned, trained.experts);
                let (first, last) = (trained.loss_first, trained.loss_last);
                self.set_miner(name, MinerState::Trained { first, last });
            }
            Milestone::Measured { cycle, .. } => {
                *self.cycle(*cycle).measured.entry(owned).or_default() += 1
            }
            Milestone::Gate {
                cycle,
                incumbent_loss,
                candidate_loss,
                approves,
            } => {
                let gate = (*incumbent_loss, *candidate_loss, *approves);
                self.cycle(*cycle).gates.insert(owned, gate);
            }
            Milestone::Judged { .. } => self.on_judged(owned, milestone, news),
            Milestone::Concluded { .. } => self.on_concluded(owned, milestone, news),
            Milestone::Conduct { cycle, conduct } => {
                let told = &mut self.cycle(*cycle).conduct;
                if told.is_none() {
                    *told = Some(conduct.clone());
                    news.push(News::Misconduct(*cycle));
                }
            }
            other => {
                let troubles = trouble(other).map(|what| News::Trouble { name: owned, what });
                news.extend(troubles);
            }
        }
    }

    fn on_base(
        &mut self,
        name: String,
        (block, milestone): (Block, &Milestone),
        news: &mut Vec<News>,
    ) {
        let Milestone::BaseReady {
            cycle,
            state,
            bytes_fetched,
            bytes_whole,
            recomputed,
        } = milestone
        else {
            return;
        };
        if !self.cycles.contains_key(cycle) {
            news.push(News::Began(*cycle));
            // What miners did belongs to the cycle before.
            let miners = self.miners.values_mut();
            miners.for_each(|state| *state = MinerState::Waiting);
        }
        let story = self.cycle(*cycle);
        let ready = story.ready.entry(name.clone());
        ready.or_insert((block, *state));
        story.adopted.entry(name).or_insert(Adopted {
            bytes_fetched: *bytes_fetched,
            bytes_whole: *bytes_whole,
            recomputed: *recomputed,
        });
    }

    fn on_judged(&mut self, name: String, milestone: &Milestone, news: &mut Vec<News>) {
        let Milestone::Judged {
            cycle,
            verdicts,
            rewards,
            ..
        } = milestone
        else {
            return;
        };
        let story = self.cycle(*cycle);
        match &story.verdicts {
            None => {
                story.verdicts = Some(verdicts.clone());
                story.rewards = Some(rewards.clone());
                news.push(News::Judged(*cycle));
            }
            Some(first) if first != verdicts => {
                story.dissenters.insert(name);
            }
            Some(_) => {}
        }
    }

    fn on_concluded(&mut self, name: String, milestone: &Milestone, news: &mut Vec<News>) {
        let Milestone::Concluded {
            cycle,
            state,
            passed,
            committed,
        } = milestone
        else {
            return;
        };
        let story = self.cycle(*cycle);
        if story.concluded.is_empty() {
            story.passed = *passed;
            story.committed = committed.iter().copied().collect();
            news.push(News::Concluded(*cycle));
        }
        story.concluded.insert(name, *state);
    }
}

/// What went wrong, if it did. Lost races with a window's edge are asked again and of no interest by
/// themselves; what a miner is told of itself, the verdicts on the chain say of everyone; what a review
/// leads to shows in the state and in the weights.
fn trouble(milestone: &Milestone) -> Option<String> {
    match milestone {
        Milestone::JobFailed { cycle, cause } => Some(format!("cycle {cycle}: {cause}")),
        Milestone::ResidualDropped { cycle, cause } => {
            Some(format!("cycle {cycle}: nothing is owed any more: {cause}"))
        }
        Milestone::TaskRefused { reason } => Some(format!("a task is not worked on: {reason}")),
        Milestone::NotRegistered => Some("its hotkey is not registered".to_owned()),
        _ => None,
    }
}
