//! One worker: a thread with a runtime, listeners, connections to upstreams and counters of its own.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::admission::Admission;
use super::connection;
use super::handshakes::Handshakes;
use super::loop_guard::LoopGuard;
use super::reports::Reports;
use super::snapshot::View;
use super::{Listening, Published};
use crate::clock::{Clock, TICK};
use crate::policy::Scheme;
use crate::telemetry::{AccessFormat, AccessLog, Counters, LogSink};

/// How long accepting pauses when there are no more files to be had.
const NO_FILES_PAUSE: Duration = Duration::from_millis(100);
/// How often idle upstream connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);
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
    pub(super) draining: watch::Receiver<bool>,
    pub(super) https_port: Arc<AtomicU16>,
    pub(super) reports: Arc<Reports>,
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
    https_port: Arc<AtomicU16>,
    view: RefCell<Rc<View>>,
    streaming: Rc<Cell<usize>>,
    draining: Cell<bool>,
    connections: Cell<usize>,
    all_gone: Notify,
    warned: RefCell<HashMap<(usize, &'static str), Instant>>,
}

impl Worker {
    /// The snapshot of now; to be taken once per request.
    pub(super) fn view(&self) -> Rc<View> {
        self.view.borrow().clone()
    }

    /// The port of the TLS listener.
    pub(super) fn https_port(&self) -> Option<u16> {
        Some(self.https_port.load(Ordering::Relaxed)).filter(|port| *port != 0)
    }

    /// Whether connections are to end as soon as they can.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
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

    /// Counts a connection as long as the guard is held.
    pub(super) fn connection(self: &Rc<Self>) -> Open {
        self.connections.set(self.connections.get() + 1);
        Open(self.clone())
    }

    async fn follow_snapshots(&self, mut snapshots: watch::Receiver<Published>, taken: &AtomicU64, news: &Notify) {
        while snapshots.changed().await.is_ok() {
            let Published { number, snapshot } = snapshots.borrow_and_update().clone();
            let view = View::new(snapshot, Some(&*self.view.borrow()), &self.clock, &self.streaming);
            *self.view.borrow_mut() = view;
            self.warned.borrow_mut().clear();
            taken.store(number, Ordering::Release);
            news.notify_one();
        }
    }

    async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            for pool in self.view().pools.iter().flatten() {
                pool.sweep();
            }
        }
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
pub(super) fn run(
    shared: Shared,
    listeners: watch::Receiver<Listening>,
    counters: Arc<Counters>,
    taken: Arc<AtomicU64>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(AccessLog::flush_thread)
        .build_local(tokio::runtime::LocalOptions::default())?;
    let result = runtime.block_on(work(shared, listeners, counters, taken));
    AccessLog::flush_thread();
    result
}

async fn work(
    mut shared: Shared,
    listeners: watch::Receiver<Listening>,
    counters: Arc<Counters>,
    taken: Arc<AtomicU64>,
) -> io::Result<()> {
    let clock = Rc::new(Clock::default());
    let streaming = Rc::new(Cell::new(0));
    let Published { number, snapshot } = shared.snapshot.borrow_and_update().clone();
    taken.store(number, Ordering::Release);
    let worker = Rc::new(Worker {
        view: RefCell::new(View::new(snapshot, None, &clock, &streaming)),
        clock,
        counters,
        access: shared.access.map(|(sink, format)| AccessLog::new(sink, format)),
        admission: shared.admission,
        loop_guard: shared.loop_guard,
        reports: shared.reports,
        handshakes: Rc::default(),
        https_port: shared.https_port,
        streaming,
        draining: Cell::new(false),
        connections: Cell::new(0),
        all_gone: Notify::new(),
        warned: RefCell::default(),
    });
    let background = worker.clone();
    tokio::task::spawn_local(async move { background.clock.run().await });
    let background = worker.clone();
    tokio::task::spawn_local(async move { background.sweep().await });
    let background = worker.clone();
    let (snapshots, news) = (shared.snapshot, shared.news);
    tokio::task::spawn_local(async move { background.follow_snapshots(snapshots, &taken, &news).await });
    listen(&worker, listeners, &mut shared.draining).await?;
    drain(&worker).await;
    Ok(())
}

/// A listener that is accepted on.
struct Accepting {
    address: (SocketAddr, Scheme),
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Accepts on what there is to listen on, as it changes, until the drain begins.
async fn listen(
    worker: &Rc<Worker>,
    mut listeners: watch::Receiver<Listening>,
    draining: &mut watch::Receiver<bool>,
) -> io::Result<()> {
    let mut accepting: Vec<Accepting> = Vec::new();
    loop {
        let (keep, new) = {
            let listening = listeners.borrow_and_update();
            let new = std::mem::take(&mut *listening.new.lock().unwrap_or_else(PoisonError::into_inner));
            (listening.keep.clone(), new)
        };
        accepting.retain(|listener| {
            let stays = keep.contains(&listener.address);
            if !stays {
                listener.stop.send_replace(true);
            }
            stays
        });
        for (listener, scheme) in new {
            let address = listener.local_addr()?;
            if !keep.contains(&(address, scheme)) {
                continue;
            }
            let (stop, stopped) = watch::channel(false);
            let task = accept(TcpListener::from_std(listener)?, scheme, worker.clone(), stopped);
            accepting.push(Accepting { address: (address, scheme), stop, task: tokio::task::spawn_local(task) });
        }
        tokio::select! {
            // The sender lives as long as the server; without it, too, there is nothing left to do.
            _ = draining.wait_for(|draining| *draining) => break,
            changed = listeners.changed() => if changed.is_err() { break },
        }
    }
    for listener in accepting {
        listener.stop.send_replace(true);
        let _ = listener.task.await;
    }
    Ok(())
}

/// Until all connections are gone, or their time is up.
async fn drain(worker: &Worker) {
    worker.draining.set(true);
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
async fn accept(listener: TcpListener, scheme: Scheme, worker: Rc<Worker>, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|s| *s) => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, address)) => begin(socket, address, scheme, &worker),
                Err(error) => pause_after(&error, &worker).await,
            },
        }
    }
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Ok((socket, address))) = listener.poll_accept(&mut cx) {
        begin(socket, address, scheme, &worker);
    }
}

fn begin(socket: TcpStream, address: SocketAddr, scheme: Scheme, worker: &Rc<Worker>) {
    worker.counters.connections_accepted.increment();
    tokio::task::spawn_local(connection::serve(socket, address, scheme, worker.clone()));
}

/// A connection that ended before it was accepted is nobody's fault. Without files or memory there is no use in
/// trying again at once; those who have connections keep them.
async fn pause_after(error: &io::Error, worker: &Worker) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    worker.warn_seldom(usize::MAX, "accept", || {
        tracing::error!(%error, "cannot accept connections; raise the limit of open files (LimitNOFILE=, ulimit -n)");
    });
    tokio::time::sleep(NO_FILES_PAUSE).await;
}
