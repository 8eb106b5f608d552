//! Durations and sizes as people write them.

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

/// Units of size, in bytes. A bare letter is what nginx takes it for.
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

/// What a duration looks like, for messages.
pub const DURATION_FORM: &str = "a time like \"15s\", \"12h\", \"30d\" or \"1y\", or a number of seconds";
/// What a size looks like, for messages.
pub const SIZE_FORM: &str = "a size like \"64KiB\", \"10MiB\" or \"1g\", or a number of bytes";

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
