//! How many requests a role makes of its endpoint, block by block: public ones allow about one a second,
//! twelve in the time of a block.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use connito_chain::embedded::{EmbeddedChain, GenesisNeuron, GenesisSpec};
use connito_chain::keys::Signer as _;
use connito_chain::rpc::RpcTransport;
use connito_chain::subtensor::SubtensorChain;
use connito_chain::{At, Chain, TransportError};
use connito_protocol::ids::Block;
use serde_json::Value;

use crate::network::*;

/// A public node, which does not hold answers back. Counts bodies, and the questions in them.
#[derive(Debug, Clone)]
struct Counting {
    chain: Arc<EmbeddedChain>,
    bodies: Arc<AtomicUsize>,
    questions: Arc<AtomicUsize>,
    /// The longest body and the longest answer, in bytes.
    longest: Arc<[AtomicUsize; 2]>,
}

impl RpcTransport for Counting {
    fn endpoint(&self) -> &str {
        "counting"
    }

    async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let asked: Value = serde_json::from_slice(&body).unwrap();
        let questions = asked.as_array().map_or(1, Vec::len);
        self.bodies.fetch_add(1, Ordering::Relaxed);
        self.questions.fetch_add(questions, Ordering::Relaxed);
        let answer = String::from_utf8(self.chain.handle(&body)).unwrap();
        // Metadata is asked for once.
        if !asked.to_string().contains("Metadata") {
            self.longest[0].fetch_max(body.len(), Ordering::Relaxed);
            self.longest[1].fetch_max(answer.len(), Ordering::Relaxed);
        }
        Ok(answer.replace("connito_waitBlock", "another").into_bytes())
    }
}

struct Role {
    client: Arc<SubtensorChain<Counting>>,
    transport: Counting,
    seen: Block,
}

impl Role {
    /// A role of a chain that makes a block every second, once it has found the rhythm.
    async fn settled(spec: GenesisSpec) -> (Arc<EmbeddedChain>, Self) {
        let (chain, _) = running(spec).await;
        let transport = Counting {
            chain: Arc::clone(&chain),
            bodies: Arc::default(),
            questions: Arc::default(),
            longest: Arc::default(),
        };
        let client = Arc::new(connect(transport.clone()).await);
        let seen = client.block(At::Head).await.unwrap().number;
        let mut role = Self {
            client,
            transport,
            seen,
        };
        role.asked_in(4).await;
        (chain, role)
    }

    /// What a role asks of one block.
    async fn read_next(&mut self) {
        let next = self.client.wait_block(self.seen, Duration::from_secs(60));
        let block = next.await.unwrap().block;
        assert_eq!(block.number, self.seen.next());
        let at = At::Hash(block.hash);
        self.client.metagraph(at).await.unwrap();
        self.client.commitments(at).await.unwrap();
        self.seen = block.number;
    }

    /// How many questions it takes to read so many blocks.
    async fn asked_in(&mut self, blocks: usize) -> usize {
        let before = self.transport.questions.load(Ordering::Relaxed);
        for _ in 0..blocks {
            self.read_next().await;
        }
        self.transport.questions.load(Ordering::Relaxed) - before
    }
}

/// The head when it is due, and everything about the block. A look in four is too early.
#[tokio::test(start_paused = true)]
async fn an_idle_role_asks_little_more_than_twice_a_block() {
    let (_, mut role) = Role::settled(spec()).await;
    let asked = role.asked_in(32).await;
    assert!((64..=72).contains(&asked), "{asked} questions in 32 blocks");
}

#[tokio::test(start_paused = true)]
async fn a_subnet_with_every_slot_taken_is_read_with_one_question_too() {
    let neuron = |seed| GenesisNeuron {
        hotkey: pair(seed).hotkey(),
        coldkey: None,
        stake_rao: 1,
        validator_permit: false,
    };
    let full = GenesisSpec {
        neurons: (0..=u8::MAX).map(neuron).collect(),
        ..spec()
    };
    let (_, mut role) = Role::settled(full).await;
    let asked = role.asked_in(32).await;
    assert!((64..=72).contains(&asked), "{asked} questions in 32 blocks");
    let [body, answer] = &*role.transport.longest;
    let kilobytes = [body, answer].map(|bytes| bytes.load(Ordering::Relaxed) / 1_000);
    assert!(kilobytes[0] < 250 && kilobytes[1] < 400, "{kilobytes:?}");
}

/// A record that somebody wrote costs one question more, for its place in its block. The block in which
/// somebody registered costs two more: for what is kept of the newcomer, and for its slot if that is a
/// new one; its record is asked for with the next block.
#[tokio::test(start_paused = true)]
async fn what_others_write_costs_a_question_or_three() {
    let (chain, mut role) = Role::settled(spec()).await;
    let others = connect(Arc::clone(&chain)).await;
    let extra = async |role: &mut Role, op, seed| {
        others.submit(&pair(seed), op).await.unwrap();
        let blocks = usize::try_from(chain.head().number.0 - role.seen.0).unwrap();
        role.asked_in(blocks).await - 2 * blocks
    };
    let written = extra(&mut role, commit("first"), SECOND_MINER).await;
    assert!((1..=3).contains(&written), "{written} more for a record");
    let registered = extra(&mut role, register(STRANGER), STRANGER).await;
    assert!(
        (2..=5).contains(&registered),
        "{registered} more for a neuron"
    );
}

/// Signed in four questions: the head, the space that is used up, nonce and runtime; then it is sent,
/// its block is looked through, and its events are read, which the role reads anyway.
#[tokio::test(start_paused = true)]
async fn an_operation_costs_its_role_eight_questions() {
    let (_, mut role) = Role::settled(spec()).await;
    let client = Arc::clone(&role.client);
    let writing = tokio::spawn(async move { client.submit(&pair(MINER), commit("once")).await });
    let (mut asked, mut blocks) = (0, 0);
    while !writing.is_finished() {
        asked += role.asked_in(1).await;
        blocks += 1;
    }
    writing.await.unwrap().unwrap();
    let extra = asked - 2 * blocks;
    assert!((7..=9).contains(&extra), "{extra} more in {blocks} blocks");
}

/// Hashes and headers of many blocks are asked for together: two bodies for thirty-two blocks, and one
/// for each of them.
#[tokio::test(start_paused = true)]
async fn catching_up_costs_a_body_a_block() {
    let (chain, mut role) = Role::settled(spec()).await;
    chain.advance(320).unwrap();
    // So many blocks at once are not believed before they are heard of again.
    let far = role.client.wait_block(role.seen, Duration::from_secs(1));
    far.await.unwrap_err();
    let before = role.transport.bodies.load(Ordering::Relaxed);
    role.asked_in(320).await;
    let bodies = role.transport.bodies.load(Ordering::Relaxed) - before;
    assert!(
        (340..=345).contains(&bodies),
        "{bodies} bodies for 320 blocks"
    );
}
