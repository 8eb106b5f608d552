//! The pins of a site for an export: collected, and judged by the rules that hold for every client. The command and the
//! admin page make the same exports.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::own_keys::{NO_CERTIFICATE, issuers, refusal};
use crate::config::value::show_duration;
use crate::config::{Config, report};
use crate::export::{ExportForm, HTTPS, PinSet, Role, SiteKey, WithoutBackup, render};
use crate::host::HostPattern;
use crate::keys::key_file::{PublicKey, Want, public_key};
use crate::keys::pin::Pin;
use crate::policy::hpkp::{Hpkp, Mode, PinFinding, judge};
use crate::reason::pasted::pintle;
use crate::reason::{Reason, shell_word};
use crate::site::Site;

const DAY: Duration = Duration::from_secs(86400);
/// The life of an export if neither the command nor the site gives one.
const LIFE: Duration = Duration::from_secs(90 * 86400);
/// The same for the header, as in the configuration.
const HEADER_LIFE: Duration = Duration::from_secs(30 * 86400);

/// A backup: its file and its key.
pub type BackupKey = (String, PublicKey);

/// The wanted export.
#[derive(Debug, Clone)]
pub struct WantedExport {
    /// Any host of the site.
    pub host: String,
    /// The format.
    pub form: ExportForm,
    /// Its life. If given, the export is a promise.
    pub life: Option<Duration>,
    /// Backups besides those of the configuration.
    pub backups: Vec<BackupKey>,
    /// `true` to export the live keys alone.
    pub without_backup: bool,
}

/// The backup in a file's contents.
///
/// # Errors
///
/// If they hold no key.
pub fn backup(file: &Path, contents: &[u8]) -> Result<BackupKey, Reason> {
    let name = file.display().to_string();
    let key = public_key(contents)
        .map_err(|e| Reason::new(format!("--backup: {name}: {e}")).hints(e.hint(file, Want::Pin)))?;
    Ok((name, key))
}

/// The site of a host, looked up in the same way as for a request.
#[must_use]
pub fn find<'c>(config: &'c Config, host: &str) -> Option<(&'c Site, &'c report::SiteReport)> {
    let wanted = HostPattern::parse(host).ok()?;
    let by_host = &config.snapshot.by_host;
    let index = *match wanted.exact() {
        Some(name) => by_host.get(name),
        None => by_host.get_pattern(&wanted),
    }?;
    Some((config.snapshot.sites.get(index)?, config.sites().nth(index)?))
}

