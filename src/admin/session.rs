//! Readers of the pages.

use super::role::AdminRole;

/// A reader: who it is, and what they may do.
#[derive(Debug, Clone)]
pub struct PageSession {
    /// The name, for logs and histories.
    pub who: String,
    /// The permissions.
    pub role: AdminRole,
    /// The token that each form of this session carries.
    pub csrf: String,
}

impl PageSession {
    /// `true` if the reader has the permissions of a role.
    #[must_use]
    pub fn may(&self, role: AdminRole) -> bool {
        self.role >= role
    }
}
