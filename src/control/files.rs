//! Certificates that change on disk: read once they have settled, used if they are fit, and refused
//! with one log line if they are not.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::Control;
use super::adopt::NotAdopted;
use super::building::Keep;
use super::state::{ChangedFiles, LOOK_AGAIN, Refused, SiteFiles, candidate, is_burnt, remember};
use crate::config::{Config, KeptSite, Problems};
use crate::ledger::time::wall;
use crate::policy::promise::Promise;
use crate::reason::{Problem, Reason};

/// The quiet time after which changed files are read,
const QUIET: Duration = Duration::from_millis(300);
/// and the limit if changes never stop.
const PATIENCE: Duration = Duration::from_secs(2);
/// An unreadable or mismatched file may be half written. It is reported only after this quiet time.
const SETTLE: Duration = Duration::from_secs(3);

impl SiteFiles {
    /// Logs the sites that have no certificate, or do not serve all their names with it, at the start.
    pub(super) fn announce_sites_without(&self) {
        for (site, refused) in self.refused.iter().filter(|(_, refused)| refused.lacks || !refused.apart.is_empty()) {
            refused.log(site);
        }
    }
}

impl Refused {
    /// Logs each reason.
    fn log(&self, site: &str) {
        for reason in &self.reasons {
            let (reason, hint) = (reason.line(), reason.hint_line());
            if self.lacks {
                tracing::error!(site, reason, hint, "site without a certificate");
            } else if !self.apart.is_empty() {
                let names = self.apart.join(", ");
                tracing::error!(
                    site,
                    names,
                    reason,
                    hint,
                    "names that the site's certificate would lock readers out of"
                );
            } else {
                tracing::error!(site, reason, hint, "certificate refused; the old one keeps serving");
            }
        }
    }
}

impl Control {
    /// Notes that a file has changed.
    pub(super) fn files_changed(&mut self) {
        let now = Instant::now();
        let first = self.files.pending.as_ref().map_or(now, |p| p.first);
        self.files.pending = Some(ChangedFiles { first, last: now, due: (now + QUIET).min(first + PATIENCE) });
    }

    /// Reads all files, and uses the fit ones.
    pub(super) async fn look_at_files(&mut self) {
        let now = Instant::now();
        let last = self.files.pending.take().map_or(now, |p| p.last);
        let settled = last.elapsed() >= SETTLE;
        let keep = if settled { Keep::Unfit } else { Keep::UnfitAndShorter(Vec::new()) };
        let _ = self.keep_ledger().await;
        let (config, problems) = self.build(&self.draft, keep, None);
        let Some(config) = config else { return self.cannot_serve(&problems) };
        self.files.unservable.clear();
        if !settled && config.kept.iter().any(|kept| !kept.by_guard) {
            self.files.pending = Some(ChangedFiles { first: now, last, due: last + SETTLE });
        }
        if let Err(NotAdopted::LedgerChanged) = self.take(config, &problems, |_| settled).await {
            self.files_changed();
        }
    }

    /// The fault is not a site's: for example, a folder of the configuration is gone.
    fn cannot_serve(&mut self, problems: &Problems) {
        for refused in self.files.refused.values_mut() {
            refused.look_again = Instant::now() + LOOK_AGAIN;
        }
        let errors = errors(problems);
        if self.files.unservable != errors {
            tracing::error!(
                problems = errors.join("; "),
                "cannot serve the files on disk; pintle keeps serving the previous configuration"
            );
            self.files.unservable = errors;
        }
    }

    /// Uses the fit parts of a configuration, and reports unfit ones. A file that may be half
    /// written is reported only if its site is `settled`.
    ///
    /// # Errors
    ///
    /// [`NotAdopted`]
    pub(super) async fn take(
        &mut self,
        mut config: Config,
        problems: &Problems,
        settled: impl Fn(&str) -> bool,
    ) -> Result<(), NotAdopted> {
        let (kept, news) = (std::mem::take(&mut config.kept), std::mem::take(&mut config.news));
        self.adopt(config).await?;
        for (site, problem) in news {
            let Problem { reason, .. } = problems.placed(&problem);
            tracing::warn!(site, problem = reason.line(), hint = reason.hint_line(), "in use, with a warning");
        }
        self.note_refusals(&kept, problems, settled).await;
        Ok(())
    }

    /// The time until the next promise of any site ends.
    fn next_end(&self) -> Duration {
        let now = self.now();
        let ledger = self.ledger();
        let ends = ledger.book().promises().iter().filter(|p| p.is_alive(now)).map(Promise::honoured_until);
        let seconds = ends.min().map_or(u64::MAX, |end| end.saturating_sub(now).unsigned_abs());
        Duration::from_secs(seconds.saturating_add(1))
    }

    /// The files whose refusal was reported before ([`candidate`]), whatever their site: the order of its names may have
    /// changed, and with it the first one.
    pub(super) fn known_refusals(&self) -> HashSet<&str> {
        self.files.refused.values().map(|known| known.candidate.as_str()).collect()
    }

    /// Remembers the keys that refusals name: from now on, a line of `accept_lockout_until` may be about them.
    pub(super) fn naming_keys(&self, refusals: Vec<Problem>) -> Vec<Problem> {
        remember(&mut self.files.named.borrow_mut(), &refusals);
        refusals
    }

    pub(super) async fn note_refusals(
        &mut self,
        kept: &[KeptSite],
        problems: &Problems,
        settled: impl Fn(&str) -> bool,
    ) {
        remember(self.files.named.get_mut(), kept.iter().flat_map(|kept| &kept.problems));
        let mut before = std::mem::take(&mut self.files.refused);
        self.observed.states.forget();
        for site in kept {
            let known = before.remove(&site.site);
            if !site.by_guard && !settled(&site.site) {
                self.files.refused.extend(known.map(|known| (site.site.clone(), known)));
                continue;
            }
            let reasons = reasons(site, problems);
            let candidate = candidate(site);
            let known = known.filter(|known| known.candidate == candidate && known.lacks == site.lacks);
            let since = known.as_ref().map_or_else(wall, |known| known.since);
            let look_again = Instant::now() + self.next_end().min(LOOK_AGAIN);
            let (by_guard, lacks) = (site.by_guard, site.lacks);
            let (burnt, apart) = (is_burnt(site), site.apart.clone());
            let refused = Refused { reasons, by_guard, burnt, lacks, apart, since, candidate, look_again };
            if known.is_none() {
                self.counts.rotations_refused += 1;
                refused.log(&site.site);
            }
            self.files.refused.insert(site.site.clone(), refused);
            if known.is_none() {
                self.reset_ramps(&site.site).await;
            }
        }
        for site in before.into_keys() {
            self.refusal_ends(&site).await;
        }
    }

    /// The refused files are gone, or served.
    async fn refusal_ends(&mut self, site: &str) {
        tracing::info!(site, "certificate no longer refused");
        self.reset_ramps(site).await;
    }
}

/// All problems of a site, each with its place and remedy.
fn reasons(kept: &KeptSite, problems: &Problems) -> Vec<Reason> {
    kept.problems.iter().filter(|p| p.is_error()).map(|p| problems.placed(p).reason).collect()
}

fn errors(problems: &Problems) -> Vec<String> {
    problems.sorted().into_iter().filter(|p| p.is_error()).map(|p| problems.placed(p).reason.line()).collect()
}
