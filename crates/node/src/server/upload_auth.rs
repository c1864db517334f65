//! Who sent an upload: `btauth/1`, judged before the body is read.
//!
//! `btauth/1` signs the body's SHA-256 without sending it. The sender states it in a header
//! ([`BODY_HASH_HEADER`]), the signature is verified over the stated hash, and the body is compared
//! with it while it streams; so a stranger's body is never read.
//!
//! Registration is looked up between the age and the signature: it costs less, and strangers then
//! cannot crowd the memory of past requests, which is bounded.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::request::Parts;
use connito_chain::btauth::{self, AuthError, Headers, ReplayStore, Verifier};
use connito_protocol::ids::Hotkey;
use tokio::sync::Semaphore;

use super::routes::blocking;
use crate::clock::now_ns;
use crate::refusal::{Refusal, RefusalCode};
use crate::upload::BODY_HASH_HEADER;

/// Senders whose requests of the last seconds are remembered: more than a network has miners.
const REMEMBERED_SENDERS: usize = 4096;
/// Requests of one sender within the window; above what its rate allows.
const REMEMBERED_REQUESTS: usize = 64;
/// Signature checks at a time. Each takes a fraction of a millisecond of one core.
const CHECKS_AT_A_TIME: usize = 2;

/// Judges the signatures of requests to one receiver.
#[derive(Debug)]
pub(super) struct Gatekeeper {
    verifier: Verifier,
    seen: Arc<Mutex<ReplayStore>>,
    checks: Semaphore,
}

/// A sender whose request is genuine, and the hash that its body must have.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) hotkey: Hotkey,
    pub(super) body_sha256: String,
}

impl Gatekeeper {
    pub(super) fn new(receiver: Hotkey) -> Self {
        let seen = ReplayStore::new(REMEMBERED_SENDERS, REMEMBERED_REQUESTS, now_ns());
        Self {
            verifier: Verifier::new(receiver),
            seen: Arc::new(Mutex::new(seen)),
            checks: Semaphore::new(CHECKS_AT_A_TIME),
        }
    }

    /// The sender of a request, if it is a registered one and the request is really its own and new.
    pub(super) async fn identify(
        &self,
        head: &Parts,
        is_registered: impl FnOnce(&Hotkey) -> bool,
    ) -> Result<Sender, Refusal> {
        // What is not text is read as something that no header means: left out, it would let a second
        // header of the same name pass for the only one.
        let all = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap_or("\u{fffd}")));
        let headers = Headers::parse(all).map_err(|error| refuse(&error))?;
        let body_sha256 = stated_body_hash(head)?;
        self.verifier
            .admit(&headers, now_ns())
            .map_err(|error| refuse(&error))?;
        if !is_registered(&headers.sender) {
            let message = format!("{} is not a registered miner", headers.sender);
            return Err(Refusal::new(RefusalCode::NotRegistered, message));
        }
        let hotkey = self.verify(head, headers, body_sha256.clone()).await?;
        Ok(Sender {
            hotkey,
            body_sha256,
        })
    }

    async fn verify(
        &self,
        head: &Parts,
        headers: Headers,
        body_sha256: String,
    ) -> Result<Hotkey, Refusal> {
        let busy = |_| Refusal::new(RefusalCode::Busy, "the server is stopping");
        let _turn = self.checks.acquire().await.map_err(busy)?;
        let (verifier, seen) = (self.verifier, Arc::clone(&self.seen));
        let method = head.method.to_string();
        let target = match head.uri.path_and_query() {
            Some(target) => target.to_string(),
            None => head.uri.path().to_owned(),
        };
        let verified = blocking(move || {
            let request = btauth::Request {
                method: &method,
                target: &target,
                body_sha256: &body_sha256,
            };
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            verifier.verify(&headers, &request, now_ns(), &mut seen)
        });
        verified.await?.map_err(|error| refuse(&error))
    }
}

fn stated_body_hash(head: &Parts) -> Result<String, Refusal> {
    let mut stated = head.headers.get_all(BODY_HASH_HEADER).iter();
    match (stated.next().map(|hash| hash.to_str()), stated.next()) {
        (Some(Ok(hash)), None) => Ok(hash.to_owned()),
        _ => Err(Refusal::new(
            RefusalCode::BadAuth,
            format!("the header {BODY_HASH_HEADER} is missing, repeated or unreadable"),
        )),
    }
}

fn refuse(error: &AuthError) -> Refusal {
    let code = match error {
        AuthError::Malformed(_) => RefusalCode::BadAuth,
        AuthError::WrongReceiver => RefusalCode::WrongReceiver,
        AuthError::Stale => RefusalCode::StaleRequest,
        AuthError::BadSignature => RefusalCode::BadSignature,
        AuthError::Replayed => RefusalCode::ReplayedRequest,
        AuthError::Overloaded => RefusalCode::RateLimited,
    };
    let refusal = Refusal::new(code, error.to_string());
    match error {
        AuthError::Overloaded => refusal.retry_after(10),
        AuthError::Stale => Refusal {
            // So that the client can say by how much its clock is off.
            server_time_ms: Some(now_ns() / 1_000_000),
            ..refusal
        },
        _ => refusal,
    }
}
