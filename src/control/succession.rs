//! The promises of the process that takes over, seen from the previous one: the ledger that it is lent, pins that the chains
//! here break, and a ledger in another folder.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Control;
use super::promises::{is_sent, lock, sent_sets};
use crate::ledger::time::wall;
use crate::ledger::{FILE, Ledger, MOVED, OpenError, note_left, set_id};
use crate::os::words::words;
use crate::policy::promise::Promise;

/// The number of attempts, and the pause between them, to take the ledger back after a failed upgrade.
const RETAKE_TRIES: usize = 20;
const RETAKE_PAUSE: Duration = Duration::from_millis(100);
/// The ledger's error while another process has it.
const LENT: &str = "an upgrade is under way";

impl Control {
    /// Releases the ledger's file. Pins are sent while their leases hold, which are on disk.
    pub(super) fn lend_ledger(&mut self) {
        let mut ledger = lock(&self.promises.ledger);
        if ledger.is_durable() {
            let book = ledger.book().clone();
            *ledger = Ledger::broken(book, LENT.into());
        }
    }

    /// Takes the ledger back, with the records that the other process may have written: they are promised, though not sent.
    pub(super) async fn retake_ledger(&mut self) {
        let Some(folder) = self.fixed.state.clone().filter(|_| self.ledger().is_broken()) else { return };
        for _ in 0..RETAKE_TRIES {
            let (folder, known) = (folder.clone(), self.ledger().book().clone());
            match spawn_blocking(move || Ledger::mend(&folder, known, wall())).await {
                Ok(Ok((opened, _))) => {
                    *lock(&self.promises.ledger) = opened;
                    return;
                }
                Ok(Err(OpenError::Locked)) => sleep(RETAKE_PAUSE).await,
                // It stays unwritable, and is retried with each record.
                Ok(Err(error)) => {
                    return tracing::error!(%error, "cannot reopen the ledger: check free space and permissions");
                }
                Err(_) => return,
            }
        }
        tracing::error!("cannot reopen the ledger: another process has it");
    }

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

    /// Sets the ledger's file aside if the new process has another `state.directory`, and marks the folder. From now on
    /// the file is out of date: a start in this folder must not believe it. The head stays, so such a start finds the
    /// file missing.
    pub(super) async fn set_ledger_aside(&self, theirs: Option<Vec<PathBuf>>) {
        let (Some(theirs), Some(own)) = (theirs, self.fixed.state.clone()) else { return };
        let moved = spawn_blocking(move || {
            // The only ledger stays where it is. A new process with another user may have a folder that is closed here.
            let is_there = |theirs: &PathBuf| match std::fs::metadata(theirs.join(FILE)) {
                Ok(file) => file.len() > 0,
                Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
            };
            let to = theirs.iter().find(|theirs| is_there(theirs));
            let Some(to) = to.filter(|_| !are_one(&theirs, &own)) else { return Ok(None) };
            // A process that takes this folder back may die before it serves. The next start looks there then.
            let _ = note_left(&own, to);
            match std::fs::rename(own.join(FILE), own.join(MOVED)) {
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
pub(super) fn are_one(theirs: &[PathBuf], own: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    theirs.iter().any(|theirs| real(theirs) == real(own))
}
