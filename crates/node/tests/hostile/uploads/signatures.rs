//! Whose an upload is: signed by the sender, for this receiver, once, and judged before its body.

use connito_chain::keys::{Keypair, Signer};
use connito_node::server::{Limits, Rate};
use connito_node::upload::BODY_HASH_HEADER;

use crate::loopback::{Loopback, MEBIBYTE, RawUpload, bytes, read_answer, server};

#[tokio::test]
async fn an_upload_whose_signature_is_missing_or_altered_is_refused() {
    let server = server().await;
    let head = String::from_utf8(server.upload_of(b"update").bytes()).unwrap();
    let without = |prefix: &str| -> String {
        head.split_inclusive("\r\n")
            .filter(|line| !line.starts_with(prefix))
            .collect()
    };
    for prefix in [
        "X-Bittensor-Signature",
        "X-Bittensor-Hotkey",
        BODY_HASH_HEADER,
    ] {
        let answer = server.ask(without(prefix).as_bytes()).await;
        answer.assert_refused(401, "bad_auth");
    }
    let other_path = head.replacen("/v1/uploads/7/", "/v1/uploads/7/./", 1);
    assert_eq!(server.ask(other_path.as_bytes()).await.status, 404);
    let other_query = head.replacen(" HTTP/1.1", "?x HTTP/1.1", 1);
    let answer = server.ask(other_query.as_bytes()).await;
    answer.assert_refused(401, "bad_signature");
}

#[tokio::test]
async fn a_request_that_is_captured_and_repeated_is_refused() {
    let mut server = server().await;
    let request = server.upload_of(b"update").bytes();
    let (answer, _) = tokio::join!(read_answer(server.send(&request).await), async {
        server.accept_next().await
    });
    assert_eq!(answer.status, 201);
    server.admission.send_modify(|it| it.received.clear());
    server
        .ask(&request)
        .await
        .assert_refused(401, "replayed_request");
}

/// Both copies come at once; which of them is first does not matter.
#[tokio::test]
async fn of_two_equal_requests_at_once_one_is_a_replay() {
    let mut server = server().await;
    let request = server.upload_of(b"update").bytes();
    let (one, other) = tokio::join!(server.send(&request), server.send(&request));
    server.accept_next().await;
    let mut answers = [read_answer(one).await, read_answer(other).await];
    answers.sort_by_key(|answer| answer.status);
    assert_eq!(answers[0].status, 201);
    answers[1].assert_refused(401, "replayed_request");
}

/// What should not happen: a stranger who signs wrongly in a participant's name using up its rate, its
/// nonces or its place.
#[tokio::test]
async fn a_flood_of_forged_signatures_costs_the_forged_sender_nothing() {
    let mut server = Loopback::start(Limits {
        requests_per_hotkey: Rate {
            per_second: 0.001,
            burst: 1.0,
        },
        ..Limits::default()
    })
    .await;
    let forge = |upload: RawUpload| {
        let head = String::from_utf8(upload.head()).unwrap();
        let (before, signature) = head.split_once("Signature: 0x").unwrap();
        format!(
            "{before}Signature: 0x{}{}",
            "0".repeat(64),
            &signature[64..]
        )
    };
    for _ in 0..100 {
        let forged = forge(server.upload_of(b"update"));
        server
            .ask(forged.as_bytes())
            .await
            .assert_refused(401, "bad_signature");
    }
    let honest = server.send(&server.upload_of(b"update").bytes()).await;
    server.accept_next().await;
    assert_eq!(read_answer(honest).await.status, 201);
}

/// What should not happen: one hotkey's flood being charged to another.
#[tokio::test]
async fn a_hotkey_above_its_rate_is_told_when_to_come_back_and_others_are_not() {
    let mut server = Loopback::start(Limits {
        requests_per_hotkey: Rate {
            per_second: 0.001,
            burst: 2.0,
        },
        ..Limits::default()
    })
    .await;
    let other = Keypair::from_seed(&[3; 32]);
    let registered = other.hotkey();
    server.admission.send_modify(|it| {
        it.miners.insert(registered);
    });
    let closed = |upload: &mut RawUpload| upload.target = upload.target.replace("/7/", "/6/");
    for _ in 0..2 {
        let mut late = server.upload_of(b"update");
        closed(&mut late);
        server
            .ask(&late.bytes())
            .await
            .assert_refused(410, "too_late");
    }
    let answer = server.ask(&server.upload_of(b"update").bytes()).await;
    answer.assert_refused(429, "rate_limited");
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);

    let mut honest = server.upload_of(b"update");
    honest.signer = other;
    let stream = server.send(&honest.bytes()).await;
    server.accept_next().await;
    assert_eq!(read_answer(stream).await.status, 201);
}

