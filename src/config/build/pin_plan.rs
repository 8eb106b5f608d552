//! The pins of a site, and the check that they may be promised.

use std::ops::Range;
use std::time::Duration;

use super::checker::Checker;
use super::loaded::LoadedCertificate;
use super::report::Withheld;
use crate::config::file::HpkpTable;
use crate::config::value::show_duration;
use crate::keys::key_file::PublicKey;
use crate::keys::pin::Pin;
use crate::policy::hpkp::{Hpkp, MAX_AGE_CAP, Mode, PinFinding, judge, standing};
use crate::policy::ramp::Steps;
use crate::reason::{Problem, Reason, shell_word};

/// `[site.hpkp]`, with the keys behind it.
pub(super) struct PinPlan {
    /// The site's first name.
    pub(super) site: Box<str>,
    pub(super) mode: Mode,
    /// The max-age at the end of the ramp.
    pub(super) goal: u64,
    pub(super) steps: Option<Steps>,
    pub(super) include_subdomains: bool,
    pub(super) report_uri: Option<String>,
    pub(super) backups: Vec<Backup>,
    /// All files could be read.
    pub(super) complete: bool,
    /// A backup was readable once and no longer is, so the promise is unknown.
    pub(super) lacks_backups: bool,
    /// A backup is listed twice. The site was served before, so that is no error.
    pub(super) forgives_twice: bool,
    /// pintle makes a fresh next key whenever one becomes live.
    pub(super) renews_itself: bool,
    /// A pair of the site is missing: without its key, the pins would lock out clients that get it later.
    pub(super) lacks_pair: bool,
}

/// A header that may be sent, or the reason against it.
pub(super) struct JudgedHeader {
    pub(super) policy: Hpkp,
    /// It lacks a backup.
    pub(super) withheld: Option<Withheld>,
    /// Backups that have become live.
    pub(super) promoted: Vec<Pin>,
}

impl PinPlan {
    /// The max-age at a step of the ramp.
    pub(super) fn max_age(&self, step: usize) -> u64 {
        self.steps.as_ref().map_or(self.goal, |steps| steps.max_age(step))
    }

