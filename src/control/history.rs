//! Keeps the versions of the configuration: on a thread that may wait for the disk, so that nothing waits for it.
//!
//! A version that cannot be kept does not hurt the service: pintle warns, `pintle status` and a metric say so, and it tries
//! again.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};

use super::Control;
use super::admin::AdoptionOrigin;
use crate::config::KnownText;
use crate::config::history::{Adoption, Bounds, ConfigHistory, Fault, Recorded};
use crate::reason::Reason;

/// Versions that wait for the disk; beyond, the oldest is given up.
const WAITING_MAX: usize = 16;
/// The time from one attempt to the next.
const RETRY: Duration = Duration::from_secs(10);
/// The longest wait of an answer for the id of its version.
const PATIENCE: Duration = Duration::from_secs(2);

/// A version to keep.
struct Pending {
    text: Arc<KnownText>,
    adoption: Adoption,
}

/// A version on its way to the disk, and what has become of it.
type Attempt = JoinHandle<(Pending, Result<Recorded, Fault>)>;

/// The versions that are not on disk yet.
#[derive(Default)]
pub(super) struct Recorder {
    history: Option<ConfigHistory>,
    waiting: VecDeque<Pending>,
    attempt: Option<Attempt>,
    /// The newest version on disk, by its commit.
    newest: Option<String>,
    trouble: Option<Reason>,
    /// Versions given up since the start.
    lost: u64,
    retry_at: Option<Instant>,
}

impl Recorder {
    /// For the history in the folder of the state; without one, nothing is kept.
    pub(super) fn of(state: Option<&Path>, config: &Path) -> Self {
        Self { history: state.map(|state| ConfigHistory::of(state, config)), ..Self::default() }
    }

    pub(super) fn history(&self) -> Option<&ConfigHistory> {
        self.history.as_ref()
    }

    /// The present fault, with its remedies.
    pub(super) fn trouble(&self) -> Option<&Reason> {
        self.trouble.as_ref()
    }

    /// The number of versions that are not on disk yet.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() + usize::from(self.attempt.is_some())
    }

    /// The number of versions given up since the start.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn status(&self) -> Value {
        json!({
            "directory": self.history.as_ref().map(|history| history.path().display().to_string()),
            "newest": self.newest,
            "waiting": self.waiting(),
            "lost": self.lost,
            "error": self.trouble.as_ref().map(Reason::line),
            "hints": self.trouble.as_ref().map(|reason| &reason.hints),
            "commands": self.trouble.as_ref().map(|reason| &reason.commands),
        })
    }

    /// Adds a version to those that wait.
    fn push(&mut self, text: Arc<KnownText>, adoption: Adoption) {
        if self.history.is_none() {
            return;
        }
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
            self.lost += 1;
        }
        self.waiting.push_back(Pending { text, adoption });
    }

    /// Begins the next attempt, unless one is under way or failed a moment ago.
    fn begin(&mut self, bounds: Bounds) {
        let may = self.attempt.is_none() && self.retry_at.is_none_or(|at| at <= Instant::now());
        let Some(history) = self.history.clone().filter(|_| may) else { return };
        let Some(pending) = self.waiting.pop_front() else { return };
        self.attempt = Some(spawn_blocking(move || {
            let recorded = history.record(pending.text.masked().map(|text| &**text), &pending.adoption, bounds);
            (pending, recorded)
        }));
    }

    /// Takes the outcome of the attempt, and waits for it for a time at most.
    async fn settle(&mut self, patience: Duration) {
        let Some(attempt) = &mut self.attempt else { return };
        let Ok(outcome) = timeout(patience, attempt).await else { return };
        self.attempt = None;
        match outcome {
            Ok((_, Ok(recorded))) => {
                if let Recorded::New(id) = &recorded {
                    tracing::info!(version = id, "configuration kept in the history");
                }
                self.newest = Some(recorded.id().to_owned());
                if self.trouble.take().is_some() {
                    tracing::info!("the history of the configuration is kept again");
                }
                self.retry_at = None;
            }
            Ok((pending, Err(fault))) => {
                if fault.passes() {
                    self.waiting.push_front(pending);
                    self.retry_at = Some(Instant::now() + RETRY);
                } else {
                    self.lost += 1;
                }
                self.report(fault.reason());
            }
            Err(panic) => {
                self.lost += 1;
                self.report(Reason::new(format!("a version was not kept because of a bug: {panic}; please report it")));
            }
        }
    }

    fn report(&mut self, reason: Reason) {
        if self.trouble.as_ref() != Some(&reason) {
            let hint = reason.hint_line();
            tracing::warn!(
                problem = reason.line(),
                hint,
                "the history lacks a version of the configuration; pintle serves it"
            );
        }
        self.trouble = Some(reason);
    }
}

impl Control {
    /// Keeps the configuration in use as a version.
    pub(super) fn keep_version(&mut self, origin: AdoptionOrigin, warnings: usize, notes: &[String]) {
        let AdoptionOrigin { how, who, restores } = origin;
        let adoption = Adoption { how, who, at: Timestamp::now(), warnings, notes: notes.to_vec(), restores };
        self.recorder.push(self.known_text(), adoption);
        self.recorder.begin(self.bounds());
    }

    /// The text in use, with its facts.
    pub(super) fn known_text(&self) -> Arc<KnownText> {
        let text = self.draft.text();
        let mut known = self.known_text.borrow_mut();
        match known.as_ref().filter(|known| Arc::ptr_eq(known.text(), &text)) {
            Some(known) => known.clone(),
            None => known.insert(Arc::new(KnownText::new(text))).clone(),
        }
    }

    /// Takes the outcome of an attempt, and begins the next.
    pub(super) async fn look_after_history(&mut self) {
        let is_finished = self.recorder.attempt.as_ref().is_some_and(JoinHandle::is_finished);
        if is_finished {
            self.recorder.settle(Duration::ZERO).await;
        }
        self.recorder.begin(self.bounds());
    }

    /// Waits until the version in use is on disk, for a moment at most. Returns its commit.
    pub(super) async fn kept_version(&mut self) -> Option<String> {
        let until = Instant::now() + PATIENCE;
        while self.recorder.attempt.is_some() && Instant::now() < until {
            self.recorder.settle(until - Instant::now()).await;
            self.recorder.begin(self.bounds());
        }
        self.recorder.newest.clone().filter(|_| self.recorder.waiting() == 0)
    }

    fn bounds(&self) -> Bounds {
        let limits = &self.config.snapshot.limits;
        let size = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        Bounds { version: size(limits.config_version), history: size(limits.config_history) }
    }
}
