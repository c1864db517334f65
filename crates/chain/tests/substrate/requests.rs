//! JSON-RPC as the node speaks it: whatever comes in, a JSON-RPC answer goes out.

use std::sync::Arc;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::network::*;

/// Bytes that one body's answer may have.
const MAX_ANSWER: usize = 15 * 1024 * 1024;

fn answer(network: &Network, body: &str) -> Value {
    serde_json::from_slice(&network.chain.handle(body.as_bytes())).unwrap()
}

fn request(method: &str, params: Value) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
}

#[test]
fn each_bad_request_gets_the_error_that_fits_it() {
    let network = Network::new();
    let cases = [
        ("{".to_owned(), -32_700),
        (String::new(), -32_700),
        ("[]".to_owned(), -32_600),
        ("7".to_owned(), -32_600),
        (
            r#"{"jsonrpc":"1.0","id":1,"method":"system_name"}"#.to_owned(),
            -32_600,
        ),
        (r#"{"jsonrpc":"2.0","id":1}"#.to_owned(), -32_600),
        (request("author_rotateKeys", json!([])), -32_601),
        (request("chain_getHeader", json!({ "hash": null })), -32_602),
        (request("chain_getHeader", json!(["0x00"])), -32_602),
        (request("chain_getHeader", json!(["head"])), -32_602),
        (request("chain_getHeader", json!([7])), -32_602),
        (request("chain_getHeader", json!([null, 7])), -32_602),
        (request("chain_getBlockHash", json!([-1])), -32_602),
        (request("chain_getBlockHash", json!(["0x+1"])), -32_602),
        (request("chain_getBlockHash", json!([[0, "x"]])), -32_602),
        (request("state_getStorage", json!([])), -32_602),
        (request("state_getStorage", json!(["7"])), -32_602),
        (request("state_getKeysPaged", json!(["0x", 1_001])), 4_002),
        (
            request("state_queryStorageAt", json!([vec!["0x"; 4_097]])),
            4_002,
        ),
        (request("state_call", json!(["No_such", "0x"])), 4_003),
        (
            request(
                "state_call",
                json!(["AccountNonceApi_account_nonce", "0x00"]),
            ),
            4_003,
        ),
        (request("author_submitExtrinsic", json!(["0x07"])), 1_002),
        (
            request("system_accountNextIndex", json!(["Alice"])),
            -32_602,
        ),
    ];
    for (body, code) in cases {
        let answer = answer(&network, &body);
        assert_eq!(answer["error"]["code"], code, "{body}: {answer}");
        assert_eq!(answer["jsonrpc"], "2.0");
        assert!(answer.to_string().len() < 400, "little is repeated");
    }
}

#[test]
fn a_batch_is_answered_in_order_and_a_notification_not_at_all() {
    let network = Network::new();
    let batch = json!([
        { "jsonrpc": "2.0", "id": "a", "method": "system_chainType" },
        { "jsonrpc": "2.0", "method": "system_chainType" },
        { "jsonrpc": "2.0", "id": null, "method": "chain_getHeader", "params": [] },
        "nonsense",
    ]);
    let answers = answer(&network, &batch.to_string());
    assert_eq!(answers.as_array().unwrap().len(), 3);
    assert_eq!(
        (&answers[0]["id"], &answers[0]["result"]),
        (&json!("a"), &json!("Local"))
    );
    assert_eq!(answers[1]["result"]["number"], "0x0");
    assert_eq!(answers[2]["error"]["code"], -32_600);

    let notification = br#"{"jsonrpc":"2.0","method":"system_name"}"#;
    assert!(network.chain.handle(notification).is_empty());
}

#[test]
fn a_batch_or_body_beyond_its_bound_is_refused_unread() {
    let network = Network::new();
    let one = json!({ "jsonrpc": "2.0", "id": 1, "method": "system_name" });
    let most = answer(&network, &Value::Array(vec![one.clone(); 64]).to_string());
    assert_eq!(most.as_array().unwrap().len(), 64);
    let more = answer(&network, &Value::Array(vec![one; 65]).to_string());
    assert_eq!(more["error"]["message"], "batch too large");
    let long = answer(&network, &" ".repeat(1024 * 1024 + 1));
    assert_eq!(long["error"]["message"], "body too large");
}

/// A pool of long extrinsics: `count` of them, each of 128,000 digits.
fn with_long_extrinsics(count: usize) -> Network {
    let network = Network::new();
    let long = weigh(&[(2, 3); 16_000]);
    for nonce in 0..count as u64 {
        let signed = network.signed(VALIDATOR, nonce, &long);
        network.chain.submit(&signed).unwrap();
    }
    network
}

/// What should happen: the errors that a real node gives. What should not: a small body that makes the node
/// write down gigabytes.
#[test]
fn an_answer_or_a_batch_of_them_beyond_its_bound_is_refused() {
    let network = with_long_extrinsics(MAX_ANSWER / 128_000 + 1);
    let refused = network.ask("author_pendingExtrinsics", json!([]));
    let refused = refused.unwrap_err();
    assert_eq!(refused["code"], -32_008);
    assert_eq!(refused["message"], "Response is too big");

    let network = with_long_extrinsics(20);
    let one = json!({ "jsonrpc": "2.0", "id": 1, "method": "author_pendingExtrinsics" });
    let batch = |count| {
        answer(
            &network,
            &Value::Array(vec![one.clone(); count]).to_string(),
        )
    };
    let fitting = MAX_ANSWER / (20 * 130_000);
    assert_eq!(batch(fitting).as_array().map(Vec::len), Some(fitting));
    let refused = batch(64);
    assert_eq!(refused["error"]["code"], -32_011, "{}", refused["error"]);
    assert_eq!(refused["id"], Value::Null);
}

#[test]
fn a_key_that_is_asked_for_again_and_again_is_told_once() {
    let network = Network::new();
    let keys = [vec!["0x07"; 4_095], vec!["0x00"]].concat();
    let told = network.result("state_queryStorageAt", json!([keys]));
    let expected = json!([["0x07", null], ["0x00", null]]);
    assert_eq!(told[0]["changes"], expected);
}

#[test]
fn every_method_that_is_listed_is_there() {
    let network = Network::new();
    let methods = network.result("rpc_methods", json!([]));
    let methods = methods["methods"].as_array().unwrap();
    assert!(methods.len() > 30);
    assert!(methods.is_sorted_by_key(|method| method.as_str().map(str::to_owned)));
    for method in methods {
        let answer = network.ask(method.as_str().unwrap(), json!([]));
        let missing = answer.is_err_and(|error| error["code"] == -32_601);
        assert!(!missing, "{method}");
    }
}

#[test]
fn heights_are_asked_for_one_by_one_or_together() {
    let network = Network::new();
    network.chain.advance(20).unwrap();
    let ask = |params| network.result("chain_getBlockHash", params);
    let head = hex(&network.chain.head().hash.0);
    assert_eq!(ask(json!([])), head);
    assert_eq!(ask(json!([null])), head);
    assert_eq!(ask(json!([20])), head);
    assert_eq!(ask(json!(["0x14"])), head);
    assert_eq!(ask(json!([[20, "0x14", 21]])), json!([head, head, null]));
    for method in ["chain_getHead", "chain_getFinalizedHead"] {
        assert_eq!(network.result(method, json!([])), head);
    }
}

#[test]
fn keys_come_in_pages_and_values_in_the_order_of_the_keys() {
    let network = Network::new();
    let prefix = hex(&network
        .runtime
        .storage_key("SubtensorModule", "Keys", &[NETUID.into()])
        .unwrap());
    let page = |start: &Value| network.result("state_getKeysPaged", json!([prefix, 3, start]));
    // A client may begin with the prefix itself, or with nothing.
    let first = page(&json!(prefix));
    assert_eq!(page(&Value::Null), first);
    let rest = page(&first[2]);
    assert_eq!(
        (
            first.as_array().unwrap().len(),
            rest.as_array().unwrap().len()
        ),
        (3, 1)
    );

    let absent = hex(b"no such key");
    let keys = json!([rest[0], absent, first[0]]);
    let head = hex(&network.chain.head().hash.0);
    let found = network.result("state_queryStorageAt", json!([keys, head]));
    assert_eq!(found[0]["block"], head);
    let changes = found[0]["changes"].as_array().unwrap();
    assert_eq!(changes[1], json!([absent, null]));
    for (change, key) in changes.iter().zip(keys.as_array().unwrap()) {
        assert_eq!(change[0], *key);
        assert_eq!(network.result("state_getStorage", json!([key])), change[1]);
    }
    // With 0x or without it, as tools send both.
    let bare = first[0].as_str().unwrap().trim_start_matches("0x");
    let size = network.result("state_getStorageSize", json!([bare]));
    assert_eq!(size, 32);
    let hash = network.result("state_getStorageHash", json!([absent]));
    assert_eq!(hash, json!(null));
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_answered_with_its_block_or_when_its_time_is_up() {
    let network = Network::new();
    let wait = |after: u64, timeout_ms: u64| {
        let body = request("connito_waitBlock", json!([after, timeout_ms]));
        let chain = Arc::clone(&network.chain);
        async move {
            let answer = chain.handle_async(body.as_bytes()).await;
            serde_json::from_slice::<Value>(&answer).unwrap()["result"].take()
        }
    };
    assert_eq!(wait(0, 50).await, json!(null));
    assert_eq!(wait(u64::MAX, u64::MAX).await, json!(null));
    let (answer, made) = tokio::join!(wait(0, 5_000), async { network.chain.advance(2).unwrap() });
    assert_eq!(answer["header"]["number"], "0x1", "never skips");
    assert_eq!(wait(1, 0).await["hash"], hex(&made.hash.0));
}

static SHARED: LazyLock<Network> = LazyLock::new(Network::new);

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "[0-9a-fA-Fx]{0,70}".prop_map(Value::from),
        "0x[0-9a-f]{0,140}".prop_map(Value::from),
        "0x[0-9a-f]{64}".prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ]
}

