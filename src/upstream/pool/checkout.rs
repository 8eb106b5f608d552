//! Ways to a connection for a request: one at rest, the next that becomes free, or a new one.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::time::Instant;

use super::Pool;
use super::connection::{self, Http2Connection, PooledConnection, Slot, StreamPermit, is_quiet};
use super::dial::Dial;
use super::queue::{self, Wants};
use crate::clock::{Alarm, TICK};
use crate::telemetry::access::UpstreamFacts;
use crate::upstream::error::UpstreamError;
use crate::upstream::settings::{Protocols, UpstreamTransport};

type Grant = queue::Grant<Box<PooledConnection>, StreamPermit>;
type Waiter = queue::Waiter<Box<PooledConnection>, StreamPermit>;

/// A connection or a stream for one request.
pub(in crate::upstream) enum Checkout {
    /// A connection for this request alone. `true` if another request has used it before.
    Http1(Box<PooledConnection>, bool),
    /// A stream on a shared connection.
    Http2(StreamPermit),
}

/// The connection that a request needs.
#[derive(Debug, Clone, Copy)]
pub(in crate::upstream) struct Wish {
    pub(in crate::upstream) protocols: Protocols,
    /// A new connection only.
    pub(in crate::upstream) fresh: bool,
    /// An address to avoid, if the upstream has another.
    pub(in crate::upstream) avoid: Option<SocketAddr>,
}

impl Pool {
    /// Returns a stream on a connection in use, an idle connection, a new one, or the next that
    /// becomes free.
    pub(in crate::upstream) async fn checkout(
        &self,
        wish: Wish,
        alarm: &Alarm,
        facts: &RefCell<UpstreamFacts>,
    ) -> Result<Checkout, UpstreamError> {
        UpstreamFacts::note(facts, |facts| facts.reused = true);
        let checkout = match self.take(wish) {
            Some(checkout) => checkout,
            // Boxed, so that the future of a request that finds a connection has no space for
            // making one.
            None => Box::pin(self.checkout_slowly(wish, alarm, facts)).await?,
        };
        let address = match &checkout {
            Checkout::Http1(connection, _) => connection.address,
            Checkout::Http2(stream) => stream.address(),
        };
        UpstreamFacts::note(facts, |facts| facts.address = Some(address));
        Ok(checkout)
    }

    /// Returns `true` if the request may share a connection.
    fn may_http2(&self, wish: Wish) -> bool {
        wish.protocols == Protocols::Any && self.upstream.may_speak_http2()
    }

    /// Returns `true` if a new connection might serve all requests with the same wish: it has
    /// streams, or the upstream has not chosen a protocol yet.
    fn is_for_all(&self, wish: Wish) -> bool {
        self.may_http2(wish) && self.speaks_http2.get() != Some(false)
    }

    /// Returns an idle connection for a request that accepts any, unless it would get a stream.
    pub(in crate::upstream) fn take_at_once(&self) -> Option<Box<PooledConnection>> {
        let wish = Wish { protocols: Protocols::Any, fresh: false, avoid: None };
        if self.is_for_all(wish) { None } else { self.take_idle() }
    }

    /// Returns a stream on a connection in use, or an idle connection.
    fn take(&self, wish: Wish) -> Option<Checkout> {
        if self.may_http2(wish)
            && let Some(stream) = self.take_stream()
        {
            return Some(Checkout::Http2(stream));
        }
        if wish.fresh { None } else { self.take_idle().map(|connection| Checkout::Http1(connection, true)) }
    }

