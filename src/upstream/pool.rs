//! The connections of one worker to one upstream. No lock: a worker is one thread.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use super::budget::Budget;
use super::connect::Dial;
use super::error::{Sign, UpstreamError};
use super::http2::{self, Http2, Stream};
use super::queue::{self, Wants};
use super::settings::{Protocols, Upstream, UpstreamTransport};
use crate::clock::{Alarm, Clock, TICK, ticks_of};
use crate::message::ResponseLimits;
use crate::telemetry::Counters;
use crate::wire::min_rate::MinRate;

/// The bounds of a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    /// Connections of one worker to one upstream, idle ones included.
    pub connections: usize,
    /// Requests that wait for one of them.
    pub queue: usize,
    /// How long they do.
    pub queue_wait: Duration,
    /// How long an idle connection is kept.
    pub idle: Duration,
    /// How large a response's head may be.
    pub response_head: ResponseLimits,
    /// Bytes of a request's body that are kept to send it again.
    pub retry_body: usize,
    /// How fast a client must send its request's body.
    pub min_rate: MinRate,
}

/// A worker's connections to one upstream.
pub struct Pool {
    pub(super) upstream: Arc<Upstream>,
    limits: Cell<PoolLimits>,
    /// Bodies under way from all upstreams of this worker: many of them get smaller buffers each.
    pub(super) streaming: Rc<Cell<usize>>,
    pub(super) clock: Rc<Clock>,
    pub(super) counters: Arc<Counters>,
    pub(super) budget: Budget,
    pub(super) places: Rc<Places>,
    idle: RefCell<Vec<Idle>>,
    http2: RefCell<Vec<Http2>>,
    /// What the upstream chose last; unknown until it has.
    speaks_http2: Cell<Option<bool>>,
    /// One connection attempt at a time, as long as its outcome may serve all who wait.
    connecting: Cell<bool>,
    connected: Notify,
    /// Such attempts that are over, and how the last one failed, if it did.
    attempts: Cell<u32>,
    failure: RefCell<Option<UpstreamError>>,
}

struct Idle {
    connection: Box<Connection>,
    since: u32,
}

/// The places of connections to an upstream.
pub(super) type Places = queue::Places<Box<Connection>, Stream>;
/// One of them.
pub(super) type Slot = queue::Slot<Box<Connection>, Stream>;
type Grant = queue::Grant<Box<Connection>, Stream>;
type Waiter = queue::Waiter<Box<Connection>, Stream>;

/// A connection that counts against the limit. Boxed: it is handed on with each request, and back.
pub(super) struct Connection {
    pub(super) transport: UpstreamTransport,
    /// Where it leads.
    pub(super) address: SocketAddr,
    pub(super) slot: Slot,
}

/// What a request goes out by.
pub(super) enum Checkout {
    /// A connection of its own for the time; and whether it was used before.
    Http1(Box<Connection>, bool),
    /// A stream among others.
    Http2(Stream),
}

/// Which connection will do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) protocols: Protocols,
    /// Only a new one.
    pub(super) fresh: bool,
    /// Not to this address, if there is another.
    pub(super) avoid: Option<SocketAddr>,
}

