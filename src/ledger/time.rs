//! The ledger's clock: never behind the recorded dates, and never going back.

use std::fmt;

use jiff::Timestamp;

use crate::clock::boot::wall_millis;
use crate::clock::{started, uptime};
use crate::policy::promise::Seconds;
use crate::reason::pasted::pintle;

/// A clock that lags by more than this many milliseconds has been set forward. The margin of leases
/// covers less.
pub(super) const FORWARD: i64 = 500;
/// A clock that went back by more than this many milliseconds has been set, not just corrected.
const BACK: i64 = 5000;
/// A clock that deviates by more than this many seconds is doubted and dates nothing: a date in the
/// far future would bind everybody until then.
pub const DOUBT: i64 = 366 * 86400;

/// The clocks at one moment, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct ClockReading {
    /// The wall clock, since 1970.
    pub wall: i64,
    /// The monotonic clock: [`uptime`].
    pub uptime: u64,
}

impl ClockReading {
    /// Reads both clocks.
    #[must_use]
    pub fn take() -> Self {
        Self { wall: wall_millis(), uptime: uptime() }
    }
}

/// The clock that dates promises. If the wall clock is set back, it would date new promises before
/// older ones, and the guard would forget them too early. So this clock continues from the latest
/// time it has seen, at the speed of the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    at: i64,
    read: u64,
    since: Seconds,
    last: ClockReading,
}

/// The change of the clocks since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockStep {
    /// Nothing unusual.
    None,
    /// The wall clock was set forward, or the machine slept: earlier dates are too early.
    Forward(Behind),
    /// The wall clock was set back by this many seconds.
    Back(i64),
    /// The wall clock is too far off to be believed.
    Doubtful(Doubt),
}

/// A wall clock that is not used for dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// The time that it shows.
    pub wall: Seconds,
    /// The expected time: the last good date, plus the time passed since.
    pub expected: Seconds,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the clock shows {}, but should be about {} according to the ledger: pintle does not use it. Set the clock; if it \
             is right, stop pintle and run `{}`",
            minute(self.wall),
            minute(self.expected),
            pintle("ledger repair")
        )
    }
}

/// Dates that turned out to be too early: all since the start, as somebody may set a clock in small
/// steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// The largest error.
    pub seconds: i64,
    /// Dates later than this are affected.
    pub since: Seconds,
}

/// Returns a time. Beyond the calendar, the nearest time that it has: what lasts that long does not end today.
#[must_use]
pub fn timestamp(at: Seconds) -> Timestamp {
    let (first, last) = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    Timestamp::from_second(at.clamp(first, last)).unwrap_or_default()
}

/// Formats a day in UTC: `2026-11-26`.
#[must_use]
pub fn day(at: Seconds) -> String {
    timestamp(at).strftime("%Y-%m-%d").to_string()
}

