//! The connections of one worker to one upstream. No lock: a worker is one thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use super::connect::connect;
use super::error::UpstreamError;
use super::http2::{self, Http2};
use super::{Protocols, Upstream, UpstreamTransport};
use crate::clock::{Alarm, Clock, ticks_of};
use crate::pace::Pace;

/// Streams of one HTTP/2 connection before another is opened.
const HTTP2_STREAMS: usize = 100;

/// The bounds of a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    /// Connections of one worker to one upstream, idle ones included.
    pub connections: usize,
    /// How long an idle connection is kept.
    pub idle: Duration,
    /// Octets of a response's head.
    pub response_head: usize,
    /// How fast a client must send its request's body.
    pub pace: Pace,
}

/// A worker's connections to one upstream.
pub struct Pool {
    pub(super) upstream: Arc<Upstream>,
    limits: Cell<PoolLimits>,
    /// Bodies under way from all upstreams of this worker: many of them get smaller buffers each.
    pub(super) streaming: Rc<Cell<usize>>,
    clock: Rc<Clock>,
    idle: RefCell<Vec<Idle>>,
    http2: RefCell<Vec<Http2>>,
    open: Rc<Cell<usize>>,
    /// What the upstream chose last; unknown until it has.
    speaks_http2: Cell<Option<bool>>,
    /// One connection attempt at a time, as long as its outcome may serve all who wait.
    connecting: Cell<bool>,
    connected: Notify,
}

struct Idle {
    connection: Connection,
    since: u32,
}

/// A connection that counts against the limit.
pub(super) struct Connection {
    pub(super) transport: UpstreamTransport,
    pub(super) slot: Slot,
}

/// One of the connections that a pool may have.
pub(super) struct Slot(Rc<Cell<usize>>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What a request goes out by.
pub(super) enum Checkout {
    /// A connection of its own for the time; and whether it was used before.
    Http1(Connection, bool),
    /// A stream among others.
    Http2(Http2),
}

impl Pool {
    /// A pool without connections.
    #[must_use]
    pub fn new(upstream: Arc<Upstream>, limits: PoolLimits, clock: Rc<Clock>, streaming: Rc<Cell<usize>>) -> Rc<Self> {
        Rc::new(Self {
            upstream,
            limits: Cell::new(limits),
            streaming,
            clock,
            idle: RefCell::default(),
            http2: RefCell::default(),
            open: Rc::default(),
            speaks_http2: Cell::new(None),
            connecting: Cell::new(false),
            connected: Notify::new(),
        })
    }

    /// The upstream that this leads to.
    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    pub(super) fn limits(&self) -> PoolLimits {
        self.limits.get()
    }

    /// Sets other bounds, from now on.
    pub fn limit(&self, limits: PoolLimits) {
        self.limits.set(limits);
    }

    /// A connection: one in use for HTTP/2, an idle one, or a new one. `fresh` asks for a new one.
    pub(super) async fn checkout(
        &self,
        protocols: Protocols,
        fresh: bool,
        alarm: &Alarm,
    ) -> Result<Checkout, UpstreamError> {
        let may_http2 = protocols == Protocols::Any && self.upstream.tls.as_ref().is_some_and(|t| t.http2);
        loop {
            if may_http2 && let Some(http2) = self.take_http2() {
                return Ok(Checkout::Http2(http2));
            }
            if !fresh && let Some(connection) = self.take_idle() {
                return Ok(Checkout::Http1(connection, true));
            }
            if !may_http2 || self.speaks_http2.get() == Some(false) {
                return Ok(Checkout::Http1(self.connect(protocols, alarm).await?, false));
            }
            if self.connecting.get() {
                self.wait_for_connection(alarm).await?;
                continue;
            }
            let connection = {
                let _attempt = Attempt::begin(self);
                self.connect(protocols, alarm).await?
            };
            let http2 = matches!(&connection.transport, UpstreamTransport::Tls(t) if t.alpn() == Some(b"h2"));
            self.speaks_http2.set(Some(http2));
            if !http2 {
                return Ok(Checkout::Http1(connection, false));
            }
            let http2 = http2::start(connection, alarm, self.upstream.connect_timeout).await?;
            self.http2.borrow_mut().push(http2.clone());
            return Ok(Checkout::Http2(http2));
        }
    }

    async fn connect(&self, protocols: Protocols, alarm: &Alarm) -> Result<Connection, UpstreamError> {
        if self.open.get() >= self.limits().connections {
            // An idle connection that did not fit the wish makes room.
            self.idle.borrow_mut().pop();
        }
        if self.open.get() >= self.limits().connections {
            return Err(UpstreamError::Busy);
        }
        self.open.set(self.open.get() + 1);
        let slot = Slot(self.open.clone());
        let transport = connect(&self.upstream, protocols, alarm).await?;
        Ok(Connection { transport, slot })
    }

    /// Until the attempt under way is over.
    async fn wait_for_connection(&self, alarm: &Alarm) -> Result<(), UpstreamError> {
        alarm.set(self.upstream.connect_timeout);
        let mut connected = std::pin::pin!(self.connected.notified());
        std::future::poll_fn(|cx| {
            if connected.as_mut().poll(cx).is_ready() {
                return std::task::Poll::Ready(Ok(()));
            }
            alarm.poll_due(cx).map(|()| Err(UpstreamError::ConnectTimeout))
        })
        .await
    }

    /// The connection used last on which nothing has happened since.
    fn take_idle(&self) -> Option<Connection> {
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            if is_quiet(&mut idle.connection.transport) {
                return Some(idle.connection);
            }
        }
    }

    fn take_http2(&self) -> Option<Http2> {
        let mut all = self.http2.borrow_mut();
        all.retain(|c| !c.is_closed());
        all.iter().find(|c| c.streams() < HTTP2_STREAMS).cloned()
    }

    /// Takes a connection back on which an exchange has ended cleanly.
    pub(super) fn put(&self, connection: Connection) {
        self.idle.borrow_mut().push(Idle { connection, since: self.clock.ticks() });
    }

    /// Drops the connections that were idle for too long, or have ended; to be called now and then.
    pub fn sweep(&self) {
        let oldest = self.clock.ticks().saturating_sub(ticks_of(self.limits().idle));
        self.idle.borrow_mut().retain_mut(|idle| idle.since >= oldest && is_quiet(&mut idle.connection.transport));
        self.http2.borrow_mut().retain_mut(|c| !c.is_closed() && !c.is_idle_since(oldest, self.clock.ticks()));
    }

    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.get()
    }
}

/// Whether nothing was received while idle: no end, no octets out of turn. Under TLS, tickets and the like may have
/// come; they are taken in here. Costs no system call unless something has come.
fn is_quiet(transport: &mut UpstreamTransport) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    if transport.poll_readable(&mut cx).is_pending() {
        return true;
    }
    let mut probe = [0; 1];
    transport.poll_read(&mut cx, &mut &mut probe[..]).is_pending()
}

/// A connection attempt that others wait for.
struct Attempt<'a>(&'a Pool);

impl<'a> Attempt<'a> {
    fn begin(pool: &'a Pool) -> Self {
        pool.connecting.set(true);
        Self(pool)
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(false);
        self.0.connected.notify_waiters();
    }
}
