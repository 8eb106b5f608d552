//! Upgrades: their launcher, and the one under way.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::control::admin::UpgradeOutcome;
use crate::handover::{ChangedPages, Channel, Launcher};
use crate::os::supervisor::Tie;
use crate::policy::Scheme;
use crate::reason::Problem;

/// A new process that is being started, and its outcome.
pub(in crate::control) type StandingBy = JoinHandle<Result<Standby, Vec<Problem>>>;

/// Upgrades: how one is asked for, what starts the new process, and the one under way.
pub(in crate::control) struct Upgrades {
    /// SIGUSR2.
    pub(in crate::control) asked: Signal,
    pub(in crate::control) launcher: Option<Arc<Mutex<Launcher>>>,
    /// `true` for a demo, which has no launcher by design.
    pub(in crate::control) is_demo: bool,
    /// The container or service that ends with this process, so that another one cannot take over.
    pub(in crate::control) tie: Option<Tie>,
    /// The reason why no upgrade is possible; `None` while there is a launcher.
    pub(in crate::control) no_launcher: Option<String>,
    pub(in crate::control) under_way: Option<Upgrade>,
    /// After an upgrade: ends when the previous process has given up its name.
    pub(in crate::control) released: Option<JoinHandle<()>>,
    /// Stored pages that the previous process changes until it ends.
    pub(in crate::control) heard: Option<mpsc::Receiver<ChangedPages>>,
}

impl Upgrades {
    pub(in crate::control) fn new(asked: Signal, launcher: Option<Launcher>, is_demo: bool, tie: Option<Tie>) -> Self {
        let why = if is_demo {
            "a demo has none: stop it with Ctrl-C, and start it again"
        } else {
            "there has been none since the start"
        };
        Self {
            asked,
            is_demo,
            tie,
            no_launcher: launcher.is_none().then(|| tie.map_or_else(|| why.to_owned(), |tie| tie.to_string())),
            launcher: launcher.map(|launcher| Arc::new(Mutex::new(launcher))),
            under_way: None,
            released: None,
            heard: None,
        }
    }
}

/// An upgrade that is under way.
pub(in crate::control) struct Upgrade {
    pub(in crate::control) standing_by: StandingBy,
    pub(in crate::control) called_off: Arc<AtomicBool>,
    pub(in crate::control) reply: Option<oneshot::Sender<UpgradeOutcome>>,
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        self.called_off.store(true, Ordering::Relaxed);
    }
}

/// A new process that has checked everything, and waits.
pub(in crate::control) struct Standby {
    pub(in crate::control) channel: Channel,
    pub(in crate::control) pid: u32,
    pub(in crate::control) version: String,
    pub(in crate::control) kept: Vec<(SocketAddr, bool)>,
    pub(in crate::control) notes: Vec<String>,
    /// Its `state.directory`, in the form of `HandoverAnswer::Ready`.
    pub(in crate::control) state: Option<Vec<PathBuf>>,
}

/// The process that serves now.
pub(in crate::control) struct Successor {
    pub(in crate::control) channel: Channel,
    pub(in crate::control) pid: u32,
    /// The listeners that it has taken over.
    pub(in crate::control) kept: Vec<(SocketAddr, Scheme)>,
    /// It sends pins that chains of this process break.
    pub(in crate::control) rotates: bool,
}
