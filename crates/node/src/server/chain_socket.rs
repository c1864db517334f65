//! `GET /` with an upgrade to WebSocket: the embedded chain's JSON-RPC with its subscriptions, for tools
//! that know no other way of asking.
//!
//! The same door as for `POST /` ([`chain_rpc`](super::chain_rpc)): this machine and no web page. A socket keeps
//! its connection's place and ends with the server. Messages are as large as a POST's body may be; a peer
//! that does not take what it asked for is cut off by its stream's pace; one that only listens may stay, and
//! one that never stops asking is told of blocks all the same.

use std::sync::Arc;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use connito_chain::embedded::{MAX_BODY_BYTES, Session};
use tokio::sync::{Semaphore, watch};

use super::chain_rpc::{Door, is_for_this_machine};
use super::connections::{Lasting, Peer};
use super::routes::{blocking, nothing_here};
use crate::refusal::{Refusal, RefusalCode};

/// Sockets at a time: tools of one machine, each with a connection or two. Each may hold one message and
/// the notifications of its subscriptions.
pub(super) const MAX_SOCKETS: usize = 64;
/// Bytes that are collected before they are written: little, since notifications are to arrive.
const WRITE_BUFFER_BYTES: usize = 4 << 10;
/// Bytes that wait to be written at most: the chain's largest answer is half of this.
const MAX_WAITING_BYTES: usize = 32 << 20;

/// The places for sockets.
pub(super) type Sockets = Arc<Semaphore>;

pub(super) async fn open(
    State(door): State<Door>,
    Extension(peer): Extension<Peer>,
    Extension(connection): Extension<Lasting>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    if !is_for_this_machine(peer, &request) {
        return Err(nothing_here(request).await);
    }
    let Ok(upgrade) = upgrade else {
        return Err(nothing_here(request).await);
    };
    let Ok(place) = Arc::clone(&door.sockets).try_acquire_owned() else {
        let message = "too many sockets are open";
        return Err(Refusal::new(RefusalCode::Busy, message).retry_after(5));
    };
    let session = Session::new(door.chain);
    Ok(upgrade
        .max_message_size(MAX_BODY_BYTES)
        .max_frame_size(MAX_BODY_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(MAX_WAITING_BYTES)
        .on_upgrade(async move |socket| {
            converse(socket, session, connection.stopping.clone()).await;
            // Both places are given back only now.
            drop((place, connection));
        }))
}

/// What a socket has to see to.
enum Next {
    Received(Option<Result<Message, axum::Error>>),
    Notification(Vec<u8>),
}

/// Answers and notifies until either side has had enough.
async fn converse(
    mut socket: WebSocket,
    mut session: Session,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        // Neither questions nor notifications can hold up the other.
        let next = async {
            tokio::select! {
                received = socket.recv() => Next::Received(received),
                notification = session.next() => Next::Notification(notification),
            }
        };
        let next = tokio::select! {
            biased;
            _ = stopping.changed() => break,
            next = next => next,
        };
        let question = match next {
            Next::Notification(text) => {
                if !send(&mut socket, text, &mut stopping).await {
                    break;
                }
                continue;
            }
            Next::Received(Some(Ok(Message::Text(text)))) => text.as_bytes().to_vec(),
            Next::Received(Some(Ok(Message::Binary(bytes)))) => bytes.to_vec(),
            Next::Received(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
            Next::Received(Some(Ok(Message::Close(_)) | Err(_)) | None) => break,
        };
        let answering = blocking(move || {
            let answer = session.handle(&question);
            (session, answer)
        });
        // It fails only while the server ends.
        let Ok((back, answer)) = answering.await else {
            break;
        };
        session = back;
        // Notifications only: there is nothing to answer.
        if !answer.is_empty() && !send(&mut socket, answer, &mut stopping).await {
            break;
        }
    }
}

/// Sends a text. Says whether there may be another.
async fn send(socket: &mut WebSocket, text: Vec<u8>, stopping: &mut watch::Receiver<bool>) -> bool {
    // JSON is text; what is not cannot come from a session.
    let Ok(text) = String::from_utf8(text) else {
        return false;
    };
    tokio::select! {
        biased;
        _ = stopping.changed() => false,
        sent = socket.send(Message::Text(text.into())) => sent.is_ok(),
    }
}
