//! Uploading an update: signed, offered, and sent when the receiver wants it.
//!
//! ```text
//! PUT, headers, Expect: 100-continue ──▶
//!                                   ◀── a refusal: nothing was sent, nothing is lost
//!                                   ◀── 100 Continue: it passed every check that needs no body
//! the body, a verified mebibyte at a time ──▶
//!                                   ◀── 201 Received, or a refusal
//! ```
//!
//! The body's SHA-256 is part of what is signed, so the blob is read twice: once to hash it, once to
//! send it. Each attempt signs a fresh nonce. Asking first spares both sides the bytes of a refused
//! update, and spares the refusal from being lost: a receiver that closes on a sender that is still
//! sending resets the connection, and the reset may overtake the answer.
//!
//! Written against hyper's client because reqwest does not show 1xx responses.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use connito_chain::btauth;
use connito_chain::keys::Signer;
use connito_protocol::ids::{BlobId, Cycle, Hotkey};
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{BlobClient, ClientLimits, SourceError, UploadError, corrupt, off_thread, under};
use crate::blobs::{BlobError, BlobReader, DiskBlobs};
use crate::clock::now_ns;
use crate::pace::Pace;
use crate::refusal::Refusal;
use crate::upload::{BODY_HASH_HEADER, Received, UploadAnswer};

/// The longest answer that is read.
const ANSWER_BYTES: usize = 64 << 10;

/// How long a receiver is asked before the body is sent anyway: one behind a proxy that does not
/// pass `Expect` on would otherwise never get it (RFC 9110, section 10.1.1).
const ASKED_FOR: Duration = Duration::from_secs(1);

pub(super) type UploadHttp = Client<HttpConnector, UploadBody>;
type UploadBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// What is uploaded, and to whom.
#[derive(Debug, Clone)]
pub struct Upload {
    /// For which cycle.
    pub cycle: Cycle,
    /// Which blob of the own store.
    pub blob: BlobId,
    /// The receiver's hotkey: the signature is for nobody else.
    pub receiver: Hotkey,
    /// The receiver's address, like `http://host:port`.
    pub address: String,
}

/// Whether the body may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// The receiver was asked.
    Asked,
    /// Yes.
    Open,
    /// The answer is there and being read; what happens on the connection now could disturb it.
    Held,
    /// Never more.
    Shut,
}

/// The body's gate, as the uploading task holds it. Dropped, it shuts: a connection must not go on
/// sending for a caller who left.
struct Sending(Arc<watch::Sender<Gate>>);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.send_replace(Gate::Shut);
    }
}

/// A connection pool for uploads.
pub(super) fn http(limits: &ClientLimits) -> UploadHttp {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(limits.connect));
    connector.set_nodelay(true);
    // An upload is rare and long: a connection of its own costs nothing and cannot be stale.
    Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector)
}

impl BlobClient {
    /// Uploads a blob of the own store, and returns what the receiver answered.
    ///
    /// Repeating it is safe: the receiver answers a second upload of a cycle with the first answer.
    /// A dropped future ends the transfer.
    ///
    /// # Errors
    /// When there is no answer, the blob cannot be read, or the address cannot be signed for.
    pub async fn upload(
        &self,
        upload: &Upload,
        signer: &dyn Signer,
    ) -> Result<UploadAnswer, UploadError> {
        let id = upload.blob;
        let path = format!("v1/uploads/{}/{id}", upload.cycle);
        let url = under(&upload.address, &path);
        let blobs = self.blobs.clone();
        let hashed = off_thread(id, move || hash(&blobs, &id)).await;
        let (reader, sha256) = hashed.map_err(|source| UploadError::Store { id, source })?;

        let total = reader.outline().bytes();
        let sent = Arc::new(AtomicU64::new(0));
        let sending = Sending(Arc::new(watch::Sender::new(Gate::Asked)));
        let body = body(reader, Arc::clone(&sending.0), Arc::clone(&sent));
        let mut request = request(upload, &url, &sha256, signer)?.map(|()| body);
        request
            .headers_mut()
            .insert(header::CONTENT_LENGTH, total.into());
        let gate = Arc::clone(&sending.0);
        hyper::ext::on_informational(&mut request, move |response| {
            if response.status() == hyper::StatusCode::CONTINUE {
                open(&gate);
            }
        });
        let no_answer = |source| UploadError::NoAnswer { id, source };
        let response = self.while_moving(&url, request, &sent, total).await;
        let response = response.map_err(no_answer)?;
        sending.0.send_replace(Gate::Held);
        self.read_answer(&url, response).await.map_err(no_answer)
    }

