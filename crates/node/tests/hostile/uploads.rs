//! `PUT /v1/uploads/{cycle}/{id}`: who may send what, when, and what must survive.
//!
//! How the body comes is in `uploads/bodies.rs`, who signed it in `uploads/signatures.rs`, and where it
//! goes in `uploads/storage.rs`.

mod bodies;
mod signatures;
mod storage;

use connito_chain::keys::Keypair;
use connito_node::refusal::Refusal;
use connito_node::upload::{Decision, Received, UploadWindow};
use connito_protocol::ids::{BlobId, Block, Hotkey};
use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;

use crate::loopback::{CYCLE, MAX_UPLOAD, MEBIBYTE, RawUpload, bytes, read_answer, server};

#[tokio::test]
async fn an_upload_is_stored_before_the_driver_hears_of_it_and_acknowledged_only_after() {
    let mut server = server().await;
    let update = bytes(2 * MEBIBYTE + 77);
    let id = BlobId::of(&update);
    let stream = server.send(&server.upload_of(&update).bytes()).await;

    let uploaded = server.stored.recv().await.unwrap();
    assert_eq!((uploaded.blob, uploaded.cycle), (id, CYCLE));
    assert_eq!(uploaded.bytes, update.len() as u64);
    assert_eq!(server.blobs.get(&id).unwrap(), update);
    let mut nothing = [0; 1];
    assert!(stream.try_read(&mut nothing).is_err(), "no answer yet");

    uploaded.reply.send(Decision::Accepted).unwrap();
    let answer = read_answer(stream).await;
    assert_eq!(answer.status, 201);
    let received: Received = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((received.blob, received.hotkey), (id, uploaded.hotkey));
}

/// What should happen: each fault has its own code, and nothing of the body is kept.
async fn assert_refused(faults: &[(u16, &str, Spoil)]) {
    let server = server().await;
    for (status, code, spoil) in faults {
        let mut upload = server.upload_of(&bytes(MEBIBYTE + 5));
        spoil(&mut upload);
        let answer = server.ask(&upload.bytes()).await;
        answer.assert_refused(*status, code);
        let tells_time = answer.json()["server_time_ms"].is_u64();
        assert_eq!(tells_time, *code == "stale_request");
    }
    assert_eq!(server.blobs.ids().unwrap(), []);
    assert_eq!(server.temporary_files(), 0);
}

type Spoil = fn(&mut RawUpload);

fn other_path(cycle: &str) -> String {
    format!("/v1/uploads/{cycle}/{}", BlobId::of(b"other"))
}

#[tokio::test]
async fn an_upload_that_is_not_what_it_declares_is_refused_and_leaves_nothing() {
    assert_refused(&[
        (400, "malformed", |it| it.target = other_path("7")),
        (400, "malformed", |it| it.target = other_path("x")),
        (400, "malformed", |it| {
            it.target = "/v1/uploads/7/abc".to_owned()
        }),
        (411, "length_required", |it| it.length.clear()),
        (411, "length_required", |it| {
            it.length = "transfer-encoding: chunked\r\n".to_owned();
            it.body = b"5\r\nhello\r\n0\r\n\r\n".to_vec();
        }),
        (413, "too_large", |it| {
            it.length = format!("content-length: {}\r\n", MAX_UPLOAD + 1);
        }),
        (415, "unsupported_encoding", |it| {
            it.extra = "content-encoding: gzip\r\n".to_owned();
        }),
        (415, "unsupported_encoding", |it| {
            it.extra = "content-encoding: identity\r\n".to_owned();
        }),
        // There is no resuming: a part of an update is not an update.
        (400, "malformed", |it| {
            it.extra = "content-range: bytes 0-9/100\r\n".to_owned();
        }),
        (401, "bad_signature", |it| it.signed_body.push(0)),
    ])
    .await;
}

