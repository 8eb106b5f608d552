//! The user that serves.

use super::At;

/// The user that root becomes once the ports are bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// The name of the user.
    pub user: Option<At<String>>,
    /// The name of the group; the user's own by default.
    pub group: Option<At<String>>,
    /// `true` if root may stay root.
    pub allow_root: bool,
    /// `true` if a reload may add listeners below port 1024.
    pub bind_low_ports: bool,
    /// `true` if an upgrade also needs an answer from each site's upstream.
    pub prove_upstream: bool,
}

impl Process {
    /// The settings that a process keeps until it ends. (`prove_upstream` is for the next process.)
    #[must_use]
    pub fn words(&self) -> (Option<&str>, Option<&str>, bool, bool) {
        (
            self.user.as_ref().map(|user| user.value.as_str()),
            self.group.as_ref().map(|group| group.value.as_str()),
            self.allow_root,
            self.bind_low_ports,
        )
    }
}
