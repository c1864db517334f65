//! Which operations reach a block at all: signatures, nonces, mortality, bounds.

use connito_chain::local::LocalChain;
use connito_chain::{ChainId, PoolError, SignedOp};
use connito_protocol::ids::{Block, BlockHash, Netuid};

use crate::network::*;

#[test]
fn a_nonce_is_used_once_and_in_order() {
    let network = Network::new(spec());
    let send = |nonce, text| {
        network
            .chain
            .submit(network.signed(MINER, nonce, &commit(text)))
    };
    assert_eq!(send(1, "too early").unwrap_err(), PoolError::Future);
    assert!(send(0, "first").is_ok());
    assert!(send(1, "second, in the same block").is_ok());
    assert_eq!(
        send(1, "another with its nonce").unwrap_err(),
        PoolError::PriorityTooLow
    );
    network.chain.advance(1).unwrap();
    assert_eq!(send(1, "used up").unwrap_err(), PoolError::Stale);
    assert!(send(2, "third").is_ok());
}

#[test]
fn the_same_operation_is_taken_in_once_and_never_carried_out_twice() {
    let network = Network::new(spec());
    let signed = network.signed(MINER, 0, &commit("once"));
    network.chain.submit(signed.clone()).unwrap();
    assert_eq!(
        network.chain.submit(signed.clone()),
        Err(PoolError::AlreadyImported)
    );
    network.chain.advance(1).unwrap();
    assert_eq!(network.chain.submit(signed), Err(PoolError::Stale));
}

/// A failure uses the nonce up: otherwise the same bytes could be sent again later and succeed.
#[test]
fn a_failed_operation_cannot_be_replayed() {
    let mut network = Network::new(spec());
    let premature = network.signed(STRANGER, 0, &commit("not yet registered"));
    network.chain.submit(premature.clone()).unwrap();
    network.chain.advance(1).unwrap();
    network.run(OWNER, &register(STRANGER));
    assert_eq!(network.chain.submit(premature), Err(PoolError::Stale));
}

#[test]
fn an_operation_lives_until_its_last_block_and_no_longer() {
    let network = Network::new(spec());
    network.chain.advance(10).unwrap();
    let until = |block| {
        let identity = network.chain.identity();
        let op = commit("mortal");
        network
            .chain
            .submit(SignedOp::sign(&pair(MINER), identity, &op, 0, block).unwrap())
    };
    assert_eq!(until(Block(10)).unwrap_err(), PoolError::Outdated);
    assert_eq!(until(Block(u64::MAX)).unwrap_err(), PoolError::Outdated);
    assert!(until(Block(11)).is_ok());
}

/// What should not happen: an operation signed for one chain or subnet carried out on another.
#[test]
fn an_operation_belongs_to_one_chain_and_one_subnet() {
    let network = Network::new(spec());
    let home = network.chain.identity().clone();
    let submit = |chain: &ChainId| {
        let op = commit("stray");
        network
            .chain
            .submit(SignedOp::sign(&pair(MINER), chain, &op, 0, Block(5)).unwrap())
    };
    let elsewhere = ChainId {
        genesis: BlockHash([1; 32]),
        ..home.clone()
    };
    assert_eq!(submit(&elsewhere).unwrap_err(), PoolError::BadProof);
    let neighbour = ChainId {
        netuid: Netuid(4),
        ..home.clone()
    };
    assert_eq!(submit(&neighbour).unwrap_err(), PoolError::Custom(3));
    assert!(submit(&home).is_ok());
}

#[test]
fn a_tampered_operation_is_refused() {
    let network = Network::new(spec());
    let bytes = network.signed(MINER, 0, &commit("tampered")).to_bytes();
    for position in [0, 40, 64, 90, bytes.len() - 1] {
        let mut tampered = bytes.clone();
        tampered[position] ^= 1;
        let refused = network
            .chain
            .submit(SignedOp::from_bytes(&tampered).unwrap())
            .unwrap_err();
        let expected = [PoolError::BadProof];
        let undecodable = matches!(refused, PoolError::Undecodable(_) | PoolError::Custom(3));
        assert!(
            expected.contains(&refused) || undecodable,
            "byte {position}: {refused}"
        );
    }
}

#[test]
fn a_full_pool_refuses_and_empties_with_the_next_block() {
    let network = Network::new(spec());
    let send = |nonce| {
        network
            .chain
            .submit(network.signed(MINER, nonce, &commit("x")))
    };
    for nonce in 0..1_024 {
        send(nonce).unwrap();
    }
    assert_eq!(send(1_024).unwrap_err(), PoolError::Full);
    network.chain.advance(1).unwrap();
    assert!(send(1_024).is_ok());
}

#[test]
fn a_specification_that_contradicts_itself_makes_no_chain() {
    let mut spec = spec();
    spec.tempo = 0;
    let error = LocalChain::in_memory(spec).unwrap_err();
    assert_eq!(error.to_string(), "genesis: tempo must be at least 1");
}
