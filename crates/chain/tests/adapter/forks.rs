//! A chain that changes under its reader: forks of a few blocks, and a new runtime.
//!
//! Two embedded chains of one beginning are the two sides of a fork; a transport shows one of them and
//! then the other. Every header is verified against its hash, so neither side can be mixed with the
//! other unnoticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use connito_chain::embedded::EmbeddedChain;
use connito_chain::rpc::RpcTransport;
use connito_chain::subtensor::SubtensorChain;
use connito_chain::{At, Chain, ChainError, TransportError};
use connito_protocol::ids::Block;
use serde_json::Value;

use crate::network::*;

/// Shows the first chain, and from some moment on the second.
#[derive(Clone)]
struct Forked {
    sides: [Arc<EmbeddedChain>; 2],
    second: Arc<AtomicBool>,
}

impl RpcTransport for Forked {
    fn endpoint(&self) -> &str {
        "forked"
    }

    async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let side = usize::from(self.second.load(Ordering::Relaxed));
        Ok(self.sides[side].handle(&body))
    }
}

/// Two chains that agree up to block 2 and differ from block 3 on, where the second has what the
/// stranger did.
async fn forked() -> (Forked, SubtensorChain<Forked>) {
    let sides = [(); 2].map(|()| EmbeddedChain::in_memory(spec()).unwrap());
    for side in &sides {
        side.advance(2).unwrap();
    }
    let client = connect(Arc::clone(&sides[1])).await;
    let signed = client.prepare(&pair(MINER), &commit("second side")).await;
    sides[1].submit(&signed.unwrap().bytes).unwrap();
    let forked = Forked {
        sides,
        second: Arc::default(),
    };
    let client = connect(forked.clone()).await;
    (forked, client)
}

#[tokio::test]
async fn a_read_pinned_to_a_block_that_was_taken_back_is_an_error_and_not_another_block() {
    let (forked, client) = forked().await;
    let first = forked.sides[0].advance(1).unwrap();
    let second = forked.sides[1].advance(2).unwrap();
    assert_eq!(client.block(At::Head).await.unwrap(), stripped(first));
    forked.second.store(true, Ordering::Relaxed);
    let gone = client.metagraph(At::Hash(first.hash)).await.unwrap_err();
    assert!(matches!(gone, ChainError::UnknownBlock(_)), "{gone}");
    let head = client.commitments(At::Head).await.unwrap();
    assert_eq!(head.at, stripped(second));
    assert_eq!((head.value[0].block, head.value[0].index), (Block(3), 1));
}

/// The same number has another parent now: whoever follows sees that it does not stand on what it was
/// told.
#[tokio::test(start_paused = true)]
async fn the_block_after_a_fork_shows_another_parent() {
    let (forked, client) = forked().await;
    let told = forked.sides[0].advance(1).unwrap();
    forked.sides[1].advance(2).unwrap();
    let patience = Duration::from_secs(1);
    let before = client.wait_block(Block(2), patience).await.unwrap().block;
    assert_eq!(before.hash, told.hash);
    forked.second.store(true, Ordering::Relaxed);
    let after = client.wait_block(Block(3), patience).await.unwrap().block;
    assert_eq!(after.number, Block(4));
    assert_ne!(after.parent, told.hash);
}

/// An era is anchored below the head, so a signature survives the loss of the newest block.
#[tokio::test]
async fn an_extrinsic_signed_before_a_fork_of_one_block_is_good_after_it() {
    let (forked, client) = forked().await;
    forked.sides[0].advance(1).unwrap();
    forked.sides[1].advance(1).unwrap();
    let signed = client.prepare(&pair(SECOND_MINER), &commit("kept")).await;
    forked.sides[1].submit(&signed.unwrap().bytes).unwrap();
    forked.sides[1].advance(1).unwrap();
    assert_eq!(nonce(&forked.sides[1], SECOND_MINER), 1);
}

fn stripped(block: connito_chain::BlockRef) -> connito_chain::BlockRef {
    connito_chain::BlockRef {
        timestamp_ms: None,
        ..block
    }
}

/// From a block on, the chain says that it has another spec.
#[derive(Clone)]
struct Upgrading {
    chain: Arc<EmbeddedChain>,
    /// The first block of the new runtime.
    from: Arc<AtomicU64>,
    fetched: Arc<AtomicU64>,
}

