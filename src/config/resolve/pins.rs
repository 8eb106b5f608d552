//! `[site.hpkp]`: the pins, and whether they may be promised.

use std::time::Duration;

use super::Resolver;
use super::certificates::{Loaded, mode, read};
use crate::config::file::{HpkpTable, SiteTable};
use crate::config::problem::At;
use crate::config::value::show_duration;
use crate::host::HostPattern;
use crate::key_file::{KeyKind, PublicKey, public_key};
use crate::pin::Pin;
use crate::policy::hpkp::{Finding, Hpkp, MAX_AGE_CAP, Mode, is_report_uri, judge};

/// The age that pins get if the file does not say.
const MAX_AGE: Duration = Duration::from_secs(30 * 86400);

/// A policy, and the keys behind it.
pub(super) struct Pins {
    pub(super) policy: Hpkp,
    pub(super) backups: Vec<(String, PublicKey)>,
}

pub(super) fn resolve(
    table: &SiteTable,
    hosts: &[At<HostPattern>],
    loaded: &[Loaded],
    r: &mut Resolver<'_>,
) -> Option<Pins> {
    let hpkp = table.hpkp.as_ref()?;
    let words = [("enforce", Mode::Enforce), ("report-only", Mode::ReportOnly), ("withdraw", Mode::Withdraw)];
    let mode = r.choice("site.hpkp.mode", hpkp.mode.as_ref(), &words, Mode::Enforce);
    let backups = backups(hpkp, r);
    let report_uri = report_uri(hpkp, mode, hosts, r);
    if loaded.is_empty() {
        // A chain that did not load has been told of; one that was not given has not.
        if table.certificates.is_empty() {
            r.error_with_hint(
                &hpkp.span,
                "site.hpkp: there is no live key to pin",
                "name the chain in [site.certificate]; the key may be absent where TLS ends in front of pintle",
            );
        }
        return None;
    }
    let max_age = hpkp.max_age.as_ref().map_or(MAX_AGE, |m| m.value).as_secs();
    let mut policy = Hpkp {
        mode,
        max_age,
        pins: Vec::new(),
        include_subdomains: hpkp.include_subdomains.as_ref().is_some_and(|i| i.value),
        report_uri,
    };
    for pin in loaded.iter().map(|l| l.chain.pin()).chain(backups.iter().map(|b| b.key.pin)) {
        if !policy.pins.contains(&pin) {
            policy.pins.push(pin);
        }
    }
    let complete =
        backups.len() == hpkp.backups.as_ref().map_or(0, Vec::len) && loaded.len() == table.certificates.len();
    tell(hpkp, &policy, loaded, &backups, complete, r);
    Some(Pins { policy, backups: backups.into_iter().map(|b| (b.at.value, b.key)).collect() })
}

struct Backup {
    at: At<String>,
    key: PublicKey,
}

fn backups(hpkp: &HpkpTable, r: &mut Resolver<'_>) -> Vec<Backup> {
    let mut backups = Vec::new();
    for at in hpkp.backups.iter().flatten() {
        let path = r.path(&at.value);
        let Some(contents) = read("site.hpkp.backups", &path, &at.span, r) else { continue };
        let key = match public_key(&contents) {
            Ok(key) => key,
            Err(error) => {
                r.error_with_hint(
                    &at.span,
                    format!("{}: {error}", path.display()),
                    "a backup is a certificate, a CSR, a private or a public key, in PEM or DER",
                );
                continue;
            }
        };
        if key.kind == KeyKind::PrivateKey {
            if mode(&path).is_some_and(|mode| mode & 0o077 != 0) {
                r.error_with_hint(
                    &at.span,
                    format!("{}: a backup private key that others can read", path.display()),
                    format!(
                        "chmod 600 {path}; better, keep it off this host: `openssl pkey -in {path} -pubout` is all that is needed here",
                        path = path.display()
                    ),
                );
            } else {
                r.warn(
                    &at.span,
                    format!(
                        "{}: the private half of a backup key lies on the host that it is to back up",
                        path.display()
                    ),
                    "keep it elsewhere, and only its CSR or public key here: who takes this host takes the backup, too",
                );
            }
        }
        backups.push(Backup { at: at.clone(), key });
    }
    backups
}

