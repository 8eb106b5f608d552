//! `[site.hpkp]`: the pins, and the check that they may be promised.

use std::path::Path;
use std::time::Duration;

use super::Checker;
use super::certificates::{Loaded, mode, read};
use super::hsts::ramp;
use super::stand_in::StandIns;
use crate::config::file::{HpkpTable, SiteTable};
use crate::config::problem::At;
use crate::config::value::show_duration;
use crate::host::HostPattern;
use crate::keys::key_file::{KeyKind, PublicKey, Want, has_private_key, public_key};
use crate::keys::pin::Pin;
use crate::policy::hpkp::{Finding, Hpkp, MAX_AGE_CAP, Mode, is_report_uri, judge, standing};
use crate::policy::ramp::Steps;
use crate::reason::{Problem, Reason};

/// The age that pins get if the file does not say.
const MAX_AGE: Duration = Duration::from_secs(30 * 86400);

/// `[site.hpkp]`, with the keys behind it.
pub(super) struct PinPlan {
    /// The site's first name.
    site: Box<str>,
    pub(super) mode: Mode,
    /// The max-age at the end of the ramp.
    goal: u64,
    pub(super) steps: Option<Steps>,
    include_subdomains: bool,
    report_uri: Option<String>,
    pub(super) backups: Vec<Backup>,
    /// All files could be read.
    complete: bool,
    /// A backup was readable once and no longer is, so the promise is unknown.
    pub(super) lacks_backups: bool,
}

/// A header that may be sent, or the reason against it.
pub(super) struct Judged {
    pub(super) policy: Hpkp,
    /// It lacks a backup, as the last one has become live.
    pub(super) withheld: bool,
    /// Backups that have become live.
    pub(super) promoted: Vec<Pin>,
}

pub(super) fn plan(
    table: &SiteTable,
    hosts: &[At<HostPattern>],
    loaded: &[Loaded],
    stand_ins: &StandIns<'_>,
    r: &mut Checker<'_>,
) -> Option<PinPlan> {
    let hpkp = table.hpkp.as_ref()?;
    let words = [("enforce", Mode::Enforce), ("report-only", Mode::ReportOnly), ("withdraw", Mode::Withdraw)];
    let mode = r.choice("site.hpkp.mode", hpkp.mode.as_ref(), &words, Mode::Enforce);
    let site = hosts.first().map(|at| at.value.to_string()).unwrap_or_default();
    let (backups, lacks_backups) = backups_of(table, hpkp, &site, stand_ins, r);
    let report_uri = report_uri(hpkp, mode, hosts, r);
    let steps = ramp(&hpkp.ramp, "site.hpkp", hpkp.max_age.as_ref(), r);
    if loaded.is_empty() {
        // A chain that did not load is reported already. A missing one is not.
        if table.certificates.is_empty() {
            r.error_with_hint(
                &hpkp.span,
                "site.hpkp: no live key to pin",
                "name the chain in [site.certificate]; key may be missing where TLS ends in front of pintle",
            );
        }
        return None;
    }
    let given = hpkp.max_age.as_ref().map(|m| m.value.as_secs());
    let goal = given.or_else(|| steps.as_ref().map(Steps::goal)).unwrap_or(MAX_AGE.as_secs());
    let complete =
        backups.len() == hpkp.backups.as_ref().map_or(0, Vec::len) && loaded.len() == table.certificates.len();
    let include_subdomains = hpkp.include_subdomains.as_ref().is_some_and(|i| i.value);
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
    })
}

impl PinPlan {
    /// The max-age at a step of the ramp.
    pub(super) fn max_age(&self, step: usize) -> u64 {
        self.steps.as_ref().map_or(self.goal, |steps| steps.max_age(step))
    }

