//! From a body to a blob: reserved before it is read, streamed to disk, hashed on the way.
//!
//! A body is never held in memory: it is gathered into pieces of a quarter mebibyte, written off the
//! async threads, and hashed twice as it passes, with BLAKE3 for its name and with SHA-256 for its
//! signature. Nothing is stored unless both agree with what was declared. A body that stalls, ends
//! early or outlives the upload window leaves nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use connito_protocol::ids::{BlobId, Hotkey};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};

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

/// The room for uploads under way: places in memory, bytes on the disk.
#[derive(Debug)]
pub(super) struct Room {
    disk_reserve: u64,
    max_uploads: usize,
    /// Pieces hashed and written at once: all cores but one, which is left to every other request.
    writing: Semaphore,
    taken: Mutex<BTreeMap<Hotkey, Taken>>,
}

/// What one upload takes up.
#[derive(Debug)]
struct Taken {
    blob: BlobId,
    /// Declared and not written yet: the disk still counts these bytes as free.
    bytes_to_come: u64,
    /// Whether the store has the blob for no other reason than uploads that are under way.
    brought: bool,
}

/// Room that one upload holds; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    room: Arc<Room>,
    hotkey: Hotkey,
}

impl Room {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            disk_reserve: limits.disk_reserve,
            max_uploads: limits.uploads_in_flight,
            writing: Semaphore::new(
                available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1)),
            ),
            taken: Mutex::default(),
        }
    }

    /// Reserves what was declared, on a disk with `free` bytes. One upload of a hotkey at a time: a
    /// second one could only race with the first for the same answer.
    pub(super) fn reserve(
        self: &Arc<Self>,
        hotkey: Hotkey,
        (blob, bytes): (BlobId, u64),
        free: u64,
    ) -> Result<Reservation, Refusal> {
        // Spread, so that all who were turned away do not come back at once.
        let later = 2 + u64::from(hotkey.0[0] % 8);
        let busy = |message| Err(Refusal::new(RefusalCode::Busy, message).retry_after(later));
        let mut taken = self.taken();
        if taken.contains_key(&hotkey) {
            return busy("an upload of this hotkey is under way");
        }
        if taken.len() >= self.max_uploads {
            return busy("too many uploads are under way");
        }
        let to_come = taken.values().map(|taken| taken.bytes_to_come);
        let promised = to_come.fold(bytes, u64::saturating_add);
        let needed = promised.checked_add(self.disk_reserve);
        if needed.is_none_or(|needed| needed > free) {
            tracing::warn!(target: "server::upload", free, promised, "no disk space for an upload");
            return busy("there is no disk space for this upload");
        }
        taken.insert(
            hotkey,
            Taken {
                blob,
                bytes_to_come: bytes,
                brought: false,
            },
        );
        Ok(Reservation {
            room: Arc::clone(self),
            hotkey,
        })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<Hotkey, Taken>> {
        // The table is consistent between any two statements, so a poisoned lock is usable.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// Waits for this upload's turn to write a piece; `None` never comes, as the turns never close.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.room.writing.acquire().await.ok()
    }

    /// Notes bytes that now lie on the disk.
    fn wrote(&self, bytes: u64) {
        if let Some(taken) = self.room.taken().get_mut(&self.hotkey) {
            taken.bytes_to_come = taken.bytes_to_come.saturating_sub(bytes);
        }
    }

    /// Notes that the store has the blob only since this upload.
    pub(super) fn brought(&self) {
        if let Some(taken) = self.room.taken().get_mut(&self.hotkey) {
            taken.brought = true;
        }
    }

    /// Removes what this upload has brought. If another one of the same bytes is under way, they may be
    /// its own: then it answers for them. Blocks; under the lock, so that none begins meanwhile.
    pub(super) fn remove_brought(&self, blobs: &DiskBlobs) -> Result<(), BlobError> {
        let mut taken = self.room.taken();
        let Some(own) = taken.get_mut(&self.hotkey).filter(|own| own.brought) else {
            return Ok(());
        };
        own.brought = false;
        let blob = own.blob;
        let mut others = taken
            .iter_mut()
            .filter(|(hotkey, _)| **hotkey != self.hotkey);
        match others.find(|(_, other)| other.blob == blob) {
            Some((_, other)) => {
                other.brought = true;
                Ok(())
            }
            None => blobs.remove(&blob),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.room.taken().remove(&self.hotkey);
    }
}

/// What a body was declared to be.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    pub(super) blob: BlobId,
    pub(super) body_sha256: String,
}

/// What came of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) bytes: u64,
    /// Whether the store did not hold these bytes before.
    pub(super) is_new: bool,
}

/// Streams a body into the store; returns once it is stored durably.
///
/// `still_wanted` is asked before each piece, so that an upload ends with its window.
pub(super) async fn take_body(
    blobs: DiskBlobs,
    (declared, reservation): (&Declared, &Reservation),
    body: &mut Body,
    rate: MinimumRate,
    still_wanted: impl Fn() -> Result<(), Refusal>,
) -> Result<Stored, Refusal> {
    let mut pace = Pace::new(rate);
    let mut intake = on_disk(move || Intake::new(blobs)).await?;
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    loop {
        still_wanted()?;
        let ended = fill(&mut piece, body, &mut pace).await?;
        let bytes = piece.len() as u64;
        let turn = reservation.turn().await;
        (intake, piece) = on_disk(move || intake.write(piece)).await?;
        drop(turn);
        reservation.wrote(bytes);
        if ended {
            break;
        }
    }
    still_wanted()?;
    let declared = declared.clone();
    blocking(move || intake.finish(&declared)).await?
}

