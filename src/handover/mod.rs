//! An upgrade between the process that serves and the one that is to take its place: what they say to each other, by
//! which channel, and who starts the new one.
//!
//! The old process says [`Hello`] and sends its sockets; the new one answers [`Answer::Ready`] once it has checked
//! everything; the old one lets go of the ledger and says [`Go`]; the new one takes over and says [`Answer::Serving`];
//! the old one stops accepting, and says [`Released`] when nothing is its any more. Until `Serving`, the old process
//! can go on as if nothing had happened. Who sees the other end the connection before that ends, or goes on alone.

pub mod channel;
pub mod launcher;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use channel::Channel;
pub use launcher::Launcher;

/// The version of what is said here. A process that speaks another is not taken over from.
pub const VERSION: u32 = 1;
/// The environment variable that tells a process that its standard input is the channel of an upgrade. Nothing is
/// believed of it but that: what is no socket, or says no [`Hello`], ends the process.
pub const VARIABLE: &str = "PINTLE_HANDOVER";

/// What the old process begins with; its sockets come with it, in this order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`]
    pub version: u32,
    /// What the sockets are.
    pub sockets: Vec<Sockets>,
    /// What the ledger says, line by line.
    pub ledger: Vec<String>,
    /// That is all of it, whether there is a file or not. Older versions told only what they had in memory alone.
    #[serde(default)]
    pub whole: bool,
}

/// Sockets that listen on one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sockets {
    /// The address in the configuration.
    pub asked: SocketAddr,
    /// The address in truth: where the configuration leaves the port open, the kernel chose one.
    pub address: SocketAddr,
    /// Whether connections begin with TLS.
    pub tls: bool,
    /// How many sockets.
    pub count: usize,
}

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Everything is checked; it waits for [`Go`].
    Ready {
        /// Its version.
        version: String,
        /// The addresses that it takes over, with TLS or without. All others are the old one's to close.
        kept: Vec<(SocketAddr, bool)>,
        /// What the operator may want to know.
        notes: Vec<String>,
    },
    /// It accepts connections.
    Serving,
    /// It cannot, and ends.
    Failed {
        /// Why, as it is shown to people.
        reasons: Vec<String>,
    },
}

/// Take over. The ledger is free now.
#[derive(Serialize, Deserialize)]
pub struct Go {
    /// The keys of session tickets, the newest first.
    pub tickets: Vec<TicketKey>,
    /// By site: the chains under which sessions have begun that may still be resumed.
    pub chains: Vec<SiteChains>,
    /// What the ledger says now.
    pub ledger: Vec<String>,
    /// That is all of it.
    #[serde(default)]
    pub whole: bool,
    /// Since when promises are dated by this machine's clock, in seconds since 1970.
    #[serde(default)]
    pub since: Option<i64>,
}

/// The chains of one site.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SiteChains {
    /// Its first name.
    pub site: String,
    /// All its names. (None, if it was handed over by a version that did not say.)
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The pins of each chain, and until when sessions that began with it may be resumed, in seconds since 1970.
    pub chains: Vec<(Vec<String>, i64)>,
}

/// A key of session tickets. Not part of any debug output.
#[derive(Clone, Serialize, Deserialize)]
pub struct TicketKey {
    /// Its name, as it stands in the tickets.
    pub name: [u8; 16],
    /// The key.
    pub secret: Zeroizing<[u8; 32]>,
    /// When it was made, in seconds since 1970.
    pub made: u64,
}

/// The old process has no listener and no name any more.
#[derive(Debug, Serialize, Deserialize)]
pub struct Released {}
