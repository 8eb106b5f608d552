//! The ledger's own time: never behind what has been written down, and never going back.

use std::fmt;

use jiff::Timestamp;

use super::book::Book;
use crate::clock::uptime;
use crate::policy::promise::Seconds;

/// A clock that is behind by more than this, in milliseconds, has been set forward. What is less, the margin of leases
/// makes up for.
const FORWARD: i64 = 500;
/// A clock that went back by more than this has been set, and not only corrected.
const BACK: i64 = 5000;
/// A clock that differs by more than this from where it should be, in seconds, is doubted, and nothing is dated by it: a
/// date in the far future binds everybody until then.
pub const DOUBT: i64 = 366 * 86400;

/// What the clocks say at one moment, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Since 1970, by the clock that people set.
    pub wall: i64,
    /// By the clock that nobody sets: [`uptime`].
    pub uptime: u64,
}

impl Reading {
    /// What they say now.
    #[must_use]
    pub fn take() -> Self {
        Self { wall: wall_millis(), uptime: uptime() }
    }
}

/// What a promise is dated by. A clock that is set back would date what is sent now before what was sent then, and the
/// guard would let go too early; so this one goes on from the latest time it has seen, as fast as the processor's
/// clock does.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    at: i64,
    read: u64,
    since: Seconds,
    last: Reading,
}

/// What the clocks did since they were looked at last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// They went on.
    None,
    /// The wall clock was set forward, or the machine slept: what was dated before was dated too early.
    Forward(Behind),
    /// The wall clock was set back by so many seconds.
    Back(i64),
    /// The wall clock is so far off that it is not believed.
    Doubtful(Doubt),
}

/// A clock that nothing is dated by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// What it says.
    pub wall: Seconds,
    /// The time by the last date that was good, and the time that has passed since.
    pub expected: Seconds,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minute =
            |at: Seconds| Timestamp::from_second(at).unwrap_or_default().strftime("%Y-%m-%d %H:%M UTC").to_string();
        write!(
            f,
            "the clock says {}, and it should be about {} by what was written down last: nothing is dated by it. Set the \
             clock right; if it is right, stop pintle and look at `pintle ledger repair`",
            minute(self.wall),
            minute(self.expected)
        )
    }
}

/// Dates that turned out to be too early: all that were given since the start, as a clock may be set right little by
/// little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// By how much at most.
    pub seconds: i64,
    /// Those later than this.
    pub since: Seconds,
}

/// The wall clock, in seconds.
#[must_use]
pub fn wall() -> Seconds {
    wall_millis().div_euclid(1000)
}

/// The time to judge by where no process has the ledger, and the clock if it is doubted.
#[must_use]
pub fn judged_now(book: &Book) -> (Seconds, Option<Doubt>) {
    let reading = Reading::take();
    let time = Time::start(book.newest(), reading);
    (time.judged(reading), time.doubt(reading))
}

/// The wall clock, in milliseconds.
fn wall_millis() -> i64 {
    Timestamp::now().as_millisecond().saturating_add(test_offset())
}

/// For tests that set a clock: the file that `PINTLE_TEST_CLOCK` names has the seconds by which this program's is ahead.
#[cfg(debug_assertions)]
fn test_offset() -> i64 {
    let file = std::env::var_os("PINTLE_TEST_CLOCK").and_then(|path| std::fs::read_to_string(path).ok());
    file.and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or_default().saturating_mul(1000)
}

#[cfg(not(debug_assertions))]
const fn test_offset() -> i64 {
    0
}

impl Time {
    /// Starts from the wall clock, but not before the newest time of the book.
    #[must_use]
    pub fn start(newest: Option<Seconds>, reading: Reading) -> Self {
        let newest = newest.map_or(reading.wall, |newest| newest.saturating_mul(1000));
        let at = if is_doubtful(reading.wall.saturating_sub(newest)) { newest } else { reading.wall.max(newest) };
        Self { at, read: reading.uptime, since: at.div_euclid(1000), last: reading }
    }

    /// Since when this process, and the ones that have handed over to it, have dated promises by this clock: if it turns
    /// out to be behind, they all have.
    #[must_use]
    pub fn dated_since(self, since: Option<Seconds>) -> Self {
        Self { since: since.map_or(self.since, |since| since.min(self.since)), ..self }
    }

    /// Since when promises are dated by this clock.
    #[must_use]
    pub fn since(&self) -> Seconds {
        self.since
    }

    /// The time to date a promise by.
    #[must_use]
    pub fn now(&self, reading: Reading) -> Seconds {
        let gone_on = self.gone_on(reading);
        let is_ahead = is_doubtful(reading.wall.saturating_sub(gone_on));
        if is_ahead { gone_on } else { gone_on.max(reading.wall) }.div_euclid(1000)
    }

