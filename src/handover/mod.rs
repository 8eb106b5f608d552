//! An upgrade, between the serving process and its successor: the messages, their channel, and the
//! launcher of the new process. The helper processes for the operator's programs use the same channel.
//!
//! The old process sends [`Hello`] and its sockets. The new one checks everything and answers
//! [`HandoverAnswer::Ready`]. The old one releases the ledger and sends [`Go`]. The new one takes over and
//! answers [`HandoverAnswer::Serving`]. The old one stops accepting, and sends [`Released`] once it has no
//! listener and no name any more. Until `Serving`, the old process can continue as if nothing had
//! happened. A process that sees the channel close before that ends, or continues alone. While its
//! last requests finish, the old process sends [`ChangedPages`]; the channel ends with it.

pub mod channel;
pub mod helper;
pub mod launcher;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::reason::Problem;

pub use channel::Channel;
pub use helper::Helper;
pub use launcher::Launcher;

/// The version of the messages. A process with another version cannot be taken over from.
pub const VERSION: u32 = 1;
/// The environment variable that makes standard input the channel of an upgrade. It is trusted for
/// nothing else: if standard input is not a socket, or no [`Hello`] arrives, the process ends.
pub const VARIABLE: &str = "PINTLE_HANDOVER";

/// The first message of the old process. The sockets follow it in this order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`]
    pub version: u32,
    /// The descriptions of the sockets.
    pub sockets: Vec<Sockets>,
    /// The ledger's records, one per line.
    pub ledger: Vec<String>,
    /// `true` if `ledger` is complete, with or without a file. Older versions sent only records
    /// that were not on disk.
    #[serde(default)]
    pub whole: bool,
    /// The sites with a certificate. `None` from a version that serves each pair that it has.
    #[serde(default)]
    pub served: Option<Vec<ServedSite>>,
    /// The configured addresses of the pages over TLS. Their sockets follow those of `sockets`, one each. Empty from a
    /// version without them.
    #[serde(default)]
    pub pages: Vec<SocketAddr>,
    /// The chains that the pages over TLS are served with, in PEM; none without such pages. `None` if they have no
    /// certificate, and from a version that does not say.
    #[serde(default)]
    pub pages_chains: Option<Vec<String>>,
    /// The keys that refusals have named: each with its site, as a pin. `None` from a version that does not say.
    #[serde(default)]
    pub named: Option<Vec<(String, String)>>,
    /// The pairs in use that neither their files nor a folder of copies has.
    #[serde(default)]
    pub copies: Vec<HandedCopy>,
    /// Its `state.directory`: no element if it has none. `None` from a version that does not say.
    #[serde(default)]
    pub state: Option<Vec<PathBuf>>,
}

/// The copy of a pair in use, with its key. No debug output contains it.
#[derive(Clone, Serialize, Deserialize)]
pub struct HandedCopy {
    /// The name of its file, if it were in the folder of copies.
    pub name: String,
    /// Its contents: chain and key in PEM.
    pub contents: Zeroizing<String>,
}

impl fmt::Debug for HandedCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandedCopy").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A site that clients reach over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedSite {
    /// Its hosts.
    pub hosts: Vec<String>,
    /// The chains that it should have and has not.
    pub missing: Vec<PathBuf>,
    /// The hosts that it refuses: its own certificates would lock readers out there.
    #[serde(default)]
    pub apart: Vec<String>,
    /// The hosts that another pair than its own serves, as its own would lock readers out there.
    #[serde(default)]
    pub replaced: Vec<String>,
    /// The names below its wildcards for which TLS is refused; `None` if the process does not say.
    #[serde(default)]
    pub unserved_below: Option<Vec<String>>,
    /// Its `accept_lockout_until`.
    #[serde(default)]
    pub accept_lockout_until: Option<String>,
}

