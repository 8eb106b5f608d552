//! The limit of open files: each connection needs one.

use rustix::process::{Resource, getrlimit, setrlimit};

use super::words::words;

/// The limit in force after [`raise`].
#[must_use]
pub fn limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    limit.maximum.or(limit.current).unwrap_or(u64::MAX)
}

/// Raises the soft limit to the hard limit. Soft limits are low for the sake of programs that use
/// select(2).
pub fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(error = %words(&error.into()), "cannot raise the limit of open files");
        }
    }
}
