//! The health of an upstream, from requests and health checks.
//!
//! All workers and the control thread share it. It consists of atomics: while all is well, a
//! request costs a few loads.

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
use breaker::{Breaker, BreakerProbe, CircuitChange};
use ejection::Table;

pub use breaker::{BreakerRule, Circuit};

/// A health check: the request, and the good answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The path and query.
    pub path: Box<str>,
    /// The value of the Host field.
    pub host: Box<str>,
    /// The time from the end of one check to the next.
    pub interval: Duration,
    /// The limit from the connection to the answer's head.
    pub timeout: Duration,
    /// The number of good answers in a row after which an address is used again.
    pub healthy: u32,
    /// The number of bad answers in a row after which an address is left out.
    pub unhealthy: u32,
    /// The status codes of good answers.
    pub status: RangeInclusive<u16>,
}

/// An upstream's health.
#[derive(Debug, Default)]
pub struct Health {
    label: Box<str>,
    breaker: Breaker,
    addresses: OnceLock<Box<Table>>,
    /// Its health check, if it has one.
    pub check: Option<HealthCheck>,
    is_checked: AtomicBool,
}

/// Permission to send a request, and the means to report its end.
#[derive(Debug)]
pub(super) struct BreakerPass<'h> {
    health: &'h Health,
    probe: Option<BreakerProbe<'h>>,
}

impl Health {
    /// Makes the health of an upstream before its first request. `label` names the upstream in log
    /// lines.
    #[must_use]
    pub fn new(label: &str, rule: BreakerRule, check: Option<HealthCheck>) -> Self {
        Self { label: label.into(), breaker: Breaker::new(rule), check, ..Self::default() }
    }

    /// Permits a request.
    ///
    /// # Errors
    ///
    /// Returns [`UpstreamError::CircuitOpen`] while the circuit breaker is open.
    pub(super) fn admit(&self, now: u64) -> Result<BreakerPass<'_>, UpstreamError> {
        let probe = self.breaker.admit(now).map_err(UpstreamError::CircuitOpen)?;
        Ok(BreakerPass { health: self, probe })
    }

    /// Returns `true` if all requests pass: the circuit breaker is closed.
    pub(super) fn is_open_to_all(&self) -> bool {
        self.breaker.is_closed()
    }

    /// Notes the end of a request that passed a closed breaker.
    pub(super) fn note(&self, error: Option<&UpstreamError>, now: u64) {
        let change = self.breaker.note(error.map_or(Sign::Alive, UpstreamError::sign), now);
        if change.is_some() {
            self.log(change, error);
        }
    }

    /// Counts a failed connection, or one without an answer. Leaves the address out after several.
    pub(super) fn address_failed(&self, address: SocketAddr) {
        if let Some(out) = self.addresses.get_or_init(Box::default).failed(address, uptime()) {
            tracing::warn!(upstream = %self.label, %address, seconds = out.as_secs(), "address left out");
        }
    }

    /// Notes an answer from an address.
    pub(super) fn address_answered(&self, address: SocketAddr) {
        if let Some(table) = self.addresses.get()
            && table.answered(address, uptime())
        {
            tracing::info!(upstream = %self.label, %address, "address answers again");
        }
    }

    /// Notes the verdict of a health check. A good answer closes the circuit breaker.
    pub(super) fn address_checked(&self, address: SocketAddr, fit: bool, why: &dyn std::fmt::Display) {
        if self.addresses.get_or_init(Box::default).checked(address, fit) {
            if fit {
                tracing::info!(upstream = %self.label, %address, "health check succeeds again");
            } else {
                tracing::warn!(upstream = %self.label, %address, error = %why, "health check fails");
            }
        }
        if fit {
            self.log(self.breaker.close(), None);
        }
    }

    /// Sorts the addresses to try, and removes those that are left out.
    pub(super) fn sort(&self, addresses: &mut Vec<SocketAddr>) {
        if let (Some(table), true) = (self.addresses.get(), addresses.len() > 1) {
            table.sort(addresses, uptime());
        }
    }

    /// Returns `true` if an address is left out at present: it or its health check fails, and
    /// another address is in order. If all fail, none is left out.
    pub(super) fn leaves_out(&self, address: SocketAddr, all: &Addresses) -> bool {
        let Some(table) = self.addresses.get() else { return false };
        let now = uptime();
        let is_in = |address: SocketAddr| table.badness(address, now) == (false, Duration::ZERO);
        !is_in(address) && all.known().iter().any(|other| is_in(*other))
    }

    /// Returns the state of the circuit breaker.
    #[must_use]
    pub fn circuit(&self, now: u64) -> Circuit {
        self.breaker.circuit(now)
    }

    /// Returns the number of requests that failed in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.breaker.failures()
    }

    /// Returns whether an address fails its health check, and how long it is left out for its
    /// failures.
    #[must_use]
    pub fn address(&self, address: SocketAddr, now: u64) -> (bool, Duration) {
        self.addresses.get().map_or((false, Duration::ZERO), |table| table.badness(address, now))
    }

    /// Returns `true` for the first caller, who then runs the checks.
    pub(super) fn begin_checks(&self) -> bool {
        !self.is_checked.swap(true, Ordering::Relaxed)
    }

    /// Logs a change of the circuit breaker.
    fn log(&self, change: Option<CircuitChange>, error: Option<&UpstreamError>) {
        match (change, error) {
            (Some(CircuitChange::Opened), Some(error)) => tracing::warn!(
                upstream = %self.label,
                failures = self.failures(),
                %error,
                "circuit open: upstream does not answer"
            ),
            (Some(CircuitChange::Closed), _) => {
                tracing::info!(upstream = %self.label, "circuit closed: upstream answers again")
            }
            _ => {}
        }
    }
}

impl BreakerPass<'_> {
    /// Notes the end of the request.
    pub(super) fn end(self, error: Option<&UpstreamError>, now: u64) {
        let Some(probe) = self.probe else { return self.health.note(error, now) };
        let change = probe.note(error.map_or(Sign::Alive, UpstreamError::sign), now);
        if change.is_some() {
            self.health.log(change, error);
        }
    }
}