impl Pool {
    /// A pool without connections.
    #[must_use]
    pub fn new(
        upstream: Arc<Upstream>,
        limits: PoolLimits,
        clock: Rc<Clock>,
        streaming: Rc<Cell<usize>>,
        counters: Arc<Counters>,
    ) -> Rc<Self> {
        let places = Rc::<Places>::default();
        places.set_max(limits.connections);
        Rc::new(Self {
            upstream,
            limits: Cell::new(limits),
            streaming,
            clock,
            counters,
            budget: Budget::default(),
            places,
            idle: RefCell::default(),
            http2: RefCell::default(),
            speaks_http2: Cell::new(None),
            connecting: Cell::new(false),
            connected: Notify::new(),
            attempts: Cell::new(0),
            failure: RefCell::default(),
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
        self.places.set_max(limits.connections);
    }

    /// A connection: a stream of one in use, an idle one, or a new one; or the next that becomes free.
    pub(super) async fn checkout(&self, wish: Wish, alarm: &Alarm) -> Result<Checkout, UpstreamError> {
        match self.take(wish) {
            Some(checkout) => Ok(checkout),
            // Boxed: the future of a request that finds a connection does not carry the room for making one.
            None => Box::pin(self.checkout_slowly(wish, alarm)).await,
        }
    }

    fn may_http2(&self, wish: Wish) -> bool {
        wish.protocols == Protocols::Any && self.upstream.may_speak_http2()
    }

    /// Whether a connection would be for all who wish the same: it is one with streams, or that is not known yet.
    fn is_for_all(&self, wish: Wish) -> bool {
        self.may_http2(wish) && self.speaks_http2.get() != Some(false)
    }

    /// An idle connection for a request that may go by any, unless a stream is what it would get.
    pub(super) fn take_at_once(&self) -> Option<Box<Connection>> {
        let wish = Wish { protocols: Protocols::Any, fresh: false, avoid: None };
        if self.is_for_all(wish) { None } else { self.take_idle() }
    }

    /// What is there: a stream of a connection in use, or an idle one.
    fn take(&self, wish: Wish) -> Option<Checkout> {
        if self.may_http2(wish)
            && let Some(stream) = self.take_stream()
        {
            return Some(Checkout::Http2(stream));
        }
        if wish.fresh { None } else { self.take_idle().map(|connection| Checkout::Http1(connection, true)) }
    }

    async fn checkout_slowly(&self, wish: Wish, alarm: &Alarm) -> Result<Checkout, UpstreamError> {
        let may_http2 = self.may_http2(wish);
        let (mut granted, mut queued) = (None, None);
        loop {
            if let Some(checkout) = self.take(wish) {
                return Ok(checkout);
            }
            // An upstream that takes no streams for now is waited for.
            let slots = !(may_http2 && self.http2.borrow().iter().any(Http2::is_shut));
            let for_all = self.is_for_all(wish);
            if for_all && slots && self.connecting.get() {
                self.wait_for_connection(alarm).await?;
                continue;
            }
            let slot = if slots { granted.take().or_else(|| self.take_slot()) } else { None };
            let Some(slot) = slot else {
                drop(granted.take());
                let since = *queued.get_or_insert_with(|| self.clock.ticks());
                let wants = Wants { streams: may_http2, used: !wish.fresh, slots };
                match self.wait_in_queue(wants, since, alarm).await? {
                    Grant::Stream(stream) if !self.leaves_out(stream.address()) => return Ok(Checkout::Http2(stream)),
                    Grant::Stream(stream) => stream.retire(),
                    Grant::Slot(slot) => granted = Some(slot),
                    Grant::Connection(mut connection) => {
                        if is_quiet(&mut connection.transport) && !self.leaves_out(connection.address) {
                            return Ok(Checkout::Http1(connection, true));
                        }
                        granted = Some(connection.slot);
                    }
                    Grant::Look => {}
                }
                continue;
            };
            if !for_all {
                return Ok(Checkout::Http1(self.connect(slot, wish, alarm).await?, false));
            }
            let attempt = Attempt::begin(self);
            let connected = match self.connect(slot, wish, alarm).await {
                Ok(connection) => self.begin_http2(connection, alarm).await,
                Err(error) => Err(error),
            };
            match connected {
                Ok(Some(checkout)) => return Ok(checkout),
                Ok(None) => {}
                Err(error) => {
                    attempt.failed(&error);
                    return Err(error);
                }
            }
        }
    }

    /// Finds out what the upstream has chosen. `None` if it takes no streams for now.
    async fn begin_http2(&self, connection: Box<Connection>, alarm: &Alarm) -> Result<Option<Checkout>, UpstreamError> {
        let http2 = match &connection.transport {
            UpstreamTransport::Tls(tls) => tls.alpn() == Some(b"h2"),
            UpstreamTransport::Plain(_) => self.upstream.http2_only,
        };
        self.speaks_http2.set(Some(http2));
        if !http2 {
            return Ok(Some(Checkout::Http1(connection, false)));
        }
        let address = connection.address;
        let (timeout, head_max) = (self.upstream.connect_timeout, self.limits().response_head.head);
        let started = http2::start(*connection, timeout, head_max, alarm, self.clock.alarm()).await;
        let http2 = started.map_err(|error| self.failed_at(address, error))?;
        let own = http2.has_room().then(|| Checkout::Http2(Stream::open(&http2)));
        while self.places.wants_streams() && http2.has_room() {
            self.places.offer_stream(Stream::open(&http2));
        }
        self.http2.borrow_mut().push(http2);
        Ok(own)
    }

    /// Whether an address is left out, because it fails or its health check does, and there is a better one.
    fn leaves_out(&self, address: SocketAddr) -> bool {
        self.upstream.health.leaves_out(address, &self.upstream.addresses)
    }

    /// Leave for another connection. An idle one that did not fit the wish makes room.
    fn take_slot(&self) -> Option<Slot> {
        self.places.take().or_else(|| {
            let unfit = self.idle.borrow_mut().pop();
            drop(unfit);
            self.places.take()
        })
    }

    async fn connect(&self, slot: Slot, wish: Wish, alarm: &Alarm) -> Result<Box<Connection>, UpstreamError> {
        let may_retry = || self.may_retry();
        let dial = Dial::new(&self.upstream, wish.protocols, wish.avoid, &may_retry);
        let (transport, address) = dial.connect(alarm).await?;
        Ok(Box::new(Connection { transport, address, slot }))
    }

    /// Waits in the queue, for as long as [`PoolLimits`] says, counted from the tick `since`. A request that is given up
    /// leaves it, and what was granted to it meanwhile goes to the next.
    async fn wait_in_queue(&self, wants: Wants, since: u32, alarm: &Alarm) -> Result<Grant, UpstreamError> {
        let limits = self.limits();
        let waiter = self.places.join(wants, limits.queue).ok_or(UpstreamError::Busy)?;
        self.counters.upstream_queued.increment();
        let place = InQueue { pool: self, waiter };
        let waited = TICK.saturating_mul(self.clock.ticks().saturating_sub(since));
        alarm.set(limits.queue_wait.saturating_sub(waited));
        std::future::poll_fn(|cx| match place.waiter.poll_grant(cx) {
            Poll::Ready(grant) => Poll::Ready(Ok(grant)),
            Poll::Pending => alarm.poll_due(cx).map(|()| Err(UpstreamError::QueueTimeout)),
        })
        .await
    }

    /// Until the attempt under way is over. If it failed, this has, too: a second try would only take as long again.
    async fn wait_for_connection(&self, alarm: &Alarm) -> Result<(), UpstreamError> {
        alarm.set(self.upstream.connect_timeout);
        let attempt = self.attempts.get();
        let mut connected = std::pin::pin!(self.connected.notified());
        std::future::poll_fn(|cx| {
            if connected.as_mut().poll(cx).is_ready() {
                let failure = self.failure.borrow();
                let is_ours = self.attempts.get() == attempt.wrapping_add(1);
                return Poll::Ready(match &*failure {
                    Some(error) if is_ours => Err(error.of_connection()),
                    _ => Ok(()),
                });
            }
            alarm.poll_due(cx).map(|()| Err(UpstreamError::ConnectTimeout))
        })
        .await
    }

    /// The connection used last on which nothing has happened since.
    fn take_idle(&self) -> Option<Box<Connection>> {
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            if is_quiet(&mut idle.connection.transport) && !self.leaves_out(idle.connection.address) {
                return Some(idle.connection);
            }
        }
    }

    fn take_stream(&self) -> Option<Stream> {
        let mut all = self.http2.borrow_mut();
        all.retain(|c| {
            if self.leaves_out(c.address()) {
                c.retire();
            }
            !c.is_closed()
        });
        all.iter().find(|c| c.has_room()).map(Stream::open)
    }

    /// Whether one more request may be sent a second time.
    pub(super) fn may_retry(&self) -> bool {
        let may = self.budget.spend(self.clock.ticks());
        if may {
            self.counters.upstream_retries.increment();
        }
        may
    }

    /// Puts a failure down to the address, where there is a choice of addresses.
    pub(super) fn failed_at(&self, address: SocketAddr, error: UpstreamError) -> UpstreamError {
        if error.sign() == Sign::Dead && self.upstream.addresses.are_several() {
            self.upstream.health.address_failed(address);
        }
        error
    }

    /// Takes a connection back on which an exchange has ended cleanly.
    pub(super) fn put(&self, connection: Box<Connection>) {
        if let Some(connection) = self.places.offer_connection(connection) {
            self.idle.borrow_mut().push(Idle { connection, since: self.clock.ticks() });
        }
    }

    /// Drops the connections that were idle for too long, or have ended, or lead where the upstream's name leads no more or
    /// nothing shall go for now: one that is never idle would stay there for ever. To be called now and then.
    pub fn sweep(&self) {
        let oldest = self.clock.ticks().saturating_sub(ticks_of(self.limits().idle));
        let known = self.upstream.addresses.known();
        let moved = |address: &SocketAddr| (!known.is_empty() && !known.contains(address)) || self.leaves_out(*address);
        self.idle.borrow_mut().retain_mut(|idle| {
            idle.since >= oldest && !moved(&idle.connection.address) && is_quiet(&mut idle.connection.transport)
        });
        // Streams that are open go on; there are no new ones.
        self.http2.borrow_mut().retain(|c| {
            let ends = moved(&c.address()) || c.is_idle_since(oldest, self.clock.ticks());
            if ends {
                c.retire();
            }
            !c.is_closed()
        });
    }

    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.places.open()
    }
}

