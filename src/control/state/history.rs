//! The versions of the configuration that are not on disk yet.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};

use crate::config::KnownText;
use crate::config::history::{Adoption, Bounds, ConfigHistory, Fault, Recorded};
use crate::reason::Reason;

/// Versions that wait for the disk; beyond, the oldest is given up.
const WAITING_MAX: usize = 16;
/// The time from one attempt to the next.
const RETRY: Duration = Duration::from_secs(10);

/// A version to keep.
pub(in crate::control) struct Pending {
    text: Arc<KnownText>,
    adoption: Adoption,
}

/// A version on its way to the disk, and what has become of it.
pub(in crate::control) type Attempt = JoinHandle<(Pending, Result<Recorded, Fault>)>;

/// The versions that are not on disk yet.
#[derive(Default)]
pub(in crate::control) struct Recorder {
    history: Option<ConfigHistory>,
    waiting: VecDeque<Pending>,
    pub(in crate::control) attempt: Option<Attempt>,
    /// The newest version on disk, by its commit.
    pub(in crate::control) newest: Option<String>,
    trouble: Option<Reason>,
    /// Versions given up since the start.
    lost: u64,
    retry_at: Option<Instant>,
}

impl Recorder {
    /// For the history in the folder of the state; without one, nothing is kept.
    pub(in crate::control) fn of(state: Option<&Path>, config: &Path) -> Self {
        Self { history: state.map(|state| ConfigHistory::of(state, config)), ..Self::default() }
    }

    pub(in crate::control) fn history(&self) -> Option<&ConfigHistory> {
        self.history.as_ref()
    }

    /// The present fault, with its remedies.
    pub(in crate::control) fn trouble(&self) -> Option<&Reason> {
        self.trouble.as_ref()
    }

    /// The number of versions that are not on disk yet.
    pub(in crate::control) fn waiting(&self) -> usize {
        self.waiting.len() + usize::from(self.attempt.is_some())
    }

    /// The number of versions given up since the start.
    pub(in crate::control) fn lost(&self) -> u64 {
        self.lost
    }

    pub(in crate::control) fn status(&self) -> Value {
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
    pub(in crate::control) fn push(&mut self, text: Arc<KnownText>, adoption: Adoption) {
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
    pub(in crate::control) fn begin(&mut self, bounds: Bounds) {
        let may = self.attempt.is_none() && self.retry_at.is_none_or(|at| at <= Instant::now());
        let Some(history) = self.history.clone().filter(|_| may) else { return };
        let Some(pending) = self.waiting.pop_front() else { return };
        self.attempt = Some(spawn_blocking(move || {
            let recorded = history.record(pending.text.masked().map(|text| &**text), &pending.adoption, bounds);
            (pending, recorded)
        }));
    }

    /// Takes the outcome of the attempt, and waits for it for a time at most.
    pub(in crate::control) async fn settle(&mut self, patience: Duration) {
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
