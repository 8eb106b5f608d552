//! The listeners of a process that takes over: passed by the old process, or new.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use super::reload::cannot_listen;
use super::sandbox_rules;
use super::state::PageSocket;
use crate::config::Config;
use crate::policy::Scheme;
use crate::reason::Problem;
use crate::server::{Bound, Lent, bind};

/// The listeners: passed ones and new ones.
pub struct Listeners {
    pub(super) bound: Bound,
    /// The listener on loopback for this process's own proof.
    pub(super) probed: Bound,
    pub(super) kept: Vec<(SocketAddr, bool)>,
    pub(super) notes: Vec<String>,
    /// The sockets of the pages over TLS.
    pub(super) pages: Vec<PageSocket>,
}

impl Listeners {
    /// The ports of this process to which it connects itself: for its proof, and for a verification that a page asks for.
    #[must_use]
    pub fn own_ports(&self, config: &Config) -> BTreeSet<u16> {
        let mut own = sandbox_rules::own_ports(config, &self.bound.addresses());
        own.extend(self.probed.addresses().iter().map(|(address, _)| address.port()));
        own
    }

    /// Takes over the passed sockets, and binds new addresses, without those of the pages.
    pub(super) fn bind(config: &Config, mut lent: Vec<Lent>) -> Result<Self, Vec<Problem>> {
        let all: Vec<(SocketAddr, Scheme)> =
            lent.iter().map(|l| (l.address, l.scheme.unwrap_or(Scheme::Https))).collect();
        let bound = bind(&config.https, &config.http, config.workers, &mut lent)
            .map_err(|errors| cannot_listen(&errors, &all))?;
        let left: Vec<SocketAddr> = lent.iter().map(|l| l.address).collect();
        let taken = |address: &SocketAddr| all.iter().any(|(a, _)| a == address) && !left.contains(address);
        let mut notes: Vec<String> =
            left.iter().map(|address| format!("not listening on {address} any more")).collect();
        for (address, scheme) in bound.addresses().iter().filter(|(address, _)| !taken(address)) {
            notes.push(format!("listening on {address} ({})", scheme.as_str()));
        }
        // By their scheme in the old process, which must not close them.
        let kept = all.iter().filter(|(address, _)| taken(address));
        let kept = kept.map(|(address, scheme)| (*address, *scheme == Scheme::Https)).collect();
        let probed = bind(&[(Ipv4Addr::LOCALHOST, 0).into()], &[], config.workers, &mut Vec::new());
        let probed =
            probed.map_err(|errors| errors.iter().map(|error| error.to_string().into()).collect::<Vec<Problem>>())?;
        Ok(Self { bound, probed, kept, notes, pages: Vec::new() })
    }
}
