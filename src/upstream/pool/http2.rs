//! HTTP/2 connections to an upstream, and how many streams may be open on each.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Connection, Places};
use crate::clock::Alarm;
use crate::upstream::error::UpstreamError;
use crate::upstream::settings::UpstreamTransport;

/// How much one response may send ahead of its client.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Streams of one connection before another is opened.
const STREAMS: u32 = 100;
/// What h2 gathers of one request's body before the upstream takes it.
const SEND_BUFFER: usize = 64 * 1024;
/// What all responses of a connection may send ahead together: as much as each of them may, so that clients who do not
/// read hold up nobody else.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS;
/// What h2 says of SETTINGS_MAX_CONCURRENT_STREAMS before the upstream has said anything: no value that it can have.
const UNTOLD: usize = usize::MAX - 1;

/// A connection that streams are opened on.
#[derive(Clone)]
pub(in crate::upstream) struct Http2 {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
}

struct State {
    places: Rc<Places>,
    address: SocketAddr,
    streams: Cell<usize>,
    /// Streams that the upstream lets be open at the same time: SETTINGS_MAX_CONCURRENT_STREAMS.
    allowed: Cell<usize>,
    closed: Cell<bool>,
    /// It has answered once.
    answered: Cell<bool>,
    idle_since: Cell<u32>,
}

impl State {
    fn close(&self) {
        if !self.closed.replace(true) {
            self.places.look_elsewhere();
        }
    }
}

impl Http2 {
    /// Whether another stream may be opened.
    pub(in crate::upstream) fn has_room(&self) -> bool {
        !self.is_closed() && self.state.streams.get() < (STREAMS as usize).min(self.state.allowed.get())
    }

    /// Whether the upstream lets no stream be opened for now; another connection would fare no better.
    pub(in crate::upstream) fn is_shut(&self) -> bool {
        !self.is_closed() && self.state.allowed.get() == 0
    }

    /// Where it leads.
    pub(in crate::upstream) fn address(&self) -> SocketAddr {
        self.state.address
    }

    pub(in crate::upstream) fn is_closed(&self) -> bool {
        self.state.closed.get()
    }

    /// What is open on it goes on; there is nothing new.
    pub(in crate::upstream) fn retire(&self) {
        self.state.close();
    }

    /// Whether no stream was open since that tick; `now` starts the count.
    pub(in crate::upstream) fn is_idle_since(&self, oldest: u32, now: u32) -> bool {
        if self.state.streams.get() > 0 || self.state.idle_since.get() == 0 {
            self.state.idle_since.set(now);
        }
        self.state.idle_since.get() < oldest
    }
}

/// Begins HTTP/2 on a connection, and waits for the upstream to say how many streams it takes. One task drives it for as
/// long as it lives. It may take as long to end as it may to begin: `ending` is the alarm for that.
pub(in crate::upstream) async fn start(
    connection: Connection,
    timeout: Duration,
    head_max: usize,
    alarm: &Alarm,
    ending: Alarm,
) -> Result<Http2, UpstreamError> {
    let Connection { transport, address, slot } = connection;
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(UNTOLD)
        .max_send_buffer_size(SEND_BUFFER)
        // h2 counts 32 bytes on top of each field.
        .max_header_list_size(u32::try_from(head_max * 2).unwrap_or(u32::MAX));
    alarm.set(timeout);
    let mut handshake = Box::pin(builder.handshake(HearsOut { transport, deaf: false }));
    let (sender, driver) = poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(done.map_err(UpstreamError::Http2)),
        Poll::Pending => alarm.poll_due(cx).map(|()| Err(UpstreamError::ConnectTimeout)),
    })
    .await?;
    let mut driver = Box::pin(driver);
    poll_fn(|cx| match driver.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Err(ended.err().map_or(UpstreamError::Closed(None), UpstreamError::Http2))),
        Poll::Pending if driver.max_concurrent_send_streams() != UNTOLD => Poll::Ready(Ok(())),
        Poll::Pending => alarm.poll_due(cx).map(|()| Err(UpstreamError::ConnectTimeout)),
    })
    .await?;
    let state = Rc::new(State {
        places: slot.places().clone(),
        address,
        streams: Cell::default(),
        allowed: Cell::new(driver.max_concurrent_send_streams()),
        closed: Cell::default(),
        answered: Cell::default(),
        idle_since: Cell::default(),
    });
    let http2 = Http2 { sender, state: state.clone() };
    tokio::task::spawn_local(async move {
        let mut unused = false;
        let ended = poll_fn(|cx| {
            if let Poll::Ready(ended) = driver.as_mut().poll(cx) {
                return Poll::Ready(ended.err());
            }
            let allowed = driver.max_concurrent_send_streams();
            if state.allowed.replace(allowed) < allowed {
                state.places.look_for_streams();
            }
            // h2 wakes this task when it is let go of, and then says goodbye: to somebody who may not listen.
            if Rc::strong_count(&state) == 1 && !std::mem::replace(&mut unused, true) {
                ending.set(timeout);
            }
            if unused { ending.poll_due(cx).map(|()| None) } else { Poll::Pending }
        });
        if let Some(error) = ended.await {
            tracing::debug!(%error, "upstream connection ended");
        }
        state.close();
        drop(slot);
    });
    Ok(http2)
}

/// Leave for one stream on a connection: it counts as long as this is held, and goes to who waits for one then.
pub(in crate::upstream) struct Stream {
    http2: Http2,
}

impl Stream {
    pub(in crate::upstream) fn open(http2: &Http2) -> Self {
        http2.state.streams.set(http2.state.streams.get() + 1);
        Self { http2: http2.clone() }
    }

    /// Where the connection leads.
    pub(in crate::upstream) fn address(&self) -> SocketAddr {
        self.http2.address()
    }

    /// Opens no more streams on its connection.
    pub(in crate::upstream) fn retire(&self) {
        self.http2.retire();
    }

    /// The connection has answered.
    pub(in crate::upstream) fn answered(&self) {
        self.http2.state.answered.set(true);
    }

    /// Whether it ever has.
    pub(in crate::upstream) fn has_answered(&self) -> bool {
        self.http2.state.answered.get()
    }

    pub(in crate::upstream) fn sender(&mut self) -> &mut SendRequest<Bytes> {
        &mut self.http2.sender
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let state = &self.http2.state;
        state.streams.set(state.streams.get() - 1);
        if state.places.wants_streams() && self.http2.has_room() {
            let unwanted = state.places.offer_stream(Self::open(&self.http2));
            debug_assert!(unwanted.is_none(), "somebody wants it");
        }
    }
}

/// A transport that is read to its end though nothing can be written to it any more: an upstream that goes away says
/// before it closes which requests it has not processed, and what we write meanwhile is refused before we have read that.
struct HearsOut {
    transport: UpstreamTransport,
    deaf: bool,
}

impl HearsOut {
    /// What could not be written is gone; that it could not is said by the end of what can be read.
    fn hear_out<T>(&mut self, written: Poll<io::Result<T>>, all: T) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(error)) if is_closed(&error) => {
                self.deaf = true;
                Poll::Ready(Ok(all))
            }
            written => written,
        }
    }
}

/// Whether the peer has closed the connection: there is an end to what can be read of it.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl AsyncRead for HearsOut {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_read(cx, buf)
    }
}

impl AsyncWrite for HearsOut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.transport).poll_write(cx, buf);
        self.hear_out(written, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = bufs.iter().map(|buf| buf.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(all));
        }
        let written = Pin::new(&mut self.transport).poll_write_vectored(cx, bufs);
        self.hear_out(written, all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.transport).poll_flush(cx);
        self.hear_out(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