    /// Waits for the response as long as the receiver keeps taking the body, and then as long as an
    /// answer may take.
    async fn while_moving(
        &self,
        url: &str,
        request: Request<UploadBody>,
        sent: &AtomicU64,
        total: u64,
    ) -> Result<Response<Incoming>, SourceError> {
        let mut response = self.uploads.request(request);
        let mut pace = Pace::new(self.limits.minimum_rate);
        let mut counted = 0;
        while counted < total {
            let patience = pace.patience();
            if let Ok(answer) = tokio::time::timeout(patience, &mut response).await {
                return answer.map_err(|error| broken(url, error));
            }
            let now = sent.load(Ordering::Relaxed);
            pace.moved(usize::try_from(now - counted).unwrap_or(usize::MAX));
            pace.waited(patience);
            counted = now;
            pace.judge().map_err(|source| SourceError::Slow {
                url: url.to_owned(),
                source,
            })?;
        }
        let waited = self.limits.answer;
        let answer = tokio::time::timeout(waited, response).await;
        answer
            .map_err(|_| silent(url, waited))?
            .map_err(|error| broken(url, error))
    }

    async fn read_answer(
        &self,
        url: &str,
        response: Response<Incoming>,
    ) -> Result<UploadAnswer, SourceError> {
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect();
        let json = tokio::time::timeout(self.limits.answer, body)
            .await
            .map_err(|_| silent(url, self.limits.answer))?
            .map_err(|error| broken(url, error))?
            .to_bytes();
        let answer = if status.is_success() {
            serde_json::from_slice::<Received>(&json).map(UploadAnswer::Received)
        } else {
            serde_json::from_slice::<Refusal>(&json).map(UploadAnswer::Refused)
        };
        answer.map_err(|_| corrupt(url, "something other than an upload's answer"))
    }
}

/// Opens a blob and hashes it as its signature needs.
fn hash(blobs: &DiskBlobs, id: &BlobId) -> Result<(BlobReader, String), BlobError> {
    let mut reader = blobs.reader(id)?;
    let mut sha256 = Sha256::new();
    for index in 0..reader.outline().subtrees().len() {
        sha256.update(reader.subtree(index)?);
    }
    Ok((reader, hex::encode(sha256.finalize())))
}

/// The request's head, signed.
fn request(
    upload: &Upload,
    url: &str,
    sha256: &str,
    signer: &dyn Signer,
) -> Result<Request<()>, UploadError> {
    let bad_address = |source: Box<dyn Error + Send + Sync>| UploadError::BadAddress {
        id: upload.blob,
        url: url.to_owned(),
        source,
    };
    let mut request = Request::put(url)
        .header(header::EXPECT, "100-continue")
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(BODY_HASH_HEADER, sha256);
    // What the receiver will see as the request's target: the address may have a path of its own.
    let target = request.uri_ref().map_or("", hyper::Uri::path).to_owned();
    let signed = btauth::Request {
        method: "PUT",
        target: &target,
        body_sha256: sha256,
    };
    let headers = btauth::sign(signer, &signed, Some(upload.receiver), now_ns())
        .map_err(|error| bad_address(error.into()))?;
    for (name, value) in headers.to_pairs() {
        request = request.header(name, value);
    }
    request.body(()).map_err(|error| bad_address(error.into()))
}

/// Opens the gate, unless the answer came first.
fn open(gate: &watch::Sender<Gate>) {
    gate.send_if_modified(|gate| {
        let was_asked = *gate == Gate::Asked;
        if was_asked {
            *gate = Gate::Open;
        }
        was_asked
    });
}

/// Returns when a piece may be sent, or never to be sent.
async fn pass(gate: &watch::Sender<Gate>) -> std::io::Result<()> {
    let mut seen = gate.subscribe();
    let asked = seen.wait_for(|gate| *gate != Gate::Asked);
    if tokio::time::timeout(ASKED_FOR, asked).await.is_err() {
        open(gate);
    }
    let decided = seen.wait_for(|gate| matches!(gate, Gate::Open | Gate::Shut));
    match decided.await.as_deref() {
        Ok(Gate::Open) => Ok(()),
        _ => Err(std::io::Error::other("the upload is over")),
    }
}

/// The blob as a body, read as fast as it is sent; `sent` counts what was handed over.
fn body(reader: BlobReader, gate: Arc<watch::Sender<Gate>>, sent: Arc<AtomicU64>) -> UploadBody {
    let pieces = stream::try_unfold((reader, 0), move |(mut reader, index)| {
        let (gate, sent) = (Arc::clone(&gate), Arc::clone(&sent));
        async move {
            if index == reader.outline().subtrees().len() {
                return Ok::<_, std::io::Error>(None);
            }
            pass(&gate).await?;
            let read = tokio::task::spawn_blocking(move || {
                let bytes = reader.subtree(index)?;
                Ok::<_, BlobError>((reader, bytes))
            });
            let read = read.await.map_err(std::io::Error::other)?;
            let (reader, bytes) = read.map_err(std::io::Error::other)?;
            sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(Some((Bytes::from(bytes), (reader, index + 1))))
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(pieces.map_ok(Frame::data).boxed()))
}

fn broken(url: &str, error: impl Into<Box<dyn Error + Send + Sync>>) -> SourceError {
    SourceError::Unreachable {
        url: url.to_owned(),
        source: error.into(),
    }
}

fn silent(url: &str, waited: Duration) -> SourceError {
    SourceError::Silent {
        url: url.to_owned(),
        waited,
    }
}
