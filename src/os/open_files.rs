//! How many files may be open: each connection is one.

use rustix::process::{Resource, getrlimit, setrlimit};

/// The limit that applies after [`raise`].
#[must_use]
pub fn limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    limit.maximum.or(limit.current).unwrap_or(u64::MAX)
}

/// Raises the soft limit to the hard one; soft limits are low for the sake of programs that use select(2).
pub fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files could not be raised");
        }
    }
}
