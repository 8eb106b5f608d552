//! A change of the configuration file: whole or not at all, with the mode and the owner that it has, and only if nobody
//! else has changed it meanwhile.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use rustix::fs::{Access, access};

use super::draft::read_text;
use crate::os::plain_file::{folder_of, follow_own_links};
use crate::os::words::words;
use crate::os::{privileges, sandbox};
use crate::reason::pasted::pintle;
use crate::reason::{Reason, shell_path};

/// The end of the new file's name, until it gets its own.
const NEW: &str = ".pintle-new";
/// Bytes of the hash in a tag.
const TAG: usize = 16;

/// The tag of a text, as `ETag` has it: another text has another one.
#[must_use]
pub fn tag(text: &str) -> String {
    let hash: String = Sha256::digest(text.as_bytes()).iter().take(TAG).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hash}\"")
}

/// `true` if a field `If-Match` lists a tag (RFC 9110 section 13.1.1).
#[must_use]
pub fn matches(if_match: &str, tag: &str) -> bool {
    if_match.split(',').map(str::trim).any(|listed| listed == "*" || listed == tag)
}

/// The setting that permits changes, and how it takes effect.
const EDIT: &str = "edit = true in [admin]";

/// The reason why the file was not changed.
#[derive(Debug)]
pub enum EditError {
    /// The configuration in use does not permit it (`admin.edit`).
    NotPermitted(PathBuf),
    /// Somebody else has changed it: an editor, or another reader of the page.
    Changed(PathBuf),
    /// This process may not write there.
    Denied(PathBuf, io::Error),
    /// The new file would belong to another user.
    Owner(PathBuf, u32, u32),
    /// A file of an earlier change is in the way, and cannot be removed.
    Left(PathBuf, io::Error),
    /// Any other failure.
    Io(PathBuf, io::Error),
}

impl EditError {
    fn of(path: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Denied(path.to_owned(), error),
            _ => Self::Io(path.to_owned(), error),
        }
    }

    /// `true` if another user, outside of the sandbox, could do it.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::NotPermitted(_) | Self::Denied(..) | Self::Owner(..) | Self::Left(..))
    }

    /// The reason with its remedies.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let reason = Reason::new(self.to_string());
        let by_command = format!("as root: {}", pintle("config apply FILE"));
        match self {
            Self::Changed(_) => reason.hint("read it again, and make the change there"),
            Self::NotPermitted(path) | Self::Denied(path, _) if sandbox::forbids_writing(folder_of(path)) => reason
                .hint(by_command)
                .hint(format!("{EDIT}, then `{}`: the sandbox permits it from then on", pintle("upgrade"))),
            Self::NotPermitted(_) => reason.hint(by_command).hint(format!("{EDIT}, then `{}`", pintle("reload"))),
            Self::Denied(path, _) => {
                let (folder, user) = (folder_of(path), privileges::user());
                reason.hint(by_command).hint(format!(
                    "chgrp {user} {0} && chmod g+w {0}: the user {user} may write in the folder from then on",
                    shell_path(folder)
                ))
            }
            Self::Owner(path, ..) => {
                let user = privileges::user();
                reason.hint(by_command).command(format!("chown {user} {}", shell_path(path)))
            }
            Self::Left(path, _) => reason.hint(format!("as root: rm -r {}", shell_path(path))).hint(by_command),
            Self::Io(..) => reason.hint("check free space and permissions"),
        }
    }
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(path) => write!(f, "{}: somebody else has changed the file meanwhile", path.display()),
            Self::NotPermitted(path) => {
                write!(f, "{}: admin.edit is not set: the running process does not change it", path.display())
            }
            Self::Left(path, error) => {
                write!(f, "{}: a file of an earlier change cannot be removed: {}", path.display(), words(error))
            }
            Self::Denied(path, error) => {
                write!(f, "{}: the user {} may not write there: {}", path.display(), privileges::user(), words(error))
            }
            Self::Owner(path, user, group) => {
                let own = privileges::user();
                write!(f, "{}: it belongs to user {user}, group {group}, and {own} cannot keep that", path.display())
            }
            Self::Io(path, error) => write!(f, "{}: {}", path.display(), words(error)),
        }
    }
}

/// The file that a change replaces.
#[derive(Debug)]
pub struct EditTarget {
    /// The file itself, behind all links.
    path: PathBuf,
    text: String,
    mode: u32,
    owner: (u32, u32),
}

impl EditTarget {
    /// Reads the file that a path leads to. Follows symbolic links of root and of this user only.
    ///
    /// # Errors
    ///
    /// [`EditError`] if it cannot be read.
    pub fn look(path: &Path) -> Result<Self, EditError> {
        let real = follow_own_links(path).map_err(|error| EditError::of(path, error))?;
        let text = read_text(&real).map_err(|error| EditError::of(&real, error))?;
        let is = fs::metadata(&real).map_err(|error| EditError::of(&real, error))?;
        Ok(Self { path: real, text, mode: is.mode() & 0o7777, owner: (is.uid(), is.gid()) })
    }

