//! One worker: clock, counters, view of the snapshot, and connections of its own.

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::yield_now;
use tokio::time::Instant;

use super::admission::{Admission, ClientNetwork};
use super::challenge::ReadSlots;
use super::channels::{Drain, Peers, PublishedSnapshot, SharedState, Vitals};
use super::compressors::Compressors;
use super::connections::{ConnectionEntry, Connections};
use super::failed_handshakes::FailedHandshakes;
use super::handshakes::Handshakes;
use super::loop_guard::LoopGuard;
use super::reports::Reports;
use super::snapshot::{SITES_AT_ONCE, View};
use super::untrusted::Untrusted;
use super::upload_budget::Uploads;
use crate::clock::{Clock, TICK, ticks_of, uptime};
use crate::telemetry::meters::LIMITS;
use crate::telemetry::{AccessLog, Counters, Meters, SpanSink};

/// The interval between checks of idle upstream connections.
const SWEEP: Duration = Duration::from_secs(5);
/// The longest time from a new connection to its first request while pintle stops.
const FRESH: Duration = Duration::from_secs(5);
/// Stands for a site's index in warnings that concern all sites.
pub(super) const EVERY_SITE: usize = usize::MAX;
/// The interval between two log entries about the same trouble.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The ways in which connections end in a drain.
#[derive(Clone, Copy)]
enum Draining {
    /// Idle ones end at once. `since` is a tick.
    Stop { since: u32 },
    /// With the answer to the next request; without one, at half of `limits.drain`. `since` is a tick.
    /// With `rotates`, no handshake begins.
    HandOver { since: u32, rotates: bool },
}

/// A worker's own state.
pub(super) struct Worker {
    pub(super) clock: Rc<Clock>,
    pub(super) counters: Arc<Counters>,
    pub(super) meters: Arc<Meters>,
    pub(super) access: Option<AccessLog>,
    pub(super) spans: SpanSink,
    pub(super) admission: Arc<Admission>,
    pub(super) loop_guard: Arc<LoopGuard>,
    pub(super) untrusted: Arc<Untrusted>,
    pub(super) reports: Arc<Reports>,
    pub(super) uploads: Arc<Uploads>,
    pub(super) handshakes: Rc<Handshakes>,
    pub(super) compressors: Compressors,
    pub(super) failed_handshakes: FailedHandshakes,
    pub(super) challenges: RefCell<ReadSlots>,
    /// The ports of the TLS listeners.
    https_ports: RefCell<Vec<u16>>,
    pub(super) listed: Rc<Connections>,
    pub(super) number: usize,
    pub(super) peers: Peers,
    view: RefCell<Rc<View>>,
    streaming: Rc<Cell<usize>>,
    draining: Cell<Option<Draining>>,
    connections: Cell<usize>,
    /// Connections that have become tunnels.
    pub(super) tunnels: Cell<usize>,
    /// Connections that were idle at the last tick.
    pub(super) idle: Cell<usize>,
    all_gone: Notify,
    warned: RefCell<HashMap<(usize, &'static str), Instant>>,
}

impl Worker {
    /// Returns a worker that uses the current snapshot.
    pub(super) async fn new(number: usize, shared: &mut SharedState, vitals: &Vitals) -> Self {
        let (clock, counters) = (Rc::new(Clock::default()), vitals.counters.clone());
        let streaming = Rc::new(Cell::new(0));
        let PublishedSnapshot { number: taken, snapshot, traffic, .. } = shared.snapshot.borrow_and_update().clone();
        vitals.taken.store(taken, Ordering::Release);
        Self {
            view: RefCell::new(View::new(snapshot, traffic, None, &clock, &streaming, &counters).await),
            clock,
            counters,
            meters: vitals.meters.clone(),
            access: shared.access.clone().map(|(sink, format)| AccessLog::new(sink, format, number)),
            spans: shared.spans.clone(),
            admission: shared.admission.clone(),
            loop_guard: shared.loop_guard.clone(),
            untrusted: shared.untrusted.clone(),
            reports: shared.reports.clone(),
            uploads: shared.uploads.clone(),
            handshakes: Rc::default(),
            compressors: Compressors::default(),
            failed_handshakes: FailedHandshakes::default(),
            challenges: RefCell::new(ReadSlots::new(0)),
            https_ports: RefCell::default(),
            listed: Rc::default(),
            number,
            peers: shared.peers.clone(),
            streaming,
            draining: Cell::new(None),
            connections: Cell::new(0),
            tunnels: Cell::new(0),
            idle: Cell::new(0),
            all_gone: Notify::new(),
            warned: RefCell::default(),
        }
    }

    /// Returns the view of the current snapshot. A request takes it once.
    pub(super) fn view(&self) -> Rc<View> {
        self.view.borrow().clone()
    }

    /// Returns the time of this turn, if the access log, the metrics or a trace need it for a duration.
    pub(super) fn begin(&self) -> Option<Instant> {
        (self.access.is_some() || self.view.borrow().shared.measures).then(|| self.clock.time())
    }

    /// Counts a limit that was reached.
    pub(super) fn limit_reached(&self, name: &str) {
        self.meters.limits.count(&LIMITS, &name);
    }

    /// Returns the ports of the TLS listeners.
    pub(super) fn https_ports(&self) -> Ref<'_, Vec<u16>> {
        self.https_ports.borrow()
    }

    pub(super) fn set_https_ports(&self, ports: Vec<u16>) {
        self.https_ports.replace(ports);
    }

