//! The preflight's questions, and its findings.

use serde::{Deserialize, Serialize};

use super::probe::{Ports, Probe};
use crate::config::acme::Method;
use crate::keys::pin::Pin;
use crate::policy::promise::Seconds;
use crate::reason::{Reason, Severity};

/// A CA, as CAA records see it.
#[derive(Debug, Clone, Default)]
pub struct CaaIssuer {
    /// Its name for people.
    pub title: String,
    /// `meta.caaIdentities` of its directory.
    pub identities: Vec<String>,
    /// The URL of the account.
    pub account: Option<String>,
}

/// The order that is planned.
#[derive(Debug, Clone)]
pub struct PreflightOrder {
    /// Its names, as they will be ordered: `example.com`, `*.example.com`, addresses.
    pub names: Vec<String>,
    /// The challenge.
    pub method: Method,
    /// The CA.
    pub issuer: CaaIssuer,
    /// The second CA.
    pub fallback: Option<CaaIssuer>,
    /// The challenge that pintle has published for its own probe, on all workers.
    pub probe: Probe,
    /// The pins of all certificates that this pintle serves.
    pub own: Vec<Pin>,
    /// The ports at which the CA validates.
    pub ports: Ports,
    /// `true` if pintle trusts proxies in front of it (`listen.trusted_proxies`).
    pub behind_proxy: bool,
    /// `true` if the CA may see other records than this host does: a private one.
    pub other_view: bool,
    /// The time.
    pub now: Seconds,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreflightFinding {
    /// The name.
    pub name: String,
    /// The part that was checked.
    pub subject: Subject,
    /// An error forbids the order of all names.
    pub severity: Severity,
    /// The record to change.
    pub reason: Reason,
}

/// The parts of the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A lookup failed.
    Dns,
    /// The A and AAAA records.
    Address,
    /// The CAA records.
    Caa,
    /// The challenge cannot be used for the name.
    Method,
    /// The record of dns-persist-01.
    Record,
}