/// Fills a piece with at least [`PIECE_BYTES`] of the body, or with its rest; says whether it has ended.
///
/// Bytes are copied: what the network hands over may be a byte in a buffer of many, and to keep
/// thousands of those would cost far more than their length.
async fn fill(piece: &mut Vec<u8>, body: &mut Body, pace: &mut Pace) -> Result<bool, Refusal> {
    while piece.len() < PIECE_BYTES {
        let Some(data) = next_bytes(body, pace).await? else {
            return Ok(true);
        };
        piece.extend_from_slice(&data);
    }
    Ok(false)
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
    blobs: DiskBlobs,
    writer: BlobWriter,
    sha256: Sha256,
    bytes: u64,
}

impl Intake {
    fn new(blobs: DiskBlobs) -> Result<Self, BlobError> {
        Ok(Self {
            writer: blobs.writer()?,
            blobs,
            sha256: Sha256::new(),
            bytes: 0,
        })
    }

    /// Writes a piece and gives it back empty.
    fn write(mut self, mut piece: Vec<u8>) -> Result<(Self, Vec<u8>), BlobError> {
        self.sha256.update(&piece);
        self.writer.write(&piece)?;
        self.bytes += piece.len() as u64;
        piece.clear();
        Ok((self, piece))
    }

    fn finish(self, declared: &Declared) -> Result<Stored, Refusal> {
        if hex::encode(self.sha256.finalize()) != declared.body_sha256 {
            let message = "the body is not the one that was signed";
            return Err(Refusal::new(RefusalCode::BadSignature, message));
        }
        let stored = Stored {
            bytes: self.bytes,
            is_new: !self.blobs.has(&declared.blob),
        };
        match self.writer.finish_as(&declared.blob) {
            Ok(()) => Ok(stored),
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

    fn hotkey(n: u8) -> Hotkey {
        Hotkey([n; 32])
    }

    fn room(limits: Limits) -> Arc<Room> {
        Arc::new(Room::new(&limits))
    }

    fn code(refused: Result<Reservation, Refusal>) -> RefusalCode {
        let refusal = refused.unwrap_err();
        assert!(refusal.retry_after.is_some(), "{refusal}");
        refusal.code
    }

    #[test]
    fn places_are_given_once_a_hotkey_up_to_their_number_and_taken_back() {
        let room = room(Limits {
            uploads_in_flight: 2,
            disk_reserve: 0,
            ..Limits::default()
        });
        let any = (BlobId([0; 32]), 1);
        let first = room.reserve(hotkey(1), any, 100).unwrap();
        assert_eq!(code(room.reserve(hotkey(1), any, 100)), RefusalCode::Busy);
        let _second = room.reserve(hotkey(2), any, 100).unwrap();
        assert_eq!(code(room.reserve(hotkey(3), any, 100)), RefusalCode::Busy);
        drop(first);
        assert!(room.reserve(hotkey(3), any, 100).is_ok());
    }

    /// What was promised to others is not free, whether or not it was written yet.
    #[test]
    fn the_disk_is_never_promised_beyond_its_reserve() {
        let room = room(Limits {
            disk_reserve: 50,
            ..Limits::default()
        });
        let of = |bytes| (BlobId([0; 32]), bytes);
        let first = room.reserve(hotkey(1), of(60), 150).unwrap();
        assert_eq!(
            code(room.reserve(hotkey(2), of(41), 150)),
            RefusalCode::Busy
        );
        first.wrote(60);
        assert_eq!(code(room.reserve(hotkey(2), of(41), 90)), RefusalCode::Busy);
        let _second = room.reserve(hotkey(2), of(40), 90).unwrap();
        let all = room.reserve(hotkey(3), of(u64::MAX), u64::MAX);
        assert_eq!(code(all), RefusalCode::Busy);
    }

    /// What should not happen: an upload that is refused taking the bytes of one that is not decided, or
    /// of somebody who had them before; or the last of several that were refused leaving them.
    #[test]
    fn stored_bytes_are_removed_by_the_last_upload_of_them_that_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = DiskBlobs::open(folder.path()).unwrap();
        let blob = blobs.put(b"update").unwrap();
        let room = room(Limits::default());
        let reserve = |n| room.reserve(hotkey(n), (blob, 6), u64::MAX).unwrap();
        reserve(1).remove_brought(&blobs).unwrap();
        assert!(blobs.has(&blob), "it was here before");

        let (first, second) = (reserve(1), reserve(2));
        first.brought();
        first.remove_brought(&blobs).unwrap();
        assert!(blobs.has(&blob), "the second may be accepted");
        drop(first);
        second.remove_brought(&blobs).unwrap();
        assert!(!blobs.has(&blob));
    }
}
