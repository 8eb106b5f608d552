//! The server: listeners, workers, and the way from a connection to an answer.

mod admission;
mod connection;
mod handshakes;
mod http1;
mod http2;
mod listener;
mod loop_guard;
mod page;
mod proxy_header;
mod record;
mod rejection;
mod reply;
mod reports;
mod service;
mod snapshot;
mod tunnel;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::policy::Scheme;
use crate::telemetry::{AccessFormat, Counters, LogSink};

pub use listener::{BindError, Bound, bind};
pub use reports::{NO_SITE, Report, Reports};
pub use snapshot::{Earlier, Snapshot, View};

/// For the fuzzers.
#[doc(hidden)]
pub mod fuzzing {
    pub use super::http2::head::read as read_http2_head;
    pub use super::proxy_header::{NoProxyHeader, ProxyHeader, parse as parse_proxy_header};
}

/// How long to wait for workers to take a snapshot.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// A running server: N workers, each a thread with everything of its own.
pub struct Server {
    workers: Vec<Worker>,
    snapshot: watch::Sender<Published>,
    /// Told whenever a worker has taken a snapshot.
    news: Arc<Notify>,
    draining: watch::Sender<bool>,
    /// The port of the TLS listener, zero if there is none.
    https_port: Arc<AtomicU16>,
    reports: Arc<Reports>,
    listening: Vec<(SocketAddr, Scheme)>,
}

struct Worker {
    thread: JoinHandle<io::Result<()>>,
    counters: Arc<Counters>,
    /// The number of the snapshot that it serves by.
    taken: Arc<AtomicU64>,
    listeners: watch::Sender<Listening>,
}

/// A snapshot, and which one it is.
#[derive(Clone)]
struct Published {
    number: u64,
    snapshot: Arc<Snapshot>,
}

/// What a worker is to listen on: what is not listed any more is closed, and what is new is there to be taken.
#[derive(Default)]
struct Listening {
    keep: Vec<(SocketAddr, Scheme)>,
    new: Mutex<Vec<(TcpListener, Scheme)>>,
}

impl Server {
    /// Starts the workers on bound listeners.
    ///
    /// # Errors
    ///
    /// When there can be no more threads.
    pub fn start(bound: Bound, snapshot: Arc<Snapshot>, access: Option<(LogSink, AccessFormat)>) -> io::Result<Self> {
        // The entropy pool of AWS-LC takes its time at first use: better now than in a client's handshake.
        let _ = aws_lc_rs::rand::fill(&mut [0; 8]);
        let (snapshot, snapshots) = watch::channel(Published { number: 1, snapshot });
        let news = Arc::<Notify>::default();
        let (draining, drains) = watch::channel(false);
        let (https_port, reports) = (Arc::<AtomicU16>::default(), Arc::<Reports>::default());
        let shared = worker::Shared {
            admission: Arc::default(),
            loop_guard: Arc::default(),
            access,
            snapshot: snapshots,
            news: news.clone(),
            draining: drains,
            https_port: https_port.clone(),
            reports: reports.clone(),
        };
        let mut server =
            Self { workers: Vec::new(), snapshot, news, draining, https_port, reports, listening: bound.addresses() };
        server.tell_port();
        let keep = server.listening.clone();
        for (number, listeners) in bound.into_workers().into_iter().enumerate() {
            let (shared, counters) = (shared.clone(), Arc::new(Counters::default()));
            let (sender, receiver) = watch::channel(Listening { keep: keep.clone(), new: Mutex::new(listeners) });
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            let (own, taken) = (counters.clone(), Arc::<AtomicU64>::default());
            let taking = taken.clone();
            let thread = thread.spawn(move || worker::run(shared, receiver, own, taking))?;
            server.workers.push(Worker { thread, counters, taken, listeners: sender });
        }
        Ok(server)
    }

    /// Puts another snapshot in place of the one in use; requests under way keep theirs.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.snapshot.send_modify(|published| {
            *published = Published { number: published.number + 1, snapshot };
        });
    }

    /// Waits until every worker serves by the newest snapshot, for a while at most: one that is busy comes to it a little
    /// later.
    pub async fn settled(&self) {
        let newest = self.snapshot.borrow().number;
        let has_it = |worker: &Worker| worker.taken.load(Ordering::Acquire) >= newest;
        let _ = tokio::time::timeout(SETTLE_MAX, async {
            while !self.workers.iter().all(has_it) {
                self.news.notified().await;
            }
        })
        .await;
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Where it listens, with the ports that the kernel chose.
    #[must_use]
    pub fn listening(&self) -> &[(SocketAddr, Scheme)] {
        &self.listening
    }

    /// Listens on these and no others; those that are new are bound already. Connections that there are go on.
    pub fn listen(&mut self, all: Vec<(SocketAddr, Scheme)>, bound: Bound) {
        self.listening = all;
        self.tell_port();
        for (worker, new) in self.workers.iter().zip(bound.into_workers()) {
            worker.listeners.send_modify(|listening| {
                listening.keep.clone_from(&self.listening);
                // What came with a change that the worker has not seen yet is still to be taken.
                listening.new.get_mut().unwrap_or_else(PoisonError::into_inner).extend(new);
            });
        }
    }

    fn tell_port(&self) {
        let tls = self.listening.iter().find(|(_, scheme)| *scheme == Scheme::Https);
        self.https_port.store(tls.map_or(0, |(address, _)| address.port()), Ordering::Relaxed);
    }

    /// What clients have reported.
    #[must_use]
    pub fn reports(&self) -> &Arc<Reports> {
        &self.reports
    }

    /// Stops accepting, lets requests under way finish, and waits for the workers to end.
    ///
    /// # Errors
    ///
    /// When a worker ended by a bug.
    pub fn drain(self) -> io::Result<()> {
        self.draining.send_replace(true);
        for worker in self.workers {
            worker.thread.join().map_err(|_| io::Error::other("a worker has panicked"))??;
        }
        Ok(())
    }

    /// Whether a worker has ended, which none should before the drain.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.workers.iter().any(|worker| worker.thread.is_finished())
    }

    /// The counters of all workers, added up.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let sum = Counters::default();
        for worker in &self.workers {
            sum.add(&worker.counters);
        }
        sum
    }
}
