//! How the body of an upload comes: slowly, in crumbs, cut short, too long, or not at all.

use connito_protocol::ids::BlobId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::loopback::{Loopback, MEBIBYTE, bytes, impatient, read_answer, server};

#[tokio::test]
async fn a_body_below_the_minimum_rate_is_closed_as_a_slow_client() {
    let server = Loopback::start(impatient()).await;
    let upload = server.upload_of(&bytes(MEBIBYTE));
    let mut stream = server.send(&upload.head()).await;
    stream.write_all(&upload.body[..10]).await.unwrap();
    read_answer(stream).await.assert_refused(408, "slow_client");
    assert_eq!(server.temporary_files(), 0);
}

#[tokio::test]
async fn a_connection_cut_at_any_point_of_a_body_leaves_nothing() {
    let server = server().await;
    let upload = server.upload_of(&bytes(MEBIBYTE));
    let every_64_kib = (0..MEBIBYTE).step_by(64 << 10);
    for cut in every_64_kib.chain([1, (64 << 10) + 1, MEBIBYTE - 1]) {
        let mut upload = server.upload_of(&upload.body);
        upload.nonce += cut as u64;
        let mut stream = server.send(&upload.head()).await;
        stream.write_all(&upload.body[..cut]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        while server.temporary_files() != 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(server.blobs.ids().unwrap(), [], "cut after {cut} bytes");
    }
}

/// Crumbs are what the network makes of a body that is sent in crumbs. They cost their length.
#[tokio::test]
async fn a_body_in_single_bytes_is_the_same_body() {
    let mut server = server().await;
    let upload = server.upload_of(&bytes(2000));
    let mut stream = server.send(&upload.head()).await;
    stream.set_nodelay(true).unwrap();
    for byte in &upload.body {
        stream.write_all(&[*byte]).await.unwrap();
    }
    let (_, blob, length) = server.accept_next().await;
    assert_eq!((blob, length), (BlobId::of(&upload.body), 2000));
    assert_eq!(read_answer(stream).await.status, 201);
}

/// What should not happen: the rest being taken for a part of the update, or for a question.
#[tokio::test]
async fn what_follows_a_body_of_the_declared_length_is_not_a_part_of_it() {
    let mut server = server().await;
    let mut upload = server.upload_of(b"update");
    upload
        .body
        .extend(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n");
    let stream = server.send(&upload.bytes()).await;
    let (_, blob, length) = server.accept_next().await;
    assert_eq!((blob, length), (BlobId::of(b"update"), 6));
    let answer = read_answer(stream).await;
    assert_eq!(answer.status, 201);
    assert!(answer.body.ends_with(b"}"), "one answer");
}

/// A declared length that is longer than the body is a body that breaks off.
#[tokio::test]
async fn a_body_shorter_than_declared_is_malformed() {
    let server = server().await;
    let mut upload = server.upload_of(b"update");
    upload.length = "content-length: 7\r\n".to_owned();
    let mut stream = server.send(&upload.bytes()).await;
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP/1.1 2"));
    assert!(!server.blobs.has(&BlobId::of(b"update")));
}

/// Chunks have no length to reserve: they are refused before the first of them, and never waited for.
#[tokio::test]
async fn chunks_without_end_are_refused_at_once() {
    let server = server().await;
    let mut upload = server.upload_of(b"update");
    for length in [
        "transfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 6\r\n",
        "content-length: 6\r\ntransfer-encoding: chunked\r\n",
    ] {
        length.clone_into(&mut upload.length);
        let answer = server.ask(&upload.head()).await;
        answer.assert_refused(411, "length_required");
    }
}

#[tokio::test]
async fn an_empty_update_is_an_update_like_others() {
    let mut server = server().await;
    let stream = server.send(&server.upload_of(b"").bytes()).await;
    assert_eq!(server.accept_next().await.2, 0);
    assert_eq!(read_answer(stream).await.status, 201);
}

async fn interim(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// What should happen: a client that asks first is told to go on only after every check that needs no
/// body, and a refused one keeps its bytes.
#[tokio::test]
async fn a_client_that_asks_first_is_told_to_send_only_what_is_wanted() {
    let mut server = server().await;
    let mut upload = server.upload_of(b"update");
    upload.extra = "expect: 100-continue\r\n".to_owned();
    let mut late = server.upload_of(b"update");
    late.extra.clone_from(&upload.extra);
    late.target = late.target.replace("/7/", "/6/");
    let answer = server.ask(&late.head()).await;
    answer.assert_refused(410, "too_late");

    let mut stream = server.send(&upload.head()).await;
    assert!(interim(&mut stream).await.starts_with("HTTP/1.1 100 "));
    stream.write_all(&upload.body).await.unwrap();
    server.accept_next().await;
    assert_eq!(read_answer(stream).await.status, 201);
}

/// Nothing else can be expected of this server; who expects it is answered as if it had not.
#[tokio::test]
async fn an_unknown_expectation_changes_nothing() {
    let mut server = server().await;
    let mut upload = server.upload_of(b"update");
    upload.extra = "expect: a-miracle\r\n".to_owned();
    let stream = server.send(&upload.bytes()).await;
    server.accept_next().await;
    assert_eq!(read_answer(stream).await.status, 201);
}

/// As many as there are places, each with a byte; every place is free again by itself.
#[tokio::test]
async fn a_crowd_of_slow_senders_is_evicted_to_the_last() {
    let server = Loopback::start(impatient()).await;
    let upload = server.upload_of(&bytes(MEBIBYTE));
    let mut crowd = Vec::new();
    for n in 0..40 {
        let sender = connito_chain::keys::Keypair::from_seed(&[n + 50; 32]);
        let hotkey = connito_chain::keys::Signer::hotkey(&sender);
        server.admission.send_modify(|it| {
            it.miners.insert(hotkey);
        });
        let mut slow = server.upload_of(&upload.body);
        slow.signer = sender;
        let mut stream = server.send(&slow.head()).await;
        stream.write_all(b"x").await.unwrap();
        crowd.push(stream);
    }
    for stream in crowd {
        read_answer(stream).await.assert_refused(408, "slow_client");
    }
    assert_eq!(server.temporary_files(), 0);
}
