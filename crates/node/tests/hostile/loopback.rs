//! A real server on a loopback port, with a driver that says yes, and raw requests to it that no
//! well-behaved client would send.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use connito_chain::btauth;
use connito_chain::embedded::{EmbeddedChain, GenesisSpec};
use connito_chain::keys::{Keypair, Signer};
use connito_node::blobs::DiskBlobs;
use connito_node::receipts::Receipts;
use connito_node::server::{
    Exposed, Health, Limits, MinimumRate, Served, StateManifest, Uploads, chain_router, routes,
    serve,
};
use connito_node::upload::{Admission, BODY_HASH_HEADER, Decision, UploadWindow, Uploaded};
use connito_protocol::ids::{BlobId, Block, Cycle, Hotkey, Netuid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub(crate) const MEBIBYTE: usize = 1 << 20;
pub(crate) const CYCLE: Cycle = Cycle(7);
pub(crate) const MAX_UPLOAD: u64 = 64 << 20;

/// A server with its ordinary limits.
pub(crate) async fn server() -> Loopback {
    Loopback::start(Limits::default()).await
}

/// A server under test. Its uploads wait in `stored` until the test answers them.
pub(crate) struct Loopback {
    pub(crate) address: String,
    pub(crate) receiver: Hotkey,
    pub(crate) miner: Keypair,
    pub(crate) blobs: DiskBlobs,
    pub(crate) receipts: Receipts,
    pub(crate) admission: watch::Sender<Admission>,
    pub(crate) state: watch::Sender<Option<StateManifest>>,
    pub(crate) stored: mpsc::Receiver<Uploaded>,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) served: JoinHandle<()>,
    pub(crate) folder: tempfile::TempDir,
    _health: watch::Sender<Health>,
}

impl Loopback {
    /// A server with one registered miner and an open window.
    pub(crate) async fn start(limits: Limits) -> Self {
        Self::serving(limits, None).await
    }

