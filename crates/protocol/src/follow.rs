//! What every role does alike: find the task, follow the canonical state, read the cycle off the
//! chain, and keep what it needs of the blobs (P-3, P-4, P-33).
//!
//! Inputs are events; a role asks it for the current moment, the base of the cycle and the observed
//! round. It knows nothing of training, scoring or uploading.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::announcement::{Announcement, MAXIMUM_ANNOUNCEMENT_BYTES, Vote};
use crate::consensus::tally;
use crate::event::{Effect, Effects, Event, Form, Milestone};
use crate::ids::{BlobId, Block, Cycle, GroupId, Hotkey, StateId};
use crate::job::Candidate;
use crate::library::Library;
use crate::manifest::{Document, StateManifest, TaskManifest};
use crate::rewards::History;
use crate::round::{Known, Round, votes};
use crate::schedule::{Moment, Schedule, Window};
use crate::snapshot::{Endpoint, Snapshot, Voter};
use crate::submission::Network;

/// Blocks kept until the task is known, so that a newcomer can still read a vote in them.
const MAXIMUM_BACKLOG: usize = 2_048;

/// States remembered to tell a stale base from an unknown one.
const OLDER_STATES: usize = 4;

/// Blocks after which a write that has not shown on the chain is sent again: it can show in the next
/// one, and the shortest window has two.
const RESEND_AFTER_BLOCKS: u64 = 2;

/// Who a role is, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// The network it works on.
    pub network: Network,
    /// Where it serves, if it does.
    pub endpoint: Option<Endpoint>,
}

/// A task that was read and checked.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) id: BlobId,
    pub(crate) manifest: TaskManifest,
    pub(crate) schedule: Schedule,
    pub(crate) groups: Vec<GroupId>,
}

/// How much of a cycle a role reads off the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// The votes, which decide what is canonical: all that it takes to train, to serve and to submit.
    Votes,
    /// Every submission and report as well: what it takes to judge.
    Everything,
}

/// A role's knowledge of the network.
#[derive(Debug, Clone)]
pub(crate) struct Follower {
    pub(crate) identity: Identity,
    reads: Reads,
    pub(crate) library: Library,
    pub(crate) history: History,
    now: Option<Arc<Snapshot>>,
    backlog: VecDeque<Arc<Snapshot>>,
    refused_task: Option<BlobId>,
    task: Option<Task>,
    canonical: Option<StateId>,
    older: Vec<StateId>,
    manifests: BTreeMap<StateId, StateManifest>,
    ready: Option<Cycle>,
    round: Option<Round>,
    accepted: VecDeque<(Cycle, Vec<Candidate>)>,
    sent: BTreeMap<Write, (Vec<u8>, Block)>,
    told_unregistered: bool,
}

/// The kinds of chain writes that are repeated until they show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Write {
    Record,
    Endpoint,
}

impl Follower {
    pub(crate) fn new(identity: Identity, reads: Reads) -> Self {
        Self {
            identity,
            reads,
            library: Library::default(),
            history: History::default(),
            now: None,
            backlog: VecDeque::new(),
            refused_task: None,
            task: None,
            canonical: None,
            older: Vec::new(),
            manifests: BTreeMap::new(),
            ready: None,
            round: None,
            accepted: VecDeque::new(),
            sent: BTreeMap::new(),
            told_unregistered: false,
        }
    }

    /// Takes an event in, before the role acts on it.
    pub(crate) fn note(&mut self, event: &Event, effects: &mut Effects) {
        let block = self.now.as_ref().map_or(Block(0), |now| now.block);
        self.library.note(event, block, effects);
        match event {
            Event::Block(snapshot) => self.on_block(snapshot, effects),
            Event::Document { blob, bytes } => self.on_document(*blob, bytes, effects),
            Event::Started => self.sent.clear(),
            Event::ChainRefused { reason } => {
                // Due again with the next block, and not at once: the reason may still hold.
                for (_, sent) in self.sent.values_mut() {
                    *sent = Block((block.0 + 1).saturating_sub(RESEND_AFTER_BLOCKS));
                }
                effects.tell(Milestone::ChainRefused {
                    reason: reason.clone(),
                });
            }
            Event::Fetched { .. }
            | Event::FetchFailed { .. }
            | Event::Uploaded { .. }
            | Event::Delivered { .. }
            | Event::Finished { .. } => {}
        }
        self.pursue(effects);
    }

