//! Connections to an upstream, each with its place in the pool: one for a request at a time, or one
//! with many streams.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, SendRequest};

use super::queue;
use super::reads_to_end::ReadsToEnd;
use crate::clock::Alarm;
use crate::upstream::error::UpstreamError;
use crate::upstream::settings::UpstreamTransport;

/// The most bytes of one response that an upstream may send before its client reads them.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Streams on one connection before pintle opens another.
const STREAMS: u32 = 100;
/// The most bytes of one request's body that h2 buffers before the upstream takes them.
const SEND_BUFFER: usize = 64 * 1024;
/// The most bytes that all responses of a connection may be ahead of their clients: the sum over
/// all streams, so that a client that does not read holds up no other.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS;
/// Stands for SETTINGS_MAX_CONCURRENT_STREAMS until the upstream's SETTINGS arrive. No upstream can
/// send this value.
const UNKNOWN: usize = usize::MAX - 1;

/// The places of a pool.
pub(in crate::upstream) type Places = queue::Places<Box<PooledConnection>, StreamPermit>;
/// The place of one connection.
pub(in crate::upstream) type Slot = queue::Slot<Box<PooledConnection>, StreamPermit>;

/// A connection that counts against the pool's limit. Callers box it, since it passes from the pool
/// to each request and back.
pub(in crate::upstream) struct PooledConnection {
    pub(in crate::upstream) transport: UpstreamTransport,
    /// The address of the upstream's end.
    pub(in crate::upstream) address: SocketAddr,
    pub(in crate::upstream) slot: Slot,
}

/// Returns `true` if an idle connection has received neither its end nor unexpected bytes.
///
/// Under TLS it may have received session tickets, which are processed here. Costs no system call
/// unless something has come.
pub(super) fn is_quiet(transport: &mut UpstreamTransport) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    if transport.poll_readable(&mut cx).is_pending() {
        return true;
    }
    let mut probe = [0; 1];
    transport.poll_read(&mut cx, &mut &mut probe[..]).is_pending()
}

/// An HTTP/2 connection, to open streams on.
#[derive(Clone)]
pub(in crate::upstream) struct Http2Connection {
    sender: SendRequest<Bytes>,
    shared: Rc<StreamsShared>,
}

/// The state that a connection's streams and its driver share.
struct StreamsShared {
    places: Rc<Places>,
    address: SocketAddr,
    streams: Cell<usize>,
    /// The most streams that the upstream allows at a time: SETTINGS_MAX_CONCURRENT_STREAMS.
    allowed: Cell<usize>,
    closed: Cell<bool>,
    /// The connection has brought an answer.
    answered: Cell<bool>,
    idle_since: Cell<u32>,
}

impl StreamsShared {
    fn close(&self) {
        if !self.closed.replace(true) {
            self.places.look_elsewhere();
        }
    }
}

impl Http2Connection {
    /// Returns `true` if another stream may be opened.
    pub(in crate::upstream) fn has_room(&self) -> bool {
        !self.is_closed() && self.shared.streams.get() < (STREAMS as usize).min(self.shared.allowed.get())
    }

    /// Returns `true` if the upstream allows no streams at present. Another connection would not
    /// help.
    pub(in crate::upstream) fn is_shut(&self) -> bool {
        !self.is_closed() && self.shared.allowed.get() == 0
    }

    /// Returns the address of the upstream's end.
    pub(in crate::upstream) fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Returns `true` if no streams may be opened any more.
    pub(in crate::upstream) fn is_closed(&self) -> bool {
        self.shared.closed.get()
    }

    /// Opens no more streams. Open streams continue.
    pub(in crate::upstream) fn retire(&self) {
        self.shared.close();
    }

    /// Returns `true` if no stream was open since the tick `oldest`. The first call without streams
    /// starts the count.
    pub(in crate::upstream) fn is_idle_since(&self, oldest: u32, now: u32) -> bool {
        if self.shared.streams.get() > 0 || self.shared.idle_since.get() == 0 {
            self.shared.idle_since.set(now);
        }
        self.shared.idle_since.get() < oldest
    }
}

type Http2Driver = Pin<Box<client::Connection<ReadsToEnd, Bytes>>>;

