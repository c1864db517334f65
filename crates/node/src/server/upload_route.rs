//! `PUT /v1/uploads/{cycle}/{id}`: an update enters the network (A-149 … A-151).
//!
//! The order of the checks is the order of their cost: path, declared length, signature, rate by
//! hotkey, window, first answer, room; then the body. Nothing is stored before all of them passed,
//! and nothing is acknowledged before the driver has journalled it.
//!
//! Knows the upload window only as the driver published it; knows nothing of what an update means.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use connito_protocol::ids::{BlobId, Cycle, Hotkey};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::Limits;
use super::rate::TokenBuckets;
use super::routes::{Segments, blocking, parse_cycle, parse_segment, storage_trouble};
use super::upload_auth::Gatekeeper;
use super::upload_intake::{Declared, Reservation, Room, drain, take_body};
use crate::blobs::DiskBlobs;
use crate::refusal::{Refusal, RefusalCode, shown};
use crate::upload::{Admission, Decision, Received, UploadWindow, Uploaded};

/// How a role takes uploads.
#[derive(Debug, Clone)]
pub struct Uploads {
    /// Whom requests must be addressed to: this role's hotkey.
    pub receiver: Hotkey,
    /// Who may upload what, as the driver last said.
    pub admission: watch::Receiver<Admission>,
    /// Takes stored updates to the driver. A small bound is right: the driver only journals them,
    /// and while it does not, uploads should wait rather than pile up.
    pub stored: mpsc::Sender<Uploaded>,
}

/// Everything that one upload route needs.
#[derive(Debug)]
pub(super) struct UploadDesk {
    uploads: Uploads,
    blobs: DiskBlobs,
    limits: Limits,
    gatekeeper: Gatekeeper,
    rates: TokenBuckets<Hotkey>,
    room: Arc<Room>,
}

/// An upload whose body may be read.
struct Admitted {
    cycle: Cycle,
    hotkey: Hotkey,
    declared: Declared,
    /// Held until the driver has answered.
    reservation: Reservation,
}

/// The handler: a refused body is drained a little, so that the client gets to read why.
pub(super) async fn upload(
    State(desk): State<Arc<UploadDesk>>,
    Segments((cycle, id)): Segments<(String, String)>,
    request: Request,
) -> Response {
    let (head, mut body) = request.into_parts();
    let answer = match desk.admit(&head, &cycle, &id).await {
        Ok(admitted) => {
            let (answer, rest) = receive_to_the_end(desk, admitted, body).await;
            body = rest;
            answer
        }
        Err(refusal) => Err(refusal),
    };
    match answer {
        Ok(received) => (StatusCode::CREATED, axum::Json(received)).into_response(),
        Err(refusal) => {
            // A client that asked first has sent nothing, and reading would tell it to.
            if !head.headers.contains_key(header::EXPECT) {
                drain(body);
            }
            refusal.into_response()
        }
    }
}

/// Takes an upload in a task of its own, of which there are no more than places for uploads.
///
/// A client that leaves ends its request wherever that stands. What is stored by then must be decided,
/// and removed if it is refused, all the same: else whoever sends a body and leaves fills the disk.
async fn receive_to_the_end(
    desk: Arc<UploadDesk>,
    admitted: Admitted,
    mut body: Body,
) -> (Result<Received, Refusal>, Body) {
    let received = tokio::spawn(async move {
        let answer = desk.receive(admitted, &mut body).await;
        (answer, body)
    });
    received.await.unwrap_or_else(|error| {
        tracing::error!(target: "server::upload", %error, "an upload ended early");
        let message = "the server could not finish this request";
        (Err(Refusal::new(RefusalCode::Busy, message)), Body::empty())
    })
}

impl UploadDesk {
    pub(super) fn new(uploads: Uploads, blobs: DiskBlobs, limits: &Limits) -> Self {
        Self {
            gatekeeper: Gatekeeper::new(uploads.receiver),
            uploads,
            blobs,
            rates: TokenBuckets::new(),
            room: Arc::new(Room::new(limits)),
            limits: limits.clone(),
        }
    }

    /// Every check that needs no body, cheapest first.
    async fn admit(&self, head: &Parts, cycle: &str, id: &str) -> Result<Admitted, Refusal> {
        let cycle = parse_cycle(cycle)?;
        let blob: BlobId = parse_segment("a blob's name", id)?;
        let bytes = declared_length(head, self.uploads.admission.borrow().max_bytes)?;
        let is_registered =
            |hotkey: &Hotkey| self.uploads.admission.borrow().miners.contains(hotkey);
        let sender = self.gatekeeper.identify(head, is_registered).await?;
        self.check_rate(sender.hotkey)?;
        self.check_window(cycle)?;
        self.check_first(cycle, sender.hotkey)?;
        Ok(Admitted {
            cycle,
            hotkey: sender.hotkey,
            declared: Declared {
                blob,
                body_sha256: sender.body_sha256,
            },
            reservation: self.reserve(sender.hotkey, (blob, bytes)).await?,
        })
    }

