//! `pintle export`: a site's pins, for clients that enforce them.
//!
//! An export binds: the guard must know it before anybody can rely on it. So the order is: collect
//! the pins, judge them, record the promise, and only then print.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::live::{as_served, on_disk, tell_of_reload, warn};
use super::own_keys::{NO_CERTIFICATE, issuers, next_keys, refusal, with_own_keys};
use super::{fail, fail_with_hint, files, ledger, no_such_site, pin, read, refuse};
use crate::config::value::show_duration;
use crate::config::{Config, Draft, report};
use crate::control::served::{LockedOutSite, Objection, ServedNow, Sites, ask_for_served, ask_to_promise};
use crate::export::{ExportForm, HTTPS, PinSet, Role, SiteKey, WithoutBackup, render};
use crate::host::HostPattern;
use crate::keys::key_file::{KeyAlgorithm, PublicKey, Want, public_key};
use crate::keys::pin::Pin;
use crate::ledger::Record;
use crate::os::read_error;
use crate::policy::hpkp::{self, Hpkp, Mode, PinFinding, judge};
use crate::policy::promise::{Promise, PromiseChannel};
use crate::reason::Reason;
use crate::site::Site;

const DAY: Duration = Duration::from_secs(86400);
/// The life of an export if neither the command nor the site gives one.
const LIFE: Duration = Duration::from_secs(90 * 86400);
/// The same for the header, as in the configuration.
const HEADER_LIFE: Duration = Duration::from_secs(30 * 86400);

/// The arguments.
#[derive(Debug, Clone)]
pub struct Options {
    /// Any host of the site.
    pub host: String,
    /// The format.
    pub form: ExportForm,
    /// Its life. If given, the export is a promise.
    pub life: Option<Duration>,
    /// Backups besides those of the configuration.
    pub backups: Vec<PathBuf>,
    /// `true` to export the live keys alone.
    pub without_backup: bool,
    /// A file instead of standard output.
    pub out: Option<PathBuf>,
}

/// Prints the export to standard output, and nothing else there.
pub fn export(path: &Path, options: &Options) -> ExitCode {
    let draft = match read(path) {
        Ok(draft) => draft,
        Err(reason) => return refuse(&reason),
    };
    let served = match draft.admin().map_or(Ok(None), |address| ask_for_served(&address)) {
        Ok(served) => served,
        Err(error) if options.life.is_some() => {
            return fail(&format!("not exported: the running process does not say which keys it serves: {error}"));
        }
        Err(error) => {
            super::warn(&format!("{error}: judged only by the files").into());
            None
        }
    };
    let config = match on_disk(&draft, served.is_some()) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let Some((site, report)) = find(&config, &options.host) else {
        return refuse(&no_such_site(&options.host, config.sites().flat_map(|s| s.hosts.clone())));
    };
    let now = Timestamp::now();
    let with_ports = |set| PinSet { ports: ports(&config), issuers: issuers(&config, &site.hosts), ..set };
    let mut options = options.clone();
    match next_keys(&config, site, report) {
        Ok(next) => options.backups.extend(next),
        Err(reason) => return refuse(&reason),
    }
    let options = &options;
    let live = served.as_deref().map_or_else(|| report.clone(), |served| as_served(report, served, &options.host));
    let live = match with_own_keys(live, &config, site) {
        Ok(live) => live,
        Err(reason) => return refuse(&reason),
    };
    match pin_set(options, path, site, &live, now)
        .map(with_ports)
        .and_then(|set| judge_sites(options, set, served.as_deref(), &config, now))
    {
        Ok(set) => {
            if served.is_some() {
                tell_of_reload(report, &live, &set);
            }
            give_out(&draft, options, &set, served.is_some(), now)
        }
        Err(reason) => refuse(&reason),
    }
}

