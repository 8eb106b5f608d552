//! The attempts at one CA: the last result, and the wait before the next attempt. Kept on disk.

use serde::{Deserialize, Serialize};

use super::problem::AcmeRemedy;
use crate::keys::pin::Pin;
use crate::policy::promise::{DAY, Seconds};
use crate::reason::Reason;

/// The waits after the first, second and third failure in a row, in seconds. Then it is a day.
const LADDER: [Seconds; 3] = [60, 600, 6000];
/// The shortest wait after the ladder, however short the time that is left.
const WAIT_MIN: Seconds = 3600;
/// The longest wait after the certificate has expired.
const EXPIRED_MAX: Seconds = 6 * 3600;
/// The wait before another attempt after a rate limit without Retry-After.
const RATE_LIMIT: Seconds = 3600;
/// The bounds of Retry-After, in seconds.
const RETRY_AFTER: (Seconds, Seconds) = (1, DAY);
/// A wait takes up to this much longer, by chance.
const JITTER: f64 = 0.1;
/// Failures in a row after which the operator must act, and pintle tries weekly: Let's Encrypt pauses a name
/// after 1152.
pub const FAILURES_MAX: u32 = 1000;
/// The wait from then on, in seconds.
const WEEK: Seconds = 7 * DAY;
/// Keys remembered as refused by a CA.
const REFUSED_KEYS_MAX: usize = 16;

/// The attempts at one CA, for one certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempts {
    /// Failures in a row.
    pub failures: u32,
    /// The time of the first failure since the last success.
    pub failing_since: Option<Seconds>,
    /// The last result.
    pub last: Option<AttemptOutcome>,
    /// The wait after it, in seconds.
    pub wait: Seconds,
    /// `true` if only the operator can help. pintle tries again daily all the same: the operator may act at
    /// the CA alone, and the CA may change its mind.
    pub stopped: bool,
    /// `true` if the next order goes without `replaces`, as the CA knows a successor already.
    pub without_replaces: bool,
    /// Keys that this CA has refused.
    pub refused_keys: Vec<Pin>,
    /// The time of the last refusal of a key. A day later, each key is tried again.
    pub keys_refused: Seconds,
}

/// The result of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptOutcome {
    /// The time.
    pub at: Seconds,
    /// The remedy of a failure; `None` after a success.
    pub remedy: Option<AcmeRemedy>,
    /// The result in words.
    pub text: String,
    /// The remedies of a failure that its kind does not imply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

impl AttemptOutcome {
    /// Returns the result as a reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::new(self.text.as_str()).hints(self.hints.iter().cloned())
    }
}

/// A failed attempt.
#[derive(Debug, Clone)]
pub struct AttemptFailure {
    /// The remedy, from the problem's type.
    pub remedy: AcmeRemedy,
    /// The failure.
    pub reason: Reason,
    /// Retry-After of the answer, in seconds from now.
    pub retry_after: Option<Seconds>,
    /// The key of the order.
    pub key: Option<Pin>,
}

impl Attempts {
    /// Records a success: the next failure is the first one again.
    pub fn succeeded(&mut self, text: String, now: Seconds) {
        let (refused_keys, keys_refused) = (std::mem::take(&mut self.refused_keys), self.keys_refused);
        let last = Some(AttemptOutcome { at: now, remedy: None, text, hints: Vec::new() });
        *self = Self { last, refused_keys, keys_refused, ..Self::default() };
    }

