//! Miners: each has an update of its own, signs for it, offers it, and comes back when it is told to.
//!
//! All updates share one block of bytes and differ in the first 32, so that a thousand of them need the
//! memory of one. A miner asks before it sends, as the real client does (`Expect: 100-continue`).

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use connito_chain::btauth;
use connito_chain::keys::{Keypair, Signer};
use connito_node::refusal::{Refusal, RefusalCode};
use connito_node::upload::{BODY_HASH_HEADER, Received};
use connito_protocol::ids::{BlobId, Cycle};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::http::{Response, read_response};
use crate::{Outcome, network};

/// What is handed to the socket at once.
const PIECE_BYTES: usize = 1 << 18;
/// Bytes of an update that are its own.
const OWN_BYTES: usize = 32;
/// After a connection that broke: the validator is being started again.
const PAUSE: Duration = Duration::from_secs(1);
/// Just above the floor of 16 KiB a second (P-51).
const RIDER_BYTES: usize = 5 << 10;
const RIDER_PAUSE: Duration = Duration::from_millis(250);

/// What all updates have in common.
#[derive(Debug)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    pub(crate) fn new(bytes: u64) -> Self {
        let mut content = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        blake3::Hasher::new().finalize_xof().fill(&mut content);
        Self(content)
    }

    /// The update of one miner, in two parts.
    fn of(&self, number: u16) -> ([u8; OWN_BYTES], &[u8]) {
        let own = *blake3::hash(&number.to_le_bytes()).as_bytes();
        (own, self.0.get(OWN_BYTES..).unwrap_or_default())
    }
}

/// A miner with a finished update.
#[derive(Debug, Clone)]
pub(crate) struct Miner {
    pub(crate) number: u16,
    pub(crate) blob: BlobId,
    bytes: u64,
    sha256: String,
    keypair: Keypair,
}

impl Miner {
    fn new(number: u16, body: &Body) -> Self {
        let (own, rest) = body.of(number);
        let mut blob = blake3::Hasher::new();
        let mut sha256 = Sha256::new();
        for part in [&own[..], rest] {
            blob.update(part);
            sha256.update(part);
        }
        Self {
            number,
            blob: BlobId(*blob.finalize().as_bytes()),
            bytes: (own.len() + rest.len()) as u64,
            sha256: hex::encode(sha256.finalize()),
            keypair: network::miner(number),
        }
    }

    /// The signed head of an upload.
    fn head(&self, address: SocketAddr) -> Outcome<String> {
        let target = format!("/v1/uploads/{}/{}", Cycle(0), self.blob);
        let request = btauth::Request {
            method: "PUT",
            target: &target,
            body_sha256: &self.sha256,
        };
        let nonce = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let receiver = Some(network::validator().hotkey());
        let signed = btauth::sign(&self.keypair, &request, receiver, u64::try_from(nonce)?)?;
        let mut head = format!(
            "PUT {target} HTTP/1.1\r\nhost: {address}\r\nexpect: 100-continue\r\n\
             content-length: {}\r\n{BODY_HASH_HEADER}: {}\r\n",
            self.bytes, self.sha256
        );
        for (name, value) in signed.to_pairs() {
            head += &format!("{name}: {value}\r\n");
        }
        Ok(head + "\r\n")
    }

    /// Asks to upload. The answer says whether the body is wanted.
    pub(crate) async fn ask(&self, address: SocketAddr) -> Outcome<(TcpStream, Response)> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(self.head(address)?.as_bytes()).await?;
        let answer = read_response(&mut stream).await?;
        Ok((stream, answer))
    }

    async fn send(&self, stream: &mut TcpStream, body: &Body) -> io::Result<Response> {
        let (own, rest) = body.of(self.number);
        stream.write_all(&own).await?;
        for piece in rest.chunks(PIECE_BYTES) {
            stream.write_all(piece).await?;
        }
        read_response(stream).await
    }
}