/// The ports at which clients reach the sites: the configured one, or those of the listeners.
fn ports(config: &Config) -> Vec<u16> {
    let listeners = config.https.iter().map(|address| address.port()).filter(|port| *port != 0);
    let mut ports = Vec::new();
    for port in config.snapshot.public_https_port.map_or_else(|| listeners.collect(), |public| vec![public]) {
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    if ports.is_empty() { vec![HTTPS] } else { ports }
}

/// Collects the site's pins, unless an export of them would do harm. `report` has the chains that are served. The
/// configuration file at `path` gives the folder of the backups.
///
/// # Errors
///
/// The reason of the refusal.
pub fn collect(
    wanted: &WantedExport,
    path: &Path,
    (site, report): (&Site, &report::SiteReport),
    config: &Config,
    now: Timestamp,
    warnings: &mut Vec<Reason>,
) -> Result<PinSet, Reason> {
    let form = wanted.form;
    let keys = keys(wanted, path, report)?;
    let policy = site.hpkp.as_ref().map(|p| &p.policy);
    let default = || match policy {
        Some(policy) if policy.max_age > 0 => Duration::from_secs(policy.max_age),
        _ if form.is_header() => HEADER_LIFE,
        _ => LIFE,
    };
    let life = wanted.life.unwrap_or_else(default);
    if life.as_secs() == 0 {
        return Err(refusal(
            "--life: must be more than zero",
            "--life 90d; the site's mode = \"withdraw\" takes pins back",
        ));
    }
    if form.ends_on_a_date() && life < DAY {
        let life = show_duration(life);
        let what =
            format!("{}: pins expire at the start of a day, and {life} from now may be before the next", form.name());
        return Err(refusal(what, "--life 30d"));
    }
    let valid_until = i64::try_from(life.as_secs())
        .ok()
        .and_then(|seconds| {
            Timestamp::from_second(now.as_second()).ok()?.checked_add(SignedDuration::from_secs(seconds)).ok()
        })
        .ok_or_else(|| refusal(format!("--life: {} is beyond the calendar", show_duration(life)), "--life 90d"))?;
    let mut header = policy.cloned().unwrap_or_else(|| Hpkp {
        mode: Mode::Enforce,
        max_age: life.as_secs(),
        pins: Vec::new(),
        include_subdomains: false,
        report_uri: None,
    });
    header.pins = keys.iter().map(|key| key.pin).collect();
    if let Some(life) = wanted.life {
        header.max_age = life.as_secs();
    }
    judge_pins(wanted, report, &keys, header.max_age, warnings)?;
    Ok(PinSet {
        site: site.label(),
        hosts: site.hosts.clone(),
        keys,
        header,
        valid_until,
        ports: ports(config),
        issuers: issuers(config, &site.hosts),
    })
}

/// The text of an export.
///
/// # Errors
///
/// If the form takes names only, and the site has none.
pub fn text(form: ExportForm, set: &PinSet) -> Result<String, Reason> {
    render(form, set).ok_or_else(|| {
        let what = format!("{}: the site's hosts are addresses, and this takes names only", form.name());
        refusal(what, "the other forms take addresses")
    })
}

/// The live keys, then the backups; each key once.
fn keys(wanted: &WantedExport, path: &Path, report: &report::SiteReport) -> Result<Vec<SiteKey>, Reason> {
    let mut keys: Vec<SiteKey> = Vec::new();
    let mut add = |key: SiteKey| {
        if keys.iter().all(|known| known.pin != key.pin) {
            keys.push(key);
        }
    };
    for live in &report.certificates {
        let not_after = Some(live.not_after).filter(|end| *end != NO_CERTIFICATE);
        let file = live.path.clone();
        add(SiteKey { pin: live.pin, algorithm: live.algorithm, role: Role::Live, file, not_after });
    }
    if report.certificates.is_empty() {
        return Err(refusal(
            "the site has no certificate, and so no live key",
            "name the chain in [site.certificate]; the key may be absent where TLS ends in front of pintle",
        ));
    }
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let mut backups: Vec<(String, PublicKey)> =
        report.backups.iter().map(|(file, key)| (folder.join(file).display().to_string(), *key)).collect();
    for (name, key) in &wanted.backups {
        if report.certificates.iter().any(|c| c.pins.contains(&key.pin)) {
            let what = format!("--backup: {name}: {} is a key of the served chain, and no backup", key.pin);
            return Err(refusal(what, "a backup is a key that is not in use yet"));
        }
        backups.push((name.clone(), *key));
    }
    let live = report.certificates.iter().map(|live| live.algorithm);
    let roles = Role::of_backups(live, backups.iter().map(|(_, key)| Some(key.algorithm)));
    for ((file, key), role) in backups.into_iter().zip(roles) {
        add(SiteKey { pin: key.pin, algorithm: key.algorithm, role, file, not_after: None });
    }
    Ok(keys)
}

/// The rules of the header apply to every client that enforces pins; the consequence of a missing
/// backup differs.
fn judge_pins(
    wanted: &WantedExport,
    report: &report::SiteReport,
    keys: &[SiteKey],
    max_age: u64,
    warnings: &mut Vec<Reason>,
) -> Result<(), Reason> {
    let form = wanted.form;
    let chains: Vec<Vec<Pin>> = report.certificates.iter().map(|c| c.pins.clone()).collect();
    let backups: Vec<Pin> = keys.iter().filter(|k| k.role != Role::Live).map(|k| k.pin).collect();
    let findings = judge(&chains, &backups, max_age, u64::MAX);
    if findings.contains(&PinFinding::NoBackup) {
        let hint = format!(
            "{}; then name the CSR in the backups of [site.hpkp], or here with --backup",
            pintle(format_args!("key new --role next --site {}", shell_word(&wanted.host)))
        );
        let name = form.name();
        match form.without_backup() {
            WithoutBackup::Useless => {
                return Err(refusal(format!("{name}: the site has no backup key, and apps refuse such pins"), hint));
            }
            WithoutBackup::LocksOut if !wanted.without_backup => {
                let what = format!(
                    "{name}: the site has no backup key: the next change of the key would lock all clients out"
                );
                return Err(refusal(what, hint));
            }
            WithoutBackup::LocksOut | WithoutBackup::Warned => {
                let what =
                    "the site has no backup key: the next change of the key locks out every client with these pins";
                warnings.push(refusal(what, hint));
            }
        }
    }
    if form.is_header() && findings.contains(&PinFinding::MaxAgeAboveCap) {
        warnings.push(refusal("clients that honoured the header kept pins for 60 days at most", "--life 60d"));
    }
    Ok(())
}