    /// Records a failure. `left` is the time until the certificate in use expires, in seconds,
    /// `None` without one; `random` is a number from 0 to 1 (exclusive).
    pub fn failed(&mut self, failure: AttemptFailure, now: Seconds, left: Option<Seconds>, random: f64) {
        let AttemptFailure { remedy, reason, retry_after, key } = failure;
        let again = self.last.as_ref().is_some_and(|last| last.remedy == Some(remedy));
        let retry_after = retry_after.map(|seconds| seconds.clamp(RETRY_AFTER.0, RETRY_AFTER.1));
        let mut is_failure = true;
        let mut wait = None;
        self.stopped = false;
        match remedy {
            AcmeRemedy::WithoutReplaces if !self.without_replaces => {
                self.without_replaces = true;
                (is_failure, wait) = (false, Some(0));
            }
            // Once. An account that vanishes again is a matter for the operator.
            AcmeRemedy::Register if !again => (is_failure, wait) = (false, Some(0)),
            AcmeRemedy::RateLimit => (is_failure, wait) = (false, Some(RATE_LIMIT)),
            AcmeRemedy::Caa => wait = Some(DAY),
            AcmeRemedy::Key => match key {
                Some(key) if !self.refuses(key, now) => {
                    self.refused_keys.retain(|known| *known != key);
                    self.refused_keys.truncate(REFUSED_KEYS_MAX - 1);
                    self.refused_keys.insert(0, key);
                    self.keys_refused = now;
                    // Another key is another attempt; the plan knows whether there is one.
                    wait = Some(0);
                }
                _ => {
                    self.stopped = true;
                    self.keys_refused = now;
                }
            },
            AcmeRemedy::Register | AcmeRemedy::Profile | AcmeRemedy::Name | AcmeRemedy::Operator => self.stopped = true,
            AcmeRemedy::NewNonce
            | AcmeRemedy::WithoutReplaces
            | AcmeRemedy::ReadOrder
            | AcmeRemedy::Temporary
            | AcmeRemedy::Validation
            | AcmeRemedy::Candidate => {}
        }
        self.failures = self.failures.saturating_add(u32::from(is_failure));
        self.failing_since = self.failing_since.or_else(|| is_failure.then_some(now));
        let is_beyond = self.failures >= FAILURES_MAX;
        self.stopped |= is_beyond;
        if self.stopped {
            wait = Some(if is_beyond { longer(WEEK, random) } else { within_a_day(longer(DAY, random)) });
        }
        let wait = match (wait, retry_after) {
            // The CA's own time, or an hour.
            (Some(_), Some(retry_after)) if remedy == AcmeRemedy::RateLimit => retry_after,
            (Some(wait), retry_after) => wait.max(retry_after.unwrap_or(0)),
            (None, retry_after) => {
                let least = if remedy == AcmeRemedy::Candidate { LADDER[2] } else { 0 };
                within_a_day(longer(ladder(self.failures, left).max(least), random)).max(retry_after.unwrap_or(0))
            }
        };
        self.wait = wait;
        self.last = Some(AttemptOutcome { at: now, remedy: Some(remedy), text: reason.line(), hints: reason.hints });
    }

    /// Returns the time from which the next attempt may be made; in the past if that is now.
    #[must_use]
    pub fn retry(&self) -> Seconds {
        self.failure().map_or(Seconds::MIN, |last| last.at.saturating_add(self.wait))
    }

    /// Returns `true` if the CA has refused a key, less than a day ago.
    #[must_use]
    pub fn refuses(&self, key: Pin, now: Seconds) -> bool {
        self.refused_keys.contains(&key) && now < self.refuses_until()
    }

    /// Returns the time until which the CA's refusals of keys count.
    #[must_use]
    pub fn refuses_until(&self) -> Seconds {
        self.keys_refused.saturating_add(DAY)
    }

    /// Returns the last result if it is a failure.
    #[must_use]
    pub fn failure(&self) -> Option<&AttemptOutcome> {
        self.last.as_ref().filter(|last| last.remedy.is_some())
    }

    /// Permits an attempt now: the operator asked for it, or changed what the CA objected to. Waits
    /// that the CA asked for remain.
    pub fn release(&mut self) {
        self.stopped = false;
        self.refused_keys.clear();
        self.without_replaces = false;
        self.failures = 0;
        if self.last.as_ref().is_none_or(|last| last.remedy != Some(AcmeRemedy::RateLimit)) {
            self.wait = 0;
        }
    }

    /// Corrects a time in the future, which a clock that was ahead has left: the wait begins now.
    pub fn settle(&mut self, now: Seconds) {
        self.failing_since = self.failing_since.map(|since| since.min(now));
        self.keys_refused = self.keys_refused.min(now);
        if let Some(last) = self.last.as_mut().filter(|last| last.at > now) {
            last.at = now;
        }
    }
}

/// Returns the last failure at several CAs, of those whose last result is one.
pub fn last_failure<'a>(all: impl Iterator<Item = &'a Attempts>) -> Option<&'a AttemptOutcome> {
    all.filter_map(Attempts::failure).max_by_key(|last| last.at)
}

