//! Why a request was refused: a closed set of codes, each with one HTTP status.
//!
//! A refusal is not a verdict on an update: it changes nobody's history. Its body is JSON,
//! `{"code", "message"}` and, where it helps, when to come back, the server's time, or what was
//! received before. What a client sent is repeated to it only escaped and shortened.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::upload::Received;

macro_rules! refusal_codes {
    ($($(#[$doc:meta])* $name:ident = $status:literal, $text:literal;)*) => {
        /// The kind of a refusal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum RefusalCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl RefusalCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code as it is spelled in bodies, logs and documents.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }
        }
    };
}

refusal_codes! {
    /// A path, header or body that is not what this route takes.
    Malformed = 400, "malformed";
    /// An upload without `Content-Length`.
    LengthRequired = 411, "length_required";
    /// A signature header is missing or unreadable.
    BadAuth = 401, "bad_auth";
    /// The signature, or the body that it covers, does not verify.
    BadSignature = 401, "bad_signature";
    /// Signed too long ago, or in the future. The body carries the server's time.
    StaleRequest = 401, "stale_request";
    /// This very request was made before.
    ReplayedRequest = 401, "replayed_request";
    /// Signed for another receiver.
    WrongReceiver = 401, "wrong_receiver";
    /// The sender is no miner of this network.
    NotRegistered = 403, "not_registered";
    /// The sender belongs to another group.
    WrongGroup = 403, "wrong_group";
    /// Nothing is here under this path, or nothing that is served.
    NotFound = 404, "not_found";
    /// The body came slower than the floor.
    SlowClient = 408, "slow_client";
    /// The sender's update for this cycle was received before; the body repeats that answer.
    AlreadySubmitted = 409, "already_submitted";
    /// The upload window is closed.
    TooLate = 410, "too_late";
    /// The declared length exceeds the bound.
    TooLarge = 413, "too_large";
    /// A body in a `Content-Encoding`.
    UnsupportedEncoding = 415, "unsupported_encoding";
    /// A range that is not one run of whole mebibytes of the blob.
    BadRange = 416, "bad_range";
    /// The upload window is not open yet.
    TooEarly = 425, "too_early";
    /// Too many requests from this address or hotkey.
    RateLimited = 429, "rate_limited";
    /// A request head above the bounds.
    HeaderTooLarge = 431, "header_too_large";
    /// No capacity just now.
    Busy = 503, "busy";
}

/// A refusal, as answered and as read back by the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {message}", .code.text())]
pub struct Refusal {
    /// The kind.
    pub code: RefusalCode,
    /// One sentence for a person.
    pub message: String,
    /// When it makes sense to try again, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// With `stale_request`: the server's clock, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_time_ms: Option<u64>,
    /// With `already_submitted`: what was received first, which is what counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Box<Received>>,
}

impl Refusal {
    /// A refusal with a code and a sentence.
    #[must_use]
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
            server_time_ms: None,
            first: None,
        }
    }

    /// The same, with a time after which to try again.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds),
            ..self
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        if let Some(seconds) = self.retry_after {
            let seconds = HeaderValue::from(seconds);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

/// The most of a client's input that a refusal repeats.
const SHOWN_CHARACTERS: usize = 200;

/// Input as it may stand in a message: escaped, and at most 200 characters of it.
#[must_use]
pub fn shown(input: &str) -> String {
    input
        .chars()
        .flat_map(char::escape_default)
        .take(SHOWN_CHARACTERS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sent_is_repeated_escaped_and_shortened() {
        assert_eq!(shown("a\r\n\"<é"), "a\\r\\n\\\"<\\u{e9}");
        assert_eq!(shown(&"\n".repeat(1000)).len(), SHOWN_CHARACTERS);
    }

    #[test]
    fn a_refusal_is_read_back_as_it_was_written_and_says_nothing_it_does_not_know() {
        let refusal = Refusal::new(RefusalCode::Busy, "later").retry_after(3);
        let json = serde_json::to_string(&refusal).unwrap();
        assert_eq!(json, r#"{"code":"busy","message":"later","retry_after":3}"#);
        assert_eq!(serde_json::from_str::<Refusal>(&json).unwrap(), refusal);
        for code in RefusalCode::ALL {
            let json = serde_json::to_value(code).unwrap();
            assert_eq!(json, code.text());
            assert!((400..600).contains(&code.status()));
        }
    }
}