    /// Judges the policy against the chains. `promised` returns `true` for a pin that clients may
    /// hold for this site, and `None` for a key of a chain that the guard refuses.
    pub(super) fn judge(
        &self,
        hpkp: &HpkpTable,
        max_age: u64,
        loaded: &[LoadedCertificate],
        promised: impl Fn(Pin) -> Option<bool>,
        r: &mut Checker<'_>,
    ) -> JudgedHeader {
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
    /// Its place in `backups`; `None` for a live key that waits for its certificate.
    pub(super) at: Option<usize>,
}

/// The command that makes a site's next key.
pub(super) fn key_new(site: &str) -> String {
    format!("`pintle key new --role next --site {}`", shell_word(site))
}

/// Reports the findings of [`judge`], in the words of the file.
fn report(
    hpkp: &HpkpTable,
    plan: &PinPlan,
    policy: Hpkp,
    loaded: &[LoadedCertificate],
    promised: impl Fn(Pin) -> Option<bool>,
    r: &mut Checker<'_>,
) -> JudgedHeader {
    let (backups, complete) = (&plan.backups, plan.complete);
    let chains: Vec<Vec<Pin>> = loaded.iter().map(|l| l.chain.pins.clone()).collect();
    let pins: Vec<Pin> = backups.iter().map(|b| b.key.pin).collect();
    let shortest = loaded.iter().map(|l| l.chain.leaf.not_after).min().unwrap_or(r.now);
    let lifetime = u64::try_from(shortest.duration_since(r.now).as_secs()).unwrap_or(0);
    let listed = |at: usize| hpkp.listed().nth(at).map_or(&hpkp.span, |b| &b.span).clone();
    let place = |pin: Pin| {
        backups.iter().rev().find(|b| b.key.pin == pin).and_then(|b| b.at).map_or_else(|| hpkp.span.clone(), listed)
    };
    let findings = judge(&chains, &pins, plan.goal, lifetime);
    let standing = standing(&findings);
    for finding in findings {
        match finding {
            // A file that could not be read may hold what is missing.
            PinFinding::NoLivePin | PinFinding::NoBackup | PinFinding::SingleBackup | PinFinding::OutlivesCertificate if !complete => {}
            PinFinding::NoLivePin => {
                r.error_with_hint(&hpkp.span, "site.hpkp: no pin matches the served chain", "name the chain in [site.certificate]");
            }
            PinFinding::NoBackup if standing.is_withheld => r.warn(
                &listed(0),
                "site.hpkp: no backup is left, so pintle sends no pins; it keeps earlier promises",
                format!("make the next key now, and name it in backups: {}", key_new(&plan.site)),
            ),
            PinFinding::NoBackup => r.error_with_hint(
                &listed(0),
                "site.hpkp: backups has no key outside of the served chain: clients would ignore the header, and a lost key would lock them out",
                "make one with `pintle key new --role spare`, keep it offline, and name its public key or CSR in backups",
            ),
            PinFinding::BackupIsServed(pin) => {
                if let Some(promised) = promised(pin) {
                    report_live(&plan.site, pin, promised, &place(pin), r);
                }
            }
            PinFinding::BackupTwice(pin) => {
                let what = format!("site.hpkp.backups: {pin} is listed twice, and counts once");
                let of_severity = if plan.forgives_twice { Problem::warning } else { Problem::error };
                r.report(of_severity(&place(pin), Reason::new(what).hint("remove one, or name another key")));
            }
            PinFinding::SingleBackup | PinFinding::OutlivesCertificate if plan.renews_itself => {}
            PinFinding::SingleBackup => r.warn(
                &listed(0),
                "site.hpkp.backups: only one key: once it is live, no key is left to rotate to",
                "add a second one, and keep it offline",
            ),
            PinFinding::MaxAgeAboveCap | PinFinding::OutlivesCertificate => report_max_age(hpkp, &finding, r),
        }
    }
    JudgedHeader { policy, withheld: withheld(plan, standing.is_withheld), promoted: standing.promoted }
}

fn withheld(plan: &PinPlan, no_backup: bool) -> Option<Withheld> {
    let reasons = [
        (plan.lacks_pair, Withheld::MissingPair),
        (no_backup, Withheld::NoBackup),
        (plan.lacks_backups, Withheld::UnreadableBackup),
    ];
    reasons.into_iter().find(|(is_so, _)| *is_so).map(|(_, why)| why)
}

/// Warns of a backup that is live.
fn report_live(site: &str, pin: Pin, promised: bool, span: &Range<usize>, r: &mut Checker<'_>) {
    if promised {
        let what = format!("site.hpkp.backups: {pin} was promised and is live now: the site needs a fresh next key");
        return r.warn(span, what, format!("{}, and name its CSR instead of this one", key_new(site)));
    }
    let what = format!("site.hpkp.backups: {pin} is a key of the served chain, not a backup");
    r.warn(span, what, format!("name a key that is not in use: {} makes one", key_new(site)));
}

fn report_max_age(hpkp: &HpkpTable, finding: &PinFinding, r: &mut Checker<'_>) {
    let span = hpkp.max_age.as_ref().map_or(&hpkp.span, |m| &m.span);
    if *finding == PinFinding::OutlivesCertificate {
        let what =
            "site.hpkp.max_age: clients hold the pins longer than the certificate lasts, and backups has one key only";
        return r.warn(span, what, "use a shorter max_age, or add a second backup");
    }
    let cap = show_duration(Duration::from_secs(MAX_AGE_CAP));
    let what = format!("site.hpkp.max_age: clients keep pins for at most {cap}, and a mistake for just as long");
    r.warn(span, what, "max_age = \"30d\"");
}
