//! One run: the loop that takes what is due next and lets it happen.
//!
//! ```text
//! Queue ──due──▶ Simulation ──Event──▶ Machine ──Effects──▶ Simulation (carry.rs) ──▶ Queue
//!                                └──── both ──────────────▶ Monitor: every invariant, every step
//! ```
//!
//! Inputs are a scenario and a seed; equal ones give equal runs, step by step, so that a failing one
//! can be cut short and shown again. The loop decides nothing of the protocol: machines do, chain and
//! links carry, adversaries and faults disturb.

use std::collections::BTreeMap;
use std::sync::Arc;

use connito_learning::store::{BlobStore, MemoryStore};
use connito_learning::toy::task::ToyTask;
use connito_protocol::assignment::Assignment;
use connito_protocol::event::{Effect, Event};
use connito_protocol::ids::{BlobId, Block, BlockHash, Cycle, Hotkey, Netuid};
use connito_protocol::job::{Job, Outcome};
use connito_protocol::machine::{Machine, Step};
use connito_protocol::manifest::{Document, StateManifest, TaskManifest};
use connito_protocol::received::ReceivedDocument;
use connito_protocol::snapshot::Endpoint;
use connito_protocol::submission::Network as NetworkId;

use crate::adversary::{Crews, Policy, Scene, Setting};
use crate::cast::{Cast, Member, owner_key};
use crate::chain::{Chain, Registration, Write};
use crate::faults::Fault;
use crate::monitor::{Monitor, Seen, Violation};
use crate::names::NameMap;
use crate::network::{FlowId, Network, NodeId, Passing};
use crate::node::{Kind, Node, Survival};
use crate::queue::{Micros, Queue, micros};
use crate::random::Random;
use crate::report::{RunReport, Traffic};
use crate::rest::{MOST_KEPT_BACK, Rest};
use crate::scenario::{LearnerKind, Scenario, ScenarioError};
use crate::trace::Trace;
use crate::transfer::{Arriving, Flow, Waiting};
use crate::workshop::Workshop;

/// Blocks before cycle 0: time to announce the task and the addresses.
const STARTS: Block = Block(6);

/// Documents in each pool of the toy's text: enough that draws differ from cycle to cycle.
const DOCUMENTS: u32 = 200;

/// Nodes without a crash in their future whose journal is kept all the same, to be replayed at the end.
const REPLAYED_NODES: usize = 2;

/// Something that is due.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The next block is made.
    Block,
    /// A node notices that there are new blocks.
    Notice(NodeId),
    /// Something reaches a machine, in the life in which it was asked for.
    Hear(NodeId, u32, Box<Event>),
    /// A write reaches the chain.
    Write(Hotkey, Box<Write>),
    /// A job ends.
    JobEnds(NodeId, u32, Box<Outcome>),
    /// An upload asks to be let in.
    UploadAsks(Box<Arriving>),
    /// A transfer's first byte is sent.
    FlowStarts(FlowId),
    /// A transfer may have passed a link.
    LinkPasses(Passing),
    /// Something goes wrong, or is repaired.
    Fault(Fault),
}

/// How a run is watched.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Watch {
    /// Stop after this many steps of machines.
    pub(crate) steps: Option<u64>,
    /// Write down what happens.
    pub(crate) trace: bool,
}