    async fn reserve(&self, hotkey: Hotkey, upload: (BlobId, u64)) -> Result<Reservation, Refusal> {
        let blobs = self.blobs.clone();
        let free = blocking(move || blobs.free_bytes()).await?;
        let free = free.map_err(|error| storage_trouble(&error))?;
        self.room.reserve(hotkey, upload, free)
    }

    /// The body, to disk; then the driver's decision.
    async fn receive(&self, upload: Admitted, body: &mut Body) -> Result<Received, Refusal> {
        let Admitted {
            cycle,
            hotkey,
            declared,
            reservation,
        } = upload;
        let blob = declared.blob;
        let blobs = self.blobs.clone();
        let rate = self.limits.minimum_rate;
        let stored = take_body(blobs, (&declared, &reservation), body, rate, || {
            self.check_window(cycle)
        })
        .await?;
        if stored.is_new {
            reservation.brought();
        }
        tracing::debug!(target: "server::upload", %hotkey, %blob, ?stored, "stored an upload");

        let (reply, answer) = oneshot::channel();
        let uploaded = Uploaded {
            hotkey,
            cycle,
            blob,
            bytes: stored.bytes,
            reply,
        };
        let stopping = || Refusal::new(RefusalCode::Busy, "the receiver is stopping");
        let sent = self.uploads.stored.send(uploaded).await;
        sent.map_err(|_| stopping())?;
        match answer.await.map_err(|_| stopping())? {
            Decision::Accepted => Ok(Received {
                cycle,
                hotkey,
                blob,
            }),
            Decision::Refused(refusal) => {
                self.remove(reservation).await;
                Err(refusal)
            }
            Decision::RefusedButKept(refusal) => Err(refusal),
        }
    }

    /// Gives the disk back what a refused upload took of it.
    async fn remove(&self, reservation: Reservation) {
        let blobs = self.blobs.clone();
        let removed = blocking(move || reservation.remove_brought(&blobs)).await;
        if let Ok(Err(error)) = removed {
            storage_trouble(&error);
        }
    }

    fn check_rate(&self, hotkey: Hotkey) -> Result<(), Refusal> {
        let rate = self.limits.requests_per_hotkey;
        self.rates
            .take(hotkey, rate, Instant::now())
            .map_err(|wait| {
                Refusal::new(RefusalCode::RateLimited, "too many requests of this hotkey")
                    .retry_after(wait.as_secs().saturating_add(1))
            })
    }

    fn check_window(&self, cycle: Cycle) -> Result<(), Refusal> {
        let admission = self.uploads.admission.borrow();
        let current = admission.cycle;
        let early = |message| Err(Refusal::new(RefusalCode::TooEarly, message));
        let late = |message| Err(Refusal::new(RefusalCode::TooLate, message));
        if cycle < current {
            return late(format!("cycle {cycle} is over, this is cycle {current}"));
        }
        if cycle > current {
            return early(format!(
                "cycle {cycle} has not begun, this is cycle {current}"
            ));
        }
        match admission.window {
            UploadWindow::Open => Ok(()),
            UploadWindow::Early { opens_at } => early(format!(
                "uploads of cycle {cycle} begin with block {opens_at}"
            )),
            UploadWindow::Closed => late(format!("uploads of cycle {cycle} are closed")),
        }
    }

    fn check_first(&self, cycle: Cycle, hotkey: Hotkey) -> Result<(), Refusal> {
        let admission = self.uploads.admission.borrow();
        let Some(&blob) = admission.received.get(&hotkey) else {
            return Ok(());
        };
        let message = format!("{hotkey} has submitted blob {blob} for cycle {cycle}");
        Err(Refusal {
            first: Some(Box::new(Received {
                cycle,
                hotkey,
                blob,
            })),
            ..Refusal::new(RefusalCode::AlreadySubmitted, message)
        })
    }
}

/// The length that the head declares, if the body is plain and within the bound.
fn declared_length(head: &Parts, max_bytes: u64) -> Result<u64, Refusal> {
    if let Some(encoding) = head.headers.get(header::CONTENT_ENCODING) {
        let encoding = shown(&String::from_utf8_lossy(encoding.as_bytes()));
        let message = format!("an update is sent as it is, not in encoding `{encoding}`");
        return Err(Refusal::new(RefusalCode::UnsupportedEncoding, message));
    }
    if head.headers.contains_key(header::CONTENT_RANGE) {
        let message = "an update is sent whole, not in a `Content-Range`";
        return Err(Refusal::new(RefusalCode::Malformed, message));
    }
    let missing = || Refusal::new(RefusalCode::LengthRequired, "`Content-Length` is required");
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(missing());
    }
    let length = head.headers.get(header::CONTENT_LENGTH);
    let bytes: u64 = length
        .and_then(|length| length.to_str().ok()?.parse().ok())
        .ok_or_else(missing)?;
    if bytes > max_bytes {
        let message = format!("an update has at most {max_bytes} bytes, not {bytes}");
        return Err(Refusal::new(RefusalCode::TooLarge, message));
    }
    Ok(bytes)
}