/// Begins HTTP/2 on a connection, and waits for the upstream's SETTINGS, which say how many streams
/// it allows.
///
/// One task drives the connection for as long as it lives. `timeout` limits its beginning, with
/// `alarm`, and its end, with `ending`.
///
/// # Errors
///
/// Returns an [`UpstreamError`] if the connection ends, or the SETTINGS do not arrive in time.
pub(in crate::upstream) async fn start_http2(
    connection: PooledConnection,
    timeout: Duration,
    head_max: usize,
    alarm: &Alarm,
    ending: Alarm,
) -> Result<Http2Connection, UpstreamError> {
    let PooledConnection { transport, address, slot } = connection;
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(UNKNOWN)
        .max_send_buffer_size(SEND_BUFFER)
        // h2 counts 32 bytes on top of each field.
        .max_header_list_size(u32::try_from(head_max * 2).unwrap_or(u32::MAX));
    alarm.set(timeout);
    let mut handshake = Box::pin(builder.handshake(ReadsToEnd::new(transport)));
    let (sender, driver) = poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(done.map_err(UpstreamError::Http2)),
        Poll::Pending => alarm.poll_due(cx).map(|()| Err(UpstreamError::ConnectTimeout)),
    })
    .await?;
    let mut driver = Box::pin(driver);
    poll_fn(|cx| match driver.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Err(ended.err().map_or(UpstreamError::Closed(None), UpstreamError::Http2))),
        Poll::Pending if driver.max_concurrent_send_streams() != UNKNOWN => Poll::Ready(Ok(())),
        Poll::Pending => alarm.poll_due(cx).map(|()| Err(UpstreamError::ConnectTimeout)),
    })
    .await?;
    let shared = Rc::new(StreamsShared {
        places: slot.places().clone(),
        address,
        streams: Cell::default(),
        allowed: Cell::new(driver.max_concurrent_send_streams()),
        closed: Cell::default(),
        answered: Cell::default(),
        idle_since: Cell::default(),
    });
    let http2 = Http2Connection { sender, shared: shared.clone() };
    tokio::task::spawn_local(async move {
        drive(driver, &shared, timeout, &ending).await;
        shared.close();
        drop(slot);
    });
    Ok(http2)
}

/// Drives a connection to its end.
async fn drive(mut driver: Http2Driver, shared: &Rc<StreamsShared>, timeout: Duration, ending: &Alarm) {
    let mut unused = false;
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = driver.as_mut().poll(cx) {
            return Poll::Ready(ended.err());
        }
        let allowed = driver.max_concurrent_send_streams();
        if shared.allowed.replace(allowed) < allowed {
            shared.places.look_for_streams();
        }
        // h2 wakes this task when the last sender is dropped, and then sends GOAWAY. The upstream
        // may never read it.
        if Rc::strong_count(shared) == 1 && !std::mem::replace(&mut unused, true) {
            ending.set(timeout);
        }
        if unused { ending.poll_due(cx).map(|()| None) } else { Poll::Pending }
    });
    if let Some(error) = ended.await {
        tracing::debug!(%error, "upstream connection ended");
    }
}

/// Permission for one stream on a connection. When it is dropped, it passes to a request that waits
/// for a stream.
pub(in crate::upstream) struct StreamPermit {
    http2: Http2Connection,
}

impl StreamPermit {
    /// Counts one more stream.
    pub(in crate::upstream) fn open(http2: &Http2Connection) -> Self {
        http2.shared.streams.set(http2.shared.streams.get() + 1);
        Self { http2: http2.clone() }
    }

    /// Returns the address of the upstream's end.
    pub(in crate::upstream) fn address(&self) -> SocketAddr {
        self.http2.address()
    }

    /// Opens no more streams on the connection.
    pub(in crate::upstream) fn retire(&self) {
        self.http2.retire();
    }

    /// Notes that the connection has brought an answer.
    pub(in crate::upstream) fn answered(&self) {
        self.http2.shared.answered.set(true);
    }

    /// Returns `true` if the connection has ever brought an answer.
    pub(in crate::upstream) fn has_answered(&self) -> bool {
        self.http2.shared.answered.get()
    }

    /// Returns the sender of requests.
    pub(in crate::upstream) fn sender(&mut self) -> &mut SendRequest<Bytes> {
        &mut self.http2.sender
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let shared = &self.http2.shared;
        shared.streams.set(shared.streams.get() - 1);
        if shared.places.wants_streams() && self.http2.has_room() {
            let unwanted = shared.places.offer_stream(Self::open(&self.http2));
            debug_assert!(unwanted.is_none(), "a request waits for it");
        }
    }
}
