//! Labels of metrics, escaped.

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
