//! The harness of the cluster tests: delivers events, carries out effects, advances blocks. Time is
//! the block; a transfer is a copy between two stores; a crash loses all that was not journalled.

mod transfers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use connito_learning::learner::{self, Learner};
use connito_learning::store::{BlobStore, MemoryStore};
use connito_learning::toy::{ToyBackend, ToyLearner};
use connito_protocol::event::{Effect, Event, Milestone};
use connito_protocol::ids::{BlobId, Block, BlockHash, Cycle, Hotkey, Netuid, StateId, Uid};
use connito_protocol::job::{Job, Outcome};
use connito_protocol::machine::{Machine, Role, Step};
use connito_protocol::manifest::{CycleArchive, Document, StateManifest, TaskManifest};
use connito_protocol::receipt::Receipt;
use connito_protocol::rules::{Codec, Rules};
use connito_protocol::scoring::mean_loss;
use connito_protocol::snapshot::{Record, Snapshot};
use connito_protocol::submission;

use crate::cast::{Cast, Node, key};
pub(crate) use crate::cast::{Conduct, Who};
use crate::hostile::Hostile;
use crate::toy_task;

/// First block of cycle 0.
pub(crate) const STARTS: u64 = 3;

/// Who validates, and under which rules.
pub(crate) struct Setting {
    pub(crate) validators: usize,
    pub(crate) rules: Rules,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            validators: 3,
            rules: Rules::default(),
        }
    }
}

/// The whole network.
pub(crate) struct Network {
    nodes: BTreeMap<Who, Node>,
    pub(crate) history: Vec<Snapshot>,
    pub(crate) pending: Vec<(Hotkey, Vec<u8>)>,
    pub(crate) told: Vec<(Who, Milestone)>,
    issued: BTreeMap<(Hotkey, Cycle, Hotkey), Receipt>,
    /// Results of training that are on their way.
    held: Vec<(Who, Event)>,
    uploaded: BTreeSet<BlobId>,
    /// The last weights that each validator set.
    pub(crate) weights: BTreeMap<Who, Vec<(Uid, f64)>>,
    pub(crate) task: BlobId,
    cycle_blocks: u64,
    /// Miners whose uploads never arrive.
    pub(crate) mute: Vec<Who>,
    /// Whose next write the chain refuses.
    pub(crate) refuse_next_write_of: Option<Who>,
    /// Whose scoring never finishes in time.
    pub(crate) slow: Option<Who>,
    /// Whose training ends when [`Self::release`] says so.
    pub(crate) slow_trainers: Vec<Who>,
    /// Updates are served to nobody but validators.
    pub(crate) updates_hidden: bool,
    /// Blobs that no server has.
    pub(crate) hidden: BTreeSet<BlobId>,
    /// A blob that these do not get.
    pub(crate) hidden_from: Option<(BlobId, Vec<Who>)>,
    /// What validators do that they should not.
    pub(crate) hostile: Hostile,
}

impl Network {
    pub(crate) fn new(miners: &[Conduct]) -> Self {
        Self::with(miners, Setting::default())
    }

    pub(crate) fn with_codec(miners: &[Conduct], codec: Codec) -> Self {
        Self::under(|rules| rules.inner.codec = codec, miners)
    }

    /// A network under other rules than the default ones.
    pub(crate) fn under(change: impl FnOnce(&mut Rules), miners: &[Conduct]) -> Self {
        let mut setting = Setting::default();
        change(&mut setting.rules);
        Self::with(miners, setting)
    }

