//! A site's pins in the formats of the programs that enforce them: apps, curl, DANE, Envoy,
//! monitors, other servers.
//!
//! No I/O and no clock: a [`PinSet`] goes in, a text comes out. Every format with comments names
//! the export and its end, so that someone who finds it in an app's sources years later knows its
//! origin.

mod apps;
mod servers;
mod tools;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::host::HostPattern;
use crate::keys::key_file::KeyAlgorithm;
use crate::keys::pin::Pin;
use crate::policy::hpkp::Hpkp;

/// The default port of https.
pub const HTTPS: u16 = 443;

/// The use of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// The key of the certificate that is served
    Live,
    /// The key of the next certificate, made in advance
    Next,
    /// A key kept offline, for the day both others are lost
    Spare,
}

impl Role {
    /// Returns the role of a backup by its place in the list: the first one is used first.
    #[must_use]
    pub fn of_backup(index: usize) -> Self {
        if index == 0 { Self::Next } else { Self::Spare }
    }

    /// Returns its name on the command line, in files and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Next => "next",
            Self::Spare => "spare",
        }
    }
}

/// The format of an export. `--help` prints these comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Form {
    /// The Public-Key-Pins header (RFC 7469)
    Header,
    /// OkHttp's CertificatePinner, in Kotlin
    #[value(name = "okhttp")]
    OkHttp,
    /// Android's Network Security Config, in XML
    Android,
    /// NSPinnedDomains for the Info.plist of an iOS app
    Ios,
    /// TSKConfiguration for the Info.plist of an app with TrustKit
    #[value(name = "trustkit")]
    TrustKit,
    /// The argument of curl --pinnedpubkey
    Curl,
    /// verify_certificate_spki of Envoy, in YAML
    Envoy,
    /// DANE: TLSA 3 1 1 records for a zone file
    #[value(alias = "dane")]
    Tlsa,
    /// Known keys for a Certificate Transparency monitor, one per line
    #[value(name = "certspotter")]
    CertSpotter,
    /// The header, as configuration of an nginx that serves the site
    Nginx,
    /// The header, as configuration of a Varnish behind the site's TLS
    #[value(alias = "varnish")]
    Vcl,
    /// All facts, in JSON
    Json,
}

/// The effect of an export without a backup on the clients that use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutBackup {
    /// Clients reject the export itself.
    Useless,
    /// The first change of the key locks clients out until each of them has a new export.
    LocksOut,
    /// Clients take a new key as quickly as they took the old one.
    Warned,
}

impl Form {
    /// Returns its name on the command line, in the ledger and in comments.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::OkHttp => "okhttp",
            Self::Android => "android",
            Self::Ios => "ios",
            Self::TrustKit => "trustkit",
            Self::Curl => "curl",
            Self::Envoy => "envoy",
            Self::Tlsa => "tlsa",
            Self::CertSpotter => "certspotter",
            Self::Nginx => "nginx",
            Self::Vcl => "vcl",
            Self::Json => "json",
        }
    }

    /// `true` if its clients compare the leaf's key alone, so that no other certificate of the
    /// chain can match.
    ///
    /// * `curl`: the server's own certificate (CURLOPT_PINNEDPUBLICKEY; curl issues 1022 and 20538).
    /// * `tlsa`: certificate usage 3 is for the end entity's certificate (RFC 7671 section 5.1).
    /// * `ios`: NSPinnedLeafIdentities is for the leaf, as its name says; NSPinnedCAIdentities, which must match *as
    ///   well*, is left out.
    /// * `envoy`: "the SPKI of the presented certificate" (CertificateValidationContext); its validator is handed
    ///   the leaf.
    /// * `certspotter`: PUBKEY_SHA256 is the logged certificate's own.
    /// * `json`: its readers are unknown, and the stricter assumption locks nobody out.
    ///
    /// The others take any certificate of the verified chain: browsers that honoured the header (RFC 7469 section
    /// 2.6), OkHttp (CertificatePinner.check), Android (NetworkSecurityTrustManager.checkPins) and TrustKit
    /// (verifyPublicKeyPin).
    #[must_use]
    pub fn leaf_only(self) -> bool {
        match self {
            Self::Curl | Self::Tlsa | Self::Ios | Self::Envoy | Self::CertSpotter | Self::Json => true,
            Self::Header | Self::Nginx | Self::Vcl | Self::OkHttp | Self::Android | Self::TrustKit => false,
        }
    }

    /// `true` if it is the header, which browsers no longer enforce.
    #[must_use]
    pub fn is_header(self) -> bool {
        matches!(self, Self::Header | Self::Nginx | Self::Vcl)
    }

    /// `true` if it ends on a date, without a time of day.
    #[must_use]
    pub fn ends_on_a_date(self) -> bool {
        matches!(self, Self::Android | Self::TrustKit)
    }

    /// `true` if its clients get new pins by a new release only.
    #[must_use]
    pub fn is_app(self) -> bool {
        matches!(self, Self::OkHttp | Self::Android | Self::Ios | Self::TrustKit)
    }

    /// Returns the effect of an export without a backup key.
    #[must_use]
    pub fn without_backup(self) -> WithoutBackup {
        match self {
            // RFC 7469 section 2.5: clients do not note such a header. TrustKit aborts an app with
            // fewer than two pins.
            Self::Header | Self::Nginx | Self::Vcl | Self::TrustKit => WithoutBackup::Useless,
            Self::OkHttp | Self::Android | Self::Ios | Self::Envoy => WithoutBackup::LocksOut,
            Self::Curl | Self::Tlsa | Self::CertSpotter | Self::Json => WithoutBackup::Warned,
        }
    }

    /// `true` if its clients can pin a host that is an IP address.
    fn takes_addresses(self) -> bool {
        // TLSA records belong to names; TrustKit aborts on a host without a registered domain.
        !matches!(self, Self::Tlsa | Self::TrustKit)
    }

    /// `true` if its clients have no `*.example.com`: they get `example.com` and all names below
    /// it, which is more.
    #[must_use]
    pub fn widens_wildcards(self) -> bool {
        matches!(self, Self::Android | Self::Ios | Self::TrustKit)
    }
}

