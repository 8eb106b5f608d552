//! Interrupted installations: the previous files are kept beside the new ones until these are
//! verified. The next start or installation finishes or undoes an interrupted one.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{files, warn};
use crate::config::Draft;
use crate::keys::key_file::{FILE_MAX, KeyKind, public_key};
use crate::keys::pin::Pin;
use crate::os::plain_file::{self, follow_own_links};
use crate::reason::Reason;

/// The end of a previous file's name.
const OLD: &str = ".pintle-old";
/// For its owner alone: it may be a key.
const OLD_MODE: u32 = 0o600;

/// A file as it was: contents and mode.
pub(super) type Before = Option<(Vec<u8>, u32)>;

/// The previous files, until an installation is verified.
pub(super) struct Kept {
    old: Vec<PathBuf>,
    /// Marks the installation as running, for other processes.
    _locks: Vec<File>,
}

impl Kept {
    /// Copies the existing files, and syncs the copies to disk.
    pub(super) fn keep<'p>(places: impl Iterator<Item = &'p Path>) -> io::Result<Self> {
        let mut kept = Self { old: Vec::new(), _locks: Vec::new() };
        for place in places {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", place.display()));
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
        let contents = zeroize::Zeroizing::new(fs::read(place)?);
        match fs::remove_file(&old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        files::create(&old, &contents, OLD_MODE)?;
        let lock = plain_file::open(&old)?;
        lock.try_lock().map_err(io::Error::from)?;
        self.old.push(old);
        self._locks.push(lock);
        Ok(())
    }

    /// The names of the copies.
    pub(super) fn names(&self) -> Vec<String> {
        self.old.iter().map(|old| old.display().to_string()).collect()
    }

    /// Removes the copies, which are no longer needed.
    pub(super) fn remove(self) {
        for old in &self.old {
            if let Err(error) = fs::remove_file(old) {
                warn(&format!("{}: cannot be removed: {error}", old.display()).into());
            }
        }
    }
}

fn old_of(place: &Path) -> io::Result<PathBuf> {
    let place = follow_own_links(place)?;
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(OLD);
    Ok(place.with_file_name(name))
}

/// One file of a pair.
struct Place {
    path: PathBuf,
    now: Option<Vec<u8>>,
    /// The previous file, and its contents.
    old: Option<(PathBuf, Vec<u8>)>,
}

/// Finishes interrupted installations whose files are all in place, undoes others, and reports it.
/// With `only_tell`, it reports only.
pub(super) fn settle(draft: &Draft, only_tell: bool, say: &mut dyn FnMut(Reason)) {
    let Some(outline) = draft.outline() else { return };
    for (chain, key) in outline.sites.iter().flat_map(|site| &site.certificates) {
        let paths: Vec<PathBuf> = [Some(chain), key.as_ref()].into_iter().flatten().map(|p| outline.path(p)).collect();
        // Usually there is nothing.
        if !paths.iter().any(|path| old_of(path).is_ok_and(|old| fs::symlink_metadata(old).is_ok())) {
            continue;
        }
        let shown = outline.path(chain).display().to_string();
        match settle_pair(&paths, only_tell) {
            Ok(None) => {}
            Ok(Some(what)) => say(format!("{shown}: an installation was interrupted: {what}").into()),
            Err(error) => {
                let what = format!("{shown}: an installation was interrupted, and cannot be undone: {error}");
                let hint = format!("as the user who installs: pintle install again, or move the files *{OLD} back");
                say(Reason::new(what).hint(hint));
            }
        }
    }
}

/// `None` if the installation is still running.
fn settle_pair(paths: &[PathBuf], only_tell: bool) -> io::Result<Option<String>> {
    let (mut places, mut locks) = (Vec::new(), Vec::new());
    for path in paths {
        let old = old_of(path)?;
        let old = match plain_file::open(&old).and_then(|file| plain_file::believed(file, &old)) {
            Ok(file) => {
                match file.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => return Ok(None),
                    Err(TryLockError::Error(error)) => return Err(error),
                }
                locks.push(file.try_clone()?);
                Some((old, plain_file::read_opened(file, FILE_MAX)?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", old.display()))),
        };
        places.push(Place { path: path.clone(), now: fs::read(path).ok(), old });
    }
    let of_now: Vec<Option<&[u8]>> = places.iter().map(|p| p.now.as_deref()).collect();
    let of_before: Vec<Option<&[u8]>> =
        places.iter().map(|p| p.old.as_ref().map(|(_, old)| old.as_slice()).or(p.now.as_deref())).collect();
    let what = match (fits(&of_now), fits(&of_before), only_tell) {
        (true, _, true) => {
            return Ok(Some("its files are complete; the start removes the copies of the previous ones".into()));
        }
        (true, _, false) => "its files are complete, so it is finished now",
        (false, true, true) => {
            return Ok(Some("the start, or the next `pintle install`, restores the previous files".into()));
        }
        (false, true, false) => {
            restore(&places)?;
            "it is undone, and the previous files are back"
        }
        (false, false, _) => {
            let why = "neither the new nor the previous files are a chain and its key";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
    };
    for (old, _) in places.iter().filter_map(|place| place.old.as_ref()) {
        fs::remove_file(old)?;
    }
    Ok(Some(what.to_owned()))
}

/// The key last: until then the pair does not fit, and an interruption is repaired by the next run.
fn restore(places: &[Place]) -> io::Result<()> {
    for Place { path, old, .. } in places {
        if let Some((_, contents)) = old {
            let mode = fs::metadata(path).map_or(OLD_MODE, |m| m.permissions().mode() & 0o7777);
            files::put(path, contents, mode)?;
        }
    }
    Ok(())
}

/// `true` if a chain, and its key if there is one, belong together.
fn fits(pair: &[Option<&[u8]>]) -> bool {
    let key = |contents: &Option<&[u8]>| contents.and_then(|contents| public_key(contents).ok());
    let pins: Option<Vec<Pin>> = pair.iter().map(|contents| key(contents).map(|key| key.pin)).collect();
    let is_private = pair.get(1).is_none_or(|contents| key(contents).is_some_and(|k| k.kind == KeyKind::PrivateKey));
    is_private && pins.is_some_and(|pins| pins.windows(2).all(|two| matches!(two, [a, b] if a == b)))
}

/// For the tests: exits silently after a step.
#[cfg(debug_assertions)]
pub(super) fn die_at(step: usize) {
    if std::env::var("PINTLE_TEST_DIE_AT").is_ok_and(|at| at == step.to_string()) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn die_at(_: usize) {}

/// Restores the previous files. Returns `false` if that fails.
pub(super) fn put_back<'f>(files: impl Iterator<Item = (&'f Path, &'f Before)>) -> bool {
    let mut all = true;
    for (path, before) in files {
        let done = match before {
            Some((contents, mode)) => files::put(path, contents, *mode),
            None => fs::remove_file(path),
        };
        if let Err(error) = done {
            all = false;
            warn(&format!("{}: cannot be put back: {error}", path.display()).into());
        }
    }
    all
}

pub(super) fn as_it_is(path: &Path) -> Before {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    Some((fs::read(path).ok()?, mode))
}
