//! `GET /` as a WebSocket: the embedded chain with subscriptions, for this machine and no web page.

use std::sync::Arc;
use std::time::Duration;

use connito_chain::embedded::{EmbeddedChain, GenesisSpec};
use connito_node::server::{Limits, chain_router};
use connito_protocol::ids::{Hotkey, Netuid};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::loopback::{Answer, begin, read_answer};

const LOCAL: &str = "host: localhost\r\n";
const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// What RFC 6455 says is the answer to that key.
const ACCEPTED: &str = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

struct Server {
    chain: Arc<EmbeddedChain>,
    address: String,
    stop: oneshot::Sender<()>,
}

async fn server() -> Server {
    let spec = GenesisSpec::new(Netuid(1), Hotkey([1; 32]));
    let chain = EmbeddedChain::in_memory(spec).unwrap();
    let limits = Limits::default();
    let router = chain_router(Arc::clone(&chain), &limits);
    let (address, stop, _) = begin(router, limits).await;
    Server {
        chain,
        address,
        stop,
    }
}

impl Server {
    async fn request(&self, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    async fn refused(&self, headers: &str) -> Answer {
        read_answer(self.request(headers).await).await
    }

    async fn socket(&self) -> Socket {
        let mut stream = self.request(&format!("{LOCAL}{UPGRADE}")).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains(ACCEPTED), "{head}");
        Socket(stream)
    }
}

/// A whole message under a mask of zeros.
fn frame(text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | 127];
    frame.extend_from_slice(&(text.len() as u64).to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text);
    frame
}

/// The client's side, as little of it as the tests need.
struct Socket(TcpStream);

impl Socket {
    async fn send(&mut self, text: &[u8]) {
        // The server may have had enough of it before its end.
        let _ = self.0.write_all(&frame(text)).await;
    }

    /// The next message; none if the server closes instead.
    async fn next(&mut self) -> Option<Value> {
        let kind = self.0.read_u8().await.ok()?;
        let length = match self.0.read_u8().await.ok()? {
            126 => u64::from(self.0.read_u16().await.ok()?),
            127 => self.0.read_u64().await.ok()?,
            short => short.into(),
        };
        let mut content = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut content).await.ok()?;
        (kind == 0x81).then(|| serde_json::from_slice(&content).unwrap())
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.send(body.to_string().as_bytes()).await;
        self.next().await.unwrap()
    }

    async fn assert_closed(mut self) {
        let closed = tokio::time::timeout(Duration::from_secs(20), self.next());
        assert_eq!(closed.await, Ok(None));
    }
}

#[tokio::test]
async fn a_socket_answers_and_tells_of_blocks() {
    let server = server().await;
    let mut socket = server.socket().await;
    let name = socket.ask("system_chainType", json!([])).await;
    assert_eq!(name["result"], "Local");
    let id = socket.ask("chain_subscribeNewHeads", json!([])).await;
    let first = socket.next().await.unwrap();
    assert_eq!(first["params"]["subscription"], id["result"]);
    server.chain.advance(3).unwrap();
    for number in ["0x1", "0x2", "0x3"] {
        let told = socket.next().await.unwrap();
        assert_eq!(told["method"], "chain_newHead");
        assert_eq!(told["params"]["result"]["number"], number);
    }
    let metadata = json!(["Metadata_metadata_at_version", "0x0f000000"]);
    let metadata = socket.ask("state_call", metadata).await;
    assert!(metadata["result"].as_str().unwrap().len() > 100_000);
}

#[tokio::test]
async fn a_rebound_name_or_a_web_page_opens_no_socket() {
    let server = server().await;
    for foreign in [
        "",
        "host: evil.example\r\n",
        "host: localhost\r\norigin: http://evil.example\r\n",
        "host: localhost\r\norigin: null\r\n",
    ] {
        let answer = server.refused(&format!("{foreign}{UPGRADE}")).await;
        answer.assert_refused(404, "not_found");
    }
    // Nor is there a page.
    let answer = server
        .refused(&format!("{LOCAL}connection: close\r\n"))
        .await;
    answer.assert_refused(404, "not_found");
}

/// What should happen: an error of JSON-RPC for what is no question, and the end for what is no message.
#[tokio::test]
async fn nonsense_is_answered_and_what_is_too_large_ends_the_socket() {
    let server = server().await;
    let mut socket = server.socket().await;
    for nonsense in ["", "7", "[]", "{", &"[".repeat(100_000)] {
        socket.send(nonsense.as_bytes()).await;
        let answer = socket.next().await.unwrap();
        assert!(answer["error"]["code"].is_i64(), "{answer}");
    }
    socket.send(&vec![b' '; (1 << 20) + 1]).await;
    socket.assert_closed().await;

    let mut unmasked = server.socket().await;
    unmasked.0.write_all(&[0x81, 2, b'{', b'}']).await.unwrap();
    unmasked.assert_closed().await;
}

#[tokio::test]
async fn there_are_so_many_sockets_and_no_more_until_one_is_closed() {
    let server = server().await;
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(server.socket().await);
    }
    let answer = server.refused(&format!("{LOCAL}{UPGRADE}")).await;
    answer.assert_refused(503, "busy");
    drop(open.pop());
    let mut another = None;
    while another.is_none() {
        let mut stream = server.request(&format!("{LOCAL}{UPGRADE}")).await;
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        another = (&start == b"HTTP/1.1 101").then_some(stream);
    }
}

/// What should not happen: that questions which keep coming hold notifications up until the last is answered.
#[tokio::test]
async fn whoever_never_stops_asking_is_told_of_blocks_in_between() {
    let server = server().await;
    let mut socket = server.socket().await;
    let asking = |method: &str| {
        let question = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": [] });
        frame(question.to_string().as_bytes())
    };
    let mut questions = asking("chain_subscribeNewHeads");
    questions.extend(asking("system_name").repeat(40));
    socket.0.write_all(&questions).await.unwrap();
    let mut answered = 0;
    while socket.next().await.unwrap()["method"].is_null() {
        answered += 1;
    }
    assert!(answered < 41, "the notification came last");
}

/// What should not happen: a server that has stopped and still tells of blocks.
#[tokio::test]
async fn sockets_end_with_the_server() {
    let server = server().await;
    let mut socket = server.socket().await;
    socket.ask("chain_subscribeNewHeads", json!([])).await;
    socket.next().await.unwrap();
    server.stop.send(()).unwrap();
    socket.assert_closed().await;
}