fn report_uri(hpkp: &HpkpTable, mode: Mode, hosts: &[At<HostPattern>], r: &mut Resolver<'_>) -> Option<String> {
    let Some(uri) = &hpkp.report_uri else {
        if mode == Mode::ReportOnly {
            r.warn(
                &hpkp.span,
                "site.hpkp: report-only without report_uri does nothing",
                "report_uri = \"https://...\"",
            );
        }
        return None;
    };
    if !is_report_uri(&uri.value) {
        r.error_with_hint(
            &uri.span,
            format!("site.hpkp.report_uri: {:?} cannot be sent", uri.value),
            "an absolute http or https URI, without quotes, backslashes and spaces",
        );
        return None;
    }
    let authority =
        uri.value.split("://").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    let host = authority.split(':').next().unwrap_or_default().to_ascii_lowercase();
    if hosts.iter().any(|h| h.value.matches(&host)) {
        r.warn(
            &uri.span,
            format!(
                "site.hpkp.report_uri: {host} is the pinned host itself, which cannot be reached just when pins fail"
            ),
            "collect reports under another name, with other keys",
        );
    }
    Some(uri.value.clone())
}

/// The rules of [`judge`], in the words of the file.
fn tell(hpkp: &HpkpTable, policy: &Hpkp, loaded: &[Loaded], backups: &[Backup], complete: bool, r: &mut Resolver<'_>) {
    let chains: Vec<Vec<Pin>> = loaded.iter().map(|l| l.chain.pins.clone()).collect();
    let pins: Vec<Pin> = backups.iter().map(|b| b.key.pin).collect();
    let shortest = loaded.iter().map(|l| l.chain.leaf.not_after).min().unwrap_or(r.now);
    let lifetime = u64::try_from(shortest.duration_since(r.now).as_secs()).unwrap_or(0);
    let max_age_span = hpkp.max_age.as_ref().map_or(&hpkp.span, |m| &m.span).clone();
    let place = |pin: Pin| backups.iter().rev().find(|b| b.key.pin == pin).map_or(&hpkp.span, |b| &b.at.span).clone();
    for finding in judge(&chains, &pins, policy.max_age, lifetime) {
        match finding {
            // With a file that could not be read, there is no telling what would be there.
            Finding::NoLivePin | Finding::NoBackup | Finding::SingleBackup | Finding::OutlivesCertificate if !complete => {}
            Finding::NoLivePin => r.error(&hpkp.span, "site.hpkp: no pin matches the served chain"),
            Finding::NoBackup => r.error_with_hint(
                hpkp.backups.as_ref().and_then(|b| b.first()).map_or(&hpkp.span, |b| &b.span),
                "site.hpkp: no backup lies outside of the served chain; clients would ignore the header, and a lost key would lock them out",
                "make one with `pintle key new --role spare`, keep it offline, and name its public key or CSR in backups",
            ),
            Finding::BackupIsServed(pin) => r.error_with_hint(
                &place(pin),
                format!("site.hpkp.backups: {pin} is a key of the served chain, and no backup"),
                "a backup is a key that is not in use yet",
            ),
            Finding::BackupTwice(pin) => r.error(&place(pin), format!("site.hpkp.backups: {pin} is here twice, which makes it one")),
            Finding::SingleBackup => r.warn(
                hpkp.backups.as_ref().and_then(|b| b.first()).map_or(&hpkp.span, |b| &b.span),
                "site.hpkp.backups: there is only one; once it is live, nothing is left to rotate to",
                "add a second one, offline",
            ),
            Finding::MaxAgeAboveCap => r.warn(
                &max_age_span,
                format!(
                    "site.hpkp.max_age: clients keep pins for {} at most, and a mistake for just as long",
                    show_duration(Duration::from_secs(MAX_AGE_CAP))
                ),
                "max_age = \"30d\"",
            ),
            Finding::OutlivesCertificate => r.warn(
                &max_age_span,
                "site.hpkp.max_age: clients hold the pins for longer than the certificate lasts, and there is one backup only",
                "a shorter max_age, or a second backup",
            ),
        }
    }
}
