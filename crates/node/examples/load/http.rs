//! As much of an HTTP/1.1 client as the load needs, with every byte in its own hands.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than any answer of the routes that are asked.
const ANSWER_BYTES: usize = 16 << 10;

/// A response, or an interim one.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// One response; what a `content-length` promises is read, and nothing beyond.
pub(crate) async fn read_response(stream: &mut TcpStream) -> io::Result<Response> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > ANSWER_BYTES {
            return Err(io::Error::other("a head without end"));
        }
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("no status"))?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0).min(ANSWER_BYTES)];
    stream.read_exact(&mut body).await?;
    Ok(Response { status, body })
}

/// `GET` on a connection of its own.
pub(crate) async fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    read_response(&mut stream).await
}