/// A network in the middle of a run.
pub(crate) struct Simulation {
    pub(crate) scenario: Scenario,
    pub(crate) seed: u64,
    pub(crate) setting: Setting,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) workshop: Workshop,
    pub(crate) nodes: Vec<Node>,
    pub(crate) by_hotkey: NameMap<Hotkey, NodeId>,
    pub(crate) by_endpoint: BTreeMap<Endpoint, NodeId>,
    pub(crate) chain: Chain,
    pub(crate) network: Network,
    pub(crate) queue: Queue<Happening>,
    pub(crate) flows: NameMap<FlowId, Flow>,
    pub(crate) next_flow: u64,
    pub(crate) waiting: BTreeMap<u64, Waiting>,
    pub(crate) next_ticket: u64,
    pub(crate) crews: Crews,
    pub(crate) monitor: Monitor,
    pub(crate) traffic: Traffic,
    /// On the links.
    pub(crate) sizes: NameMap<BlobId, f64>,
    /// In the store.
    pub(crate) lengths: NameMap<BlobId, u64>,
    /// The document that was stored last, by a machine.
    pub(crate) kept: Option<(Arc<[u8]>, BlobId)>,
    /// Documents that were fetched: their bytes are one for all who hold them.
    pub(crate) documents: NameMap<BlobId, Arc<ReceivedDocument>>,
    pub(crate) random: Random,
    pub(crate) steps: u64,
    pub(crate) stalled_until: Micros,
    /// Whether the newest block says the same as the one before it to those that rest.
    pub(crate) head_continues: bool,
    /// By node.
    pub(crate) rests: Vec<Rest>,
    /// When the newest block was made.
    pub(crate) head_made: Micros,
    pub(crate) last_fault: Micros,
    /// When each cycle's first block was made.
    pub(crate) begun: BTreeMap<Cycle, Micros>,
    pub(crate) trace: Option<Trace>,
    watch: Watch,
    last_block: Block,
}

impl Simulation {
    /// A network before its first block.
    pub(crate) fn new(scenario: &Scenario, seed: u64, watch: Watch) -> Result<Self, ScenarioError> {
        let store = Arc::new(MemoryStore::default());
        let setting = publish(scenario, seed, &store)?;
        let cast = Cast::new(scenario, seed, &setting);
        let owner = owner_key(seed);
        let kept = if scenario.forgets_blocks() {
            MOST_KEPT_BACK as usize + 8
        } else {
            usize::MAX
        };
        let cycle_blocks = setting.manifest.rules.windows.cycle();
        let mut simulation = Self {
            workshop: workshop(scenario, &store, &setting),
            chain: Chain::new(owner, setting.network.genesis, kept),
            network: Network::new(&scenario.links, Random::new(seed, "links", 0)),
            crews: Crews::new(cast.crews),
            monitor: Monitor::new(&setting, scenario),
            nodes: Vec::new(),
            by_hotkey: NameMap::default(),
            by_endpoint: BTreeMap::new(),
            queue: Queue::default(),
            flows: NameMap::default(),
            next_flow: 0,
            waiting: BTreeMap::new(),
            next_ticket: 0,
            traffic: Traffic::default(),
            sizes: NameMap::default(),
            lengths: NameMap::default(),
            kept: None,
            documents: NameMap::default(),
            random: Random::new(seed, "run", 0),
            steps: 0,
            stalled_until: 0,
            head_continues: false,
            rests: Vec::new(),
            head_made: 0,
            last_fault: 0,
            begun: BTreeMap::new(),
            trace: watch.trace.then(Trace::default),
            last_block: Block(STARTS.0 + scenario.cycles * cycle_blocks),
            scenario: scenario.clone(),
            seed,
            setting,
            store,
            watch,
        };
        simulation.populate(cast.members);
        simulation.plan_faults();
        let first = micros(scenario.chain.block_seconds);
        simulation.queue.after(first, Happening::Block);
        Ok(simulation)
    }

    fn populate(&mut self, members: Vec<Member>) {
        for member in members {
            self.chain.register(Registration {
                hotkey: member.character.identity.hotkey,
                stake: member.stake,
                validator_permit: member.kind.is_validator(),
            });
            self.add(&member);
        }
        // What the owner has at the beginning is the whole task.
        let manifest = &self.setting.manifest;
        let first_state = self.setting.first_state.manifest_blob();
        let mut blobs = vec![self.setting.task, first_state];
        let model = &manifest.model;
        blobs.extend([model.config, model.tokenizer, model.backbone]);
        for domain in &manifest.domains {
            blobs.extend([domain.training, domain.scoring, domain.gate]);
        }
        let state = self.store.read(first_state);
        let state = state
            .ok()
            .and_then(|bytes| StateManifest::from_bytes(&bytes).ok());
        let shards: Vec<BlobId> = state.iter().flat_map(StateManifest::blobs).collect();
        for shard in &shards {
            self.sizes.insert(*shard, self.shard_bytes());
        }
        self.nodes[0].holds.extend(blobs.into_iter().chain(shards));
    }

