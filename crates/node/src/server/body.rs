//! Reading request bodies: paced, and refused in words when they break off.

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::BodyExt;

use crate::pace::Pace;
use crate::refusal::{Refusal, RefusalCode};

/// The next bytes of a body; `None` at its end.
pub(super) async fn next_bytes(body: &mut Body, pace: &mut Pace) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = pace
            .wait(body.frame())
            .await
            .map_err(|slow| Refusal::new(RefusalCode::SlowClient, slow.to_string()))?;
        match frame {
            None => return Ok(None),
            // Trailers are no data and mean nothing here.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    pace.moved(data.len());
                    return Ok(Some(data));
                }
            }
            Some(Err(_)) => {
                let message = "the body ended before its declared length";
                return Err(Refusal::new(RefusalCode::Malformed, message));
            }
        }
    }
}

/// A whole body of at most `max_bytes`.
pub(super) async fn whole(
    body: &mut Body,
    mut pace: Pace,
    max_bytes: usize,
) -> Result<Vec<u8>, Refusal> {
    let too_large = || {
        let message = format!("a request body has at most {max_bytes} bytes");
        Err(Refusal::new(RefusalCode::TooLarge, message))
    };
    // A declared length is believed before a byte of it has come.
    if body.size_hint().lower() > max_bytes as u64 {
        return too_large();
    }
    let mut bytes = Vec::new();
    while let Some(data) = next_bytes(body, &mut pace).await? {
        if bytes.len() + data.len() > max_bytes {
            return too_large();
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
