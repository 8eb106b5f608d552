//! Reads tables key by key, with the place of each; what nobody asked for is an error.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{At, Problems};
use super::value::{self, DURATION_FORM, SIZE_FORM};

type Entries<'t> = DeTable<'t>;

/// Problems, while many readers add to them.
pub(super) type Gathered = RefCell<Problems>;

#[cfg(test)]
thread_local! {
    /// The full names of all keys that were asked for, and which of them are tables: for the test that compares them
    /// with the documentation.
    pub(super) static ASKED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    pub(super) static TABLES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// One table of the file.
pub(super) struct Reader<'t> {
    table: &'t Entries<'t>,
    /// Where its header stands.
    pub(super) span: Range<usize>,
    /// How messages call it: `site.hsts`.
    path: String,
    problems: &'t Gathered,
    asked: RefCell<Vec<&'static str>>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(table: &'t Spanned<Entries<'t>>, path: &str, problems: &'t Gathered) -> Self {
        Self::of(table.get_ref(), table.span(), path, problems)
    }

    fn of(table: &'t Entries<'t>, span: Range<usize>, path: &str, problems: &'t Gathered) -> Self {
        Self { table, span, path: path.to_owned(), problems, asked: RefCell::default() }
    }

    fn get(&self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.asked.borrow_mut().push(key);
        #[cfg(test)]
        ASKED.with_borrow_mut(|asked| asked.push(self.name(key)));
        self.table.iter().find(|(k, _)| k.get_ref().as_ref() == key).map(|(_, v)| v)
    }

    /// `site.hsts.max_age`
    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, want: &str) {
        let found = match value.get_ref().type_str() {
            "string" => "a text",
            "integer" | "float" => "a number",
            "boolean" => "true or false",
            "array" => "a list",
            "table" => "a table",
            _ => "a date",
        };
        let message = format!("{}: is {found}, should be {want}", self.name(key));
        let hint = match (found, want) {
            ("a text", "a list of texts") => Some("put it in brackets: [\"...\"]".to_owned()),
            ("a text", "true or false" | "a number") => Some("write it without quotes".to_owned()),
            ("a number" | "true or false", "a text") => Some("write it in quotes".to_owned()),
            _ => None,
        };
        self.problems.borrow_mut().error(&value.span(), message, hint);
    }

    pub(super) fn text(&self, key: &'static str) -> Option<At<String>> {
        let value = self.get(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(At { value: text.to_owned(), span: value.span() }),
            None => {
                self.wrong_type(key, value, "a text");
                None
            }
        }
    }

    pub(super) fn boolean(&self, key: &'static str) -> Option<At<bool>> {
        let value = self.get(key)?;
        match value.get_ref().as_bool() {
            Some(flag) => Some(At { value: flag, span: value.span() }),
            None => {
                self.wrong_type(key, value, "true or false");
                None
            }
        }
    }

    /// A number that is not negative.
    pub(super) fn number(&self, key: &'static str) -> Option<At<u64>> {
        let value = self.get(key)?;
        match integer(value.get_ref()) {
            Some(number) => Some(At { value: number, span: value.span() }),
            None if value.get_ref().is_integer() => {
                let message = format!("{}: is negative, or too large", self.name(key));
                self.problems.borrow_mut().error(&value.span(), message, None);
                None
            }
            None => {
                self.wrong_type(key, value, "a number");
                None
            }
        }
    }

    pub(super) fn duration(&self, key: &'static str) -> Option<At<Duration>> {
        self.quantity(key, DURATION_FORM, value::duration)
    }

    pub(super) fn size(&self, key: &'static str) -> Option<At<u64>> {
        self.quantity(key, SIZE_FORM, value::size)
    }

    pub(super) fn durations(&self, key: &'static str) -> Option<Vec<At<Duration>>> {
        let value = self.get(key)?;
        let Some(list) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of times");
            return None;
        };
        // A time that is none has been told of; without it, the rest would be another list.
        list.iter().map(|item| self.quantity_of(key, item, DURATION_FORM, value::duration)).collect()
    }

    /// A text with a unit, or a bare number.
    fn quantity<T>(&self, key: &'static str, form: &str, parse: impl Fn(&str) -> Option<T>) -> Option<At<T>> {
        self.quantity_of(key, self.get(key)?, form, parse)
    }

    fn quantity_of<T>(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        form: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<At<T>> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            number @ DeValue::Integer(_) => match integer(number) {
                Some(number) => number.to_string(),
                None => "negative".to_owned(),
            },
            _ => {
                self.wrong_type(key, value, form);
                return None;
            }
        };
        let parsed = parse(&text);
        if parsed.is_none() {
            let message = format!("{}: {text:?} is not {form}", self.name(key));
            self.problems.borrow_mut().error(&value.span(), message, None);
        }
        parsed.map(|parsed| At { value: parsed, span: value.span() })
    }

    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<At<String>>> {
        let value = self.get(key)?;
        let Some(list) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of texts");
            return None;
        };
        let mut texts = Vec::new();
        for item in list.iter() {
            match item.get_ref().as_str() {
                Some(text) => texts.push(At { value: text.to_owned(), span: item.span() }),
                None => self.wrong_type(key, item, "a text"),
            }
        }
        Some(texts)
    }

    pub(super) fn numbers(&self, key: &'static str) -> Option<Vec<At<u64>>> {
        let value = self.get(key)?;
        let Some(list) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of numbers");
            return None;
        };
        let mut numbers = Vec::new();
        for item in list.iter() {
            match integer(item.get_ref()) {
                Some(number) => numbers.push(At { value: number, span: item.span() }),
                None => self.wrong_type(key, item, "a number"),
            }
        }
        Some(numbers)
    }

    /// A table with keys of the operator's own: header fields.
    pub(super) fn pairs(&self, key: &'static str) -> Vec<(At<String>, At<String>)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, value, "a table of texts");
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, value) in table.iter() {
            match value.get_ref().as_str() {
                Some(text) => pairs.push((
                    At { value: name.get_ref().to_string(), span: name.span() },
                    At { value: text.to_owned(), span: value.span() },
                )),
                None => self.wrong_type(&format!("{key}.{}", name.get_ref()), value, "a text"),
            }
        }
        pairs
    }

    pub(super) fn table(&self, key: &'static str) -> Option<Self> {
        #[cfg(test)]
        TABLES.with_borrow_mut(|tables| tables.push(self.name(key)));
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Self::of(table, value.span(), &self.name(key), self.problems)),
            _ => {
                self.wrong_type(key, value, "a table");
                None
            }
        }
    }

    /// One table, or a list of them.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Self> {
        let name = self.name(key);
        #[cfg(test)]
        TABLES.with_borrow_mut(|tables| tables.push(name.clone()));
        let Some(value) = self.get(key) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Table(table) => vec![Self::of(table, value.span(), &name, self.problems)],
            DeValue::Array(list) => {
                let mut tables = Vec::new();
                for item in list.iter() {
                    match item.get_ref() {
                        DeValue::Table(table) => tables.push(Self::of(table, item.span(), &name, self.problems)),
                        _ => self.wrong_type(key, item, "a table"),
                    }
                }
                tables
            }
            _ => {
                self.wrong_type(key, value, "a table");
                Vec::new()
            }
        }
    }

    /// Whether the key is there, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.iter().any(|(k, _)| k.get_ref().as_ref() == key)
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table.iter() {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) {
                continue;
            }
            let far = |known: &str| distance(&plain(known), &plain(name));
            let near = asked.iter().filter(|k| far(k) <= 2).min_by_key(|k| far(k));
            let hint = match near {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("known here: {}", asked.join(", ")),
            };
            let message = format!("{}: unknown key", self.name(name));
            self.problems.borrow_mut().error(&key.span(), message, Some(hint));
        }
    }
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    let digits: String = integer.as_str().chars().filter(|c| *c != '_').collect();
    u64::from_str_radix(digits.trim_start_matches('+'), integer.radix()).ok()
}

/// `maxAge`, `max-age` and `max_age` are the same slip of the pen.
fn plain(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '_' | '-')).collect::<String>().to_ascii_lowercase()
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = corner + usize::from(ca != *cb);
            corner = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("max_age", "max_agee"), 1);
        assert_eq!(distance("hosts", "host"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "ab"), 2);
    }
}
