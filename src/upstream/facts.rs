//! The facts of a request to an upstream, for its record in the access log.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

/// The facts of one request. It keeps them while it is on its way, so that they survive a client that leaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct UpstreamFacts {
    /// `true` once the upstream was chosen.
    pub asked: bool,
    /// The address that was asked last.
    pub address: Option<SocketAddr>,
    /// `true` if the connection had been used before, or was made for another request.
    pub reused: bool,
    /// Retries, on other connections or addresses.
    pub retries: u32,
    /// The time in the queue for a connection, or for one in the making.
    pub wait: Option<Duration>,
    /// DNS and TCP of a new connection.
    pub connect: Option<Duration>,
    /// TLS of a new connection.
    pub tls: Option<Duration>,
}

impl UpstreamFacts {
    /// Changes the facts in their cell.
    pub fn note(cell: &Cell<Self>, change: impl FnOnce(&mut Self)) {
        let mut facts = cell.get();
        change(&mut facts);
        cell.set(facts);
    }
}