    pub(crate) fn task(&self) -> Option<&Task> {
        self.task.as_ref()
    }

    pub(crate) fn round(&self) -> Option<&Round> {
        self.round.as_ref()
    }

    pub(crate) fn canonical(&self) -> Option<StateId> {
        self.canonical
    }

    /// The snapshot and moment to act on; `None` while catching up or before the task begins.
    pub(crate) fn live(&self) -> Option<(&Snapshot, Moment)> {
        let now = self.now.as_deref().filter(|now| now.block >= now.head)?;
        let moment = self.task()?.schedule.at(now.block)?;
        Some((now, moment))
    }

    /// Where a record lies that is sent now: it is included in the next block at the earliest. `None`
    /// while catching up.
    pub(crate) fn next_moment(&self) -> Option<Moment> {
        let (now, _) = self.live()?;
        self.task()?.schedule.at(now.block.next())
    }

    /// The state that the current cycle builds on, once its manifest is here.
    pub(crate) fn base(&self) -> Option<(StateId, &StateManifest)> {
        let base = self.round.as_ref()?.base?;
        self.manifests.get(&base).map(|manifest| (base, manifest))
    }

    /// A manifest that this role wrote itself.
    pub(crate) fn keep_manifest(
        &mut self,
        manifest: StateManifest,
        effects: &mut Effects,
    ) -> StateId {
        let bytes = manifest.to_bytes();
        let id = StateId::of(&bytes);
        self.keep_document(bytes, effects);
        self.manifests.insert(id, manifest);
        id
    }

    /// A document that this role wrote itself.
    pub(crate) fn keep_document(&mut self, bytes: Vec<u8>, effects: &mut Effects) -> BlobId {
        let blob = BlobId::of(&bytes);
        self.library.add(blob);
        effects.push(Effect::Store { bytes });
        blob
    }

    /// Asks for blobs, from the validators and the owner.
    pub(crate) fn want(
        &mut self,
        blobs: impl IntoIterator<Item = BlobId>,
        form: Form,
        effects: &mut Effects,
    ) {
        let Some(now) = &self.now else { return };
        let block = now.block;
        let mut due = blobs
            .into_iter()
            .filter(|blob| self.library.is_due(*blob, block))
            .peekable();
        if due.peek().is_none() {
            return;
        }
        let due: Vec<BlobId> = due.collect();
        let sources = now.servers(self.identity.hotkey);
        for blob in due {
            self.library.want(blob, form, (block, &sources), effects);
        }
    }

    /// Accepted updates of the last cycles, as far back as the rules remember.
    pub(crate) fn remembered(&self) -> Vec<Candidate> {
        self.accepted
            .iter()
            .flat_map(|(_, updates)| updates.clone())
            .collect()
    }

    /// Makes sure that our record on the chain says this, without sending it twice in a hurry.
    pub(crate) fn announce(&mut self, announcement: &Announcement, effects: &mut Effects) {
        let Some(now) = &self.now else { return };
        let bytes = announcement.encode();
        let shown = now.records.get(&self.identity.hotkey);
        if shown.is_some_and(|record| record.bytes == bytes) {
            return;
        }
        if bytes.len() > MAXIMUM_ANNOUNCEMENT_BYTES {
            let reason = format!(
                "a record of {} bytes does not fit on the chain",
                bytes.len()
            );
            effects.tell(Milestone::ChainRefused { reason });
        } else if self.may_send(Write::Record, &bytes) {
            effects.push(Effect::Announce {
                announcement: announcement.clone(),
            });
        }
    }

