//! The promises of the process that has taken over, seen from the previous one: pins that its chains break, and a ledger in
//! another folder.

use std::io;
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use super::Control;
use super::promises::{is_sent, sent_sets};
use crate::ledger::set_id;
use crate::ledger::time::wall;
use crate::os::words::words;
use crate::policy::promise::Promise;

impl Control {
    /// `true` if the new process sends pins that chains of this one break, or if that is unknown. Until it hears that this
    /// process accepts no more, it does not send them.
    pub(super) async fn is_rotated(&self, theirs: Option<Vec<PathBuf>>) -> bool {
        if self.config.pledges.is_empty() && self.ledger().book().promises().is_empty() {
            return false;
        }
        let Some(folder) = self.fixed.state.clone() else { return true };
        let read = spawn_blocking(move || match theirs.is_none_or(|theirs| are_one(&theirs, &folder)) {
            true => crate::ledger::look(&folder).ok(),
            false => None,
        });
        let Ok(Some((theirs, _))) = read.await else { return true };
        let now = wall();
        let known = sent_sets(self.ledger().book(), now);
        let is_new = |promise: &&Promise| is_sent(promise, now) && !known.contains(&set_id(promise));
        self.config.breaks_any(theirs.promises().iter().filter(is_new))
    }

    /// Sets the ledger's file aside if the new process has another `state.directory`. From now on the file is out of date:
    /// a start in this folder must not believe it. The head stays, so such a start finds the file missing.
    pub(super) async fn set_ledger_aside(&self, theirs: Option<Vec<PathBuf>>) {
        let (Some(theirs), Some(own)) = (theirs, self.fixed.state.clone()) else { return };
        let moved = spawn_blocking(move || {
            if are_one(&theirs, &own) {
                return Ok(None);
            }
            match std::fs::rename(own.join(crate::ledger::FILE), own.join(crate::ledger::MOVED)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                renamed => renamed.map(|()| Some(own)),
            }
        });
        match moved.await.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(None) => {}
            Ok(Some(folder)) => tracing::warn!(
                folder = %folder.display(),
                "the ledger is in another state.directory now: the file here is out of date, and is ledger.moved"
            ),
            Err(error) => tracing::error!(
                error = %words(&error),
                "cannot set the ledger's file aside: it is out of date, so do not start pintle with the previous state.directory"
            ),
        }
    }
}

/// `true` if a `state.directory`, in the form of [`crate::handover::HandoverAnswer::Ready`], is this folder.
fn are_one(theirs: &[PathBuf], own: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    theirs.iter().any(|theirs| real(theirs) == real(own))
}
