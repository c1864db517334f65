//! Connections: how many there may be, how long they may say nothing, and what is no request at all.

use std::time::Duration;

use connito_node::server::{Limits, Rate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::loopback::{Loopback, impatient, server};

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

/// A connection that has been answered and asks nothing more does not stay.
#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = Loopback::start(impatient()).await;
    let request = b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n";
    let answers = server.converse(request).await;
    assert_eq!(answers.len(), 1, "answered, and then closed by the server");
}

/// Places are counted however a connection ends; what was taken in any way is given back.
#[tokio::test]
async fn a_place_is_given_back_however_the_connection_ended() {
    let server = Loopback::start(Limits {
        connections_loopback: 1,
        ..impatient()
    })
    .await;
    for rude in [
        &b""[..],
        b"GET /v1/health HTTP/1.1\r\nho",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PUT /v1/uploads/7/x HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"\0\0\0\0",
    ] {
        drop(server.send(rude).await);
        // Until the server has noticed, the only place is taken.
        while server.get("/v1/health", "").await.status != 200 {}
    }
}

/// What is no HTTP/1.1 gets an empty refusal and the end of the connection, never an answer.
#[tokio::test]
async fn bytes_that_are_no_request_are_refused_and_the_connection_ends() {
    let server = Loopback::start(impatient()).await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET  /v1/health  HTTP/1.1\r\n\r\n",
        b"GET /v1/health HTTP/1.1 x\r\n\r\n",
        b"GET /v1/he\0lth HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/he alth HTTP/1.1\r\nhost: x\r\n\r\n",
        b" GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nho\0st: x\r\n\r\n",
        b"GET http:///v1/health HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET * HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let answers = server.converse(bytes).await;
        let shown = String::from_utf8_lossy(bytes);
        assert!(answers.len() <= 1, "{shown:?}: {answers:?}");
        assert!(
            answers.iter().all(|answer| answer.status >= 400),
            "{shown:?}: {answers:?}"
        );
    }
}

/// What should happen: what is being answered is answered; what has not asked yet is closed.
#[tokio::test]
async fn a_stopping_server_closes_idle_connections_at_once() {
    let server = Loopback::start(Limits {
        head_timeout: Duration::from_secs(3600),
        drain: Duration::from_secs(3600),
        ..Limits::default()
    })
    .await;
    let mut idle = server
        .send(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let mut status = [0; 12];
    idle.read_exact(&mut status).await.unwrap();
    server.stop.send(()).unwrap();
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    server.served.await.unwrap();
}