/// Whether nothing was received while idle: no end, no bytes out of turn. Under TLS, tickets and the like may have
/// come; they are taken in here. Costs no system call unless something has come.
fn is_quiet(transport: &mut UpstreamTransport) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    if transport.poll_readable(&mut cx).is_pending() {
        return true;
    }
    let mut probe = [0; 1];
    transport.poll_read(&mut cx, &mut &mut probe[..]).is_pending()
}

/// Leaves the queue when dropped.
struct InQueue<'p> {
    pool: &'p Pool,
    waiter: Rc<Waiter>,
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        match self.pool.places.leave(&self.waiter) {
            Some(Grant::Connection(connection)) => self.pool.put(connection),
            // To the next, as they are dropped.
            Some(Grant::Slot(_) | Grant::Stream(_) | Grant::Look) | None => {}
        }
    }
}

/// A connection attempt that others wait for.
struct Attempt<'a>(&'a Pool);

impl<'a> Attempt<'a> {
    fn begin(pool: &'a Pool) -> Self {
        pool.connecting.set(true);
        *pool.failure.borrow_mut() = None;
        Self(pool)
    }

    /// It came to nothing; who waits is told the same.
    fn failed(self, error: &UpstreamError) {
        *self.0.failure.borrow_mut() = Some(error.of_connection());
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(false);
        self.0.attempts.set(self.0.attempts.get().wrapping_add(1));
        self.0.connected.notify_waiters();
    }
}
