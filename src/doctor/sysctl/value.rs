//! Values as the kernel reads them.

/// The effect of writing a text to a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    /// The setting would keep its value.
    Same,
    /// It would get this value.
    Other(String),
    /// The kernel would refuse the text.
    Refused,
}

/// Compares a text with the running value.
///
/// A setting of numbers reads as many numbers as it has, and stops there: `1 # yes` is 1.
pub(super) fn write(text: &str, running: &str) -> Written {
    let is = |same: bool, value: String| if same { Written::Same } else { Written::Other(value) };
    let now: Vec<&str> = running.split_whitespace().collect();
    let numbers: Option<Vec<i128>> = now.iter().map(|word| word.parse().ok()).collect();
    let Some(numbers) = numbers.filter(|numbers| !numbers.is_empty()) else {
        return is(text.trim() == running.trim(), text.trim().to_owned());
    };
    let mut next = numbers.clone();
    for (at, word) in text.split_whitespace().take(numbers.len()).enumerate() {
        match number(word) {
            Some(value) => next[at] = value,
            // The numbers before it are set.
            None if at == 0 => return Written::Refused,
            None => break,
        }
    }
    // An empty text changes nothing.
    let words: Vec<String> = next.iter().map(i128::to_string).collect();
    is(next == numbers, words.join(" "))
}

/// Reads a number in the notations of C.
fn number(word: &str) -> Option<i128> {
    let (sign, digits) = word.strip_prefix('-').map_or((1, word), |digits| (-1, digits));
    let value = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        i128::from_str_radix(hex, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        i128::from_str_radix(digits, 8)
    } else {
        digits.parse()
    };
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit());
    value.ok().filter(|_| is_number).map(|value| sign * value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kernel_reads() {
        let other = |value: &str| Written::Other(value.to_owned());
        for (text, running, want) in [
            ("1", "1\n", Written::Same),
            ("0", "1", other("0")),
            ("1 # yes", "1", Written::Same),
            ("0x10", "16", Written::Same),
            ("010", "8", Written::Same),
            ("-1", "-1", Written::Same),
            ("1net.ipv4.ip_forward=1", "1", Written::Refused),
            ("yes", "1", Written::Refused),
            ("", "1", Written::Same),
            ("4096 131072  6291456", "4096\t131072\t6291456", Written::Same),
            ("4096 16384", "4096\t131072\t6291456", other("4096 16384 6291456")),
            ("cubic", "cubic\n", Written::Same),
            ("bbr", "cubic\n", other("bbr")),
            ("+1", "1", Written::Refused),
            ("0x", "1", Written::Refused),
        ] {
            assert_eq!(write(text, running), want, "{text:?} {running:?}");
        }
    }
}
