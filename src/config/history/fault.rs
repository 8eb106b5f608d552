//! The reasons why a version is not in the history, each with its remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::os::words::words;
use crate::reason::{Reason, shell_path, shell_word};

/// Free bytes of the disk that the history leaves to the ledger, without which pins are withheld.
pub(super) const RESERVE: u64 = 8 << 20;
/// The ends of names that git gives to its locks.
const LOCKS: [&str; 4] = ["HEAD.lock", "packed-refs.lock", "config.lock", "refs/heads/main.lock"];

/// A fault of the history.
#[derive(Debug)]
pub enum Fault {
    /// The system refuses: no space, no permission.
    Io(PathBuf, io::Error),
    /// The disk has no more free space than the history leaves to the ledger.
    Scarce(PathBuf),
    /// Another program holds a lock, or has left it behind.
    Locked(PathBuf),
    /// The repository cannot be read.
    Damaged(PathBuf, String),
    /// Somebody else has moved the branch meanwhile.
    Moved(PathBuf),
    /// The configuration is larger than `limits.config_version`.
    TooLarge {
        /// Its size in bytes.
        is: u64,
        /// The limit.
        most: u64,
    },
    /// The repository has reached `limits.config_history`.
    Full {
        /// The repository.
        path: PathBuf,
        /// Its size in bytes.
        is: u64,
        /// The limit.
        most: u64,
    },
    /// The text is not TOML, so that its secrets cannot be found.
    Unreadable,
    /// No commit has this id.
    NoSuch {
        /// The id, as asked.
        asked: String,
        /// The reason, if it is another one.
        why: Option<&'static str>,
    },
}

impl Fault {
    /// Classifies an error of gix.
    pub(super) fn of(path: &Path, error: &gix::Error) -> Self {
        if let Some(lock) = LOCKS.iter().map(|lock| path.join(lock)).find(|lock| lock.exists()) {
            return Self::Locked(lock);
        }
        let io = error.downcast_any_ref::<io::Error>().filter(|io| io.kind() != io::ErrorKind::NotFound);
        match io {
            // The text of an error of gix may quote paths, never contents.
            Some(io) => Self::Io(path.to_owned(), io::Error::new(io.kind(), words(io))),
            None if error.is_conflict() => Self::Moved(path.to_owned()),
            None => Self::Damaged(path.to_owned(), error.to_string()),
        }
    }

    /// `true` if another attempt may succeed without a change of the configuration.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(
            self,
            Self::Io(..) | Self::Scarce(_) | Self::Locked(_) | Self::Damaged(..) | Self::Moved(_) | Self::Full { .. }
        )
    }

    /// The fault with its remedies.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let reason = Reason::new(self.to_string());
        let aside = |path: &Path| {
            let (from, to) = (shell_path(path), shell_word(&format!("{}.damaged", path.display())));
            format!("mv {from} {to}; pintle begins a new history")
        };
        match self {
            Self::Io(path, error) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    reason.hint("free space there; pintle tries again by itself")
                }
                io::ErrorKind::PermissionDenied => reason
                    .hint("for a command: as root, or as the user that runs pintle")
                    .hint(format!("for pintle itself: give its user the folder: chown -R USER {}", shell_path(path))),
                io::ErrorKind::ReadOnlyFilesystem => reason.hint("mount it writable; pintle tries again by itself"),
                _ => reason.hint("check free space and permissions; pintle tries again by itself"),
            },
            Self::Scarce(_) => reason.hint("free space there; pintle tries again by itself"),
            Self::Locked(lock) => reason
                .hint("wait until git has ended; pintle tries again by itself")
                .hint(format!("if no git works there: rm {}", shell_path(lock))),
            Self::Damaged(path, _) => {
                reason.hint(format!("git -C {} fsck shows the damage", shell_path(path))).hint(aside(path))
            }
            Self::Moved(_) => reason.hint("pintle tries again by itself"),
            Self::TooLarge { .. } => reason.hint("limits.config_version = a larger size, in [limits]"),
            Self::Full { path, .. } => reason
                .hint(format!("git -C {} gc --prune=now packs it; pintle tries again by itself", shell_path(path)))
                .hint("limits.config_history = a larger size, in [limits]")
                .hint(aside(path)),
            Self::Unreadable => reason.command("pintle check"),
            Self::NoSuch { .. } => reason.hint("pintle config history lists the versions"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {}", path.display(), words(error)),
            // Without the number of free bytes: a message that changes all the time would be logged each time.
            Self::Scarce(path) => write!(
                f,
                "{}: less than {} MiB are free on this disk, and the history leaves them to the ledger",
                path.display(),
                RESERVE >> 20
            ),
            Self::Locked(lock) => {
                write!(f, "{}: another program holds this lock, or has left it behind", lock.display())
            }
            Self::Damaged(path, why) => write!(f, "{}: the history is damaged: {why}", path.display()),
            Self::Moved(path) => write!(f, "{}: another program has moved the branch meanwhile", path.display()),
            Self::TooLarge { is, most } => {
                write!(f, "the configuration has {is} bytes, more than limits.config_version ({most}), and is not kept")
            }
            Self::Full { path, is, most } => {
                write!(f, "{}: has {is} bytes; limits.config_history is {most}", path.display())
            }
            Self::Unreadable => f.write_str("not TOML: its secrets cannot be found, so that it is not kept"),
            Self::NoSuch { asked, why: None } => write!(f, "no version {asked:?} in the history"),
            Self::NoSuch { asked, why: Some(why) } => write!(f, "version {asked:?}: {why}"),
        }
    }
}

impl std::error::Error for Fault {}