    async fn checkout_slowly(
        &self,
        wish: Wish,
        alarm: &Alarm,
        facts: &RefCell<UpstreamFacts>,
    ) -> Result<Checkout, UpstreamError> {
        let may_http2 = self.may_http2(wish);
        let (mut granted, mut queued) = (None, None);
        loop {
            if let Some(checkout) = self.take(wish) {
                return Ok(checkout);
            }
            // If the upstream allows no streams at present, the request waits.
            let slots = !(may_http2 && self.http2.borrow().iter().any(Http2Connection::is_shut));
            let for_all = self.is_for_all(wish);
            if for_all && slots && self.connecting.get() {
                timed(self.wait_for_connection(alarm), facts).await?;
                continue;
            }
            let slot = if slots { granted.take().or_else(|| self.take_slot()) } else { None };
            let Some(slot) = slot else {
                drop(granted.take());
                let since = *queued.get_or_insert_with(|| self.clock.ticks());
                let wants = Wants { streams: may_http2, used: !wish.fresh, slots };
                match timed(self.wait_in_queue(wants, since, alarm), facts).await? {
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
                return Ok(Checkout::Http1(self.connect(slot, wish, alarm, facts).await?, false));
            }
            let attempt = SharedAttempt::begin(self);
            let connected = match self.connect(slot, wish, alarm, facts).await {
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

    /// Begins the protocol that the upstream has chosen. Returns `None` if it allows no streams at
    /// present.
    async fn begin_http2(
        &self,
        connection: Box<PooledConnection>,
        alarm: &Alarm,
    ) -> Result<Option<Checkout>, UpstreamError> {
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
        let started = connection::start_http2(*connection, timeout, head_max, alarm, self.clock.alarm()).await;
        let http2 = started.map_err(|error| self.failed_at(address, error))?;
        let own = http2.has_room().then(|| Checkout::Http2(StreamPermit::open(&http2)));
        while self.places.wants_streams() && http2.has_room() {
            self.places.offer_stream(StreamPermit::open(&http2));
        }
        self.http2.borrow_mut().push(http2);
        Ok(own)
    }

    /// Returns a place for another connection. If none is free, closes an idle connection that did
    /// not fit the wish.
    fn take_slot(&self) -> Option<Slot> {
        self.places.take().or_else(|| {
            let unfit = self.idle.borrow_mut().pop();
            drop(unfit);
            self.places.take()
        })
    }

    async fn connect(
        &self,
        slot: Slot,
        wish: Wish,
        alarm: &Alarm,
        facts: &RefCell<UpstreamFacts>,
    ) -> Result<Box<PooledConnection>, UpstreamError> {
        UpstreamFacts::note(facts, |facts| facts.reused = false);
        let may_retry = || self.may_retry();
        let dial = Dial::new(&self.upstream, wish.protocols, wish.avoid, &may_retry, facts);
        let (transport, address) = dial.connect(alarm).await?;
        Ok(Box::new(PooledConnection { transport, address, slot }))
    }

    /// Waits in the queue, for as long as the pool's `queue_wait`, counted from the tick `since`.
    ///
    /// A request that is given up leaves the queue, and its grant passes to the next.
    async fn wait_in_queue(&self, wants: Wants, since: u32, alarm: &Alarm) -> Result<Grant, UpstreamError> {
        let limits = self.limits();
        let waiter = self.places.join(wants, limits.queue).ok_or(UpstreamError::Busy)?;
        self.counters.upstream_queued.increment();
        let place = InQueue { pool: self, waiter };
        let waited = TICK.saturating_mul(self.clock.ticks().saturating_sub(since));
        alarm.set(limits.queue_wait.saturating_sub(waited));
        poll_fn(|cx| match place.waiter.poll_grant(cx) {
            Poll::Ready(grant) => Poll::Ready(Ok(grant)),
            Poll::Pending => alarm.poll_due(cx).map(|()| Err(UpstreamError::QueueTimeout)),
        })
        .await
    }

    /// Waits until the connection attempt under way is over. If it failed, this request fails with
    /// it: another attempt would only take as long again.
    async fn wait_for_connection(&self, alarm: &Alarm) -> Result<(), UpstreamError> {
        alarm.set(self.upstream.connect_timeout);
        let attempt = self.attempts.get();
        let mut connected = pin!(self.connected.notified());
        poll_fn(|cx| {
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
}

/// Adds the time of a wait to the facts, even if the request is given up meanwhile.
async fn timed<T>(wait: impl Future<Output = T>, facts: &RefCell<UpstreamFacts>) -> T {
    let _waiting = WaitingRequest { facts, begin: Instant::now() };
    wait.await
}

struct WaitingRequest<'f> {
    facts: &'f RefCell<UpstreamFacts>,
    begin: Instant,
}

impl Drop for WaitingRequest<'_> {
    fn drop(&mut self) {
        let waited = self.begin.elapsed();
        UpstreamFacts::note(self.facts, |facts| facts.wait = Some(facts.wait.unwrap_or_default() + waited));
    }
}

/// A place in the queue, until it is dropped.
struct InQueue<'p> {
    pool: &'p Pool,
    waiter: Rc<Waiter>,
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        match self.pool.places.leave(&self.waiter) {
            Some(Grant::Connection(connection)) => self.pool.put(connection),
            // Dropping them passes them to the next.
            Some(Grant::Slot(_) | Grant::Stream(_) | Grant::Look) | None => {}
        }
    }
}

/// A connection attempt that other requests wait for.
struct SharedAttempt<'a>(&'a Pool);

impl<'a> SharedAttempt<'a> {
    fn begin(pool: &'a Pool) -> Self {
        pool.connecting.set(true);
        *pool.failure.borrow_mut() = None;
        Self(pool)
    }

    /// Passes the error on to the requests that wait.
    fn failed(self, error: &UpstreamError) {
        *self.0.failure.borrow_mut() = Some(error.of_connection());
    }
}

impl Drop for SharedAttempt<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(false);
        self.0.attempts.set(self.0.attempts.get().wrapping_add(1));
        self.0.connected.notify_waiters();
    }
}
