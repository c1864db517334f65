//! The harness of the cluster tests: delivers events, carries out effects, advances blocks. Time is
//! the block; a transfer is a copy between two stores; a crash loses all that was not journalled.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use connito_learning::learner::{self, Learner};
use connito_learning::store::{BlobStore, MemoryStore};
use connito_learning::toy::{ToyBackend, ToyLearner};
use connito_protocol::Identity;
use connito_protocol::assignment::assigned_group;
use connito_protocol::consensus::Verdict;
use connito_protocol::event::{Delivery, Effect, Event, Form, Milestone, UploadAnswer};
use connito_protocol::ids::{
    BlobId, Block, BlockHash, Cycle, GroupId, Hotkey, Netuid, StateId, Uid,
};
use connito_protocol::job::Job;
use connito_protocol::machine::{Character, Machine, Role, Step};
use connito_protocol::manifest::{Document, StateManifest, TaskManifest};
use connito_protocol::reason::ReasonCode;
use connito_protocol::rewards::CycleRewards;
use connito_protocol::rules::{Codec, Rules};
use connito_protocol::scoring::mean_loss;
use connito_protocol::snapshot::{Endpoint, Participant, Record, Snapshot};
use connito_protocol::submission;

use crate::toy_task;

const VALIDATORS: usize = 3;
const STARTS: u64 = 3;

/// Which participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Owner,
    Validator(usize),
    Miner(usize),
}

/// How a miner behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Conduct {
    Honest(GroupId),
    Damaging(GroupId),
    /// Copies miner 0.
    CopyingFirst,
}

struct Node {
    character: Character,
    store: Arc<MemoryStore>,
    learner: ToyLearner<Arc<MemoryStore>>,
    machine: Option<Machine>,
    journal: Vec<Step>,
    inbox: VecDeque<Event>,
    seen: Block,
}

/// Participants as they are added, before the first block.
struct Cast {
    network: submission::Network,
    nodes: BTreeMap<Who, Node>,
    participants: Vec<Participant>,
}

impl Cast {
    fn add(
        &mut self,
        who: Who,
        hotkey: Hotkey,
        role: Role,
        (conduct, store): (learner::Conduct, Arc<MemoryStore>),
    ) {
        let uid = Uid(u16::try_from(self.participants.len()).unwrap());
        let validates = matches!(who, Who::Validator(_));
        let endpoint = (!matches!(who, Who::Miner(_))).then_some(Endpoint {
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 9000 + uid.0,
        });
        self.participants.push(Participant {
            uid,
            hotkey,
            stake: if validates { 100 } else { 0 },
            validator_permit: validates,
            endpoint,
            weights_set: Block(0),
        });
        let network = self.network;
        let character = Character {
            identity: Identity {
                hotkey,
                network,
                endpoint,
            },
            role,
        };
        let node = Node {
            learner: ToyLearner::new(store.clone(), ToyBackend::default(), conduct),
            machine: Some(Machine::new(&character)),
            journal: Vec::new(),
            inbox: VecDeque::from([Event::Started]),
            seen: Block(0),
            store,
            character,
        };
        self.nodes.insert(who, node);
    }
}

impl Cast {
    fn add_miners(&mut self, miners: &[Conduct]) {
        let honest = learner::Conduct::Honest;
        let victim = miners.first().map(|conduct| miner_key(0, *conduct));
        for (number, conduct) in miners.iter().enumerate() {
            let (role, treatment) = match conduct {
                Conduct::Honest(_) => (Role::Miner, honest),
                Conduct::Damaging(_) => (Role::Miner, learner::Conduct::Damaging),
                Conduct::CopyingFirst => {
                    let victim = victim.unwrap();
                    (Role::Copier { victim }, honest)
                }
            };
            let hotkey = miner_key(number, *conduct);
            self.add(
                Who::Miner(number),
                hotkey,
                role,
                (treatment, Arc::default()),
            );
        }
    }
}

/// The whole network.
pub(crate) struct Network {
    nodes: BTreeMap<Who, Node>,
    history: Vec<Snapshot>,
    pending: Vec<(Hotkey, Vec<u8>)>,
    told: Vec<(Who, Milestone)>,
    task: BlobId,
    cycle_blocks: u64,
    /// Miners whose uploads never arrive.
    pub(crate) mute: Vec<Who>,
    /// Whose next write the chain refuses.
    pub(crate) refuse_next_write_of: Option<Who>,
    /// Whose scoring never finishes in time.
    pub(crate) slow: Option<Who>,
}

