//! A TLS connection over a TCP socket. An idle one holds only rustls' state.
//!
//! rustls does all of TLS through its unbuffered API. The buffers belong to the thread, which lends
//! them only while they contain data.

mod hello;
mod outgoing;
mod records;
mod session;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub use hello::FirstMessage;
pub use records::Records;
pub use session::{Negotiated, ServerSession, Session};

use records::{PENDING_MAX, Phase};

/// The size of one read from a socket, in bytes: more than three full records.
const SCRATCH: usize = PENDING_MAX + 64 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// A TLS connection, of either side.
pub struct TlsStream<S> {
    socket: TcpStream,
    records: Records<S>,
}

impl<S: Session> TlsStream<S> {
    /// Wraps a connection before its handshake; `received` was already read from the socket.
    pub fn new(socket: TcpStream, session: S, received: Vec<u8>) -> Self {
        Self { socket, records: Records::new(session, received) }
    }

    /// Returns the state of rustls.
    pub fn session(&self) -> &S {
        &self.records.session
    }

    /// Returns the negotiated application protocol.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.records.session.alpn()
    }

    /// Returns the alert that ended the connection, if pintle sent it unencrypted.
    pub fn alert_sent(&self) -> Option<u8> {
        self.records.outgoing.alert_sent()
    }

    /// Returns the socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Returns the number of bytes that wait to be written.
    pub fn unsent(&self) -> usize {
        self.records.outgoing.len()
    }

    /// Drives the handshake; ready when application data may be sent.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            let mut first = self.records.pending_len() > 0;
            // A client speaks first.
            first |= self.records.phase == Phase::Handshake && self.records.outgoing.is_empty();
            loop {
                let mut none: &mut [u8] = &mut [];
                if std::mem::take(&mut first) {
                    let pending = self.records.pending_len();
                    self.receive(scratch, pending, &mut none, cx)?;
                }
                if self.records.hold_tickets() {
                    return Poll::Ready(Ok(()));
                }
                ready!(self.records.outgoing.poll_send(&mut self.socket, cx))?;
                if self.records.phase != Phase::Handshake {
                    return Poll::Ready(Ok(()));
                }
                let filled = ready!(self.poll_fill(scratch, cx))?;
                self.receive(scratch, filled, &mut none, cx)?;
            }
        })
    }

    /// Reads plaintext into `dst`; returns 0 when the peer has closed the connection properly.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if it ended without close_notify, so the data may be truncated (RFC 8446
    /// section 6.1).
    pub fn poll_read<B: BufMut>(&mut self, cx: &mut Context<'_>, dst: &mut B) -> Poll<io::Result<usize>> {
        if self.records.has_plain() {
            return Poll::Ready(Ok(self.records.take_plain(dst)));
        }
        SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            loop {
                if self.records.phase == Phase::PeerClosed {
                    return Poll::Ready(Ok(0));
                }
                let filled = ready!(self.poll_fill(scratch, cx))?;
                let read = self.receive(scratch, filled, dst, cx)?;
                if read > 0 {
                    return Poll::Ready(Ok(read));
                }
                // Messages of rustls itself (a KeyUpdate, a refused renegotiation) do not wait for
                // a write of ours: an idle connection has none, and would keep the buffer.
                if self.records.outgoing.is_sealed() {
                    let _ = self.records.outgoing.poll_send(&mut self.socket, cx);
                }
            }
        })
    }

    /// Reads from the socket after the pending bytes; returns the number of used bytes in the
    /// buffer.
    fn poll_fill(&mut self, scratch: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let pending = self.records.pending_len();
        let mut free = ReadBuf::new(&mut scratch[pending..]);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut free))?;
        match free.filled().len() {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            len => Poll::Ready(Ok(pending + len)),
        }
    }

    /// Lets rustls work. On failure sends its alert, if the socket accepts it.
    fn receive<B: BufMut>(
        &mut self,
        scratch: &mut [u8],
        filled: usize,
        dst: &mut B,
        cx: &mut Context<'_>,
    ) -> io::Result<usize> {
        self.records.receive(scratch, filled, dst).inspect_err(|_| {
            let _ = self.records.outgoing.poll_send(&mut self.socket, cx);
        })
    }

    /// Takes plaintext. It is sent when a record is full, or with [`Self::poll_flush`].
    pub fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.records.outgoing.is_full() {
            ready!(self.records.outgoing.poll_send(&mut self.socket, cx))?;
        }
        Poll::Ready(self.records.write(bufs))
    }

    /// Sends all taken plaintext.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A full buffer has no space for one more record; the staged plaintext is sealed after it.
        if self.records.outgoing.is_full() {
            ready!(self.records.outgoing.poll_send(&mut self.socket, cx))?;
        }
        self.records.seal()?;
        self.records.outgoing.poll_send(&mut self.socket, cx)
    }

    /// Returns `true` if everything taken has been sent.
    pub fn is_flushed(&self) -> bool {
        self.records.outgoing.is_empty()
    }

    /// Sends the rest and close_notify, and shuts down the sending side. If the peer has already
    /// ended its side, the end of the socket, which comes next, does that.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        self.records.close()?;
        ready!(self.records.outgoing.poll_send(&mut self.socket, cx))?;
        if self.records.phase == Phase::PeerClosed {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Ready when there may be something to read. Uses no buffer.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.records.has_plain() || self.records.phase == Phase::PeerClosed {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_read_ready(cx)
    }
}
