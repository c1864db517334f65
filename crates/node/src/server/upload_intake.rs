//! From a body to a blob: reserved before it is read, streamed to disk, hashed on the way.
//!
//! A body is never held in memory: it is written in pieces of a quarter mebibyte, off the async
//! threads, and hashed twice as it passes, with BLAKE3 for its name and with SHA-256 for its
//! signature. Nothing is stored unless both agree with what was declared. A body that stalls, ends
//! early or outlives the upload window leaves nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use connito_protocol::ids::{BlobId, Hotkey};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};

use super::Limits;
use super::body::next_bytes;
use super::routes::{blocking, storage_trouble};
use crate::blobs::{BlobError, BlobWriter, DiskBlobs};
use crate::pace::{MinimumRate, Pace};
use crate::refusal::{Refusal, RefusalCode};

/// What is written at once: large enough to hash at full speed, small enough to hold for many.
const PIECE_BYTES: usize = 1 << 18;

/// How much of a refused body is still taken, so that the client reads the refusal instead of a
/// connection reset. More would make refusing dear.
const DRAINED_BYTES: usize = 1 << 20;
/// And for how long: a round trip or two, after which the answer has been read.
const DRAINED_FOR: Duration = Duration::from_secs(2);

/// The room for uploads under way.
#[derive(Debug)]
pub(super) struct Room {
    max_bytes: u64,
    max_uploads: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    bytes: u64,
    by: BTreeSet<Hotkey>,
}

/// Room that one upload holds; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    room: Arc<Room>,
    hotkey: Hotkey,
    bytes: u64,
}

impl Room {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            max_bytes: limits.upload_bytes_in_flight,
            max_uploads: limits.uploads_in_flight,
            taken: Mutex::default(),
        }
    }

    /// Reserves what was declared. One upload of a hotkey at a time: a second one could only race
    /// with the first for the same answer.
    pub(super) fn reserve(
        self: &Arc<Self>,
        hotkey: Hotkey,
        bytes: u64,
    ) -> Result<Reservation, Refusal> {
        // Spread, so that all who were turned away do not come back at once.
        let later = 2 + u64::from(hotkey.0[0] % 8);
        let busy = |message| Refusal::new(RefusalCode::Busy, message).retry_after(later);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let total = taken.bytes.saturating_add(bytes);
        if total > self.max_bytes || taken.by.len() >= self.max_uploads {
            return Err(busy("too many uploads are under way"));
        }
        if !taken.by.insert(hotkey) {
            return Err(busy("an upload of this hotkey is under way"));
        }
        taken.bytes = total;
        Ok(Reservation {
            room: Arc::clone(self),
            hotkey,
            bytes,
        })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut taken = self
            .room
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taken.bytes -= self.bytes;
        taken.by.remove(&self.hotkey);
    }
}

/// What a body was declared to be.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    pub(super) blob: BlobId,
    pub(super) body_sha256: String,
}

/// Streams a body into the store and returns its length once it is stored durably.
///
/// `still_wanted` is asked before each piece, so that an upload ends with its window.
pub(super) async fn take_body(
    blobs: DiskBlobs,
    declared: Declared,
    body: &mut Body,
    rate: MinimumRate,
    still_wanted: impl Fn() -> Result<(), Refusal>,
) -> Result<u64, Refusal> {
    let mut pace = Pace::new(rate);
    let mut intake = on_disk(move || Intake::new(&blobs)).await?;
    let mut bytes = 0;
    loop {
        still_wanted()?;
        let (piece, ended) = next_piece(body, &mut pace).await?;
        bytes += piece.iter().map(|part| part.len() as u64).sum::<u64>();
        intake = on_disk(move || intake.write(&piece)).await?;
        if ended {
            break;
        }
    }
    still_wanted()?;
    blocking(move || intake.finish(&declared)).await??;
    Ok(bytes)
}

/// About [`PIECE_BYTES`] of the body, and whether it has ended.
async fn next_piece(body: &mut Body, pace: &mut Pace) -> Result<(Vec<Bytes>, bool), Refusal> {
    let mut piece = Vec::new();
    let mut bytes = 0;
    while bytes < PIECE_BYTES {
        let Some(data) = next_bytes(body, pace).await? else {
            return Ok((piece, true));
        };
        bytes += data.len();
        piece.push(data);
    }
    Ok((piece, false))
}

/// Takes a little more of a body that was refused, in the background and for a bounded time.
pub(super) fn drain(mut body: Body) {
    let drained = async move {
        let mut taken = 0;
        while taken < DRAINED_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            taken += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    tokio::spawn(tokio::time::timeout(DRAINED_FOR, drained));
}

/// A body on its way to disk.
struct Intake {
    writer: BlobWriter,
    sha256: Sha256,
}

impl Intake {
    fn new(blobs: &DiskBlobs) -> Result<Self, BlobError> {
        Ok(Self {
            writer: blobs.writer()?,
            sha256: Sha256::new(),
        })
    }

    fn write(mut self, piece: &[Bytes]) -> Result<Self, BlobError> {
        for part in piece {
            self.sha256.update(part);
            self.writer.write(part)?;
        }
        Ok(self)
    }

    fn finish(self, declared: &Declared) -> Result<(), Refusal> {
        if hex::encode(self.sha256.finalize()) != declared.body_sha256 {
            let message = "the body is not the one that was signed";
            return Err(Refusal::new(RefusalCode::BadSignature, message));
        }
        match self.writer.finish_as(&declared.blob) {
            Ok(()) => Ok(()),
            Err(BlobError::OtherBytes { named, found }) => {
                let message = format!("the body is blob {found}, not {named}");
                Err(Refusal::new(RefusalCode::Malformed, message))
            }
            Err(error) => Err(storage_trouble(&error)),
        }
    }
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, Refusal> {
    blocking(work)
        .await?
        .map_err(|error| storage_trouble(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_reserved_once_a_hotkey_up_to_the_total_and_given_back() {
        let room = Arc::new(Room::new(&Limits {
            upload_bytes_in_flight: 100,
            uploads_in_flight: 3,
            ..Limits::default()
        }));
        let hotkey = |n| Hotkey([n; 32]);
        let first = room.reserve(hotkey(1), 60).unwrap();
        assert!(room.reserve(hotkey(1), 1).is_err(), "one at a time");
        let refusal = room.reserve(hotkey(2), 41).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Busy);
        assert!(refusal.retry_after.is_some());
        let _second = room.reserve(hotkey(2), 40).unwrap();
        let _third = room.reserve(hotkey(3), 0).unwrap();
        assert!(room.reserve(hotkey(4), 0).is_err(), "three at a time");
        drop(first);
        assert!(room.reserve(hotkey(4), 60).is_ok());
        assert!(room.reserve(hotkey(5), u64::MAX).is_err());
    }
}
