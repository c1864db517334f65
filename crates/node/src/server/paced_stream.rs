//! A TCP stream whose peer must keep taking what it asked for.
//!
//! Reads are bounded elsewhere: the head by its timeout, the body by its route. Writes end here: a
//! peer that keeps a response waiting and takes less than the floor in a window loses the
//! connection. Time during which nothing waits to be written does not count.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use crate::pace::{MinimumRate, Pace};

#[derive(Debug)]
pub(super) struct PacedStream {
    stream: TcpStream,
    pace: Pace,
    /// Since when the peer keeps a write waiting, and the end of its patience.
    blocked: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl PacedStream {
    pub(super) fn new(stream: TcpStream, rate: MinimumRate) -> Self {
        Self {
            stream,
            pace: Pace::new(rate),
            blocked: None,
        }
    }

    fn account(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(result) => {
                if let Some((since, _)) = self.blocked.take() {
                    self.pace.waited(since.elapsed());
                }
                if let Ok(bytes) = &result {
                    self.pace.moved(*bytes);
                }
                Poll::Ready(result)
            }
            Poll::Pending => self.wait(context),
        }
    }

    fn wait(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            let (since, patience) = self
                .blocked
                .get_or_insert_with(|| (Instant::now(), Box::pin(sleep(self.pace.patience()))));
            if patience.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.pace.waited(since.elapsed());
            self.blocked = None;
            if let Err(slow) = self.pace.judge() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, slow)));
            }
        }
    }
}

impl AsyncRead for PacedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PacedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.account(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, pieces);
        this.account(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
