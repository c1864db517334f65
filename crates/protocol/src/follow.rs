//! What every role does alike: find the task, follow the canonical state, read the cycle off the
//! chain, and keep what it needs of the blobs (P-3, P-4, P-33).
//!
//! Inputs are events; a role asks it for the current moment, the base of the cycle and the observed
//! round. Which task is worked on is decided in `follow/versions.rs`, how the bytes of a state come in
//! `follow/adoption.rs`. It knows nothing of training, scoring or uploading.

mod adoption;
mod documents;
mod forks;
mod judging;
mod versions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::announcement::{Announcement, MAXIMUM_ANNOUNCEMENT_BYTES, Vote};
use crate::consensus::tally;
use crate::event::{Effect, Effects, Event, Milestone};
use crate::ids::{Block, Cycle, Hotkey, StateId};
use crate::job::Candidate;
use crate::library::Library;
use crate::lineage::{self, Earlier};
use crate::manifest::StateManifest;
use crate::merged::Merged;
use crate::review::Docket;
use crate::rewards::History;
use crate::round::{Archived, Round, votes};
use crate::schedule::{Moment, Window};
use crate::snapshot::{Endpoint, Snapshot, Voter};
use crate::submission::Network;
use adoption::Adoption;
use forks::Recent;
use versions::Tasks;

pub(crate) use versions::{Task, decided_task};

/// Blocks kept until the task is known, so that a newcomer can still read a vote in them.
const MAXIMUM_BACKLOG: usize = 2_048;

/// States remembered to tell a stale base from an unknown one: as many as the longest rebase window.
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
    now: Option<Arc<Snapshot>>,
    /// Shared with what is remembered of recent blocks, until it changes.
    reading: Arc<Reading>,
    manifests: BTreeMap<StateId, Arc<StateManifest>>,
    /// What each of them lists.
    merged: BTreeMap<StateId, Arc<Merged>>,
    /// Documents that were named as a state's manifest and are none.
    unreadable: BTreeSet<StateId>,
    adoption: Adoption,
    ready: Option<Cycle>,
    recent: Recent,
    /// What the last judgement was read from, until it is in the store.
    archive: Option<Arc<Archived>>,
    stepped_back: bool,
    sent: BTreeMap<Write, (Vec<u8>, Block)>,
    told_unregistered: bool,
}

/// Updates that everybody can read since a cycle, and could send again.
#[derive(Debug, Clone)]
struct OpenedIn {
    cycle: Cycle,
    accepted: Vec<Candidate>,
    /// Those that the network failed to judge: what they are worth is still to be earned.
    unscored: Vec<Candidate>,
}

/// Updates of earlier cycles, the newest last.
type Opened = VecDeque<OpenedIn>;

