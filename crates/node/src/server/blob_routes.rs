//! Blobs and their outlines, to anyone who knows their names.
//!
//! A response is one run of whole mebibytes, at most 16 of them, verified one by one while it is sent, in
//! pieces of 64 KiB: memory is a piece a response, however slowly it is taken, and rotten bytes are never
//! sent (the connection ends instead). Ranges that cut a mebibyte would make us read what we do not send, so they are
//! refused, as are several ranges in one request.

use std::ops::Range;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use connito_protocol::ids::BlobId;
use futures_util::stream;

use super::MAX_RANGE_BYTES;
use super::routes::{Exposed, Segments, blocking, entity_tag, parse_segment, storage_trouble};
use crate::blobs::{BlobError, BlobReader, Pieces, SUBTREE_BYTES};
use crate::refusal::{Refusal, RefusalCode};

/// `GET` or `HEAD /v1/blobs/{id}`.
pub(super) async fn blob(
    State(exposed): State<Exposed>,
    Segments(id): Segments<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (id, reader) = open(exposed, &id).await?;
    let length = reader.outline().bytes();
    let mut ranges = headers.get_all(header::RANGE).iter();
    let asked = match (ranges.next(), ranges.next()) {
        (_, Some(_)) => Err("more than one range"),
        // An empty blob has no range to ask for; asked for one, it is answered whole.
        (Some(range), None) if length > 0 => parse_range(range, length).map(Some),
        (None, None) if length > MAX_RANGE_BYTES && method != Method::HEAD => Err("ask for ranges"),
        _ => Ok(None),
    };
    let asked = match asked {
        Ok(asked) => asked,
        Err(what) => return Ok(bad_range(what, length)),
    };
    let range = asked.clone().unwrap_or(0..length);
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        stream_range(reader, &range).await?
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ETAG, entity_tag(&id));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, octets);
    let sent = HeaderValue::from(range.end - range.start);
    headers.insert(header::CONTENT_LENGTH, sent);
    if let Some(range) = asked {
        let covered = format!("bytes {}-{}/{length}", range.start, range.end - 1);
        if let Ok(covered) = HeaderValue::try_from(covered) {
            headers.insert(header::CONTENT_RANGE, covered);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// `GET /v1/blobs/{id}/outline`: the encoding of [`Outline::to_bytes`](crate::blobs::Outline).
pub(super) async fn outline(
    State(exposed): State<Exposed>,
    Segments(id): Segments<String>,
) -> Result<Response, Refusal> {
    let (_, reader) = open(exposed, &id).await?;
    let octets = HeaderValue::from_static("application/octet-stream");
    Ok((
        [(header::CONTENT_TYPE, octets)],
        reader.outline().to_bytes(),
    )
        .into_response())
}

async fn open(exposed: Exposed, id: &str) -> Result<(BlobId, BlobReader), Refusal> {
    let id: BlobId = parse_segment("a blob's name", id)?;
    let absent = || Refusal::new(RefusalCode::NotFound, format!("blob {id} is not here"));
    // The answer for a blob that is not served is the answer for one that does not exist.
    if exposed.served.is_some_and(|served| !served(&id)) {
        return Err(absent());
    }
    match blocking(move || exposed.blobs.reader(&id)).await? {
        Ok(reader) => Ok((id, reader)),
        // Set aside and reported by the store; to a reader it is simply not here any more.
        Err(BlobError::Absent { .. } | BlobError::Damaged { .. }) => Err(absent()),
        Err(error) => Err(storage_trouble(&error)),
    }
}

/// The one range of a `Range` header, if it is a run of whole mebibytes within the bounds.
fn parse_range(header: &HeaderValue, length: u64) -> Result<Range<u64>, &'static str> {
    let text = header.to_str().map_err(|_| "the range is not text")?;
    let spec = text
        .strip_prefix("bytes=")
        .ok_or("the unit is not `bytes`")?;
    if spec.contains(',') {
        return Err("more than one range");
    }
    let (first, last) = spec.split_once('-').ok_or("not `first-last`")?;
    let number = |digits: &str| {
        let only_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
        match digits.parse::<u64>() {
            Ok(number) if only_digits => Ok(number),
            _ => Err("a bound is not a number"),
        }
    };
    let (start, end) = match (first, last) {
        ("", suffix) => (length.saturating_sub(number(suffix)?), length),
        (first, "") => (number(first)?, length),
        (first, last) => (number(first)?, number(last)?.saturating_add(1).min(length)),
    };
    if start >= end {
        return Err("the range is empty, reversed or behind the end");
    }
    if end - start > MAX_RANGE_BYTES {
        return Err("the range is longer than 16 MiB");
    }
    if !start.is_multiple_of(SUBTREE_BYTES) || !(end.is_multiple_of(SUBTREE_BYTES) || end == length)
    {
        return Err("the range cuts a mebibyte");
    }
    Ok(start..end)
}

fn bad_range(what: &str, length: u64) -> Response {
    let mut response = Refusal::new(RefusalCode::BadRange, what).into_response();
    if let Ok(whole) = HeaderValue::try_from(format!("bytes */{length}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, whole);
    }
    response
}

/// The range as a body. Its first mebibyte is verified before the response begins.
async fn stream_range(reader: BlobReader, range: &Range<u64>) -> Result<Body, Refusal> {
    let mut subtrees = subtrees_of(range);
    let first = subtrees.next().unwrap_or_default();
    let (reader, pieces) = match verify(reader, first).await? {
        Ok(verified) => verified,
        Err(BlobError::Damaged { id, .. }) => {
            let message = format!("blob {id} is not here any more");
            return Err(Refusal::new(RefusalCode::NotFound, message));
        }
        Err(error) => return Err(storage_trouble(&error)),
    };
    Ok(Body::from_stream(stream::try_unfold(
        (reader, pieces, subtrees),
        |(mut reader, mut pieces, mut subtrees)| async move {
            loop {
                let (read, piece);
                (read, pieces, piece) = next_piece(reader, pieces).await?;
                reader = read;
                if let Some(bytes) = piece {
                    return Ok::<_, std::io::Error>(Some((bytes, (reader, pieces, subtrees))));
                }
                let Some(next) = subtrees.next() else {
                    return Ok(None);
                };
                let verified = verify(reader, next).await.map_err(std::io::Error::other)?;
                (reader, pieces) = verified.map_err(std::io::Error::other)?;
            }
        },
    )))
}

fn subtrees_of(range: &Range<u64>) -> Range<usize> {
    // Bounded by the file's length, which the disk holds.
    let index = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
    index(range.start / SUBTREE_BYTES)..index(range.end.div_ceil(SUBTREE_BYTES))
}

type Verified = Result<(BlobReader, Pieces), BlobError>;

async fn verify(mut reader: BlobReader, index: usize) -> Result<Verified, Refusal> {
    blocking(move || reader.pieces(index).map(|pieces| (reader, pieces))).await
}

type Piece = (BlobReader, Pieces, Option<Vec<u8>>);

async fn next_piece(mut reader: BlobReader, mut pieces: Pieces) -> std::io::Result<Piece> {
    let read = blocking(move || {
        let piece = reader.piece(&mut pieces);
        piece.map(|piece| (reader, pieces, piece))
    });
    let read = read.await.map_err(std::io::Error::other)?;
    read.map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;
    use crate::blobs::DiskBlobs;

    /// What waits for a reader that takes nothing is one frame of the body. What should not happen: that it
    /// is a mebibyte, or that a byte which rotted since the response began goes out.
    #[tokio::test]
    async fn a_body_comes_in_pieces_and_ends_where_the_blob_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = DiskBlobs::open(folder.path()).unwrap();
        let bytes: Vec<u8> = (0..2_500_001_u32)
            .map(|i| (i * 7 + i / 901) as u8)
            .collect();
        for length in [0, 1, 100_000, 1 << 20, (1 << 20) + 1, bytes.len()] {
            let id = blobs.put(&bytes[..length]).unwrap();
            let whole = 0..length as u64;
            let body = stream_range(blobs.reader(&id).unwrap(), &whole).await;
            let mut frames = body.unwrap().into_data_stream();
            let mut sent = Vec::new();
            while let Some(frame) = frames.next().await {
                let frame = frame.unwrap();
                assert!(frame.len() <= 64 << 10, "{} bytes at once", frame.len());
                sent.extend_from_slice(&frame);
            }
            assert_eq!(sent, bytes[..length]);
        }
        let id = blobs.put(&bytes).unwrap();
        let whole = 0..bytes.len() as u64;
        let body = stream_range(blobs.reader(&id).unwrap(), &whole).await;
        let mut frames = body.unwrap().into_data_stream();
        let name = id.to_string();
        let path = folder.path().join(&name[..2]).join(&name);
        let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        let rotten = 5 * (64 << 10) + 9;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(rotten)).unwrap();
        std::io::Write::write_all(&mut file, &[bytes[rotten as usize] ^ 1]).unwrap();
        let mut sent = 0;
        while let Some(Ok(frame)) = frames.next().await {
            sent += frame.len();
        }
        assert_eq!(sent, 5 * (64 << 10));
    }

    #[test]
    fn only_one_run_of_whole_mebibytes_is_a_range() {
        let mebibyte = SUBTREE_BYTES;
        let length = 40 * mebibyte + 5;
        let parse = |text: &str| parse_range(&HeaderValue::from_str(text).unwrap(), length);
        let span = |first: u64, last: u64| format!("bytes={first}-{last}");

        assert_eq!(parse(&span(0, mebibyte - 1)), Ok(0..mebibyte));
        assert_eq!(
            parse(&span(mebibyte, 17 * mebibyte - 1)),
            Ok(mebibyte..17 * mebibyte)
        );
        let tail = 40 * mebibyte..length;
        assert_eq!(parse(&span(tail.start, u64::MAX)), Ok(tail.clone()));
        assert_eq!(parse("bytes=41943040-"), Ok(tail.clone()));
        assert_eq!(parse("bytes=-5"), Ok(tail));

        for refused in [
            "bytes=0-99",
            "bytes=1-1048576",
            "bytes=5-3",
            "bytes=0-0,2-2",
            "bytes=0-",
            "bytes=-6",
            "bytes=-",
            "bytes=-0",
            "bytes=a-b",
            "bytes=+0-1048575",
            "bytes=99999999999999999999999-",
            "bytes=41943045-",
            "bytes=18446744073709551615-",
            "mebibytes=0-1",
            "",
        ] {
            assert!(parse(refused).is_err(), "{refused}");
        }
        assert!(parse(&span(0, 16 * mebibyte)).is_err(), "17 mebibytes");
    }
}