/// Returns the time of the first failure at several CAs; `None` if nothing failed since the last success.
pub fn failing_since<'a>(all: impl Iterator<Item = &'a Attempts>) -> Option<Seconds> {
    all.filter_map(|attempts| attempts.failing_since).min()
}

/// Returns the wait after so many failures in a row. It shrinks with the time that is left: a CA that
/// returns late must still find somebody asking.
fn ladder(failures: u32, left: Option<Seconds>) -> Seconds {
    let rung = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
    let Some(wait) = LADDER.get(rung) else {
        return match left {
            None => DAY,
            Some(left) if left <= 0 => EXPIRED_MAX,
            Some(left) => (left / 8).clamp(WAIT_MIN, DAY),
        };
    };
    *wait
}

/// Returns a wait of a day and a bit as one that is shorter than a day by that bit: a plan looks a day ahead at most, and
/// would name an earlier time than that of the next attempt.
fn within_a_day(wait: Seconds) -> Seconds {
    if wait > DAY { 2 * DAY - wait } else { wait }
}

/// Returns a wait that is up to a tenth longer. `random` is from 0 to 1.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "at most a few days of seconds")]
pub fn longer(wait: Seconds, random: f64) -> Seconds {
    let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 0.0 };
    wait.saturating_add((wait.clamp(0, 400 * DAY) as f64 * JITTER * random) as Seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn failure(remedy: AcmeRemedy) -> AttemptFailure {
        AttemptFailure { remedy, reason: "why".into(), retry_after: None, key: None }
    }

    /// Fails as often as permitted; returns the waits.
    fn waits(count: usize, left: impl Fn(Seconds) -> Option<Seconds>) -> Vec<Seconds> {
        let (mut attempts, mut now) = (Attempts::default(), 1000);
        let mut found = Vec::new();
        for _ in 0..count {
            attempts.failed(failure(AcmeRemedy::Temporary), now, left(now), 0.0);
            let at = attempts.retry();
            found.push(at - now);
            now = at;
        }
        found
    }

    #[test]
    fn waits_grow_to_a_day_and_shrink_with_the_time_left() {
        assert_eq!(waits(6, |_| None), [60, 600, 6000, DAY, DAY, DAY]);
        assert_eq!(waits(5, |_| Some(30 * DAY)), [60, 600, 6000, DAY, DAY]);
        assert_eq!(waits(4, |_| Some(80 * 3600))[3], 10 * 3600);
        assert_eq!(waits(4, |_| Some(60))[3], WAIT_MIN);
        assert_eq!(waits(4, |_| Some(-5))[3], EXPIRED_MAX);
    }

    #[test]
    fn each_remedy() {
        for (remedy, retry_after, want, failures) in [
            (AcmeRemedy::Temporary, None, 1060, 1),
            (AcmeRemedy::Temporary, Some(500), 1500, 1),
            (AcmeRemedy::Temporary, Some(900 * DAY), 1000 + DAY, 1),
            (AcmeRemedy::Validation, Some(-5), 1060, 1),
            (AcmeRemedy::Candidate, None, 7000, 1),
            (AcmeRemedy::RateLimit, None, 4600, 0),
            (AcmeRemedy::RateLimit, Some(90), 1090, 0),
            (AcmeRemedy::RateLimit, Some(0), 1001, 0),
            (AcmeRemedy::Caa, None, 1000 + DAY, 1),
            (AcmeRemedy::WithoutReplaces, None, 1000, 0),
            (AcmeRemedy::Register, None, 1000, 0),
            (AcmeRemedy::Profile, None, 1000 + DAY, 1),
            (AcmeRemedy::Name, None, 1000 + DAY, 1),
            (AcmeRemedy::Operator, Some(5), 1000 + DAY, 1),
            (AcmeRemedy::Operator, Some(9 * DAY), 1000 + DAY, 1),
            (AcmeRemedy::Key, None, 1000 + DAY, 1),
        ] {
            let mut attempts = Attempts::default();
            attempts.failed(AttemptFailure { retry_after, ..failure(remedy) }, 1000, None, 0.0);
            assert_eq!((attempts.retry(), attempts.failures), (want, failures), "{remedy:?} {retry_after:?}");
        }
    }

    /// `acme plan` looks a day ahead: the log and the plan name the same time.
    #[test]
    fn no_wait_is_longer_than_a_day() {
        for (remedy, least) in [(AcmeRemedy::Operator, DAY * 9 / 10), (AcmeRemedy::Temporary, DAY * 9 / 10)] {
            let mut attempts = Attempts::default();
            for _ in 0..5 {
                attempts.failed(failure(remedy), 1000, None, 0.75);
            }
            assert!((1000 + least..1000 + DAY).contains(&attempts.retry()), "{remedy:?}: {}", attempts.retry());
        }
    }

    #[test]
    fn what_is_tried_once_is_not_tried_for_ever() {
        let mut attempts = Attempts::default();
        attempts.failed(failure(AcmeRemedy::Register), 1000, None, 0.0);
        attempts.failed(failure(AcmeRemedy::Register), 1000, None, 0.0);
        assert_eq!(attempts.retry(), 1000 + DAY);
        let mut attempts = Attempts::default();
        attempts.failed(failure(AcmeRemedy::WithoutReplaces), 1000, None, 0.0);
        attempts.failed(failure(AcmeRemedy::WithoutReplaces), 1000, None, 0.0);
        assert_eq!(attempts.retry(), 1060);
        let key = |n: u8| AttemptFailure { key: Some(Pin::of_spki(&[n])), ..failure(AcmeRemedy::Key) };
        let mut attempts = Attempts::default();
        attempts.failed(key(1), 1000, None, 0.0);
        attempts.failed(key(2), 1000, None, 0.0);
        assert_eq!((attempts.retry(), attempts.refused_keys.len()), (1000, 2));
        assert!(attempts.refuses(Pin::of_spki(&[1]), 999 + DAY) && !attempts.refuses(Pin::of_spki(&[1]), 1000 + DAY));
        attempts.failed(key(1), 1000, None, 0.0);
        assert_eq!((attempts.retry(), attempts.stopped), (1000 + DAY, true));
        // The daily try has another result.
        attempts.failed(failure(AcmeRemedy::Temporary), 1000 + DAY, None, 0.0);
        assert!(!attempts.stopped);
        attempts.failed(key(1), 1000, None, 0.0);
        attempts.release();
        assert_eq!((attempts.retry(), attempts.refused_keys.len()), (1000, 0));
    }

    #[test]
    fn a_success_ends_it_and_refused_keys_stay() {
        let mut attempts = Attempts::default();
        attempts.failed(AttemptFailure { key: Some(Pin::of_spki(&[1])), ..failure(AcmeRemedy::Key) }, 1000, None, 0.0);
        attempts.failed(failure(AcmeRemedy::Operator), 1001, None, 0.0);
        attempts.succeeded("issued".to_owned(), 1002);
        assert!(attempts.failure().is_none() && attempts.failures == 0 && attempts.refused_keys.len() == 1);
        assert_eq!(attempts.retry(), Seconds::MIN);
    }

    #[test]
    fn a_clock_that_was_ahead() {
        let mut attempts = Attempts::default();
        attempts.failed(failure(AcmeRemedy::Temporary), 1_000_000, None, 0.0);
        attempts.settle(1000);
        assert_eq!(attempts.retry(), 1060);
        attempts.settle(1030);
        assert_eq!(attempts.retry(), 1060);
    }

    #[test]
    fn kept_on_disk() {
        let mut attempts = Attempts::default();
        attempts.failed(AttemptFailure { key: Some(Pin::of_spki(&[1])), ..failure(AcmeRemedy::Key) }, 1000, None, 0.0);
        let text = serde_json::to_string(&attempts).unwrap();
        assert_eq!(serde_json::from_str::<Attempts>(&text).unwrap(), attempts);
        assert_eq!(serde_json::from_str::<Attempts>("{\"later\":1}").unwrap(), Attempts::default());
    }

    proptest! {
        /// Attempts end or wait, a wait is a day at most, and each failure in a row waits a minute at
        /// least.
        #[test]
        fn waits_are_bounded(
            left in prop::option::of(-1000 * DAY..1000 * DAY),
            retry_after in prop::option::of(any::<i64>()),
            random in any::<f64>(),
            count in 1usize..20,
        ) {
            let mut attempts = Attempts::default();
            for _ in 0..count {
                attempts.failed(AttemptFailure { retry_after, ..failure(AcmeRemedy::Validation) }, 5000, left, random);
            }
            let at = attempts.retry();
            prop_assert!((60..=DAY).contains(&(at - 5000)), "{}", at - 5000);
        }
    }
}
