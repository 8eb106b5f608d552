//! The channels between the server and its workers, and among the workers.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::admission::{Admission, Network};
use super::loop_guard::LoopGuard;
use super::reports::Reports;
use super::snapshot::Snapshot;
use crate::policy::Scheme;
use crate::telemetry::{AccessFormat, Counters, LogSink};

/// RoomRequests that wait for a worker; more are refused.
const ROOM_REQUESTS_MAX: usize = 1024;

/// How the end is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Drain {
    /// It is not.
    #[default]
    No,
    /// Nobody comes after: connections at rest are closed at once.
    Stop,
    /// Another process accepts on these already, and closes none of them: connections at rest may see their next request
    /// answered, so that nobody sends one just as the connection is closed.
    HandOver(Arc<[(SocketAddr, Scheme)]>),
}

/// A snapshot, and which one it is.
#[derive(Clone)]
pub(super) struct Published {
    pub(super) number: u64,
    pub(super) snapshot: Arc<Snapshot>,
}

/// What a worker is to listen on: what is not listed any more is closed, and what is new is there to be taken.
#[derive(Default)]
pub(super) struct Listening {
    pub(super) keep: Vec<(SocketAddr, Scheme)>,
    pub(super) new: Mutex<Vec<(TcpListener, Scheme)>>,
}

/// What all workers share: nothing that one could hold up the others with.
#[derive(Clone)]
pub(super) struct SharedState {
    pub(super) admission: Arc<Admission>,
    pub(super) loop_guard: Arc<LoopGuard>,
    pub(super) access: Option<(LogSink, AccessFormat)>,
    pub(super) snapshot: watch::Receiver<Published>,
    /// Told whenever a worker has taken a snapshot.
    pub(super) news: Arc<Notify>,
    pub(super) draining: watch::Receiver<Drain>,
    pub(super) reports: Arc<Reports>,
    pub(super) peers: Peers,
}

/// What is seen of a worker from outside.
#[derive(Clone, Default)]
pub(super) struct Vitals {
    pub(super) counters: Arc<Counters>,
    /// The number of the snapshot that it serves by.
    pub(super) taken: Arc<AtomicU64>,
    /// The uptime of its last sign of life.
    pub(super) pulse: Arc<AtomicU64>,
}

/// What one worker alone is given.
pub(super) struct Assignment {
    pub(super) number: usize,
    pub(super) listeners: watch::Receiver<Listening>,
    /// What the other workers ask of it.
    pub(super) requests: mpsc::Receiver<RoomRequest>,
    pub(super) vitals: Vitals,
}

/// A worker asks another one to end a connection: of a network, or of any.
pub(super) struct RoomRequest {
    pub(super) network: Option<Network>,
    pub(super) reply: oneshot::Sender<bool>,
}

/// The ways to all workers, by their numbers.
pub(super) type Peers = Arc<[mpsc::Sender<RoomRequest>]>;

/// The ways to so many workers, and their ends.
pub(super) fn peers(workers: usize) -> (Peers, Vec<mpsc::Receiver<RoomRequest>>) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(ROOM_REQUESTS_MAX)).unzip();
    (senders.into(), receivers)
}