/// Sockets that listen on one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sockets {
    /// The configured address.
    pub asked: SocketAddr,
    /// The bound address: if the configured port is 0, the kernel has chosen one.
    pub address: SocketAddr,
    /// `true` if connections begin with TLS.
    pub tls: bool,
    /// The number of sockets.
    pub count: usize,
}

/// An answer of the new process.
#[derive(Debug, Serialize, Deserialize)]
pub enum HandoverAnswer {
    /// Everything is checked; the process waits for [`Go`].
    Ready {
        /// Its version.
        version: String,
        /// The addresses that it takes over, each with `true` for TLS. The old process closes the
        /// others.
        kept: Vec<(SocketAddr, bool)>,
        /// Notes for the operator.
        notes: Vec<String>,
        /// Its `state.directory`: no element if it has none. `None` from a version that does not say.
        #[serde(default)]
        state: Option<Vec<PathBuf>>,
    },
    /// It accepts connections.
    Serving,
    /// It cannot take over, and ends.
    Failed {
        /// The reasons as texts: versions up to 0.2 read nothing else.
        reasons: Vec<String>,
        /// The reasons.
        #[serde(default)]
        problems: Vec<Problem>,
        /// The keys that they refuse, by the sites' first names.
        #[serde(default)]
        named: Vec<(String, String)>,
    },
}

/// Tells the new process to take over. The ledger is free now.
#[derive(Serialize, Deserialize)]
pub struct Go {
    /// The keys of session tickets, the newest first.
    pub tickets: Vec<TicketKey>,
    /// Empty. Versions whose tickets do not say under which chain a session began expect the chains
    /// of each site here.
    #[serde(default)]
    pub chains: Vec<serde_json::Value>,
    /// The ledger's records now, one per line.
    pub ledger: Vec<String>,
    /// `true` if `ledger` is complete.
    #[serde(default)]
    pub whole: bool,
    /// The time at which this machine's clock began to date promises, in seconds since 1970.
    #[serde(default)]
    pub since: Option<i64>,
    /// The counts of clients behind limits of requests. `None` without such limits, and from a version that keeps them.
    #[serde(default)]
    pub rates: Option<HandedCounts>,
}

/// The counts of clients behind limits of requests.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct HandedCounts {
    /// The secret that clients are hashed with.
    pub secret: [u64; 2],
    /// The clients that have spent the largest part of their bursts.
    pub clients: Vec<HandedCount>,
}

/// The count of one client under one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedCount {
    /// The hash of the client and the rule.
    pub key: u64,
    /// Nanoseconds until its burst is whole again.
    pub left: u64,
    /// The same of a client that has spent its burst.
    pub tolerance: u64,
    /// A request of it was refused since its burst was whole.
    pub refused: bool,
}

/// A session ticket key. No debug output contains it.
#[derive(Clone, Serialize, Deserialize)]
pub struct TicketKey {
    /// Its name, as the tickets carry it.
    pub name: [u8; 16],
    /// The key.
    pub secret: Zeroizing<[u8; 32]>,
    /// Its creation time, in seconds since 1970.
    pub made: u64,
}

/// Sent when the old process has neither a listener nor a name any more.
#[derive(Debug, Serialize, Deserialize)]
pub struct Released {}

/// Stored pages that requests to the old process have changed: the new one has stored them, too.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ChangedPages {
    /// The site's name.
    #[serde(default)]
    pub site: String,
    /// The changes, in their order.
    #[serde(default)]
    pub changes: Vec<HandedChange>,
}

/// A change of stored pages: each is validated before its next use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandedChange {
    /// The page of a key, under all names of its site.
    Page(Vec<u8>),
    /// The pages of an origin in a group.
    Group(Vec<u8>, Vec<u8>),
    /// All pages of the site.
    All,
}

impl HandedChange {
    /// The bytes of its names.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Page(key) => key.len(),
            Self::Group(origin, group) => origin.len() + group.len(),
            Self::All => 0,
        }
    }
}
