//! What there is to say about a site: for `pintle check`, and for the log at start.

use jiff::Timestamp;

use super::certificates::Loaded;
use super::pins::Pins;
use super::upstream::Target;
use crate::host::HostPattern;
use crate::key_file::{KeyAlgorithm, PublicKey};
use crate::pin::Pin;
use crate::policy::hsts::Hsts;

/// One site.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its names.
    pub hosts: Vec<String>,
    /// Its upstream, with the four names.
    pub upstream: Option<Upstream>,
    /// Its certificates.
    pub certificates: Vec<Certificate>,
    /// Its Strict-Transport-Security.
    pub hsts: Option<String>,
    /// Name and value of its pin header.
    pub hpkp: Option<(&'static str, String)>,
    /// The backups behind the pins: file and key.
    pub backups: Vec<(String, PublicKey)>,
}

/// Where a site's requests go.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// The URL of the configuration.
    pub url: String,
    /// Where the connection goes.
    pub connect: String,
    /// The name in SNI.
    pub server_name: Option<String>,
    /// The name that the certificate must have; none if it is not verified.
    pub verify_name: Option<String>,
    /// What the Host field says; none if it is the client's.
    pub host_header: Option<String>,
}

/// A chain.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Its file.
    pub path: String,
    /// The leaf's serial number.
    pub serial: String,
    /// Who issued the leaf.
    pub issuer: String,
    /// The leaf key's algorithm.
    pub algorithm: KeyAlgorithm,
    /// The leaf key's pin.
    pub pin: Pin,
    /// The pins of the whole chain, the leaf's first.
    pub pins: Vec<Pin>,
    /// The leaf's end.
    pub not_after: Timestamp,
    /// Whether the key is here, too.
    pub served: bool,
}

impl Site {
    pub(super) fn new(
        hosts: &[HostPattern],
        target: Option<&Target>,
        loaded: &[Loaded],
        hsts: Option<&Hsts>,
        pins: Option<&Pins>,
    ) -> Self {
        let certificate = |l: &Loaded| Certificate {
            path: l.path.display().to_string(),
            serial: l.chain.leaf.serial.clone(),
            issuer: l.chain.leaf.issuer.clone(),
            algorithm: l.chain.leaf.algorithm,
            pin: l.chain.pin(),
            pins: l.chain.pins.clone(),
            not_after: l.chain.leaf.not_after,
            served: l.certificate.is_some(),
        };
        Self {
            hosts: hosts.iter().map(ToString::to_string).collect(),
            upstream: target.map(|t| t.report.clone()),
            certificates: loaded.iter().map(certificate).collect(),
            hsts: hsts.map(ToString::to_string),
            hpkp: pins.map(|p| (p.policy.name(), p.policy.value())),
            backups: pins.map(|p| p.backups.clone()).unwrap_or_default(),
        }
    }
}