fn anything() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{1,5}", inner, 0..3).prop_map(|map| json!(map)),
        ]
    })
}

fn method() -> impl Strategy<Value = String> {
    let listed = SHARED.result("rpc_methods", json!([]));
    let mut names: Vec<String> = serde_json::from_value(listed["methods"].clone()).unwrap();
    names.extend(["chain_subscribeNewHeads", "state_subscribeStorage"].map(str::to_owned));
    names.extend(
        [
            "author_submitAndWatchExtrinsic",
            "chain_unsubscribeNewHeads",
        ]
        .map(str::to_owned),
    );
    proptest::sample::select(names)
}

proptest! {
    #[test]
    fn no_bytes_make_the_handler_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = SHARED.chain.handle(&body);
    }

    #[test]
    fn no_parameters_make_the_handler_panic(
        method in method(),
        params in proptest::collection::vec(anything(), 0..4),
    ) {
        let body = request(&method, Value::from(params));
        let answer: Value = serde_json::from_slice(&SHARED.chain.handle(body.as_bytes())).unwrap();
        prop_assert!(answer.get("result").is_some() != answer["error"]["code"].is_i64());
        let mut session = connito_chain::embedded::Session::new(Arc::clone(&SHARED.chain));
        let answer: Value = serde_json::from_slice(&session.handle(body.as_bytes())).unwrap();
        prop_assert!(answer.get("result").is_some() != answer["error"]["code"].is_i64());
    }

    #[test]
    fn no_data_makes_a_runtime_call_panic(
        call in prop_oneof![
            Just("SubnetInfoRuntimeApi_get_metagraph"),
            Just("SubnetInfoRuntimeApi_get_selective_metagraph"),
            Just("NeuronInfoRuntimeApi_get_neuron"),
            Just("SubnetInfoRuntimeApi_get_next_epoch_start_block"),
            Just("Metadata_metadata_at_version"),
        ],
        data in proptest::collection::vec(any::<u8>(), 0..12),
    ) {
        let _ = SHARED.ask("state_call", json!([call, hex(&data)]));
    }
}
