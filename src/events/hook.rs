//! The settings of a hook.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::kind::{EventKind, Pattern};
use super::sign::Secret;

/// The pauses before each new attempt, by default: the schedule of Standard Webhooks.
pub const RETRY: [Duration; 9] = {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 3600;
    [
        Duration::from_secs(5),
        Duration::from_secs(5 * MINUTE),
        Duration::from_secs(30 * MINUTE),
        Duration::from_secs(2 * HOUR),
        Duration::from_secs(5 * HOUR),
        Duration::from_secs(10 * HOUR),
        Duration::from_secs(14 * HOUR),
        Duration::from_secs(20 * HOUR),
        Duration::from_secs(24 * HOUR),
    ]
};

/// A hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Its name, in the log and in metrics.
    pub name: String,
    /// The events that it wants.
    pub events: Vec<Pattern>,
    /// The receiver.
    pub target: HookTarget,
    /// The pauses before each new attempt.
    pub retry: Vec<Duration>,
}

/// Returns `true` for the characters of a hook's name: letters, digits, dots, hyphens and underscores.
#[must_use]
pub fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// The receiver of a hook's events.
#[derive(Clone, PartialEq, Eq)]
pub enum HookTarget {
    /// A URL that gets POST requests.
    Url {
        /// The URL.
        url: String,
        /// The secrets that sign, the newest first.
        secrets: Vec<Secret>,
        /// The roots that are trusted, in DER; `None` for those of browsers.
        roots: Option<Vec<Vec<u8>>>,
        /// The files of the secrets and the roots.
        files: Vec<PathBuf>,
    },
    /// A program.
    Command(PathBuf),
}

impl HookTarget {
    /// Returns the program, if it is one.
    #[must_use]
    pub fn program(&self) -> Option<&Path> {
        match self {
            Self::Command(program) => Some(program),
            Self::Url { .. } => None,
        }
    }
}

/// A URL may contain a secret.
impl std::fmt::Debug for HookTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url { .. } => f.write_str("Url(..)"),
            Self::Command(path) => f.debug_tuple("Command").field(path).finish(),
        }
    }
}

/// The limits of hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HookLimits {
    /// Events of one hook that wait.
    pub queue: usize,
    /// The time for one attempt.
    pub time: Duration,
}

impl Hook {
    /// Returns `true` if it wants this event.
    #[must_use]
    pub fn wants(&self, kind: EventKind) -> bool {
        self.events.iter().any(|pattern| pattern.selects(kind))
    }
}
