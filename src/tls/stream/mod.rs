//! A TLS connection over a TCP socket that keeps nothing but rustls' state at rest.
//!
//! rustls does all of TLS, through its unbuffered API; the buffers are the thread's, lent while something is in them.

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
pub use session::{ServerSession, Session};

use records::{PENDING_MAX, Phase};

/// How much is read from a socket at once: three full records and more.
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
    /// A connection whose handshake is yet to come; `received` was read from the socket already.
    pub fn new(socket: TcpStream, session: S, received: Vec<u8>) -> Self {
        Self { socket, records: Records::new(session, received) }
    }

    /// The state of rustls.
    pub fn session(&self) -> &S {
        &self.records.session
    }

    /// The protocol that was agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.records.session.alpn()
    }

    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Bytes that wait to be written.
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

    /// Reads plaintext into `dst`; gives 0 when the peer has closed the connection properly.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when it ended without close_notify, so that what came may be cut short (RFC 8446 section 6.1).
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
                // What rustls says on its own account (a KeyUpdate, a no to another handshake) waits for no write of ours:
                // on a connection at rest there is none, and the buffer would stay lent.
                if self.records.outgoing.is_sealed() {
                    let _ = self.records.outgoing.poll_send(&mut self.socket, cx);
                }
            }
        })
    }

    /// Reads from the socket behind what is pending; gives how much of the buffer is in use.
    fn poll_fill(&mut self, scratch: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let pending = self.records.pending_len();
        let mut free = ReadBuf::new(&mut scratch[pending..]);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut free))?;
        match free.filled().len() {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            len => Poll::Ready(Ok(pending + len)),
        }
    }

    /// Lets rustls work; on failure its alert goes out, if the socket takes it.
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

    /// Takes plaintext to be sent. It is sent when a record is full, or with [`Self::poll_flush`].
    pub fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.records.outgoing.is_full() {
            ready!(self.records.outgoing.poll_send(&mut self.socket, cx))?;
        }
        Poll::Ready(self.records.write(bufs))
    }

    /// Sends all that was taken.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A full buffer has no room for one more record; what is staged is sealed behind it.
        if self.records.outgoing.is_full() {
            ready!(self.records.outgoing.poll_send(&mut self.socket, cx))?;
        }
        self.records.seal()?;
        self.records.outgoing.poll_send(&mut self.socket, cx)
    }

    /// Whether everything taken has been sent.
    pub fn is_flushed(&self) -> bool {
        self.records.outgoing.is_empty()
    }

    /// Sends what is left and close_notify, and ends the sending side. Where the peer has ended its own, that is left to
    /// the socket's end, which comes next.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        self.records.close()?;
        ready!(self.records.outgoing.poll_send(&mut self.socket, cx))?;
        if self.records.phase == Phase::PeerClosed {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Ready when there may be something to read. Touches no buffer.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.records.has_plain() || self.records.phase == Phase::PeerClosed {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_read_ready(cx)
    }
}
