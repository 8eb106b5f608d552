//! Errors of TOML's syntax, as an operator needs them: one for each slip, with its remedy.
//!
//! The parser continues after an error, and its next ones are mostly about the same slip. What it found is looked up in
//! the text: its messages are only printed.

use std::ops::Range;

use super::names::is_list;
use crate::reason::{Reason, counted};

/// Errors of the parser that are looked at. A file that is no TOML at all has one or more in each line.
const ERRORS_MAX: usize = 100;

/// An error of the parser: its place and its words.
pub(super) struct SyntaxError {
    pub(super) span: Range<usize>,
    pub(super) message: String,
}

/// Returns the errors to report, with their places.
pub(super) fn problems(text: &str, mut errors: Vec<SyntaxError>) -> Vec<(Range<usize>, Reason)> {
    errors.sort_by_key(|error| error.span.start);
    let open = if errors.is_empty() { None } else { open_list(text) };
    // From there on, the parser reads something else than the operator wrote.
    let end = open.unwrap_or(usize::MAX);
    errors.retain(|error| error.span.start < end);
    let more = errors.len().saturating_sub(ERRORS_MAX);
    let further = errors.get(ERRORS_MAX).map(|error| error.span.clone());
    errors.truncate(ERRORS_MAX);
    let lines: Vec<&str> = if errors.is_empty() { Vec::new() } else { text.lines().map(str::trim).collect() };
    let mut found: Vec<(Range<usize>, Reason)> = Vec::new();
    let mut last = None;
    for error in errors {
        let line = line_of(text, error.span.start);
        if last == Some(line) {
            continue;
        }
        let before = found.len();
        match repeated(text, &lines, line, &error.span) {
            Repeated::No => {
                let reason = Reason::new(error.message);
                let reason = match unquoted(text, error.span.start).filter(|_| !is_in_header(text, error.span.start)) {
                    Some(value) => reason.meant_value(&value),
                    None => reason,
                };
                found.push((error.span, reason));
            }
            Repeated::Key(reason) => found.push((error.span, reason)),
            Repeated::InRepeatedTable => {}
        }
        if found.len() > before {
            last = Some(line);
        }
    }
    if let Some(further) = further {
        let what = format!("{} of syntax, here and below", counted(more, "more error"));
        found.push((further, Reason::new(what).hint("mend the ones above first: these may come from them")));
    }
    if let Some(open) = open {
        let end = text[open..].find('\n').map_or(text.len(), |length| open + length);
        found.push((open..end, Reason::new("the list is not closed").hint("write ] at its end")));
    }
    found
}

impl Reason {
    /// Adds the value that an unquoted word should have been: a string, or `true`.
    fn meant_value(self, word: &str) -> Self {
        let lower = word.to_ascii_lowercase();
        let value = if matches!(lower.as_str(), "true" | "false") { lower } else { format!("{word:?}") };
        self.hint(format!("did you mean {value}?"))
    }
}

/// The line, from 0, of a place.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}

/// A key or a table that an earlier line has.
enum Repeated {
    No,
    Key(Reason),
    /// A key below a repeated header, which is reported already.
    InRepeatedTable,
}

fn repeated(text: &str, lines: &[&str], at: usize, span: &Range<usize>) -> Repeated {
    let (Some(line), Some(name)) = (lines.get(at), text.get(span.clone())) else { return Repeated::No };
    let before = lines.get(..at).unwrap_or_default();
    if let Some(reason) = table_and_list(before, line) {
        return Repeated::Key(reason);
    }
    if let Some(header) = header(line) {
        return match earlier_table(before, &header) {
            Some(first) => Repeated::Key(
                Reason::new(format!("duplicate table [{header}]: also in line {first}"))
                    .hint("write all its keys below one of the two"),
            ),
            None => Repeated::No,
        };
    }
    if key_of(line) != Some(name) {
        return Repeated::No;
    }
    for (number, line) in before.iter().enumerate().rev() {
        if key_of(line) == Some(name) {
            let what = format!("duplicate key {name}: also in line {}", number + 1);
            return Repeated::Key(Reason::new(what).hint("remove one of them"));
        }
        let is_repeated = |header: String| earlier_table(&before[..number], &header).is_some();
        if header(line).is_some_and(is_repeated) || table_and_list(&before[..number], line).is_some() {
            return Repeated::InRepeatedTable;
        }
        if line.starts_with('[') {
            break;
        }
    }
    Repeated::No
}

