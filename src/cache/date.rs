//! Dates of HTTP fields (RFC 9110 section 5.6.7), for a cache: three formats, in any case (RFC 9111
//! section 4.2).

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

const MONTHS: [&[u8]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
const DAYS: [&[u8]; 7] = [b"monday", b"tuesday", b"wednesday", b"thursday", b"friday", b"saturday", b"sunday"];
/// The longest date: `Wednesday, 06-Nov-94 08:49:37 GMT`.
const LENGTH_MAX: usize = 33;
/// The most words of a date.
const PARTS_MAX: usize = 6;

/// Reads a date, in seconds since 1970. `now` (the same) decides the century of two-digit years: a
/// date more than 50 years ahead is in the past.
///
/// `None` if it is not a date. Such an Expires is in the past (RFC 9111 section 5.3).
#[must_use]
pub fn parse(value: &[u8], now: i64) -> Option<i64> {
    let mut lower = [0; LENGTH_MAX];
    let lower = lower.get_mut(..value.len())?;
    lower.copy_from_slice(value);
    lower.make_ascii_lowercase();
    let mut parts = [&[][..]; PARTS_MAX];
    match *split(lower, b' ', &mut parts)? {
        // Sun, 06 Nov 1994 08:49:37 GMT
        [day, date, month, year, time, b"gmt"] => {
            let day = day.strip_suffix(b",")?;
            let is_day = DAYS.iter().any(|name| name[..3] == *day);
            (is_day && date.len() == 2 && year.len() == 4).then_some(())?;
            seconds(number(year)?, month_of(month)?, number(date)?, time)
        }
        // Sunday, 06-Nov-94 08:49:37 GMT
        [day, date, time, b"gmt"] => {
            DAYS.contains(&day.strip_suffix(b",")?).then_some(())?;
            let mut parts = [&[][..]; 3];
            let [date, month, year] = *split(date, b'-', &mut parts)? else { return None };
            (date.len() == 2 && year.len() == 2).then_some(())?;
            let at = |century: i16| seconds(century + number(year)?, month_of(month)?, number(date)?, time);
            let ahead = i64::from(50 * 366) * 86_400;
            at(2000).filter(|at| *at <= now.saturating_add(ahead)).or_else(|| at(1900))
        }
        // Sun Nov  6 08:49:37 1994
        [day, month, b"", date, time, year] if date.len() == 1 => asctime(day, month, date, time, year),
        [day, month, date, time, year] if date.len() == 2 => asctime(day, month, date, time, year),
        _ => None,
    }
}

/// Splits a text without an allocation. `None` if there are more parts than room.
fn split<'p, 't>(text: &'t [u8], at: u8, room: &'p mut [&'t [u8]]) -> Option<&'p [&'t [u8]]> {
    let mut count = 0;
    for part in text.split(|b| *b == at) {
        *room.get_mut(count)? = part;
        count += 1;
    }
    room.get(..count)
}

fn asctime(day: &[u8], month: &[u8], date: &[u8], time: &[u8], year: &[u8]) -> Option<i64> {
    (DAYS.iter().any(|name| name[..3] == *day) && year.len() == 4).then_some(())?;
    seconds(number(year)?, month_of(month)?, number(date)?, time)
}

fn month_of(name: &[u8]) -> Option<i8> {
    let at = MONTHS.iter().position(|month| *month == name)?;
    i8::try_from(at + 1).ok()
}

fn number(digits: &[u8]) -> Option<i16> {
    let add = |sum: i16, digit: &u8| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(i16::from(digit - b'0')),
        _ => None,
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
}

/// `time` is `08:49:37`; second 60 is a leap second.
fn seconds(year: i16, month: i8, date: i16, time: &[u8]) -> Option<i64> {
    let mut parts = [&[][..]; 3];
    let [hour, minute, second] = *split(time, b':', &mut parts)? else { return None };
    ([hour, minute, second].iter().all(|part| part.len() == 2)).then_some(())?;
    let small = |digits| number(digits).and_then(|n| i8::try_from(n).ok());
    let (hour, minute, second) = (small(hour)?, small(minute)?, small(second)?);
    let (leap, second) = if second == 60 { (1, 59) } else { (0, second) };
    let date = Date::new(year, month, i8::try_from(date).ok()?).ok()?;
    let time = Time::new(hour, minute, second, 0).ok()?;
    // The last hours of 9999 are beyond what jiff knows as moments. They are the usual word for "never".
    let at = DateTime::from_parts(date, time).to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |at| at.timestamp());
    Some(at.as_second() + leap)
}

#[cfg(test)]
mod tests {
    use super::parse;

    const NOW: i64 = 1_795_000_000;

    #[test]
    fn three_formats_in_any_case() {
        for (text, want) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("sun, 06 nov 1994 08:49:37 gmt", Some(784_111_777)),
            ("SUN, 06 NOV 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("sunday, 06-nov-94 08:49:37 gmt", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Sun Nov 16 08:49:37 1994", Some(784_975_777)),
            ("Fri, 27 Nov 2026 15:40:00 GMT", Some(1_795_794_000)),
            ("Friday, 27-Nov-26 15:40:00 GMT", Some(1_795_794_000)),
            // More than 50 years ahead: the last century.
            ("Friday, 27-Nov-99 15:40:00 GMT", Some(943_717_200)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Wed, 31 Dec 1969 23:59:59 GMT", Some(-1)),
            ("Thu, 30 Jun 2016 23:59:60 GMT", Some(1_467_331_200)),
            // A wrong day of the week is not looked at: the date is what counts.
            ("Mon, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
        ] {
            assert_eq!(parse(text.as_bytes(), NOW), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "0",
            "-1",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 10:49:37 EST",
            "Sun, 31 Feb 2026 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:61:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 06  Nov 1994 08:49:37 GMT",
            "Foo, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov -994 08:49:37 GMT",
            "1994-11-06T08:49:37Z",
            "784111777",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sun, 06 Nov 99999999999999 08:49:37 GMT",
        ] {
            assert_eq!(parse(text.as_bytes(), NOW), None, "{text}");
        }
    }
}
