//! The bytes of a connection, with TLS or without.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::tls::{Session, TlsStream};

/// The most that a connection at rest reads at once; bytes.
const FIRST_READ: usize = 16 * 1024;

thread_local! {
    static FIRST_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; FIRST_READ].into_boxed_slice());
}

/// A TCP connection of either side, plain or under TLS.
pub enum Transport<S> {
    /// Without TLS.
    Plain(TcpStream),
    /// Under TLS, after the handshake.
    Tls(TlsStream<S>),
}

impl<S: Session> Transport<S> {
    /// Returns the socket.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.socket(),
        }
    }

    /// Returns `true` if the connection is under TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Reads into `dst`, which must have room. Returns 0 at the end.
    ///
    /// # Errors
    ///
    /// Returns the socket's error; under TLS, `UnexpectedEof` for an end without close_notify.
    pub fn poll_read<B: BufMut>(&mut self, cx: &mut Context<'_>, dst: &mut B) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => pin!(socket.read_buf(dst)).poll(cx),
            Self::Tls(tls) => tls.poll_read(cx, dst),
        }
    }

    /// Appends to `dst`, which needs no memory while nothing comes.
    pub fn poll_read_lazily(&mut self, cx: &mut Context<'_>, dst: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => FIRST_BUFFER.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(socket).poll_read(cx, &mut read))?;
                dst.extend_from_slice(read.filled());
                Poll::Ready(Ok(read.filled().len()))
            }),
            // Not with `BufMut::limit`, which grows a buffer 64 bytes at a time.
            Self::Tls(tls) => tls.poll_read(cx, dst),
        }
    }

    /// Accepts bytes to send. Under TLS they are sent when a record is full, or with
    /// [`Self::poll_flush`].
    pub fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => {
                let len = ready!(match bufs {
                    [one] => Pin::new(socket).poll_write(cx, one),
                    _ => Pin::new(socket).poll_write_vectored(cx, bufs),
                })?;
                Poll::Ready(if len == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(len) })
            }
            Self::Tls(tls) => tls.poll_write_vectored(cx, bufs),
        }
    }

    /// Sends the accepted bytes.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    /// Returns `true` if all accepted bytes were sent.
    pub fn is_flushed(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(tls) => tls.is_flushed(),
        }
    }

    /// Returns the number of accepted bytes that were not sent yet.
    pub fn unsent(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(tls) => tls.unsent(),
        }
    }

    /// Closes the sending side; under TLS with close_notify.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => tls.poll_shutdown(cx),
        }
    }

    /// Closes the sending side, and discards all that comes until the peer closes its own. If
    /// unread bytes remained, the kernel would send a reset, which can overtake the last bytes
    /// sent.
    pub fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_shutdown(cx).is_pending() {
            return Poll::Pending;
        }
        let mut unread = BytesMut::new();
        loop {
            unread.clear();
            if let Ok(0) | Err(_) = ready!(self.poll_read_lazily(cx, &mut unread)) {
                return Poll::Ready(());
            }
        }
    }

    /// Ready when there may be something to read. Reads nothing.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_read_ready(cx),
            Self::Tls(tls) => tls.poll_readable(cx),
        }
    }
}

/// The traits that h2 needs.
impl<S: Session> AsyncRead for Transport<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(tls) => tls.poll_read(cx, buf).map_ok(drop),
        }
    }
}

impl<S: Session> AsyncWrite for Transport<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_shutdown(cx)
    }
}
