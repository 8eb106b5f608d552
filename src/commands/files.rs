//! Files that commands write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use crate::os::plain_file::{folder_of, follow_own_links};

/// Writes a file whole or not at all, with at most the permissions of `mode`.
pub(super) fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let _ = fs::remove_file(&new);
    write(open_new(&new, mode)?, contents)?;
    fs::rename(new, path)
}

/// Replaces a file, whole or not at all, and syncs it to disk. Follows symbolic links of root and
/// of this user only, and keeps the owner.
pub(super) fn put(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let path = follow_own_links(path)?;
    let owner = fs::symlink_metadata(&path).ok().map(|m| (m.uid(), m.gid()));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let _ = fs::remove_file(&new);
    let file = open_new(&new, mode)?;
    // Through the open file, not by name: somebody else may have replaced the file.
    let written = (|| {
        let made = file.metadata()?;
        if let Some((user, group)) = owner
            && (made.uid(), made.gid()) != (user, group)
        {
            fchown(&file, Some(user), Some(group))?;
        }
        // The umask may have removed permissions.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        write(file, contents)?;
        fs::rename(&new, &path)
    })();
    if written.is_err() {
        // It may be a key.
        let _ = fs::remove_file(&new);
    }
    written?;
    File::open(folder_of(&path))?.sync_all()
}

/// Creates a missing file and syncs it to disk. An existing one, even a link that leads nowhere, is
/// left alone: `AlreadyExists`.
pub(super) fn create(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let file = open_new(path, mode)?;
    let written = write(file, contents).and_then(|()| File::open(folder_of(path))?.sync_all());
    if written.is_err() {
        // The file is ours, and half of it is useless.
        let _ = fs::remove_file(path);
    }
    written
}

fn open_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

fn write(mut file: File, contents: &[u8]) -> io::Result<()> {
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_there_stays() {
        let folder = tempfile::TempDir::new().unwrap();
        let (file, link) = (folder.path().join("a.key"), folder.path().join("b.key"));
        create(&file, b"one", 0o600).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(create(&file, b"two", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).unwrap(), b"one");
        symlink(folder.path().join("elsewhere"), &link).unwrap();
        assert_eq!(create(&link, b"two", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!folder.path().join("elsewhere").exists());
        replace(&file, b"three", 0o644).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"three");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
