//! Stops and times in words, for the log and the operator.

use super::step::Stop;
pub(super) use crate::ledger::time::{minute, rfc3339 as time};

/// The remedy for a limit that delays an order.
pub(super) const OTHER_LIMITS: &str = "a second CA in acme.fallback has limits of its own";

/// Returns why only the operator can help.
pub(super) fn stop_text(stop: &Stop) -> String {
    match stop {
        Stop::Refused(text) => text.clone(),
        Stop::KeysRefused(None) => "no authority accepts the key".to_owned(),
        Stop::KeysRefused(Some(from)) => {
            format!("no authority accepts the live key; the next one may be used from {}", minute(*from))
        }
        Stop::Burnt(until) => {
            format!("the live key is compromised, and the next one locks out clients until {}", minute(*until))
        }
        Stop::Key(fault) => fault.live_key().line(),
        Stop::NoAuthority => "no authority is configured".to_owned(),
    }
}
