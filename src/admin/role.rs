//! The permissions of a reader.

use std::fmt;
use std::str::FromStr;

/// What a reader may do; each role includes the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminRole {
    /// See everything except secrets.
    View,
    /// Also install, renew and reload.
    Operate,
    /// Also change the configuration, keys and promises.
    Configure,
}

impl AdminRole {
    /// Every role with its name, in order.
    pub const ALL: [(&'static str, Self); 3] =
        [("view", Self::View), ("operate", Self::Operate), ("configure", Self::Configure)];

    /// The name of the role: `view`, `operate` or `configure`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Operate => "operate",
            Self::Configure => "configure",
        }
    }
}

impl fmt::Display for AdminRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for AdminRole {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, role)| *role).ok_or(())
    }
}
