//! The same client over HTTP, against a server just large enough for it.

use std::sync::Arc;

use connito_chain::embedded::EmbeddedChain;
use connito_chain::rpc::{HttpTransport, RpcTransport};
use connito_chain::subtensor::{Connection, SubtensorChain};
use connito_chain::{Chain, ChainError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::network::*;

/// Answers one request per connection, then closes it.
async fn serve(listener: TcpListener, chain: Option<Arc<EmbeddedChain>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream, chain.clone()));
    }
}

async fn answer(mut stream: TcpStream, chain: Option<Arc<EmbeddedChain>>) {
    let mut request = Vec::new();
    let body = loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.unwrap();
        request.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&request).to_lowercase();
        let Some(head) = text.find("\r\n\r\n") else {
            continue;
        };
        let length = text
            .split("content-length: ")
            .nth(1)
            .unwrap()
            .split("\r\n")
            .next()
            .unwrap();
        let length: usize = length.parse().unwrap();
        if request.len() >= head + 4 + length {
            break request.split_off(head + 4);
        }
    };
    let (status, answer) = match chain {
        Some(chain) => {
            let answer = chain.handle_async(&body).await;
            // The clock of this test: every submission is followed by a block.
            if String::from_utf8_lossy(&body).contains("author_submitExtrinsic") {
                chain.advance(1).unwrap();
            }
            ("200 OK", answer)
        }
        None => ("503 Service Unavailable", Vec::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&answer).await.unwrap();
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test]
async fn an_operation_lands_over_http() {
    let chain = EmbeddedChain::in_memory(spec()).unwrap();
    let (listener, url) = listen().await;
    tokio::spawn(serve(listener, Some(Arc::clone(&chain))));
    let client = SubtensorChain::connect(HttpTransport::new(&url).unwrap(), Connection::default())
        .await
        .unwrap();
    assert_eq!(client.identity(), chain.identity());
    let receipt = client
        .submit(&pair(MINER), commit("over the wire"))
        .await
        .unwrap();
    assert_eq!(receipt.included.hash, chain.head().hash);
}

#[tokio::test]
async fn every_failure_names_the_url() {
    let (listener, url) = listen().await;
    tokio::spawn(serve(listener, None));
    let broken = SubtensorChain::connect(HttpTransport::new(&url).unwrap(), Connection::default())
        .await
        .unwrap_err();
    let expected = format!("chain endpoint {url}: answered with status 503 Service Unavailable");
    assert_eq!(broken.to_string(), expected);

    let (listener, url) = listen().await;
    drop(listener);
    let absent = SubtensorChain::connect(HttpTransport::new(&url).unwrap(), Connection::default())
        .await
        .unwrap_err();
    assert_eq!(
        absent.to_string(),
        format!("chain endpoint {url}: cannot connect")
    );
    assert!(matches!(absent, ChainError::Transport(error) if error.retry));
}

#[test]
fn a_text_that_is_no_http_url_is_refused_before_anything_is_sent() {
    for text in ["localhost:9944", "ftp://127.0.0.1:9944", "not a url"] {
        let error = HttpTransport::new(text).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("chain endpoint {text}: not the URL of a chain")),
            "{error}"
        );
        assert!(!error.retry);
    }
    let transport = HttpTransport::new("http://127.0.0.1:9944").unwrap();
    assert_eq!(transport.endpoint(), "http://127.0.0.1:9944");
}

/// What should not happen: a password or a provider's key in a log or in a report that is passed on.
#[test]
fn an_address_is_shown_without_what_lets_its_user_in() {
    for (address, shown) in [
        (
            "https://me:secret@rpc.example/v1/KEY?key=KEY#KEY",
            "https://rpc.example",
        ),
        ("wss://rpc.example:444/KEY", "wss://rpc.example:444"),
        ("ws://secret@[::1]:9944", "ws://[::1]:9944"),
    ] {
        assert_eq!(HttpTransport::new(address).unwrap().endpoint(), shown);
    }
    for (address, shown) in [
        ("ftp://me:secret@rpc.example/KEY", "ftp://rpc.example"),
        (
            "https://me:sec/ret@rpc.example:x/KEY",
            "https://rpc.example:x",
        ),
        ("me:secret@rpc.example/KEY", "rpc.example"),
        ("rpc.example/KEY", "rpc.example"),
    ] {
        assert_eq!(HttpTransport::new(address).unwrap_err().endpoint, shown);
    }
}

/// What should not happen: that an answer decides where the operator's requests go next.
#[tokio::test]
async fn no_redirect_is_followed() {
    let (listener, url) = listen().await;
    let (elsewhere, other) = listen().await;
    let redirecting = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let answer = format!(
            "HTTP/1.1 307 -\r\nlocation: {other}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
    };
    let transport = HttpTransport::new(&url).unwrap();
    let asking = transport.call(b"{}".to_vec());
    tokio::select! {
        (answer, ()) = async { tokio::join!(asking, redirecting) } => {
            let refused = answer.unwrap_err().to_string();
            assert!(refused.contains("307"), "{refused}");
        }
        _ = elsewhere.accept() => panic!("asked elsewhere"),
    }
}

/// Time is paused: with nothing to do, the clock jumps to the client's own deadline.
#[tokio::test(start_paused = true)]
async fn a_socket_that_never_answers_is_given_up() {
    let (listener, url) = listen().await;
    let hanging = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = [0; 4096];
        while stream.read(&mut heard).await.is_ok_and(|count| count > 0) {}
    };
    let transport = HttpTransport::new(&url).unwrap();
    let (answer, ()) = tokio::join!(transport.call(b"{}".to_vec()), hanging);
    let error = answer.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("chain endpoint {url}: no answer in time")
    );
    assert!(error.retry);
}

/// What should not happen: that the beginning of an answer is taken for all of it.
#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    let (listener, url) = listen().await;
    let dropping = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        let half = b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n{\"jsonrpc\":\"2.0\"";
        stream.write_all(half).await.unwrap();
    };
    let transport = HttpTransport::new(&url).unwrap();
    let (answer, ()) = tokio::join!(transport.call(b"{}".to_vec()), dropping);
    assert_eq!(
        answer.unwrap_err().to_string(),
        format!("chain endpoint {url}: the answer broke off")
    );
}

/// A server that goes on for ever is left when it has said more than any chain has to say.
#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let (listener, url) = listen().await;
    let endless = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let chunk = vec![b' '; 1 << 20];
        while stream.write_all(&chunk).await.is_ok() {}
    };
    let transport = HttpTransport::new(&url).unwrap();
    let (answer, ()) = tokio::join!(transport.call(b"{}".to_vec()), endless);
    assert_eq!(
        answer.unwrap_err().to_string(),
        format!("chain endpoint {url}: the answer is too large")
    );
}
