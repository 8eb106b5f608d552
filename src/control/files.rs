//! Certificates that change on disk: looked at when they have come to rest, put to use if they are fit, and refused
//! aloud, once, if they are not.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::watch::Watch;
use super::{Control, Keep};
use crate::config::{Config, Kept, LastGood, Problems};
use crate::ledger::time::wall;
use crate::policy::promise::{Promise, Seconds};
use crate::reason::{Problem, Reason};

/// Files are looked at when nothing has happened to them for this long,
const QUIET: Duration = Duration::from_millis(300);
/// or, if there is no end to it, after this time.
const PATIENCE: Duration = Duration::from_secs(2);
/// What cannot be read, or does not fit together, may be half written: it is told of only after this time of quiet.
const SETTLE: Duration = Duration::from_secs(3);
/// What was refused is looked at again after this time, as a promise may have run out, or a day have come.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The files of the sites: watched, read, refused; and copies of the pairs in use.
pub(super) struct Files {
    pub(super) watch: Watch,
    pub(super) pending: Option<Pending>,
    /// Sites whose files are not fit to be served, by their first name.
    pub(super) refused: BTreeMap<String, Refused>,
    /// Why the files on disk cannot be served at all.
    unservable: Vec<String>,
    /// Copies of the pairs in use; `None` without state.directory.
    pub(super) copies: Option<LastGood>,
    /// When copying that has failed was last tried again.
    pub(super) copied: Instant,
}

impl Files {
    /// Nothing is watched yet.
    pub(super) fn new(config: &Config, copies: Option<LastGood>) -> Self {
        Self {
            watch: Watch::start(),
            pending: None,
            refused: at_start(config),
            unservable: Vec::new(),
            copies,
            copied: Instant::now(),
        }
    }
}

/// Files that have changed.
pub(super) struct Pending {
    first: Instant,
    last: Instant,
    /// When they are to be looked at.
    pub(super) due: Instant,
}

/// A site whose files are not fit to be served.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Why, and what to do.
    pub reasons: Vec<Reason>,
    /// Whether promises would be broken.
    pub by_guard: bool,
    /// Since when, by the wall clock.
    pub since: Seconds,
    candidate: String,
    pub(super) look_again: Instant,
}

impl Control {
    /// Something has happened to a file.
    pub(super) fn files_changed(&mut self) {
        let now = Instant::now();
        let first = self.files.pending.as_ref().map_or(now, |p| p.first);
        self.files.pending = Some(Pending { first, last: now, due: (now + QUIET).min(first + PATIENCE) });
    }

    /// Looks at all files, and takes what is fit.
    pub(super) async fn look_at_files(&mut self) {
        let now = Instant::now();
        let last = self.files.pending.take().map_or(now, |p| p.last);
        let settled = last.elapsed() >= SETTLE;
        let keep = if settled { Keep::Unfit } else { Keep::UnfitAndShorter(Vec::new()) };
        let (config, problems) = self.build(&self.draft, keep, None);
        let Some(config) = config else { return self.cannot_serve(&problems) };
        self.files.unservable.clear();
        if !settled && config.kept.iter().any(|kept| !kept.by_guard) {
            self.files.pending = Some(Pending { first: now, last, due: last + SETTLE });
        }
        let _ = self.take(config, &problems, |_| settled).await;
    }

    /// Not a site's fault: a folder of the configuration is gone, for one.
    fn cannot_serve(&mut self, problems: &Problems) {
        for refused in self.files.refused.values_mut() {
            refused.look_again = Instant::now() + LOOK_AGAIN;
        }
        let errors = errors(problems);
        if self.files.unservable != errors {
            tracing::error!(
                problems = errors.join("; "),
                "the configuration cannot be served as it is on disk now; what is in use goes on"
            );
            self.files.unservable = errors;
        }
    }

