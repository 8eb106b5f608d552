//! Dates of HTTP fields (RFC 9110 section 5.6.7), for a cache: three formats, in any case (RFC 9111
//! section 4.2).

use jiff::Timestamp;
use jiff::civil::Date;

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
    if let Some(at) = value.try_into().ok().and_then(usual) {
        return Some(at);
    }
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

/// Reads the format that all programs write, in its usual case: `Sun, 06 Nov 1994 08:49:37 GMT`. `None` for anything else.
fn usual(value: &[u8; 29]) -> Option<i64> {
    let [a, b, c, b',', b' ', d0, d1, b' ', d, e, f, b' ', y0, y1, y2, y3, b' ', rest @ ..] = *value else {
        return None;
    };
    let [h0, h1, b':', m0, m1, b':', s0, s1, b' ', b'G', b'M', b'T'] = rest else { return None };
    matches!(&[a, b, c], b"Mon" | b"Tue" | b"Wed" | b"Thu" | b"Fri" | b"Sat" | b"Sun").then_some(())?;
    let month = match &[d, e, f] {
        b"Jan" => 1,
        b"Feb" => 2,
        b"Mar" => 3,
        b"Apr" => 4,
        b"May" => 5,
        b"Jun" => 6,
        b"Jul" => 7,
        b"Aug" => 8,
        b"Sep" => 9,
        b"Oct" => 10,
        b"Nov" => 11,
        b"Dec" => 12,
        _ => return None,
    };
    let digit = |b: u8| Some(b.wrapping_sub(b'0')).filter(|digit| *digit < 10);
    let two = |tens: u8, ones: u8| Some(digit(tens)? * 10 + digit(ones)?);
    let year = i16::from(two(y0, y1)?) * 100 + i16::from(two(y2, y3)?);
    moment((year, month, two(d0, d1)?), (two(h0, h1)?, two(m0, m1)?, two(s0, s1)?))
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

fn month_of(name: &[u8]) -> Option<u8> {
    let at = MONTHS.iter().position(|month| *month == name)?;
    u8::try_from(at + 1).ok()
}

fn number(digits: &[u8]) -> Option<i16> {
    let add = |sum: i16, digit: &u8| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(i16::from(digit - b'0')),
        _ => None,
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
}

/// `time` is `08:49:37`; second 60 is a leap second.
fn seconds(year: i16, month: u8, date: i16, time: &[u8]) -> Option<i64> {
    let mut parts = [&[][..]; 3];
    let [hour, minute, second] = *split(time, b':', &mut parts)? else { return None };
    ([hour, minute, second].iter().all(|part| part.len() == 2)).then_some(())?;
    let small = |digits| number(digits).and_then(|n| u8::try_from(n).ok());
    moment((year, month, u8::try_from(date).ok()?), (small(hour)?, small(minute)?, small(second)?))
}

/// The seconds since 1970 at a moment. The last hours of 9999 are the usual word for "never": they are as far as any.
fn moment((year, month, date): (i16, u8, u8), (hour, minute, second): (u8, u8, u8)) -> Option<i64> {
    let [month, date] = [month, date].map(|number| i8::try_from(number).ok());
    let date = Date::new(year, month?, date?).ok()?;
    (hour < 24 && minute < 60 && second <= 60).then_some(())?;
    let days = i64::from(date.day_of_year()) - 1 + before(i64::from(year)) - before(1970);
    let (leap, second) = if second == 60 { (1, 59) } else { (0, second) };
    let at = days * 86_400 + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    Some(at.min(Timestamp::MAX.as_second()) + leap)
}

/// The days before a year, from year 1 on.
fn before(year: i64) -> i64 {
    let years = year - 1;
    years * 365 + years.div_euclid(4) - years.div_euclid(100) + years.div_euclid(400)
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
