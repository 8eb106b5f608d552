//! The keys of a site, as all formats describe them.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use super::form::ExportForm;
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
    /// A key kept offline, in case both others are lost
    Spare,
}

impl Role {
    /// Returns the roles of backups, in their order, by their algorithms and those of the live keys. The first backup is
    /// used first. A site with live keys of several algorithms uses the first backup of each. The algorithm of a file that
    /// cannot be read is `None`.
    #[must_use]
    pub fn of_backups(
        live: impl IntoIterator<Item = KeyAlgorithm>,
        backups: impl IntoIterator<Item = Option<KeyAlgorithm>>,
    ) -> Vec<Self> {
        // The algorithms without a next key.
        let mut open: Vec<KeyAlgorithm> = Vec::new();
        for algorithm in live {
            if !open.contains(&algorithm) {
                open.push(algorithm);
            }
        }
        let has_several = open.len() > 1;
        let role = |(index, algorithm): (usize, Option<KeyAlgorithm>)| {
            let found = open.iter().position(|known| Some(*known) == algorithm);
            if let Some(found) = found {
                open.swap_remove(found);
            }
            if index == 0 || has_several && found.is_some() { Self::Next } else { Self::Spare }
        };
        backups.into_iter().enumerate().map(role).collect()
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

/// A key of the site.
#[derive(Debug, Clone)]
pub struct SiteKey {
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

/// An authority that may issue certificates for the site, as CAA records name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Its name in CAA records; `None` if it is unknown.
    pub identity: Option<String>,
    /// The authority's name for people.
    pub title: String,
    /// The URL of pintle's account there, once it exists.
    pub account: Option<String>,
    /// The challenges that pintle uses, as CAA records name them.
    pub methods: Vec<&'static str>,
}

/// The keys of a site, as an export describes them.
#[derive(Debug, Clone)]
pub struct PinSet {
    /// The site, by its first name.
    pub site: String,
    /// All names of the site.
    pub hosts: Vec<HostPattern>,
    /// The live keys, then the backups, each once.
    pub keys: Vec<SiteKey>,
    /// The header: the same pins, and whether they bind the names below the site's, too.
    pub header: Hpkp,
    /// The end of the export.
    pub valid_until: Timestamp,
    /// The ports at which clients reach the site.
    pub ports: Vec<u16>,
    /// The authorities that pintle asks for the site's certificates; none if they come from elsewhere.
    pub issuers: Vec<Issuer>,
}

impl PinSet {
    /// Returns the number of the export. Equal pins, names and end give an equal number, so that a
    /// build that exports each time gets the same file each time.
    #[must_use]
    pub fn number(&self, form: ExportForm) -> String {
        let mut digest = Sha256::new();
        digest.update(form.name());
        for host in &self.hosts {
            digest.update(format!(" {host}"));
        }
        for key in &self.keys {
            digest.update(format!(" {}", key.pin));
        }
        digest.update(format!(" {} {}", self.header.include_subdomains, self.last_day()));
        if form.has_tlsa() && self.ports != [HTTPS] {
            digest.update(format!(" {:?}", self.ports));
        }
        if form == ExportForm::Dns && !self.issuers.is_empty() {
            digest.update(format!(" {:?}", self.issuers));
        }
        digest.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect()
    }

    /// Returns the date of its end, in UTC.
    #[must_use]
    pub fn last_day(&self) -> String {
        self.valid_until.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string()
    }

    /// Returns the last moment at which a client may still enforce it. A client that gets a header
    /// on its last day holds the pins for `max-age` after that. Android takes the date as
    /// midnight in the device's time zone; the last time zone is twelve hours behind UTC.
    #[must_use]
    pub fn held_until(&self, form: ExportForm) -> Timestamp {
        if form.is_header() {
            let held = i64::try_from(self.header.max_age).unwrap_or(i64::MAX);
            let end = self.valid_until.checked_add(SignedDuration::from_secs(held));
            return end.unwrap_or(Timestamp::MAX);
        }
        if form != ExportForm::Android {
            return self.valid_until;
        }
        let midnight = self.valid_until.as_second().div_euclid(86400) * 86400;
        let last = Timestamp::from_second(midnight).and_then(|t| t.checked_add(SignedDuration::from_hours(12)));
        last.map_or(self.valid_until, |last| last.max(self.valid_until))
    }

    /// Returns the names that the export binds as its clients read it, and `true` with those that
    /// bind the names below them, too.
    #[must_use]
    pub fn bindings(&self, form: ExportForm) -> Vec<(Vec<HostPattern>, bool)> {
        let mut groups = [(Vec::new(), false), (Vec::new(), true)];
        for host in self.named(form) {
            let base = HostPattern::parse(host.base()).ok().filter(|_| form.widens_wildcards());
            // A wildcard in DNS matches any number of labels (RFC 4592 section 2.1.1).
            let wider = host.is_wildcard() && (form.widens_wildcards() || form.has_tlsa());
            let below = wider || self.header.include_subdomains && !form.has_tlsa();
            groups[usize::from(below)].0.push(base.unwrap_or_else(|| host.clone()));
        }
        groups.into_iter().filter(|(hosts, _)| !hosts.is_empty()).collect()
    }

    /// The hosts that the form can express.
    pub(super) fn named(&self, form: ExportForm) -> impl Iterator<Item = &HostPattern> {
        self.hosts.iter().filter(move |h| form.takes_addresses() || h.address().is_none())
    }

    /// Returns a line like `pintle export 0123456789ab for blog.example.com, valid until
    /// 2026-12-01`.
    pub(super) fn title(&self, form: ExportForm) -> String {
        let (number, site, last) = (self.number(form), &self.site, self.last_day());
        if !form.is_header() {
            return format!("pintle export {number} for {site}, valid until {last}");
        }
        let held = self.held_until(form).to_zoned(TimeZone::UTC).strftime("%Y-%m-%d");
        format!("pintle export {number} for {site}, to be sent until {last}, held by clients until {held}")
    }
}

/// Makes a text fit for the rest of a comment's line: file names may contain line breaks.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { '?' } else { c }).collect()
}

/// Returns `live, ecdsa-p256, blog.pem`, without the folder, which concerns the operator alone.
pub(super) fn describe(key: &SiteKey) -> String {
    let file = key.file.rsplit('/').next().unwrap_or_default();
    one_line(&format!("{}, {}, {file}", key.role.name(), key.algorithm))
}
