//! The copies of a site's files beside them: one while an installation is running, one of the previous pair.

use std::collections::HashMap;
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

/// Finds copies of files while they are being replaced. Each folder is looked up once: ten thousand sites have their files
/// in a few.
#[derive(Default)]
pub(super) struct OldCopies {
    /// By the folder of a path: where it is behind all links; `None` if links of another user lead there.
    folders: HashMap<PathBuf, Option<PathBuf>>,
}

impl OldCopies {
    /// `true` if there is a copy of a file.
    pub(super) fn has(&mut self, place: &Path) -> bool {
        let is_there = |old: &Path| fs::symlink_metadata(old).is_ok();
        let Some(name) = place.file_name() else { return old_of(place).is_ok_and(|old| is_there(&old)) };
        let folder = plain_file::folder_of(place);
        if !self.folders.contains_key(folder) {
            self.folders.insert(folder.to_owned(), follow_own_links(folder).ok());
        }
        let Some(Some(real)) = self.folders.get(folder) else { return false };
        let place = real.join(name);
        match fs::symlink_metadata(&place) {
            Ok(is) if is.is_symlink() => old_of(&place).is_ok_and(|old| is_there(&old)),
            _ => is_there(&place.with_file_name(with_end(&place, OLD))),
        }
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn copies_are_found_behind_links() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        for folder in ["live", "archive", "plain"] {
            fs::create_dir(place(folder)).unwrap();
        }
        // As certbot has it; and a link to a folder.
        symlink("../archive/chain1.pem", place("live/chain.pem")).unwrap();
        symlink("plain", place("linked")).unwrap();
        for file in ["archive/chain1.pem", "plain/a.pem", "plain/b.pem"] {
            fs::write(place(file), "x").unwrap();
        }
        for old in ["archive/chain1.pem", "plain/a.pem"] {
            fs::write(place(&format!("{old}{OLD}")), "x").unwrap();
        }
        let mut old = OldCopies::default();
        for _ in 0..2 {
            for (name, has) in [
                ("live/chain.pem", true),
                ("plain/a.pem", true),
                ("linked/a.pem", true),
                ("linked/../plain/a.pem", true),
                ("plain/b.pem", false),
                ("plain/none.pem", false),
                ("none/a.pem", false),
                ("live", false),
            ] {
                let path = place(name);
                assert_eq!(old.has(&path), has, "{name}");
                let by_itself = old_of(&path).is_ok_and(|old| fs::symlink_metadata(old).is_ok());
                assert_eq!(by_itself, has, "{name}");
            }
        }
    }
}
