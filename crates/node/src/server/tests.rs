//! The server over loopback: every route with honest requests, and the abuses of the attack
//! catalogue's section 17 with dishonest ones.

use std::sync::Arc;

use bytes::Bytes;
use connito_chain::local::{GenesisSpec, LocalChain};
use connito_protocol::ids::{BlobId, Block, Hotkey, Netuid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::*;
use crate::loopback::{CYCLE, Loopback, begin, impatient, read_answer};

mod uploads;

const MEBIBYTE: usize = 1 << 20;

async fn server() -> Loopback {
    Loopback::start(Limits::default()).await
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 13 + i / 811) as u8).collect()
}

#[tokio::test]
async fn health_says_who_this_is_and_where_it_stands() {
    let server = server().await;
    let answer = server.get("/v1/health", "").await;
    assert_eq!(answer.status, 200);
    let health: Health = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(health.block, Some(Block(38)));
    assert_eq!(health.hotkey, Some(server.receiver));
    assert!(answer.body.len() <= 1024);
}

/// What should not happen: an answer without a code, or input coming back unescaped or at length.
#[tokio::test]
async fn what_does_not_exist_is_refused_in_json_that_repeats_little() {
    let server = server().await;
    let long = format!("/nothing/'\\{}", "x".repeat(3000));
    for path in ["/", "/v1", "/v2/health", "/v1/health/", &long] {
        let answer = server.get(path, "").await;
        answer.assert_refused(404, "not_found");
        assert!(answer.json()["message"].as_str().unwrap().len() < 250);
    }
    let wrong_method = b"POST /v1/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    server
        .ask(wrong_method)
        .await
        .assert_refused(404, "not_found");
}

#[tokio::test]
async fn the_state_manifest_is_sent_once_to_who_remembers_its_tag() {
    let server = server().await;
    server
        .get("/v1/state", "")
        .await
        .assert_refused(404, "not_found");
    let manifest = StateManifest::new(Bytes::from_static(b"{}"));
    server.state.send(Some(manifest)).unwrap();
    let answer = server.get("/v1/state", "").await;
    let tag = format!("\"{}\"", BlobId::of(b"{}"));
    assert_eq!((answer.status, &answer.body[..]), (200, &b"{}"[..]));
    assert!(
        answer.head.contains(&format!("etag: {tag}")),
        "{}",
        answer.head
    );
    let again = format!("if-none-match: {tag}\r\n");
    let answer = server.get("/v1/state", &again).await;
    assert_eq!((answer.status, answer.body.len()), (304, 0));
}

