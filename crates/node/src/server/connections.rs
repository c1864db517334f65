//! From a listener to answered requests: accepting, one task a connection, and stopping.
//!
//! Stopping is orderly: no new connections, idle ones closed, requests being answered given a while.
//! Every connection belongs to this loop and ends with it; a route that takes one over (an upgrade) is given
//! [`Lasting`], with which it keeps its place and learns of the end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::Limits;
use super::guard::{Guard, Place};
use super::paced_stream::PacedStream;
use super::routes::nothing_here;

/// The address of the other end of a request's connection, for routes that depend on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// What a connection that goes on after its last response still needs, for the route that goes on with it.
#[derive(Debug, Clone)]
pub(super) struct Lasting {
    /// Changes when the server stops, or is gone.
    pub(super) stopping: watch::Receiver<bool>,
    /// Taken for as long as anybody holds it.
    _place: Arc<Place>,
}

/// After an error of `accept` itself, which usually means that no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What one connection may hold in its read buffer. The parser needs room for two heads.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// Said to a connection that found no place. The listener cannot wait to hear its request.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    retry-after: 5\r\ncontent-length: 66\r\nconnection: close\r\n\r\n\
    {\"code\":\"busy\",\"message\":\"too many connections\",\"retry_after\":5}\r\n";

/// Serves `router` on `listener` until `shutdown` resolves, then finishes what is being answered.
///
/// What no route takes is refused as `not_found`. Requests under way when `shutdown` resolves have
/// [`Limits::drain`] to finish.
///
/// Dropping the future closes the listener and every connection at once.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let drain = limits.drain;
    let server = Arc::new(Server {
        router: router
            .fallback(nothing_here)
            .method_not_allowed_fallback(nothing_here),
        guard: Arc::new(Guard::new(limits.clone())),
        limits,
    });
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    Arc::clone(&server).begin(stream, peer, &stopping, &mut connections);
                }
                Err(error) => {
                    tracing::warn!(target: "server", %error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let _ = stop.send(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, drained).await.is_err() {
        tracing::warn!(target: "server", "closed connections that did not finish in time");
    }
}

struct Server {
    router: Router,
    guard: Arc<Guard>,
    limits: Limits,
}

impl Server {
    fn begin(
        self: Arc<Self>,
        mut stream: TcpStream,
        peer: SocketAddr,
        stopping: &watch::Receiver<bool>,
        connections: &mut JoinSet<()>,
    ) {
        match self.guard.connect(peer) {
            Some(place) => {
                connections.spawn(self.connection(stream, peer, place, stopping.clone()));
            }
            None => {
                tracing::debug!(target: "server", %peer, "no place for a connection");
                // A new socket's buffer is empty, so this does not wait; if it would, so be it.
                let _ = futures_util::FutureExt::now_or_never(stream.write_all(NO_PLACE));
            }
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        place: Place,
        mut stopping: watch::Receiver<bool>,
    ) {
        // A response goes out in few large writes; waiting to merge them only delays small ones.
        let _ = stream.set_nodelay(true);
        let lasting = Lasting {
            stopping: stopping.clone(),
            _place: Arc::new(place),
        };
        let stream = TokioIo::new(PacedStream::new(stream, self.limits.minimum_rate));
        let service = service_fn(|request| self.answer(request, peer, &lasting));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .max_headers(self.limits.headers * 2)
            .max_header_size(self.limits.head_bytes * 2)
            .max_buf_size(READ_BUFFER_BYTES.max(self.limits.head_bytes * 4))
            .serve_connection(stream, service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            _ = stopping.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(target: "server", %peer, %error, "connection ended early");
        }
    }

    async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        peer: SocketAddr,
        lasting: &Lasting,
    ) -> Result<Response, Infallible> {
        let (mut head, body) = request.into_parts();
        if let Err(refusal) = self.guard.check(&head, peer) {
            return Ok(refusal.into_response());
        }
        head.extensions.insert(Peer(peer));
        head.extensions.insert(lasting.clone());
        let request = Request::from_parts(head, Body::new(body));
        self.router.clone().oneshot(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::NO_PLACE;

    #[test]
    fn the_answer_to_a_connection_without_a_place_states_its_true_length() {
        let text = std::str::from_utf8(NO_PLACE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())));
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json["code"], "busy");
    }
}
