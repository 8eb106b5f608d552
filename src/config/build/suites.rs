//! `tls.cipher_suites` against the keys of the sites.

use super::checker::Checker;
use super::entry::Entry;
use super::offer::span_of;
use crate::config::file::TlsTable;
use crate::keys::key_file::KeyAlgorithm;
use crate::tls::offer::TlsOffer;

/// Reports sites for whose keys TLS 1.2 has no suite: each of its suites fits one kind of key.
pub(super) fn check(table: &TlsTable, offer: &TlsOffer, entries: &[&Entry], may_refuse: bool, r: &mut Checker<'_>) {
    // A list without any suite of TLS 1.2 is reported already.
    let has_any = offer.suites.iter().any(|suite| !suite.tls13);
    if !offer.versions.tls12 || table.cipher_suites.is_none() || !has_any {
        return;
    }
    let has = |algorithm: &KeyAlgorithm| {
        let kind = if matches!(algorithm, KeyAlgorithm::Rsa(_)) { "_RSA_" } else { "_ECDSA_" };
        offer.suites.iter().any(|suite| !suite.tls13 && suite.names[0].contains(kind))
    };
    let span = span_of(table.cipher_suites.as_deref(), table);
    for entry in entries {
        let served = entry.plan.loaded.iter().filter(|l| l.certificate.is_some());
        let keys: Vec<KeyAlgorithm> = served.map(|l| l.chain.leaf.algorithm).collect();
        let (Some(first), false) = (keys.first(), keys.iter().any(has)) else { continue };
        let message =
            format!("tls.cipher_suites: no suite of TLS 1.2 fits the key of {}: {first}", entry.report.name());
        let hint = "add suites for it, or set versions = [\"1.3\"]";
        if offer.versions.tls13 || !may_refuse {
            r.warn(&span, message, hint);
        } else {
            r.error_with_hint(&span, message, hint);
        }
    }
}