/// A key of the site.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its pin.
    pub pin: Pin,
    /// Its algorithm.
    pub algorithm: KeyAlgorithm,
    /// Its use.
    pub role: Role,
    /// The file that it was read from.
    pub file: String,
    /// The end of its certificate, if it is live.
    pub not_after: Option<Timestamp>,
}

/// The keys of a site, as an export describes them.
#[derive(Debug, Clone)]
pub struct PinSet {
    /// The site, by its first name.
    pub site: String,
    /// All names of the site.
    pub hosts: Vec<HostPattern>,
    /// The live keys, then the backups, each once.
    pub keys: Vec<Key>,
    /// The header: the same pins, and whether they bind the names below the site's, too.
    pub header: Hpkp,
    /// The end of the export.
    pub valid_until: Timestamp,
    /// The ports at which clients reach the site.
    pub ports: Vec<u16>,
}

impl PinSet {
    /// Returns the number of the export. Equal pins, names and end give an equal number, so that a
    /// build that exports each time gets the same file each time.
    #[must_use]
    pub fn number(&self, form: Form) -> String {
        let mut digest = Sha256::new();
        digest.update(form.name());
        for host in &self.hosts {
            digest.update(format!(" {host}"));
        }
        for key in &self.keys {
            digest.update(format!(" {}", key.pin));
        }
        digest.update(format!(" {} {}", self.header.include_subdomains, self.last_day()));
        if form == Form::Tlsa && self.ports != [HTTPS] {
            digest.update(format!(" {:?}", self.ports));
        }
        digest.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect()
    }

    /// Returns the date of its end, in UTC.
    #[must_use]
    pub fn last_day(&self) -> String {
        self.valid_until.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string()
    }

    /// Returns the last moment at which a client may still enforce it. Android takes the date as
    /// midnight in the device's time zone; the last time zone is twelve hours behind UTC.
    #[must_use]
    pub fn held_until(&self, form: Form) -> Timestamp {
        if form != Form::Android {
            return self.valid_until;
        }
        let midnight = self.valid_until.as_second().div_euclid(86400) * 86400;
        let last = Timestamp::from_second(midnight).and_then(|t| t.checked_add(SignedDuration::from_hours(12)));
        last.map_or(self.valid_until, |last| last.max(self.valid_until))
    }

    /// Returns the names that the export binds as its clients read it, and `true` with those that
    /// bind the names below them, too.
    #[must_use]
    pub fn bindings(&self, form: Form) -> Vec<(Vec<HostPattern>, bool)> {
        let mut groups = [(Vec::new(), false), (Vec::new(), true)];
        for host in self.named(form) {
            let base = HostPattern::parse(host.base()).ok().filter(|_| form.widens_wildcards());
            // A wildcard in DNS matches any number of labels (RFC 4592 section 2.1.1).
            let wider = host.is_wildcard() && (form.widens_wildcards() || form == Form::Tlsa);
            let below = wider || self.header.include_subdomains && form != Form::Tlsa;
            groups[usize::from(below)].0.push(base.unwrap_or_else(|| host.clone()));
        }
        groups.into_iter().filter(|(hosts, _)| !hosts.is_empty()).collect()
    }

    /// The hosts that the form can express.
    fn named(&self, form: Form) -> impl Iterator<Item = &HostPattern> {
        self.hosts.iter().filter(move |h| form.takes_addresses() || h.address().is_none())
    }

    /// Returns a line like `pintle export 0123456789ab for blog.example.com, valid until
    /// 2026-12-01`.
    fn title(&self, form: Form) -> String {
        format!("pintle export {} for {}, valid until {}", self.number(form), self.site, self.last_day())
    }
}

/// Renders an export. `None` if the form can express none of the hosts.
#[must_use]
pub fn render(form: Form, set: &PinSet) -> Option<String> {
    set.named(form).next()?;
    Some(match form {
        Form::Header => servers::header(set),
        Form::Nginx => servers::nginx(set),
        Form::Vcl => servers::vcl(set),
        Form::Envoy => servers::envoy(set),
        Form::OkHttp => apps::okhttp(set),
        Form::Android => apps::android(set),
        Form::Ios => apps::ios(set),
        Form::TrustKit => apps::trustkit(set),
        Form::Curl => tools::curl(set),
        Form::Tlsa => tools::tlsa(set),
        Form::CertSpotter => tools::certspotter(set),
        Form::Json => tools::json(set),
    })
}

/// Makes a text fit for the rest of a comment's line: file names may contain line breaks.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { '?' } else { c }).collect()
}

/// Returns `live, ecdsa-p256, blog.pem`, without the folder, which concerns the operator alone.
fn describe(key: &Key) -> String {
    let file = key.file.rsplit('/').next().unwrap_or_default();
    one_line(&format!("{}, {}, {file}", key.role.name(), key.algorithm))
}

#[cfg(test)]
mod tests;
