//! Who takes part in a cluster test: keys, stakes, stores and machines, before the first block.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use connito_learning::learner;
use connito_learning::store::MemoryStore;
use connito_learning::toy::{ToyBackend, ToyLearner};
use connito_protocol::Identity;
use connito_protocol::assignment::assigned_group;
use connito_protocol::event::Event;
use connito_protocol::ids::{Block, GroupId, Hotkey, Uid};
use connito_protocol::machine::{Character, Machine, Role, Step};
use connito_protocol::snapshot::{Endpoint, Participant};
use connito_protocol::submission;

use crate::toy_task;

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

/// A participant: its machine, and all that outlives it.
pub(crate) struct Node {
    pub(crate) character: Character,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) learner: ToyLearner<Arc<MemoryStore>>,
    pub(crate) machine: Option<Machine>,
    pub(crate) journal: Vec<Step>,
    pub(crate) inbox: VecDeque<Event>,
    pub(crate) seen: Block,
}

/// Participants as they are added, before the first block.
pub(crate) struct Cast {
    pub(crate) network: submission::Network,
    pub(crate) nodes: BTreeMap<Who, Node>,
    pub(crate) participants: Vec<Participant>,
}

impl Cast {
    pub(crate) fn add(
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
    pub(crate) fn add_miners(&mut self, miners: &[Conduct]) {
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

/// A key of a series.
pub(crate) fn key(label: &[u8], number: usize) -> Hotkey {
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
