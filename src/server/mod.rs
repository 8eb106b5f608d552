//! The server: listeners, workers, and the way from a connection to an answer.

mod admission;
mod connection;
mod http1;
mod http2;
mod listener;
mod loop_guard;
mod page;
mod proxy_header;
mod record;
mod rejection;
mod reply;
mod service;
mod snapshot;
mod tunnel;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;

use crate::policy::Scheme;
use crate::telemetry::{AccessFormat, Counters, LogSink};

pub use listener::{BindError, Bound, bind};
pub use snapshot::{Snapshot, View};

/// For the fuzzers.
#[doc(hidden)]
pub mod fuzzing {
    pub use super::proxy_header::{NoProxyHeader, ProxyHeader, parse as parse_proxy_header};
}

/// A running server: N workers, each a thread with everything of its own.
pub struct Server {
    workers: Vec<(JoinHandle<io::Result<()>>, Arc<Counters>)>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    draining: watch::Sender<bool>,
    https_port: Option<u16>,
}

impl Server {
    /// Starts the workers on bound listeners.
    ///
    /// # Errors
    ///
    /// When there can be no more threads.
    pub fn start(bound: Bound, mut snapshot: Snapshot, access: Option<(LogSink, AccessFormat)>) -> io::Result<Self> {
        // The kernel may have chosen it.
        let tls = |(address, scheme): &(SocketAddr, Scheme)| (*scheme == Scheme::Https).then(|| address.port());
        let https_port = bound.addresses().iter().find_map(tls);
        snapshot.https_port.listener = https_port;
        // The entropy pool of AWS-LC takes its time at first use: better now than in a client's handshake.
        let _ = aws_lc_rs::rand::fill(&mut [0; 8]);
        let (snapshot, snapshots) = watch::channel(Arc::new(snapshot));
        let (draining, drains) = watch::channel(false);
        let shared = worker::Shared {
            admission: Arc::default(),
            loop_guard: Arc::default(),
            access,
            snapshot: snapshots,
            draining: drains,
        };
        let mut workers = Vec::new();
        for (number, listeners) in bound.into_workers().into_iter().enumerate() {
            let (shared, counters) = (shared.clone(), Arc::new(Counters::default()));
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            let own = counters.clone();
            workers.push((thread.spawn(move || worker::run(shared, listeners, own))?, counters));
        }
        Ok(Self { workers, snapshot, draining, https_port })
    }

    /// Puts another snapshot in place of the one in use; requests under way keep theirs.
    pub fn publish(&self, mut snapshot: Snapshot) {
        snapshot.https_port.listener = self.https_port;
        self.snapshot.send_replace(Arc::new(snapshot));
    }

    /// Stops accepting, lets requests under way finish, and waits for the workers to end.
    ///
    /// # Errors
    ///
    /// When a worker ended by a bug.
    pub fn drain(self) -> io::Result<()> {
        self.draining.send_replace(true);
        for (thread, _) in self.workers {
            thread.join().map_err(|_| io::Error::other("a worker has panicked"))??;
        }
        Ok(())
    }

    /// Whether a worker has ended, which none should before the drain.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.workers.iter().any(|(thread, _)| thread.is_finished())
    }

    /// The counters of all workers, added up.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let sum = Counters::default();
        for (_, counters) in &self.workers {
            sum.add(counters);
        }
        sum
    }
}