    pub(crate) async fn serving(limits: Limits, served: Option<Served>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = DiskBlobs::open(folder.path().join("blobs")).unwrap();
        let receipts = Receipts::open(folder.path().join("receipts")).unwrap();
        let miner = Keypair::from_seed(&[1; 32]);
        let receiver = Keypair::from_seed(&[2; 32]).hotkey();
        let (admission, admission_shown) = watch::channel(Admission {
            cycle: CYCLE,
            window: UploadWindow::Open,
            max_bytes: MAX_UPLOAD,
            miners: BTreeSet::from([miner.hotkey()]),
            received: BTreeMap::new(),
        });
        let (health, health_shown) = watch::channel(Health {
            role: "validator".to_owned(),
            hotkey: Some(receiver),
            block: Some(Block(38)),
            cycle: Some(CYCLE),
            state: None,
            version: "0".to_owned(),
        });
        let (state, state_shown) = watch::channel(None);
        let (stored, uploaded) = mpsc::channel(4);
        let router = routes(
            Exposed {
                health: health_shown,
                state: state_shown,
                blobs: blobs.clone(),
                served,
                receipts: receipts.clone(),
                uploads: Some(Uploads {
                    receiver,
                    admission: admission_shown,
                    stored,
                }),
            },
            &limits,
        );
        let router = router.merge(chain_router(chain(), &limits));
        let (address, stop, served) = begin(router, limits).await;
        Self {
            address,
            receiver,
            miner,
            blobs,
            receipts,
            admission,
            state,
            stored: uploaded,
            stop,
            served,
            folder,
            _health: health,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Opens a connection and sends bytes on it.
    pub(crate) async fn send(&self, request: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        stream
    }

    /// Sends a whole request on its own connection and reads the answer to the end.
    pub(crate) async fn ask(&self, request: &[u8]) -> Answer {
        read_answer(self.send(request).await).await
    }

    /// Sends bytes on a connection of their own and reads every answer until the server closes it.
    pub(crate) async fn converse(&self, requests: &[u8]) -> Vec<Answer> {
        let mut stream = self.send(requests).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        split_answers(&bytes)
    }

    /// `GET` of a path exactly as given.
    pub(crate) async fn get(&self, path: &str, headers: &str) -> Answer {
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        self.ask(head.as_bytes()).await
    }

    /// Answers the next upload as a driver does: publish that it was received, then reply.
    pub(crate) async fn accept_next(&mut self) -> (Hotkey, BlobId, u64) {
        let uploaded = self.stored.recv().await.unwrap();
        let summary = (uploaded.hotkey, uploaded.blob, uploaded.bytes);
        self.admission.send_modify(|admission| {
            admission.received.insert(uploaded.hotkey, uploaded.blob);
        });
        // The client may be gone; what was journalled counts all the same.
        let _ = uploaded.reply.send(Decision::Accepted);
        summary
    }

    /// Files of writes under way.
    pub(crate) fn temporary_files(&self) -> usize {
        let temporary = self.folder.path().join("blobs/temporary");
        std::fs::read_dir(temporary).unwrap().count()
    }

    /// A correct upload request, to be spoiled by the test.
    pub(crate) fn upload_of(&self, body: &[u8]) -> RawUpload {
        RawUpload {
            target: format!("/v1/uploads/{CYCLE}/{}", BlobId::of(body)),
            body: body.to_vec(),
            signed_body: body.to_vec(),
            receiver: Some(self.receiver),
            signer: self.miner.clone(),
            nonce: now_ns(),
            length: format!("content-length: {}\r\n", body.len()),
            extra: String::new(),
        }
    }
}

/// A chain at rest, for the route that asks it.
fn chain() -> Arc<EmbeddedChain> {
    EmbeddedChain::in_memory(GenesisSpec::new(Netuid(1), Hotkey([1; 32]))).unwrap()
}

/// Serves any router on a free port.
pub(crate) async fn begin(
    router: axum::Router,
    limits: Limits,
) -> (String, oneshot::Sender<()>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(serve(listener, router, limits, async {
        let _ = stopped.await;
    }));
    (address, stop, served)
}

/// An upload request, every part of it free to be wrong.
pub(crate) struct RawUpload {
    pub(crate) target: String,
    pub(crate) body: Vec<u8>,
    pub(crate) signed_body: Vec<u8>,
    pub(crate) receiver: Option<Hotkey>,
    pub(crate) signer: Keypair,
    pub(crate) nonce: u64,
    pub(crate) length: String,
    pub(crate) extra: String,
}

impl RawUpload {
    pub(crate) fn head(&self) -> Vec<u8> {
        let body_sha256 = btauth::body_hash(&self.signed_body);
        let request = btauth::Request {
            method: "PUT",
            target: &self.target,
            body_sha256: &body_sha256,
        };
        let signed = btauth::sign(&self.signer, &request, self.receiver, self.nonce).unwrap();
        let mut head = format!(
            "PUT {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{}{}{BODY_HASH_HEADER}: {body_sha256}\r\n",
            self.target, self.length, self.extra
        );
        for (name, value) in signed.to_pairs() {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        head.into_bytes()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.head(), self.body.clone()].concat()
    }
}

/// An HTTP response, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Bytes,
}

impl Answer {
    fn new(head: &str, body: &[u8]) -> Self {
        Self {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: Bytes::copy_from_slice(body),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Asserts a refusal in its full form.
    #[track_caller]
    pub(crate) fn assert_refused(&self, status: u16, code: &str) {
        let shown = &self.body[..self.body.len().min(300)];
        let body = String::from_utf8_lossy(shown);
        assert_eq!(self.status, status, "{body}");
        assert_eq!(self.json()["code"], code, "{body}");
        assert!(self.json()["message"].is_string(), "{body}");
    }
}

/// Reads a response to the end that it states, or to the end of the connection.
pub(crate) async fn read_answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A server that refused a body may reset the connection after its answer; the answer counts.
    while !is_whole(&bytes) && matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {}
    let shown = || String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = split_head(&bytes).unwrap_or_else(|| panic!("no response: {:?}", shown()));
    Answer::new(head, body)
}

/// Responses that follow each other, each as long as it says.
fn split_answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some((head, rest)) = split_head(bytes) {
        let (body, next) = rest.split_at(stated_length(head).unwrap_or(0));
        answers.push(Answer::new(head, body));
        bytes = next;
    }
    assert!(bytes.is_empty(), "{:?}", String::from_utf8_lossy(bytes));
    answers
}

fn is_whole(bytes: &[u8]) -> bool {
    let Some((head, body)) = split_head(bytes) else {
        return false;
    };
    stated_length(head).is_some_and(|length| body.len() >= length)
}

fn stated_length(head: &str) -> Option<usize> {
    let mut lines = head.lines();
    lines.find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
}

fn split_head(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some((
        std::str::from_utf8(&bytes[..end]).unwrap(),
        &bytes[end + 4..],
    ))
}

/// Bytes of which no two mebibytes are equal.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 13 + i / 811) as u8).collect()
}

/// Nanoseconds since 1970, for the age of signatures.
fn now_ns() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since_1970.as_nanos()).unwrap()
}

/// A limit small enough that a test meets it without waiting.
pub(crate) fn impatient() -> Limits {
    Limits {
        head_timeout: Duration::from_millis(50),
        minimum_rate: MinimumRate {
            bytes_per_second: 16 << 10,
            window: Duration::from_millis(50),
        },
        ..Limits::default()
    }
}
