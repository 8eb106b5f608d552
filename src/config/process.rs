//! Who serves.

use super::At;

/// Who serves: what root becomes once the ports are bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// The user's name.
    pub user: Option<At<String>>,
    /// The group's; the user's own by default.
    pub group: Option<At<String>>,
    /// Root may stay root.
    pub allow_root: bool,
    /// Listeners below port 1024 may come by a reload.
    pub bind_low_ports: bool,
    /// In an upgrade, each site's upstream must have answered, too.
    pub prove_upstream: bool,
}

impl Process {
    /// What a process has for life, wherever it stands. (`prove_upstream` is for the next one.)
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
