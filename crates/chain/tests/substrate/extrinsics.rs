//! Which extrinsics reach the pool at all, and the words in which the others are refused.

use connito_chain::embedded::EmbeddedChain;
use connito_chain::runtime::{Era, Runtime, RuntimeVersion, SigningTerms, bundled};
use serde_json::{Value as Json, json};

use crate::network::*;

fn refusal(network: &Network, bytes: &[u8]) -> Json {
    let answer = network.ask("author_submitExtrinsic", json!([hex(bytes)]));
    answer.unwrap_err()
}

fn invalid(data: &str) -> Json {
    json!({ "code": 1010, "message": "Invalid Transaction", "data": data })
}

fn mortal(network: &Network, period: u64, current: u64) -> SigningTerms {
    let hash = network.result("chain_getBlockHash", json!([current]));
    let hash = hash
        .as_str()
        .map_or([7; 32], |hash| <[u8; 32]>::try_from(unhex(hash)).unwrap());
    SigningTerms {
        era: Era::Mortal {
            period,
            current,
            hash,
        },
        ..network.terms(0)
    }
}

/// What should not happen: an extrinsic signed for one chain or runtime carried out on another.
#[test]
fn a_signature_is_for_one_chain_and_one_runtime() {
    let network = Network::new();
    let call = commit("stray");
    let elsewhere = SigningTerms {
        genesis: [1; 32],
        ..network.terms(0)
    };
    let bytes = network.signed_on(MINER, &call, &elsewhere);
    let bad = invalid("Transaction has a bad signature");
    assert_eq!(refusal(&network, &bytes), bad);
    for (spec, transaction) in [(460, 1), (461, 2)] {
        let version = RuntimeVersion { spec, transaction };
        let older = Runtime::from_metadata(bundled(), version).unwrap();
        let signed = older.sign(&pair(MINER), &call, &network.terms(0)).unwrap();
        assert_eq!(refusal(&network, &signed.bytes), bad, "{version:?}");
    }
    network
        .chain
        .submit(&network.signed(MINER, 0, &call))
        .unwrap();
}

/// Payloads beyond 256 bytes are hashed before they are signed.
#[test]
fn a_long_call_is_signed_by_its_hash() {
    let mut network = Network::new();
    let weights: Vec<(u16, u16)> = (0..4).map(|uid| (uid, 1)).collect();
    let call = weigh(&weights.repeat(40));
    assert!(call.len() > 256);
    assert_eq!(
        network.run(VALIDATOR, &call),
        "UidsLengthExceedUidsInSubNet"
    );
}

#[test]
fn a_changed_byte_anywhere_is_refused() {
    let network = Network::new();
    let bytes = network.signed(MINER, 0, &commit("tampered"));
    for position in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[position] ^= 1;
        assert!(network.chain.submit(&changed).is_err(), "byte {position}");
    }
    for length in 0..bytes.len() {
        let error = refusal(&network, &bytes[..length]);
        assert_eq!(error["code"], 1002, "cut at {length}: {error}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert_eq!(refusal(&network, &longer)["code"], 1002);
    network.chain.submit(&bytes).unwrap();
}

#[test]
fn bytes_that_are_no_extrinsic_trap_the_runtime() {
    let network = Network::new();
    let time = network.chain.advance(1).map(|_| {
        let block = network.result("chain_getBlock", json!([]));
        unhex(block["block"]["extrinsics"][0].as_str().unwrap())
    });
    for bytes in [vec![], vec![0], vec![0x04, 0x84], time.unwrap()] {
        let error = refusal(&network, &bytes);
        assert_eq!(error["code"], 1002);
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with("Verification Error: Runtime error: "));
    }
}

/// Ed25519 and ECDSA are read, since a real runtime reads them, and sign nothing here.
#[test]
fn other_kinds_of_signatures_do_not_hold() {
    let network = Network::new();
    let bytes = network.signed(MINER, 0, &commit("other kind"));
    // Length (two bytes), version, kind of address, account, kind of signature.
    let kind = 2 + 1 + 1 + 32;
    assert_eq!(bytes[kind], 1);
    let mut ed25519 = bytes.clone();
    ed25519[kind] = 0;
    let error = refusal(&network, &ed25519);
    assert_eq!(error, invalid("Transaction has a bad signature"));
    let mut unknown = bytes;
    unknown[kind] = 9;
    assert_eq!(refusal(&network, &unknown)["code"], 1002);
}

#[test]
fn an_extrinsic_lives_until_its_era_ends_and_no_longer() {
    let network = Network::new();
    network.chain.advance(10).unwrap();
    let call = commit("mortal");
    let born_at_8 = network.signed_on(MINER, &call, &mortal(&network, 4, 8));
    network.chain.advance(1).unwrap();
    // Blocks 8 to 11 are over; seen from block 12 the era would have begun there.
    let error = refusal(&network, &born_at_8);
    assert_eq!(error, invalid("Transaction has an ancient birth block"));
    network.chain.advance(1).unwrap();
    let error = refusal(&network, &born_at_8);
    assert_eq!(error, invalid("Transaction has a bad signature"));
    let born_at_12 = network.signed_on(MINER, &call, &mortal(&network, 4, 12));
    network.chain.submit(&born_at_12).unwrap();
}

#[test]
fn an_era_on_another_fork_is_a_bad_signature() {
    let network = Network::new();
    network.chain.advance(3).unwrap();
    let mut terms = mortal(&network, 8, 2);
    if let Era::Mortal { hash, .. } = &mut terms.era {
        hash[0] ^= 1;
    }
    let bytes = network.signed_on(MINER, &commit("fork"), &terms);
    let error = refusal(&network, &bytes);
    assert_eq!(error, invalid("Transaction has a bad signature"));
}

#[test]
fn an_immortal_extrinsic_is_born_with_the_chain() {
    let network = Network::new();
    network.chain.advance(100).unwrap();
    let immortal = SigningTerms {
        era: Era::Immortal,
        ..network.terms(0)
    };
    let bytes = network.signed_on(MINER, &commit("for ever"), &immortal);
    network.chain.submit(&bytes).unwrap();
    network.chain.advance(1).unwrap();
    assert_eq!(network.outcomes(), ["ok"]);
}

/// A failure uses the nonce up: otherwise the same bytes could be sent again later and succeed.
#[test]
fn a_failed_extrinsic_cannot_be_replayed() {
    let network = Network::new();
    let bytes = network.signed(STRANGER, 0, &commit("not registered"));
    network.chain.submit(&bytes).unwrap();
    network.chain.advance(1).unwrap();
    assert_eq!(network.outcomes(), ["AccountNotAllowedCommit"]);
    let error = refusal(&network, &bytes);
    assert_eq!(error, invalid("Transaction is outdated"));
}

/// An extrinsic taken in is what the adapter's own codec says it is: its hash and its decoded call.
#[test]
fn the_pool_names_an_extrinsic_by_the_hash_of_its_bytes() {
    let network = Network::on(EmbeddedChain::in_memory(spec()).unwrap());
    let call = commit("named");
    let signed = network
        .runtime
        .sign(&pair(MINER), &call, &network.terms(0))
        .unwrap();
    assert_eq!(network.chain.submit(&signed.bytes).unwrap(), signed.hash);
    let pending = network.result("author_pendingExtrinsics", json!([]));
    assert_eq!(pending, json!([hex(&signed.bytes)]));
}
