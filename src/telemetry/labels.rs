//! Labels of metrics, as the text format has them.

/// The labels of one series, in braces; empty without labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(String);

impl Labels {
    /// Their text, with braces.
    #[must_use]
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Creates them. Values are escaped.
    #[must_use]
    pub fn new(pairs: &[(&str, &str)]) -> Self {
        if pairs.is_empty() {
            return Self::default();
        }
        let mut text = String::with_capacity(64);
        push_begun(&mut text, pairs);
        text.push('}');
        Self(text)
    }

    /// Their text without the last brace, so that further ones fit behind it.
    pub(super) fn begun(&self) -> &str {
        self.0.strip_suffix('}').unwrap_or("{")
    }
}

/// The labels of many series, in one text. They are escaped once, and kept for the next scrape.
#[derive(Debug, Default)]
pub struct LabelSets {
    text: String,
    ends: Vec<usize>,
}

impl LabelSets {
    /// Adds the labels of one series. Values are escaped.
    pub fn push(&mut self, pairs: &[(&str, &str)]) {
        push_begun(&mut self.text, pairs);
        self.ends.push(self.text.len());
    }

    /// The number of sets.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Each set without its last brace.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| self.text.get(begin..*end).unwrap_or_default())
    }
}

/// Writes labels in a brace that stays open.
fn push_begun(text: &mut String, pairs: &[(&str, &str)]) {
    for (at, (name, value)) in pairs.iter().enumerate() {
        text.push(if at == 0 { '{' } else { ',' });
        text.push_str(name);
        text.push_str("=\"");
        push_escaped(text, value);
        text.push('"');
    }
}

fn push_escaped(text: &mut String, value: &str) {
    if !value.contains(['\\', '"', '\n']) {
        return text.push_str(value);
    }
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

/// Returns the names and values of labels, without escapes, from their text behind the first brace: `a="b",c="d"}`.
pub fn label_pairs(labels: &str) -> impl Iterator<Item = (&str, String)> {
    let mut rest = labels;
    std::iter::from_fn(move || {
        let (name, behind) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = behind.char_indices();
        let mut end = behind.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => value.extend(characters.next().map(|(_, escaped)| if escaped == 'n' { '\n' } else { escaped })),
                other => value.push(other),
            }
        }
        rest = behind.get(end..).unwrap_or_default().trim_start_matches(',');
        Some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_a_text() {
        let read = |labels: &'static str| label_pairs(labels).collect::<Vec<_>>();
        assert_eq!(read(""), []);
        assert_eq!(read("a=\"b\"}"), [("a", "b".to_owned())]);
        assert_eq!(read("a=\"b\\\"\\\\\\n,c=\\\"\",d=\"\"}"), [("a", "b\"\\\n,c=\"".to_owned()), ("d", String::new())]);
    }
}