#[tokio::test]
async fn an_upload_by_the_wrong_sender_to_the_wrong_receiver_or_at_the_wrong_time_is_refused() {
    assert_refused(&[
        (403, "not_registered", |it| {
            it.signer = Keypair::from_seed(&[9; 32])
        }),
        (401, "wrong_receiver", |it| {
            it.receiver = Some(Hotkey([5; 32]))
        }),
        (401, "wrong_receiver", |it| it.receiver = None),
        (401, "stale_request", |it| it.nonce -= 11_000_000_000),
        (401, "stale_request", |it| it.nonce += 11_000_000_000),
        (410, "too_late", |it| it.target = other_path("6")),
        (425, "too_early", |it| it.target = other_path("8")),
    ])
    .await;
}

#[tokio::test]
async fn an_upload_outside_its_window_is_refused_with_the_reason() {
    let server = server().await;
    let early = UploadWindow::Early {
        opens_at: Block(353),
    };
    for (window, status, code) in [
        (early, 425, "too_early"),
        (UploadWindow::Closed, 410, "too_late"),
    ] {
        server.admission.send_modify(|it| it.window = window);
        let answer = server.ask(&server.upload_of(b"update").bytes()).await;
        answer.assert_refused(status, code);
        if status == 425 {
            assert!(answer.json()["message"].as_str().unwrap().contains("353"));
        }
    }
    assert_eq!(server.blobs.ids().unwrap(), []);
}

#[tokio::test]
async fn a_window_that_closes_during_an_upload_ends_it() {
    let server = server().await;
    let upload = server.upload_of(&bytes(4 * MEBIBYTE));
    let mut stream = server.send(&upload.head()).await;
    stream.write_all(&upload.body[..MEBIBYTE]).await.unwrap();
    while server.temporary_files() == 0 {
        tokio::task::yield_now().await;
    }
    server
        .admission
        .send_modify(|it| it.window = UploadWindow::Closed);
    let _ = stream.write_all(&upload.body[MEBIBYTE..]).await;
    read_answer(stream).await.assert_refused(410, "too_late");
    assert_eq!(server.blobs.ids().unwrap(), []);
    assert_eq!(server.temporary_files(), 0);
}

/// One verdict for a cycle and a hotkey: the first answer is repeated, whatever comes second.
#[tokio::test]
async fn a_second_upload_of_a_cycle_is_answered_with_the_first_answer() {
    let mut server = server().await;
    let first = server.send(&server.upload_of(b"update").bytes()).await;
    let accepted = server.accept_next().await;
    assert_eq!(read_answer(first).await.status, 201);
    for second in [&b"update"[..], b"another"] {
        let answer = server.ask(&server.upload_of(second).bytes()).await;
        answer.assert_refused(409, "already_submitted");
        let refusal: Refusal = serde_json::from_slice(&answer.body).unwrap();
        let repeated = refusal.first.unwrap();
        assert_eq!((repeated.hotkey, repeated.blob), (accepted.0, accepted.1));
    }
    assert!(!server.blobs.has(&BlobId::of(b"another")));
}

#[tokio::test]
async fn health_answers_and_a_second_upload_is_busy_while_one_is_under_way() {
    let mut server = server().await;
    let upload = server.upload_of(&bytes(2 * MEBIBYTE));
    let mut stream = server.send(&upload.head()).await;
    stream.write_all(&upload.body[..MEBIBYTE]).await.unwrap();
    while server.temporary_files() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.get("/v1/health", "").await.status, 200);
    let second = server.ask(&server.upload_of(b"update").bytes()).await;
    second.assert_refused(503, "busy");
    assert!(second.head.contains("retry-after: "), "{}", second.head);

    stream.write_all(&upload.body[MEBIBYTE..]).await.unwrap();
    server.accept_next().await;
    assert_eq!(read_answer(stream).await.status, 201);
}

/// What should happen: new connections end at once, a request being answered gets its answer.
#[tokio::test]
async fn a_shutdown_lets_an_upload_finish() {
    let mut server = server().await;
    let stream = server.send(&server.upload_of(b"update").bytes()).await;
    let uploaded = server.stored.recv().await.unwrap();
    server.stop.send(()).unwrap();
    tokio::task::yield_now().await;
    assert!(
        (&mut server.served).now_or_never().is_none(),
        "still draining"
    );
    uploaded.reply.send(Decision::Accepted).unwrap();
    assert_eq!(read_answer(stream).await.status, 201);
    server.served.await.unwrap();
}