    pub(crate) fn with(miners: &[Conduct], setting: Setting) -> Self {
        let owner_store = Arc::new(MemoryStore::default());
        let cycle_blocks = setting.rules.windows.cycle();
        let task = toy_task::publish(&owner_store, STARTS, setting.rules);
        let network = submission::Network {
            genesis: BlockHash([7; 32]),
            netuid: Netuid(1),
        };
        let mut cast = Cast {
            network,
            nodes: BTreeMap::new(),
            participants: Vec::new(),
        };
        let honest = learner::Conduct::Honest;
        let owner = key(b"owner", 0);
        cast.add(
            Who::Owner,
            owner,
            Role::Owner { task },
            (honest, owner_store),
        );
        for number in 0..setting.validators {
            let hotkey = key(b"validator", number);
            cast.add(
                Who::Validator(number),
                hotkey,
                Role::Validator,
                (honest, Arc::default()),
            );
        }
        cast.add_miners(miners);
        let first = Snapshot {
            block: Block(0),
            hash: BlockHash::of(b"genesis"),
            head: Block(0),
            owner: Some(owner),
            participants: cast.participants.into_iter().collect(),
            records: Arc::default(),
            readings: Default::default(),
        };
        Self {
            nodes: cast.nodes,
            history: vec![first],
            pending: Vec::new(),
            told: Vec::new(),
            issued: BTreeMap::new(),
            held: Vec::new(),
            uploaded: BTreeSet::new(),
            weights: BTreeMap::new(),
            task,
            cycle_blocks,
            mute: Vec::new(),
            refuse_next_write_of: None,
            slow: None,
            slow_trainers: Vec::new(),
            updates_hidden: false,
            hidden: BTreeSet::new(),
            hidden_from: None,
            hostile: Hostile::default(),
        }
    }

    pub(crate) fn run_cycle(&mut self) {
        self.run_cycle_with(|_, _| {});
    }

    /// Runs to the last block of the current cycle; `disturb` is called after each block with its
    /// offset in the cycle.
    pub(crate) fn run_cycle_with(&mut self, mut disturb: impl FnMut(&mut Self, u64)) {
        loop {
            self.advance();
            let block = self.newest().0;
            if block >= STARTS {
                let offset = (block - STARTS) % self.cycle_blocks;
                disturb(self, offset);
                self.settle();
                if offset == self.cycle_blocks - 1 {
                    return;
                }
            }
        }
    }

    fn newest(&self) -> Block {
        self.history.last().unwrap().block
    }

    /// Makes a block of what was sent since the last one, and lets everybody react.
    fn advance(&mut self) {
        let mut next = self.history.last().unwrap().clone();
        next.block = next.block.next();
        next.head = next.block;
        next.hash = BlockHash::of(&next.hash.0);
        for (index, (hotkey, bytes)) in self.pending.drain(..).enumerate() {
            let index = u32::try_from(index).unwrap();
            Arc::make_mut(&mut next.records).insert(
                hotkey,
                Record {
                    block: next.block,
                    index,
                    bytes: bytes.into(),
                },
            );
        }
        self.history.push(next);
        self.settle();
    }

    /// Delivers events until nobody has anything left to do.
    fn settle(&mut self) {
        let head = self.newest();
        for node in self
            .nodes
            .values_mut()
            .filter(|node| node.machine.is_some())
        {
            while node.seen < head {
                node.seen = node.seen.next();
                let mut snapshot = self.history[usize::try_from(node.seen.0).unwrap()].clone();
                snapshot.head = head;
                node.inbox.push_back(Event::Block(Arc::new(snapshot)));
            }
        }
        loop {
            let busy = self
                .nodes
                .iter()
                .find(|(_, node)| node.machine.is_some() && !node.inbox.is_empty());
            let Some(who) = busy.map(|(who, _)| *who) else {
                return;
            };
            let node = self.nodes.get_mut(&who).unwrap();
            let event = node.inbox.pop_front().unwrap();
            let effects = node.machine.as_mut().unwrap().handle(&event);
            node.journal.push(Step {
                event,
                effects: effects.clone(),
            });
            for effect in effects {
                self.carry_out(who, effect);
            }
        }
    }

