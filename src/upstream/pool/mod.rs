//! The connections of one worker to one upstream. No lock: a worker is one thread.

pub(super) mod budget;
pub(super) mod checkout;
pub(super) mod connection;
mod dial;
pub(super) mod http2;
mod queue;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{Clock, ticks_of};
use crate::message::ResponseLimits;
use crate::telemetry::Counters;
use crate::upstream::error::{Sign, UpstreamError};
use crate::upstream::settings::Upstream;
use crate::wire::min_rate::MinRate;
use budget::Budget;
use connection::{Connection, Places, is_quiet};
use http2::{Http2, Stream};

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
    pub(in crate::upstream) upstream: Arc<Upstream>,
    limits: Cell<PoolLimits>,
    /// Bodies under way from all upstreams of this worker: many of them get smaller buffers each.
    pub(in crate::upstream) streaming: Rc<Cell<usize>>,
    pub(in crate::upstream) clock: Rc<Clock>,
    pub(in crate::upstream) counters: Arc<Counters>,
    pub(in crate::upstream) budget: Budget,
    pub(in crate::upstream) places: Rc<Places>,
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

    pub(in crate::upstream) fn limits(&self) -> PoolLimits {
        self.limits.get()
    }

    /// Sets other bounds, from now on.
    pub fn limit(&self, limits: PoolLimits) {
        self.limits.set(limits);
        self.places.set_max(limits.connections);
    }

    /// Whether an address is left out, because it fails or its health check does, and there is a better one.
    fn leaves_out(&self, address: SocketAddr) -> bool {
        self.upstream.health.leaves_out(address, &self.upstream.addresses)
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
    pub(in crate::upstream) fn may_retry(&self) -> bool {
        let may = self.budget.spend(self.clock.ticks());
        if may {
            self.counters.upstream_retries.increment();
        }
        may
    }

    /// Puts a failure down to the address, where there is a choice of addresses.
    pub(in crate::upstream) fn failed_at(&self, address: SocketAddr, error: UpstreamError) -> UpstreamError {
        if error.sign() == Sign::Dead && self.upstream.addresses.are_several() {
            self.upstream.health.address_failed(address);
        }
        error
    }

    /// Takes a connection back on which an exchange has ended cleanly.
    pub(in crate::upstream) fn put(&self, connection: Box<Connection>) {
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
