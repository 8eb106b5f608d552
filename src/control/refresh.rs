//! Certificates that change on disk: looked at when they have come to rest, put to use if they are fit, and refused
//! aloud, once, if they are not.

use std::time::Duration;

use tokio::time::Instant;

use super::Control;
use crate::config::{Config, Kept, Problems, Severity};
use crate::ledger::time::wall;
use crate::policy::guard::{Promise, Seconds};

/// Files are looked at when nothing has happened to them for this long,
const QUIET: Duration = Duration::from_millis(300);
/// or, if there is no end to it, after this time.
const PATIENCE: Duration = Duration::from_secs(2);
/// What cannot be read, or does not fit together, may be half written: it is told of only after this time of quiet.
const SETTLE: Duration = Duration::from_secs(3);
/// What was refused is looked at again after this time, as a promise may have run out, or a day have come.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Files have changed.
pub(super) struct Pending {
    first: Instant,
    last: Instant,
    /// When they are to be looked at.
    pub(super) due: Instant,
}

/// A site whose files are not fit to be served.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Why, and what to do: one text for each thing that is wrong.
    pub reasons: Vec<(String, Option<String>)>,
    /// Whether promises would be broken.
    pub by_guard: bool,
    /// Since when, by the wall clock.
    pub since: Seconds,
    pub(super) look_again: Instant,
}

impl Control {
    /// Something has happened to a file.
    pub(super) fn files_changed(&mut self) {
        let now = Instant::now();
        let first = self.pending.as_ref().map_or(now, |p| p.first);
        self.pending = Some(Pending { first, last: now, due: (now + QUIET).min(first + PATIENCE) });
    }

    /// Looks at all files, and takes what is fit.
    pub(super) async fn look_at_files(&mut self) {
        let pending = self.pending.take();
        let settled = pending.as_ref().is_none_or(|p| p.last.elapsed() >= SETTLE);
        let (config, problems) = self.resolve(&self.draft, true, None);
        let Some(config) = config else {
            // Not a site's fault: a folder of the configuration is gone, for one.
            tracing::error!(
                problems = errors(&problems).join("; "),
                "the configuration cannot be served as it is on disk now; what is in use goes on"
            );
            return;
        };
        let unripe = config.kept.iter().any(|kept| !kept.by_guard) || is_shorter(&self.config, &config);
        if let (false, true, Some(pending)) = (settled, unripe, pending) {
            self.pending = Some(Pending { first: Instant::now(), last: pending.last, due: pending.last + SETTLE });
            return;
        }
        let _ = self.take(config, &problems).await;
    }

    /// Puts to use what is fit, and tells of what is not.
    ///
    /// # Errors
    ///
    /// When a lockout was accepted that cannot be put on record.
    pub(super) async fn take(&mut self, mut config: Config, problems: &Problems) -> std::io::Result<()> {
        let kept = std::mem::take(&mut config.kept);
        self.adopt(config).await?;
        self.note_refusals(&kept, problems).await;
        Ok(())
    }

    /// How long it is until a promise ends, of whatever site.
    fn next_end(&self) -> Duration {
        let now = wall();
        let ledger = self.ledger();
        let ends = ledger.book().promises().iter().filter(|p| p.is_alive(now)).map(Promise::honoured_until);
        let seconds = ends.min().map_or(u64::MAX, |end| end.saturating_sub(now).unsigned_abs());
        Duration::from_secs(seconds.saturating_add(1))
    }

    async fn note_refusals(&mut self, kept: &[Kept], problems: &Problems) {
        let before = std::mem::take(&mut self.refused);
        for site in kept {
            let reasons = reasons(site, problems);
            let known = before.get(&site.site);
            let is_news = known.is_none_or(|known| known.reasons != reasons);
            if is_news {
                self.counts.rotations_refused += 1;
                for (reason, hint) in &reasons {
                    tracing::error!(site = site.site, reason, hint, "certificate refused; the old one keeps serving");
                }
                self.reset_ramps(&site.site).await;
            }
            let since = known.filter(|_| !is_news).map_or_else(wall, |known| known.since);
            let look_again = Instant::now() + self.next_end().min(LOOK_AGAIN);
            self.refused.insert(site.site.clone(), Refused { reasons, by_guard: site.by_guard, since, look_again });
        }
        for site in before.keys().filter(|site| !self.refused.contains_key(*site)) {
            tracing::info!(site, "nothing is refused any more");
        }
    }
}

/// A file that is being written may end behind any certificate.
fn is_shorter(before: &Config, after: &Config) -> bool {
    let pairs = before.sites().zip(after.sites());
    let mut certificates = pairs.flat_map(|(b, a)| b.certificates.iter().zip(&a.certificates));
    certificates.any(|(b, a)| b.path == a.path && a.pins.len() < b.pins.len())
}

/// Everything that is wrong with a site, each with its place, and what to do.
fn reasons(kept: &Kept, problems: &Problems) -> Vec<(String, Option<String>)> {
    let errors = kept.problems.iter().filter(|p| p.severity == Severity::Error);
    errors.map(|p| (problems.one_line(p), p.hint.clone())).collect()
}

pub(super) fn errors(problems: &Problems) -> Vec<String> {
    let all = problems.sorted();
    all.into_iter().filter(|p| p.severity == Severity::Error).map(|p| problems.one_line(p)).collect()
}
