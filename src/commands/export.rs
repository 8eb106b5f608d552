//! `pintle export`: a site's pins, for clients that enforce them.
//!
//! An export binds: the guard must know it before anybody can rely on it. So the order is: collect
//! the pins, judge them, record the promise, and only then print.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;

use super::live::{as_served, on_disk, warn, warn_of_reload};
use super::{fail, ledger, no_such_site, pin, read, refuse};
use crate::config::{Config, Draft};
use crate::control::own_keys::{next_keys, with_own_keys};
use crate::control::pin_set::{self, WantedExport, backup, find};
use crate::control::served::{LockedOutSite, Objection, ServedNow, Sites, ask_for_served, ask_to_promise};
use crate::export::{ExportForm, PinSet, SiteKey};
use crate::keys::key_file::KeyAlgorithm;
use crate::ledger::Record;
use crate::os::words::words;
use crate::os::{plain_file, read_error};
use crate::policy::hpkp::{self, Mode};
use crate::policy::promise::{Promise, PromiseChannel};
use crate::reason::Reason;

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
    let live = served.as_deref().map_or_else(|| report.clone(), |served| as_served(report, served, &options.host));
    let mut warnings = Vec::new();
    let collected = with_own_keys(live, &config, site, &mut warnings).and_then(|live| {
        let next = next_keys(&config, site, report)?;
        let files = options.backups.iter().chain(&next);
        let backups = files.map(|file| read_backup(file)).collect::<Result<Vec<_>, Reason>>()?;
        let Options { host, form, life, without_backup, .. } = options.clone();
        let wanted = WantedExport { host, form, life, backups, without_backup };
        let set = pin_set::collect(&wanted, path, (site, &live), &config, now, &mut warnings)?;
        Ok((live, set))
    });
    warnings.iter().for_each(super::warn);
    match collected.and_then(|(live, set)| {
        let set = judge_sites(options, set, served.as_deref(), &config, now)?;
        Ok((live, set))
    }) {
        Ok((live, set)) => {
            if served.is_some() {
                warn_of_reload(report, &live, &set);
            }
            give_out(&draft, options, &set, served.is_some(), now)
        }
        Err(reason) => refuse(&reason),
    }
}

/// Reads the file of a backup.
fn read_backup(file: &Path) -> Result<pin_set::BackupKey, Reason> {
    let contents = pin::read(file).map_err(|e| read_error::reason(file, &e).within(&"--backup"))?;
    backup(file, &contents)
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
                return Err(Reason::new(what).hint(hint));
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

/// Records the promise, then prints the export.
fn give_out(draft: &Draft, options: &Options, set: &PinSet, is_running: bool, now: Timestamp) -> ExitCode {
    let form = options.form;
    let text = match pin_set::text(form, set) {
        Ok(text) => text,
        Err(reason) => return refuse(&reason),
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
    print_notes(form, set, promised);
    // Clients would enforce half a file, too.
    match &options.out {
        None => print!("{text}"),
        Some(out) => {
            if let Err(error) = plain_file::replace(out, text.as_bytes(), 0o644) {
                return fail(&format!("{}: {}", out.display(), words(&error)));
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
fn print_notes(form: ExportForm, set: &PinSet, promised: bool) {
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
