//! Durations and sizes, as people write them.

use std::time::Duration;

/// Units of time, in milliseconds.
const TIMES: [(&str, u64); 7] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 7 * 86_400_000),
    ("y", 365 * 86_400_000),
];

/// Units of size, in bytes. A bare letter means what it means to nginx.
const SIZES: [(&str, u64); 13] = [
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

/// Examples of a duration, for messages.
pub const DURATION_FORM: &str = "\"15s\", \"1h30m\", \"30d\", \"1y\", or a number of seconds";
/// Examples of a size, for messages.
pub const SIZE_FORM: &str = "\"64KiB\", \"10MiB\", \"1g\", or a number of bytes";

/// Parses `15s`, `1h30m`, `30d`, `1y` or a number of seconds.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest)?;
        let (_, milliseconds) = TIMES.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.checked_mul(*milliseconds)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(Duration::from_millis(total))
}

/// Parses `64KiB`, `10m` or a number of bytes.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(bytes) = text.parse() {
        return Some(bytes);
    }
    let (number, unit, after) = number_and_unit(text)?;
    let unit = unit.to_ascii_lowercase();
    let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit)?;
    after.is_empty().then(|| number.checked_mul(*bytes)).flatten()
}

fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number = text[..digits].parse().ok()?;
    let rest = text[digits..].trim_start();
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    Some((number, &rest[..end], rest[end..].trim_start()))
}

/// The duration that somebody may have meant: `10m` for `10 minutes`.
#[must_use]
pub fn meant_duration(text: &str) -> Option<String> {
    let (number, unit, after) = number_and_unit(text.trim())?;
    let unit = unit.to_ascii_lowercase();
    // A month has no fixed length.
    let word = TIMES.iter().map(|(unit, _)| *unit).find(|short| match *short {
        "ms" => unit.starts_with("ms") || unit.starts_with("mil"),
        "m" => unit == "m" || unit.starts_with("min"),
        short => unit.starts_with(short),
    })?;
    after.is_empty().then(|| format!("{number}{word}")).filter(|meant| duration(meant).is_some())
}

/// The size that somebody may have meant: `64KiB` for `64 kbytes`.
#[must_use]
pub fn meant_size(text: &str) -> Option<String> {
    let (number, unit, after) = number_and_unit(text.trim())?;
    let unit = unit.to_ascii_lowercase();
    let short = [("k", "KiB"), ("m", "MiB"), ("g", "GiB"), ("t", "TiB")];
    let (_, word) = short.into_iter().find(|(first, _)| unit.starts_with(first))?;
    after.is_empty().then(|| format!("{number}{word}")).filter(|meant| size(meant).is_some())
}

/// A duration in the largest units that fit it: `30d`, `1h30m`.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, milliseconds) in TIMES.iter().rev().filter(|(unit, _)| *unit != "w") {
        if rest >= *milliseconds {
            text.push_str(&format!("{}{unit}", rest / milliseconds));
            rest %= milliseconds;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// A size in the largest unit that gives a whole number: `64 KiB`, `1 GiB`, `1,500 bytes`.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    let units = [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift) {
        Some((unit, shift)) => format!("{} {unit}", show_number(bytes >> shift)),
        None if bytes == 1 => "1 byte".into(),
        None => format!("{} bytes", show_number(bytes)),
    }
}

/// A number with a comma after each three digits: `10,000,000`.
#[must_use]
pub fn show_number(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        let check =
            |text: &str, seconds: Option<f64>| assert_eq!(duration(text).map(|d| d.as_secs_f64()), seconds, "{text:?}");
        check("15s", Some(15.0));
        check("500ms", Some(0.5));
        check("1h30m", Some(5400.0));
        check("30d", Some(2_592_000.0));
        check("2w", Some(1_209_600.0));
        check("1y", Some(31_536_000.0));
        check("90", Some(90.0));
        check("0", Some(0.0));
        for bad in ["", "s", "-1s", "1.5h", "1 month", "1x", "1s!", "99999999999999999999s", "9999999999999999y"] {
            check(bad, None);
        }
    }

    #[test]
    fn sizes() {
        let check = |text: &str, bytes: Option<u64>| assert_eq!(size(text), bytes, "{text:?}");
        check("64KiB", Some(65536));
        check("64 kib", Some(65536));
        check("10MB", Some(10_000_000));
        check("8k", Some(8192));
        check("1g", Some(1 << 30));
        check("123", Some(123));
        for bad in ["", "k", "1kk", "1 k b", "-1", "99999999999t"] {
            check(bad, None);
        }
    }

    #[test]
    fn meant() {
        let check = |text: &str, time: Option<&str>, size: Option<&str>| {
            assert_eq!((meant_duration(text).as_deref(), meant_size(text).as_deref()), (time, size), "{text}");
        };
        check("10 minutes", Some("10m"), Some("10MiB"));
        check("5 sec", Some("5s"), None);
        check("200 millis", Some("200ms"), Some("200MiB"));
        check("3 months", None, Some("3MiB"));
        check("64 kbytes", None, Some("64KiB"));
        check("1.5h", None, None);
        check("", None, None);
        // Too large in any unit: the same text again would be no remedy.
        check("99999999999999999y", None, None);
        check("99999999999t", None, None);
    }

    #[test]
    fn shown() {
        for (bytes, want) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1500, "1,500 bytes"),
            (65536, "64 KiB"),
            (1 << 30, "1 GiB"),
            (1 << 50, "1 PiB"),
        ] {
            assert_eq!(show_size(bytes), want);
        }
        for (number, want) in [(0, "0"), (999, "999"), (1000, "1,000"), (10_000_000, "10,000,000")] {
            assert_eq!(show_number(number), want);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_the_same(milliseconds in 0u64..10_000_000_000_000) {
            let time = Duration::from_millis(milliseconds);
            prop_assert_eq!(duration(&show_duration(time)), Some(time));
        }

        #[test]
        fn texts_never_panic(text in "\\PC{0,20}") {
            let _ = (duration(&text), size(&text));
        }
    }
}
