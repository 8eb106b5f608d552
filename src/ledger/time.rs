//! The ledger's own time: never behind what has been written down, and never going back.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::policy::guard::Seconds;

/// A clock that was set by more than this has been set, and not only corrected.
const STEP: i64 = 5;

/// What a promise is dated by. A clock that is set back would date what is sent now before what was sent then, and the
/// guard would let go too early; so this one goes on from the latest time it has seen, as fast as the processor's
/// clock does.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    at: Seconds,
    read: Instant,
    wall: Seconds,
    wall_read: Instant,
}

/// What the wall clock did since it was looked at last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It went on.
    None,
    /// It was set forward by so many seconds, or the machine slept for so long.
    Forward(i64),
    /// It was set back by so many seconds.
    Back(i64),
}

/// The wall clock, in seconds.
#[must_use]
pub fn wall() -> Seconds {
    Timestamp::now().as_second()
}

impl Time {
    /// Starts from the wall clock, but not before the newest time of the book.
    #[must_use]
    pub fn start(newest: Option<Seconds>) -> Self {
        let (wall, now) = (wall(), Instant::now());
        Self { at: wall.max(newest.unwrap_or(wall)), read: now, wall, wall_read: now }
    }

    /// The time to date a promise by.
    #[must_use]
    pub fn now(&mut self) -> Seconds {
        let now = Instant::now();
        let passed = now.duration_since(self.read).as_secs();
        let gone_on = self.at.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX));
        let wall = wall();
        if wall >= gone_on {
            (self.at, self.read) = (wall, now);
        }
        wall.max(gone_on)
    }

    /// Whether the wall clock has been set since the last call.
    #[must_use]
    pub fn step(&mut self) -> Step {
        let (wall, now) = (wall(), Instant::now());
        let step = step(self.wall, wall, now.duration_since(self.wall_read));
        (self.wall, self.wall_read) = (wall, now);
        step
    }
}

fn step(before: Seconds, after: Seconds, passed: Duration) -> Step {
    let passed = i64::try_from(passed.as_secs()).unwrap_or(i64::MAX);
    match after.saturating_sub(before).saturating_sub(passed) {
        forward if forward > STEP => Step::Forward(forward),
        back if back < -STEP => Step::Back(-back),
        _ => Step::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_behind_the_book() {
        let ahead = wall() + 5000;
        let mut time = Time::start(Some(ahead));
        assert!((ahead..ahead + 2).contains(&time.now()));
        let mut time = Time::start(Some(17));
        assert!((wall() - 1..=wall() + 1).contains(&time.now()));
        assert_eq!(time.step(), Step::None);
    }

    #[test]
    fn steps() {
        let ten = Duration::from_secs(10);
        assert_eq!(step(100, 110, ten), Step::None);
        assert_eq!(step(100, 114, ten), Step::None);
        assert_eq!(step(100, 140, ten), Step::Forward(30));
        assert_eq!(step(100, 50, ten), Step::Back(60));
    }
}
