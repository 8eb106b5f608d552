//! The server: listeners, workers, and everything from a connection to an answer.

mod accept;
mod admission;
mod admit;
mod answered;
mod answers;
mod asked;
mod cache_note;
mod cache_request;
mod cached;
mod challenge;
mod channels;
mod compression_note;
mod compressors;
mod connection;
mod connections;
mod context;
mod crowd;
mod decide;
pub mod explain;
mod failed_handshakes;
mod filters;
mod handshake_record;
mod handshakes;
mod health;
mod held_rates;
mod http1;
mod http2;
mod interim;
mod listener;
mod local_reply;
mod loop_guard;
mod mixed;
mod mixed_reports;
mod page;
mod proxy_header;
mod rate_counts;
mod rates;
mod record;
mod rejection;
mod relief;
mod reply;
mod report_intake;
mod reports;
mod retired;
mod rewritten;
mod service;
mod snapshot;
mod states;
mod thread;
mod trace;
mod traffic;
mod trailers;
mod tunnel;
mod untrusted;
mod upload_budget;
mod uploads;
mod why;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::policy::Scheme;
use crate::telemetry::{AccessFormat, Counters, LogSink, Meters, SiteTraffic, SpanSink};

pub use answers::{Answers, ChallengeAnswer};
pub use channels::Drain;
pub use listener::{BindError, Bound, Lent, SharedSockets, bind};
pub use mixed_reports::{FoundReference, MixedReports};
pub use rate_counts::RateCounts;
pub use rates::RequestLimits;
pub use reports::{NO_SITE, Reports, ViolationReport};
pub use snapshot::{Snapshot, View};

use channels::{Assignment, PublishedSnapshot, SharedState, Vitals, WorkerListeners, peers};
use retired::Retired;

/// For the fuzzers.
#[doc(hidden)]
pub mod fuzzing {
    pub use super::http2::head::read as read_http2_head;
    pub use super::proxy_header::{NoProxyHeader, ProxyHeader, parse as parse_proxy_header};
}

/// The longest wait until all workers have taken a snapshot. Handshakes with earlier chains end in less
/// ([`handshakes::FAIR_SHARE`]).
const SETTLE_MAX: Duration = Duration::from_secs(3);

/// A running server: N workers, each a thread with its own state.
pub struct Server {
    workers: Vec<WorkerHandle>,
    snapshot: watch::Sender<PublishedSnapshot>,
    traffic: traffic::Traffic,
    retired: Retired,
    /// Notified when a worker has taken a snapshot.
    news: Arc<Notify>,
    draining: watch::Sender<Drain>,
    admission: Arc<admission::Admission>,
    /// The listening sockets, for a process that takes over.
    shared: Vec<SharedSockets>,
    reports: Arc<Reports>,
    listening: Vec<(SocketAddr, Scheme)>,
}

/// A worker, as seen from outside.
struct WorkerHandle {
    thread: JoinHandle<io::Result<()>>,
    vitals: Vitals,
    listeners: watch::Sender<WorkerListeners>,
}

impl Server {
    /// Starts the workers on bound listeners.
    ///
    /// # Errors
    ///
    /// If a thread cannot be started, or a socket not duplicated.
    pub fn start(
        bound: Bound,
        snapshot: Arc<Snapshot>,
        access: Option<(LogSink, AccessFormat)>,
        spans: SpanSink,
    ) -> io::Result<Self> {
        // The entropy pool of AWS-LC is slow at first use: better now than in a client's handshake.
        let _ = aws_lc_rs::rand::fill(&mut [0; 8]);
        let traffic = traffic::Traffic::new(bound.workers(), &snapshot);
        let published = PublishedSnapshot { number: 1, snapshot, rotates: false, traffic: traffic.current() };
        let (snapshot, snapshots) = watch::channel(published);
        let news = Arc::<Notify>::default();
        let (draining, drains) = watch::channel(Drain::No);
        let admission = Arc::<admission::Admission>::default();
        let reports = Arc::<Reports>::default();
        let (peers, requests) = peers(bound.workers());
        let shared = SharedState {
            admission: admission.clone(),
            loop_guard: Arc::default(),
            untrusted: Arc::default(),
            uploads: Arc::default(),
            access,
            spans,
            snapshot: snapshots,
            news: news.clone(),
            draining: drains,
            reports: reports.clone(),
            peers,
        };
        let mut server = Self {
            workers: Vec::new(),
            snapshot,
            traffic,
            retired: Retired::default(),
            news,
            draining,
            admission,
            shared: bound.shared()?,
            reports,
            listening: bound.addresses(),
        };
        let keep = server.listening.clone();
        for (number, (listeners, requests)) in bound.into_workers().into_iter().zip(requests).enumerate() {
            let (shared, vitals) = (shared.clone(), Vitals::default());
            let (sender, receiver) = watch::channel(WorkerListeners { keep: keep.clone(), new: Mutex::new(listeners) });
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            vitals.pulse.store(crate::clock::uptime(), Ordering::Relaxed);
            let own = Assignment { number, listeners: receiver, requests, vitals: vitals.clone() };
            let thread = thread.spawn(move || thread::run(shared, own))?;
            server.workers.push(WorkerHandle { thread, vitals, listeners: sender });
        }
        Ok(server)
    }

