//! A small network of real role machines, for the journals and documents that come of it.
//!
//! An owner, three validators of whom two score a group, and a miner; the chain is a map, every transfer
//! succeeds at once, and a job's outcome is made up. The last validator measures something else than the
//! others, so that submissions are disputed and reviewed, and it is not drawn for a while (P-43 to P-46).
//! Knows nothing of files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use connito_protocol::Identity;
use connito_protocol::event::{Delivery, Effect, Event, Fetch, Form};
use connito_protocol::ids::{
    BlobId, Block, BlockHash, Cycle, GroupId, Hotkey, Netuid, StateId, Uid,
};
use connito_protocol::job::{Advanced, Finding, Job, MergeJob, Merged, Outcome, TrainJob, Trained};
use connito_protocol::machine::{Character, Machine, Role, Step};
use connito_protocol::manifest::{
    Document, Domain, GroupState, ModelParts, StateManifest, TaskManifest,
};
use connito_protocol::partition::ExpertMapping;
use connito_protocol::receipt::Receipt;
use connito_protocol::received::ReceivedDocument;
use connito_protocol::report::Measurement;
use connito_protocol::rules::{Rules, Windows};
use connito_protocol::snapshot::{Endpoint, Participant, Record, Snapshot};
use connito_protocol::submission::Network as NetworkId;

/// The owner's key, and of seeds with one participant, everybody's.
pub const OWNER: Hotkey = Hotkey([1; 32]);

/// The subnet of every seed.
pub const NETUID: Netuid = Netuid(1);

/// Whose word differs.
const LIAR: usize = 3;

/// What blocks are hashed with: the liar is drawn in the first cycle.
const LOT: u8 = 0;

/// Bytes of every shard and update, as far as anybody is told.
const BYTES: u64 = 64;

/// What stands in the block that is due, and everybody who will hear of it.
pub struct Network {
    nodes: Vec<Node>,
    records: BTreeMap<Hotkey, Record>,
    /// Every record that ever was.
    said: BTreeSet<Vec<u8>>,
    documents: BTreeMap<BlobId, Vec<u8>>,
    receipts: Vec<Receipt>,
    heard: VecDeque<(usize, Event)>,
    block: Block,
}

struct Node {
    character: Character,
    machine: Machine,
    journal: Vec<Step>,
    stake: u64,
    endpoint: Option<Endpoint>,
}

impl Network {
    /// The network before its first block. Committees are drawn; with more reviews than fit on the chain,
    /// reports are bodies (P-44).
    #[must_use]
    pub fn new(reviews: u32) -> Self {
        let mut task = task();
        task.rules.scoring.scorers_per_update = 2;
        task.rules.scoring.reviews = reviews;
        let documents = [task.to_bytes(), state().to_bytes()];
        let role = Role::Owner {
            task: BlobId::of(&documents[0]),
        };
        let stakes = [(role, 0)]
            .into_iter()
            .chain([30, 35, 40].map(|stake| (Role::Validator, stake)))
            .chain([(Role::Miner, 0)]);
        let node = |(number, (role, stake))| Node::new(number, role, stake);
        let nodes: Vec<Node> = (1..).zip(stakes).map(node).collect();
        Self {
            heard: (0..nodes.len())
                .map(|node| (node, Event::Started))
                .collect(),
            nodes,
            records: BTreeMap::new(),
            said: BTreeSet::new(),
            documents: documents.map(|bytes| (BlobId::of(&bytes), bytes)).into(),
            receipts: Vec::new(),
            block: Block(0),
        }
    }

    /// Makes so many blocks, and lets everybody hear and do all there is before the next one.
    pub fn run(&mut self, blocks: u64) {
        for _ in 0..blocks {
            let snapshot = Arc::new(self.snapshot());
            self.block = self.block.next();
            let everybody = 0..self.nodes.len();
            self.heard
                .extend(everybody.map(|node| (node, Event::Block(Arc::clone(&snapshot)))));
            while let Some((node, event)) = self.heard.pop_front() {
                let effects = self.nodes[node].machine.handle(&event);
                for effect in effects.clone() {
                    self.carry_out(node, effect);
                }
                self.nodes[node].journal.push(Step { event, effects });
            }
        }
    }

