//! The files that an installation replaces: kept beside the new ones until these are verified, and afterwards as the
//! previous pair.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::copies::{OLD_MODE, old_of};
use super::pair_file::read;
use super::plan::{InstallPlan, Placed};
use super::previous;
use crate::os::plain_file::{self, follow_own_links};
use crate::os::words::words;
use crate::reason::Reason;

/// A file as it was: contents and mode.
pub type Before = Option<(Zeroizing<Vec<u8>>, u32)>;

/// The previous files, until an installation is verified.
#[derive(Debug)]
pub struct KeptFiles {
    old: Vec<PathBuf>,
    /// Marks the installation as running, for other processes and for other installations of this one.
    _locks: Vec<File>,
}

impl KeptFiles {
    /// Copies the existing files, and syncs the copies to disk.
    ///
    /// # Errors
    ///
    /// If a file cannot be copied, or another installation of these files is running. No copy is left then.
    pub fn keep<'p>(places: impl Iterator<Item = &'p Path>) -> io::Result<Self> {
        let mut kept = Self { old: Vec::new(), _locks: Vec::new() };
        for place in places {
            let named =
                |error: io::Error| io::Error::new(error.kind(), format!("{}: {}", place.display(), words(&error)));
            match kept.keep_one(place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    kept.remove();
                    return Err(named(error));
                }
                Ok(()) => {}
            }
        }
        Ok(kept)
    }

    fn keep_one(&mut self, place: &Path) -> io::Result<()> {
        let (place, old) = (follow_own_links(place)?, old_of(place)?);
        let contents = read(&place)?;
        if plain_file::open(&old).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock))) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "another installation of this file is running"));
        }
        match fs::remove_file(&old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        plain_file::create(&old, &contents, OLD_MODE)?;
        let lock = plain_file::open(&old)?;
        lock.try_lock().map_err(io::Error::from)?;
        self.old.push(old);
        self._locks.push(lock);
        Ok(())
    }

    /// The names of the copies.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.old.iter().map(|old| old.display().to_string()).collect()
    }

    /// Removes the copies, which are no longer needed. Returns the failures.
    pub fn remove(self) -> Vec<Reason> {
        let removed = self.old.iter().map(|old| fs::remove_file(old).map_err(|error| (old, error)));
        let failed = removed.filter_map(Result::err);
        failed.map(|(old, error)| format!("{}: cannot be removed: {}", old.display(), words(&error)).into()).collect()
    }

    /// Makes the copies the previous pair of the site, for a way back. Returns the failures: nothing depends on it.
    pub fn become_previous(self, plan: &InstallPlan) -> Vec<Reason> {
        let kept = previous::replace(&plan.places);
        kept.err()
            .map(|error| format!("the previous files cannot be kept for a way back: {}", words(&error)).into())
            .into_iter()
            .collect()
    }
}

/// The files as they are.
#[must_use]
pub fn as_they_are(plan: &InstallPlan) -> Vec<Before> {
    plan.places_of_files().map(as_it_is).collect()
}

fn as_it_is(path: &Path) -> Before {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    Some((read(path).ok()?, mode))
}

/// Writes the files of an installation: all of them or none.
///
/// # Errors
///
/// The reason, and whether the files are as they were.
pub fn write(plan: &InstallPlan, before: &[Before]) -> Result<(), (Box<Reason>, bool)> {
    for (at, Placed { path, contents, mode, .. }) in plan.files.iter().enumerate() {
        if let Err(error) = plain_file::put(path, contents, *mode) {
            let back = put_back(plan, before, at);
            let reason = Reason::new(format!("{}: {}", path.display(), words(&error)));
            let is_back = back.is_ok();
            let notes = back.err().into_iter().flatten().map(|reason| reason.line());
            return Err((Box::new(notes.fold(reason, Reason::note)), is_back));
        }
        die_at(at + 1);
    }
    Ok(())
}

/// Restores the first `count` of the previous files.
///
/// # Errors
///
/// The failures; the other files are restored all the same.
pub fn put_back(plan: &InstallPlan, before: &[Before], count: usize) -> Result<(), Vec<Reason>> {
    let mut failed: Vec<Reason> = Vec::new();
    for (path, before) in plan.places_of_files().zip(before).take(count) {
        let done = match before {
            Some((contents, mode)) => plain_file::put(path, contents, *mode),
            None => fs::remove_file(path),
        };
        failed.extend(
            done.err().map(|error| format!("{}: cannot be put back: {}", path.display(), words(&error)).into()),
        );
    }
    if failed.is_empty() { Ok(()) } else { Err(failed) }
}

/// For the tests: exits silently after a step.
#[cfg(debug_assertions)]
pub fn die_at(step: usize) {
    if std::env::var("PINTLE_TEST_DIE_AT").is_ok_and(|at| at == step.to_string()) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The sandbox forbids to send signals.
        std::process::abort();
    }
}

/// For the tests only.
#[cfg(not(debug_assertions))]
pub fn die_at(_: usize) {}