/// The line, from 1, of an earlier header of this table. Each `[[site]]` begins with tables of its own.
fn earlier_table(before: &[&str], name: &str) -> Option<usize> {
    let begins_anew = |line: &str| {
        let list = line.strip_prefix("[[").and_then(|rest| rest.split_once("]]"));
        list.is_some_and(|(list, _)| name.starts_with(&format!("{}.", list.trim())))
    };
    for (number, line) in before.iter().enumerate().rev() {
        if header(line).as_deref() == Some(name) {
            return Some(number + 1);
        }
        if begins_anew(line) {
            return None;
        }
    }
    None
}

/// The fault of a name that is a table here, and a list of tables above, or the reverse.
fn table_and_list(before: &[&str], line: &str) -> Option<Reason> {
    let (name, first) = match (list_header(line), header(line)) {
        (Some(name), _) => {
            let first = before.iter().position(|line| header(line).as_deref() == Some(name.as_str()));
            (name, first)
        }
        (None, Some(name)) => {
            let first = before.iter().position(|line| list_header(line).as_deref() == Some(name.as_str()));
            (name, first)
        }
        (None, None) => return None,
    };
    let what = format!("{name} is both [{name}] and [[{name}]]: line {} has the other", first? + 1);
    let hint = if is_list(&name) { format!("write [[{name}]] for each") } else { format!("write [{name}] once") };
    Some(Reason::new(what).hint(hint))
}

/// `site.hsts` of the line `[site.hsts]`.
fn header(line: &str) -> Option<String> {
    let name = line.strip_prefix('[').filter(|rest| !rest.starts_with('['))?.split(']').next()?;
    Some(dotted(name))
}

/// `site` of the line `[[site]]`.
fn list_header(line: &str) -> Option<String> {
    let (name, _) = line.strip_prefix("[[")?.split_once("]]")?;
    Some(dotted(name))
}

fn dotted(name: &str) -> String {
    name.split('.').map(str::trim).collect::<Vec<_>>().join(".")
}

/// `true` for a place at the beginning of a line with nothing but brackets before it.
fn is_in_header(text: &str, at: usize) -> bool {
    let line = text.get(..at).and_then(|before| before.rsplit('\n').next()).unwrap_or_default().trim();
    !line.is_empty() && line.chars().all(|c| c == '[')
}

/// The key of the line `key = value`.
fn key_of(line: &str) -> Option<&str> {
    let key = line.split_once('=')?.0.trim();
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    (!key.is_empty() && key.chars().all(is_bare)).then_some(key)
}

/// The word at a place where a value should be, if it lacks its quotes.
fn unquoted(text: &str, at: usize) -> Option<String> {
    let (before, rest) = (text.get(..at)?, text.get(at..)?);
    let before = before.trim_end_matches([' ', '\t']);
    let is_item = before.ends_with(['[', ',']);
    if !is_item && !before.ends_with('=') {
        return None;
    }
    let line = rest.lines().next()?.split('#').next()?;
    let word = if is_item { line.split([',', ']']).next()? } else { line };
    let word = word.trim();
    let is_word = !word.is_empty() && !word.contains(['"', '\'', '[', ']', '{', '}', '=', ',']);
    is_word.then(|| word.to_owned())
}

/// The begin of a list without its end.
fn open_list(text: &str) -> Option<usize> {
    let mut open: Vec<(usize, char)> = Vec::new();
    let mut quotes: Option<&str> = None;
    let mut begin = 0;
    for line in text.split_inclusive('\n') {
        let is_inside = matches!(open.last(), Some((_, '[')));
        let from = match (quotes, is_inside) {
            (Some(end), _) => match line.find(end) {
                Some(found) => found + end.len(),
                None => {
                    begin += line.len();
                    continue;
                }
            },
            (None, true) if key_of(line.trim()).is_some() || is_header(line.trim()) => break,
            (None, _) if !open.is_empty() => 0,
            (None, _) if line.trim_start().starts_with(['[', '#']) => line.len(),
            (None, _) => line.find('=').map_or(line.len(), |found| found + 1),
        };
        quotes = scan(line, from, begin, &mut open);
        begin += line.len();
    }
    open.first().filter(|(_, bracket)| *bracket == '[').map(|(start, _)| *start)
}

/// Follows the brackets of a line. Returns the quotes that end a string of several lines, if it does not end here.
fn scan(line: &str, from: usize, begin: usize, open: &mut Vec<(usize, char)>) -> Option<&'static str> {
    let mut at = from;
    while let Some(c) = line.get(at..).and_then(|rest| rest.chars().next()) {
        let rest = &line[at..];
        match c {
            '#' => return None,
            '[' | '{' => open.push((begin + at, c)),
            ']' | '}' => _ = open.pop(),
            '"' | '\'' => {
                let long = if c == '"' { "\"\"\"" } else { "'''" };
                at += match rest.strip_prefix(long).map(|text| text.find(long)) {
                    Some(Some(end)) => end + 2 * long.len(),
                    Some(None) => return Some(long),
                    None => length_of_string(rest, c),
                };
                continue;
            }
            _ => {}
        }
        at += c.len_utf8();
    }
    None
}