    /// Adds a participant and starts its process.
    pub(crate) fn add(&mut self, member: &Member) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        let links = &self.scenario.links;
        let speed = match member.kind {
            Kind::Miner(_) => links.miner_megabits_per_second,
            Kind::Owner | Kind::Validator(_) => links.validator_megabits_per_second,
        };
        self.network.add(id, speed);
        let classes = self.scenario.work.device_classes.max(1);
        let identity = member.character.identity;
        self.by_hotkey.insert(identity.hotkey, id);
        if let Some(endpoint) = identity.endpoint {
            self.by_endpoint.insert(endpoint, id);
        }
        if member.kind.is_honest_validator() {
            self.monitor.trust(identity.hotkey, id);
        }
        let policy: Option<Box<dyn Policy>> = match member.kind {
            Kind::Validator(Some(hostile)) => Some(hostile.policy(member.friend)),
            Kind::Miner(Some(hostile)) => hostile.policy(),
            Kind::Owner | Kind::Validator(None) | Kind::Miner(None) => None,
        };
        self.rests.push(Rest::default());
        self.nodes.push(Node {
            id,
            kind: member.kind,
            character: member.character,
            machine: Some(Machine::new(&member.character)),
            journal: None,
            holds: Default::default(),
            issued: None,
            seen: None,
            stands_on_air: false,
            life: 0,
            doom: None,
            policy,
            crew: member.crew,
            class: if member.kind.is_validator() {
                id.0 % classes
            } else {
                0
            },
            slowness: if member.slow { 10.0 } else { 1.0 },
            free_at: 0,
            uploading: Default::default(),
            random: Random::new(self.seed, "node", u64::from(id.0)),
            training_steps: 0,
            fetching: (0, 0),
        });
        self.queue
            .after(0, Happening::Hear(id, 0, Box::new(Event::Started)));
        id
    }

    /// Runs to the end, or as far as it is watched, and says what came of it.
    pub(crate) fn run(mut self) -> (RunReport, Option<Trace>) {
        self.keep_some_journals();
        while !self.is_over()
            && let Some(happening) = self.queue.next()
        {
            self.happen(happening);
        }
        self.judge_the_end();
        let report = RunReport::new(&self);
        (report, self.trace)
    }

    /// A violation ends a run: what follows from a broken state says nothing.
    fn is_over(&self) -> bool {
        self.watch.steps.is_some_and(|steps| self.steps >= steps) || self.monitor.has_failed()
    }

    fn keep_some_journals(&mut self) {
        let honest = self.nodes.iter_mut().filter(|node| node.kind.is_honest());
        let unkept = honest.filter(|node| node.journal.is_none());
        let wanted = if self.scenario.forgets_blocks() {
            0
        } else {
            REPLAYED_NODES
        };
        for node in unkept.take(wanted) {
            node.journal = Some(Vec::new());
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Block => self.make_block(),
            Happening::Notice(node) => self.catch_up(node),
            Happening::Hear(node, life, event) => {
                if self.nodes[node.place()].life == life {
                    self.step(node, *event);
                }
            }
            Happening::Write(hotkey, write) => self.chain.submit(hotkey, *write),
            Happening::JobEnds(node, life, outcome) => self.job_ends(node, life, *outcome),
            Happening::UploadAsks(arriving) => self.upload_asks(*arriving),
            Happening::FlowStarts(flow) => self.flow_starts(flow),
            Happening::LinkPasses(passing) => self.link_passes(passing),
            Happening::Fault(fault) => self.fault(fault),
        }
    }

    fn make_block(&mut self) {
        let now = self.queue.now();
        if now < self.stalled_until {
            self.queue.at(self.stalled_until, Happening::Block);
            return;
        }
        self.append_block();
        if self.chain.head().block < self.last_block {
            let next = micros(self.scenario.chain.block_seconds);
            self.queue.after(next, Happening::Block);
        }
    }

    /// The next block, unless the run's last one is made.
    pub(crate) fn append_block(&mut self) {
        if self.chain.head().block >= self.last_block {
            return;
        }
        let now = self.queue.now();
        let hash = self.next_hash();
        let before = Arc::clone(self.chain.head());
        let refused = self.chain.make_block(hash);
        self.head_made = now;
        let head = Arc::clone(self.chain.head());
        if let Some(moment) = self.setting.schedule.at(head.block) {
            self.begun.entry(moment.cycle).or_insert(now);
        }
        self.head_continues = head.continues(&before);
        self.monitor.block(&head, &self.setting, &self.store);
        for (hotkey, reason) in refused {
            self.tell_refused(hotkey, reason);
        }
        for node in 0..self.nodes.len() {
            let delay = self.network.latency();
            let id = self.nodes[node].id;
            self.queue.after(delay, Happening::Notice(id));
        }
    }

    /// Takes in every block that a node has not seen, in order (P-9).
    pub(crate) fn catch_up(&mut self, id: NodeId) {
        if self.lets_pass(id) {
            return;
        }
        self.hand_over(id);
        let head = self.chain.head().block;
        loop {
            let node = &self.nodes[id.place()];
            let next = node.seen.map_or(self.chain.oldest(), Block::next);
            let next = next.max(self.chain.oldest());
            if next > head || !node.is_up() || self.network.is_cut(id) {
                return;
            }
            let Some(snapshot) = self.chain.block(next) else {
                return;
            };
            let snapshot = match next == head {
                true => Arc::clone(snapshot),
                // What is behind says so, in a snapshot of its own.
                false => {
                    let mut behind = snapshot.as_ref().clone();
                    behind.head = head;
                    Arc::new(behind)
                }
            };
            let node = &mut self.nodes[id.place()];
            (node.seen, node.stands_on_air) = (Some(next), false);
            self.step(id, Event::Block(snapshot));
            if next == head {
                self.act_beside(id);
            }
        }
    }

    /// One turn of a machine: it decides, the journal remembers, then it is done. Whatever cuts this
    /// short ends the node's life.
    pub(crate) fn step(&mut self, id: NodeId, event: Event) {
        if self.is_over() {
            return;
        }
        self.hand_over(id);
        let node = &mut self.nodes[id.place()];
        let Some(machine) = &mut node.machine else {
            return;
        };
        let effects = machine.handle(&event);
        self.steps += 1;
        let survival = node.doom.take().map(|doom| doom.strike(&effects));
        let survival = survival.unwrap_or(Survival {
            durable: true,
            effects: effects.len(),
            lives: true,
        });
        if let Some(trace) = &mut self.trace {
            trace.step(
                (self.steps, self.queue.now()),
                node,
                (&event, &effects),
                survival,
            );
        }
        // What nobody noticed did not happen.
        if survival.durable || survival.effects > 0 {
            let seen = Seen {
                at: self.steps,
                store: &self.store,
            };
            self.monitor.step(&seen, &self.nodes, id, &effects);
        }
        let journal = self.nodes[id.place()].journal.as_mut();
        if let Some(journal) = journal.filter(|_| survival.durable) {
            let effects = effects.clone();
            journal.push(Step { event, effects });
        }
        for effect in effects.into_iter().take(survival.effects) {
            self.carry_out(id, effect);
        }
        if !survival.lives {
            self.die(id);
        }
        self.note_rest(id);
    }

    /// What a hostile participant does of its own with a new block.
    fn act_beside(&mut self, id: NodeId) {
        let effects = self.with_policy(id, Vec::new, |policy, scene| policy.on_block(scene));
        for effect in effects {
            self.carry_out_really(id, effect);
        }
    }

    /// Lets a node's policy act, if it has one.
    pub(crate) fn with_policy<T>(
        &mut self,
        id: NodeId,
        without: impl FnOnce() -> T,
        act: impl FnOnce(&mut dyn Policy, &mut Scene<'_>) -> T,
    ) -> T {
        let node = &mut self.nodes[id.place()];
        let Some(mut policy) = node.policy.take() else {
            return without();
        };
        let now = node.seen.and_then(|block| self.chain.block(block));
        let is_public = |blob| self.monitor.is_public(blob);
        let mut scene = Scene {
            me: node.character.identity.hotkey,
            now,
            setting: &self.setting,
            workshop: &mut self.workshop,
            is_public: &is_public,
            crew: self.crews.of(node.crew),
            random: &mut node.random,
        };
        let result = act(policy.as_mut(), &mut scene);
        self.nodes[id.place()].policy = Some(policy);
        result
    }

    pub(crate) fn shard_bytes(&self) -> f64 {
        self.scenario.links.shard_megabytes * 1e6
    }

    pub(crate) fn update_bytes(&self) -> f64 {
        self.scenario.links.update_megabytes * 1e6
    }

    /// The journals that were kept must replay, and the network must have gone on.
    fn judge_the_end(&mut self) {
        for place in 0..self.nodes.len() {
            if self.monitor.has_failed() {
                return;
            }
            let node = &self.nodes[place];
            if let Some(Err(diverged)) = node.journal.as_ref().map(|_| node.replay()) {
                self.monitor.diverged(self.steps, node, &diverged);
            }
        }
        if self.watch.steps.is_none() {
            self.check_liveness();
        }
    }

    pub(crate) fn violations(&self) -> &[Violation] {
        self.monitor.violations()
    }
}