    /// Every document that was kept by anyone.
    pub fn documents(&self) -> impl Iterator<Item = &[u8]> {
        self.documents.values().map(Vec::as_slice)
    }

    /// Every record that was on the chain.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        self.said.iter().map(Vec::as_slice)
    }

    /// Everybody's character and steps, the owner's first.
    pub fn journals(&self) -> impl Iterator<Item = (&Character, &[Step])> {
        let nodes = self.nodes.iter();
        nodes.map(|node| (&node.character, node.journal.as_slice()))
    }

    fn snapshot(&self) -> Snapshot {
        let participant = |(uid, node): (u16, &Node)| Participant {
            uid: Uid(uid),
            hotkey: node.hotkey(),
            stake: node.stake,
            validator_permit: node.stake > 0,
            endpoint: node.endpoint,
            weights_set: Block(0),
        };
        Snapshot {
            block: self.block,
            hash: BlockHash(BlobId::of(&[LOT, self.block.0 as u8]).0),
            head: self.block,
            owner: Some(self.nodes[0].hotkey()),
            participants: (0..).zip(&self.nodes).map(participant).collect(),
            records: Arc::new(self.records.clone()),
            readings: Default::default(),
        }
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        let hotkey = self.nodes[node].hotkey();
        let answer = match effect {
            Effect::Fetch(fetch) => self.fetched(&fetch),
            Effect::Store { bytes } => {
                self.documents.insert(BlobId::of(&bytes), bytes.to_vec());
                return;
            }
            Effect::Announce { announcement } => {
                let record = Record {
                    block: self.block,
                    index: node as u32,
                    bytes: announcement.encode().into(),
                };
                self.said.insert(record.bytes.to_vec());
                self.records.insert(hotkey, record);
                return;
            }
            Effect::Serve { endpoint } => {
                self.nodes[node].endpoint = Some(endpoint);
                return;
            }
            Effect::Deliver {
                cycle, blob, to, ..
            } => {
                let uploaded = Event::Uploaded {
                    ticket: cycle.0,
                    hotkey,
                    cycle,
                    blob,
                };
                let server = self.nodes.iter().position(|node| node.hotkey() == to);
                self.heard.extend(server.map(|server| (server, uploaded)));
                let answer = Delivery::Accepted;
                Event::Delivered { blob, to, answer }
            }
            Effect::Run(job) => Event::Finished {
                outcome: outcome(node, hotkey, job),
                entropy: [node as u8; 16],
            },
            Effect::Issue(receipts) => {
                self.receipts.extend(receipts.iter());
                return;
            }
            Effect::AskReceipt { cycle, .. } => {
                let is_ours =
                    |receipt: &&Receipt| receipt.cycle == cycle && receipt.hotkey == hotkey;
                let receipt = self.receipts.iter().find(is_ours).cloned().map(Box::new);
                Event::Receipt { cycle, receipt }
            }
            // Documents are everybody's here.
            Effect::Forget { .. } => return,
            Effect::SetWeights { .. } | Effect::Answer { .. } | Effect::Tell(_) => return,
        };
        self.heard.push_back((node, answer));
    }

    fn fetched(&self, fetch: &Fetch) -> Event {
        let blob = fetch.blob;
        match (fetch.form, self.documents.get(&blob)) {
            (Form::Document, Some(bytes)) => Event::Document {
                blob,
                document: Arc::new(ReceivedDocument::new(bytes.clone())),
                received: 0,
            },
            (Form::Document, None) => Event::FetchFailed { blob, absent: true },
            (Form::Blob | Form::Update, _) => Event::Fetched { blob, received: 0 },
        }
    }
}

impl Node {
    fn new(number: u8, role: Role, stake: u64) -> Self {
        let endpoint = Endpoint {
            ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)),
            port: 80,
        };
        let identity = Identity {
            hotkey: Hotkey([number; 32]),
            network: NetworkId {
                genesis: BlockHash([9; 32]),
                netuid: NETUID,
            },
            endpoint: (stake > 0).then_some(endpoint),
        };
        let character = Character { identity, role };
        Self {
            machine: Machine::new(&character),
            character,
            journal: Vec::new(),
            stake,
            endpoint: None,
        }
    }

    fn hotkey(&self) -> Hotkey {
        self.character.identity.hotkey
    }
}

