//! Chooses the certificate for the name that a client asks for.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::acme_challenge;
use super::certificate::Certificate;
use super::session_chain::{self, ChainId};
use crate::host::{FoundBy, HostMap, HostPattern};

/// The alert for a name that is not served (RFC 6066 section 3).
const UNRECOGNIZED_NAME: u8 = 112;
/// The alert for a validation by tls-alpn-01 that nobody has asked for (RFC 7301 section 3.2).
const NO_APPLICATION_PROTOCOL: u8 = 120;
/// The alert for a client that can use none of the name's certificates.
const HANDSHAKE_FAILURE: u8 = 40;

thread_local! {
    /// The resolver's last choice. rustls takes only a certificate from a resolver, and has one
    /// alert for all refusals. The connection takes the rest from here, within the same call.
    static CHOICE: Cell<Option<Choice>> = const { Cell::new(None) };
    /// The address that the client has reached, passed to the resolver within the same call.
    static REACHED: Cell<Option<IpAddr>> = const { Cell::new(None) };
}

/// Sets the address that the client has reached, before a call into rustls that may ask for a
/// certificate.
pub(super) fn reached(address: Option<IpAddr>) {
    REACHED.set(address);
}

/// The name that a client asked for, and the outcome.
#[derive(Debug)]
pub struct Choice {
    /// The name in its SNI.
    pub name: Option<Box<str>>,
    /// The certificates of that name, or the alert to send.
    outcome: Result<CertificateSet, u8>,
    /// The chain of a full handshake.
    pub(super) chain: Option<ChainId>,
}

impl Choice {
    /// Returns the certificates of the connection's site.
    #[must_use]
    pub fn certificates(&self) -> Option<&CertificateSet> {
        self.outcome.as_ref().ok()
    }

    /// Returns the alert that refuses the handshake.
    #[must_use]
    pub fn alert(&self) -> Option<u8> {
        self.outcome.as_ref().err().copied()
    }
}

/// Takes the choice made within the last call into rustls, if any.
pub(super) fn take_choice() -> Option<Choice> {
    CHOICE.take()
}

/// The certificates of one site: each of them covers all of its names.
pub type CertificateSet = Arc<[Arc<Certificate>]>;

/// The reason for a choice of certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChosenBy {
    /// The name in SNI.
    Name(FoundBy),
    /// The address that a client without SNI has reached.
    Address,
    /// No name and no address: those of `tls.default_site`, or none.
    Default,
}

/// Certificates by name.
#[derive(Debug, Default)]
pub struct Certificates {
    /// `None` for a name that pintle should serve and has no certificate for: not even the default is shown to its
    /// visitors.
    by_name: HostMap<Option<CertificateSet>>,
    /// For clients without SNI, by the address that they have reached: SNI cannot carry an address
    /// (RFC 6066 section 3).
    by_address: HashMap<IpAddr, Option<CertificateSet>>,
    /// For clients without SNI, or with an unknown name.
    default: Option<CertificateSet>,
}

impl Certificates {
    /// Orders a site's certificates. Cheaper keys come first: a client that supports several key
    /// types gets the cheapest.
    #[must_use]
    pub fn set(mut certificates: Vec<Arc<Certificate>>) -> CertificateSet {
        certificates.sort_by_key(|c| c.is_rsa());
        certificates.into()
    }

    /// Adds a site's certificates under its names.
    pub fn insert(&mut self, names: &[HostPattern], set: &CertificateSet) {
        self.put(names, Some(set));
    }

    /// Refuses handshakes for a site's names.
    pub fn refuse(&mut self, names: &[HostPattern]) {
        self.put(names, None);
    }

    /// Adds certificates under these names; refuses handshakes for them with none.
    pub fn put(&mut self, names: &[HostPattern], set: Option<&CertificateSet>) {
        for name in names {
            self.by_name.insert(name, set.cloned());
            if let Some(address) = name.address() {
                self.by_address.insert(address.to_canonical(), set.cloned());
            }
        }
    }

    /// Sets the certificates for clients without a name, or with an unknown one.
    pub fn set_default(&mut self, set: CertificateSet) {
        self.default = Some(set);
    }

    /// Returns `true` if certificates depend on the address that a client has reached.
    #[must_use]
    pub fn has_addresses(&self) -> bool {
        !self.by_address.is_empty()
    }

    /// Returns the choice for a client without SNI that has reached this address.
    #[must_use]
    pub fn find_reached(&self, address: Option<IpAddr>) -> Option<&CertificateSet> {
        self.look_up_reached(address).1
    }

    /// The same, with the reason.
    #[must_use]
    pub fn look_up_reached(&self, address: Option<IpAddr>) -> (ChosenBy, Option<&CertificateSet>) {
        match address.and_then(|a| self.by_address.get(&a.to_canonical())) {
            Some(known) => (ChosenBy::Address, known.as_ref()),
            None => (ChosenBy::Default, self.default.as_ref()),
        }
    }

    /// Returns the choice for a name: certificates of the exact name, then of a wildcard.
    #[must_use]
    pub fn find(&self, name: Option<&str>) -> Option<&CertificateSet> {
        self.look_up(name).1
    }

    /// The same, with the reason.
    #[must_use]
    pub fn look_up(&self, name: Option<&str>) -> (ChosenBy, Option<&CertificateSet>) {
        match name.and_then(|n| self.by_name.find(n)) {
            Some((by, known)) => (ChosenBy::Name(by), known.as_ref()),
            None => (ChosenBy::Default, self.default.as_ref()),
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(&hello, None)
    }
}

/// Returns the choice for a client that may omit the name: balancers that probe an address send
/// none.
#[derive(Debug)]
pub struct ForProbes {
    /// The default certificates.
    pub certificates: Arc<Certificates>,
    /// For a client without a name, if no site is the default.
    pub nameless: CertificateSet,
}

impl ResolvesServerCert for ForProbes {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificates.choose(&hello, Some(&self.nameless))
    }
}

/// Returns one set of certificates for every name, and without one.
#[derive(Debug)]
pub struct AnyName(pub CertificateSet);

impl ResolvesServerCert for AnyName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.0.iter().find(|c| c.key().key.choose_scheme(hello.signature_schemes()).is_some())?;
        Some(chosen.key().clone())
    }
}

impl Certificates {
    fn choose(&self, hello: &ClientHello<'_>, nameless: Option<&CertificateSet>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(|n| n.strip_suffix('.').unwrap_or(n));
        let reached = REACHED.take();
        let set = if name.is_some() { self.find(name) } else { self.find_reached(reached).or(nameless) };
        // rustls has already reduced the schemes to those that fit the client's cipher suites.
        let usable = |c: &&Arc<Certificate>| c.key().key.choose_scheme(hello.signature_schemes()).is_some();
        let chosen = set.and_then(|set| set.iter().find(usable));
        // A validation never gets a certificate of a site (RFC 8737 section 3).
        let is_validation = acme_challenge::validates(hello);
        let chosen = chosen.filter(|_| !is_validation);
        let outcome = match (set, chosen) {
            _ if is_validation => Err(NO_APPLICATION_PROTOCOL),
            (Some(set), Some(_)) => Ok(set.clone()),
            (Some(_), None) => Err(HANDSHAKE_FAILURE),
            (None, _) => Err(UNRECOGNIZED_NAME),
        };
        session_chain::serve(set.iter().flat_map(|set| set.iter()).map(|c| c.chain.id()));
        let chain = chosen.map(|c| c.chain.id());
        CHOICE.set(Some(Choice { name: name.map(Into::into), outcome, chain }));
        chosen.map(|c| c.key().clone())
    }
}
