//! `POST /`: the embedded chain, for this machine and no web page (A-158).

use serde_json::{Value, json};

use crate::loopback::{Answer, Loopback, impatient, server};
use connito_node::server::Limits;
use tokio::io::AsyncWriteExt;

use crate::loopback::read_answer;

const LOCAL: &str = "host: localhost\r\n";

async fn post(server: &Loopback, headers: &str, body: &[u8]) -> Answer {
    let length = body.len();
    let head = format!(
        "POST / HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    let mut stream = server.send(head.as_bytes()).await;
    // A body that is refused for its length may not be taken whole.
    let _ = stream.write_all(body).await;
    read_answer(stream).await
}

async fn ask(server: &Loopback, question: &Value) -> Value {
    let answer = post(server, LOCAL, question.to_string().as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn question(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}

#[tokio::test]
async fn this_machine_is_answered() {
    let server = server().await;
    let answer = ask(&server, &question("chain_getHeader", json!([]))).await;
    assert_eq!(answer["result"]["number"], "0x0");
    let notification = br#"{"jsonrpc":"2.0","method":"system_name"}"#;
    let silent = post(&server, LOCAL, notification).await;
    assert_eq!((silent.status, silent.body.len()), (204, 0));
}

/// A name that leads here is not this machine's name, whichever header says it, and a page that a
/// browser shows is not this machine's user.
#[tokio::test]
async fn a_rebound_name_or_a_web_page_finds_nothing() {
    let server = server().await;
    let body = question("system_name", json!(null)).to_string();
    for foreign in [
        "",
        "host: evil.example\r\n",
        "host: localhost.evil.example\r\n",
        "host: 127.0.0.1.evil.example:80\r\n",
        "host: localhost\r\nhost: evil.example\r\n",
        "host: evil.example\r\nhost: localhost\r\n",
        "host: user@localhost\r\n",
        "host: localhost:80:80\r\n",
        "host: \u{fc}\r\n",
        "host:\r\n",
        "host: localhost\r\norigin: http://evil.example\r\n",
        "host: localhost\r\norigin: http://localhost:80\r\n",
        "host: localhost\r\norigin: https://localhost\r\n",
        "host: localhost\r\norigin: http://localhost\r\norigin: http://evil.example\r\n",
        "host: evil.example\r\norigin: http://evil.example\r\n",
        "host: localhost\r\norigin: null\r\n",
        "host: localhost\r\norigin:\r\n",
    ] {
        let answer = post(&server, foreign, body.as_bytes()).await;
        answer.assert_refused(404, "not_found");
    }
    let length = body.len();
    let absolute = format!(
        "POST http://evil.example/ HTTP/1.1\r\n{LOCAL}connection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    let answer = server.ask(absolute.as_bytes()).await;
    answer.assert_refused(404, "not_found");
}

#[tokio::test]
async fn a_body_above_the_bound_is_refused_however_its_length_is_stated() {
    let server = server().await;
    let giant = vec![b' '; (1 << 20) + 1];
    let answer = post(&server, LOCAL, &giant).await;
    answer.assert_refused(413, "too_large");
    let chunked = format!(
        "POST / HTTP/1.1\r\n{LOCAL}connection: close\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n",
        giant.len()
    );
    let mut stream = server.send(chunked.as_bytes()).await;
    let _ = stream.write_all(&giant).await;
    read_answer(stream).await.assert_refused(413, "too_large");
    // A length is believed before a byte of it has come.
    let promised = format!(
        "POST / HTTP/1.1\r\n{LOCAL}connection: close\r\ncontent-length: 99999999999\r\n\r\n"
    );
    let answer = server.ask(promised.as_bytes()).await;
    answer.assert_refused(413, "too_large");
}

/// A-55. Nothing is unpacked, so nothing can swell.
#[tokio::test]
async fn a_compressed_body_is_refused_unread() {
    let server = server().await;
    for encoding in ["gzip", "zstd", "br", "identity", "\u{fc}"] {
        let headers = format!("{LOCAL}content-encoding: {encoding}\r\n");
        let answer = post(&server, &headers, b"\x1f\x8b\x08\0").await;
        answer.assert_refused(415, "unsupported_encoding");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_or_does_not_end_is_given_up() {
    let server = Loopback::start(impatient()).await;
    for body in [
        "content-length: 100\r\n\r\n{",
        "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
        "transfer-encoding: chunked\r\n\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\n{LOCAL}connection: close\r\n{body}");
        let answer = server.ask(request.as_bytes()).await;
        answer.assert_refused(408, "slow_client");
    }
    for body in ["xyz\r\n{", "-1\r\n{", "ffffffffffffffffff\r\n{", "1;x\n{"] {
        let request = format!(
            "POST / HTTP/1.1\r\n{LOCAL}connection: close\r\ntransfer-encoding: chunked\r\n\r\n{body}"
        );
        let answer = server.ask(request.as_bytes()).await;
        assert!(matches!(answer.status, 400 | 408), "{body:?}: {answer:?}");
    }
}

/// What should happen: an error of JSON-RPC. What should not: a stack that overflows, or a panic.
#[tokio::test]
async fn what_is_no_question_gets_an_error_of_json_rpc() {
    let server = server().await;
    let deep = "[".repeat(500_000);
    let nested = "{\"a\":".repeat(100_000);
    for body in [
        "",
        "nonsense",
        "[]",
        "null",
        "7",
        "{}",
        "[1,2]",
        r#"{"jsonrpc":"1.0","id":1,"method":"system_name"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"system_name","method":"state_getStorage"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"chain_getBlockHash","params":[1e400]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"chain_getBlockHash","params":[-1]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"chain_getBlockHash","params":[[[]]]}"#,
        "\u{feff}{}",
        &deep,
        &nested,
    ] {
        let answer = post(&server, LOCAL, body.as_bytes()).await;
        assert_eq!(answer.status, 200);
        let answers = answer.json();
        let first = answers.get(0).unwrap_or(&answers);
        assert!(first["error"]["code"].is_i64(), "{answers}");
        assert!(answer.body.len() < 1000, "little is repeated");
    }
    assert_eq!(server.get("/v1/health", "").await.status, 200);
}

#[tokio::test]
async fn a_batch_has_at_most_64_questions() {
    let server = server().await;
    let one = question("system_name", json!(null));
    let full = ask(&server, &Value::from(vec![one.clone(); 64])).await;
    assert_eq!(full.as_array().unwrap().len(), 64);
    let above = ask(&server, &Value::from(vec![one; 65])).await;
    assert_eq!(above["error"]["message"], "batch too large");
}

/// There are no methods that act for an operator, none that subscribe, and none that reach elsewhere.
#[tokio::test]
async fn a_method_that_is_not_the_chain_s_is_not_found() {
    let server = server().await;
    for method in [
        "author_rotateKeys",
        "author_insertKey",
        "system_addReservedPeer",
        "offchain_localStorageSet",
        "chain_subscribeNewHeads",
        "chain_advance",
        "author_submitExtrinsic ",
        "",
        "\u{0}",
    ] {
        let answer = ask(&server, &question(method, json!(null))).await;
        assert_eq!(answer["error"]["code"], -32601, "{method}");
    }
}

/// Bytes that are no operation, an operation cut short or stretched, or one that nobody signed.
#[tokio::test]
async fn an_operation_that_is_malformed_or_unsigned_is_refused() {
    let server = server().await;
    let long = format!("0x{}", "00".repeat(200_000));
    let zeros = format!("0x{}", "00".repeat(300));
    for operation in ["", "0x", "0x0", "zz", "0x00", &zeros, &long] {
        let question = question("author_submitExtrinsic", json!([operation]));
        let answer = ask(&server, &question).await;
        assert!(answer["error"]["code"].is_i64(), "{answer}");
    }
    for params in [
        json!({}),
        json!(null),
        json!([]),
        json!([7]),
        json!(["0x00", 7]),
    ] {
        let answer = ask(&server, &question("author_submitExtrinsic", params)).await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
    }
}

/// A wait is one answer, not a stream; in a batch nobody is kept waiting.
#[tokio::test]
async fn a_wait_in_a_batch_is_answered_at_once() {
    let server = Loopback::start(Limits::default()).await;
    let wait = question("connito_waitBlock", json!([0, u64::MAX]));
    let answers = ask(&server, &Value::from(vec![wait; 64])).await;
    let answers = answers.as_array().unwrap();
    assert!(
        answers
            .iter()
            .all(|answer| answer["result"]["block"].is_null())
    );
}
