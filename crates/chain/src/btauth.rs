//! Signed requests between participants: `btauth/1`.
//!
//! The sender signs eight lines joined by newlines, none at the end:
//!
//! ```text
//! btauth/1
//! sr25519                        the scheme
//! POST                           the method, upper case
//! /v1/updates?cycle=3            the request target, exactly as sent
//! 341c57…                        sha256 of the raw body, lower-case hexadecimal
//! 1752076800000000000            nonce: nanoseconds since 1970
//! 5Grwva…                        the sender
//! 5FHneW…                        the receiver, or - when unbound
//! ```
//!
//! The receiver decides in this order: shape of the headers, receiver, age, signature, replay. The
//! first two steps and the age need no body ([`Verifier::admit`]), so a stranger's body need not
//! be read; the body's hash is an argument, so a large body can be hashed while it streams. Time is
//! an argument everywhere. The dialect knows two schemes, sr25519 and ed25519. A signature is judged
//! under the one that its request names, or sr25519 where it names none, and never under the other;
//! requests made here are signed with sr25519.

mod headers;
mod replay;

use connito_protocol::ids::Hotkey;
use sha2::{Digest, Sha256};

use crate::keys::{self, Signer};

pub use headers::{Headers, Scheme};
pub use replay::ReplayStore;

/// How old a nonce may be, in nanoseconds.
pub const MAX_AGE_NS: u64 = 10_000_000_000;
/// How far ahead of the receiver's clock a nonce may be, in nanoseconds.
pub const MAX_AHEAD_NS: u64 = 2_000_000_000;

/// Why a request is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A header is missing, repeated or unparsable, or the request itself cannot be signed.
    #[error("request authentication: {0}")]
    Malformed(&'static str),
    /// Meant for somebody else, or for nobody in particular.
    #[error("the request is not addressed to this receiver")]
    WrongReceiver,
    /// Signed too long ago, or too far in the future.
    #[error("the request's nonce is outside the accepted time")]
    Stale,
    /// The signature is not the sender's over this request.
    #[error("the request's signature is not valid")]
    BadSignature,
    /// This sender has used this nonce.
    #[error("the request has been seen before")]
    Replayed,
    /// So many requests of the last seconds are remembered that no more fit.
    #[error("too many requests within the replay window")]
    Overloaded,
}

/// What of a request is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// Path and query, exactly as sent.
    pub target: &'a str,
    /// The body's hash as lower-case hexadecimal; see [`body_hash`].
    pub body_sha256: &'a str,
}

/// The hash of a body at hand, as it stands in the signed text.
#[must_use]
pub fn body_hash(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

/// Signs a request. Every retry needs a fresh nonce: the current time in nanoseconds since 1970.
///
/// # Errors
/// [`AuthError::Malformed`] when the request's method, target or body hash could not stand on a
/// line of their own.
pub fn sign(
    signer: &dyn Signer,
    request: &Request<'_>,
    receiver: Option<Hotkey>,
    nonce: u64,
) -> Result<Headers, AuthError> {
    let mut headers = Headers {
        sender: signer.hotkey(),
        receiver,
        nonce,
        scheme: Scheme::Sr25519,
        signature: [0; 64],
    };
    headers.signature = signer.sign(signed_text(&headers, request)?.as_bytes());
    Ok(headers)
}

/// The eight lines.
fn signed_text(headers: &Headers, request: &Request<'_>) -> Result<String, AuthError> {
    let Request {
        method,
        target,
        body_sha256,
    } = *request;
    // A newline smuggled into one line would let it speak for the next.
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(AuthError::Malformed("the method is not upper-case letters"));
    }
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(AuthError::Malformed("the target is not a printable path"));
    }
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if body_sha256.len() != 64 || !body_sha256.bytes().all(is_hex) {
        return Err(AuthError::Malformed(
            "the body hash is not 64 lower-case hexadecimal digits",
        ));
    }
    let Headers { sender, nonce, .. } = headers;
    let scheme = headers.scheme.name();
    let receiver = headers
        .receiver
        .map_or_else(|| "-".to_owned(), |key| key.to_string());
    Ok(format!(
        "btauth/1\n{scheme}\n{method}\n{target}\n{body_sha256}\n{nonce}\n{sender}\n{receiver}"
    ))
}

/// One receiver's judgement of requests. Cheap to copy; the memory of past requests is separate.
#[derive(Debug, Clone, Copy)]
pub struct Verifier {
    receiver: Hotkey,
    accepts_unbound: bool,
}

impl Verifier {
    /// Judges requests addressed to `receiver`.
    #[must_use]
    pub fn new(receiver: Hotkey) -> Self {
        Self {
            receiver,
            accepts_unbound: false,
        }
    }

    /// Also accepts requests addressed to nobody. For endpoints where a request that was captured
    /// elsewhere does no harm.
    #[must_use]
    pub fn accepting_unbound(self) -> Self {
        Self {
            accepts_unbound: true,
            ..self
        }
    }

    /// The part of the judgement that needs no body. `now` is in nanoseconds since 1970.
    ///
    /// # Errors
    /// Addressed to another receiver, or outside the accepted time.
    pub fn admit(&self, headers: &Headers, now: u64) -> Result<(), AuthError> {
        match headers.receiver {
            Some(receiver) if receiver == self.receiver => {}
            None if self.accepts_unbound => {}
            _ => return Err(AuthError::WrongReceiver),
        }
        let too_old = now.saturating_sub(headers.nonce) > MAX_AGE_NS;
        let too_new = headers.nonce.saturating_sub(now) > MAX_AHEAD_NS;
        if too_old || too_new {
            Err(AuthError::Stale)
        } else {
            Ok(())
        }
    }

    /// The whole judgement. The sender comes back only if this request is really its own and new.
    ///
    /// # Errors
    /// Every [`AuthError`], in the order of the module's account.
    pub fn verify(
        &self,
        headers: &Headers,
        request: &Request<'_>,
        now: u64,
        seen: &mut ReplayStore,
    ) -> Result<Hotkey, AuthError> {
        self.admit(headers, now)?;
        let text = signed_text(headers, request)?;
        let verify = match headers.scheme {
            Scheme::Sr25519 => keys::verify,
            Scheme::Ed25519 => keys::verify_ed25519,
        };
        if !verify(headers.sender, text.as_bytes(), &headers.signature) {
            return Err(AuthError::BadSignature);
        }
        // Only now: an unsigned request must not be able to use up a sender's nonce.
        seen.remember(headers.sender, headers.nonce, now)?;
        Ok(headers.sender)
    }
}

#[cfg(test)]
mod tests;
