//! The certificates of a chain, for people: names, dates, keys.

use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::keys::key_file::algorithm_of;
use crate::keys::pin::Pin;
use crate::ledger::time::rfc3339;
use crate::telemetry::trace::hex;
use crate::tls::certificate::name_of;

/// The certificates, the leaf first. One that cannot be read is left out: it is served all the same.
pub(in crate::control) fn certificates<'d>(chain: impl Iterator<Item = &'d [u8]>) -> Vec<Value> {
    chain.filter_map(certificate).collect()
}

fn certificate(der: &[u8]) -> Option<Value> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    Some(json!({
        "subject": name_of(certificate.subject()), "issuer": name_of(certificate.issuer()),
        "serial": hex(certificate.raw_serial()),
        "is_root": certificate.subject() == certificate.issuer(),
        "algorithm": algorithm_of(certificate.public_key()).to_string(),
        "pin": Pin::of_spki(certificate.public_key().raw).to_string(),
        "not_before": rfc3339(validity.not_before.timestamp()), "not_after": rfc3339(validity.not_after.timestamp()),
    }))
}