    /// Returns `true` if the process is ending, and no other takes over its listeners.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.draining.get(), Some(Draining::Stop { .. }))
    }

    /// Returns `true` if connections are to end as soon as possible.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get().is_some()
    }

    /// Returns `true` if another process serves chains that differ from those here: no handshake may begin.
    pub(super) fn begins_no_handshake(&self) -> bool {
        matches!(self.draining.get(), Some(Draining::HandOver { rotates: true, .. }))
    }

    /// Returns the current tick.
    pub(super) fn ticks(&self) -> u32 {
        self.clock.ticks()
    }

    /// Returns `true` if a connection that is idle since a tick is to end. A `fresh` one has had no request yet: its client has
    /// seen a listener, and rightly expects an answer.
    pub(super) fn ends_rest(&self, fresh: bool, rests_since: u32) -> bool {
        let now = self.clock.ticks();
        match self.draining.get() {
            None => false,
            // Its client may have been accepted long ago, and had the whole time until now to ask.
            Some(Draining::Stop { since }) => !fresh || now.saturating_sub(since.max(rests_since)) > ticks_of(FRESH),
            Some(Draining::HandOver { since, .. }) => {
                now.saturating_sub(since) >= ticks_of(self.view().shared.limits.drain) / 2
            }
        }
    }

    /// Logs trouble with a site, at most once a minute.
    pub(super) fn warn_seldom(&self, site: usize, what: &'static str, warn: impl FnOnce()) {
        let now = Instant::now();
        let mut warned = self.warned.borrow_mut();
        let last = warned.get(&(site, what));
        if last.is_none_or(|last| now.duration_since(*last) >= WARN_EVERY) {
            warned.insert((site, what), now);
            warn();
        }
    }

    /// Ends a silent or idle connection of a network, or of any. Returns `false` if there is none.
    pub(super) fn make_room(&self, network: Option<ClientNetwork>, newcomer: Option<&ConnectionEntry>) -> bool {
        let made = self.listed.make_room(network, newcomer, self.clock.ticks());
        if made {
            self.counters.connections_shed.increment();
        }
        made
    }

    /// Counts a connection while the guard lives.
    pub(super) fn connection(self: &Rc<Self>) -> Open {
        self.connections.set(self.connections.get() + 1);
        Open(self.clone())
    }

    pub(super) async fn follow_snapshots(
        &self,
        mut snapshots: watch::Receiver<PublishedSnapshot>,
        taken: &AtomicU64,
        news: &Notify,
    ) {
        while snapshots.changed().await.is_ok() {
            let PublishedSnapshot { number, snapshot, rotates, traffic } = snapshots.borrow_and_update().clone();
            let before = self.view();
            let view = View::new(snapshot, traffic, Some(&before), &self.clock, &self.streaming, &self.counters).await;
            self.view.replace(view);
            tokio::task::spawn_local(let_go(before));
            // Indexes of sites may have changed. Warnings that concern all sites keep their interval.
            self.warned.borrow_mut().retain(|(site, _), _| *site == EVERY_SITE);
            if rotates {
                self.handshakes.end().await;
            }
            taken.store(number, Ordering::Release);
            news.notify_one();
        }
    }

    pub(super) async fn show_life(&self, pulse: &AtomicU64) {
        loop {
            pulse.store(uptime(), Ordering::Relaxed);
            self.count_states();
            let due = Instant::now() + TICK;
            tokio::time::sleep_until(due).await;
            let delay = due.elapsed();
            self.meters.loop_delay.note(delay);
            self.compressors.note_delay(delay);
        }
    }

    pub(super) async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.sum_failed_handshakes(false);
            for pools in self.view().pools.chunks(SITES_AT_ONCE) {
                pools.iter().flatten().for_each(|pool| pool.sweep());
                yield_now().await;
            }
        }
    }

    /// Lets connections end as soon as possible.
    pub(super) fn begin_drain(&self, how: &Drain) {
        let since = self.clock.ticks();
        self.draining.set(Some(match how {
            Drain::HandOver { rotates, .. } => Draining::HandOver { since, rotates: *rotates },
            Drain::Stop | Drain::No => Draining::Stop { since },
        }));
        self.clock.wake_all();
    }

    /// Waits until all connections have ended, or `limits.drain` has passed.
    pub(super) async fn drain(&self) {
        let limit = self.view().shared.limits.drain;
        let end = Instant::now() + limit;
        while self.connections.get() > 0 {
            let now = Instant::now();
            if now >= end {
                tracing::warn!(connections = self.connections.get(), "drain timed out, closing connections");
                return;
            }
            // Connections that were busy at the first call check again at each tick.
            let next = (now + TICK).min(end);
            let _ = tokio::time::timeout_at(next, self.all_gone.notified()).await;
            self.clock.wake_all();
        }
    }
}

/// Drops a replaced view once no request uses it.
async fn let_go(mut view: Rc<View>) {
    while let Err(used) = View::drop_slowly(view).await {
        view = used;
        tokio::time::sleep(SWEEP).await;
    }
}

/// An open connection.
pub(super) struct Open(Rc<Worker>);

impl Drop for Open {
    fn drop(&mut self) {
        let left = self.0.connections.get() - 1;
        self.0.connections.set(left);
        self.0.note_states();
        if std::thread::panicking() {
            self.0.counters.panics.increment();
        }
        if left == 0 {
            self.0.all_gone.notify_one();
        }
    }
}