    fn carry_out(&mut self, who: Who, effect: Effect) {
        let node = &self.nodes[&who];
        let hotkey = node.character.identity.hotkey;
        let answer = match effect {
            Effect::Announce { .. } if self.refuse_next_write_of == Some(who) => {
                self.refuse_next_write_of = None;
                let reason = "connection reset".to_owned();
                Event::ChainRefused { reason }
            }
            Effect::Announce { announcement } => {
                self.hostile.note(who, &announcement);
                self.pending.push((hotkey, announcement.encode()));
                return;
            }
            Effect::Fetch(fetch) => self.fetch(who, fetch.blob, fetch.form, &fetch.sources),
            Effect::Store { bytes } => {
                node.store.write(&bytes).unwrap();
                return;
            }
            Effect::Forget { blobs } => {
                blobs.into_iter().for_each(|blob| node.store.remove(blob));
                return;
            }
            Effect::Deliver {
                cycle, blob, to, ..
            } => return self.deliver(who, cycle, blob, to),
            Effect::Run(job) => {
                let late = self.slow == Some(who) && matches!(job, Job::Score(_));
                let head = if late { Block(u64::MAX) } else { self.newest() };
                let node = self.nodes.get_mut(&who).unwrap();
                let outcome = node.learner.run(&job, &|| head);
                Event::Finished {
                    outcome: self.hostile.twist(who, &job, outcome),
                    entropy: [3; 16],
                }
            }
            Effect::Tell(milestone) => {
                self.told.push((who, milestone));
                return;
            }
            Effect::AskReceipt { cycle, from } => self.ask_receipt(hotkey, cycle, &from),
            Effect::Issue(receipts) => {
                for receipt in receipts.iter() {
                    let key = (hotkey, receipt.cycle, receipt.hotkey);
                    self.issued.insert(key, receipt);
                }
                return;
            }
            Effect::SetWeights { weights } => {
                self.weights.insert(who, weights);
                return;
            }
            Effect::Serve { .. } | Effect::Answer { .. } => return,
        };
        if self.slow_trainers.contains(&who) && is_trained(&answer) {
            self.held.push((who, answer));
            return;
        }
        self.nodes.get_mut(&who).unwrap().inbox.push_back(answer);
    }

    /// A training run that was held back ends.
    pub(crate) fn release(&mut self, who: Who) {
        let held = std::mem::take(&mut self.held);
        let (released, held): (Vec<_>, Vec<_>) = held.into_iter().partition(|(of, _)| *of == who);
        self.held = held;
        for (_, event) in released {
            self.nodes.get_mut(&who).unwrap().inbox.push_back(event);
        }
        self.settle();
    }

    /// The owner gets another task to announce.
    pub(crate) fn publish(&mut self, task: &TaskManifest) -> BlobId {
        let owner = self.nodes.get_mut(&Who::Owner).unwrap();
        let task = owner.store.write(&task.to_bytes()).unwrap();
        owner.inbox.push_back(Event::TaskGiven { task });
        self.settle();
        task
    }

    /// The same, and some cannot have the document for now.
    pub(crate) fn publish_hidden_from(&mut self, task: &TaskManifest, who: &[Who]) -> BlobId {
        self.hidden_from = Some((BlobId::of(&task.to_bytes()), who.to_vec()));
        self.publish(task)
    }

    /// Puts blobs of the owner into somebody's store.
    pub(crate) fn give(&self, who: Who, blobs: &[BlobId]) {
        for blob in blobs {
            let bytes = self.store(Who::Owner).read(*blob).unwrap();
            self.nodes[&who].store.write(&bytes).unwrap();
        }
    }

    /// The task that the network began with.
    pub(crate) fn first_task(&self) -> TaskManifest {
        let bytes = self.nodes[&Who::Owner].store.read(self.task).unwrap();
        TaskManifest::from_bytes(&bytes).unwrap()
    }

    /// Where somebody keeps its blobs.
    pub(crate) fn store(&self, who: Who) -> &MemoryStore {
        &self.nodes[&who].store
    }

    /// Makes so many blocks.
    pub(crate) fn run_blocks(&mut self, blocks: u64) {
        (0..blocks).for_each(|_| self.advance());
    }

    /// The newest block.
    pub(crate) fn block(&self) -> Block {
        self.newest()
    }

    /// Begins with an empty journal, having seen no block before `first`.
    pub(crate) fn join(&mut self, who: Who, first: Block) {
        self.forget(who);
        self.start(who);
        let node = self.nodes.get_mut(&who).unwrap();
        node.seen = Block(first.0 - 1);
        self.settle();
    }

    /// The process ends; what was not journalled is lost.
    pub(crate) fn stop(&mut self, who: Who) {
        let node = self.nodes.get_mut(&who).unwrap();
        node.machine = None;
        node.inbox.clear();
    }

    /// The process begins: the journal is replayed, and every effect must be the recorded one.
    pub(crate) fn start(&mut self, who: Who) {
        let node = self.nodes.get_mut(&who).unwrap();
        let mut machine = Machine::new(&node.character);
        node.seen = Block(0);
        for step in &node.journal {
            assert_eq!(
                machine.handle(&step.event),
                step.effects,
                "replay gives the same effects"
            );
            if let Event::Block(snapshot) = &step.event {
                node.seen = snapshot.block;
            }
        }
        node.machine = Some(machine);
        node.inbox.push_back(Event::Started);
    }

