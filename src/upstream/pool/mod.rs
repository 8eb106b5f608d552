//! The connections of one worker to one upstream. A worker is one thread, so the pool has no lock.

pub(super) mod budget;
pub(super) mod checkout;
pub(super) mod connection;
mod dial;
mod queue;
mod reads_to_end;

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
use budget::RetryBudget;
use connection::{Http2Connection, Places, PooledConnection, StreamPermit, is_quiet};

/// The limits of a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    /// The most connections of one worker to one upstream, including idle ones.
    pub connections: usize,
    /// The most requests that wait for a connection.
    pub queue: usize,
    /// The longest wait for a connection.
    pub queue_wait: Duration,
    /// The longest time that an idle connection is kept.
    pub idle: Duration,
    /// The limits of a response's head.
    pub response_head: ResponseLimits,
    /// The most bytes of a request's body that are kept to send it again.
    pub retry_body: usize,
    /// The lowest rate at which a client may send its request's body.
    pub min_rate: MinRate,
}

/// A worker's connections to one upstream.
pub struct Pool {
    pub(in crate::upstream) upstream: Arc<Upstream>,
    limits: Cell<PoolLimits>,
    /// The number of bodies under way from all upstreams of this worker. The more there are, the
    /// smaller their buffers.
    pub(in crate::upstream) streaming: Rc<Cell<usize>>,
    pub(in crate::upstream) clock: Rc<Clock>,
    pub(in crate::upstream) counters: Arc<Counters>,
    pub(in crate::upstream) budget: RetryBudget,
    pub(in crate::upstream) places: Rc<Places>,
    idle: RefCell<Vec<IdleConnection>>,
    http2: RefCell<Vec<Http2Connection>>,
    /// The protocol that the upstream chose last; `None` until it has chosen one.
    speaks_http2: Cell<Option<bool>>,
    /// A connection attempt is under way whose outcome may serve all waiting requests.
    connecting: Cell<bool>,
    connected: Notify,
    /// The number of such attempts that are over, and the error of the last one, if it failed.
    attempts: Cell<u32>,
    failure: RefCell<Option<UpstreamError>>,
}

struct IdleConnection {
    connection: Box<PooledConnection>,
    since: u32,
}

impl Pool {
    /// Makes a pool without connections.
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
            budget: RetryBudget::default(),
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

    /// Returns the upstream.
    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    pub(in crate::upstream) fn limits(&self) -> PoolLimits {
        self.limits.get()
    }

    /// Changes the limits.
    pub fn limit(&self, limits: PoolLimits) {
        self.limits.set(limits);
        self.places.set_max(limits.connections);
    }

    /// Returns `true` if an address is left out: it or its health check fails, and another address
    /// is better.
    fn leaves_out(&self, address: SocketAddr) -> bool {
        self.upstream.health.leaves_out(address, &self.upstream.addresses)
    }

    /// Returns the idle connection that was used last, if it is still in order.
    fn take_idle(&self) -> Option<Box<PooledConnection>> {
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            if is_quiet(&mut idle.connection.transport) && !self.leaves_out(idle.connection.address) {
                return Some(idle.connection);
            }
        }
    }

    fn take_stream(&self) -> Option<StreamPermit> {
        let mut all = self.http2.borrow_mut();
        all.retain(|c| {
            if self.leaves_out(c.address()) {
                c.retire();
            }
            !c.is_closed()
        });
        all.iter().find(|c| c.has_room()).map(StreamPermit::open)
    }

    /// Spends one retry of the budget. Returns `false` if it has none left.
    pub(in crate::upstream) fn may_retry(&self) -> bool {
        let may = self.budget.spend(self.clock.ticks());
        if may {
            self.counters.upstream_retries.increment();
        }
        may
    }

    /// Counts a failure against the address, if the upstream has several. Returns the error.
    pub(in crate::upstream) fn failed_at(&self, address: SocketAddr, error: UpstreamError) -> UpstreamError {
        if error.sign() == Sign::Dead && self.upstream.addresses.are_several() {
            self.upstream.health.address_failed(address);
        }
        error
    }

    /// Takes back a connection on which an exchange has ended cleanly.
    pub(in crate::upstream) fn put(&self, connection: Box<PooledConnection>) {
        if let Some(connection) = self.places.offer_connection(connection) {
            self.idle.borrow_mut().push(IdleConnection { connection, since: self.clock.ticks() });
        }
    }

    /// Closes connections that were idle for too long or have ended. Retires those to addresses
    /// that are left out, or that DNS no longer gives: a busy connection would stay there forever.
    /// To be called now and then.
    pub fn sweep(&self) {
        let oldest = self.clock.ticks().saturating_sub(ticks_of(self.limits().idle));
        let known = self.upstream.addresses.known();
        let moved = |address: &SocketAddr| (!known.is_empty() && !known.contains(address)) || self.leaves_out(*address);
        self.idle.borrow_mut().retain_mut(|idle| {
            idle.since >= oldest && !moved(&idle.connection.address) && is_quiet(&mut idle.connection.transport)
        });
        // Open streams continue; no new ones are opened.
        self.http2.borrow_mut().retain(|c| {
            let ends = moved(&c.address()) || c.is_idle_since(oldest, self.clock.ticks());
            if ends {
                c.retire();
            }
            !c.is_closed()
        });
    }

    /// Returns the number of open connections.
    #[must_use]
    pub fn open(&self) -> usize {
        self.places.open()
    }
}
