//! The channels between the server and its workers, and among the workers.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::admission::{Admission, ClientNetwork};
use super::loop_guard::LoopGuard;
use super::reports::Reports;
use super::snapshot::Snapshot;
use super::untrusted::Untrusted;
use super::upload_budget::Uploads;
use crate::policy::Scheme;
use crate::telemetry::{AccessFormat, Counters, LogSink, Meters, SiteTraffic, SpanSink};

/// Requests for room that may wait for a worker; more are refused.
const RELIEF_REQUESTS_MAX: usize = 1024;

/// The ways in which connections end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Drain {
    /// No drain.
    #[default]
    No,
    /// No process takes over: idle connections are closed at once.
    Stop,
    /// Another process accepts already.
    HandOver {
        /// The listeners on which it accepts. Idle connections stay open for one more request, so that none is closed just as
        /// a client sends a request.
        kept: Arc<[(SocketAddr, Scheme)]>,
        /// It will send pins that chains of this process break: connections that have not finished their handshake are
        /// closed. Their clients try again, and reach the other process.
        rotates: bool,
    },
}

/// A snapshot with its number.
#[derive(Clone)]
pub(super) struct PublishedSnapshot {
    pub(super) number: u64,
    pub(super) snapshot: Arc<Snapshot>,
    /// It sends pins that earlier chains break: handshakes with those end before a worker counts as having taken it.
    pub(super) rotates: bool,
    /// The traffic of its sites, in their order, and of requests for no site.
    pub(super) traffic: Arc<[Arc<SiteTraffic>]>,
}

/// The listeners of a worker: those to keep (others are closed), and new ones to take.
#[derive(Default)]
pub(super) struct WorkerListeners {
    pub(super) keep: Vec<(SocketAddr, Scheme)>,
    pub(super) new: Mutex<Vec<(TcpListener, Scheme)>>,
}

/// The state that all workers share. No worker can block another with it.
#[derive(Clone)]
pub(super) struct SharedState {
    pub(super) admission: Arc<Admission>,
    pub(super) loop_guard: Arc<LoopGuard>,
    pub(super) access: Option<(LogSink, AccessFormat)>,
    pub(super) spans: SpanSink,
    pub(super) snapshot: watch::Receiver<PublishedSnapshot>,
    /// Notified when a worker has taken a snapshot.
    pub(super) news: Arc<Notify>,
    pub(super) draining: watch::Receiver<Drain>,
    pub(super) untrusted: Arc<Untrusted>,
    pub(super) reports: Arc<Reports>,
    pub(super) uploads: Arc<Uploads>,
    pub(super) peers: Peers,
}

/// The state of a worker that the server reads.
#[derive(Clone, Default)]
pub(super) struct Vitals {
    pub(super) counters: Arc<Counters>,
    pub(super) meters: Arc<Meters>,
    /// The number of its snapshot.
    pub(super) taken: Arc<AtomicU64>,
    /// The [`crate::clock::uptime`] of its last sign of life.
    pub(super) pulse: Arc<AtomicU64>,
    /// It no longer accepts.
    pub(super) drains: Arc<AtomicBool>,
}

/// The input of one worker.
pub(super) struct Assignment {
    pub(super) number: usize,
    pub(super) listeners: watch::Receiver<WorkerListeners>,
    /// Requests from the other workers.
    pub(super) requests: mpsc::Receiver<ReliefRequest>,
    pub(super) vitals: Vitals,
}

/// A request from one worker to another: end a connection of a network, or of any.
pub(super) struct ReliefRequest {
    pub(super) network: Option<ClientNetwork>,
    pub(super) reply: oneshot::Sender<bool>,
}

/// The senders to all workers, by their numbers.
pub(super) type Peers = Arc<[mpsc::Sender<ReliefRequest>]>;

/// Returns the senders to `workers` workers, and the receivers.
pub(super) fn peers(workers: usize) -> (Peers, Vec<mpsc::Receiver<ReliefRequest>>) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(RELIEF_REQUESTS_MAX)).unzip();
    (senders.into(), receivers)
}
