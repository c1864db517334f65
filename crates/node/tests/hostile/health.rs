//! `GET /v1/health`: short, and there while everything else is not.

use connito_chain::keys::{Keypair, Signer};
use connito_node::server::{Health, Limits};
use connito_protocol::ids::Block;
use tokio::io::AsyncWriteExt;

use crate::loopback::{Loopback, MEBIBYTE, bytes, read_answer, server};

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

/// Every place for an upload is taken, one sender has stalled, and the driver answers nobody.
#[tokio::test]
async fn health_answers_while_every_place_for_uploads_is_taken_and_the_driver_hangs() {
    let server = Loopback::start(Limits {
        uploads_in_flight: 2,
        ..Limits::default()
    })
    .await;
    let other = Keypair::from_seed(&[3; 32]);
    let register = other.hotkey();
    server.admission.send_modify(|it| {
        it.miners.insert(register);
    });
    let stalled = server.upload_of(&bytes(MEBIBYTE));
    let mut first = server.send(&stalled.head()).await;
    first.write_all(&stalled.body[..7]).await.unwrap();
    let mut undecided = server.upload_of(b"update");
    undecided.signer = other;
    let _second = server.send(&undecided.bytes()).await;
    while !server
        .blobs
        .has(&connito_protocol::ids::BlobId::of(b"update"))
        || server.temporary_files() == 0
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.get("/v1/health", "").await.status, 200);
    let third = server.ask(&server.upload_of(b"third").bytes()).await;
    third.assert_refused(503, "busy");
}

/// What should not happen: a body that nobody asked for being read, or taken for a second request.
#[tokio::test]
async fn a_body_that_nobody_asked_for_neither_delays_nor_confuses() {
    let server = server().await;
    let never_sent = b"GET /v1/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        content-length: 1000000000\r\n\r\n";
    let answer = read_answer(server.send(never_sent).await).await;
    assert_eq!(answer.status, 200);
    let hidden =
        b"GET /v1/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 36\r\n\r\n\
        GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_eq!(server.converse(hidden).await.len(), 1);
}
