//! Interim responses (1xx): where they go, how many may come, and how long a body waits for one.

use std::time::Duration;

use crate::message::ResponseHead;

/// The time that the body of a request with `Expect: 100-continue` waits for the upstream's 100. A
/// client must not wait for it without limit (RFC 9110 section 10.1.1).
pub(super) const CONTINUE_WAIT: Duration = Duration::from_secs(1);
/// The most interim responses before the final one.
pub(super) const INTERIM_MAX: usize = 32;

/// The receiver of interim responses (1xx, RFC 9110 section 15.2).
pub trait Interim {
    /// Passes an interim response on.
    fn interim(&mut self, head: &ResponseHead);
}
