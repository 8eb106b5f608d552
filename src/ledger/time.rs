//! The ledger's own time: never behind what has been written down, and never going back.

use jiff::Timestamp;

use crate::clock::uptime;
use crate::policy::guard::Seconds;

/// A clock that is behind by more than this, in milliseconds, has been set forward. What is less, the margin of leases
/// makes up for.
const FORWARD: i64 = 500;
/// A clock that went back by more than this has been set, and not only corrected.
const BACK: i64 = 5000;

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
        Self { wall: Timestamp::now().as_millisecond(), uptime: uptime() }
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
    Timestamp::now().as_second()
}

impl Time {
    /// Starts from the wall clock, but not before the newest time of the book.
    #[must_use]
    pub fn start(newest: Option<Seconds>, reading: Reading) -> Self {
        let at = reading.wall.max(newest.map_or(reading.wall, |newest| newest.saturating_mul(1000)));
        Self { at, read: reading.uptime, since: at.div_euclid(1000), last: reading }
    }

    /// The time to date a promise by.
    #[must_use]
    pub fn now(&self, reading: Reading) -> Seconds {
        self.gone_on(reading).max(reading.wall).div_euclid(1000)
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
        if forward > FORWARD {
            (self.at, self.read) = (reading.wall, reading.uptime);
            return Step::Forward(Behind { seconds: forward.saturating_add(999) / 1000, since: self.since });
        }
        if back > BACK { Step::Back(back / 1000) } else { Step::None }
    }
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
    fn readings() {
        let reading = Reading::take();
        assert!((wall() - 1..=wall()).contains(&reading.wall.div_euclid(1000)));
    }
}