fn publish(
    scenario: &Scenario,
    seed: u64,
    store: &Arc<MemoryStore>,
) -> Result<Setting, ScenarioError> {
    let rules = scenario.task_rules()?;
    let task = ToyTask {
        starts: STARTS,
        groups: scenario.groups,
        documents: DOCUMENTS,
        rules,
    };
    let unusable = |error: &dyn std::fmt::Display| ScenarioError::Task(error.to_string());
    let task = task.publish(store).map_err(|error| unusable(&error))?;
    let bytes = store.read(task).map_err(|error| unusable(&error))?;
    let manifest = TaskManifest::from_bytes(&bytes).map_err(|error| unusable(&error))?;
    let first_state = manifest.first_state;
    let first_state = first_state.ok_or_else(|| unusable(&"it has no first state"))?;
    Ok(Setting {
        network: NetworkId {
            genesis: BlockHash::of(&seed.to_le_bytes()),
            netuid: Netuid(1),
        },
        task,
        schedule: manifest.schedule(),
        first_state,
        assignment: Assignment::new(manifest.tickets.clone()),
        manifest,
    })
}

fn workshop(scenario: &Scenario, store: &Arc<MemoryStore>, setting: &Setting) -> Workshop {
    let noise = scenario.work.device_noise_nats;
    match scenario.learner {
        LearnerKind::Toy => Workshop::toy(Arc::clone(store), &setting.manifest, noise),
        LearnerKind::Curve => Workshop::curve(Arc::clone(store), &setting.manifest, noise),
    }
}

impl Simulation {
    /// Starts a job on a node's compute thread.
    pub(crate) fn start_job(&mut self, id: NodeId, job: Job) {
        let job = self
            .with_policy(
                id,
                || None,
                |policy, scene| Some(policy.job(job.clone(), scene)),
            )
            .unwrap_or(job);
        self.compute(id, &job);
    }

    /// An effect as the machine asked for it, or as its policy would rather have it.
    pub(crate) fn carry_out(&mut self, id: NodeId, effect: Effect) {
        let hostile = self.nodes[id.place()].policy.is_some();
        if !hostile {
            return self.carry_out_really(id, effect);
        }
        let changed = self.with_policy(id, || None, |policy, scene| policy.effect(effect, scene));
        if let Some(effect) = changed {
            self.carry_out_really(id, effect);
        }
    }
}

#[cfg(test)]
mod tests;
