//! The files of the sites.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Config, Draft, KeptSite, LastGood, NamedKeys};
use crate::control::watch::FileWatch;
use crate::ledger::time::wall;
use crate::policy::promise::Seconds;
use crate::reason::{Kind, Problem, Reason};

/// Refused files are judged again after this time, since a promise may have ended, or a date have
/// come.
pub(in crate::control) const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// The number of refused keys that are remembered. After that, pintle forgets them, and each is refused once more.
const NAMED_MAX: usize = 100_000;

/// The files of the sites: watched, read, refused; and copies of the pairs in use.
pub(in crate::control) struct SiteFiles {
    pub(in crate::control) watch: FileWatch,
    pub(in crate::control) pending: Option<ChangedFiles>,
    /// Sites whose files are unfit to be served, by their first name.
    pub(in crate::control) refused: BTreeMap<String, Refused>,
    /// The keys that refusals have named.
    pub(in crate::control) named: RefCell<NamedKeys>,
    /// The reason why the files on disk cannot be served at all.
    pub(in crate::control) unservable: Vec<String>,
    /// Copies of the pairs in use; `None` without state.directory.
    pub(in crate::control) copies: Option<LastGood>,
    /// The time of the last retry of failed copies.
    pub(in crate::control) copied: Instant,
}

impl SiteFiles {
    /// Nothing is watched yet.
    pub(in crate::control) fn new(draft: &Draft, config: &Config, copies: Option<LastGood>) -> Self {
        let mut named = NamedKeys::default();
        remember(&mut named, config.kept.iter().flat_map(|kept| &kept.problems));
        Self {
            watch: FileWatch::start(),
            pending: None,
            refused: at_start(draft, config),
            named: RefCell::new(named),
            unservable: Vec::new(),
            copies,
            copied: Instant::now(),
        }
    }
}

/// Files that have changed.
pub(in crate::control) struct ChangedFiles {
    pub(in crate::control) first: Instant,
    pub(in crate::control) last: Instant,
    /// The time at which pintle reads them.
    pub(in crate::control) due: Instant,
}

/// A site whose files are unfit to be served.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The reasons, with remedies.
    pub reasons: Vec<Reason>,
    /// `true` if promises would be broken.
    pub by_guard: bool,
    /// `true` if the key is burnt.
    pub burnt: bool,
    /// `true` if the site has no certificate at all.
    pub lacks: bool,
    /// Names that the certificate would lock readers out of, while it serves all others.
    pub apart: Vec<String>,
    /// The time of the refusal, by the wall clock.
    pub since: Seconds,
    pub(in crate::control) candidate: String,
    pub(in crate::control) look_again: Instant,
}

pub(in crate::control) fn remember<'p>(named: &mut NamedKeys, problems: impl IntoIterator<Item = &'p Problem>) {
    let refusals = problems.into_iter().filter(|problem| problem.is_error());
    for key in refusals.filter_map(|problem| Some((problem.site.clone()?, problem.key.as_deref()?.to_owned()))) {
        if named.len() >= NAMED_MAX {
            named.clear();
        }
        named.insert(key);
    }
}

/// The sites that a start found unfit, and serves from copies.
fn at_start(draft: &Draft, config: &Config) -> BTreeMap<String, Refused> {
    let refused = |kept: &KeptSite| {
        let reasons =
            kept.problems.iter().filter(|p| p.is_error()).map(|p| draft.problems().placed(p).reason).collect();
        let (by_guard, lacks, candidate) = (kept.by_guard, kept.lacks, candidate(kept));
        let look_again = Instant::now() + LOOK_AGAIN;
        let (burnt, apart, since) = (is_burnt(kept), kept.apart.clone(), wall());
        (kept.site.clone(), Refused { reasons, by_guard, burnt, lacks, apart, since, candidate, look_again })
    };
    config.kept.iter().map(refused).collect()
}

/// Identifies refused files independently of the messages: dates in them move as promises are
/// renewed, and places move as the file is edited.
pub(in crate::control) fn candidate(kept: &KeptSite) -> String {
    if kept.by_guard && !kept.certificates.is_empty() {
        return kept.certificates.iter().map(|c| format!("{} {} {};", c.serial, c.pin, c.not_after)).collect();
    }
    let errors = kept.problems.iter().filter(|p| p.is_error());
    errors.map(|p| p.reason.what.as_str()).collect::<Vec<_>>().join("\n")
}

/// `true` if a key is burnt.
pub(in crate::control) fn is_burnt(kept: &KeptSite) -> bool {
    kept.problems.iter().any(|problem| problem.is_error() && problem.kind == Kind::BurntKey)
}
