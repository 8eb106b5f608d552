//! What is wrong with a configuration: where, what, and what to do about it.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It is served all the same.
    Warning,
    /// It is not served.
    Error,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Where in the file, in bytes.
    pub span: Range<usize>,
    /// What it is.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// All that is wrong with one file.
#[derive(Debug, Clone)]
pub struct Problems {
    path: PathBuf,
    text: Arc<str>,
    /// Where each line begins.
    lines: Arc<[usize]>,
    list: Vec<Problem>,
    /// Places in the list, by where the problem is.
    by_start: HashMap<usize, Vec<usize>>,
}

/// A value, and where it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands, in bytes.
    pub span: Range<usize>,
}

impl<T> At<T> {
    /// Another value, for the same place.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At { value: f(self.value), span: self.span }
    }

    /// Another value, for the same place.
    pub fn with<U>(&self, value: U) -> At<U> {
        At { value, span: self.span.clone() }
    }
}

impl Problems {
    /// Nothing is wrong with this file yet.
    #[must_use]
    pub fn new(path: &Path, text: String) -> Self {
        let begins = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(begins).collect();
        Self { path: path.to_owned(), text: text.into(), lines, list: Vec::new(), by_start: HashMap::new() }
    }

    /// For the same file, nothing told yet; without its text.
    pub(super) fn scratch(&self) -> Self {
        Self::new(&self.path, String::new())
    }

    /// What was told.
    pub(super) fn into_list(self) -> Vec<Problem> {
        self.list
    }

    /// Adds what was told elsewhere.
    pub(super) fn extend(&mut self, list: impl IntoIterator<Item = Problem>) {
        for problem in list {
            self.insert(problem);
        }
    }

    /// Makes warnings of all errors so far.
    pub(super) fn forgive(&mut self) {
        for problem in &mut self.list {
            problem.severity = Severity::Warning;
        }
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same, to be kept.
    pub(super) fn shared_text(&self) -> Arc<str> {
        self.text.clone()
    }

    /// Adds an error.
    pub fn error(&mut self, span: &Range<usize>, message: impl Into<String>, hint: impl Into<Option<String>>) {
        self.push(Severity::Error, span, message.into(), hint.into());
    }

    /// Adds a warning.
    pub fn warn(&mut self, span: &Range<usize>, message: impl Into<String>, hint: impl Into<Option<String>>) {
        self.push(Severity::Warning, span, message.into(), hint.into());
    }

    fn push(&mut self, severity: Severity, span: &Range<usize>, message: String, hint: Option<String>) {
        self.insert(Problem { severity, span: span.clone(), message, hint });
    }

    fn insert(&mut self, problem: Problem) {
        let here = self.by_start.entry(problem.span.start).or_default();
        if !here.iter().any(|at| self.list.get(*at) == Some(&problem)) {
            here.push(self.list.len());
            self.list.push(problem);
        }
    }

    /// Whether there are errors, and not only warnings.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|p| p.severity == Severity::Error)
    }

    /// All problems, in the order of the file.
    #[must_use]
    pub fn sorted(&self) -> Vec<&Problem> {
        let mut all: Vec<&Problem> = self.list.iter().collect();
        all.sort_by_key(|p| (p.span.start, p.span.end));
        all
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Line and column of a byte, both from 1; the column counts characters.
    #[must_use]
    pub fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.lines.partition_point(|begin| *begin <= offset).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or_default();
        (line, self.text[start..offset].chars().count() + 1)
    }

    /// `file:line:column: message`
    #[must_use]
    pub fn one_line(&self, problem: &Problem) -> String {
        let (line, column) = self.line_and_column(problem.span.start);
        format!("{}:{line}:{column}: {}", self.path.display(), problem.message)
    }

    /// `file:line:column: message`, the line with a caret under it, and the hint.
    #[must_use]
    pub fn render(&self, problem: &Problem, color: bool) -> String {
        let (line, column) = self.line_and_column(problem.span.start);
        let begin = self.lines.get(line - 1).copied().unwrap_or_default();
        let text = self.text[begin..].lines().next().unwrap_or_default();
        let (bold, red, yellow, blue, off) =
            if color { ("\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[34m", "\x1b[0m") } else { ("", "", "", "", "") };
        let (tint, word) = match problem.severity {
            Severity::Error => (red, ""),
            Severity::Warning => (yellow, "warning: "),
        };
        let place = format!("{}:{line}:{column}", self.path.display());
        let mut out = format!("{bold}{place}:{off} {tint}{word}{off}{}\n", problem.message);
        if !text.trim().is_empty() {
            // Tabs keep the caret below what it points at.
            let indent: String = text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let rest = text.chars().count().saturating_sub(column - 1).max(1);
            let marked =
                self.text.get(problem.span.clone()).map_or(1, |t| t.lines().next().unwrap_or("").chars().count());
            let carets = "^".repeat(marked.clamp(1, rest));
            out.push_str(&format!("{blue}{line:>5} |{off} {text}\n      {blue}|{off} {indent}{tint}{carets}{off}\n"));
        }
        if let Some(hint) = &problem.hint {
            out.push_str(&format!("  {blue}hint:{off} {hint}\n"));
        }
        out
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.sorted() {
            f.write_str(&self.render(problem, false))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape() {
        let mut problems = Problems::new(Path::new("c.toml"), "a = 1\n\tü = \"x\"\n".into());
        problems.error(&(12..15), "no such thing", Some("try another".to_owned()));
        problems.warn(&(0..1), "hm", None);
        let want = "c.toml:1:1: warning: hm\n    1 | a = 1\n      | ^\n\
                    c.toml:2:6: no such thing\n    2 | \tü = \"x\"\n      | \t    ^^^\n  hint: try another\n";
        assert_eq!(problems.to_string(), want);
    }

    #[test]
    fn places_outside_of_the_text_are_its_end() {
        let problems = Problems::new(Path::new("c.toml"), "ü".into());
        assert_eq!(problems.line_and_column(1), (1, 1));
        assert_eq!(problems.line_and_column(100), (1, 2));
    }
}
