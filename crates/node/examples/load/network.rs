//! The network under load: its keys, its chain up to the upload window, and the task's blobs.
//!
//! Everything follows from the number of miners and the length of an update, so the validator's process
//! and the load itself derive it alike, and a restarted validator finds what it had. The task is a toy
//! whose shard has no tensors: all that the upload path knows of a shard is its length, which bounds an
//! update (P-52).

use std::path::Path;
use std::sync::Arc;

use connito_chain::embedded::{EmbeddedChain, GenesisNeuron, GenesisSpec};
use connito_chain::keys::{Keypair, Signer};
use connito_chain::subtensor::{Connection, SubtensorChain};
use connito_chain::{Endpoint, Field, Op};
use connito_learning::toy::expert_names;
use connito_node::blobs::{BlobError, DiskBlobs};
use connito_protocol::announcement::Announcement;
use connito_protocol::assignment::EVEN_TICKETS;
use connito_protocol::ids::{BlobId, Block, Cycle, GroupId, Hotkey, Netuid, Seal, StateId};
use connito_protocol::manifest::{
    Document, Domain, GroupState, ModelParts, StateManifest, TaskManifest,
};
use connito_protocol::partition::{
    Division, ExpertMapping, Inventory, ParameterKeys, Partition, Sizes, Strategy, Uneven,
};
use connito_protocol::rules::Rules;
use connito_protocol::schedule::{Schedule, Window};

use crate::Outcome;

const NETUID: Netuid = Netuid(1);
/// The first block of cycle 0: behind the one with the owner's announcement.
const STARTS: Block = Block(3);
/// Stake decides who validates; its amount is of no matter here.
const STAKE: u64 = 1_000_000_000;

/// What the network is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Miners that are registered and have sealed.
    pub(crate) miners: u16,
    /// The most that an update may measure.
    pub(crate) bytes: u64,
}

/// The key of miner `number`.
pub(crate) fn miner(number: u16) -> Keypair {
    key("miner", number)
}

/// The validator's key.
pub(crate) fn validator() -> Keypair {
    key("validator", 0)
}

fn key(role: &str, number: u16) -> Keypair {
    let mut hasher = blake3::Hasher::new_derive_key("connito load key");
    hasher.update(role.as_bytes());
    hasher.update(&number.to_le_bytes());
    Keypair::from_seed(hasher.finalize().as_bytes())
}

/// The chain in `folder`, standing at the first block of the upload window of cycle 0.
pub(crate) async fn chain(folder: &Path, plan: Plan, task: BlobId) -> Outcome<Arc<EmbeddedChain>> {
    let chain = EmbeddedChain::open(folder, genesis(plan))?;
    let client = SubtensorChain::connect(Arc::clone(&chain), Connection::default()).await?;
    let schedule = Schedule::new(STARTS, Rules::default().windows);
    let opens = |window| schedule.opens(Cycle(0), window).0;
    if chain.head().number == Block(0) {
        let owner = key("owner", 0);
        // Blobs are asked for at somebody; all of them are at hand, so nobody is really asked.
        let somewhere = Endpoint {
            ip: [127, 0, 0, 1].into(),
            port: 9,
        };
        submit(&client, &owner, &Op::Serve(somewhere)).await?;
        submit(&client, &owner, &record(&Announcement::Task { task })).await?;
        chain.advance(opens(Window::Seal) - 1)?;
        for number in 0..plan.miners {
            let sealed = Announcement::Sealed {
                cycle: Cycle(0),
                group: GroupId(0),
                seal: Seal([1; 32]),
            };
            submit(&client, &miner(number), &record(&sealed)).await?;
        }
    }
    chain.advance(opens(Window::Reveal) - chain.head().number.0)?;
    Ok(chain)
}

fn genesis(plan: Plan) -> GenesisSpec {
    let neuron = |hotkey: Hotkey, stake_rao: u64, validator_permit| GenesisNeuron {
        hotkey,
        coldkey: None,
        stake_rao,
        validator_permit,
    };
    let owner = key("owner", 0).hotkey();
    let mut neurons = vec![
        neuron(owner, 0, false),
        neuron(validator().hotkey(), STAKE, true),
    ];
    neurons.extend((0..plan.miners).map(|number| neuron(miner(number).hotkey(), 0, false)));
    GenesisSpec {
        max_uids: plan.miners.saturating_add(2),
        neurons,
        ..GenesisSpec::new(NETUID, owner)
    }
}

fn record(announcement: &Announcement) -> Op {
    Op::Commit(vec![Field::Raw(announcement.encode())])
}

/// Puts an operation into the pool; blocks are made by hand.
async fn submit(
    chain: &SubtensorChain<Arc<EmbeddedChain>>,
    signer: &Keypair,
    op: &Op,
) -> Outcome<()> {
    let signed = chain.prepare(signer, op).await?;
    chain.transport().submit(&signed.bytes)?;
    Ok(())
}

/// Writes the task's blobs and gives its name.
pub(crate) fn task(blobs: &DiskBlobs, plan: Plan) -> Outcome<BlobId> {
    let groups = groups()?;
    let shard = shard(blobs, plan.bytes)?;
    let state = StateManifest {
        format: StateManifest::FORMAT,
        cycle: Cycle(0),
        parent: None,
        archive: None,
        groups: vec![GroupState {
            group: GroupId(0),
            shard,
            bytes: blobs.len(&shard)?,
            momentum: None,
            reference_norm: None,
        }],
        merged: Vec::new(),
        excluded: std::collections::BTreeMap::new(),
    };
    let task = TaskManifest {
        format: TaskManifest::FORMAT,
        name: "load".to_owned(),
        netuid: NETUID,
        follows: None,
        starts: STARTS,
        first_cycle: Cycle(0),
        rules: Rules::default(),
        model: ModelParts {
            config: blobs.put(b"config")?,
            tokenizer: blobs.put(b"tokenizer")?,
            backbone: blobs.put(b"backbone")?,
        },
        groups,
        tickets: vec![EVEN_TICKETS],
        domains: vec![Domain {
            name: "load".to_owned(),
            group: GroupId(0),
            training: blobs.put(b"training")?,
            scoring: blobs.put(b"scoring")?,
            gate: blobs.put(b"gate")?,
        }],
        first_state: Some(StateId(blobs.put(&state.to_bytes())?.0)),
    };
    Ok(blobs.put(&task.to_bytes())?)
}

/// One group of all experts of a toy model.
fn groups() -> Outcome<Vec<ExpertMapping>> {
    let experts = [0, 1].map(|expert| (expert, expert_names(0, expert).into_iter().collect()));
    let inventory = Inventory::new(ParameterKeys::from([(0, experts.into())]))?;
    let division = Division {
        strategy: Strategy::Contiguous,
        sizes: Sizes::Groups(1),
        uneven: Uneven::Refused,
    };
    Ok(Partition::divide(&inventory, &division)?.into_groups())
}

/// Zeros as long as an update may be.
fn shard(blobs: &DiskBlobs, bytes: u64) -> Result<BlobId, BlobError> {
    let piece = vec![0; 1 << 20];
    let mut writer = blobs.writer()?;
    let mut left = bytes;
    while left > 0 {
        let now = left.min(piece.len() as u64);
        writer.write(&piece[..now as usize])?;
        left -= now;
    }
    writer.finish()
}