impl Network {
    pub(crate) fn new(miners: &[Conduct]) -> Self {
        Self::with_codec(miners, Rules::default().inner.codec)
    }

    pub(crate) fn with_codec(miners: &[Conduct], codec: Codec) -> Self {
        let owner_store = Arc::new(MemoryStore::default());
        let task = toy_task::publish(&owner_store, STARTS, codec);
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
        for number in 0..VALIDATORS {
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
            records: BTreeMap::new(),
        };
        Self {
            nodes: cast.nodes,
            history: vec![first],
            pending: Vec::new(),
            told: Vec::new(),
            task,
            cycle_blocks: Rules::default().windows.cycle(),
            mute: Vec::new(),
            refuse_next_write_of: None,
            slow: None,
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
            next.records.insert(
                hotkey,
                Record {
                    block: next.block,
                    index,
                    bytes,
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
                self.pending.push((hotkey, announcement.encode()));
                return;
            }
            Effect::Fetch(fetch) => self.fetch(who, fetch.blob, fetch.form, &fetch.sources),
            Effect::Store { bytes } => {
                node.store.write(&bytes).unwrap();
                return;
            }
            Effect::Deliver {
                cycle, blob, to, ..
            } => return self.deliver(who, cycle, blob, to),
            Effect::Run(job) => {
                let late = self.slow == Some(who) && matches!(job, Job::Score(_));
                let head = if late { Block(u64::MAX) } else { self.newest() };
                let node = self.nodes.get_mut(&who).unwrap();
                Event::Finished {
                    outcome: node.learner.run(&job, &|| head),
                    entropy: [3; 16],
                }
            }
            Effect::Tell(milestone) => {
                self.told.push((who, milestone));
                return;
            }
            Effect::SetWeights { .. }
            | Effect::Serve { .. }
            | Effect::Issue(_)
            | Effect::Answer { .. } => return,
        };
        self.nodes.get_mut(&who).unwrap().inbox.push_back(answer);
    }

    fn fetch(&self, who: Who, blob: BlobId, form: Form, sources: &[Endpoint]) -> Event {
        let own = &self.nodes[&who].store;
        let asked = self.nodes.values().filter(|node| {
            let endpoint = node.character.identity.endpoint;
            endpoint.is_some_and(|endpoint| sources.contains(&endpoint))
        });
        let (up, down): (Vec<&Node>, Vec<&Node>) = asked.partition(|node| node.machine.is_some());
        let found = own.read(blob).ok();
        let found = found.or_else(|| up.iter().find_map(|node| node.store.read(blob).ok()));
        let Some(bytes) = found else {
            let absent = down.is_empty();
            return Event::FetchFailed { blob, absent };
        };
        own.write(&bytes).unwrap();
        match form {
            Form::Document => Event::Document { blob, bytes },
            Form::Blob | Form::Update => Event::Fetched { blob },
        }
    }

    /// The receiver's machine decides; its answer goes straight back.
    fn deliver(&mut self, from: Who, cycle: Cycle, blob: BlobId, to: Hotkey) {
        if self.mute.contains(&from) {
            let answer = Delivery::Unreachable("lost".to_owned());
            let event = Event::Delivered { blob, to, answer };
            self.nodes.get_mut(&from).unwrap().inbox.push_back(event);
            return;
        }
        let bytes = self.nodes[&from].store.read(blob).unwrap();
        let hotkey = self.nodes[&from].character.identity.hotkey;
        let receiver = *self
            .nodes
            .iter()
            .find(|(_, node)| node.character.identity.hotkey == to)
            .unwrap()
            .0;
        let node = self.nodes.get_mut(&receiver).unwrap();
        let answer = match &mut node.machine {
            None => Delivery::Unreachable("down".to_owned()),
            Some(machine) => {
                node.store.write(&bytes).unwrap();
                let event = Event::Uploaded {
                    ticket: 0,
                    hotkey,
                    cycle,
                    blob,
                };
                let effects = machine.handle(&event);
                node.journal.push(Step {
                    event,
                    effects: effects.clone(),
                });
                let said = effects.iter().find_map(|effect| match effect {
                    Effect::Answer { answer, .. } => Some(*answer),
                    _ => None,
                });
                for effect in effects {
                    self.carry_out(receiver, effect);
                }
                match said.unwrap() {
                    UploadAnswer::Accepted | UploadAnswer::Repeated => Delivery::Accepted,
                    UploadAnswer::TooEarly | UploadAnswer::NotSealed => {
                        Delivery::Unreachable("later".to_owned())
                    }
                    refused => Delivery::Refused(format!("{refused:?}")),
                }
            }
        };
        let delivered = Event::Delivered { blob, to, answer };
        self.nodes
            .get_mut(&from)
            .unwrap()
            .inbox
            .push_back(delivered);
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

    pub(crate) fn canonical(&self) -> StateId {
        let node = &self.nodes[&Who::Validator(0)];
        node.machine.as_ref().unwrap().canonical().unwrap()
    }

    /// Shard names of the canonical state, group by group.
    pub(crate) fn shards(&self) -> Vec<BlobId> {
        let state = self.canonical_or_first();
        let bytes = self.nodes[&Who::Validator(0)]
            .store
            .read(state.manifest_blob());
        let bytes = bytes
            .or_else(|_| self.nodes[&Who::Owner].store.read(state.manifest_blob()))
            .unwrap();
        let manifest = StateManifest::from_bytes(&bytes).unwrap();
        manifest.groups.iter().map(|group| group.shard).collect()
    }

    fn canonical_or_first(&self) -> StateId {
        let machine = self.nodes[&Who::Validator(0)].machine.as_ref().unwrap();
        machine.canonical().unwrap_or_else(|| {
            let bytes = self.nodes[&Who::Owner].store.read(self.task).unwrap();
            TaskManifest::from_bytes(&bytes).unwrap().first_state
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

    /// Whether any validator finished two scorings of one cycle.
    pub(crate) fn scored_twice(&self) -> bool {
        let mut measured: Vec<_> = self
            .told
            .iter()
            .filter_map(|(who, told)| match told {
                Milestone::Measured { cycle, .. } => Some((*who, *cycle)),
                _ => None,
            })
            .collect();
        let all = measured.len();
        measured.sort();
        measured.dedup();
        measured.len() != all
    }

    pub(crate) fn report(&self, cycle: Cycle) -> Report {
        let mut report = Report::default();
        for (who, told) in &self.told {
            match told {
                Milestone::Judged {
                    cycle: of,
                    quorum,
                    verdicts,
                    rewards,
                } if *of == cycle => {
                    report.quorum = *quorum;
                    report.verdicts = verdicts.clone();
                    report.rewards = Some(rewards.clone());
                }
                Milestone::Concluded {
                    cycle: of,
                    committed,
                    ..
                } if *of == cycle && *who == Who::Owner => {
                    report.committed = committed.clone();
                }
                _ => {}
            }
        }
        for (who, node) in &self.nodes {
            report.hotkeys.insert(*who, node.character.identity.hotkey);
        }
        report
    }
}

/// What became of a cycle.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) quorum: bool,
    verdicts: Vec<Verdict>,
    rewards: Option<CycleRewards>,
    committed: Vec<(Hotkey, StateId)>,
    hotkeys: BTreeMap<Who, Hotkey>,
}

impl Report {
    pub(crate) fn code(&self, who: Who) -> Option<ReasonCode> {
        let hotkey = self.hotkeys[&who];
        self.verdicts
            .iter()
            .find(|verdict| verdict.hotkey == hotkey)
            .map(|verdict| verdict.code)
    }

    pub(crate) fn reward(&self, who: Who) -> f64 {
        let shares = &self.rewards.as_ref().unwrap().shares;
        shares.get(&self.hotkeys[&who]).copied().unwrap_or(0.0)
    }

    pub(crate) fn rewards_and_withheld(&self) -> f64 {
        let rewards = self.rewards.as_ref().unwrap();
        rewards.shares.values().sum::<f64>() + rewards.withheld
    }

    pub(crate) fn distinct_states(&self) -> usize {
        let states: std::collections::BTreeSet<_> =
            self.committed.iter().map(|(_, state)| state).collect();
        states.len()
    }

    pub(crate) fn voters(&self) -> usize {
        self.committed.len()
    }
}

fn key(label: &[u8], number: usize) -> Hotkey {
    Hotkey(*blake3::hash(&[label, &number.to_le_bytes()].concat()).as_bytes())
}

/// The first hotkey of a miner's own series that is assigned to its group.
fn miner_key(number: usize, conduct: Conduct) -> Hotkey {
    let (Conduct::Honest(group) | Conduct::Damaging(group)) = conduct else {
        return miner_key(number, Conduct::Honest(GroupId(0)));
    };
    (0..)
        .map(|attempt| key(b"miner", number * 1000 + attempt))
        .find(|hotkey| assigned_group(*hotkey, &toy_task::TICKETS) == Some(group))
        .unwrap()
}
