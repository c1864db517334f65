//! Where an upload goes: what the driver decides of it, and what happens when the disk does not take it.

use connito_chain::keys::{Keypair, Signer};
use connito_node::refusal::{Refusal, RefusalCode};
use connito_node::server::Limits;
use connito_node::upload::Decision;
use connito_protocol::ids::BlobId;

use crate::loopback::{Loopback, MEBIBYTE, bytes, read_answer, server};

#[tokio::test]
async fn the_driver_s_refusal_is_the_answer_and_a_driver_that_is_gone_means_busy() {
    let mut server = server().await;
    let stream = server.send(&server.upload_of(b"update").bytes()).await;
    let uploaded = server.stored.recv().await.unwrap();
    let refusal = Refusal::new(RefusalCode::WrongGroup, "group 3 is yours");
    uploaded.reply.send(Decision::Refused(refusal)).unwrap();
    read_answer(stream).await.assert_refused(403, "wrong_group");

    let stream = server.send(&server.upload_of(b"update").bytes()).await;
    drop(server.stored.recv().await.unwrap());
    read_answer(stream).await.assert_refused(503, "busy");
    server.stored.close();
    let answer = server.ask(&server.upload_of(b"update").bytes()).await;
    answer.assert_refused(503, "busy");
}

/// What should happen: bytes that were stored for nothing are gone before the refusal is read; bytes
/// that the driver has a use for, or that were there before, stay.
#[tokio::test]
async fn a_refused_upload_leaves_nothing_that_was_not_needed_before() {
    let mut server = server().await;
    let refusal = || Refusal::new(RefusalCode::TooLate, "closed");
    let (unwanted, known) = (b"unwanted", b"known at the driver");
    let before = server.blobs.put(b"here before").unwrap();
    for (update, decision, stays) in [
        (&unwanted[..], Decision::Refused(refusal()), false),
        (&known[..], Decision::RefusedButKept(refusal()), true),
        (b"here before", Decision::Refused(refusal()), true),
    ] {
        let stream = server.send(&server.upload_of(update).bytes()).await;
        let uploaded = server.stored.recv().await.unwrap();
        assert!(
            server.blobs.has(&uploaded.blob),
            "stored before it is decided"
        );
        uploaded.reply.send(decision).unwrap();
        read_answer(stream).await.assert_refused(410, "too_late");
        assert_eq!(server.blobs.has(&BlobId::of(update)), stays);
    }
    assert!(server.blobs.has(&before));
}

/// What should not happen: a sender that leaves before its answer filling the disk with what was
/// refused.
#[tokio::test]
async fn a_refused_upload_leaves_nothing_even_if_its_sender_has_left() {
    let mut server = Loopback::start(Limits {
        connections_loopback: 1,
        ..Limits::default()
    })
    .await;
    let stream = server.send(&server.upload_of(b"update").bytes()).await;
    let uploaded = server.stored.recv().await.unwrap();
    drop(stream);
    // The only place is free again once the server has noticed.
    while server.get("/v1/health", "").await.status != 200 {}
    assert!(server.blobs.has(&uploaded.blob), "not decided yet");
    let refusal = Refusal::new(RefusalCode::NotRegistered, "no seal");
    uploaded.reply.send(Decision::Refused(refusal)).unwrap();
    while server.blobs.has(&uploaded.blob) {
        tokio::task::yield_now().await;
    }
}

/// Two hotkeys send the same bytes. What should not happen: the refusal of one taking them from the
/// other, whose upload is accepted afterwards.
#[tokio::test]
async fn a_refusal_does_not_take_another_upload_s_bytes() {
    let mut server = server().await;
    let other = Keypair::from_seed(&[3; 32]);
    let registered = other.hotkey();
    server.admission.send_modify(|it| {
        it.miners.insert(registered);
    });
    let first = server.send(&server.upload_of(b"update").bytes()).await;
    let refused = server.stored.recv().await.unwrap();
    let mut same = server.upload_of(b"update");
    same.signer = other;
    let second = server.send(&same.bytes()).await;
    let accepted = server.stored.recv().await.unwrap();

    let refusal = Refusal::new(RefusalCode::NotRegistered, "no seal");
    refused.reply.send(Decision::Refused(refusal)).unwrap();
    read_answer(first)
        .await
        .assert_refused(403, "not_registered");
    accepted.reply.send(Decision::Accepted).unwrap();
    assert_eq!(read_answer(second).await.status, 201);
    assert_eq!(server.blobs.get(&BlobId::of(b"update")).unwrap(), b"update");
}

/// A file stands where a folder belongs, so the system refuses the first write, or the last.
/// What should happen: the client is told to come back, nothing stays behind, other requests go on, and
/// the same upload is accepted when the disk is well again. What should not: anything accepted lost.
#[tokio::test]
async fn a_disk_that_refuses_costs_a_retry_and_nothing_accepted() {
    let mut server = server().await;
    let accepted = server.send(&server.upload_of(b"accepted").bytes()).await;
    server.accept_next().await;
    assert_eq!(read_answer(accepted).await.status, 201);
    server.admission.send_modify(|it| it.received.clear());

    let update = bytes(MEBIBYTE + 1);
    let root = server.folder.path().join("blobs");
    let shelf = root.join(&BlobId::of(&update).to_string()[..2]);
    for in_the_way in [root.join("temporary"), shelf] {
        let aside = root.join("aside");
        let was_there = std::fs::rename(&in_the_way, &aside).is_ok();
        std::fs::write(&in_the_way, b"").unwrap();
        let answer = server.ask(&server.upload_of(&update).bytes()).await;
        answer.assert_refused(503, "busy");
        assert!(answer.head.contains("retry-after: "), "{}", answer.head);
        assert_eq!(server.get("/v1/health", "").await.status, 200);
        std::fs::remove_file(&in_the_way).unwrap();
        if was_there {
            std::fs::rename(&aside, &in_the_way).unwrap();
        }
        assert_eq!(server.temporary_files(), 0);
    }
    let again = server.send(&server.upload_of(&update).bytes()).await;
    server.accept_next().await;
    assert_eq!(read_answer(again).await.status, 201);
    assert_eq!(
        server.blobs.get(&BlobId::of(b"accepted")).unwrap(),
        b"accepted"
    );
}

/// Space is looked for before a body is read, so that uploads cannot take the last of it.
#[tokio::test]
async fn an_upload_that_the_disk_has_no_room_for_is_told_to_come_back() {
    let server = Loopback::start(Limits {
        disk_reserve: u64::MAX,
        ..Limits::default()
    })
    .await;
    let answer = server.ask(&server.upload_of(b"update").head()).await;
    answer.assert_refused(503, "busy");
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    assert_eq!(server.temporary_files(), 0);
    assert_eq!(server.get("/v1/health", "").await.status, 200);
}
