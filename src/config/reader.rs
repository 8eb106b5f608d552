//! Reads tables key by key, with the place of each. A key that nobody asked for is an error.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::names;
use super::problem::{At, Problems};
use super::value::{self, DURATION_FORM, SIZE_FORM};
use crate::reason::Reason;
use crate::reason::near::nearest;

type Entries<'t> = DeTable<'t>;

/// Problems, while many readers add to them.
pub(super) type Gathered = RefCell<Problems>;

#[cfg(test)]
thread_local! {
    /// The full names of all keys that were asked for, and of those that are tables: for the test that compares them
    /// with the documentation.
    pub(super) static ASKED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    pub(super) static TABLES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// One table of the file.
pub(super) struct Reader<'t> {
    table: &'t Entries<'t>,
    /// The place of its header.
    pub(super) span: Range<usize>,
    /// Its name in messages: `site.hsts`.
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

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, want: Type) {
        let found = Type::of(value.get_ref());
        let mut reason = Reason::new(format!("{}: expected {}, found {}", self.name(key), want.name(), found.found()));
        reason.notes.extend(want.examples());
        match want.remedy(value.get_ref()) {
            Some(remedy) => reason.hints.push(remedy.to_owned()),
            None if reason.notes.is_empty() => {
                reason.hints.push(format!("`pintle man pintle.toml` describes {}", self.name(key)));
            }
            None => {}
        }
        reason.fix = want.replacement(value.get_ref()).map(String::into_boxed_str);
        self.problems.borrow_mut().error(&value.span(), reason);
    }

    pub(super) fn text(&self, key: &'static str) -> Option<At<String>> {
        let value = self.get(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(At { value: text.to_owned(), span: value.span() }),
            None => {
                self.wrong_type(key, value, Type::String);
                None
            }
        }
    }

    pub(super) fn boolean(&self, key: &'static str) -> Option<At<bool>> {
        let value = self.get(key)?;
        match value.get_ref().as_bool() {
            Some(flag) => Some(At { value: flag, span: value.span() }),
            None => {
                self.wrong_type(key, value, Type::Boolean);
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
                let is_negative = number_text(value.get_ref()).starts_with('-');
                let bound = if is_negative { "must not be negative" } else { "is too large" };
                let reason = format!("{}: {bound}", self.name(key));
                self.problems.borrow_mut().error(&value.span(), reason);
                None
            }
            None => {
                self.wrong_type(key, value, Type::Number);
                None
            }
        }
    }

    /// A number with or without decimals.
    pub(super) fn fraction(&self, key: &'static str) -> Option<At<f64>> {
        let value = self.get(key)?;
        let number = match value.get_ref() {
            DeValue::Float(float) => float.as_str().replace('_', "").parse().ok(),
            DeValue::Integer(_) => number_text(value.get_ref()).parse().ok(),
            _ => None,
        };
        match number {
            Some(number) => Some(At { value: number, span: value.span() }),
            None => {
                self.wrong_type(key, value, Type::Number);
                None
            }
        }
    }

    pub(super) fn duration(&self, key: &'static str) -> Option<At<Duration>> {
        self.quantity(key, Type::Duration, value::duration)
    }

    pub(super) fn size(&self, key: &'static str) -> Option<At<u64>> {
        self.quantity(key, Type::Size, value::size)
    }

    pub(super) fn durations(&self, key: &'static str) -> Option<Vec<At<Duration>>> {
        let value = self.get(key)?;
        let Some(list) = value.get_ref().as_array() else {
            self.wrong_type(key, value, Type::Durations);
            return None;
        };
        // A wrong duration is reported by itself. Without it, the rest would be another list.
        list.iter().map(|item| self.quantity_of(key, item, Type::Duration, value::duration)).collect()
    }

    /// A string with a unit, or a bare number.
    fn quantity<T>(&self, key: &'static str, want: Type, parse: impl Fn(&str) -> Option<T>) -> Option<At<T>> {
        self.quantity_of(key, self.get(key)?, want, parse)
    }

    fn quantity_of<T>(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        want: Type,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<At<T>> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            number @ DeValue::Integer(_) => match integer(number) {
                Some(number) => number.to_string(),
                None => number_text(number),
            },
            _ => {
                self.wrong_type(key, value, want);
                return None;
            }
        };
        let parsed = parse(&text);
        if parsed.is_none() {
            let mut reason = Reason::new(format!("{}: invalid {} {text:?}", self.name(key), want.noun()));
            reason.notes.extend(want.examples());
            let meant = match want {
                Type::Size => value::meant_size(&text),
                _ => value::meant_duration(&text),
            };
            if let Some(meant) = meant {
                reason = reason.meant(&meant);
            }
            self.problems.borrow_mut().error(&value.span(), reason);
        }
        parsed.map(|parsed| At { value: parsed, span: value.span() })
    }

    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<At<String>>> {
        let value = self.get(key)?;
        let Some(list) = value.get_ref().as_array() else {
            self.wrong_type(key, value, Type::Strings);
            return None;
        };
        let mut texts = Vec::new();
        for item in list.iter() {
            match item.get_ref().as_str() {
                Some(text) => texts.push(At { value: text.to_owned(), span: item.span() }),
                None => self.wrong_type(key, item, Type::String),
            }
        }
        Some(texts)
    }

    pub(super) fn numbers(&self, key: &'static str) -> Option<Vec<At<u64>>> {
        let value = self.get(key)?;
        let Some(list) = value.get_ref().as_array() else {
            self.wrong_type(key, value, Type::Numbers);
            return None;
        };
        let mut numbers = Vec::new();
        for item in list.iter() {
            match integer(item.get_ref()) {
                Some(number) => numbers.push(At { value: number, span: item.span() }),
                None => self.wrong_type(key, item, Type::Number),
            }
        }
        Some(numbers)
    }

    /// A table with keys of the operator's own: header fields.
    pub(super) fn pairs(&self, key: &'static str) -> Vec<(At<String>, At<String>)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, value, Type::StringTable);
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, value) in table.iter() {
            match value.get_ref().as_str() {
                Some(text) => pairs.push((
                    At { value: name.get_ref().to_string(), span: name.span() },
                    At { value: text.to_owned(), span: value.span() },
                )),
                None => self.wrong_type(&format!("{key}.{}", name.get_ref()), value, Type::String),
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
                self.wrong_type(key, value, Type::Table);
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
                        _ => self.wrong_type(key, item, Type::Table),
                    }
                }
                tables
            }
            _ => {
                self.wrong_type(key, value, Type::Table);
                Vec::new()
            }
        }
    }

    /// `true` if the key's value is a list.
    pub(super) fn is_list(&self, key: &str) -> bool {
        self.table.iter().any(|(k, value)| k.get_ref().as_ref() == key && value.get_ref().as_array().is_some())
    }

    /// `true` if the key is there, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.iter().any(|(k, _)| k.get_ref().as_ref() == key)
    }

    /// Reads the table, and reports the keys that nobody asked for.
    pub(super) fn whole<T>(self, read: impl FnOnce(&Self) -> T) -> T {
        let table = read(&self);
        self.finish();
        table
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table.iter() {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) {
                continue;
            }
            let mut reason = Reason::new(format!("{}: unknown key", self.name(name)));
            // `host` for `host_header`.
            let is_longer = |known: &&str| known.strip_prefix(name).is_some_and(|rest| rest.starts_with('_'));
            if let Some(longer) = asked.iter().copied().find(is_longer) {
                reason = reason.hint(format!("did you mean {longer:?}?")).fix(longer);
            }
            // A key of another table is no slip of the pen.
            let reason = match (names::belongs(&self.path, name), nearest(name, asked.iter().copied())) {
                (Some(place), _) => reason.hint(place),
                (None, Some(near)) => reason.hint(format!("did you mean {near:?}?")).fix(near),
                (None, None) => reason.note(format!("expected one of: {}", asked.join(", "))),
            };
            self.problems.borrow_mut().error(&key.span(), reason);
        }
    }
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    let digits: String = integer.as_str().chars().filter(|c| *c != '_').collect();
    u64::from_str_radix(digits.trim_start_matches('+'), integer.radix()).ok()
}

