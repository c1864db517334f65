//! The pool: nonces, order, room, and what is forgotten.

use connito_chain::PoolError;
use connito_chain::keys::Signer;
use serde_json::json;

use crate::network::*;

fn next_index(network: &Network, seed: u8) -> u64 {
    let address = pair(seed).hotkey().to_string();
    let index = network.result("system_accountNextIndex", json!([address]));
    assert_eq!(network.result("account_nextIndex", json!([address])), index);
    index.as_u64().unwrap()
}

#[test]
fn a_nonce_is_used_once_and_in_order() {
    let network = Network::new();
    let send = |nonce, text| {
        let bytes = network.signed(MINER, nonce, &commit(text));
        network.chain.submit(&bytes)
    };
    send(0, "first").unwrap();
    assert_eq!(next_index(&network, MINER), 1);
    send(1, "second, in the same block").unwrap();
    let taken = send(1, "another with its nonce").unwrap_err();
    assert_eq!(taken, PoolError::PriorityTooLow);
    assert_eq!(next_index(&network, MINER), 2);
    network.chain.advance(1).unwrap();
    assert_eq!(network.outcomes(), ["ok", "ok"]);
    assert_eq!(send(1, "used up").unwrap_err(), PoolError::Stale);
    send(2, "third").unwrap();
}

#[test]
fn the_refusals_have_the_codes_and_words_of_a_real_node() {
    let network = Network::new();
    let submit = |bytes: &[u8]| network.ask("author_submitExtrinsic", json!([hex(bytes)]));
    let first = network.signed(MINER, 0, &commit("first"));
    let hash = submit(&first).unwrap();
    let known = json!({ "code": 1013, "message": "Transaction Already Imported", "data": hash });
    assert_eq!(submit(&first).unwrap_err(), known);
    let rival = network.signed(MINER, 0, &commit("rival"));
    let error = submit(&rival).unwrap_err();
    assert_eq!(error["code"], 1014);
    assert_eq!(error["message"], "Priority is too low: (1 vs 1)");
    network.chain.advance(1).unwrap();
    let error = submit(&first).unwrap_err();
    assert_eq!(error["data"], "Transaction is outdated");
}

/// What should happen: an extrinsic that came too early waits, and goes into the same block as the one that
/// fills the gap.
#[test]
fn a_skipped_nonce_waits_until_the_gap_is_filled() {
    let network = Network::new();
    let bytes = |nonce| network.signed(MINER, nonce, &commit("in order"));
    network.chain.submit(&bytes(2)).unwrap();
    network.chain.submit(&bytes(1)).unwrap();
    assert_eq!(next_index(&network, MINER), 0);
    network.chain.advance(1).unwrap();
    assert_eq!(network.outcomes(), [""; 0]);
    network.chain.submit(&bytes(0)).unwrap();
    assert_eq!(next_index(&network, MINER), 3);
    network.chain.advance(1).unwrap();
    assert_eq!(network.outcomes(), ["ok", "ok", "ok"]);
}

#[test]
fn a_gap_that_is_never_filled_ends_with_the_era() {
    let network = Network::new();
    let early = network.signed(MINER, 1, &commit("too early"));
    network.chain.submit(&early).unwrap();
    network.chain.advance(8).unwrap();
    let first = network.signed(MINER, 0, &commit("first"));
    network.chain.submit(&first).unwrap();
    assert_eq!(next_index(&network, MINER), 1);
}

#[test]
fn extrinsics_of_different_accounts_keep_their_order_of_arrival() {
    let network = Network::new();
    let from = |seed, nonce| network.signed(seed, nonce, &commit("who is first"));
    let arrivals = [
        from(4, 0),
        from(MINER, 0),
        from(VALIDATOR, 0),
        from(MINER, 1),
        from(4, 1),
    ];
    for bytes in &arrivals {
        network.chain.submit(bytes).unwrap();
    }
    network.chain.advance(1).unwrap();
    let block = network.result("chain_getBlock", json!([]));
    let expected: Vec<String> = arrivals.iter().map(|bytes| hex(bytes)).collect();
    assert_eq!(
        block["block"]["extrinsics"].as_array().unwrap()[1..],
        expected
    );
}

/// Submits a record with a nonce of the test's choice.
fn of_a_stranger(network: &Network, nonce: u64) -> Result<[u8; 32], PoolError> {
    let bytes = network.signed(STRANGER, nonce, &commit("x"));
    network.chain.submit(&bytes)
}

#[test]
fn a_full_block_leaves_the_rest_for_the_next() {
    let network = Network::new();
    for nonce in 0..1_030 {
        of_a_stranger(&network, nonce).unwrap();
    }
    network.chain.advance(1).unwrap();
    assert_eq!(network.outcomes().len(), 1_024);
    network.chain.advance(1).unwrap();
    assert_eq!(network.outcomes().len(), 6);
    assert_eq!(next_index(&network, STRANGER), 1_030);
}

/// Nobody fills the memory with extrinsics that can never be included.
#[test]
fn few_extrinsics_wait_for_a_gap() {
    let network = Network::new();
    for nonce in 1..=512 {
        of_a_stranger(&network, nonce).unwrap();
    }
    let full = of_a_stranger(&network, 513);
    assert_eq!(full.unwrap_err(), PoolError::Full);
}

/// A publication that the pool allowed twice, since both were valid at the head: the block finds the second
/// invalid, and the pool remembers.
#[test]
fn what_a_block_finds_invalid_is_banned() {
    let network = Network::new();
    let axon = [
        ("netuid", NETUID.into()),
        ("version", 1_u32.into()),
        ("ip", 0x0a00_0001_u128.into()),
        ("port", 8_091_u16.into()),
        ("ip_type", 4_u8.into()),
        ("protocol", 4_u8.into()),
        ("placeholder1", 0_u8.into()),
        ("placeholder2", 0_u8.into()),
    ];
    let call = network.runtime.call("SubtensorModule", "serve_axon", &axon);
    let call = call.unwrap();
    let (first, second) = (
        network.signed(MINER, 0, &call),
        network.signed(MINER, 1, &call),
    );
    let third = network.signed(MINER, 2, &commit("behind it"));
    for bytes in [&first, &second, &third] {
        network.chain.submit(bytes).unwrap();
    }
    network.chain.advance(1).unwrap();
    assert_eq!(network.outcomes(), ["ok"]);
    let error = network.ask("author_submitExtrinsic", json!([hex(&second)]));
    let banned = json!({ "code": 1012, "message": "Transaction is temporarily banned" });
    assert_eq!(error.unwrap_err(), banned);
    // The one behind it waits for another with that nonce.
    assert_eq!(next_index(&network, MINER), 1);
    let filler = network.signed(MINER, 1, &commit("instead"));
    network.chain.submit(&filler).unwrap();
    network.chain.advance(1).unwrap();
    assert_eq!(network.outcomes(), ["ok", "ok"]);
    // And who asks again is told with the runtime's own number.
    let again = network.signed(MINER, 3, &call);
    assert_eq!(network.chain.submit(&again), Err(PoolError::Custom(12)));
}