/// What comes of a job that nobody does.
fn outcome(node: usize, hotkey: Hotkey, job: Job) -> Outcome {
    match job {
        Job::Train(job) => Outcome::Trained(trained(hotkey, &job)),
        Job::Score(job) => Outcome::Scored {
            cycle: job.cycle,
            findings: job.updates.iter().map(|_| finding(node)).collect(),
        },
        Job::Merge(job) => Outcome::Merged(merged(&job)),
        Job::Advance(job) => Outcome::Advanced(Advanced {
            cycle: job.cycle,
            to: job.to,
            groups: Vec::new(),
            absent: vec![GroupId(0)],
        }),
    }
}

fn trained(hotkey: Hotkey, job: &TrainJob) -> Trained {
    Trained {
        cycle: job.cycle,
        update: BlobId::of(&[&hotkey.0[..], &job.cycle.0.to_le_bytes()].concat()),
        bytes: BYTES,
        experts: 1,
        steps: 2,
        tokens: 256,
        loss_first: 2.0,
        loss_last: 1.5,
        residual: None,
        residual_dropped: None,
    }
}

fn finding(node: usize) -> Finding {
    let utility = if node == LIAR { -0.5 } else { 0.5 };
    Finding::Measured {
        measurement: Measurement {
            utility,
            standard_error: 0.01,
        },
        loss_before: 2.0,
        loss_after: 2.0 - f64::from(utility),
    }
}

fn merged(job: &MergeJob) -> Merged {
    let StateId(state) = job.state;
    let group = |shard| GroupState {
        group: GroupId(0),
        shard: BlobId::of(&[&state[..], shard].concat()),
        bytes: BYTES,
        momentum: Some(BlobId([12; 32])),
        reference_norm: Some(0.5),
    };
    Merged {
        cycle: job.cycle,
        candidate: vec![group(b"candidate")],
        fallback: vec![group(b"fallback")],
        update_bytes: job.accepted.iter().map(|_| BYTES).collect(),
        incumbent_loss: 2.0,
        candidate_loss: Some(1.75),
    }
}

/// The task of every seed.
#[must_use]
pub fn task() -> TaskManifest {
    let blob = |number| BlobId([number; 32]);
    TaskManifest {
        format: 1,
        name: "seed".to_owned(),
        netuid: NETUID,
        follows: None,
        starts: Block(2),
        first_cycle: Cycle(0),
        rules: Rules {
            windows: Windows {
                distribute: 1,
                train: 2,
                seal: 2,
                reveal: 2,
                score: 2,
                vote: 4,
            },
            ..Rules::default()
        },
        model: ModelParts {
            config: blob(1),
            tokenizer: blob(2),
            backbone: blob(3),
        },
        groups: vec![ExpertMapping {
            group_id: GroupId(0),
            expert_indices: vec![0],
            layer_indices: vec![0],
            miner_hotkeys: Vec::new(),
            param_keys: vec!["layers.0.experts.0.all.weight".to_owned()],
        }],
        tickets: vec![64],
        domains: vec![Domain {
            name: "text".to_owned(),
            group: GroupId(0),
            training: blob(4),
            scoring: blob(5),
            gate: blob(6),
        }],
        first_state: Some(StateId(BlobId::of(&state().to_bytes()).0)),
    }
}

/// Its first state.
#[must_use]
pub fn state() -> StateManifest {
    StateManifest {
        format: 1,
        cycle: Cycle(0),
        parent: None,
        archive: None,
        groups: vec![GroupState {
            group: GroupId(0),
            shard: BlobId([7; 32]),
            bytes: 64,
            momentum: None,
            reference_norm: Some(0.5),
        }],
        merged: Vec::new(),
        excluded: BTreeMap::from([(OWNER, Cycle(4))]),
    }
}
