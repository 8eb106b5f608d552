//! Retries of requests that an upstream refuses over HTTP/2 and promises not to have processed (RFC
//! 9113 section 8.7). pintle repeats them within a time limit, with growing pauses.

use std::time::Duration;

use super::error::UpstreamError;
use super::pool::Pool;
use crate::clock::{Alarm, ticks_of};

/// Refusals that are answered without a pause: a GOAWAY, and another connection that has come to
/// its end as well.
const AT_ONCE: u32 = 3;
/// The first pause. Each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(5);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// The retries of one request after refusals.
pub(super) struct UnprocessedRetries {
    count: u32,
    /// The last tick at which the request is retried.
    end: u32,
}

impl UnprocessedRetries {
    /// Begins with the first refusal. The time limit is the upstream's response timeout.
    pub(super) fn begin(pool: &Pool) -> Self {
        Self { count: 0, end: pool.clock.ticks().saturating_add(ticks_of(pool.upstream.response_timeout)) }
    }

    /// Waits until the request may be sent again.
    ///
    /// # Errors
    ///
    /// Returns `error`, the last refusal, once the time limit has passed.
    pub(super) async fn pause(
        &mut self,
        pool: &Pool,
        error: UpstreamError,
        alarm: &Alarm,
    ) -> Result<(), UpstreamError> {
        if let Some(pause) = pause_after(self.count) {
            tokio::time::sleep(pause).await;
        }
        self.count += 1;
        if alarm.is_past_cap() {
            return Err(UpstreamError::TotalTimeout);
        }
        if pool.clock.ticks() > self.end {
            return Err(error);
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
    fn pauses_grow_up_to_a_limit() {
        let pauses: Vec<u128> = (0..12).map(|n| pause_after(n).unwrap_or_default().as_millis()).collect();
        assert_eq!(pauses, [0, 0, 0, 5, 10, 20, 40, 80, 160, 200, 200, 200]);
        assert_eq!(pause_after(u32::MAX), Some(PAUSE_MAX));
    }
}