#[tokio::test]
async fn a_blob_is_served_whole_or_in_one_range_of_whole_mebibytes() {
    let server = server().await;
    let large = bytes(3 * MEBIBYTE + 9);
    let id = server.blobs.put(&large).unwrap();
    let path = format!("/v1/blobs/{id}");

    let whole = server.get(&path, "").await;
    assert_eq!((whole.status, &whole.body[..]), (200, &large[..]));

    let range = format!("range: bytes={}-{}\r\n", MEBIBYTE, 3 * MEBIBYTE - 1);
    let part = server.get(&path, &range).await;
    assert_eq!(part.status, 206);
    assert_eq!(&part.body[..], &large[MEBIBYTE..3 * MEBIBYTE]);
    let covered = format!("content-range: bytes 1048576-3145727/{}", large.len());
    assert!(part.head.contains(&covered), "{}", part.head);

    for refused in ["bytes=0-9", "bytes=0-1,5-6", "bytes=9-3", "bytes=3145737-"] {
        let answer = server.get(&path, &format!("range: {refused}\r\n")).await;
        answer.assert_refused(416, "bad_range");
        assert!(answer.head.contains("content-range: bytes */3145737"));
    }

    let outline = server.get(&format!("{path}/outline"), "").await;
    assert_eq!(outline.body, server.blobs.outline(&id).unwrap().to_bytes());

    let head = format!("HEAD {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let head = server.ask(head.as_bytes()).await;
    assert!(
        head.head.contains("content-length: 3145737"),
        "{}",
        head.head
    );
    assert!(head.body.is_empty());
}

#[tokio::test]
async fn a_blob_longer_than_a_response_is_served_in_ranges_only() {
    let server = server().await;
    let id = server.blobs.put(&bytes(17 * MEBIBYTE)).unwrap();
    let path = format!("/v1/blobs/{id}");
    server.get(&path, "").await.assert_refused(416, "bad_range");
    let answer = server.get(&path, "range: bytes=1048576-\r\n").await;
    assert_eq!((answer.status, answer.body.len()), (206, 16 * MEBIBYTE));
}

/// What should not happen: telling a blob that is withheld from one that does not exist, or sending
/// bytes that rotted.
#[tokio::test]
async fn a_blob_that_is_withheld_absent_or_rotten_is_not_here() {
    let secret = BlobId::of(b"secret");
    let served: Served = Arc::new(move |id| *id != secret);
    let server = Loopback::serving(Limits::default(), Some(served)).await;
    server.blobs.put(b"secret").unwrap();
    let rotten = server.blobs.put(b"rotten").unwrap();
    let name = rotten.to_string();
    let path = server
        .folder
        .path()
        .join("blobs")
        .join(&name[..2])
        .join(&name);
    std::fs::write(path, b"Rotten").unwrap();
    for id in [secret, BlobId::of(b"absent"), rotten] {
        let answer = server.get(&format!("/v1/blobs/{id}"), "").await;
        answer.assert_refused(404, "not_found");
        let expected = format!("blob {id} is not here");
        assert!(
            answer.json()["message"]
                .as_str()
                .unwrap()
                .starts_with(&expected)
        );
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_out_of_the_store() {
    let server = server().await;
    std::fs::write(server.folder.path().join("key"), b"secret").unwrap();
    let id = server.blobs.put(b"x").unwrap().to_string();
    for name in [
        "..%2f..%2fkey",
        "%2e%2e%2fkey",
        "..",
        "../../key",
        "..%5ckey",
        "key%00",
        "%ff%fe",
        &id.to_uppercase(),
        &format!("{}%2f{id}", &id[..2]),
        &format!("{id}%00"),
        &format!("{id}.outline"),
    ] {
        for path in [
            format!("/v1/blobs/{name}"),
            format!("/v1/blobs/{name}/outline"),
            format!("/v1/receipts/7/{name}"),
            format!("/v1/receipts/{name}/{}", server.receiver),
        ] {
            let answer = server.get(&path, "").await;
            assert!(
                matches!(answer.status, 400 | 404),
                "{path}: {}",
                answer.status
            );
            answer.json()["code"].as_str().unwrap();
        }
    }
}

#[tokio::test]
async fn a_receipt_is_found_under_one_spelling_of_its_cycle_and_hotkey() {
    let server = server().await;
    let hotkey = server.receiver;
    server.receipts.put(CYCLE, &hotkey, &"told").unwrap();
    let answer = server.get(&format!("/v1/receipts/7/{hotkey}"), "").await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"\"told\""[..]));
    for cycle in ["07", "+7", "7.0", "", "99999999999999999999"] {
        let answer = server
            .get(&format!("/v1/receipts/{cycle}/{hotkey}"), "")
            .await;
        assert!(matches!(answer.status, 400 | 404));
    }
    let other = server.get(&format!("/v1/receipts/8/{hotkey}"), "").await;
    other.assert_refused(404, "not_found");
}

/// What should happen: the connection ends by itself; the test waits for that and for nothing else.
#[tokio::test]
async fn a_head_that_does_not_end_is_closed() {
    let server = Loopback::start(impatient()).await;
    for beginning in [
        &b""[..],
        b"GET /v1/health HTT",
        b"GET / HTTP/1.1\r\nhost: x\r\n",
    ] {
        let mut stream = server.send(beginning).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn a_head_above_its_bounds_is_refused() {
    let server = server().await;
    let many: String = (0..65).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x-long: {}\r\n", "y".repeat(17 << 10));
    for headers in [many, long] {
        let answer = server.get("/v1/health", &headers).await;
        answer.assert_refused(431, "header_too_large");
    }
    let huge = format!("x-huge: {}\r\n", "y".repeat(200 << 10));
    assert_eq!(server.get("/v1/health", &huge).await.status, 431);
}

#[tokio::test]
async fn requests_and_connections_above_their_limits_are_turned_away() {
    let server = Loopback::start(Limits {
        connections_loopback: 1,
        requests_loopback: Rate {
            per_second: 0.001,
            burst: 1.0,
        },
        ..Limits::default()
    })
    .await;
    let mut first = server
        .send(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let mut status = [0; 12];
    first.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    server.ask(b"").await.assert_refused(503, "busy");
    first
        .write_all(b"GET /v1/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut rest = String::new();
    first.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("HTTP/1.1 429"), "{rest}");
    assert!(rest.contains("retry-after: "), "{rest}");
}

/// A reader that asks for much and takes nothing loses its connection, and its place.
#[tokio::test]
async fn a_reader_that_never_reads_is_dropped() {
    let server = Loopback::start(Limits {
        connections_loopback: 1,
        ..impatient()
    })
    .await;
    let id = server.blobs.put(&bytes(16 * MEBIBYTE)).unwrap();
    let request = format!("GET /v1/blobs/{id} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(4);
    let _idle = server.send(request.as_bytes()).await;
    // The only place is free again once the server has given the reader up.
    while server.get("/v1/health", "").await.status != 200 {}
}

/// The chain's process: its own route beside its health, for this machine only.
#[tokio::test]
async fn the_embedded_chain_answers_this_machine_and_no_web_page() {
    let spec = GenesisSpec::new(Netuid(1), Hotkey([1; 32]));
    let chain = LocalChain::in_memory(spec).unwrap();
    let (_health, shown) = watch::channel(Health {
        role: "chain".to_owned(),
        hotkey: None,
        block: None,
        cycle: None,
        state: None,
        version: "0".to_owned(),
    });
    let limits = Limits::default();
    let router = chain_router(chain, &limits).merge(health_router(shown));
    let (address, _stop, _served) = begin(router, limits).await;
    let post = async |headers: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "POST / HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        // A body that is refused for its length may not be taken whole.
        let _ = stream.write_all(request.as_bytes()).await;
        read_answer(stream).await
    };
    let question = r#"{"jsonrpc":"2.0","id":1,"method":"no_such_method"}"#;
    let answer = post("host: localhost\r\n", question).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["id"], 1);
    for web in [
        "host: evil.example\r\n",
        "host: localhost\r\norigin: http://evil.example\r\n",
    ] {
        post(web, question).await.assert_refused(404, "not_found");
    }
    let giant = " ".repeat((1 << 20) + 1);
    let refused = post("host: localhost\r\n", &giant).await;
    refused.assert_refused(413, "too_large");
}
