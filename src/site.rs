//! A site: its names, and what is done to its messages. Everything here is prepared when the configuration is loaded.

use std::sync::Arc;

use crate::host::HostPattern;
use crate::lease::Lease;
use crate::message::Rendered;
use crate::policy::hpkp::Hpkp;
use crate::policy::hsts::{Hsts, UpstreamHeader};

/// One `[[site]]`.
#[derive(Debug, Default)]
pub struct Site {
    /// Its names; the first is the canonical one.
    pub hosts: Vec<HostPattern>,
    /// The name that requests for other names are redirected to.
    pub canonical: Option<Box<str>>,
    /// Strict-Transport-Security.
    pub hsts: Option<Policy<Hsts>>,
    /// Public-Key-Pins.
    pub hpkp: Option<PinHeader>,
    /// What is done to requests.
    pub request: Arc<HeaderRules>,
    /// What is done to responses.
    pub response: Arc<HeaderRules>,
}

impl Site {
    /// How logs and messages call it: its first name.
    #[must_use]
    pub fn label(&self) -> String {
        self.hosts.first().map(ToString::to_string).unwrap_or_default()
    }

    /// Whether the upstream's own Strict-Transport-Security wins over ours.
    #[must_use]
    pub fn keeps_upstream_hsts(&self) -> bool {
        self.hsts.as_ref().is_some_and(|p| p.policy.upstream == UpstreamHeader::Keep)
    }
}

/// A policy, and the field it comes to.
#[derive(Debug)]
pub struct Policy<T> {
    /// The policy.
    pub policy: T,
    /// Its field.
    pub field: Rendered,
}

/// The pins, and the leave to send them.
#[derive(Debug)]
pub struct PinHeader {
    /// The policy.
    pub policy: Hpkp,
    /// Its field.
    pub field: Rendered,
    /// Holds while the ledger says that the field may be sent.
    pub lease: Arc<Lease>,
}

/// Where clients send reports of pins that did not match (RFC 7469 section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportsAt {
    /// A host of one of the sites.
    pub host: Box<str>,
    /// A path on it.
    pub path: Box<str>,
}

/// Fields that the operator wants gone, replaced or added.
#[derive(Debug, Default)]
pub struct HeaderRules {
    /// Names, in lower case, whose fields do not pass: those of `remove` and of `set`.
    pub dropped: Vec<Box<[u8]>>,
    /// The fields of `set` and `add`.
    pub added: Rendered,
}

impl HeaderRules {
    /// Whether fields of this name do not pass.
    #[must_use]
    pub fn drops(&self, name: &[u8]) -> bool {
        self.dropped.iter().any(|d| d.eq_ignore_ascii_case(name))
    }
}
