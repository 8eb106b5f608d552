//! Files that commands write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use crate::config::key_in_pem;
use crate::keys::key_file::{FILE_MAX, PublicKey, has_private_key, private_key, public_key};
use crate::keys::pin::Pin;
pub(super) use crate::os::plain_file::create;
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

/// The contents of a file; `None` if it is too large for a key file, or cannot be read.
fn small(path: &Path) -> Option<Vec<u8>> {
    let is_small = fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= FILE_MAX);
    is_small.then(|| fs::read(path).ok()).flatten()
}

/// The key in a file; `None` if it is no key file, or too large for one.
pub(super) fn key_of(path: &Path) -> Option<PublicKey> {
    public_key(&small(path)?).ok()
}

/// `true` if a file has the private key with this pin.
pub(super) fn has_key_of(path: &Path, pin: Pin) -> bool {
    small(path).is_some_and(|text| public_key(&text).is_ok_and(|key| key.pin == pin) && has_private_key(&text))
}

/// A chain and its key in one file.
pub(super) fn in_one(chain: &[u8], key: &[u8]) -> Vec<u8> {
    match private_key(key) {
        Ok(key) if !has_private_key(chain) => [chain, b"\n", key_in_pem(&key).as_bytes()].concat(),
        _ => chain.to_vec(),
    }
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
    fn a_chain_and_its_key_in_one_file() {
        let key = rcgen::KeyPair::generate().unwrap();
        let chain =
            rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let text = key.serialize_pem();
        let both = in_one(chain.as_bytes(), text.as_bytes());
        assert!(both.starts_with(chain.as_bytes()));
        assert_eq!(private_key(&both).unwrap(), private_key(text.as_bytes()).unwrap());
        assert_eq!(in_one(&both, text.as_bytes()), both);
        assert_eq!(in_one(chain.as_bytes(), &both), both);
    }

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
