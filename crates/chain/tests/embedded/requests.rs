//! JSON-RPC as the server speaks it: whatever comes in, a JSON-RPC answer goes out.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::network::*;

fn answer(network: &Network, body: &str) -> Value {
    serde_json::from_slice(&network.chain.handle(body.as_bytes())).unwrap()
}

#[test]
fn each_bad_request_gets_the_error_that_fits_it() {
    let network = Network::new(spec());
    let cases = [
        ("{", -32_700),
        ("", -32_700),
        ("[]", -32_600),
        ("7", -32_600),
        (
            r#"{"jsonrpc":"1.0","id":1,"method":"chain_identity"}"#,
            -32_600,
        ),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32_600),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"author_rotateKeys"}"#,
            -32_601,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"chain_block"}"#,
            -32_602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"chain_block","params":{"at":"tail"}}"#,
            -32_602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"chain_submit","params":{"operation":"7"}}"#,
            -32_602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"chain_submit","params":{"operation":"0x07"}}"#,
            1_001,
        ),
    ];
    for (body, code) in cases {
        let answer = answer(&network, body);
        assert_eq!(answer["error"]["code"], code, "{body}");
        assert_eq!(answer["jsonrpc"], "2.0");
    }
}

#[test]
fn a_batch_is_answered_in_order_and_a_notification_not_at_all() {
    let network = Network::new(spec());
    let batch = json!([
        { "jsonrpc": "2.0", "id": "a", "method": "chain_identity" },
        { "jsonrpc": "2.0", "method": "chain_identity" },
        { "jsonrpc": "2.0", "id": null, "method": "chain_block", "params": { "at": "finalized" } },
        "nonsense",
    ]);
    let answers = answer(&network, &batch.to_string());
    assert_eq!(answers.as_array().unwrap().len(), 3);
    assert_eq!(answers[0]["id"], "a");
    assert_eq!(answers[0]["result"]["kind"], "local");
    assert_eq!(answers[1]["result"]["number"], 0);
    assert_eq!(answers[2]["error"]["code"], -32_600);

    let notification = br#"{"jsonrpc":"2.0","method":"chain_identity"}"#;
    assert!(network.chain.handle(notification).is_empty());
}

#[test]
fn a_batch_or_body_beyond_its_bound_is_refused_unread() {
    let network = Network::new(spec());
    let one = json!({ "jsonrpc": "2.0", "id": 1, "method": "chain_identity" });
    let most = answer(&network, &Value::Array(vec![one.clone(); 64]).to_string());
    assert_eq!(most.as_array().unwrap().len(), 64);
    let more = answer(&network, &Value::Array(vec![one; 65]).to_string());
    assert_eq!(more["error"]["message"], "batch too large");
    let long = answer(&network, &" ".repeat(1024 * 1024 + 1));
    assert_eq!(long["error"]["message"], "body too large");
}

proptest! {
    #[test]
    fn no_bytes_make_the_handler_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let network = Network::new(spec());
        let _ = network.chain.handle(&body);
    }

    #[test]
    fn no_parameters_make_the_handler_panic(
        method in "chain_(identity|block|metagraph|account|submit|wait|weights|outcomes)",
        text in "[0-9a-zA-Z]{0,70}",
        number in any::<u64>(),
    ) {
        let network = Network::new(spec());
        let ats = [json!(text), json!({ "number": number }), json!({ "hash": text })];
        for at in ats {
            let params = json!({ "at": at, "account": text, "after": number, "timeout_ms": number });
            let _ = network.ask(&method, params);
            let _ = network.ask(&method, json!({ "at": at }));
            let _ = network.ask(&method, json!({ "after": number, "timeout_ms": 0 }));
            let _ = network.ask(&method, json!({ "operation": format!("0x{text}") }));
        }
    }
}