    /// The text that it has.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Says whether [`EditTarget::write`] may succeed, by the permissions of this process. Writes nothing, so a full disk
    /// shows only when the file is written.
    ///
    /// # Errors
    ///
    /// [`EditError`] if it would not.
    pub fn permitted(&self) -> Result<(), EditError> {
        let folder = folder_of(&self.path);
        if sandbox::forbids_writing(folder) {
            return Err(EditError::Denied(self.path.clone(), io::ErrorKind::PermissionDenied.into()));
        }
        access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| EditError::of(&self.path, error.into()))?;
        let (user, group) = self.owner;
        let own = rustix::process::geteuid().as_raw();
        if own != 0 && own != user { Err(EditError::Owner(self.path.clone(), user, group)) } else { Ok(()) }
    }

    /// Gives the file another text.
    ///
    /// # Errors
    ///
    /// [`EditError`]; the file is unchanged then.
    pub fn write(self, text: &str) -> Result<WrittenConfig, EditError> {
        self.replace(text)?;
        Ok(WrittenConfig { after: text.to_owned(), before: self })
    }

    /// A name for the new file that nothing has. What an earlier process has left there makes room.
    fn free_path(&self) -> Result<PathBuf, EditError> {
        let mut left = None;
        for end in [String::new(), format!(".{}", std::process::id())] {
            let new = self.new_path(&end);
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => left = Some((new, error)),
                _ => return Ok(new),
            }
        }
        let (new, error) = left.unwrap_or_else(|| (self.path.clone(), io::ErrorKind::AlreadyExists.into()));
        Err(EditError::Left(new, error))
    }

    fn new_path(&self, end: &str) -> PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(NEW);
        name.push(end);
        self.path.with_file_name(name)
    }

    fn replace(&self, text: &str) -> Result<(), EditError> {
        self.permitted()?;
        let new = self.free_path()?;
        let written = self.make(&new).and_then(|mut file| {
            let whole = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
            whole.map_err(|error| EditError::of(&self.path, error))?;
            // As late as possible: an editor may save at this moment.
            if read_text(&self.path).ok().as_deref() != Some(&self.text) {
                return Err(EditError::Changed(self.path.clone()));
            }
            fs::rename(&new, &self.path).map_err(|error| EditError::of(&self.path, error))
        });
        if written.is_err() {
            // It is missing if it could not be made.
            let removed = fs::remove_file(&new);
            if let Some(error) = removed.err().filter(|error| error.kind() != io::ErrorKind::NotFound) {
                tracing::warn!(error = %words(&error), file = %new.display(), "a file of a failed change stays: remove it");
            }
        }
        written?;
        let synced = File::open(folder_of(&self.path)).and_then(|folder| folder.sync_all());
        synced.map_err(|error| EditError::Io(self.path.clone(), error))
    }

    /// Makes the new file, empty, with mode and owner of the old one.
    fn make(&self, new: &Path) -> Result<File, EditError> {
        let of = |error| EditError::of(&self.path, error);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new).map_err(of)?;
        let made = file.metadata().map_err(of)?;
        let (user, group) = self.owner;
        if (made.uid(), made.gid()) != self.owner && fchown(&file, Some(user), Some(group)).is_err() {
            return Err(EditError::Owner(self.path.clone(), user, group));
        }
        file.set_permissions(fs::Permissions::from_mode(self.mode)).map_err(of)?;
        Ok(file)
    }
}

/// A change that was made.
#[derive(Debug)]
pub struct WrittenConfig {
    before: EditTarget,
    after: String,
}

impl WrittenConfig {
    /// Brings the former text back, unless somebody else has changed the file since.
    ///
    /// # Errors
    ///
    /// [`EditError`] if the new text stays.
    pub fn undo(self) -> Result<(), EditError> {
        let Self { before, after } = self;
        let text = before.text.clone();
        EditTarget { text: after, ..before }.replace(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn tags() {
        let one = tag("a");
        assert!(one.len() == 2 + 2 * TAG && one != tag("b"), "{one}");
        for (field, is_match) in
            [(one.clone(), true), (format!("\"x\", {one}"), true), ("*".into(), true), (format!("W/{one}"), false)]
        {
            assert_eq!(matches(&field, &one), is_match, "{field}");
        }
        assert!(!matches("", &one));
    }

    #[test]
    fn a_change_keeps_mode_and_links_and_can_be_undone() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("real.toml"), folder.path().join("pintle.toml"));
        fs::write(&file, "a = 1\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real.toml", &link).unwrap();
        let target = EditTarget::look(&link).unwrap();
        target.permitted().unwrap();
        // Of a process that was killed, and of somebody else.
        fs::write(folder.path().join(".real.toml.pintle-new"), "left").unwrap();
        let written = target.write("a = 2\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 2\n");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        written.undo().unwrap();
        assert_eq!(fs::read_to_string(&link).unwrap(), "a = 1\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_cannot_be_removed_is_avoided_or_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pintle.toml");
        fs::write(&file, "a = 1\n").unwrap();
        let stuck = folder.path().join(".pintle.toml.pintle-new");
        fs::create_dir(&stuck).unwrap();
        EditTarget::look(&file).unwrap().write("a = 2\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 2\n");
        let second = folder.path().join(format!(".pintle.toml.pintle-new.{}", std::process::id()));
        fs::create_dir(&second).unwrap();
        let error = EditTarget::look(&file).unwrap().write("a = 3\n").unwrap_err();
        assert!(matches!(&error, EditError::Left(path, _) if *path == second), "{error}");
        assert!(error.reason().hints[0].contains("rm -r"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 2\n");
    }

    #[test]
    fn an_edit_of_somebody_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pintle.toml");
        fs::write(&file, "a = 1\n").unwrap();
        let target = EditTarget::look(&file).unwrap();
        fs::write(&file, "a = 3\n").unwrap();
        assert!(matches!(target.write("a = 2\n"), Err(EditError::Changed(_))));
        let written = EditTarget::look(&file).unwrap().write("a = 4\n").unwrap();
        fs::write(&file, "a = 5\n").unwrap();
        assert!(matches!(written.undo(), Err(EditError::Changed(_))));
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 5\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(matches!(EditTarget::look(&folder.path().join("none")), Err(EditError::Io(..))));
    }
}
