//! Blocks: their hashes, their times, what they contain, and how far back they can be read.

use std::sync::Arc;

use connito_chain::embedded::{EmbeddedChain, KEPT_BLOCKS, Pace};
use connito_chain::runtime::Value;
use serde_json::json;

use crate::network::*;

fn busy_network() -> Network {
    let mut network = Network::new();
    assert_eq!(network.run(MINER, &commit("sealed")), "ok");
    assert_eq!(network.run(VALIDATOR, &weigh(&[(2, 3), (3, 1)])), "ok");
    network.chain.advance(2).unwrap();
    network
}

/// From signed bytes to a value of the state, and nothing in between but JSON-RPC.
#[test]
fn a_signed_extrinsic_goes_in_and_its_effect_is_read_back() {
    let network = Network::new();
    let bytes = network.signed(MINER, 0, &commit("promise"));
    let hash = network.result("author_submitExtrinsic", json!([hex(&bytes)]));
    assert!(hash.as_str().unwrap().starts_with("0x"));
    network.chain.advance(1).unwrap();

    let head = network.result("chain_getBlockHash", json!([]));
    let block = network.result("chain_getBlock", json!([head]));
    assert_eq!(block["block"]["extrinsics"][1], hex(&bytes));
    assert_eq!(network.outcomes(), ["ok"]);
    let keys = [NETUID.into(), account(MINER)];
    let record = network.value("Commitments", "CommitmentOf", &keys).unwrap();
    assert_eq!(record.field("block"), Some(&1_u32.into()));
    let nonce = network
        .value("System", "Account", &[account(MINER)])
        .unwrap();
    assert_eq!(nonce.field("nonce"), Some(&1_u32.into()));
}

/// Signatures are randomised: two runs sign differently and must agree all the same.
#[test]
fn the_same_calls_in_the_same_blocks_give_the_same_hashes() {
    assert_eq!(busy_network().chain.head(), busy_network().chain.head());
}

#[test]
fn another_call_or_another_block_for_it_gives_another_hash() {
    let usual = busy_network().chain.head();
    let mut other = Network::new();
    other.run(MINER, &commit("sealed otherwise"));
    other.run(VALIDATOR, &weigh(&[(2, 3), (3, 1)]));
    let head = other.chain.advance(2).unwrap();
    assert_eq!(head.number, usual.number);
    assert_ne!(head.hash, usual.hash);

    let mut later = Network::new();
    later.chain.advance(1).unwrap();
    later.run(MINER, &commit("sealed"));
    later.run(VALIDATOR, &weigh(&[(2, 3), (3, 1)]));
    let head = later.chain.advance(1).unwrap();
    assert_eq!(head.number, usual.number);
    assert_ne!(head.hash, usual.hash);
}

#[test]
fn any_difference_between_specifications_is_another_chain() {
    let genesis = |spec| EmbeddedChain::in_memory(spec).unwrap().identity().genesis;
    let mut other = spec();
    other.allow_loopback = !other.allow_loopback;
    assert_ne!(genesis(other), genesis(spec()));
    assert_eq!(genesis(spec()), genesis(spec()));
}

/// A header's hash is that of its SCALE bytes, which anybody can compose from the JSON.
#[test]
fn a_block_is_named_by_the_hash_of_its_header() {
    let network = busy_network();
    let mut parent = network.chain.identity().genesis.0.to_vec();
    for number in 1..=4_u8 {
        let hash = network.result("chain_getBlockHash", json!([number]));
        let header = network.result("chain_getHeader", json!([hash]));
        assert_eq!(unhex(header["parentHash"].as_str().unwrap()), parent);
        assert_eq!(header["number"], format!("{number:#x}"));
        let mut bytes = parent;
        bytes.push(number << 2);
        for root in ["stateRoot", "extrinsicsRoot"] {
            bytes.extend(unhex(header[root].as_str().unwrap()));
        }
        bytes.push(1 << 2);
        bytes.extend(unhex(header["digest"]["logs"][0].as_str().unwrap()));
        assert_eq!(hash, hex(&blake2_256(&bytes)));
        parent = unhex(hash.as_str().unwrap());
    }
}

fn blake2_256(bytes: &[u8]) -> [u8; 32] {
    use blake2::Digest as _;
    blake2::Blake2b::<blake2::digest::consts::U32>::digest(bytes).into()
}

#[test]
fn a_blocks_time_is_its_number_times_the_block_time() {
    let network = Network::new();
    let head = network.chain.advance(5).unwrap();
    assert_eq!(head.timestamp_ms, Some(1_700_000_005_000));
    let now = network.value("Timestamp", "Now", &[]);
    assert_eq!(now, Some(1_700_000_005_000_u64.into()));
    let block = network.result("chain_getBlock", json!([]));
    // Timestamp.set, as a block's author writes it.
    let first = block["block"]["extrinsics"][0].as_str().unwrap();
    assert!(first.starts_with("0x28050200"), "{first}");
}