/// The length of a string of one line, with its quotes; to the end of the line if it has no end.
fn length_of_string(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if quote == '"' => is_escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `true` for `[site.hsts]` and `[[site]]`.
fn is_header(line: &str) -> bool {
    let name = line.trim_start_matches('[').trim_end_matches(']');
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    line.starts_with('[')
        && line.ends_with(']')
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(is_bare)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use toml::de::DeTable;

    fn read(text: &str) -> Vec<(usize, String)> {
        let (_, errors) = DeTable::parse_recoverable(text);
        let errors = errors.iter().map(|error| SyntaxError {
            span: error.span().unwrap_or(0..0),
            message: error.message().trim().to_owned(),
        });
        let found = problems(text, errors.collect());
        found.into_iter().map(|(span, reason)| (line_of(text, span.start) + 1, reason.full_line())).collect()
    }

    #[test]
    fn of_a_file_that_is_no_toml_some_errors_are_enough() {
        for line in ["a = 1\n", "2026-11-27 GET /\n", "[a]\nb = 1\nb = 2\n"] {
            let found = read(&line.repeat(20_000));
            assert!((1..=ERRORS_MAX + 1).contains(&found.len()), "{line}: {}", found.len());
            let (_, last) = found.last().unwrap();
            assert!(last.contains("more errors of syntax, here and below"), "{line}: {last}");
        }
    }

    #[test]
    fn one_problem_for_each_slip() {
        let check = |text: &str, want: &[(usize, &str)]| {
            let found = read(text);
            assert_eq!(found.len(), want.len(), "{text}\n{found:?}");
            for ((line, words), (wanted_line, part)) in found.iter().zip(want) {
                assert!(line == wanted_line && words.contains(part), "{part:?} in line {wanted_line}: {found:?}");
            }
        };
        check("a = 1\nb = 2\n", &[]);
        check("[[site]]\n[site.hsts]\na = 1\n[[site]]\n[site.hsts]\na = 1\n", &[]);
        check("a = 1d\n", &[(1, "did you mean \"1d\"?")]);
        check("a = True # yes\n", &[(1, "did you mean true?")]);
        check("a = [x, y]\nb = 2h\n", &[(1, "did you mean \"x\"?"), (2, "did you mean \"2h\"?")]);
        check("[t]\na = 1\nb = 2\na = 3\n", &[(4, "duplicate key a: also in line 2")]);
        check("[t]\na = 1\n\n[ t ]\na = 3\nb = 4\n", &[(4, "duplicate table [t]: also in line 1")]);
        check("[[s]]\n[s.t]\na = 1\n[s.t]\na = 3\n", &[(4, "duplicate table [s.t]: also in line 2")]);
        check("[s]\na = 1\n[[s]]\na = 3\n", &[(3, "s is both [s] and [[s]]: line 1 has the other")]);
        check("[[s]]\na = 1\n[s]\na = 3\n", &[(3, "s is both [s] and [[s]]: line 1 has the other")]);
        check("[[s]]\n[s.t]\na = 1\n[[s.t]]\na = 3\n", &[(4, "[[s.t]]: line 2 has the other")]);
        check("[[s]]\n[s.t]\n[[s]]\n[[s.t]]\na = 3\n", &[]);
        check("a = [\"b\"\nc = \"d\"\ne = 5\n", &[(1, "the list is not closed")]);
        check("a = [\n  \"b\",\n\n[t]\ne = 5\n", &[(1, "the list is not closed")]);
        check("a = [\"]\", '#', # ]\n", &[(1, "the list is not closed")]);
        check("a = [\"b\"]\nc = \"d\n", &[(2, "expected")]);
        check("a = \"\"\"\n[\nb = [\n\"\"\"\nc = 1x\n", &[(5, "did you mean \"1x\"?")]);
    }

    proptest! {
        #[test]
        fn any_text(text in "([\\[\\]{}=\"'#,a-c1 .\\n]|é|\"\"\"){0,40}") {
            let (_, errors) = DeTable::parse_recoverable(&text);
            let found = read(&text);
            prop_assert_eq!(found.is_empty(), errors.is_empty(), "{:?}", found);
        }
    }
}