    /// Replaces the snapshot. Requests under way keep theirs. `rotates` if it sends pins that earlier chains break: handshakes
    /// with those are over when the server has settled.
    pub fn publish(&mut self, snapshot: Arc<Snapshot>, rotates: bool) {
        let (number, rotates) = {
            let before = self.snapshot.borrow();
            // A worker may not have taken the previous one yet.
            (before.number + 1, rotates || before.rotates && !self.has_taken(before.number))
        };
        self.traffic.follow(&self.snapshot.borrow().snapshot, &snapshot);
        let traffic = self.traffic.current();
        let before = self.snapshot.send_replace(PublishedSnapshot { number, snapshot, rotates, traffic });
        self.retired.take(before.snapshot);
    }

    /// Drops replaced snapshots that are no longer in use. Call it regularly.
    pub fn tidy(&mut self) {
        self.retired.tidy();
    }

    /// Waits until every worker uses the newest snapshot, but not long: a busy worker takes it a little later.
    pub async fn settled(&self) {
        let newest = self.snapshot.borrow().number;
        self.wait_for_all(|worker| worker.vitals.taken.load(Ordering::Acquire) >= newest).await;
    }

    fn has_taken(&self, number: u64) -> bool {
        self.workers.iter().all(|worker| worker.vitals.taken.load(Ordering::Acquire) >= number)
    }

    /// Waits until no worker accepts, after [`Self::drain`], but not long.
    pub async fn accepts_no_more(&self) {
        self.wait_for_all(|worker| worker.vitals.drains.load(Ordering::Acquire) || worker.thread.is_finished()).await;
    }

    async fn wait_for_all(&self, is_there: impl Fn(&WorkerHandle) -> bool) {
        let _ = tokio::time::timeout(SETTLE_MAX, async {
            while !self.workers.iter().all(&is_there) {
                self.news.notified().await;
            }
        })
        .await;
    }

    /// Returns the number of workers.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Returns the listening addresses, with the ports that the kernel chose.
    #[must_use]
    pub fn listening(&self) -> &[(SocketAddr, Scheme)] {
        &self.listening
    }

    /// Listens on `all` and no other addresses; `bound` has the new ones. Existing connections are unaffected.
    pub fn listen(&mut self, all: Vec<(SocketAddr, Scheme)>, bound: Bound) {
        self.listening = all;
        self.shared.retain(|shared| self.listening.contains(&(shared.address, shared.scheme)));
        match bound.shared() {
            Ok(shared) => self.shared.extend(shared),
            Err(error) => {
                tracing::error!(%error, "cannot duplicate new listeners, the next upgrade will not hand them over")
            }
        }
        for (worker, new) in self.workers.iter().zip(bound.into_workers()) {
            worker.listeners.send_modify(|listening| {
                listening.keep.clone_from(&self.listening);
                // Keeps listeners of an earlier change that the worker has not taken yet.
                listening.new.get_mut().unwrap_or_else(PoisonError::into_inner).extend(new);
            });
        }
    }

    /// Returns the reports of clients.
    #[must_use]
    pub fn reports(&self) -> &Arc<Reports> {
        &self.reports
    }

    /// Returns the sockets for a process that takes over.
    #[must_use]
    pub fn shared(&self) -> &[SharedSockets] {
        &self.shared
    }

    /// Stops accepting. Requests under way finish.
    pub fn drain(&mut self, how: Drain) {
        self.shared.clear();
        self.draining.send_replace(how);
    }

    /// Returns `true` if every worker has ended.
    #[must_use]
    pub fn has_drained(&self) -> bool {
        self.workers.iter().all(|worker| worker.thread.is_finished())
    }

    /// Returns the number of clients' connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.admission.total()
    }

    /// Returns `true` if every worker has shown a sign of life within this time, or has ended in a drain.
    #[must_use]
    pub fn is_alive(&self, within: Duration) -> bool {
        let oldest = crate::clock::uptime().saturating_sub(u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
        let drains = *self.draining.borrow() != Drain::No;
        self.workers.iter().all(|worker| match worker.thread.is_finished() {
            true => drains,
            false => worker.vitals.pulse.load(Ordering::Relaxed) >= oldest,
        })
    }

    /// Waits for the workers, after [`Self::drain`].
    ///
    /// # Errors
    ///
    /// If a worker failed or panicked.
    pub fn finish(self) -> io::Result<()> {
        for worker in self.workers {
            worker.thread.join().map_err(|_| io::Error::other("a worker has panicked"))??;
        }
        Ok(())
    }

    /// Returns `true` if a worker has ended. None should before a drain.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.workers.iter().any(|worker| worker.thread.is_finished())
    }

    /// Returns the traffic of each site, in their order, and of requests for no site.
    #[must_use]
    pub fn traffic(&self) -> Arc<[Arc<SiteTraffic>]> {
        self.traffic.current()
    }

    /// Returns the figures of each worker.
    pub fn meters(&self) -> impl Iterator<Item = &Meters> {
        self.workers.iter().map(|worker| &*worker.vitals.meters)
    }

    /// Returns the sum of all workers' counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let sum = Counters::default();
        for worker in &self.workers {
            sum.add(&worker.vitals.counters);
        }
        sum
    }
}
