//! Blocks: their hashes, their times, and how far back they can be read.

use connito_chain::local::KEPT_BLOCKS;
use connito_chain::{At, BlockRef};
use connito_protocol::ids::{Block, BlockHash};

use crate::network::{MINER, Network, VALIDATOR, commit, spec, weigh};

fn busy_network() -> Network {
    let mut network = Network::new(spec());
    network.run(MINER, &commit("sealed"));
    network.run(VALIDATOR, &weigh(&[(2, 3), (3, 1)]));
    network.chain.advance(2).unwrap();
    network
}

/// The hashes were recorded once. If they change, every existing chain folder stops opening and
/// every seed drawn from a block changes: that is a new version of the log, not a fix of this test.
#[test]
fn the_same_operations_in_the_same_blocks_give_the_recorded_hashes() {
    let chain = busy_network().chain;
    let genesis = "f9d292ea3f2e8f9a8f195f73695dab5aea395c39992ee9504412bff0bcb6d3f2";
    let head = "3a23c0b4cf6a56022316fadf73399e92a77329ebab489be829bde8b671b888dc";
    assert_eq!(chain.identity().genesis.to_string(), genesis);
    assert_eq!(chain.head().hash.to_string(), head);
}

/// Signatures are randomised: two runs sign differently and must agree all the same.
#[test]
fn hashes_do_not_depend_on_how_operations_happened_to_be_signed() {
    assert_eq!(busy_network().chain.head(), busy_network().chain.head());
}

#[test]
fn another_operation_or_another_block_for_it_gives_another_hash() {
    let mut other = Network::new(spec());
    other.run(MINER, &commit("sealed otherwise"));
    other.run(VALIDATOR, &weigh(&[(2, 3), (3, 1)]));
    other.chain.advance(2).unwrap();
    assert_ne!(other.chain.head().hash, busy_network().chain.head().hash);

    let mut later = Network::new(spec());
    later.chain.advance(1).unwrap();
    later.run(MINER, &commit("sealed"));
    later.run(VALIDATOR, &weigh(&[(2, 3), (3, 1)]));
    later.chain.advance(1).unwrap();
    assert_eq!(
        later.chain.head().number,
        busy_network().chain.head().number
    );
    assert_ne!(later.chain.head().hash, busy_network().chain.head().hash);
}

#[test]
fn a_blocks_time_is_its_number_times_the_block_time() {
    let network = Network::new(spec());
    network.chain.advance(5).unwrap();
    assert_eq!(network.chain.head().timestamp_ms, Some(1_700_000_005_000));
}

#[test]
fn every_block_names_its_parent() {
    let network = Network::new(spec());
    let mut parent = network.chain.identity().genesis;
    for number in 1..5 {
        let block = network.chain.advance(1).unwrap();
        assert_eq!((block.number, block.parent), (Block(number), parent));
        parent = block.hash;
    }
}

/// A read pinned to a block shows that block for as long as its state is kept, and afterwards an
/// error with the oldest block that is left, never a newer state.
#[test]
fn a_state_is_readable_for_2400_blocks_and_pruned_afterwards() {
    let mut network = Network::new(spec());
    network.run(MINER, &commit("first"));
    let pinned = network.chain.head();
    network.run(MINER, &commit("second"));
    network.chain.advance(KEPT_BLOCKS as u64 - 2).unwrap();

    for at in [At::Number(Block(1)), At::Hash(pinned.hash)] {
        let records = network.read("chain_commitments", at);
        assert_eq!(records["value"][0]["fields"][0]["raw"], "0x6669727374");
        assert_eq!(
            serde_json::from_value::<BlockRef>(records["at"].clone()).unwrap(),
            pinned
        );
    }

    network.chain.advance(1).unwrap();
    let error = network.ask("chain_block", serde_json::json!({ "at": { "number": 1 } }));
    let error = error.unwrap_err();
    assert_eq!(error["message"], "State already discarded for block 1");
    assert_eq!(error["data"]["oldest"], 2);
}

#[test]
fn a_block_that_does_not_exist_is_an_error_of_its_own() {
    let network = Network::new(spec());
    for at in [At::Number(Block(1)), At::Hash(BlockHash([1; 32]))] {
        let error = network
            .ask("chain_block", serde_json::json!({ "at": at }))
            .unwrap_err();
        assert_eq!(error["code"], -32_000);
    }
}
