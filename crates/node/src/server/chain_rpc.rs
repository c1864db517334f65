//! `POST /`: the embedded chain's JSON-RPC, for the other processes of this machine. Those that want
//! to be told of blocks open a socket at the same place (`chain_socket.rs`).
//!
//! Operations carry their own signatures, so the door only keeps out what has no business here:
//! other machines, and web pages that make a browser of this machine ask on their behalf.
//! Both are told that nothing is here. Bodies are bounded and paced; what they say is the chain's
//! to judge.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use connito_chain::embedded::{EmbeddedChain, MAX_BODY_BYTES};
use tokio::sync::Semaphore;

use super::body::whole;
use super::chain_socket::{self, MAX_SOCKETS, Sockets};
use super::connections::Peer;
use super::routes::{blocking, nothing_here};
use super::{Limits, MinimumRate};
use crate::pace::Pace;
use crate::refusal::{Refusal, RefusalCode};

/// What the routes of the chain share.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) chain: Arc<EmbeddedChain>,
    pub(super) sockets: Sockets,
    rate: MinimumRate,
}

/// The route of the embedded chain. Merge it with others or serve it alone.
pub fn chain_router(chain: Arc<EmbeddedChain>, limits: &Limits) -> Router {
    let door = Door {
        chain,
        sockets: Arc::new(Semaphore::new(MAX_SOCKETS)),
        rate: limits.minimum_rate,
    };
    let both = post(answer).get(chain_socket::open);
    Router::new().route("/", both).with_state(door)
}

async fn answer(
    State(door): State<Door>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Response, Refusal> {
    if !is_for_this_machine(peer, &request) {
        return Err(nothing_here(request).await);
    }
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        let message = "a question is sent as it is, in no encoding";
        return Err(Refusal::new(RefusalCode::UnsupportedEncoding, message));
    }
    let mut body = request.into_body();
    let body = whole(&mut body, Pace::new(door.rate), MAX_BODY_BYTES).await?;
    let chain = door.chain;
    chain.wait_as_asked(&body).await;
    let answer = blocking(move || chain.handle(&body)).await?;
    if answer.is_empty() {
        // Notifications only: there is nothing to answer.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(([(header::CONTENT_TYPE, "application/json")], answer).into_response())
}

/// Whether a request comes from this machine, by its own name, and from no web page of anybody else's.
pub(super) fn is_for_this_machine(peer: Peer, request: &Request) -> bool {
    peer.0.ip().to_canonical().is_loopback() && is_local(request.uri(), request.headers())
}

/// Whether the request names this machine as its host, wherever it names one, and no origin but that
/// host: pages of other hosts and ports have another, pages of this server do not exist, and WebSocket
/// libraries name the host that they were given.
fn is_local(target: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(Ok(host)), None) = (hosts.next().map(HeaderValue::to_str), hosts.next()) else {
        return false;
    };
    let own =
        |origin: &HeaderValue| origin.as_bytes().strip_prefix(b"http://") == Some(host.as_bytes());
    let target = target.authority().map(Authority::as_str);
    names_this_machine(host)
        && target.is_none_or(names_this_machine)
        && headers.get_all(header::ORIGIN).iter().all(own)
}

/// Whether a host, with or without its port, is this machine under the names that no name server gives.
fn names_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_to_this_machine_by_no_web_page_of_others_are_local() {
        let local = |host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            is_local(&Uri::from_static("/"), &headers)
        };
        for host in [
            "localhost",
            "localhost:9944",
            "127.0.0.1:1",
            "[::1]:9",
            "[::1]",
        ] {
            assert!(local(host, None), "{host}");
            assert!(local(host, Some(&format!("http://{host}"))), "{host}");
            for other in [
                "http://localhost:1",
                "https://127.0.0.1:1",
                "127.0.0.1:1",
                "null",
                "",
            ] {
                assert!(!local(host, Some(other)), "{host} for {other}");
            }
        }
        // A name that an attacker's name server resolves to this machine is not this machine.
        for host in ["rebound.example:9944", "127.0.0.1.example", "::1", ""] {
            assert!(!local(host, None), "{host}");
            assert!(!local(host, Some(&format!("http://{host}"))), "{host}");
        }
        assert!(!is_local(&Uri::from_static("/"), &HeaderMap::new()));
    }
}