#[test]
fn the_state_knows_its_block_and_the_hashes_before_it() {
    let network = busy_network();
    assert_eq!(network.value("System", "Number", &[]), Some(4_u32.into()));
    let parent = network.chain.head().parent.0;
    assert_eq!(
        network.value("System", "ParentHash", &[]),
        Some(parent.into())
    );
    let before = network.value("System", "BlockHash", &[3_u32.into()]);
    assert_eq!(before, Some(parent.into()));
    let genesis = network.value("System", "BlockHash", &[0_u32.into()]);
    assert_eq!(genesis, Some(network.chain.identity().genesis.0.into()));
}

#[test]
fn every_extrinsic_has_an_event_that_says_how_it_ended() {
    let mut network = Network::new();
    network.send(MINER, &commit("fine")).unwrap();
    network.send(STRANGER, &commit("not registered")).unwrap();
    network.chain.advance(1).unwrap();
    assert_eq!(network.outcomes(), ["ok", "AccountNotAllowedCommit"]);
    let places: Vec<Option<u32>> = network
        .events()
        .iter()
        .filter(|event| event.pallet == "System")
        .map(|event| event.extrinsic)
        .collect();
    assert_eq!(places, [Some(0), Some(1), Some(2)]);
    let count = network.value("System", "EventCount", &[]).unwrap();
    assert_eq!(count.number(), Some(network.events().len()));
}

/// A read pinned to a block shows that block for as long as its state is kept, and afterwards the error of a
/// real node, never a newer state.
#[test]
fn a_state_is_readable_for_2400_blocks_and_discarded_afterwards() {
    let mut network = Network::new();
    network.run(MINER, &commit("first"));
    let pinned = hex(&network.chain.head().hash.0);
    network.run(MINER, &commit("second"));
    network.chain.advance(KEPT_BLOCKS as u64 - 2).unwrap();

    let key = network.runtime.storage_key(
        "Commitments",
        "CommitmentOf",
        &[Value::from(NETUID), account(MINER)],
    );
    let key = hex(&key.unwrap());
    let value = network.result("state_getStorage", json!([key, pinned]));
    let value = value.as_str().unwrap();
    assert!(value.contains(&hex::encode("first")), "{value}");

    network.chain.advance(1).unwrap();
    let error = network.ask("state_getStorage", json!([key, pinned]));
    let error = error.unwrap_err();
    let message = format!("Client error: UnknownBlock: State already discarded for {pinned}");
    assert_eq!(error, json!({ "code": 4003, "message": message }));
    for method in [
        "chain_getHeader",
        "chain_getBlock",
        "state_getRuntimeVersion",
    ] {
        assert_eq!(network.ask(method, json!([pinned])).unwrap_err(), error);
    }
    // Hashes are for ever.
    assert_eq!(network.result("chain_getBlockHash", json!([1])), pinned);
}

#[test]
fn a_block_that_does_not_exist_is_another_answer() {
    let network = Network::new();
    let nowhere = hex(&[1; 32]);
    assert_eq!(
        network.result("chain_getHeader", json!([nowhere])),
        json!(null)
    );
    assert_eq!(
        network.result("chain_getBlock", json!([nowhere])),
        json!(null)
    );
    assert_eq!(
        network.result("chain_getBlockHash", json!([1])),
        json!(null)
    );
    let error = network.ask("state_getStorage", json!(["0x00", nowhere]));
    let message =
        format!("Client error: UnknownBlock: Header was not found in the database: {nowhere}");
    assert_eq!(
        error.unwrap_err(),
        json!({ "code": 4003, "message": message })
    );
}

/// What should happen: a block every block time, none after the end.
#[tokio::test(start_paused = true)]
async fn a_running_chain_makes_a_block_every_block_time() {
    let network = Network::new();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(Arc::clone(&network.chain).run(async {
        let _ = stopped.await;
    }));
    for number in 1..=3 {
        network.next_block().await;
        assert_eq!(network.chain.head().number.0, number);
    }
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(network.chain.head().number.0, 3);
}

/// What should happen: no block without an extrinsic, and one as soon as there is.
#[tokio::test(start_paused = true)]
async fn a_chain_on_demand_waits_for_extrinsics_only() {
    let network = Network::new();
    let never = std::future::pending::<()>();
    let running = tokio::spawn(Arc::clone(&network.chain).run_at(Pace::Demand, never));
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(network.chain.head().number.0, 0);
    for nonce in 0..3 {
        let bytes = network.signed(MINER, nonce, &commit("now"));
        network.chain.submit(&bytes).unwrap();
        network.next_block().await;
        assert_eq!(network.outcomes(), ["ok"]);
    }
    running.abort();
}