/// Formats a minute in UTC: `2026-11-26 10:15 UTC`.
#[must_use]
pub fn minute(at: Seconds) -> String {
    timestamp(at).strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// Formats the first minute that begins at or after a time: from then on, something is possible.
#[must_use]
pub fn minute_from(at: Seconds) -> String {
    minute(at.saturating_add(59).div_euclid(60).saturating_mul(60))
}

/// Formats a time by RFC 3339: `2026-11-26T10:15:00Z`.
#[must_use]
pub fn rfc3339(at: Seconds) -> String {
    timestamp(at).to_string()
}

/// Returns the wall clock, in seconds.
#[must_use]
pub fn wall() -> Seconds {
    wall_millis().div_euclid(1000)
}

/// Returns the time to judge by when no process has the ledger, and the clock if it is doubted.
/// `newest` is the newest time of the book.
#[must_use]
pub fn judged_now(newest: Option<Seconds>) -> (Seconds, Option<Doubt>) {
    let reading = ClockReading::take();
    let time = Time::start(newest, reading);
    (time.judged(reading), time.doubt(reading))
}

impl Time {
    /// Starts from the wall clock, but not before the newest time of the book.
    #[must_use]
    pub fn start(newest: Option<Seconds>, reading: ClockReading) -> Self {
        let newest = newest.map_or(reading.wall, |newest| newest.saturating_mul(1000));
        let at = if is_doubtful(reading.wall.saturating_sub(newest)) { newest } else { reading.wall.max(newest) };
        Self { at, read: reading.uptime, since: at.div_euclid(1000), last: reading }
    }

    /// Sets the time since when this process and its predecessors have dated promises by this
    /// clock. If the clock turns out to be behind, all of their dates are affected.
    #[must_use]
    pub fn dated_since(self, since: Option<Seconds>) -> Self {
        Self { since: since.map_or(self.since, |since| since.min(self.since)), ..self }
    }

    /// Returns the time since when this clock dates promises.
    #[must_use]
    pub fn since(&self) -> Seconds {
        self.since
    }

    /// Returns this clock at the moment from which it counts, in milliseconds since 1970, and the
    /// milliseconds since the machine's boot then.
    pub(super) fn line(&self) -> (i64, u64) {
        (self.at, started().saturating_add(self.read))
    }

    /// Returns the time for dating a promise.
    #[must_use]
    pub fn now(&self, reading: ClockReading) -> Seconds {
        let gone_on = self.gone_on(reading);
        let is_ahead = is_doubtful(reading.wall.saturating_sub(gone_on));
        if is_ahead { gone_on } else { gone_on.max(reading.wall) }.div_euclid(1000)
    }

    /// Returns the time for judging a chain, after [`Self::step`] has seen this reading. Clients
    /// end promises by the wall clock, so of two times the earlier one is the stricter. A clock
    /// that was set back is believed.
    #[must_use]
    pub fn judged(&self, reading: ClockReading) -> Seconds {
        self.now(reading).min(reading.wall.div_euclid(1000))
    }

    /// Returns the wall clock if it is too far off to date anything.
    #[must_use]
    pub fn doubt(&self, reading: ClockReading) -> Option<Doubt> {
        let expected = self.gone_on(reading);
        let off = reading.wall.saturating_sub(expected);
        let doubt = Doubt { wall: reading.wall.div_euclid(1000), expected: expected.div_euclid(1000) };
        (is_doubtful(off) || is_doubtful(off.saturating_neg())).then_some(doubt)
    }

    /// Returns the time for judging; `None` while the clock is doubted.
    #[must_use]
    pub fn undoubted(&self, reading: ClockReading) -> Option<Seconds> {
        self.doubt(reading).is_none().then(|| self.judged(reading))
    }

    fn gone_on(&self, reading: ClockReading) -> i64 {
        self.at.saturating_add(since(self.read, reading.uptime))
    }

    /// Detects that the wall clock was set since the last call.
    #[must_use]
    pub fn step(&mut self, reading: ClockReading) -> ClockStep {
        let before = std::mem::replace(&mut self.last, reading);
        let back = before.wall.saturating_add(since(before.uptime, reading.uptime)).saturating_sub(reading.wall);
        let forward = reading.wall.saturating_sub(self.gone_on(reading));
        if let Some(doubt) = self.doubt(reading).filter(|_| is_doubtful(forward)) {
            return ClockStep::Doubtful(doubt);
        }
        if forward > FORWARD {
            (self.at, self.read) = (reading.wall, reading.uptime);
            return ClockStep::Forward(Behind { seconds: forward.saturating_add(999) / 1000, since: self.since });
        }
        if back > BACK { ClockStep::Back(back / 1000) } else { ClockStep::None }
    }
}

/// Returns `true` if a difference in milliseconds is too large for a clock that drifts.
fn is_doubtful(ahead: i64) -> bool {
    ahead > DOUBT.saturating_mul(1000)
}

fn since(before: u64, after: u64) -> i64 {
    i64::try_from(after.saturating_sub(before)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: i64, uptime: u64) -> ClockReading {
        ClockReading { wall, uptime }
    }

    #[test]
    fn times_beyond_the_calendar() {
        assert_eq!(rfc3339(Seconds::MAX), "9999-12-30T22:00:00Z");
        assert_eq!(day(Seconds::MAX), "9999-12-30");
        assert_eq!(minute_from(Seconds::MAX), "9999-12-30 22:00 UTC");
        assert_eq!(minute_from(61), "1970-01-01 00:02 UTC");
    }

    #[test]
    fn never_behind_the_book() {
        let time = Time::start(Some(5000), at(1_000_000, 0));
        assert_eq!((time.now(at(1_000_000, 0)), time.now(at(1_002_000, 2000))), (5000, 5002));
        let time = Time::start(Some(17), at(1_000_999, 0));
        assert_eq!((time.now(at(1_000_999, 0)), time.now(at(1_001_000, 1))), (1000, 1001));
    }

    #[test]
    fn a_clock_that_is_set_forward() {
        let mut time = Time::start(None, at(1_000_000, 0));
        assert_eq!(time.step(at(1_010_000, 10_000)), ClockStep::None);
        // Small steps are noticed, too.
        assert_eq!(time.step(at(1_011_300, 11_000)), ClockStep::None);
        assert_eq!(time.step(at(1_012_600, 12_000)), ClockStep::Forward(Behind { seconds: 1, since: 1000 }));
        assert_eq!(time.step(at(1_012_600, 12_000)), ClockStep::None);
        assert_eq!(time.step(at(1_112_700, 13_000)), ClockStep::Forward(Behind { seconds: 100, since: 1000 }));
        assert_eq!(time.now(at(1_112_700, 13_000)), 1112);
    }

    #[test]
    fn a_clock_that_is_set_back_and_right_again() {
        let mut time = Time::start(None, at(1_000_000, 0));
        assert_eq!(time.step(at(941_000, 1000)), ClockStep::Back(60));
        assert_eq!(time.now(at(941_000, 1000)), 1001);
        // While it was wrong, it dated nothing.
        assert_eq!(time.step(at(1_002_000, 2000)), ClockStep::None);
        assert_eq!(time.now(at(1_002_000, 2000)), 1002);
    }

    #[test]
    fn a_clock_that_cannot_be_right_dates_nothing() {
        const YEARS: i64 = 2 * DOUBT * 1000;
        let mut time = Time::start(None, at(1_000_000, 0));
        let far = at(YEARS, 1000);
        let doubt = Doubt { wall: YEARS / 1000, expected: 1001 };
        assert_eq!((time.step(far), time.step(far)), (ClockStep::Doubtful(doubt), ClockStep::Doubtful(doubt)));
        assert_eq!((time.now(far), time.judged(far), time.doubt(far)), (1001, 1001, Some(doubt)));
        // It is right again.
        let right = at(1_002_000, 2000);
        assert_eq!(
            (time.step(right), time.now(right), time.doubt(right)),
            (ClockStep::Back((YEARS - 1_001_000) / 1000), 1002, None)
        );
        // A book of the far future, and one of long ago.
        let time = Time::start(Some(YEARS / 1000), at(1_000_000, 0));
        assert!(time.doubt(at(1_000_000, 0)).is_some());
        assert_eq!(time.judged(at(1_000_000, 0)), 1000);
        let time = Time::start(Some(1000), at(YEARS, 0));
        assert_eq!((time.now(at(YEARS, 0)), time.doubt(at(YEARS, 0)).is_some()), (1000, true));
        // Clocks do deviate by less.
        let mut time = Time::start(Some(1000), at(1_000_000 + 40 * 86_400_000, 0));
        let moved = at(1_000_000 + 80 * 86_400_000, 0);
        assert!(time.doubt(moved).is_none() && matches!(time.step(moved), ClockStep::Forward(_)));
        assert_eq!(time.judged(moved), moved.wall / 1000);
    }

    #[test]
    fn readings() {
        let reading = ClockReading::take();
        assert!((wall() - 1..=wall()).contains(&reading.wall.div_euclid(1000)));
    }
}
