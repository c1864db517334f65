//! Fetching a blob: any mirror, any cut, only verified bytes.
//!
//! ```text
//! first mebibyte ─ is that all? ─ yes ─▶ its hash is the blob's name, or the mirror is dropped
//!                        │ no
//!                        ▼
//! outline, last mebibyte      verified against the name: now the length is proven
//!                        ▼
//! missing runs, ≤ 16 MiB a request, each mebibyte verified and kept as it arrives
//! ```
//!
//! A mirror that sends a wrong byte is dropped for this blob (A-131); one that breaks off is asked
//! again in the next round, as long as a round brings anything (A-130). Those that failed lately are asked
//! last, and silence is waited for in earnest only when nobody else brings anything. What is kept survives
//! restarts and a change of mirrors. `Absent` is said only when every source said so.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use connito_protocol::ids::BlobId;
use reqwest::{Response, header};

use super::{
    BlobClient, FetchError, SourceError, corrupt, next_chunk, off_thread, status_error, under,
};
use crate::blobs::{BlobError, Outline, PartialBlob, SUBTREE_BYTES};
use crate::pace::Pace;

/// Mebibytes asked for at once: what a server sends in one response.
const SUBTREES_A_REQUEST: usize = 16;

/// Why one attempt at one source ended without the blob.
enum Setback {
    /// This source does not have it.
    Absent,
    /// This source failed.
    Source(SourceError),
    /// No source can help.
    Fatal(FetchError),
}

impl From<SourceError> for Setback {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<FetchError> for Setback {
    fn from(error: FetchError) -> Self {
        Self::Fatal(error)
    }
}

/// One blob being fetched.
struct Download<'a> {
    client: &'a BlobClient,
    id: BlobId,
    max_bytes: u64,
    /// How long a source may keep silent.
    patience: Duration,
    /// What is here already, once the blob's length is proven. Absent while another thread
    /// writes to it.
    partial: Option<PartialBlob>,
    /// Bytes of bodies that have come, from all sources together.
    received: u64,
}

impl BlobClient {
    /// Fetches a blob of at most `max_bytes` into the store, from whichever of `sources` (addresses
    /// like `http://host:port`) has it. Gives the bytes that came over the network for it: none for a
    /// blob that is here already, more than it has where a source had to be given up.
    ///
    /// A dropped future keeps what was verified; the next call goes on from there.
    ///
    /// # Errors
    /// `Absent` when every source answered that it does not have the blob; `Failed` when no source
    /// is left that brings anything; `TooLarge`; or the store's refusal.
    pub async fn fetch(
        &self,
        id: BlobId,
        sources: &[String],
        max_bytes: u64,
    ) -> Result<u64, FetchError> {
        let blobs = self.blobs.clone();
        let here = on_disk(id, move || match blobs.has(&id) {
            true => Ok(None),
            false => blobs.resume_partial(id).map(Some),
        });
        let Some(partial) = here.await? else {
            return Ok(0);
        };
        let mut download = Download {
            client: self,
            id,
            max_bytes,
            patience: self.limits.first_answer,
            partial,
            received: 0,
        };
        if let Some(partial) = &download.partial {
            download.check_length(partial.outline().bytes())?;
        }
        download.fetch_from_any(sources).await?;
        Ok(download.received)
    }
}