    pub(crate) fn restart(&mut self, who: Who) {
        self.stop(who);
        self.start(who);
    }

    /// Everything that a participant heard and asked for, and its blobs.
    pub(crate) fn record_of(&self, who: Who) -> (&[Step], &MemoryStore) {
        let node = &self.nodes[&who];
        (&node.journal, &node.store)
    }

    /// A file is deleted by hand.
    pub(crate) fn lose(&mut self, who: Who, blob: BlobId) {
        self.nodes[&who].store.remove(blob);
    }

    /// The disk is lost.
    pub(crate) fn forget(&mut self, who: Who) {
        let node = self.nodes.get_mut(&who).unwrap();
        node.journal.clear();
        node.store = Arc::default();
        node.learner = ToyLearner::new(
            node.store.clone(),
            ToyBackend::default(),
            learner::Conduct::Honest,
        );
    }

    /// What is left for someone who was not there: the task, every block, and everybody's blobs.
    pub(crate) fn left_behind(&self) -> (BlobId, &[Snapshot], Vec<Arc<MemoryStore>>) {
        let stores = self.nodes.values().map(|node| Arc::clone(&node.store));
        (self.task, &self.history, stores.collect())
    }

    pub(crate) fn hotkeys(&self) -> BTreeMap<Who, Hotkey> {
        let nodes = self.nodes.iter();
        nodes
            .map(|(who, node)| (*who, node.character.identity.hotkey))
            .collect()
    }

    pub(crate) fn canonical(&self) -> StateId {
        self.canonical_of(Who::Validator(0))
    }

    /// Shard names of the canonical state, group by group.
    pub(crate) fn shards(&self) -> Vec<BlobId> {
        let manifest = self.manifest();
        manifest.groups.iter().map(|group| group.shard).collect()
    }

    /// The canonical state.
    pub(crate) fn manifest(&self) -> StateManifest {
        let state = self.canonical_or_first();
        let bytes = self.nodes[&Who::Validator(0)]
            .store
            .read(state.manifest_blob());
        let bytes = bytes
            .or_else(|_| self.nodes[&Who::Owner].store.read(state.manifest_blob()))
            .unwrap();
        StateManifest::from_bytes(&bytes).unwrap()
    }

    /// The facts of the last cycle that decided a state.
    pub(crate) fn archive(&self) -> CycleArchive {
        let archive = self.manifest().archive.unwrap();
        let bytes = self.nodes[&Who::Validator(0)].store.read(archive).unwrap();
        CycleArchive::from_bytes(&bytes).unwrap()
    }

    /// What somebody holds to be canonical.
    pub(crate) fn canonical_of(&self, who: Who) -> StateId {
        let machine = self.nodes[&who].machine.as_ref().unwrap();
        machine.canonical().unwrap()
    }

    fn canonical_or_first(&self) -> StateId {
        let machine = self.nodes[&Who::Validator(0)].machine.as_ref().unwrap();
        machine.canonical().unwrap_or_else(|| {
            let bytes = self.nodes[&Who::Owner].store.read(self.task).unwrap();
            let task = TaskManifest::from_bytes(&bytes).unwrap();
            task.first_state.unwrap()
        })
    }

    /// Mean loss of the canonical state on text that nobody trained or scored on.
    pub(crate) fn loss(&mut self) -> f64 {
        let state = self.canonical_or_first();
        let task = self.task;
        let sequences: Vec<Vec<u32>> = (900..930).map(|id| vec![id; 8]).collect();
        let views: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let node = self.nodes.get_mut(&Who::Validator(0)).unwrap();
        let who = if node.store.read(state.manifest_blob()).is_ok() {
            Who::Validator(0)
        } else {
            Who::Owner
        };
        let node = self.nodes.get_mut(&who).unwrap();
        mean_loss(&node.learner.heldout_loss(task, state, &views).unwrap()).unwrap()
    }
}

fn is_trained(event: &Event) -> bool {
    matches!(
        event,
        Event::Finished {
            outcome: Outcome::Trained(_),
            ..
        }
    )
}
