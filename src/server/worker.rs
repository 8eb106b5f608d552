//! One worker: a thread with a runtime, listeners, connections to upstreams and counters of its own.

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::Instant;

use super::admission::{Admission, Network};
use super::challenge::Places;
use super::connection;
use super::connections::{Connections, Entry};
use super::handshakes::Handshakes;
use super::loop_guard::LoopGuard;
use super::relief::{self, Others, Plea};
use super::reports::Reports;
use super::snapshot::{SITES_AT_ONCE, View};
use super::{Drain, Listening, Published};
use crate::clock::{Clock, TICK, ticks_of, uptime};
use crate::policy::Scheme;
use crate::telemetry::{AccessFormat, AccessLog, Counters, LogSink};

/// How long accepting pauses when there are no more files to be had.
const NO_FILES_PAUSE: Duration = Duration::from_millis(100);
/// How often idle upstream connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// How long a connection that is new when pintle stops is waited for to say what it wants.
const FRESH: Duration = Duration::from_secs(5);
/// In place of a site's number, for trouble that concerns them all.
pub(super) const EVERY_SITE: usize = usize::MAX;
/// The same trouble is told once in this time.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What all workers share: nothing that one could hold up the others with.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) admission: Arc<Admission>,
    pub(super) loop_guard: Arc<LoopGuard>,
    pub(super) access: Option<(LogSink, AccessFormat)>,
    pub(super) snapshot: watch::Receiver<Published>,
    /// Told whenever a worker has taken a snapshot.
    pub(super) news: Arc<Notify>,
    pub(super) draining: watch::Receiver<Drain>,
    pub(super) reports: Arc<Reports>,
    pub(super) others: Others,
}

/// What is seen of a worker from outside.
pub(super) struct Signs {
    pub(super) counters: Arc<Counters>,
    /// The number of the snapshot that it serves by.
    pub(super) taken: Arc<AtomicU64>,
    /// The uptime of its last sign of life.
    pub(super) pulse: Arc<AtomicU64>,
}

/// What one worker alone is given.
pub(super) struct Own {
    pub(super) number: usize,
    pub(super) listeners: watch::Receiver<Listening>,
    /// What the other workers ask of it.
    pub(super) pleas: mpsc::Receiver<Plea>,
}

/// How connections are to end, and since which tick.
#[derive(Clone, Copy)]
enum Draining {
    /// At once, where they are at rest.
    Stop,
    /// With the answer to their next request; without one, in the middle of the time that there is.
    HandOver { since: u32 },
}

/// A worker's own state.
pub(super) struct Worker {
    pub(super) clock: Rc<Clock>,
    pub(super) counters: Arc<Counters>,
    pub(super) access: Option<AccessLog>,
    pub(super) admission: Arc<Admission>,
    pub(super) loop_guard: Arc<LoopGuard>,
    pub(super) reports: Arc<Reports>,
    pub(super) handshakes: Rc<Handshakes>,
    pub(super) challenges: RefCell<Places>,
    /// The ports of the TLS listeners.
    https_ports: RefCell<Vec<u16>>,
    pub(super) listed: Rc<Connections>,
    pub(super) number: usize,
    pub(super) others: Others,
    view: RefCell<Rc<View>>,
    streaming: Rc<Cell<usize>>,
    draining: Cell<Option<Draining>>,
    connections: Cell<usize>,
    all_gone: Notify,
    warned: RefCell<HashMap<(usize, &'static str), Instant>>,
}

impl Worker {
    /// The snapshot of now; to be taken once per request.
    pub(super) fn view(&self) -> Rc<View> {
        self.view.borrow().clone()
    }

    /// The ports of the TLS listeners.
    pub(super) fn https_ports(&self) -> Ref<'_, Vec<u16>> {
        self.https_ports.borrow()
    }

