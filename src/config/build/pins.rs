//! `[site.hpkp]`: the keys behind the pins.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::checker::Checker;
use super::files::{mode, read};
use super::hsts::ramp;
use super::loaded::LoadedCertificate;
use super::pair_files::BackupFile;
use super::pin_plan::{Backup, PinPlan, key_new};
use super::report::CertificateLack;
use super::stand_in::{MissingPair, StandIns};
use crate::config::file::{HpkpTable, SiteTable};
use crate::config::own_key;
use crate::config::problem::At;
use crate::config::stamp::Stamp;
use crate::host::HostPattern;
use crate::keys::key_file::Want;
use crate::keys::pin::Pin;
use crate::policy::hpkp::{Mode, is_report_uri};
use crate::policy::ramp::Steps;
use crate::reason::{Problem, Reason};
use crate::tls::key_process;

/// The age that pins get if the file does not say.
const MAX_AGE: Duration = Duration::from_secs(30 * 86400);

/// The pairs of a site that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingPairs {
    None,
    /// The CA has not issued their certificates yet.
    Awaited,
    /// Nobody knows their keys.
    Some,
}

impl MissingPairs {
    pub(super) fn of(missing: &[MissingPair]) -> Self {
        match missing.iter().all(|pair| pair.lack == CertificateLack::NotYet) {
            _ if missing.is_empty() => Self::None,
            true => Self::Awaited,
            false => Self::Some,
        }
    }
}

pub(super) fn plan(
    table: &SiteTable,
    hosts: &[At<HostPattern>],
    (loaded, are_own, missing): (&[LoadedCertificate], bool, MissingPairs),
    stand_ins: &StandIns<'_>,
    r: &mut Checker<'_>,
) -> Option<PinPlan> {
    let hpkp = table.hpkp.as_ref()?;
    let words = [("enforce", Mode::Enforce), ("report-only", Mode::ReportOnly), ("withdraw", Mode::Withdraw)];
    let mode = r.choice("site.hpkp.mode", hpkp.mode.as_ref(), &words, Mode::Enforce);
    let site = hosts.first().map(|at| at.value.to_string()).unwrap_or_default();
    let sends_none = loaded.is_empty() && missing != MissingPairs::None;
    let (mut backups, lacks_backups) = backups_of(table, hpkp, &site, sends_none, stand_ins, r);
    let report_uri = report_uri(hpkp, mode, hosts, r);
    let steps = ramp(&hpkp.ramp, "site.hpkp", hpkp.max_age.as_ref(), r);
    if loaded.is_empty() {
        // A chain that did not load is reported already. A missing one is not.
        if table.certificates.is_empty() {
            r.error_with_hint(
                &hpkp.span,
                "site.hpkp: no live key to pin",
                "name the chain in [site.certificate]; leave out key only where TLS ends in front of pintle",
            );
        }
        return None;
    }
    let given = hpkp.max_age.as_ref().map(|m| m.value.as_secs());
    let goal = given.or_else(|| steps.as_ref().map(Steps::goal)).unwrap_or(MAX_AGE.as_secs());
    let complete = backups.len() == hpkp.listed().count() && loaded.len() == table.certificates.len();
    let is_twice = |at: usize, backup: &Backup| backups.iter().take(at).any(|known| known.key.pin == backup.key.pin);
    let has_twice = backups.iter().enumerate().any(|(at, backup)| is_twice(at, backup));
    // A file may have been overwritten with the other one's key.
    let forgives_twice = has_twice && stand_ins.were_served(table, |text| r.path(text));
    let include_subdomains = hpkp.include_subdomains.as_ref().is_some_and(|i| i.value);
    // The key of a pair that serves is read already.
    let (waiting, lacks_key) = if are_own { (Vec::new(), false) } else { waiting_keys(table, loaded, &backups, r) };
    backups.extend(waiting);
    Some(PinPlan {
        site: site.into(),
        mode,
        goal,
        steps,
        include_subdomains,
        report_uri,
        backups,
        complete,
        lacks_backups,
        forgives_twice,
        renews_itself: !hpkp.own.is_empty(),
        lacks_pair: match missing {
            MissingPairs::None => false,
            // Their keys are promised.
            MissingPairs::Awaited => lacks_key,
            MissingPairs::Some => true,
        },
    })
}

/// The live keys of pairs that pintle obtains, while another pair serves in their place: after a change from files to
/// `acme = true`, or if pintle had to make a new key. Unless they are promised, each certificate for them is refused. Also
/// returns `true` if the key of a pair that is not there is unknown.
fn waiting_keys(
    table: &SiteTable,
    loaded: &[LoadedCertificate],
    backups: &[Backup],
    r: &mut Checker<'_>,
) -> (Vec<Backup>, bool) {
    let (mut waiting, mut lacks_key) = (Vec::new(), false);
    for (index, pair) in table.certificates.iter().enumerate().filter(|(_, pair)| pair.managed.is_some()) {
        let Some(at) = &pair.key else { continue };
        let path = r.path(&at.value);
        r.stamps.push((path.clone(), Stamp::of(&path)));
        let key = match key_process::running() {
            // This process may not read it.
            Some(keys) => keys.load(&path).ok().and_then(|key| key.public_half()),
            None => own_key::read_public(&path).ok().flatten(),
        };
        let is_known = |pin: Pin| {
            loaded.iter().any(|loaded| loaded.chain.pin() == pin)
                || backups.iter().chain(&waiting).any(|backup| backup.key.pin == pin)
        };
        match key {
            Some(key) if is_known(key.pin) => {}
            Some(key) => waiting.push(Backup { file: at.value.clone(), key, at: None }),
            None => lacks_key |= !loaded.iter().any(|loaded| loaded.at == index),
        }
    }
    (waiting, lacks_key)
}

