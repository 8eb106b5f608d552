//! The states of the sites in a few words.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

/// The time for which states are shown again: upstreams fail and recover meanwhile.
const STATES_LIFE: Duration = Duration::from_millis(250);

/// The need of a site for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SiteLevel {
    /// Not at all.
    Fine,
    /// A decision is due.
    Warning,
    /// Clients are refused, or will be soon.
    Bad,
}

impl SiteLevel {
    pub(super) const ALL: [Self; 3] = [Self::Bad, Self::Warning, Self::Fine];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }

    /// The number of sites at each level.
    pub(super) fn counts(states: &[SiteState]) -> Value {
        let count = |level: Self| states.iter().filter(|state| state.level == level).count();
        Self::ALL.into_iter().map(|level| (level.word(), count(level))).collect()
    }
}

/// The state of a site in a few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SiteState {
    pub(super) level: SiteLevel,
    pub(super) words: Cow<'static, str>,
}

/// The states of all sites as of a moment ago: a page asks for them twice, and its readers may be many.
#[derive(Default)]
pub(super) struct RecentStates(RefCell<Option<(Instant, Rc<[SiteState]>)>>);

impl RecentStates {
    /// Forgets them: the sites have changed.
    pub(super) fn forget(&self) {
        self.0.take();
    }

    pub(super) fn get(&self, make: impl FnOnce() -> Rc<[SiteState]>) -> Rc<[SiteState]> {
        if let Some((_, states)) = self.0.borrow().as_ref().filter(|(at, _)| at.elapsed() < STATES_LIFE) {
            return states.clone();
        }
        let states = make();
        self.0.replace(Some((Instant::now(), states.clone())));
        states
    }
}
