//! The copies of a site's files beside them: one while an installation is running, one of the previous pair.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use crate::os::plain_file::{self, follow_own_links, with_end};

/// The end of the name of a copy while an installation is running.
pub(super) const OLD: &str = ".pintle-old";
/// The end of the name of a key whose installation was undone.
const UNDONE: &str = ".pintle-undone";
/// The end of the name of a previous file.
const PREVIOUS: &str = ".pintle-previous";
/// For its owner alone: it may be a key.
pub(super) const OLD_MODE: u32 = 0o600;
/// The permissions that a previous file may keep: the group may be the serving user's.
const PREVIOUS_MODE: u32 = 0o640;

/// The copy of a file while it is being replaced.
pub(super) fn old_of(place: &Path) -> io::Result<PathBuf> {
    let place = follow_own_links(place)?;
    Ok(place.with_file_name(with_end(&place, OLD)))
}

/// The place of a key whose installation was undone.
pub(super) fn undone_of(place: &Path) -> io::Result<PathBuf> {
    let place = follow_own_links(place)?;
    Ok(place.with_file_name(with_end(&place, UNDONE)))
}

/// The previous file of a file.
pub(super) fn previous_of(place: &Path) -> io::Result<PathBuf> {
    let place = follow_own_links(place)?;
    Ok(place.with_file_name(with_end(&place, PREVIOUS)))
}

/// Makes the copy of a file its previous file, with its owner and at most its permissions.
pub(super) fn become_previous(old: &Path, place: &Path) -> io::Result<()> {
    let (is, file) = (fs::metadata(place)?, plain_file::open(old)?);
    // Only root can give files away. For others, the copy is theirs as the file is.
    let _ = fchown(&file, Some(is.uid()), Some(is.gid()));
    file.set_permissions(fs::Permissions::from_mode(is.mode() & PREVIOUS_MODE | OLD_MODE))?;
    fs::rename(old, previous_of(place)?)
}