    /// The time to judge a chain by, once [`Self::step`] has seen this reading: what was promised ends by the clock that
    /// clients have, too. Of two times the earlier one is the stricter; but the clock that was set back is believed.
    #[must_use]
    pub fn judged(&self, reading: Reading) -> Seconds {
        self.now(reading).min(reading.wall.div_euclid(1000))
    }

    /// The clock, if it is so far off that nothing must be dated by it.
    #[must_use]
    pub fn doubt(&self, reading: Reading) -> Option<Doubt> {
        let expected = self.gone_on(reading);
        let off = reading.wall.saturating_sub(expected);
        let doubt = Doubt { wall: reading.wall.div_euclid(1000), expected: expected.div_euclid(1000) };
        (is_doubtful(off) || is_doubtful(off.saturating_neg())).then_some(doubt)
    }

    fn gone_on(&self, reading: Reading) -> i64 {
        self.at.saturating_add(since(self.read, reading.uptime))
    }

    /// Whether the wall clock has been set since the last call.
    #[must_use]
    pub fn step(&mut self, reading: Reading) -> Step {
        let before = std::mem::replace(&mut self.last, reading);
        let back = before.wall.saturating_add(since(before.uptime, reading.uptime)).saturating_sub(reading.wall);
        let forward = reading.wall.saturating_sub(self.gone_on(reading));
        if let Some(doubt) = self.doubt(reading).filter(|_| is_doubtful(forward)) {
            return Step::Doubtful(doubt);
        }
        if forward > FORWARD {
            (self.at, self.read) = (reading.wall, reading.uptime);
            return Step::Forward(Behind { seconds: forward.saturating_add(999) / 1000, since: self.since });
        }
        if back > BACK { Step::Back(back / 1000) } else { Step::None }
    }
}

/// Whether a difference in milliseconds is more than a clock that was wrong little by little has.
fn is_doubtful(ahead: i64) -> bool {
    ahead > DOUBT.saturating_mul(1000)
}

fn since(before: u64, after: u64) -> i64 {
    i64::try_from(after.saturating_sub(before)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: i64, uptime: u64) -> Reading {
        Reading { wall, uptime }
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
        assert_eq!(time.step(at(1_010_000, 10_000)), Step::None);
        // Little by little is noticed, too.
        assert_eq!(time.step(at(1_011_300, 11_000)), Step::None);
        assert_eq!(time.step(at(1_012_600, 12_000)), Step::Forward(Behind { seconds: 1, since: 1000 }));
        assert_eq!(time.step(at(1_012_600, 12_000)), Step::None);
        assert_eq!(time.step(at(1_112_700, 13_000)), Step::Forward(Behind { seconds: 100, since: 1000 }));
        assert_eq!(time.now(at(1_112_700, 13_000)), 1112);
    }

    #[test]
    fn a_clock_that_is_set_back_and_right_again() {
        let mut time = Time::start(None, at(1_000_000, 0));
        assert_eq!(time.step(at(941_000, 1000)), Step::Back(60));
        assert_eq!(time.now(at(941_000, 1000)), 1001);
        // Nothing was dated by it while it was wrong.
        assert_eq!(time.step(at(1_002_000, 2000)), Step::None);
        assert_eq!(time.now(at(1_002_000, 2000)), 1002);
    }

    #[test]
    fn a_clock_that_cannot_be_right_dates_nothing() {
        const YEARS: i64 = 2 * DOUBT * 1000;
        let mut time = Time::start(None, at(1_000_000, 0));
        let far = at(YEARS, 1000);
        let doubt = Doubt { wall: YEARS / 1000, expected: 1001 };
        assert_eq!((time.step(far), time.step(far)), (Step::Doubtful(doubt), Step::Doubtful(doubt)));
        assert_eq!((time.now(far), time.judged(far), time.doubt(far)), (1001, 1001, Some(doubt)));
        // It is right again.
        let right = at(1_002_000, 2000);
        assert_eq!(
            (time.step(right), time.now(right), time.doubt(right)),
            (Step::Back((YEARS - 1_001_000) / 1000), 1002, None)
        );
        // A book of the far future, and one of long ago.
        let time = Time::start(Some(YEARS / 1000), at(1_000_000, 0));
        assert!(time.doubt(at(1_000_000, 0)).is_some());
        assert_eq!(time.judged(at(1_000_000, 0)), 1000);
        let time = Time::start(Some(1000), at(YEARS, 0));
        assert_eq!((time.now(at(YEARS, 0)), time.doubt(at(YEARS, 0)).is_some()), (1000, true));
        // Less than that is what clocks do.
        let mut time = Time::start(Some(1000), at(1_000_000 + 40 * 86_400_000, 0));
        let moved = at(1_000_000 + 80 * 86_400_000, 0);
        assert!(time.doubt(moved).is_none() && matches!(time.step(moved), Step::Forward(_)));
        assert_eq!(time.judged(moved), moved.wall / 1000);
    }

    #[test]
    fn readings() {
        let reading = Reading::take();
        assert!((wall() - 1..=wall()).contains(&reading.wall.div_euclid(1000)));
    }
}