    /// Tells once a cycle that its base is complete.
    pub(crate) fn tell_ready(&mut self, effects: &mut Effects) {
        let Some(round) = &self.round else { return };
        if let (Some(state), true) = (round.base, self.ready != Some(round.cycle)) {
            self.ready = Some(round.cycle);
            effects.tell(Milestone::BaseReady {
                cycle: round.cycle,
                state,
            });
        }
    }

    fn may_send(&mut self, write: Write, bytes: &[u8]) -> bool {
        let block = self.now.as_ref().map_or(Block(0), |now| now.block);
        let waiting = self
            .sent
            .get(&write)
            .is_some_and(|(sent, at)| sent == bytes && block.0 < at.0 + RESEND_AFTER_BLOCKS);
        if !waiting {
            self.sent.insert(write, (bytes.to_vec(), block));
        }
        !waiting
    }

    fn on_block(&mut self, snapshot: &Arc<Snapshot>, effects: &mut Effects) {
        let expected = self.now.as_ref().map(|now| now.block.next());
        if expected.is_some_and(|expected| expected != snapshot.block) {
            // Votes may have been missed: what is canonical must be learnt anew.
            self.canonical = None;
            self.round = None;
        }
        self.now = Some(Arc::clone(snapshot));
        if self.task.is_some() {
            self.observe(snapshot, effects);
        } else {
            if self.backlog.len() == MAXIMUM_BACKLOG {
                self.backlog.pop_front();
            }
            self.backlog.push_back(Arc::clone(snapshot));
        }
    }

    fn on_document(&mut self, blob: BlobId, bytes: &[u8], effects: &mut Effects) {
        if self.task.is_none() && Some(blob) == self.announced_task() {
            self.load_task(blob, bytes, effects);
        } else if Some(blob) == self.canonical.map(StateId::manifest_blob)
            && let Ok(manifest) = StateManifest::from_bytes(bytes)
        {
            self.manifests.insert(StateId(blob.0), manifest);
        }
    }

    fn load_task(&mut self, id: BlobId, bytes: &[u8], effects: &mut Effects) {
        let read = TaskManifest::from_bytes(bytes).map_err(|error| error.to_string());
        let checked = read.and_then(|manifest| match manifest.check() {
            Ok(()) => Ok(manifest),
            Err(error) => Err(error.to_string()),
        });
        match checked {
            Ok(manifest) => {
                self.task = Some(Task {
                    id,
                    schedule: Schedule::new(manifest.starts, manifest.rules.windows),
                    groups: manifest.group_ids(),
                    manifest,
                });
                effects.tell(Milestone::TaskLoaded { task: id });
                for snapshot in std::mem::take(&mut self.backlog) {
                    self.observe(&snapshot, effects);
                }
            }
            Err(reason) => {
                self.refused_task = Some(id);
                effects.tell(Milestone::TaskRefused { reason });
            }
        }
    }

    fn announced_task(&self) -> Option<BlobId> {
        let now = self.now.as_ref()?;
        match now.announcement(now.owner?)? {
            (_, Announcement::Task { task }) => Some(task),
            _ => None,
        }
    }

    /// Asks for what is missing to follow at all, and keeps our address on the chain.
    fn pursue(&mut self, effects: &mut Effects) {
        if self.task.is_none()
            && let Some(task) = self.announced_task()
            && Some(task) != self.refused_task
        {
            self.want([task], Form::Document, effects);
        }
        if let Some(state) = self.canonical
            && !self.manifests.contains_key(&state)
        {
            self.want([state.manifest_blob()], Form::Document, effects);
        }
        self.keep_endpoint(effects);
    }

