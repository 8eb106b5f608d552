//! The axis of a picture of time: places in percent of its width, and marks at months, weeks or years.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan as _};

use super::moment::DAY;

/// Days up to which the marks are weeks.
const WEEKS_UP_TO: i64 = 50;
/// Days up to which the marks are months.
const MONTHS_UP_TO: i64 = 500;
/// The most marks.
const MARKS_MAX: usize = 24;

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeAxis {
    /// The beginning, in seconds since 1970.
    pub from: i64,
    /// The end; later than the beginning.
    pub to: i64,
}

/// A mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AxisMark {
    /// Its place.
    pub x: String,
    /// `Dec`, `8 Dec`, `2027`
    pub label: String,
    /// The year, where it changes.
    pub year: String,
}

/// A stretch of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneBar {
    /// The place of its beginning.
    pub x: String,
    /// Its length.
    pub width: String,
}

impl TimeAxis {
    /// The place of a time, in percent, within the picture.
    #[must_use]
    pub fn place(&self, at: i64) -> f64 {
        let length = seconds(self.to.saturating_sub(self.from).max(1));
        (seconds(at.saturating_sub(self.from)) / length * 100.0).clamp(0.0, 100.0)
    }

    /// The same as text for SVG.
    #[must_use]
    pub fn x(&self, at: i64) -> String {
        percent(self.place(at))
    }

    /// The stretch between two times; `None` if nothing of it is visible.
    #[must_use]
    pub fn bar(&self, from: i64, to: i64) -> Option<LaneBar> {
        let (begin, end) = (self.place(from), self.place(to));
        (to > from && end > begin).then(|| LaneBar { x: percent(begin), width: percent(end - begin) })
    }

    /// The marks.
    #[must_use]
    pub fn marks(&self) -> Vec<AxisMark> {
        let days = (self.to - self.from) / DAY;
        let Some(first) = date(self.from) else { return Vec::new() };
        let (mut next, step, form): (Option<Date>, Span, &str) = if days <= WEEKS_UP_TO {
            (first.tomorrow().ok(), 7.days(), "%-d %b")
        } else if days <= MONTHS_UP_TO {
            (first.first_of_month().checked_add(1.month()).ok(), 1.month(), "%b")
        } else {
            (first.first_of_year().checked_add(1.year()).ok(), 1.year(), "%Y")
        };
        let mut marks = Vec::new();
        let mut year = first.year();
        while let Some(day) = next.filter(|_| marks.len() < MARKS_MAX) {
            let Ok(at) = day.to_zoned(TimeZone::UTC).map(|day| day.timestamp().as_second()) else { break };
            if at >= self.to {
                break;
            }
            let is_new = day.year() != year && days <= MONTHS_UP_TO;
            year = day.year();
            let shown_year = if is_new { day.year().to_string() } else { String::new() };
            marks.push(AxisMark { x: self.x(at), label: day.strftime(form).to_string(), year: shown_year });
            next = day.checked_add(step).ok();
        }
        marks
    }
}

fn date(at: i64) -> Option<Date> {
    Timestamp::from_second(at).ok().map(|at| at.to_zoned(TimeZone::UTC).date())
}

/// Seconds that can be divided. The dates of a picture lie within a few years.
#[allow(clippy::cast_precision_loss)]
fn seconds(number: i64) -> f64 {
    number as f64
}

/// A share of a width as text for SVG.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{share:.2}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_651_200; // 2026-11-26

    #[test]
    fn places() {
        let axis = TimeAxis { from: NOW, to: NOW + 100 * DAY };
        assert_eq!((axis.x(NOW), axis.x(NOW + 25 * DAY)), ("0.00%".into(), "25.00%".into()));
        assert_eq!((axis.x(NOW - DAY), axis.x(i64::MAX)), ("0.00%".into(), "100.00%".into()));
        let bar = axis.bar(NOW - 50 * DAY, NOW + 50 * DAY).unwrap();
        assert_eq!((bar.x.as_str(), bar.width.as_str()), ("0.00%", "50.00%"));
        assert_eq!(axis.bar(NOW + 5, NOW), None);
        assert_eq!(axis.bar(NOW - 10, NOW), None);
    }

    #[test]
    fn marks_are_weeks_months_or_years() {
        let marks = |days: i64| -> Vec<String> {
            let marks = TimeAxis { from: NOW, to: NOW + days * DAY }.marks();
            marks.into_iter().map(|mark| format!("{} {}", mark.label, mark.year).trim().to_owned()).collect()
        };
        assert_eq!(marks(20), ["27 Nov", "4 Dec", "11 Dec"]);
        assert_eq!(marks(100), ["Dec", "Jan 2027", "Feb", "Mar"]);
        assert_eq!(marks(1000), ["2027", "2028", "2029"]);
        assert!(marks(200_000).len() <= MARKS_MAX);
    }
}
