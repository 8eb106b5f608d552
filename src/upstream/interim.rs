//! Interim responses (1xx): where they go, how many may come, and how long a body waits for one.

use std::time::Duration;

use crate::message::ResponseHead;

/// How long the body of a request with `Expect: 100-continue` waits for the upstream's word (RFC 9110 section 10.1.1:
/// a proxy must not wait for ever).
pub(super) const CONTINUE_WAIT: Duration = Duration::from_secs(1);
/// Interim responses before the final one.
pub(super) const INTERIM_MAX: usize = 32;

/// Where interim responses go (1xx, RFC 9110 section 15.2).
pub trait Interim {
    /// Passes one on.
    fn interim(&mut self, head: &ResponseHead);
}