/// A header that is there twice is two answers to one question, even if one of them is not text.
#[tokio::test]
async fn a_header_of_the_signature_given_twice_is_refused() {
    let server = server().await;
    for name in ["Version", "Hotkey", "Receiver", "Nonce", "Signature"] {
        for second in ["1", "\u{fc}"] {
            let head = String::from_utf8(server.upload_of(b"update").bytes()).unwrap();
            let doubled = format!("\r\nX-Bittensor-{name}: {second}\r\n");
            let twice = head.replacen("\r\n", &doubled, 1);
            let answer = server.ask(twice.as_bytes()).await;
            answer.assert_refused(401, "bad_auth");
        }
    }
    let head = String::from_utf8(server.upload_of(b"update").bytes()).unwrap();
    let twice = head.replacen("\r\n", &format!("\r\n{BODY_HASH_HEADER}: 00\r\n"), 1);
    server
        .ask(twice.as_bytes())
        .await
        .assert_refused(401, "bad_auth");
}

/// What is not how such a header is written is not guessed at.
#[tokio::test]
async fn a_header_of_the_signature_in_another_spelling_is_refused() {
    let server = server().await;
    let head = String::from_utf8(server.upload_of(b"update").bytes()).unwrap();
    let value_of = |name: &str| {
        let (_, rest) = head.split_once(&format!("X-Bittensor-{name}: ")).unwrap();
        rest.split_once("\r\n").unwrap().0.to_owned()
    };
    let (nonce, signature, hotkey) = (value_of("Nonce"), value_of("Signature"), value_of("Hotkey"));
    for (name, other) in [
        ("Version", "2".to_owned()),
        ("Version", String::new()),
        ("Nonce", format!("0{nonce}")),
        ("Nonce", format!("+{nonce}")),
        ("Nonce", format!("{nonce}0000000000")),
        ("Nonce", "-1".to_owned()),
        ("Nonce", "1e18".to_owned()),
        ("Signature", signature[2..].to_owned()),
        ("Signature", signature[..100].to_owned()),
        ("Signature", format!("{signature}00")),
        ("Signature", signature.replacen("0x", "0X", 1)),
        ("Hotkey", hotkey.to_lowercase()),
        ("Hotkey", format!("{hotkey}1")),
        ("Hotkey", "../../key".to_owned()),
        ("Receiver", "-".to_owned()),
        ("Receiver", "x".repeat(9000)),
    ] {
        let line = |value: &str| format!("X-Bittensor-{name}: {value}\r\n");
        let spoilt = head.replacen(&line(&value_of(name)), &line(&other), 1);
        let answer = server.ask(spoilt.as_bytes()).await;
        answer.assert_refused(401, "bad_auth");
        assert!(answer.body.len() < 500);
    }
}

/// Everything that can be refused by the head is refused by the head: of a body that is promised
/// and never sent, nothing is waited for.
#[tokio::test]
async fn a_refusal_does_not_wait_for_the_body() {
    let server = server().await;
    let spoilt: [fn(&mut RawUpload); 5] = [
        |it| it.signer = Keypair::from_seed(&[9; 32]),
        |it| it.receiver = None,
        |it| it.nonce -= 11_000_000_000,
        |it| it.length = "content-length: 99999999999999\r\n".to_owned(),
        |it| it.target = it.target.replace("/7/", "/8/"),
    ];
    for spoil in spoilt {
        let mut upload = server.upload_of(&bytes(MEBIBYTE));
        spoil(&mut upload);
        let answer = server.ask(&upload.head()).await;
        assert!((400..500).contains(&answer.status), "{answer:?}");
    }
}
