//! A small subnet on the embedded chain, for what strangers ask it and send to it.
//!
//! An owner and four neurons whose keys are their seeds. Every chain made here begins alike, and one that has
//! heard the same has the same blocks. Knows nothing of files.

use std::sync::{Arc, LazyLock};

use connito_chain::embedded::{EmbeddedChain, GenesisNeuron, GenesisSpec};
use connito_chain::keys::{Keypair, Signer as _};
use connito_chain::runtime::{BUNDLED_VERSION, Era, Runtime, SigningTerms, Value, bundled};
use connito_protocol::ids::Netuid;

/// The subnet.
pub const NETUID: u16 = 3;
/// The owner first, then the neurons by their uids, then a stranger.
pub const ACCOUNTS: [u8; 6] = [9, 1, 2, 3, 4, 7];

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Runtime::from_metadata(bundled(), BUNDLED_VERSION).expect("is metadata"));
static KEYS: LazyLock<[Keypair; 6]> =
    LazyLock::new(|| ACCOUNTS.map(|seed| Keypair::from_seed(&[seed; 32])));

/// What a chain says that its bytes mean.
pub fn runtime() -> &'static Runtime {
    &RUNTIME
}

/// The account in a place of [`ACCOUNTS`].
pub fn account(place: usize) -> &'static Keypair {
    &KEYS[place % KEYS.len()]
}

/// A chain at block 0.
pub fn new() -> Arc<EmbeddedChain> {
    let neuron = |place: usize| GenesisNeuron {
        hotkey: account(place).hotkey(),
        coldkey: None,
        stake_rao: 100,
        validator_permit: place < 3,
    };
    let spec = GenesisSpec {
        block_time_ms: 1_000,
        genesis_time_ms: 1_700_000_000_000,
        tempo: 5,
        commit_reveal: true,
        admin_freeze_window: 0,
        owner_rate_limit_epochs: 0,
        root: account(0).hotkey(),
        faucet: account(0).hotkey(),
        neurons: (1..5).map(neuron).collect(),
        ..GenesisSpec::new(Netuid(NETUID), account(0).hotkey())
    };
    EmbeddedChain::in_memory(spec).expect("the specification holds")
}

/// A chain of a few blocks, in which everything was done once that [`calls`] has.
pub fn used() -> Arc<EmbeddedChain> {
    let chain = new();
    for (place, call) in calls() {
        // What is refused is tried all the same.
        let _ = chain.submit(&signed(&chain, place, nonce(&chain, place), &call));
        chain.advance(1).expect("kept in memory");
    }
    chain
}

/// A call, signed for ever by an account.
pub fn signed(chain: &EmbeddedChain, place: usize, nonce: u64, call: &[u8]) -> Vec<u8> {
    let terms = SigningTerms {
        genesis: chain.identity().genesis.0,
        nonce,
        tip: 0,
        era: Era::Immortal,
    };
    let signed = runtime().sign(account(place), call, &terms);
    signed.expect("calls of any bytes can be signed").bytes
}

/// The next nonce of an account.
pub fn nonce(chain: &EmbeddedChain, place: usize) -> u64 {
    let address = account(place).hotkey().to_string();
    let request = serde_json::json!({
        "jsonrpc": "2.0", "id": 1, "method": "system_accountNextIndex", "params": [address],
    });
    let answer = chain.handle(request.to_string().as_bytes());
    let answer: serde_json::Value = serde_json::from_slice(&answer).expect("an answer is JSON");
    answer["result"].as_u64().expect("an account has a nonce")
}

/// One sound call of most kinds, and the place of who may send it.
pub fn calls() -> Vec<(usize, Vec<u8>)> {
    let netuid = || ("netuid", Value::from(NETUID));
    let hotkey = |place: usize| Value::from(account(place).hotkey());
    let two = |values: [u16; 2]| Value::list(values);
    let weights = |version: u64| {
        let values = [("dests", two([2, 3])), ("weights", two([1, 3]))];
        let mut arguments = vec![netuid(), ("version_key", version.into())];
        arguments.extend(values);
        arguments
    };
    let opening = || {
        let uids = [("uids", two([2, 3])), ("values", two([1, 3]))];
        let mut arguments = vec![netuid(), ("version_key", 0_u64.into())];
        arguments.extend(uids);
        arguments.push(("salt", two([5, 6])));
        arguments
    };
    let axon = [
        ("version", 1_u32.into()),
        ("ip", 0xcb00_7107_u128.into()),
        ("port", 8091_u16.into()),
        ("ip_type", 4_u8.into()),
        ("protocol", 4_u8.into()),
        ("placeholder1", 0_u8.into()),
        ("placeholder2", 0_u8.into()),
    ];
    let field = Value::variant_of("Raw5", [Value::from(b"hello".as_slice())]);
    let info = Value::record([("fields", Value::List(vec![field]))]);
    let to = Value::variant_of("Id", [hotkey(5)]);
    let staked = |amount: &'static str| {
        vec![
            netuid(),
            ("hotkey", hotkey(1)),
            (amount, 50_000_000_u64.into()),
        ]
    };
    let (subtensor, admin) = ("SubtensorModule", "AdminUtils");
    let mut serving = vec![netuid()];
    serving.extend(axon);
    let commit = vec![netuid(), ("commit_hash", [0xab; 32].into())];
    let sealed = vec![
        netuid(),
        ("commit", Value::from([1_u8; 100].as_slice())),
        ("reveal_round", 12_345_678_u64.into()),
        ("commit_reveal_version", 4_u16.into()),
    ];
    let tempo = vec![netuid(), ("tempo", 5_u16.into())];
    let off = vec![netuid(), ("enabled", false.into())];
    let all = [
        (
            0,
            "Balances",
            "transfer_keep_alive",
            vec![("dest", to), ("value", 10_000_u64.into())],
        ),
        (1, subtensor, "commit_weights", commit),
        (1, subtensor, "reveal_weights", opening()),
        (2, subtensor, "commit_timelocked_weights", sealed),
        (0, admin, "sudo_set_commit_reveal_weights_enabled", off),
        (1, subtensor, "set_weights", weights(0)),
        (3, subtensor, "serve_axon", serving),
        (
            3,
            "Commitments",
            "set_commitment",
            vec![netuid(), ("info", info)],
        ),
        (
            0,
            subtensor,
            "burned_register",
            vec![netuid(), ("hotkey", hotkey(5))],
        ),
        (0, subtensor, "add_stake", staked("amount_staked")),
        (0, subtensor, "remove_stake", staked("amount_unstaked")),
        (0, admin, "sudo_set_tempo", tempo),
        (0, subtensor, "trigger_epoch", vec![netuid()]),
    ];
    let encoded = all.into_iter().map(|(place, pallet, call, arguments)| {
        let bytes = runtime().call(pallet, call, &arguments);
        (place, bytes.expect("the runtime has the call"))
    });
    encoded.collect()
}