    /// Judges the policy against the chains. `promised` returns `true` for a pin that clients may hold for this site.
    pub(super) fn judge(
        &self,
        hpkp: &HpkpTable,
        max_age: u64,
        loaded: &[Loaded],
        promised: impl Fn(Pin) -> bool,
        r: &mut Checker<'_>,
    ) -> Judged {
        let mut pins: Vec<Pin> = Vec::new();
        for pin in loaded.iter().map(|l| l.chain.pin()).chain(self.backups.iter().map(|b| b.key.pin)) {
            if !pins.contains(&pin) {
                pins.push(pin);
            }
        }
        let policy = Hpkp {
            mode: self.mode,
            max_age,
            pins,
            include_subdomains: self.include_subdomains,
            report_uri: self.report_uri.clone(),
        };
        report(hpkp, self, policy, loaded, promised, r)
    }
}

/// A backup: the file as the configuration names it, and its key.
#[derive(Clone)]
pub(super) struct Backup {
    pub(super) file: String,
    pub(super) key: PublicKey,
    /// Its place in `backups`.
    at: usize,
}

/// The backups, and `true` if some are missing that an earlier process has had. The site is then served without pins,
/// as it was served before.
fn backups_of(
    table: &SiteTable,
    hpkp: &HpkpTable,
    site: &str,
    stand_ins: &StandIns<'_>,
    r: &mut Checker<'_>,
) -> (Vec<Backup>, bool) {
    let mut problems = r.problems.scratch();
    let mut own = Checker { problems: &mut problems, stamps: Vec::new(), ..*r };
    let backups = backups(hpkp, &mut own);
    let stamps = std::mem::take(&mut own.stamps);
    r.stamps.extend(stamps);
    let lacks = problems.has_errors() && stand_ins.were_served(table, |text| r.path(text));
    if lacks {
        problems.forgive();
        r.warn(
            &hpkp.span,
            "site.hpkp: a backup is no longer readable, so pintle sends no pins; it keeps earlier promises",
            format!("put its file back, or name another key in backups: {}", key_new(site)),
        );
    }
    r.problems.extend(problems.into_list());
    (backups, lacks)
}

fn backups(hpkp: &HpkpTable, r: &mut Checker<'_>) -> Vec<Backup> {
    let mut backups = Vec::new();
    for (place, at) in hpkp.backups.iter().flatten().enumerate() {
        let path = r.path(&at.value);
        let Some(contents) = read("site.hpkp.backups", &path, &at.span, r) else { continue };
        let key = match public_key(&contents) {
            Ok(key) => key,
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
        if key.kind == KeyKind::PrivateKey || has_private_key(&contents) {
            let problem = private_backup(at, &path, r);
            r.report(problem);
        }
        backups.push(Backup { file: at.value.clone(), key, at: place });
    }
    backups
}

/// The problem of a backup whose private key is on this host.
fn private_backup(at: &At<String>, path: &Path, r: &Checker<'_>) -> Problem {
    let file = r.shown(path);
    if mode(path).is_some_and(|mode| mode & 0o077 != 0) {
        let reason = Reason::new(format!("{file}: others can read this private backup key"))
            .hint(format!(
                "better: keep it off this host; `openssl pkey -in {file} -pubout` gives the public key for backups"
            ))
            .hint(format!("chmod 600 {file}"));
        return Problem::error(&at.span, reason).about(path);
    }
    let reason = Reason::new(format!("{file}: this host has the private half of its own backup key"))
        .note("whoever takes this host takes the backup, too")
        .hint("keep it elsewhere, and only its CSR or public key here");
    Problem::warning(&at.span, reason).about(path)
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
        r.warn(
            &uri.span,
            format!("site.hpkp.report_uri: {host} is the pinned host itself: when pins fail, clients cannot reach it"),
            "collect reports under another name, with other keys",
        );
    }
    Some(uri.value.clone())
}

/// The command that makes a site's next key.
fn key_new(site: &str) -> String {
    format!("`pintle key new --role next --site {site}`")
}

