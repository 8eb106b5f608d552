//! The state of the control thread: [`Control`], with a file for each group of its fields. The files above add what it does.

mod acme;
mod events;
mod files;
mod fixed;
mod history;
mod listener;
mod load_history;
mod observed;
mod operator;
mod promises;
mod rates;
mod spans;
mod upgrade;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::config::{Config, Draft, KnownText};
use crate::policy::Scheme;
use crate::server::Server;
use crate::upstream::dns::Resolver;

pub(super) use acme::{Desk, RunningDriver};
pub(super) use events::{Condition, Expiry, HEADER, Reporter, with_host};
pub use files::Refused;
pub(super) use files::{ChangedFiles, LOOK_AGAIN, SiteFiles, candidate, is_burnt, remember};
pub(super) use fixed::Fixed;
pub(super) use history::Recorder;
pub use listener::PageSocket;
pub(super) use listener::{
    AcceptedConnection, AdminStream, AdminTask, CONNECTIONS_MAX, Caller, LOOK_EVERY, OpenPageListener, OpenSocket,
    Thread, VisitorListener,
};
pub(super) use load_history::LoadHistory;
pub(super) use observed::{KnownOutline, LabelsInUse, Observations};
pub(super) use operator::{Operator, Push};
pub(super) use promises::LedgerState;
pub(super) use spans::Spans;
pub(super) use upgrade::{Standby, StandingBy, Successor, Upgrade, Upgrades};

/// The running process: its configuration, its workers and everything around them.
pub struct Control {
    /// Jobs beside this thread may hold it and the configuration in use.
    pub(super) draft: Arc<Draft>,
    pub(super) config: Arc<Config>,
    pub(super) fixed: Fixed,
    pub(super) server: Server,
    pub(super) resolver: Rc<Resolver>,
    pub(super) promises: LedgerState,
    pub(super) files: SiteFiles,
    pub(super) operator: Operator,
    pub(super) upgrades: Upgrades,
    pub(super) counts: ProcessCounts,
    pub(super) acme: Desk,
    pub(super) reporter: Reporter,
    pub(super) recorder: Recorder,
    pub(super) loads: LoadHistory,
    pub(super) observed: Observations,
    pub(super) draining: bool,
    /// No site may be without a certificate.
    pub(super) strict: bool,
    /// The text in use, or a former one.
    pub(super) known_text: RefCell<Option<Arc<KnownText>>>,
}

/// Counters since the start.
#[derive(Debug, Default, Clone, Copy)]
pub struct ProcessCounts {
    /// Certificates that came into use after the start.
    pub rotations: u64,
    /// Refused certificates.
    pub rotations_refused: u64,
    /// Lockouts that the operator has accepted.
    pub lockouts_accepted: u64,
    /// Successful reloads.
    pub reloads: u64,
    /// Refused reloads.
    pub reloads_refused: u64,
}

impl Control {
    /// The listeners' addresses, with the ports that the kernel chose.
    #[must_use]
    pub fn listening(&self) -> &[(SocketAddr, Scheme)] {
        self.server.listening()
    }
}
