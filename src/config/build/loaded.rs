//! A chain and its key, as far as they could be loaded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::report;
use crate::config::last_good::{Breaches, KeyText, Pair};
use crate::keys::pem;
use crate::tls::Certificate;
use crate::tls::certificate::Chain;
use crate::tls::key_process;

/// One `[site.certificate]`, as far as it could be loaded.
#[derive(Clone)]
pub(in crate::config) struct LoadedCertificate {
    /// Its place in `[[site.certificate]]`.
    pub(super) at: usize,
    pub(in crate::config) path: PathBuf,
    /// The file of its key, if the key is here.
    pub(super) key: Option<Box<Path>>,
    /// The contents of that file, until they have been copied.
    pub(super) text: KeyText,
    pub(in crate::config) chain: Arc<Chain>,
    /// `true` if pintle obtains it.
    pub(super) is_managed: bool,
    /// With its key; `None` where TLS ends in front of pintle.
    pub(super) certificate: Option<Arc<Certificate>>,
}

impl LoadedCertificate {
    /// `true` if it is the very same chain, certificate by certificate.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.der() == other.der() && self.certificate.is_some() == other.certificate.is_some()
    }

    /// `true` if the key process has the only copy of its key: the key's file has another one, or none.
    pub(super) fn is_in_memory_alone(&self) -> bool {
        let Some((keys, file)) = key_process::running().zip(self.key.as_deref()) else { return false };
        keys.load(file).map_or(true, |key| key.pin() != self.chain.pin())
    }

    fn der(&self) -> &[CertificateDer<'static>] {
        self.certificate.as_ref().map_or_else(|| self.chain.der(), |certificate| certificate.der())
    }

    /// The contents of its copy.
    pub(in crate::config) fn into_pair(self, site: String, breaches: Breaches) -> Pair {
        Pair {
            site,
            breaches,
            path: self.path.clone(),
            pin: self.chain.pin(),
            key: self.key.as_deref().map(Path::to_owned),
            text: self.text.clone(),
            chain: Box::new(move || pem::certificates(self.der())),
        }
    }

    /// Its part of the report.
    pub(super) fn report(&self) -> report::CertificateReport {
        let l = self;
        report::CertificateReport {
            path: l.path.display().to_string(),
            serial: l.chain.leaf.serial.clone(),
            issuer: l.chain.leaf.issuer.clone(),
            algorithm: l.chain.leaf.algorithm,
            pin: l.chain.pin(),
            pins: l.chain.pins.clone(),
            certain: l.chain.certain.clone(),
            not_before: l.chain.leaf.not_before,
            not_after: l.chain.leaf.not_after,
            scts: crate::tls::transparency::count(l.chain.der()),
            served: l.certificate.is_some(),
            is_managed: l.is_managed,
        }
    }
}