    fn keep_endpoint(&mut self, effects: &mut Effects) {
        let Some(now) = self.now.as_ref().filter(|now| now.block >= now.head) else {
            return;
        };
        match now.participant(self.identity.hotkey) {
            None if !self.told_unregistered => {
                self.told_unregistered = true;
                effects.tell(Milestone::NotRegistered);
            }
            Some(participant) => {
                self.told_unregistered = false;
                if let Some(endpoint) = self.identity.endpoint
                    && participant.endpoint != Some(endpoint)
                    && self.may_send(Write::Endpoint, endpoint.url().as_bytes())
                {
                    effects.push(Effect::Serve { endpoint });
                }
            }
            None => {}
        }
    }

    fn observe(&mut self, snapshot: &Arc<Snapshot>, effects: &mut Effects) {
        let Some(task) = &self.task else { return };
        let Some(moment) = task.schedule.at(snapshot.block) else {
            return;
        };
        if self
            .round
            .as_ref()
            .is_none_or(|round| round.cycle != moment.cycle)
        {
            if moment.cycle == Cycle(0) {
                self.canonical = Some(task.manifest.first_state);
            }
            self.round = Some(Round::new(moment.cycle, self.canonical, snapshot));
        }
        let known = Known {
            network: self.identity.network,
            schedule: &task.schedule,
            groups: &task.groups,
            tickets: &task.manifest.tickets,
            older: &self.older,
            significance: task.manifest.rules.scoring.significance,
        };
        if let (Some(round), Reads::Everything) = (&mut self.round, self.reads) {
            round.observe(snapshot, &known);
        }
        match moment.window {
            Window::Score if moment.closes_window => self.on_judged(effects),
            Window::Vote if moment.closes_window => self.conclude(snapshot, moment.cycle, effects),
            _ => {}
        }
    }

    fn on_judged(&mut self, effects: &mut Effects) {
        let (Some(task), Some(round)) = (&self.task, &self.round) else {
            return;
        };
        let Some(judgement) = &round.judgement else {
            return;
        };
        let rules = &task.manifest.rules;
        if judgement.quorum {
            let (verdicts, rewards) = (&judgement.verdicts, &judgement.rewards);
            self.history.enter(&rules.rewards, verdicts, rewards);
        }
        let accepted = judgement
            .accepted()
            .map(|(verdict, update)| Candidate {
                hotkey: verdict.hotkey,
                group: verdict.group,
                update,
            })
            .collect();
        self.accepted.push_back((round.cycle, accepted));
        while self.accepted.len() as u64 > rules.scoring.duplicate_memory {
            self.accepted.pop_front();
        }
        effects.tell(Milestone::Judged {
            cycle: round.cycle,
            quorum: judgement.quorum,
            verdicts: judgement.verdicts.clone(),
            rewards: judgement.rewards.clone(),
        });
    }

    /// Counts the votes as of the cycle's last block.
    fn conclude(&mut self, snapshot: &Snapshot, cycle: Cycle, effects: &mut Effects) {
        let Some(task) = &self.task else { return };
        let voters = snapshot.voters();
        let votes = votes(snapshot, &task.schedule, cycle);
        let tally = tally(&votes, voters);
        if let Some(tally) = tally {
            self.older.extend(self.canonical);
            let forget = self.older.len().saturating_sub(OLDER_STATES);
            self.older.drain(..forget);
            self.canonical = Some(tally.next);
        }
        let keep = self.canonical;
        self.manifests
            .retain(|id, _| Some(*id) == keep || self.older.contains(id));
        if let Some(state) = self.canonical {
            let passed = tally.map(|tally| tally.passed);
            effects.tell(Milestone::Concluded {
                cycle,
                state,
                passed,
                committed: committed(&votes, passed),
            });
        }
    }
}

/// The state that each vote stands for, given the outcome.
fn committed(votes: &[(Voter, Vote)], passed: Option<bool>) -> Vec<(Hotkey, StateId)> {
    votes
        .iter()
        .map(|(voter, vote)| {
            let state = if passed.unwrap_or(vote.approves) {
                vote.candidate
            } else {
                vote.fallback
            };
            (voter.hotkey, state)
        })
        .collect()
}
