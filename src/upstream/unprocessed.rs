//! Requests that an upstream refuses over HTTP/2, and promises not to have processed (RFC 9113 section 8.7): sent again as
//! often as there is time, and ever more slowly.

use std::time::Duration;

use super::error::UpstreamError;
use super::pool::Pool;
use crate::clock::{Alarm, ticks_of};

/// Refusals that are met at once: GOAWAY, and another connection that has come to its end as well.
const AT_ONCE: u32 = 3;
/// The first pause; twice as long each time.
const PAUSE: Duration = Duration::from_millis(5);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// How often a request has been refused, and until when that is put up with.
pub(super) struct Refusals {
    count: u32,
    /// The tick at which its time is up.
    end: u32,
}

impl Refusals {
    /// The first one. A request has as much time to be taken as an answer to it would have.
    pub(super) fn begin(pool: &Pool) -> Self {
        Self { count: 0, end: pool.clock.ticks().saturating_add(ticks_of(pool.upstream.response_timeout)) }
    }

    /// Waits until the request may be sent again.
    ///
    /// # Errors
    ///
    /// `why` it was refused, once its time is up.
    pub(super) async fn pause(&mut self, pool: &Pool, why: UpstreamError, alarm: &Alarm) -> Result<(), UpstreamError> {
        if let Some(pause) = pause_after(self.count) {
            tokio::time::sleep(pause).await;
        }
        self.count += 1;
        if alarm.is_past_cap() {
            return Err(UpstreamError::TotalTimeout);
        }
        if pool.clock.ticks() > self.end {
            return Err(why);
        }
        pool.counters.upstream_retries.increment();
        Ok(())
    }
}

fn pause_after(count: u32) -> Option<Duration> {
    let doubled = count.checked_sub(AT_ONCE)?;
    Some(PAUSE.saturating_mul(1 << doubled.min(16)).min(PAUSE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ever_more_slowly() {
        let pauses: Vec<u128> = (0..12).map(|n| pause_after(n).unwrap_or_default().as_millis()).collect();
        assert_eq!(pauses, [0, 0, 0, 5, 10, 20, 40, 80, 160, 200, 200, 200]);
        assert_eq!(pause_after(u32::MAX), Some(PAUSE_MAX));
    }
}
