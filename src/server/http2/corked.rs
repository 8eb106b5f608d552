//! The transport as h2 sees it.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::meter::Meter;
use crate::server::context::ClientTransport;

/// The connection's bytes. Gathers what h2 writes, and sends it once per poll of the task, in full records; h2 itself
/// flushes after each frame.
#[derive(Clone)]
pub(super) struct Corked {
    pub(super) transport: Rc<RefCell<ClientTransport>>,
    pub(super) meter: Rc<Meter>,
}

impl Corked {
    /// Sends what was gathered.
    pub(super) fn poll_send(&self, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.transport.borrow_mut().poll_flush(cx)
    }
}

impl AsyncRead for Corked {
    fn poll_read(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.meter.is_sated() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = AsyncRead::poll_read(Pin::new(&mut *self.transport.borrow_mut()), cx, buf);
        self.meter.receive(&buf.filled()[before..]);
        read
    }
}

impl AsyncWrite for Corked {
    fn poll_write(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.transport.borrow_mut().poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(len)) = written {
            self.meter.write(len);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.transport.borrow_mut().poll_shutdown(cx)
    }
}