    /// `true` if the process is going away, and none follows it on its listeners.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.draining.get(), Some(Draining::Stop))
    }

    /// Whether connections are to end as soon as they can.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get().is_some()
    }

    /// The tick of now.
    pub(super) fn ticks(&self) -> u32 {
        self.clock.ticks()
    }

    /// Whether a connection that rests since that tick is to end, as nobody needs it any more. A fresh one has not had
    /// its first request yet: its client has seen a listener, and is right to expect an answer.
    pub(super) fn ends_rest(&self, fresh: bool, rests_since: u32) -> bool {
        let now = self.clock.ticks();
        match self.draining.get() {
            None => false,
            Some(Draining::Stop) => !fresh || now.saturating_sub(rests_since) > ticks_of(FRESH),
            Some(Draining::HandOver { since }) => {
                now.saturating_sub(since) >= ticks_of(self.view().shared.limits.drain) / 2
            }
        }
    }

    /// Tells the operator about trouble with a site, but not with every request.
    pub(super) fn warn_seldom(&self, site: usize, what: &'static str, warn: impl FnOnce()) {
        let now = Instant::now();
        let mut warned = self.warned.borrow_mut();
        let last = warned.get(&(site, what));
        if last.is_none_or(|last| now.duration_since(*last) >= WARN_EVERY) {
            warned.insert((site, what), now);
            warn();
        }
    }

    /// Ends a connection that says nothing or rests: of a network, or of any. Says no if there is none.
    pub(super) fn make_room(&self, network: Option<Network>, newcomer: Option<&Entry>) -> bool {
        let made = self.listed.make_room(network, newcomer, self.clock.ticks());
        if made {
            self.counters.connections_shed.increment();
        }
        made
    }

    /// Counts a connection as long as the guard is held.
    pub(super) fn connection(self: &Rc<Self>) -> Open {
        self.connections.set(self.connections.get() + 1);
        Open(self.clone())
    }

    async fn follow_snapshots(&self, mut snapshots: watch::Receiver<Published>, taken: &AtomicU64, news: &Notify) {
        while snapshots.changed().await.is_ok() {
            let Published { number, snapshot } = snapshots.borrow_and_update().clone();
            let before = self.view();
            let view = View::new(snapshot, Some(&before), &self.clock, &self.streaming, &self.counters).await;
            self.view.replace(view);
            tokio::task::spawn_local(let_go(before));
            // Sites may stand elsewhere now; what concerns none of them is told no more often for that.
            self.warned.borrow_mut().retain(|(site, _), _| *site == EVERY_SITE);
            taken.store(number, Ordering::Release);
            news.notify_one();
        }
    }

    async fn show_life(&self, pulse: &AtomicU64) {
        loop {
            pulse.store(uptime(), Ordering::Relaxed);
            tokio::time::sleep(TICK).await;
        }
    }

    async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            for pools in self.view().pools.chunks(SITES_AT_ONCE) {
                pools.iter().flatten().for_each(|pool| pool.sweep());
                yield_now().await;
            }
        }
    }
}

/// Drops a view that was replaced, once no request goes by it.
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
        if std::thread::panicking() {
            self.0.counters.panics.increment();
        }
        if left == 0 {
            self.0.all_gone.notify_one();
        }
    }
}

/// Runs a worker on this thread until it has drained.
pub(super) fn run(shared: Shared, own: Own, signs: Signs) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(AccessLog::flush_thread)
        .build_local(tokio::runtime::LocalOptions::default())?;
    let result = runtime.block_on(work(shared, own, signs));
    AccessLog::flush_thread();
    result
}

async fn work(mut shared: Shared, own: Own, signs: Signs) -> io::Result<()> {
    let Own { number: own_number, listeners, pleas } = own;
    let Signs { counters, taken, pulse } = signs;
    let clock = Rc::new(Clock::default());
    let streaming = Rc::new(Cell::new(0));
    let Published { number, snapshot } = shared.snapshot.borrow_and_update().clone();
    taken.store(number, Ordering::Release);
    let worker = Rc::new(Worker {
        view: RefCell::new(View::new(snapshot, None, &clock, &streaming, &counters).await),
        clock,
        counters,
        access: shared.access.map(|(sink, format)| AccessLog::new(sink, format)),
        admission: shared.admission,
        loop_guard: shared.loop_guard,
        reports: shared.reports,
        handshakes: Rc::default(),
        challenges: RefCell::new(Places::new(0)),
        https_ports: RefCell::default(),
        listed: Rc::default(),
        number: own_number,
        others: shared.others,
        streaming,
        draining: Cell::new(None),
        connections: Cell::new(0),
        all_gone: Notify::new(),
        warned: RefCell::default(),
    });
    let background = worker.clone();
    tokio::task::spawn_local(async move { background.clock.run().await });
    let background = worker.clone();
    tokio::task::spawn_local(async move { background.sweep().await });
    tokio::task::spawn_local(relief::hear(worker.clone(), pleas));
    let background = worker.clone();
    tokio::task::spawn_local(async move { background.show_life(&pulse).await });
    let background = worker.clone();
    let (snapshots, news) = (shared.snapshot, shared.news);
    tokio::task::spawn_local(async move { background.follow_snapshots(snapshots, &taken, &news).await });
    let how = listen(&worker, listeners, &mut shared.draining).await?;
    drain(&worker, &how).await;
    Ok(())
}

