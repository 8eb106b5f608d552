//! A transport for h2 that survives a peer that closes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::upstream::settings::UpstreamTransport;

/// A transport that is read to its end even if writes fail.
///
/// An upstream that shuts down names the requests that it has not processed, and closes. pintle's
/// writes may fail before it has read those names.
pub(super) struct ReadsToEnd {
    transport: UpstreamTransport,
    write_closed: bool,
}

impl ReadsToEnd {
    pub(super) fn new(transport: UpstreamTransport) -> Self {
        Self { transport, write_closed: false }
    }

    /// Pretends that a write succeeded if the peer has closed. The end of the reading side reports
    /// the close.
    fn ignore_closed<T>(&mut self, written: Poll<io::Result<T>>, all: T) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(error)) if is_closed(&error) => {
                self.write_closed = true;
                Poll::Ready(Ok(all))
            }
            written => written,
        }
    }
}

/// Returns `true` if the peer has closed the connection: its reading side comes to an end, too.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl AsyncRead for ReadsToEnd {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_read(cx, buf)
    }
}

impl AsyncWrite for ReadsToEnd {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.write_closed {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.transport).poll_write(cx, buf);
        self.ignore_closed(written, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = bufs.iter().map(|buf| buf.len()).sum();
        if self.write_closed {
            return Poll::Ready(Ok(all));
        }
        let written = Pin::new(&mut self.transport).poll_write_vectored(cx, bufs);
        self.ignore_closed(written, all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write_closed {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.transport).poll_flush(cx);
        self.ignore_closed(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write_closed {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
