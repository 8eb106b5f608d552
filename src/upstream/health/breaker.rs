//! The circuit breaker: if an upstream does not answer, pintle refuses its requests at once for a
//! while.
//!
//! While the breaker is closed, all requests pass. After a number of failures in a row, over at
//! least one second, it opens: requests are refused without being sent. After its time, one request
//! passes as a probe. Its outcome closes the breaker, or opens it for twice as long. All workers
//! share one breaker, at the cost of a few loads per request.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::upstream::error::Sign;

/// Failures within this time are one event: a restart of the upstream cuts all requests under way
/// at once. Milliseconds.
const SPAN_MIN: u64 = 1000;
/// The shortest Retry-After, which is also sent while a probe is under way.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// The settings of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRule {
    /// The failures in a row that open it; zero for never.
    pub failures: u32,
    /// The time that it is open at first.
    pub open: Duration,
    /// The longest time that it is open. The time doubles with each probe that fails.
    pub open_max: Duration,
}

impl Default for BreakerRule {
    fn default() -> Self {
        Self { failures: 10, open: Duration::from_secs(1), open_max: Duration::from_secs(15) }
    }
}

/// A change to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CircuitChange {
    Opened,
    Closed,
}

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    /// All requests pass.
    Closed,
    /// No request passes for this long.
    Open(Duration),
    /// A probe is under way.
    HalfOpen,
}

/// The state, in the lowest two bits of a word. The bits above hold milliseconds of
/// [`crate::clock::uptime`], so that no reader sees a state and a time that do not belong together.
const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const PROBING: u64 = 2;

const fn open_until(time: u64) -> u64 {
    time << 2 | OPEN
}

/// The breaker of an upstream.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    rule: BreakerRule,
    state: AtomicU64,
    failures: AtomicU32,
    /// The time of the first failure.
    first: AtomicU64,
    /// The number of probes that failed since it opened.
    probes: AtomicU32,
}

/// The request that may pass an open breaker. If it is dropped without a sign, the next request is
/// the probe.
#[derive(Debug)]
pub(super) struct BreakerProbe<'b> {
    breaker: &'b Breaker,
    now: u64,
}

impl Breaker {
    pub(super) fn new(rule: BreakerRule) -> Self {
        Self { rule, ..Self::default() }
    }