/// A listener that is accepted on.
struct Accepting {
    address: (SocketAddr, Scheme),
    stop: watch::Sender<Until>,
    task: JoinHandle<()>,
}

/// Until when a listener is accepted on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// It goes on.
    Told,
    /// It is to be closed, once what is queued is accepted.
    Empty,
    /// Another process accepts on it, too: what is queued is for that.
    Now,
}

/// Accepts on what there is to listen on, as it changes, until the drain begins.
async fn listen(
    worker: &Rc<Worker>,
    mut listeners: watch::Receiver<Listening>,
    draining: &mut watch::Receiver<Drain>,
) -> io::Result<Drain> {
    let mut accepting: Vec<Accepting> = Vec::new();
    loop {
        let (keep, new) = {
            let listening = listeners.borrow_and_update();
            let new = std::mem::take(&mut *listening.new.lock().unwrap_or_else(PoisonError::into_inner));
            (listening.keep.clone(), new)
        };
        let tls = keep.iter().filter(|(_, scheme)| *scheme == Scheme::Https);
        worker.https_ports.replace(tls.map(|(address, _)| address.port()).collect());
        accepting.retain(|listener| {
            let stays = keep.contains(&listener.address);
            if !stays {
                listener.stop.send_replace(Until::Empty);
            }
            stays
        });
        for (listener, scheme) in new {
            let address = listener.local_addr()?;
            if !keep.contains(&(address, scheme)) {
                continue;
            }
            let (stop, stopped) = watch::channel(Until::Told);
            let task = accept(TcpListener::from_std(listener)?, scheme, worker.clone(), stopped);
            accepting.push(Accepting { address: (address, scheme), stop, task: tokio::task::spawn_local(task) });
        }
        tokio::select! {
            // The sender lives as long as the server; without it, too, there is nothing left to do.
            _ = draining.wait_for(|draining| *draining != Drain::No) => break,
            changed = listeners.changed() => if changed.is_err() { break },
        }
    }
    let how = draining.borrow().clone();
    for listener in accepting {
        let until = match &how {
            Drain::HandOver(kept) if kept.contains(&listener.address) => Until::Now,
            _ => Until::Empty,
        };
        listener.stop.send_replace(until);
        let _ = listener.task.await;
    }
    Ok(how)
}

/// Until all connections are gone, or their time is up.
async fn drain(worker: &Worker, how: &Drain) {
    worker.draining.set(Some(match how {
        Drain::HandOver(_) => Draining::HandOver { since: worker.clock.ticks() },
        Drain::Stop | Drain::No => Draining::Stop,
    }));
    worker.clock.wake_all();
    let limit = worker.view().shared.limits.drain;
    let end = Instant::now() + limit;
    while worker.connections.get() > 0 {
        let now = Instant::now();
        if now >= end {
            tracing::warn!(connections = worker.connections.get(), "drain: time is up, closing what is left");
            return;
        }
        // Connections that were busy at the first call look again at each tick.
        let next = (now + TICK).min(end);
        let _ = tokio::time::timeout_at(next, worker.all_gone.notified()).await;
        worker.clock.wake_all();
    }
}

/// Accepts until it is stopped, and then what is queued already: with SO_REUSEPORT, closing the listener would reset it.
async fn accept(listener: TcpListener, scheme: Scheme, worker: Rc<Worker>, mut stopped: watch::Receiver<Until>) {
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|until| *until != Until::Told) => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, address)) => begin(socket, address, scheme, &worker),
                Err(error) => pause_after(&error, &worker).await,
            },
        }
    }
    if *stopped.borrow() == Until::Now {
        return;
    }
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Ok((socket, address))) = listener.poll_accept(&mut cx) {
        begin(socket, address, scheme, &worker);
    }
}

fn begin(socket: TcpStream, address: SocketAddr, scheme: Scheme, worker: &Rc<Worker>) {
    worker.counters.connections_accepted.increment();
    // From here on it counts: a drain that begins before its task has run waits for it.
    let open = worker.connection();
    tokio::task::spawn_local(connection::serve(socket, address, scheme, worker.clone(), open));
}

/// A connection that ended before it was accepted is nobody's fault. Without files or memory there is no use in
/// trying again at once; those who have connections keep them.
async fn pause_after(error: &io::Error, worker: &Worker) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    worker.warn_seldom(EVERY_SITE, "accept", || {
        tracing::error!(%error, "cannot accept connections; raise the limit of open files (LimitNOFILE=, ulimit -n)");
    });
    tokio::time::sleep(NO_FILES_PAUSE).await;
}