/// `System.LastRuntimeUpgrade`.
const LAST_UPGRADE: &str = "0x26aa394eea5630e07c48ae0c9558cef7f9cce9c888469bb1a0dceaa129672ef8";

impl Upgrading {
    /// The number of the block with this hash.
    fn number(&self, hash: &Value) -> u64 {
        let header = ask(&self.chain, "chain_getHeader", serde_json::json!([hash]));
        let number = header["number"].as_str().unwrap().trim_start_matches("0x");
        u64::from_str_radix(number, 16).unwrap()
    }
}

impl RpcTransport for Upgrading {
    fn endpoint(&self) -> &str {
        "upgrading"
    }

    async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let question: Value = serde_json::from_slice(&body).unwrap();
        let answer = self.chain.handle(&body);
        if question["params"][0] == "Metadata_metadata_at_version" {
            self.fetched.fetch_add(1, Ordering::Relaxed);
        }
        let from = self.from.load(Ordering::Relaxed);
        let mut answer: Value = serde_json::from_slice(&answer).unwrap();
        if question["method"] == "state_getRuntimeVersion" {
            if self.number(&question["params"][0]) >= from {
                let spec = answer["result"]["specVersion"].as_u64().unwrap();
                answer["result"]["specVersion"] = (spec + 1).into();
            }
        } else if question["method"] == "state_queryStorageAt"
            && self.number(&question["params"][1]) > from
        {
            let changes = answer["result"][0]["changes"].as_array_mut().unwrap();
            let made_by = changes.iter_mut().find(|change| change[0] == LAST_UPGRADE);
            if let Some(made_by) = made_by {
                // 461 and 462 as compact integers.
                let value = made_by[1].as_str().unwrap().replacen("0x3507", "0x3907", 1);
                made_by[1] = value.into();
            }
        }
        Ok(answer.to_string().into_bytes())
    }
}

/// Metadata is fetched once for each spec. The block that brings a new runtime was made by the old one;
/// the next is made, and signed for, by the new.
#[tokio::test]
async fn a_new_runtime_makes_the_blocks_after_the_one_that_brought_it() {
    let chain = EmbeddedChain::in_memory(spec()).unwrap();
    let transport = Upgrading {
        chain: Arc::clone(&chain),
        from: Arc::new(AtomicU64::new(3)),
        fetched: Arc::default(),
    };
    let client = connect(transport.clone()).await;
    chain.advance(5).unwrap();
    let fetched = || transport.fetched.load(Ordering::Relaxed);
    for number in [1, 2, 3] {
        client.metagraph(At::Number(Block(number))).await.unwrap();
    }
    assert_eq!(fetched(), 1, "block 3 was made by the old runtime");
    for number in [4, 5, 1] {
        client.metagraph(At::Number(Block(number))).await.unwrap();
    }
    assert_eq!(fetched(), 2);
    let new = client.runtime().await.unwrap().version().spec;
    assert_eq!(new, connito_chain::runtime::BUNDLED_VERSION.spec + 1);
}

/// A fork replaces the block that had the operation; it is found in the block that stands there now.
#[tokio::test(start_paused = true)]
async fn an_operation_is_followed_across_a_fork() {
    let (forked, client) = forked().await;
    let client = Arc::new(client);
    let submitting = {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.submit(&pair(SECOND_MINER), commit("moved")).await })
    };
    let waiting = async |side: &EmbeddedChain| {
        while nonce(side, SECOND_MINER) == 0 {
            tokio::time::advance(Duration::from_millis(50)).await;
        }
    };
    waiting(&forked.sides[0]).await;
    // The first side goes on without it for a moment: its pool is not the one that counts.
    let extrinsics = ask(
        &forked.sides[0],
        "author_pendingExtrinsics",
        serde_json::json!([]),
    );
    let bytes = extrinsics[0].as_str().unwrap().trim_start_matches("0x");
    let bytes = hex::decode(bytes).unwrap();
    forked.second.store(true, Ordering::Relaxed);
    forked.sides[1].submit(&bytes).unwrap();
    forked.sides[1].advance(3).unwrap();
    let receipt = submitting.await.unwrap().unwrap();
    assert_eq!(receipt.included.number, Block(3));
    assert_eq!(nonce(&forked.sides[1], SECOND_MINER), 1, "once");
}