/// The site of a host, looked up in the same way as for a request.
fn find<'c>(config: &'c Config, host: &str) -> Option<(&'c Site, &'c report::SiteReport)> {
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

/// Collects the site's pins, unless an export of them would do harm.
fn pin_set(
    options: &Options,
    path: &Path,
    site: &Site,
    report: &report::SiteReport,
    now: Timestamp,
) -> Result<PinSet, Reason> {
    let form = options.form;
    let keys = keys(options, path, report)?;
    let policy = site.hpkp.as_ref().map(|p| &p.policy);
    let default = || match policy {
        Some(policy) if policy.max_age > 0 => Duration::from_secs(policy.max_age),
        _ if form.is_header() => HEADER_LIFE,
        _ => LIFE,
    };
    let life = options.life.unwrap_or_else(default);
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
    if let Some(life) = options.life {
        header.max_age = life.as_secs();
    }
    judge_pins(options, report, &keys, header.max_age)?;
    Ok(PinSet {
        site: site.label(),
        hosts: site.hosts.clone(),
        keys,
        header,
        valid_until,
        ports: vec![HTTPS],
        issuers: Vec::new(),
    })
}

/// The live keys, then the backups; each key once.
fn keys(options: &Options, path: &Path, report: &report::SiteReport) -> Result<Vec<SiteKey>, Reason> {
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
    for file in &options.backups {
        let name = file.display().to_string();
        let contents = pin::read(file).map_err(|e| read_error::reason(file, &e).within(&"--backup"))?;
        let key = public_key(&contents)
            .map_err(|e| Reason::new(format!("--backup: {name}: {e}")).hints(e.hint(file, Want::Pin)))?;
        if report.certificates.iter().any(|c| c.pins.contains(&key.pin)) {
            let what = format!("--backup: {name}: {} is a key of the served chain, and no backup", key.pin);
            return Err(refusal(what, "a backup is a key that is not in use yet"));
        }
        backups.push((name, key));
    }
    for (index, (file, key)) in backups.into_iter().enumerate() {
        let role = Role::of_backup(index);
        add(SiteKey { pin: key.pin, algorithm: key.algorithm, role, file, not_after: None });
    }
    Ok(keys)
}

/// The rules of the header apply to every client that enforces pins; the consequence of a missing
/// backup differs.
fn judge_pins(options: &Options, report: &report::SiteReport, keys: &[SiteKey], max_age: u64) -> Result<(), Reason> {
    let form = options.form;
    let chains = chains(report);
    let backups: Vec<Pin> = keys.iter().filter(|k| k.role != Role::Live).map(|k| k.pin).collect();
    let findings = judge(&chains, &backups, max_age, u64::MAX);
    if findings.contains(&PinFinding::NoBackup) {
        let hint = format!(
            "pintle key new --role next --site {}; then name the CSR in the backups of [site.hpkp], or here with --backup",
            options.host
        );
        let name = form.name();
        match form.without_backup() {
            WithoutBackup::Useless => {
                return Err(refusal(format!("{name}: the site has no backup key, and apps refuse such pins"), hint));
            }
            WithoutBackup::LocksOut if !options.without_backup => {
                let what = format!(
                    "{name}: the site has no backup key: the next change of the key would lock all clients out"
                );
                return Err(refusal(what, hint));
            }
            WithoutBackup::LocksOut | WithoutBackup::Warned => {
                warn(
                    "the site has no backup key: the next change of the key locks out every client with these pins",
                    &hint,
                );
            }
        }
    }
    if form.is_header() && findings.contains(&PinFinding::MaxAgeAboveCap) {
        warn("clients that honoured the header kept pins for 60 days at most", "--life 60d");
    }
    Ok(())
}

/// Clients of an export check its names whichever site serves them. A site with other keys would be
/// unreachable for them from the first day.
fn judge_sites(
    options: &Options,
    set: PinSet,
    served: Option<&[ServedNow]>,
    config: &Config,
    now: Timestamp,
) -> Result<PinSet, Reason> {
    let on_disk = Sites::of_reports(config.sites());
    let now_served = served.map(Sites::of);
    let hint = "name that key with --backup, or leave include_subdomains out of [site.hpkp]";
    for promise in promises(options.form, &set, now) {
        let locked_out = now_served.as_ref().unwrap_or(&on_disk).locked_out(&promise);
        if let Some(LockedOutSite { hosts, pin, .. }) = locked_out.first() {
            let what = format!(
                "{}: would lock its users out of {}: it binds names of that site, too, whose chain has none of these keys ({pin})",
                options.form.name(),
                hosts.join(", "),
            );
            if options.life.is_some() {
                return Err(refusal(what, hint));
            }
            warn(&what, hint);
        }
        // A reload is judged when it comes; the operator of an export hears of it now.
        let later = on_disk.locked_out(&promise).into_iter().filter(|site| site.site != set.site);
        for LockedOutSite { hosts, pin, .. } in later.filter(|site| !locked_out.contains(site)) {
            let what =
                format!("`pintle reload` would serve {} with {pin}, which is not in this export", hosts.join(", "));
            warn(&what, hint);
        }
    }
    Ok(set)
}

fn chains(report: &report::SiteReport) -> Vec<Vec<Pin>> {
    report.certificates.iter().map(|c| c.pins.clone()).collect()
}

/// Records the promise, then prints the export.
fn give_out(draft: &Draft, options: &Options, set: &PinSet, is_running: bool, now: Timestamp) -> ExitCode {
    let form = options.form;
    let Some(text) = render(form, set) else {
        return fail_with_hint(
            &format!("{}: the site's hosts are addresses, and this takes names only", form.name()),
            &"the other forms take addresses",
        );
    };
    let promised = options.life.is_some();
    if promised && let Err(objection) = record_promises(draft, promises(form, set, now), is_running) {
        let reason = objection.reason("no reason is given");
        let reason = reason.within(&"not exported: cannot record the promise");
        return refuse(&match objection.locked_out.is_empty() {
            true => reason,
            false => reason.hint("the process serves other keys since then: export again"),
        });
    }
    tell(form, set, promised);
    // Clients would enforce half a file, too.
    match &options.out {
        None => print!("{text}"),
        Some(out) => {
            if let Err(error) = files::replace(out, text.as_bytes(), 0o644) {
                return fail(&format!("{}: {error}", out.display()));
            }
        }
    }
    ExitCode::SUCCESS
}

/// The promise that the export makes, in the guard's form.
fn promises(form: ExportForm, set: &PinSet, now: Timestamp) -> Vec<Promise> {
    let mut pins = set.header.pins.clone();
    pins.sort_unstable();
    let held_for = set.held_until(form).as_second().saturating_sub(now.as_second());
    let promise = |(hosts, include_subdomains)| Promise {
        site: set.site.clone(),
        hosts,
        // Clients of an export check its names, whichever site serves them.
        except: Vec::new(),
        pins: pins.clone(),
        max_age: u64::try_from(held_for).unwrap_or(0),
        include_subdomains,
        channel: PromiseChannel::Export {
            form: form.name().to_owned(),
            id: set.number(form),
            leaf_only: form.leaf_only(),
        },
        first_sent: now.as_second(),
        last_sent: now.as_second(),
    };
    set.bindings(form).into_iter().map(promise).collect()
}

/// Records promises before anybody can rely on them: through the running process, which judges them
/// once more.
fn record_promises(draft: &Draft, promises: Vec<Promise>, is_running: bool) -> Result<(), Objection> {
    if draft.state().is_none() {
        warn("this promise is not stored: state.directory is not set", "[state] directory = \"/var/lib/pintle\"");
        if !is_running {
            return Ok(());
        }
    }
    let remote = |promises: &[Promise]| match draft.admin() {
        Some(address) => ask_to_promise(&address, promises),
        None => {
            let reason = Reason::new("another process has the ledger, and the configuration has no admin socket");
            Err(reason.hint("set admin.listen as for that process").into())
        }
    };
    if is_running {
        return remote(&promises);
    }
    let records = promises.iter().cloned().map(Record::Promise).collect();
    match ledger::add_to_file(draft, records)? {
        Some(_) => Ok(()),
        // It has been started since.
        None => remote(&promises),
    }
}

/// Notes for the operator, on standard error.
fn tell(form: ExportForm, set: &PinSet, promised: bool) {
    let name = form.name();
    if form.is_header() {
        eprintln!("note: {}", hpkp::TODAY);
        if set.header.mode == Mode::ReportOnly {
            eprintln!("note: the site's mode is report-only: this header binds nobody");
        }
    }
    if form.widens_wildcards() {
        for host in set.hosts.iter().filter(|h| h.is_wildcard()) {
            let own = set.hosts.iter().any(|h| h.exact() == Some(host.base()));
            if !own {
                let what = format!("{name} has no wildcards: for {host}, {} itself is pinned, too", host.base());
                warn(&what, "if that is served with another key, take the domain out of the export");
            }
        }
    }
    let unknown = |key: &&SiteKey| match key.algorithm {
        KeyAlgorithm::Rsa(bits) => ![2048, 3072, 4096].contains(&bits),
        KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384 => false,
        KeyAlgorithm::EcdsaP521 | KeyAlgorithm::Ed25519 | KeyAlgorithm::Other => true,
    };
    // TSKSPKIHashCache: a key of any other kind fails the connection, whatever is pinned.
    if let Some(key) = set.keys.iter().find(unknown).filter(|_| form == ExportForm::TrustKit) {
        warn(
            &format!("trustkit refuses every certificate with a key of this kind: {} ({})", key.algorithm, key.file),
            "RSA of 2048, 3072 or 4096 bits, ECDSA on P-256 or P-384",
        );
    }
    let promise = if promised { "promised" } else { "not recorded as a promise; --life TIME records it" };
    eprintln!("note: export {} for {}, valid until {}: {promise}", set.number(form), set.site, set.valid_until);
}