    /// Puts to use what is fit, and tells of what is not; of what may only be half written, if its site is
    /// `settled`.
    ///
    /// # Errors
    ///
    /// When a lockout was accepted that cannot be put on record.
    pub(super) async fn take(
        &mut self,
        mut config: Config,
        problems: &Problems,
        settled: impl Fn(&str) -> bool,
    ) -> std::io::Result<()> {
        let (kept, news) = (std::mem::take(&mut config.kept), std::mem::take(&mut config.news));
        self.adopt(config).await?;
        for (site, problem) in news {
            let Problem { reason, .. } = problems.placed(&problem);
            tracing::warn!(site, problem = reason.line(), hint = reason.hint_line(), "in use, with a warning");
        }
        self.note_refusals(&kept, problems, settled).await;
        Ok(())
    }

    /// How long it is until a promise ends, of whatever site.
    fn next_end(&self) -> Duration {
        let now = self.now();
        let ledger = self.ledger();
        let ends = ledger.book().promises().iter().filter(|p| p.is_alive(now)).map(Promise::honoured_until);
        let seconds = ends.min().map_or(u64::MAX, |end| end.saturating_sub(now).unsigned_abs());
        Duration::from_secs(seconds.saturating_add(1))
    }

    /// Whether it was told before that a site's files are refused, and they are the same still.
    pub(super) fn is_known_refusal(&self, kept: &Kept) -> bool {
        self.files.refused.get(&kept.site).is_some_and(|known| known.candidate == candidate(kept))
    }

    pub(super) async fn note_refusals(&mut self, kept: &[Kept], problems: &Problems, settled: impl Fn(&str) -> bool) {
        let mut before = std::mem::take(&mut self.files.refused);
        for site in kept {
            let known = before.remove(&site.site);
            if !site.by_guard && !settled(&site.site) {
                self.files.refused.extend(known.map(|known| (site.site.clone(), known)));
                continue;
            }
            let reasons = reasons(site, problems);
            let candidate = candidate(site);
            let known = known.filter(|known| known.candidate == candidate);
            let since = known.as_ref().map_or_else(wall, |known| known.since);
            let look_again = Instant::now() + self.next_end().min(LOOK_AGAIN);
            let by_guard = site.by_guard;
            let refused = Refused { reasons, by_guard, since, candidate, look_again };
            if known.is_none() {
                self.counts.rotations_refused += 1;
                for reason in &refused.reasons {
                    let (site, hint) = (&site.site, reason.hint_line());
                    tracing::error!(
                        site,
                        reason = reason.line(),
                        hint,
                        "certificate refused; the old one keeps serving"
                    );
                }
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

    /// What was refused is gone, or served.
    async fn refusal_ends(&mut self, site: &str) {
        tracing::info!(site, "nothing is refused any more");
        self.reset_ramps(site).await;
    }
}

/// What a start has found unfit, and serves copies in place of.
fn at_start(config: &Config) -> BTreeMap<String, Refused> {
    let refused = |kept: &Kept| {
        let reasons = kept.problems.iter().filter(|p| p.is_error()).map(|p| p.reason.clone()).collect();
        let candidate = candidate(kept);
        let look_again = Instant::now() + LOOK_AGAIN;
        (kept.site.clone(), Refused { reasons, by_guard: kept.by_guard, since: wall(), candidate, look_again })
    };
    config.kept.iter().map(refused).collect()
}

/// What is refused, whatever words there are for it: dates in the reasons move as the promises that would be broken are
/// renewed, and places as the file is edited.
fn candidate(kept: &Kept) -> String {
    if kept.by_guard && !kept.certificates.is_empty() {
        return kept.certificates.iter().map(|c| format!("{} {} {};", c.serial, c.pin, c.not_after)).collect();
    }
    let errors = kept.problems.iter().filter(|p| p.is_error());
    errors.map(|p| p.reason.what.as_str()).collect::<Vec<_>>().join("\n")
}

/// Everything that is wrong with a site, each with its place, and what to do.
fn reasons(kept: &Kept, problems: &Problems) -> Vec<Reason> {
    kept.problems.iter().filter(|p| p.is_error()).map(|p| problems.placed(p).reason).collect()
}

fn errors(problems: &Problems) -> Vec<String> {
    problems.sorted().into_iter().filter(|p| p.is_error()).map(|p| problems.placed(p).reason.line()).collect()
}