/// What has been read off the chain, and stands or falls with its blocks.
#[derive(Debug, Clone, Default)]
struct Reading {
    /// Blocks that wait for their task to be known.
    backlog: VecDeque<Arc<Snapshot>>,
    tasks: Tasks,
    canonical: Option<StateId>,
    older: Vec<StateId>,
    round: Option<Round>,
    /// What of the cycle before is reviewed in this one; `None` for whoever did not see it judged.
    docket: Option<Arc<Docket>>,
    history: Arc<History>,
    opened: Arc<Opened>,
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
            now: None,
            reading: Arc::default(),
            manifests: BTreeMap::new(),
            merged: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            adoption: Adoption::default(),
            ready: None,
            recent: Recent::default(),
            archive: None,
            stepped_back: false,
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
            Event::Document {
                blob,
                document,
                received,
            } => {
                self.count_received(*blob, *received);
                self.on_document(*blob, document, effects);
            }
            Event::Fetched { blob, received } => self.count_received(*blob, *received),
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
            Event::FetchFailed { .. }
            | Event::Uploaded { .. }
            | Event::Delivered { .. }
            | Event::Receipt { .. }
            | Event::TaskGiven { .. }
            | Event::Finished { .. } => {}
        }
        if teaches(event) {
            self.settle(effects);
            self.pursue(effects);
        }
    }

    /// What has been read off the chain, to be changed.
    fn reading_mut(&mut self) -> &mut Reading {
        Arc::make_mut(&mut self.reading)
    }

    /// What every hotkey has earned so far.
    pub(crate) fn history(&self) -> &History {
        &self.reading.history
    }

    pub(crate) fn round(&self) -> Option<&Round> {
        self.reading.round.as_ref()
    }

    /// Whether nothing is left to be had of the current cycle's base.
    pub(crate) fn is_ready(&self) -> bool {
        let cycle = self.reading.round.as_ref().map(|round| round.cycle);
        cycle.is_some() && cycle == self.ready && self.adoption.is_complete()
    }

    pub(crate) fn canonical(&self) -> Option<StateId> {
        self.reading.canonical
    }

    /// The snapshot and moment to act on; `None` while catching up or before the task begins.
    pub(crate) fn live(&self) -> Option<(&Arc<Snapshot>, Moment)> {
        let now = self.now.as_ref().filter(|now| now.block >= now.head)?;
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
        let base = self.reading.round.as_ref()?.base?;
        self.manifest(base).map(|manifest| (base, manifest))
    }

    /// The states before the base that an update of this cycle may build on, as far as they are known
    /// here (P-15).
    pub(crate) fn earlier(&self) -> Vec<Earlier> {
        self.lineage().unwrap_or_default()
    }

    /// The same for whoever must know all of them; otherwise, the state whose manifest is missing.
    fn lineage(&self) -> Result<Vec<Earlier>, StateId> {
        let (Some(task), Some(round)) = (self.task(), &self.reading.round) else {
            return Ok(Vec::new());
        };
        let Some(base) = round.base else {
            return Ok(Vec::new());
        };
        let window = task.manifest.rules.scoring.rebase_window;
        lineage::earlier(base, (round.cycle, window), |state| self.manifest(state))
    }

    /// Accepted updates of the last cycles, as far back as the rules remember.
    pub(crate) fn remembered(&self) -> Vec<Candidate> {
        let updates = self.lately_opened().map(|opened| &opened.accepted);
        updates.flatten().cloned().collect()
    }

    /// As far back, those that were opened and that the network failed to judge.
    pub(crate) fn unscored(&self) -> Vec<Candidate> {
        let updates = self.lately_opened().map(|opened| &opened.unscored);
        updates.flatten().cloned().collect()
    }

    fn lately_opened(&self) -> impl Iterator<Item = &OpenedIn> {
        let forgotten = self.reading.opened.len().saturating_sub(self.memory());
        self.reading.opened.iter().skip(forgotten)
    }

    fn memory(&self) -> usize {
        let task = self.task();
        let cycles = task.map_or(0, |task| task.manifest.rules.scoring.duplicate_memory);
        usize::try_from(cycles).unwrap_or(usize::MAX)
    }

    /// Makes sure that our record on the chain says this, without sending it twice in a hurry.
    pub(crate) fn announce(&mut self, announcement: &Announcement, effects: &mut Effects) {
        let Some(now) = &self.now else { return };
        let bytes = announcement.encode();
        let shown = now.records.get(&self.identity.hotkey);
        if shown.is_some_and(|record| *record.bytes == bytes[..]) {
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

    /// Notes blocks that asked nothing of the role, the first of them and the last.
    pub(crate) fn pass(&mut self, first: Block, last: Arc<Snapshot>) {
        self.remember(first, last.block);
        self.now = Some(last);
    }

    fn on_block(&mut self, snapshot: &Arc<Snapshot>, effects: &mut Effects) {
        let expected = self.now.as_ref().map(|now| now.block.next());
        let follows = expected.is_none_or(|expected| expected == snapshot.block);
        if !follows && !self.step_back(snapshot.block) {
            // Votes may have been missed: what is canonical must be learnt anew.
            self.forget_what_votes_decided();
        }
        self.remember(snapshot.block, snapshot.block);
        self.now = Some(Arc::clone(snapshot));
        if self.reading.backlog.is_empty() {
            self.enter_task(snapshot.block, effects);
            if self.task().is_some() {
                return self.observe(snapshot, effects);
            }
        }
        self.keep_for_later(snapshot);
        self.observe_backlog(effects);
    }

    /// A block whose task is not known yet.
    fn keep_for_later(&mut self, snapshot: &Arc<Snapshot>) {
        if self.reading.backlog.len() == MAXIMUM_BACKLOG {
            self.reading_mut().backlog.pop_front();
            if self.reading.round.is_some() {
                self.forget_what_votes_decided();
            }
        }
        self.reading_mut().backlog.push_back(Arc::clone(snapshot));
    }

    fn forget_what_votes_decided(&mut self) {
        let reading = self.reading_mut();
        (reading.canonical, reading.round) = (None, None);
        reading.tasks.forget();
    }

    /// Takes in the blocks that have come, as far as their task is known.
    fn observe_backlog(&mut self, effects: &mut Effects) {
        while let Some(next) = self.reading.backlog.front() {
            self.enter_task(next.block, effects);
            if self.task().is_none() {
                return;
            }
            if let Some(snapshot) = self.reading_mut().backlog.pop_front() {
                self.observe(&snapshot, effects);
            }
        }
    }

    /// Asks for what is missing to follow at all, and keeps our address on the chain.
    fn pursue(&mut self, effects: &mut Effects) {
        self.pursue_task(effects);
        for state in self.missing_manifests().into_iter().flatten() {
            if Some(state) == self.reading.canonical {
                self.count_manifest(state);
            }
            self.want_document(state.manifest_blob(), effects);
        }
        self.pursue_bodies(effects);
        self.keep_endpoint(effects);
    }

    /// Whether nothing is left to be told or sent about our slot and address.
    fn is_endpoint_kept(&self) -> bool {
        let (own, endpoint) = (self.identity.hotkey, self.identity.endpoint);
        match self.now.as_ref().and_then(|now| now.participant(own)) {
            None => self.told_unregistered,
            Some(own) => {
                !self.told_unregistered && (endpoint.is_none() || own.endpoint == endpoint)
            }
        }
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
        let Some(task) = self.reading.tasks.current.clone() else {
            return;
        };
        let Some(moment) = task.schedule.at(snapshot.block) else {
            return;
        };
        let begun = self.round().map(|round| round.cycle);
        if begun != Some(moment.cycle) {
            if moment.cycle == task.manifest.first_cycle
                && let Some(first) = task.manifest.first_state
            {
                self.replace_canonical(first);
            }
            let docket = self.next_docket(moment.cycle, snapshot.hash);
            let round = Round::new(moment.cycle, self.reading.canonical, snapshot);
            let reading = self.reading_mut();
            (reading.docket, reading.round) = (docket, Some(round));
        }
        if self.reads == Reads::Everything {
            let sealed = moment.closes_window && moment.window == Window::Seal;
            if sealed {
                let assignment = &mut self.reading_mut().tasks.assignment;
                *assignment = snapshot.assignment(task.id, assignment);
            }
            self.with_round(|round, known| round.observe(snapshot, known));
            self.settle(effects);
        }
        if moment.closes_window && moment.window == Window::Vote {
            self.conclude(snapshot, moment.cycle, effects);
        }
    }

    /// Counts the votes as of the cycle's last block.
    fn conclude(&mut self, snapshot: &Snapshot, cycle: Cycle, effects: &mut Effects) {
        let Some(task) = self.task() else { return };
        let (votes, tally) = snapshot.readings.counts.get((task.id, cycle), |_| {
            let votes = votes(snapshot, &task.schedule, cycle);
            let tally = tally(&votes, snapshot.voters());
            (Arc::new(votes), tally)
        });
        if let Some(tally) = tally {
            self.replace_canonical(tally.next);
        }
        self.decide_task(&votes, snapshot);
        self.tell_conduct(&votes, tally.as_ref(), effects);
        self.forget_manifests();
        if let Some(state) = self.reading.canonical {
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

impl Follower {
    fn replace_canonical(&mut self, next: StateId) {
        let Reading {
            canonical, older, ..
        } = self.reading_mut();
        older.extend(canonical.filter(|before| *before != next));
        let forget = older.len().saturating_sub(OLDER_STATES);
        older.drain(..forget);
        *canonical = Some(next);
    }
}

/// Whether an event may add to what is known of tasks, states and rounds. Blobs and uploads come in by
/// the thousand, and what is missing because one failed is asked for with the next block.
fn teaches(event: &Event) -> bool {
    match event {
        Event::Started
        | Event::Block(_)
        | Event::Document { .. }
        | Event::Finished { .. }
        | Event::TaskGiven { .. } => true,
        Event::Fetched { .. }
        | Event::FetchFailed { .. }
        | Event::Uploaded { .. }
        | Event::Delivered { .. }
        | Event::ChainRefused { .. }
        | Event::Receipt { .. } => false,
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
