//! How an upstream does, as far as requests and checks have shown: shared by all workers and the control thread, made
//! of atomics. While all is well, a request costs a few loads.

mod breaker;
mod ejection;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::dns::Addresses;
use super::error::{Sign, UpstreamError};
use crate::clock::uptime;
use breaker::{Breaker, Change, Probe};
use ejection::Table;

pub use breaker::{BreakerRule, Circuit};

/// What is asked, and which answers are good ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The path, with its query.
    pub path: Box<str>,
    /// The Host field.
    pub host: Box<str>,
    /// From the end of one check to the next.
    pub interval: Duration,
    /// From the connection to the answer's head.
    pub timeout: Duration,
    /// Good answers in a row before an address is used again.
    pub healthy: u32,
    /// Bad ones in a row before it is left out.
    pub unhealthy: u32,
    /// Status codes of good answers.
    pub status: RangeInclusive<u16>,
}

/// An upstream's health.
#[derive(Debug, Default)]
pub struct Health {
    label: Box<str>,
    breaker: Breaker,
    addresses: OnceLock<Box<Table>>,
    /// How it is looked after, if it is.
    pub check: Option<Check>,
    is_checked: AtomicBool,
}

/// Leave to send a request, and to tell how it ended.
#[derive(Debug)]
pub(super) struct Pass<'h> {
    health: &'h Health,
    probe: Option<Probe<'h>>,
}

impl Health {
    /// The health of an upstream of which nothing is known yet. `label` is how log lines call it.
    #[must_use]
    pub fn new(label: &str, rule: BreakerRule, check: Option<Check>) -> Self {
        Self { label: label.into(), breaker: Breaker::new(rule), check, ..Self::default() }
    }

    /// Leave to send a request.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::CircuitOpen`], while the upstream is left alone.
    pub(super) fn admit(&self, now: u64) -> Result<Pass<'_>, UpstreamError> {
        let probe = self.breaker.admit(now).map_err(UpstreamError::CircuitOpen)?;
        Ok(Pass { health: self, probe })
    }

    /// Whether requests pass without further ado: nothing is being tried out, nothing is refused.
    pub(super) fn is_open_to_all(&self) -> bool {
        self.breaker.is_closed()
    }

    /// Tells how a request ended that passed so.
    pub(super) fn note(&self, error: Option<&UpstreamError>, now: u64) {
        let change = self.breaker.note(error.map_or(Sign::Alive, UpstreamError::sign), now);
        if change.is_some() {
            self.tell(change, error);
        }
    }

    /// A new connection to this address failed, or nothing came by it; of several, it may be left out for a while.
    pub(super) fn address_failed(&self, address: SocketAddr) {
        if let Some(out) = self.addresses.get_or_init(Box::default).failed(address, uptime()) {
            tracing::warn!(upstream = %self.label, %address, seconds = out.as_secs(), "address left out: it keeps failing");
        }
    }

    /// An answer came from this address.
    pub(super) fn address_answered(&self, address: SocketAddr) {
        if let Some(table) = self.addresses.get()
            && table.answered(address, uptime())
        {
            tracing::info!(upstream = %self.label, %address, "address answers again");
        }
    }

    /// What the health check of an address has come to. An upstream that answers is not left alone any longer.
    pub(super) fn address_checked(&self, address: SocketAddr, fit: bool, why: &dyn std::fmt::Display) {
        if self.addresses.get_or_init(Box::default).checked(address, fit) {
            if fit {
                tracing::info!(upstream = %self.label, %address, "health check succeeds again");
            } else {
                tracing::warn!(upstream = %self.label, %address, error = %why, "health check fails");
            }
        }
        if fit {
            self.tell(self.breaker.close(), None);
        }
    }

    /// Puts the addresses that are to be tried in their order, without those that are left out.
    pub(super) fn sort(&self, addresses: &mut Vec<SocketAddr>) {
        if let (Some(table), true) = (self.addresses.get(), addresses.len() > 1) {
            table.sort(addresses, uptime());
        }
    }

    /// Whether an address is left out for now: it fails, or its health check does, and of the others one does not. Where
    /// all fail, none is left out.
    pub(super) fn leaves_out(&self, address: SocketAddr, all: &Addresses) -> bool {
        let Some(table) = self.addresses.get() else { return false };
        let now = uptime();
        let is_in = |address: SocketAddr| table.badness(address, now) == (false, Duration::ZERO);
        !is_in(address) && all.known().iter().any(|other| is_in(*other))
    }

    /// Where the circuit breaker stands.
    #[must_use]
    pub fn circuit(&self, now: u64) -> Circuit {
        self.breaker.circuit(now)
    }

    /// Requests that failed in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.breaker.failures()
    }

    /// Whether an address fails its health check, and how long it is left out for its failures.
    #[must_use]
    pub fn address(&self, address: SocketAddr, now: u64) -> (bool, Duration) {
        self.addresses.get().map_or((false, Duration::ZERO), |table| table.badness(address, now))
    }

    /// Whether nobody has begun to look after it yet; now somebody has.
    pub(super) fn begin_checks(&self) -> bool {
        !self.is_checked.swap(true, Ordering::Relaxed)
    }

    fn tell(&self, change: Option<Change>, error: Option<&UpstreamError>) {
        match (change, error) {
            (Some(Change::Opened), Some(error)) => tracing::warn!(
                upstream = %self.label,
                failures = self.failures(),
                %error,
                "circuit open: the upstream does not answer, and is left alone for a while"
            ),
            (Some(Change::Closed), _) => {
                tracing::info!(upstream = %self.label, "circuit closed: the upstream answers again")
            }
            _ => {}
        }
    }
}

impl Pass<'_> {
    /// Tells how the request ended.
    pub(super) fn end(self, error: Option<&UpstreamError>, now: u64) {
        let Some(probe) = self.probe else { return self.health.note(error, now) };
        let change = probe.note(error.map_or(Sign::Alive, UpstreamError::sign), now);
        if change.is_some() {
            self.health.tell(change, error);
        }
    }
}