/// The backups, and `true` if some are missing that an earlier process has had. The site is then served without pins,
/// as it was served before. A site without a certificate (`sends_none`) sends none in any case.
fn backups_of(
    table: &SiteTable,
    hpkp: &HpkpTable,
    site: &str,
    sends_none: bool,
    stand_ins: &StandIns<'_>,
    r: &mut Checker<'_>,
) -> (Vec<Backup>, bool) {
    let mut problems = r.problems.scratch();
    let mut own = Checker { problems: &mut problems, stamps: Vec::new(), ..*r };
    let backups = backups(hpkp, &mut own);
    let stamps = std::mem::take(&mut own.stamps);
    r.stamps.extend(stamps);
    // Without its own next key, a promise would have no backup.
    let lacks_own =
        backups.iter().filter(|backup| backup.at.is_some_and(|at| at < hpkp.own.len())).count() < hpkp.own.len();
    let lacks = problems.has_errors() && (sends_none || stand_ins.were_served(table, |text| r.path(text)));
    if lacks {
        problems.forgive();
        r.warn(
            &hpkp.span,
            "site.hpkp: a backup is no longer readable, so pintle sends no pins; it keeps earlier promises",
            format!("put its file back, or name another key in backups: {}", key_new(site)),
        );
    }
    r.problems.extend(problems.into_list());
    (backups, lacks || lacks_own)
}

fn backups(hpkp: &HpkpTable, r: &mut Checker<'_>) -> Vec<Backup> {
    let mut backups = Vec::new();
    for (place, at) in hpkp.listed().enumerate() {
        let path = r.path(&at.value);
        let is_own = place < hpkp.own.len();
        if is_own && !matches!(own_key::read(&path), Ok(Some(_))) {
            // pintle makes a missing one before it serves. An unusable one is reported by itself.
            r.stamps.push((path.clone(), Stamp::of(&path)));
            continue;
        }
        let Some(file) = backup_file(&path, at, r) else { continue };
        let key = match &file.key {
            Ok(key) => *key,
            Err(error) => {
                let reason = Reason::new(format!("{}: {error}", r.shown(&path)));
                let form = "expected a certificate, a CSR, a private or a public key, in PEM or DER";
                let reason = match error.hint(&path, Want::Pin) {
                    Some(hint) => reason.hint(hint),
                    None => reason.note(form),
                };
                r.report(Problem::error(&at.span, reason).about(&path));
                continue;
            }
        };
        if !is_own && file.is_private {
            let problem = private_backup(at, &path, r);
            r.report(problem);
        }
        backups.push(Backup { file: at.value.clone(), key, at: Some(place) });
    }
    backups
}

/// Reads the file of a backup, unless another thread has done so.
fn backup_file(path: &Path, at: &At<String>, r: &mut Checker<'_>) -> Option<Arc<BackupFile>> {
    if let Some((stamp, file)) = r.ahead.backup(path) {
        r.stamps.push((path.to_owned(), stamp));
        return Some(file);
    }
    read("site.hpkp.backups", path, &at.span, r).map(|contents| Arc::new(BackupFile::of(&contents)))
}

/// The problem of a backup whose private key is on this host.
fn private_backup(at: &At<String>, path: &Path, r: &Checker<'_>) -> Problem {
    let file = r.shown(path);
    if mode(path).is_some_and(|mode| mode & 0o077 != 0) {
        let reason = Reason::new(format!("{file}: others can read this private backup key"))
            .hint(format!(
                "better: keep it off this host; `openssl pkey -in {file} -pubout` gives the public key for backups"
            ))
            .command(format!("chmod 600 {file}"));
        return Problem::error(&at.span, reason).about(path);
    }
    let reason = Reason::new(format!("{file}: this host has the private half of its own backup key"))
        .note("an attacker who takes over this host gets the backup, too")
        .hint("keep it elsewhere, and only its CSR or public key here");
    Problem::warning(&at.span, reason).about(path).shared("private backup key", file)
}

fn report_uri(hpkp: &HpkpTable, mode: Mode, hosts: &[At<HostPattern>], r: &mut Checker<'_>) -> Option<String> {
    let Some(uri) = &hpkp.report_uri else {
        if mode == Mode::ReportOnly {
            r.warn(
                &hpkp.span,
                "site.hpkp: report-only has no effect without report_uri",
                "report_uri = \"https://...\"",
            );
        }
        return None;
    };
    if !is_report_uri(&uri.value) {
        r.error_with_hint(
            &uri.span,
            format!("site.hpkp.report_uri: invalid URI {:?}", uri.value),
            "use an absolute http or https URI, without quotes, backslashes and spaces",
        );
        return None;
    }
    let authority =
        uri.value.split("://").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    let host = authority.split(':').next().unwrap_or_default().to_ascii_lowercase();
    if hosts.iter().any(|h| h.value.matches(&host)) {
        let what =
            format!("site.hpkp.report_uri: {host} is the pinned host itself: when pins fail, clients cannot reach it");
        let reason = Reason::new(what).hint("collect reports under another name, with other keys");
        r.report(Problem::warning(&uri.span, reason).shared("reports to the pinned host", host));
    }
    Some(uri.value.clone())
}