/// Reports the findings of [`judge`], in the words of the file.
fn report(
    hpkp: &HpkpTable,
    plan: &PinPlan,
    policy: Hpkp,
    loaded: &[Loaded],
    promised: impl Fn(Pin) -> bool,
    r: &mut Checker<'_>,
) -> Judged {
    let (backups, complete) = (&plan.backups, plan.complete);
    let chains: Vec<Vec<Pin>> = loaded.iter().map(|l| l.chain.pins.clone()).collect();
    let pins: Vec<Pin> = backups.iter().map(|b| b.key.pin).collect();
    let shortest = loaded.iter().map(|l| l.chain.leaf.not_after).min().unwrap_or(r.now);
    let lifetime = u64::try_from(shortest.duration_since(r.now).as_secs()).unwrap_or(0);
    let max_age_span = hpkp.max_age.as_ref().map_or(&hpkp.span, |m| &m.span).clone();
    let listed = |at: usize| hpkp.backups.as_ref().and_then(|b| b.get(at)).map_or(&hpkp.span, |b| &b.span).clone();
    let place =
        |pin: Pin| backups.iter().rev().find(|b| b.key.pin == pin).map_or_else(|| hpkp.span.clone(), |b| listed(b.at));
    let findings = judge(&chains, &pins, plan.goal, lifetime);
    let standing = standing(&findings);
    for finding in findings {
        match finding {
            // A file that could not be read may hold what is missing.
            Finding::NoLivePin | Finding::NoBackup | Finding::SingleBackup | Finding::OutlivesCertificate if !complete => {}
            Finding::NoLivePin => {
                r.error_with_hint(&hpkp.span, "site.hpkp: no pin matches the served chain", "name the chain in [site.certificate]");
            }
            Finding::NoBackup if standing.is_withheld => r.warn(
                &listed(0),
                "site.hpkp: no backup is left, so pintle sends no pins; it keeps earlier promises",
                format!("make the next key now, and name it in backups: {}", key_new(&plan.site)),
            ),
            Finding::NoBackup => r.error_with_hint(
                &listed(0),
                "site.hpkp: backups has no key outside of the served chain: clients would ignore the header, and a lost key would lock them out",
                "make one with `pintle key new --role spare`, keep it offline, and name its public key or CSR in backups",
            ),
            Finding::BackupIsServed(pin) if promised(pin) => r.warn(
                &place(pin),
                format!("site.hpkp.backups: {pin} was promised and is live now: the site needs a fresh next key"),
                format!("{}, and name its CSR instead of this one", key_new(&plan.site)),
            ),
            Finding::BackupIsServed(pin) => r.warn(
                &place(pin),
                format!("site.hpkp.backups: {pin} is a key of the served chain, not a backup"),
                format!("name a key that is not in use: {} makes one", key_new(&plan.site)),
            ),
            Finding::BackupTwice(pin) => {
                let what = format!("site.hpkp.backups: {pin} is listed twice, and counts once");
                r.error_with_hint(&place(pin), what, "remove one, or name another key");
            }
            Finding::SingleBackup => r.warn(
                &listed(0),
                "site.hpkp.backups: only one key: once it is live, no key is left to rotate to",
                "add a second one, and keep it offline",
            ),
            Finding::MaxAgeAboveCap => r.warn(
                &max_age_span,
                format!(
                    "site.hpkp.max_age: clients keep pins for at most {}, and a mistake for just as long",
                    show_duration(Duration::from_secs(MAX_AGE_CAP))
                ),
                "max_age = \"30d\"",
            ),
            Finding::OutlivesCertificate => r.warn(
                &max_age_span,
                "site.hpkp.max_age: clients hold the pins longer than the certificate lasts, and backups has one key only",
                "use a shorter max_age, or add a second backup",
            ),
        }
    }
    Judged { policy, withheld: standing.is_withheld || plan.lacks_backups, promoted: standing.promoted }
}