    /// Permits a request. Returns a probe if the breaker was open and its time has passed.
    ///
    /// # Errors
    ///
    /// Returns the time to wait, if the request may not pass.
    pub(super) fn admit(&self, now: u64) -> Result<Option<BreakerProbe<'_>>, Duration> {
        let state = self.state.load(Ordering::Relaxed);
        if state == CLOSED {
            return Ok(None);
        }
        if state == PROBING {
            return Err(RETRY_MIN);
        }
        let until = state >> 2;
        if now < until {
            return Err(Duration::from_millis(until - now).max(RETRY_MIN));
        }
        match self.swap(state, PROBING) {
            true => Ok(Some(BreakerProbe { breaker: self, now })),
            false => Err(RETRY_MIN),
        }
    }

    /// Returns `true` if all requests pass.
    pub(super) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Relaxed) == CLOSED
    }

    /// Notes the end of a request that was not a probe.
    pub(super) fn note(&self, sign: Sign, now: u64) -> Option<CircuitChange> {
        match sign {
            Sign::None => None,
            Sign::Alive => {
                // No store if all is well: the cache line stays shared.
                if self.failures.load(Ordering::Relaxed) != 0 {
                    self.failures.store(0, Ordering::Relaxed);
                }
                None
            }
            Sign::Dead => {
                let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                if failures == 1 {
                    self.first.store(now, Ordering::Relaxed);
                }
                let span = now.saturating_sub(self.first.load(Ordering::Relaxed));
                if self.rule.failures == 0 || failures < self.rule.failures || span < SPAN_MIN {
                    return None;
                }
                let opens = self.swap(CLOSED, open_until(now + millis(self.rule.open)));
                opens.then(|| {
                    self.probes.store(0, Ordering::Relaxed);
                    CircuitChange::Opened
                })
            }
        }
    }

    /// Closes the breaker, because the upstream has answered.
    pub(super) fn close(&self) -> Option<CircuitChange> {
        self.failures.store(0, Ordering::Relaxed);
        (self.state.swap(CLOSED, Ordering::Relaxed) != CLOSED).then_some(CircuitChange::Closed)
    }

    pub(super) fn circuit(&self, now: u64) -> Circuit {
        match self.state.load(Ordering::Relaxed) {
            CLOSED => Circuit::Closed,
            PROBING => Circuit::HalfOpen,
            open => Circuit::Open(Duration::from_millis((open >> 2).saturating_sub(now))),
        }
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    fn swap(&self, from: u64, to: u64) -> bool {
        self.state.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl BreakerProbe<'_> {
    /// Notes the end of the probe.
    pub(super) fn note(self, sign: Sign, now: u64) -> Option<CircuitChange> {
        let breaker = self.breaker;
        match sign {
            Sign::None => None,
            Sign::Alive => breaker.close(),
            Sign::Dead => {
                let probes = breaker.probes.fetch_add(1, Ordering::Relaxed).min(30) + 1;
                let open = breaker.rule.open.saturating_mul(1 << probes).min(breaker.rule.open_max);
                breaker.swap(PROBING, open_until(now + millis(open)));
                None
            }
        }
    }
}

impl Drop for BreakerProbe<'_> {
    fn drop(&mut self) {
        // The probe had no outcome: the next request may be one.
        self.breaker.swap(PROBING, open_until(self.now));
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX >> 3).min(u64::MAX >> 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(BreakerRule { failures: 3, open: Duration::from_secs(1), open_max: Duration::from_secs(3) })
    }

    fn fail(breaker: &Breaker, times: &[u64]) -> Vec<Option<CircuitChange>> {
        times.iter().map(|now| breaker.note(Sign::Dead, *now)).collect()
    }

    #[test]
    fn opens_after_failures_in_a_row_that_last() {
        let b = breaker();
        // All at once is one event.
        assert_eq!(fail(&b, &[5, 5, 5, 5, 900]), [None; 5]);
        assert!(b.admit(900).unwrap().is_none());
        assert_eq!(fail(&b, &[1005]), [Some(CircuitChange::Opened)]);
        assert_eq!(fail(&b, &[1006]), [None], "reported once");
        assert_eq!(b.admit(1100).unwrap_err(), RETRY_MIN);
        assert_eq!(b.circuit(1505), Circuit::Open(Duration::from_millis(500)));
    }

    #[test]
    fn one_answer_starts_the_count_anew() {
        let b = breaker();
        fail(&b, &[0, 2000]);
        b.note(Sign::Alive, 2100);
        assert_eq!(fail(&b, &[3000, 3500]), [None, None]);
        b.note(Sign::None, 3600);
        assert_eq!(fail(&b, &[3999]), [None], "999 ms");
        assert_eq!(fail(&b, &[4000]), [Some(CircuitChange::Opened)]);
    }

    #[test]
    fn one_probe_decides() {
        let b = breaker();
        fail(&b, &[0, 500, 1000]);
        let probe = b.admit(2000).unwrap().unwrap();
        assert_eq!((b.circuit(2000), b.admit(2000).unwrap_err()), (Circuit::HalfOpen, RETRY_MIN));
        // Requests that began before do not count.
        assert_eq!(fail(&b, &[2001]), [None]);
        b.note(Sign::Alive, 2001);
        assert_eq!(b.circuit(2001), Circuit::HalfOpen);
        assert_eq!(probe.note(Sign::Dead, 2010), None);
        assert_eq!(b.circuit(2010), Circuit::Open(Duration::from_secs(2)));
        let probe = b.admit(4010).unwrap().unwrap();
        assert_eq!(probe.note(Sign::Dead, 4010), None);
        assert_eq!(b.circuit(4010), Circuit::Open(Duration::from_secs(3)), "no longer than the rule says");
        // If the client goes away, the next request is the probe.
        drop(b.admit(7010).unwrap().unwrap());
        let probe = b.admit(7010).unwrap().unwrap();
        assert_eq!(probe.note(Sign::Alive, 7020), Some(CircuitChange::Closed));
        assert!(b.admit(7020).unwrap().is_none());
        assert_eq!((b.circuit(7020), b.failures()), (Circuit::Closed, 0));
    }

    #[test]
    fn closed_from_outside() {
        let b = breaker();
        fail(&b, &[0, 500, 1000]);
        let probe = b.admit(2000).unwrap().unwrap();
        assert_eq!(b.close(), Some(CircuitChange::Closed));
        // The probe's failure comes too late to open it again.
        assert_eq!(probe.note(Sign::Dead, 2500), None);
        assert_eq!((b.circuit(2500), b.close()), (Circuit::Closed, None));
    }

    #[test]
    fn never_opens_where_it_is_off() {
        let b = Breaker::new(BreakerRule { failures: 0, ..BreakerRule::default() });
        assert!(fail(&b, &(0..100).map(|n| n * 1000).collect::<Vec<_>>()).iter().all(Option::is_none));
    }
}
