//! Keeps the versions of the configuration: on a thread that may wait for the disk, so that nothing waits for it.
//!
//! A version that cannot be kept does not hurt the service: pintle warns, `pintle status` and a metric say so, and it tries
//! again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Control;
use super::admin::AdoptionOrigin;
use crate::config::KnownText;
use crate::config::history::{Adoption, Bounds};

/// The longest wait of an answer for the id of its version.
const PATIENCE: Duration = Duration::from_secs(2);

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
