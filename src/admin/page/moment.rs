//! Times as pages show them: an exact date, and the days that are left. All dates are in UTC.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::reason::counted;

/// Days before the end of a thing from which its date stands out.
const SOON: i64 = 30;
/// The same for a date that is urgent.
const URGENT: i64 = 10;
/// Seconds of a day.
pub const DAY: i64 = 86_400;

/// A time, seen from now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970.
    pub at: i64,
    /// The time for programs.
    pub iso: String,
    /// `24 Jan 2027`
    pub day: String,
    /// `24 Jan`
    pub short: String,
    /// `24 Jan 2027, 09:40 UTC`
    pub minute: String,
    /// The days from today to its day: the difference of the dates that the page shows. Negative in the past.
    pub days: i64,
    /// The days that are left, to the nearest one: as the log and `pintle status` count them.
    nearest: i64,
}

impl Moment {
    /// A time in seconds since 1970; `None` beyond the calendar.
    #[must_use]
    pub fn new(at: i64, now: i64) -> Option<Self> {
        let stamp = Timestamp::from_second(at).ok()?;
        let zoned = stamp.to_zoned(TimeZone::UTC);
        let shown = |form: &str| zoned.strftime(form).to_string();
        Some(Self {
            at,
            iso: stamp.to_string(),
            day: shown("%-d %b %Y"),
            short: shown("%-d %b"),
            minute: shown("%-d %b %Y, %H:%M UTC"),
            days: at.div_euclid(DAY) - now.div_euclid(DAY),
            nearest: at.saturating_sub(now).saturating_add(DAY / 2).div_euclid(DAY),
        })
    }

    /// The first minute that begins at or after it: from then on, something is possible. At the end of the calendar, itself.
    #[must_use]
    pub fn first_minute(self, now: i64) -> Self {
        Self::new(self.at.saturating_add(59).div_euclid(60).saturating_mul(60), now).unwrap_or(self)
    }

    /// A time of the API; `None` if it is not one.
    #[must_use]
    pub fn of(value: &Value, now: i64) -> Option<Self> {
        Self::new(seconds(value)?, now)
    }

    /// `59 days left`, `ends today`, `ended 3 days ago`
    #[must_use]
    pub fn left(&self) -> String {
        if self.days > 0 { format!("{} left", self.remaining()) } else { self.remaining() }
    }

    /// `59 days`, `ends today`, `ended 3 days ago`
    #[must_use]
    pub fn remaining(&self) -> String {
        match self.days {
            2.. => format!("{} days", self.nearest.max(2)),
            1 => "1 day".to_owned(),
            0 => "ends today".to_owned(),
            -1 => "ended yesterday".to_owned(),
            days => format!("ended {} days ago", -days),
        }
    }

    /// `in 36 days`, `today`, `3 days ago`
    #[must_use]
    pub fn distance(&self) -> String {
        match self.days {
            days @ 2.. => format!("in {days} days"),
            1 => "tomorrow".to_owned(),
            0 => "today".to_owned(),
            -1 => "yesterday".to_owned(),
            days => format!("{} days ago", -days),
        }
    }

    /// The class of an end that comes nearer.
    #[must_use]
    pub fn tone(&self) -> &'static str {
        match self.days {
            days if days < URGENT => "t-bad",
            days if days < SOON => "t-warn",
            _ => "quiet",
        }
    }
}

/// The seconds since 1970 of a time of the API.
#[must_use]
pub fn seconds(value: &Value) -> Option<i64> {
    value.as_str()?.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

/// A duration in words: `30 days`, `1 year`, `36 hours`.
#[must_use]
pub fn duration(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(365 * 86_400, "year"), (86_400, "day"), (3600, "hour"), (60, "minute")];
    let unit = UNITS.iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    let (number, noun) = unit.map_or((seconds, "second"), |(unit, noun)| (seconds / unit, *noun));
    counted(number, noun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_days() {
        let now = 1_764_149_400; // 2025-11-26T09:30:00Z
        let at = |days: i64| Moment::new(now + days * DAY, now).unwrap();
        assert_eq!((at(0).day.as_str(), at(59).day.as_str()), ("26 Nov 2025", "24 Jan 2026"));
        assert_eq!(at(0).minute, "26 Nov 2025, 09:30 UTC");
        assert_eq!((at(59).left().as_str(), at(59).tone()), ("59 days left", "quiet"));
        assert_eq!((at(59).remaining().as_str(), at(1).remaining().as_str()), ("59 days", "1 day"));
        assert_eq!((at(1).left().as_str(), at(29).tone(), at(9).tone()), ("1 day left", "t-warn", "t-bad"));
        assert_eq!((at(0).left().as_str(), at(-1).left().as_str()), ("ends today", "ended yesterday"));
        assert_eq!((at(36).distance().as_str(), at(-3).distance().as_str()), ("in 36 days", "3 days ago"));
        // The chip beside it says `Ends in 9 days`.
        let evening = Moment::new(now + 9 * DAY - 10 * 3600, now).unwrap();
        assert_eq!((evening.days, evening.left().as_str()), (8, "9 days left"));
        // The days are those of the calendar, whatever the time of day is.
        let morning = Moment::new(now - 9 * 3600 + 40 * DAY, now).unwrap();
        assert_eq!((morning.days, morning.distance().as_str()), (40, "in 40 days"));
        assert!(Moment::new(i64::MAX, now).is_none());
    }

    #[test]
    fn durations() {
        for (seconds, words) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (90, "90 seconds"),
            (3600, "1 hour"),
            (86_400, "1 day"),
            (2_592_000, "30 days"),
            (31_536_000, "1 year"),
            (63_072_000, "2 years"),
            (31_622_400, "366 days"),
        ] {
            assert_eq!(duration(seconds), words);
        }
    }
}
