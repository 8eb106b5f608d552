//! Parts of the API's answers, as texts and numbers for templates.

use serde_json::Value;

/// A text; empty if it is missing.
#[must_use]
pub fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// A text that may be missing.
#[must_use]
pub fn some(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A list; empty if it is missing.
#[must_use]
pub fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The texts of a list.
#[must_use]
pub fn texts(value: &Value, key: &str) -> Vec<String> {
    list(value, key).iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// The bytes of a text on a page: each character that is escaped takes five (`&#34;`).
#[must_use]
pub fn length_on_page(text: &str) -> usize {
    let escaped = text.bytes().filter(|byte| matches!(byte, b'<' | b'>' | b'&' | b'"' | b'\'')).count();
    text.len() + 4 * escaped
}

/// A text whose first letter is a capital.
#[must_use]
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A count; 0 if it is missing.
#[must_use]
pub fn count(value: &Value, key: &str) -> usize {
    value[key].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or_default()
}

/// The class of a state, which is its icon, too.
#[must_use]
pub fn level(value: &Value) -> &'static str {
    match value["level"].as_str() {
        Some("bad") => "bad",
        Some("warning") => "warn",
        _ => "ok",
    }
}

/// A way out of a problem.
pub struct WayOut {
    /// The remedy.
    pub text: String,
    /// `true` if it can be pasted into a shell.
    pub is_command: bool,
    /// Its sentence, in parts.
    pub parts: Vec<Phrase>,
}

/// A part of a sentence.
pub struct Phrase {
    /// The words.
    pub text: String,
    /// `true` for a command or a key, which stands between backticks.
    pub is_code: bool,
}

/// The parts of a sentence.
fn phrases(sentence: &str) -> Vec<Phrase> {
    let is_paired = sentence.matches('`').count().is_multiple_of(2);
    let parts = if is_paired { sentence.split('`').collect() } else { vec![sentence] };
    let part = |(at, text): (usize, &str)| Phrase { text: text.to_owned(), is_code: !at.is_multiple_of(2) };
    parts.into_iter().enumerate().map(part).filter(|part| !part.text.is_empty()).collect()
}

impl WayOut {
    /// A remedy in words.
    #[must_use]
    pub fn sentence(text: String) -> Self {
        Self { is_command: false, parts: phrases(&text), text }
    }

    /// A remedy that is a command.
    #[must_use]
    pub fn command(text: String) -> Self {
        Self { is_command: true, ..Self::sentence(text) }
    }
}

/// The ways out that an object of the API names: its `hints`, of which those in `commands` are commands.
#[must_use]
pub fn ways_out(value: &Value) -> Vec<WayOut> {
    let commands = texts(value, "commands");
    let way = |hint: String| if commands.contains(&hint) { WayOut::command(hint) } else { WayOut::sentence(hint) };
    texts(value, "hints").into_iter().map(way).collect()
}

/// A count with commas between its thousands.
#[must_use]
pub fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A rate or a share with as many digits as help: `1,284`, `48`, `3.4`, `0.02`.
#[must_use]
pub fn figure(number: f64) -> String {
    match number {
        number if !number.is_finite() || number <= 0.0 => "0".to_owned(),
        number if number < 1.0 => format!("{number:.2}"),
        number if number < 10.0 => format!("{number:.1}"),
        number => {
            let whole = format!("{number:.0}");
            whole.parse().map_or(whole, grouped)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures() {
        for (number, shown) in
            [(0.0, "0"), (-1.0, "0"), (f64::NAN, "0"), (0.021, "0.02"), (3.44, "3.4"), (48.2, "48"), (1283.9, "1,284")]
        {
            assert_eq!(figure(number), shown);
        }
        assert_eq!(
            (grouped(999).as_str(), grouped(1000).as_str(), grouped(1_234_567).as_str()),
            ("999", "1,000", "1,234,567")
        );
    }

    #[test]
    fn lengths_on_a_page() {
        for (text, length) in [("", 0), ("a b", 3), ("é", 2), ("a = \"b\"", 15), ("<&'>", 20)] {
            assert_eq!(length_on_page(text), length, "{text}");
        }
    }

    #[test]
    fn code_in_sentences() {
        let of = |text: &str| phrases(text).into_iter().map(|part| (part.text, part.is_code)).collect::<Vec<_>>();
        let part = |text: &str, is_code| (text.to_owned(), is_code);
        assert_eq!(
            of("use `a b`, or `c`"),
            [part("use ", false), part("a b", true), part(", or ", false), part("c", true)]
        );
        assert_eq!((of("a ` b"), of("")), (vec![part("a ` b", false)], Vec::new()));
    }

    #[test]
    fn remedies_that_can_be_pasted() {
        let value = json!({ "hints": ["mkdir -p /x", "pintle check says more"], "commands": ["mkdir -p /x"] });
        let shown: Vec<_> = ways_out(&value).into_iter().map(|way| (way.text, way.is_command)).collect();
        assert_eq!(shown, [("mkdir -p /x".to_owned(), true), ("pintle check says more".to_owned(), false)]);
    }
}