impl Download<'_> {
    /// Goes round the sources until the blob is whole or a round has brought nothing.
    async fn fetch_from_any(&mut self, sources: &[String]) -> Result<(), FetchError> {
        let mut dropped = BTreeSet::new();
        let mut last = None;
        let failed = &self.client.failed;
        loop {
            let missing_before = self.missing();
            let mut was_silent = false;
            for source in failed.last(sources) {
                if dropped.contains(source) {
                    continue;
                }
                match self.fetch_from(source).await {
                    Ok(()) => {
                        failed.forgive(source);
                        return Ok(());
                    }
                    Err(Setback::Fatal(error)) => return Err(error),
                    Err(Setback::Absent) => {
                        dropped.insert(source);
                    }
                    Err(Setback::Source(error)) => {
                        tracing::debug!(target: "blobs::fetch", blob = %self.id, %error, "setback");
                        if matches!(error, SourceError::Corrupt { .. }) {
                            dropped.insert(source);
                        }
                        was_silent |= matches!(error, SourceError::Silent { .. });
                        failed.note(source);
                        last = Some(error);
                    }
                }
            }
            if self.missing() < missing_before {
                continue;
            }
            let limit = self.client.limits.answer;
            if !was_silent || self.patience >= limit {
                return Err(self.verdict(sources.len(), last));
            }
            self.patience = limit;
        }
    }

    fn verdict(&self, sources: usize, last: Option<SourceError>) -> FetchError {
        let id = self.id;
        match last {
            Some(last) => FetchError::Failed { id, sources, last },
            None => FetchError::Absent { id, sources },
        }
    }

    /// How many mebibytes are missing; more than any blob has while its length is not known.
    fn missing(&self) -> usize {
        self.partial
            .as_ref()
            .map_or(usize::MAX, PartialBlob::missing)
    }

    fn next_run(&self) -> Option<Range<usize>> {
        self.partial.as_ref()?.next_missing(SUBTREES_A_REQUEST)
    }

    /// Everything that is missing, from one source.
    async fn fetch_from(&mut self, source: &str) -> Result<(), Setback> {
        let url = under(source, &format!("v1/blobs/{}", self.id));
        if self.partial.is_none() {
            let (first, length) = self.first_subtree(&url).await?;
            if length <= SUBTREE_BYTES {
                return self.keep_small(&url, first).await;
            }
            self.begin(&url, first, length).await?;
        }
        while let Some(run) = self.next_run() {
            self.fetch_run(&url, run).await?;
        }
        match self.partial.take() {
            Some(partial) => {
                on_disk(self.id, move || partial.finish()).await?;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The first mebibyte, unverified, and the length that the source states for the whole blob.
    async fn first_subtree(&mut self, url: &str) -> Result<(Vec<u8>, u64), Setback> {
        let (response, length) = self.range(url, 0..SUBTREE_BYTES).await?;
        if length > self.max_bytes {
            return Err(Setback::Source(SourceError::TooLarge {
                url: url.to_owned(),
                max_bytes: self.max_bytes,
            }));
        }
        let expected = length.min(SUBTREE_BYTES);
        Ok((self.exactly(url, response, expected).await?, length))
    }

    /// A blob that came whole.
    async fn keep_small(&self, url: &str, bytes: Vec<u8>) -> Result<(), Setback> {
        if BlobId::of(&bytes) != self.id {
            return Err(corrupt(url, "other bytes than the blob's").into());
        }
        let blobs = self.client.blobs.clone();
        on_disk(self.id, move || blobs.put(&bytes)).await?;
        Ok(())
    }

    /// What a large blob needs to begin: its outline, and its last mebibyte to prove the length.
    async fn begin(&mut self, url: &str, first: Vec<u8>, length: u64) -> Result<(), Setback> {
        let outline = self.outline(url, length).await?;
        let index = outline.subtrees().len() - 1;
        let range = outline.range(index);
        let bytes = range.end - range.start;
        let (response, _) = self.range(url, range).await?;
        let last = self.exactly(url, response, bytes).await?;
        if !outline.holds(0, &first) || !outline.holds(index, &last) {
            return Err(corrupt(url, "bytes that do not verify").into());
        }
        let (id, blobs) = (self.id, self.client.blobs.clone());
        let begun = on_disk(id, move || {
            let mut partial = blobs.begin_partial(id, outline, &last)?;
            partial.store(0, &first)?;
            Ok(partial)
        });
        self.partial = Some(begun.await?);
        Ok(())
    }

    async fn outline(&mut self, url: &str, length: u64) -> Result<Outline, Setback> {
        let url = format!("{url}/outline");
        let most = Outline::encoded_bytes(length);
        let Some(encoded) = self.client.get_bytes(&url, most).await? else {
            return Err(Setback::Absent);
        };
        self.received += encoded.len() as u64;
        match Outline::from_bytes(&self.id, &encoded) {
            Ok(outline) if outline.bytes() == length => Ok(outline),
            _ => Err(corrupt(&url, "an outline of something else").into()),
        }
    }

    /// A run of missing mebibytes; those that verified are kept even if the rest does not come.
    async fn fetch_run(&mut self, url: &str, run: Range<usize>) -> Result<(), Setback> {
        let Some(partial) = &self.partial else {
            return Ok(());
        };
        let outline = partial.outline();
        let wanted = outline.range(run.start).start..outline.range(run.end - 1).end;
        let lengths: Vec<_> = run
            .clone()
            .map(|index| outline.range(index))
            .map(|range| (range.end - range.start) as usize)
            .collect();
        let (mut response, _) = self.range(url, wanted).await?;
        let mut pace = Pace::new(self.client.limits.minimum_rate);
        let mut arrived = Vec::new();
        for (index, length) in run.zip(lengths) {
            while arrived.len() < length {
                match next_chunk(url, &mut response, &mut pace).await? {
                    Some(chunk) => {
                        self.received += chunk.len() as u64;
                        arrived.extend_from_slice(&chunk);
                    }
                    None => return Err(corrupt(url, "fewer bytes than it announced").into()),
                }
            }
            let rest = arrived.split_off(length);
            self.keep(url, index, std::mem::replace(&mut arrived, rest))
                .await?;
        }
        Ok(())
    }

    async fn keep(&mut self, url: &str, index: usize, bytes: Vec<u8>) -> Result<(), Setback> {
        let Some(mut partial) = self.partial.take() else {
            return Ok(());
        };
        let stored = on_disk(self.id, move || {
            let stored = partial.store(index, &bytes);
            Ok((partial, stored))
        });
        let (partial, stored) = stored.await?;
        self.partial = Some(partial);
        match stored {
            Ok(()) => Ok(()),
            Err(BlobError::Unverified { .. }) => {
                Err(corrupt(url, "bytes that do not verify").into())
            }
            Err(source) => Err(Setback::Fatal(FetchError::Store {
                id: self.id,
                source,
            })),
        }
    }

    /// Asks for a range. Returns the response, its body unread, and the stated length of the blob.
    async fn range(&self, url: &str, range: Range<u64>) -> Result<(Response, u64), Setback> {
        let header = format!("bytes={}-{}", range.start, range.end - 1);
        let request = self.client.http.get(url).header(header::RANGE, header);
        let response = self.client.send(url, request, self.patience).await?;
        let length = match response.status().as_u16() {
            206 => stated_length(&response, &range),
            // A server may ignore ranges; that is fine where the range is the whole blob.
            200 if range.start == 0 => {
                let length = response.content_length();
                length.filter(|length| *length <= range.end)
            }
            404 => return Err(Setback::Absent),
            status => return Err(status_error(url, status).into()),
        };
        let length = length.ok_or_else(|| corrupt(url, "another range than was asked for"))?;
        Ok((response, length))
    }

    /// A body of exactly this many bytes.
    async fn exactly(
        &mut self,
        url: &str,
        response: Response,
        bytes: u64,
    ) -> Result<Vec<u8>, Setback> {
        let body = self.client.body(url, response, bytes).await?;
        self.received += body.len() as u64;
        if body.len() as u64 == bytes {
            Ok(body)
        } else {
            Err(corrupt(url, "fewer bytes than it announced").into())
        }
    }

    fn check_length(&self, bytes: u64) -> Result<(), FetchError> {
        if bytes <= self.max_bytes {
            return Ok(());
        }
        Err(FetchError::TooLarge {
            id: self.id,
            bytes,
            max_bytes: self.max_bytes,
        })
    }
}

/// The whole length of `Content-Range: bytes first-last/length`, if the range is the one asked for,
/// up to an end that lies before the range's.
fn stated_length(response: &Response, asked: &Range<u64>) -> Option<u64> {
    let text = response
        .headers()
        .get(header::CONTENT_RANGE)?
        .to_str()
        .ok()?;
    let (range, length) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let length: u64 = length.parse().ok()?;
    let expected_last = asked.end.min(length).checked_sub(1)?;
    let is_asked = first.parse() == Ok(asked.start) && last.parse() == Ok(expected_last);
    is_asked.then_some(length)
}

async fn on_disk<T: Send + 'static>(
    id: BlobId,
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, FetchError> {
    off_thread(id, work)
        .await
        .map_err(|source| FetchError::Store { id, source })
}
