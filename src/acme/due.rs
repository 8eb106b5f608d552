//! The times in the life of one certificate, as fractions of its lifetime: when it is to be renewed,
//! when a renewal is overdue, and when the key changes over.

use super::facts::{CertificateFacts, ChainInUse, NextKey};
use crate::policy::promise::{DAY, Seconds};

/// Certificates that live shorter than this are renewed at half their lifetime, in seconds.
const SHORT: Seconds = 10 * DAY;
/// A renewal is overdue this fraction of the lifetime after it was due, even if nothing failed.
const GRACE: Seconds = 100;
/// Renewals are spread over this fraction of the time that is left when they are due.
const SPREAD: f64 = 0.1;

/// The time of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RenewalTime {
    /// The time.
    pub(super) at: Seconds,
    /// `true` if the CA's window says so, `false` if the lifetime does.
    pub(super) by_window: bool,
}

/// Returns the time at which a chain is to be renewed.
///
/// The CA's window decides, but never beyond half of the time that would be left without it: a
/// window after the end of the certificate must not lead to a day without one.
pub(super) fn renewal(facts: &CertificateFacts, chain: &ChainInUse) -> RenewalTime {
    let left = left_at_renewal(chain.lifetime());
    let by_lifetime = chain.not_after.saturating_sub(left).saturating_sub(fraction(left, SPREAD * chain.spread));
    let Some(window) = &facts.info.window else { return RenewalTime { at: by_lifetime, by_window: false } };
    let latest = chain.not_after.saturating_sub(left / 2);
    RenewalTime { at: window.chosen.min(latest), by_window: true }
}

/// Returns the time that is left of a lifetime when the certificate is to be renewed: a third, or half
/// if it is short.
#[must_use]
pub fn left_at_renewal(lifetime: Seconds) -> Seconds {
    if lifetime < SHORT { lifetime / 2 } else { lifetime / 3 }
}

/// Returns the time from which a renewal that nobody has done is overdue, even if no attempt failed.
pub(super) fn overdue_from(chain: &ChainInUse, due: Seconds) -> Seconds {
    due.saturating_add(chain.lifetime() / GRACE)
}

/// Returns the time from which pintle orders although the preflight says that it will fail: the
/// preflight may be wrong, and little is left.
pub(super) fn despite_preflight(chain: &ChainInUse, due: Seconds) -> Seconds {
    due.saturating_add(chain.not_after.saturating_sub(due) / 2)
}

/// Returns the time from which the next key may be used: every living promise contains it, and
/// clients have received it for longer than the longest promise.
pub(super) fn usable_from(next: &NextKey) -> Seconds {
    let by_guard = next.usable_from.unwrap_or(Seconds::MIN);
    let announced = next.promised_since.map_or(Seconds::MIN, |since| since.saturating_add(next.longest));
    by_guard.max(announced)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a part of a lifetime")]
fn fraction(of: Seconds, part: f64) -> Seconds {
    let part = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
    (of.max(0) as f64 * part) as Seconds
}