/// The miners of some numbers, their updates hashed on all cores.
pub(crate) async fn all(numbers: Range<u16>, body: &Arc<Body>) -> Outcome<Vec<Miner>> {
    let hashing: Vec<_> = numbers
        .map(|number| {
            let body = Arc::clone(body);
            tokio::task::spawn_blocking(move || Miner::new(number, &body))
        })
        .collect();
    let mut miners = Vec::new();
    for miner in hashing {
        miners.push(miner.await?);
    }
    Ok(miners)
}

/// How a miner's upload went in the end.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// The miner's number.
    pub(crate) number: u16,
    /// Whether it was told that its update counts.
    pub(crate) accepted: bool,
    /// When, since the load began.
    pub(crate) after: Duration,
    /// How often it was told to come back.
    pub(crate) busy: u32,
    /// How often the connection broke.
    pub(crate) broken: u32,
    /// The refusal that ended its attempts.
    pub(crate) refused: Option<RefusalCode>,
}

/// Uploads, and comes back for as long as it is told to.
pub(crate) async fn upload(
    miner: Miner,
    body: Arc<Body>,
    address: watch::Receiver<SocketAddr>,
    begun: Instant,
) -> Outcome<Sent> {
    let mut sent = Sent {
        number: miner.number,
        accepted: false,
        after: Duration::ZERO,
        busy: 0,
        broken: 0,
        refused: None,
    };
    loop {
        let address = *address.borrow();
        let attempt = attempt(&miner, &body, address).await;
        sent.after = begun.elapsed();
        match attempt {
            Ok(Ok(received)) => {
                sent.accepted = received.blob == miner.blob;
                return Ok(sent);
            }
            Ok(Err(refusal)) => match (refusal.code, refusal.retry_after, &refusal.first) {
                // The answer to an earlier attempt was lost on the way; it counts all the same.
                (RefusalCode::AlreadySubmitted, _, Some(first)) if first.blob == miner.blob => {
                    sent.accepted = true;
                    return Ok(sent);
                }
                (_, Some(seconds), _) => {
                    sent.busy += 1;
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                }
                (code, ..) => {
                    sent.refused = Some(code);
                    return Ok(sent);
                }
            },
            Err(_) => {
                sent.broken += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn attempt(
    miner: &Miner,
    body: &Body,
    address: SocketAddr,
) -> Outcome<Result<Received, Refusal>> {
    let (mut stream, mut answer) = miner.ask(address).await?;
    if answer.status == 100 {
        answer = miner.send(&mut stream, body).await?;
    }
    Ok(match answer.status {
        201 => Ok(serde_json::from_slice(&answer.body)?),
        _ => Err(serde_json::from_slice(&answer.body)?),
    })
}

/// How a slow miner sends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Slowness {
    /// A byte a second.
    Trickle,
    /// A little above the floor.
    Rider,
}

/// Takes a place among the uploads and sends nothing yet.
pub(crate) async fn enter(miner: &Miner, address: SocketAddr) -> Outcome<TcpStream> {
    match miner.ask(address).await? {
        (stream, answer) if answer.status == 100 => Ok(stream),
        (_, answer) => Err(format!("a slow miner was answered {}", answer.status).into()),
    }
}

/// Uploads slowly from a place that was taken, and says after how long it was cut off.
pub(crate) async fn dawdle(
    mut stream: TcpStream,
    body: Arc<Body>,
    slowness: Slowness,
) -> Outcome<Duration> {
    let begun = Instant::now();
    let (piece, pause) = match slowness {
        Slowness::Trickle => (1, Duration::from_secs(1)),
        Slowness::Rider => (RIDER_BYTES, RIDER_PAUSE),
    };
    for piece in body.0.chunks(piece) {
        if stream.write_all(piece).await.is_err() {
            break;
        }
        // The answer to a client that is still sending is the refusal of a slow one.
        if tokio::time::timeout(pause, stream.peek(&mut [0]))
            .await
            .is_ok()
        {
            break;
        }
    }
    Ok(begun.elapsed())
}
