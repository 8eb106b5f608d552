//! The keys and authorities of the certificates that pintle obtains, as an export needs them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::acme::account::Stored;
use crate::config::{Acme, Authority, Config, Managed, own_key, report};
use crate::export::Issuer;
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::reason::Reason;
use crate::reason::pasted::pintle;
use crate::site::Site;

/// The dates of a key without a certificate.
pub(super) const NO_CERTIFICATE: Timestamp = Timestamp::UNIX_EPOCH;

/// The directories of public authorities, and their names in CAA records.
const IDENTITIES: [(&str, &str); 4] = [
    ("https://acme-v02.api.letsencrypt.org/directory", "letsencrypt.org"),
    ("https://acme-staging-v02.api.letsencrypt.org/directory", "letsencrypt.org"),
    ("https://acme.zerossl.com/v2/DV90", "sectigo.com"),
    ("https://dv.acme-v02.api.pki.goog/directory", "pki.goog"),
];

/// A refusal with its remedy.
pub(super) fn refusal(what: impl Into<String>, hint: impl Into<String>) -> Reason {
    Reason::new(what).hint(hint)
}

/// The certificates of a site that pintle obtains.
fn managed<'c>(config: &'c Config, site: &'c Site) -> impl Iterator<Item = &'c Managed> {
    let all = config.acme.iter().flat_map(|acme| &acme.certificates);
    all.filter(|one| one.hosts == site.hosts)
}

/// Returns the next keys that pintle keeps itself, if the site sends no header that lists them.
pub fn next_keys(config: &Config, site: &Site, report: &report::SiteReport) -> Result<Vec<PathBuf>, Reason> {
    let mut found = Vec::new();
    for next in managed(config, site).map(Managed::next) {
        let is_listed = report.backups.iter().any(|(file, _)| Path::new(file) == next);
        if own_pin(&next)?.is_some() && !is_listed {
            found.push(next);
        }
    }
    Ok(found)
}

/// Adds the live keys that pintle has made, before it has obtained the first certificate.
pub fn with_own_keys(
    report: report::SiteReport,
    config: &Config,
    site: &Site,
    warnings: &mut Vec<Reason>,
) -> Result<report::SiteReport, Reason> {
    if !report.certificates.is_empty() {
        return Ok(report);
    }
    let mut certificates = Vec::new();
    for one in managed(config, site) {
        let Some(pin) = own_pin(&one.key())? else {
            let what = format!("{}: no key yet: pintle makes it at its first start", one.key().display());
            return Err(refusal(what, "start pintle with this configuration, and export again"));
        };
        certificates.push(report::CertificateReport {
            path: one.key().display().to_string(),
            serial: String::new(),
            issuer: String::new(),
            algorithm: one.algorithm,
            pin,
            pins: vec![pin],
            certain: vec![pin],
            not_before: NO_CERTIFICATE,
            not_after: NO_CERTIFICATE,
            scts: 0,
            served: true,
            is_managed: true,
        });
    }
    if !certificates.is_empty() {
        let what = "the site has no certificate yet: these are the keys that it will be for";
        warnings.push(refusal(what, pintle("acme plan")));
    }
    Ok(report::SiteReport { certificates, ..report })
}

/// The pin of a key that pintle has made; `None` if there is no such file.
fn own_pin(file: &Path) -> Result<Option<Pin>, Reason> {
    own_key::read(file).map_err(|fault| {
        let hint = match fault.is_forbidden {
            true => "export as root, or as the user that serves: sudo -u pintle pintle export ...".to_owned(),
            false => format!("`{}` names the remedy", pintle("acme plan")),
        };
        refusal(format!("{}: {}", fault.file.display(), fault.why), &hint)
    })
}

/// The authorities that pintle asks for a site's certificates.
pub(super) fn issuers(config: &Config, hosts: &[HostPattern]) -> Vec<Issuer> {
    let is_managed = |acme: &&Arc<Acme>| acme.certificates.iter().any(|one| one.hosts == hosts);
    let Some(acme) = config.acme.as_ref().filter(is_managed) else { return Vec::new() };
    let issuer = |authority: &Authority| {
        let account = Stored::read(&acme.folder, &authority.directory).ok().flatten();
        Issuer {
            identity: identity(account.as_ref(), &authority.directory),
            title: authority.name.clone(),
            account: account.and_then(|account| account.url),
            methods: acme.challenges.iter().map(|method| method.name()).collect(),
        }
    };
    acme.authorities.iter().map(issuer).collect()
}

/// The name of an authority in CAA records: a known one, or the one that it has stated itself.
fn identity(account: Option<&Stored>, directory: &str) -> Option<String> {
    let known = IDENTITIES.iter().find(|(url, _)| *url == directory).map(|(_, name)| (*name).to_owned());
    known.or_else(|| account?.identities.first().cloned())
}
