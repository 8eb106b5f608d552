//! The facts about a site that `pintle check` prints, and that pintle logs at the start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::keys::key_file::{KeyAlgorithm, PublicKey};
use crate::keys::pin::Pin;
use crate::ledger::Ramped;
use crate::os::plain_file::tidy;
use crate::policy::promise::Seconds;
use crate::policy::ramp::NextRampStep;
use crate::reason::pasted::pintle;

/// The days in `accept_lockout_until`, by the site's first name.
pub type DaysInUse = BTreeMap<String, String>;

/// One site.
#[derive(Debug, Clone)]
pub struct SiteReport {
    /// Its names.
    pub hosts: Vec<String>,
    /// Its upstream, with the four names.
    pub upstream: Option<UpstreamReport>,
    /// Its certificates.
    pub certificates: Vec<CertificateReport>,
    /// The pairs that it should have and has not.
    pub missing: Vec<Missing>,
    /// The reason why pintle refuses TLS for its names; `None` if it has a certificate, or needs none.
    pub lacks_certificate: Option<CertificateLack>,
    /// Names for which pintle refuses TLS although the site has a certificate: it does not cover
    /// them, or would lock their readers out.
    pub refused_names: Vec<String>,
    /// Names that the site's certificates would lock readers out of: pintle serves them with an
    /// earlier one, or refuses them.
    pub names_apart: Vec<String>,
    /// Its Strict-Transport-Security.
    pub hsts: Option<String>,
    /// Name and value of its pin header.
    pub hpkp: Option<(&'static str, String)>,
    /// The reason why pintle does not send its pins; `None` if it does.
    pub withheld: Option<Withheld>,
    /// Backups that have become live: each needs a fresh key to replace it.
    pub promoted: Vec<Pin>,
    /// The state of its ramps.
    pub ramps: Vec<RampReport>,
    /// The backups behind the pins: file and key.
    pub backups: Vec<(String, PublicKey)>,
    /// Its tools against mixed content; `None` without any.
    pub mixed_content: Option<Vec<&'static str>>,
}

/// The reason why a site has no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateLack {
    /// It waits for its first certificate from the CA.
    NotYet,
    /// Its files cannot be served: they are missing, unreadable, expired or broken, or the guard refuses them.
    Broken,
}

impl CertificateLack {
    /// The word for programs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NotYet => "not_yet",
            Self::Broken => "broken",
        }
    }
}

/// The reason why a site's pins are not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Withheld {
    /// A certificate is missing.
    MissingPair,
    /// The last backup has become live.
    NoBackup,
    /// A backup that was promised is no longer readable.
    UnreadableBackup,
    /// A backup is burnt.
    BurntBackup,
    /// Its pins would lock readers out of another site.
    OtherSite,
}

impl Withheld {
    /// Returns the reason in a few words.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::MissingPair => "a certificate is missing",
            Self::NoBackup => "no backup left",
            Self::UnreadableBackup => "a backup is no longer readable",
            Self::BurntBackup => "a backup is burnt: it was revoked as compromised",
            Self::OtherSite => {
                "they would lock readers out of another site, or of the admin pages: `pintle check` names it"
            }
        }
    }
}

/// A pair that a site should have and has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The file of its chain, if the table names one.
    pub path: Option<PathBuf>,
    /// The reason.
    pub lack: CertificateLack,
}

/// The state of a ramp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RampReport {
    /// The header that it belongs to.
    pub policy: Ramped,
    /// The step in use, from 0.
    pub step: usize,
    /// The number of steps.
    pub steps: usize,
    /// The max-age in use, in seconds.
    pub max_age: u64,
    /// The time since which nothing has gone wrong at this step.
    pub since: Seconds,
    /// The next step.
    pub next: Option<NextRampStep>,
}

/// The upstream of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamReport {
    /// The URL of the configuration.
    pub url: String,
    /// The address that pintle connects to.
    pub connect: String,
    /// The name in SNI.
    pub server_name: Option<String>,
    /// The name that the certificate must have; `None` if it is not verified.
    pub verify_name: Option<String>,
    /// The Host field; `None` if it is the client's.
    pub host_header: Option<String>,
}

/// A chain.
#[derive(Debug, Clone)]
pub struct CertificateReport {
    /// Its file.
    pub path: String,
    /// The leaf's serial number.
    pub serial: String,
    /// The issuer of the leaf.
    pub issuer: String,
    /// The leaf key's algorithm.
    pub algorithm: KeyAlgorithm,
    /// The leaf key's pin.
    pub pin: Pin,
    /// The pins of the whole chain, the leaf's first.
    pub pins: Vec<Pin>,
    /// The pins that are on every client's path.
    pub certain: Vec<Pin>,
    /// The beginning of the leaf's validity.
    pub not_before: Timestamp,
    /// The end of the leaf's validity.
    pub not_after: Timestamp,
    /// The SCTs in the leaf.
    pub scts: usize,
    /// `true` if the key is here, too.
    pub served: bool,
    /// `true` if pintle obtains and renews it.
    pub is_managed: bool,
}

/// The hint for a certificate that is about to expire although pintle renews it.
#[must_use]
pub fn hint_to_renewal(site: impl std::fmt::Display) -> String {
    format!("pintle renews it by itself: `{}` names the obstacle", pintle(format_args!("acme plan --site {site}")))
}

impl CertificateReport {
    /// Returns the path of its file for people.
    #[must_use]
    pub fn file(&self) -> String {
        tidy(Path::new(&self.path)).display().to_string()
    }

    /// `true` if it is the very same certificate.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let facts = |c: &Self| (c.serial.clone(), c.pin, c.not_before, c.not_after, c.pins.len());
        facts(self) == facts(other)
    }
}

impl SiteReport {
    /// Its first name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.hosts.first().map(String::as_str).unwrap_or_default()
    }
}
