//! The files of the keys that pintle makes itself, and the remedies if one of them cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use crate::keys::key_file::{FILE_MAX, PublicKey, public_half, public_key};
use crate::keys::pin::Pin;
use crate::os::plain_file::{self, folder_of};
use crate::os::read_error;
use crate::policy::promise::Seconds;
use crate::reason::{Reason, shell_path};
use crate::tls::rule::day;

/// A file that exists and holds no usable key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableKeyFile {
    /// The file.
    pub file: PathBuf,
    /// The fault.
    pub why: String,
    /// `true` if this user may not read the file.
    pub is_forbidden: bool,
}

/// Reads the pin of a private key; `None` if there is no such file.
///
/// # Errors
///
/// If there is one, and it cannot be read, or holds no private key.
pub fn read(file: &Path) -> Result<Option<Pin>, UnusableKeyFile> {
    read_public(file).map(|key| key.map(|key| key.pin))
}

/// Reads the public half of a private key; `None` if there is no such file.
///
/// # Errors
///
/// As [`read`].
pub fn read_public(file: &Path) -> Result<Option<PublicKey>, UnusableKeyFile> {
    let unusable = |why: String, is_forbidden| UnusableKeyFile { file: file.to_owned(), why, is_forbidden };
    let contents = match plain_file::read(file, FILE_MAX) {
        Ok(contents) => contents,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match file.symlink_metadata() {
                Ok(_) => Err(unusable("a symbolic link that leads nowhere".to_owned(), false)),
                Err(_) => Ok(None),
            };
        }
        Err(error) => {
            let is_forbidden = error.kind() == io::ErrorKind::PermissionDenied;
            return Err(unusable(read_error::describe(&error), is_forbidden));
        }
    };
    match (public_half(&contents), public_key(&contents)) {
        (Some(key), _) => Ok(Some(key)),
        (None, _) if contents.is_empty() => Err(unusable("the file is empty".to_owned(), false)),
        (None, Ok(_)) => Err(unusable("no private key in it".to_owned(), false)),
        (None, Err(error)) => Err(unusable(error.to_string(), false)),
    }
}

impl UnusableKeyFile {
    /// The fault of a next key. `held_until` is the end of the promises that clients hold now.
    #[must_use]
    pub fn next_key(&self, held_until: Option<Seconds>) -> Reason {
        let mut reason = Reason::new(format!("{}: cannot read the next key: {}", self.file.display(), self.why))
            .note("pintle renews on the live key, and changes over to no other key");
        if let Some(until) = held_until.and_then(|until| jiff::Timestamp::from_second(until).ok()) {
            reason = reason.note(format!(
                "clients that hold pins of this site accept the live key, and the backups of [site.hpkp], but no fresh key \
                 before {}",
                day(until)
            ));
        }
        self.with_remedies(reason, "pintle makes and promises a fresh next key")
    }

    /// The fault of a live key.
    #[must_use]
    pub fn live_key(&self) -> Reason {
        let reason = Reason::new(format!("{}: cannot read the live key: {}", self.file.display(), self.why))
            .note("pintle orders no certificate without it");
        self.with_remedies(reason, "pintle restores it from the copy of the served pair")
    }

    fn with_remedies(&self, reason: Reason, afterwards: &str) -> Reason {
        let (file, folder) = (shell_path(&self.file), shell_path(folder_of(&self.file)));
        let reason = match self.is_forbidden {
            true => reason.command(format!("chown --reference={folder} {file} && chmod 600 {file}")),
            false => reason.hint("restore the file from a backup"),
        };
        reason.hint(format!("if the key is lost: mv -T {file} {file}.lost; then {afterwards}"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn keys_and_files_without_one() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("next.pem");
        assert_eq!(read(&file), Ok(None));
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(&file, key.serialize_pem()).unwrap();
        assert!(matches!(read(&file), Ok(Some(_))));
        for contents in
            [String::new(), key.public_key_pem(), "garbage".to_owned(), key.serialize_pem()[..60].to_owned()]
        {
            fs::write(&file, &contents).unwrap();
            let unusable = read(&file).unwrap_err();
            assert!(!unusable.why.is_empty() && !unusable.is_forbidden, "{contents}");
            let reason = unusable.next_key(Some(1_800_000_000));
            assert!(reason.line().contains("before 2027-01-15"), "{reason}");
            assert!(reason.hints[1].contains(&format!("mv -T {0} {0}.lost;", file.display())), "{reason:?}");
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(read(&file).is_err());
        fs::remove_dir(&file).unwrap();
        std::os::unix::fs::symlink("nowhere", &file).unwrap();
        assert!(read(&file).is_err());
    }
}
