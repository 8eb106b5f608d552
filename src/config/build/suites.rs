//! `tls.cipher_suites` against the keys of the sites.

use super::checker::Checker;
use super::entry::SiteEntry;
use super::offer::span_of;
use crate::config::file::TlsTable;
use crate::keys::key_file::KeyAlgorithm;
use crate::reason::Reason;
use crate::tls::offer::TlsOffer;

/// The kinds of keys that fit a suite of TLS 1.2: each suite fits one kind.
pub(super) struct Fit {
    rsa: bool,
    ecdsa: bool,
}

impl Fit {
    fn in_tls12(offer: &TlsOffer) -> Self {
        let has = |kind: &str| offer.suites.iter().any(|suite| !suite.tls13 && suite.names[0].contains(kind));
        Self { rsa: has("_RSA_"), ecdsa: has("_ECDSA_") }
    }

    fn has(&self, algorithm: &KeyAlgorithm) -> bool {
        if matches!(algorithm, KeyAlgorithm::Rsa(_)) { self.rsa } else { self.ecdsa }
    }

    /// `None` if clients can use each key, in some version of TLS.
    pub(super) fn of(table: &TlsTable, offer: &TlsOffer) -> Option<Self> {
        let is_limited = offer.versions.tls12 && !offer.versions.tls13 && table.cipher_suites.is_some();
        Some(Self::in_tls12(offer)).filter(|fit| is_limited && fit.rsa != fit.ecdsa)
    }

    /// The problem of a pair that no client could use.
    pub(super) fn problem(&self, site: &str, algorithm: &KeyAlgorithm) -> Option<Reason> {
        (!self.has(algorithm)).then(|| Reason::new(message(site, algorithm)).hint(HINT))
    }

    /// A plan depends on it.
    pub(super) fn mark(&self) -> [u8; 2] {
        [u8::from(self.rsa), u8::from(self.ecdsa)]
    }
}

const HINT: &str = "add suites for it, or set versions = [\"1.3\"]";

fn message(site: &str, algorithm: &KeyAlgorithm) -> String {
    format!("tls.cipher_suites: no suite of TLS 1.2 fits the key of {site}: {algorithm}")
}

/// Reports sites for whose keys TLS 1.2 has no suite: each of its suites fits one kind of key.
pub(super) fn check(table: &TlsTable, offer: &TlsOffer, entries: &[&SiteEntry], may_refuse: bool, r: &mut Checker<'_>) {
    // A list without any suite of TLS 1.2 is reported already.
    let has_any = offer.suites.iter().any(|suite| !suite.tls13);
    if !offer.versions.tls12 || table.cipher_suites.is_none() || !has_any {
        return;
    }
    let fit = Fit::in_tls12(offer);
    let span = span_of(table.cipher_suites.as_deref(), table);
    for entry in entries {
        let served = entry.plan.loaded.iter().filter(|l| l.certificate.is_some());
        let keys: Vec<KeyAlgorithm> = served.map(|l| l.chain.leaf.algorithm).collect();
        let (Some(first), false) = (keys.first(), keys.iter().any(|key| fit.has(key))) else { continue };
        let (message, hint) = (message(entry.report.name(), first), HINT);
        if offer.versions.tls13 || !may_refuse {
            r.warn(&span, message, hint);
        } else {
            r.error_with_hint(&span, message, hint);
        }
    }
}