/// A number as the file has it, with its sign.
fn number_text(value: &DeValue<'_>) -> String {
    value.as_integer().map(|integer| integer.as_str().to_owned()).unwrap_or_default()
}

/// The types of values, as messages name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    String,
    Number,
    Boolean,
    Duration,
    Size,
    Date,
    List,
    Strings,
    Numbers,
    Durations,
    Table,
    StringTable,
}

impl Type {
    fn of(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(_) => Self::String,
            DeValue::Integer(_) | DeValue::Float(_) => Self::Number,
            DeValue::Boolean(_) => Self::Boolean,
            DeValue::Datetime(_) => Self::Date,
            DeValue::Array(_) => Self::List,
            DeValue::Table(_) => Self::Table,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Duration => "a duration",
            Self::Size => "a size",
            Self::Date => "a date",
            Self::List => "a list",
            Self::Strings => "a list of strings",
            Self::Numbers => "a list of numbers",
            Self::Durations => "a list of durations",
            Self::Table => "a table",
            Self::StringTable => "a table of strings",
        }
    }

    fn found(self) -> &'static str {
        if self == Self::Boolean { "a boolean" } else { self.name() }
    }

    /// Without its article.
    fn noun(self) -> &'static str {
        self.name().trim_start_matches("a ")
    }

    fn examples(self) -> Option<String> {
        match self {
            Self::Duration => Some(format!("expected one like: {DURATION_FORM}")),
            Self::Size => Some(format!("expected one like: {SIZE_FORM}")),
            _ => None,
        }
    }

    /// A remedy for a value of the wrong type.
    fn remedy(self, found: &DeValue<'_>) -> Option<&'static str> {
        match (self, Self::of(found)) {
            (Self::Strings | Self::Durations, Self::String) => Some("put it in brackets: [\"...\"]"),
            (Self::Numbers, Self::Number) => Some("put it in brackets: [443]"),
            (Self::Boolean, Self::String) => match found.as_str()? {
                "true" | "false" => Some("write it without quotes"),
                "yes" | "on" => Some("did you mean true?"),
                "no" | "off" => Some("did you mean false?"),
                _ => None,
            },
            (Self::Number, Self::String) => found.as_str()?.parse::<u64>().is_ok().then_some("write it without quotes"),
            (Self::String, Self::Number) => Some("write it in quotes"),
            (Self::String, Self::List) => Some("remove the brackets: it has one value"),
            _ => None,
        }
    }

    /// The text that carries the remedy out.
    fn replacement(self, found: &DeValue<'_>) -> Option<String> {
        match (self, Self::of(found)) {
            (Self::Strings | Self::Durations, Self::String) => Some(format!("[{:?}]", found.as_str()?)),
            (Self::Numbers, Self::Number) => Some(format!("[{}]", number_text(found))).filter(|text| text.len() > 2),
            (Self::Boolean, Self::String) => match found.as_str()? {
                "true" | "yes" | "on" => Some("true".to_owned()),
                "false" | "no" | "off" => Some("false".to_owned()),
                _ => None,
            },
            (Self::Number, Self::String) => found.as_str()?.parse::<u64>().ok().map(|number| number.to_string()),
            (Self::String, Self::Number) => Some(format!("{:?}", number_text(found))).filter(|text| text.len() > 2),
            _ => None,
        }
    }
}
