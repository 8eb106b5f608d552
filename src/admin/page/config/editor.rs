//! The text of the editor: its lines with their marks, the part that one page shows, and what comes back from a browser.

use memchr::{memchr_iter, memchr2_iter};
use serde_json::Value;

use crate::admin::page::value::length_on_page;

/// The lines of a text that one page shows, and their bytes there: in the editor, and once more behind it. A longer text is
/// edited in parts.
const LINES_MAX: usize = 400;
const BYTES_MAX: usize = 12 << 10;
/// The bytes that are searched at once for the ends of lines.
const CHUNK: usize = 16 << 10;

/// A part of a text: whole lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextPart {
    /// The number of its first line, from 1.
    pub(super) first: usize,
    /// Its lines.
    pub(super) count: usize,
    /// Its text, without the end of its last line.
    pub(super) text: String,
    /// The lines of the whole text.
    pub(super) all: usize,
}

/// A line behind the editor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EditorLine {
    pub(super) before: String,
    pub(super) marked: String,
    pub(super) after: String,
    pub(super) is_hit: bool,
}

/// A place of a problem, as the API has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) width: usize,
}

impl Mark {
    pub(super) fn of(place: &Value) -> Option<Self> {
        let number = |name: &str| place[name].as_u64().and_then(|n| usize::try_from(n).ok());
        Some(Self { line: number("line")?, column: number("column")?, width: number("width").unwrap_or(1) })
    }
}

/// The place where a line begins, counted from 0. Whole chunks are counted at once: ten thousand sites have a hundred thousand
/// lines.
fn begin_of(text: &str, line: usize) -> usize {
    let (mut left, mut at) = (line, 0);
    for chunk in text.as_bytes().chunks(CHUNK) {
        let ends = memchr_iter(b'\n', chunk).count();
        if ends >= left {
            let end = left.checked_sub(1).and_then(|before| memchr_iter(b'\n', chunk).nth(before));
            return at + end.map_or(0, |end| end + 1);
        }
        left -= ends;
        at += chunk.len();
    }
    text.len()
}

/// The first lines of a text, as many as a page has room for: one at least.
fn fitting(text: &str) -> (usize, &str) {
    let (mut count, mut end, mut bytes) = (0, 0, 0);
    for line in text.split('\n').take(LINES_MAX) {
        bytes += length_on_page(line) + 1;
        if count > 0 && bytes > BYTES_MAX {
            break;
        }
        end += line.len() + usize::from(count > 0);
        count += 1;
    }
    (count, text.get(..end).unwrap_or_default())
}

/// The part of a text around a line.
pub(super) fn part(text: &str, around: usize) -> TextPart {
    let all = memchr_iter(b'\n', text.as_bytes()).count() + 1;
    if all <= LINES_MAX && text.len() <= BYTES_MAX && length_on_page(text) <= BYTES_MAX {
        return TextPart { first: 1, count: all, text: text.to_owned(), all };
    }
    let from = |line: usize| fitting(text.get(begin_of(text, line)..).unwrap_or_default());
    // From a little above the line, as far as a page goes.
    let at = around.clamp(1, all) - 1;
    let mut first = at.saturating_sub(LINES_MAX / 8).min(all.saturating_sub(LINES_MAX));
    let (mut count, mut shown) = from(first);
    if first + count <= at {
        first = at;
        (count, shown) = from(first);
    }
    // Its last line has no end, and a browser would show half of one as a line more.
    TextPart { first: first + 1, count, text: shown.strip_suffix('\r').unwrap_or(shown).to_owned(), all }
}

/// The lines of a file that were edited, and the number of lines that they have become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EditedLines {
    /// The first one, from 1.
    first: usize,
    /// Their number in the file.
    count: usize,
    /// Their number in the edited text.
    edited: usize,
    /// The lines of the file.
    all: usize,
}

impl EditedLines {
    /// The lines of a file, and of a text that differs from it only there.
    pub(super) fn of(file: &str, text: &str, first: usize, count: usize) -> Self {
        let (all, now) = (file.split('\n').count(), text.split('\n').count());
        Self { first, count, edited: (now + count).saturating_sub(all), all }
    }

    /// All lines: a text that was shown whole stays whole, however long it has become. Nothing of it may be lost.
    pub(super) fn whole(text: &str) -> Self {
        let all = text.split('\n').count();
        Self { first: 1, count: all, edited: all, all }
    }

    /// `true` if no line of the file is outside.
    pub(super) fn is_whole(self) -> bool {
        self.first == 1 && self.count >= self.all
    }

    /// The part of the edited text, as a later form replaces it in the file.
    pub(super) fn part(self, text: &str) -> TextPart {
        let Self { first, count, edited, all } = self;
        let lines: Vec<&str> = text.split('\n').skip(first.saturating_sub(1)).take(edited).collect();
        let mut text = lines.join("\n");
        text.truncate(text.strip_suffix('\r').unwrap_or(&text).len());
        TextPart { first, count, text, all }
    }
}

/// A text with another part.
pub(super) fn with_part(text: &str, first: usize, count: usize, part: &str) -> Option<String> {
    let lines: Vec<&str> = text.split('\n').collect();
    let start = first.checked_sub(1)?;
    let (head, rest) = lines.split_at_checked(start)?;
    let (replaced, tail) = rest.split_at_checked(count)?;
    // The last line of a part comes back without its end.
    let end = if replaced.last().is_some_and(|line| line.ends_with('\r')) { "\r" } else { "" };
    let part = format!("{part}{end}");
    let all: Vec<&str> = head.iter().copied().chain([part.as_str()]).chain(tail.iter().copied()).collect();
    Some(all.join("\n"))
}

/// Returns a text that a browser has sent, with the line ends of the file: browsers end each line with CR LF.
pub(super) fn received(sent: &str, before: &str) -> String {
    let plain = sent.replace("\r\n", "\n");
    if plain == before.replace("\r\n", "\n") {
        return before.to_owned();
    }
    let ends = before.matches('\n').count();
    if ends > 0 && before.matches("\r\n").count() * 2 > ends { plain.replace('\n', "\r\n") } else { plain }
}

/// The lines of a part with the marks of problems.
pub(super) fn lines(part: &TextPart, marks: &[Mark]) -> Vec<EditorLine> {
    let line = |(at, text): (usize, &str)| {
        let text = text.trim_end_matches('\r');
        let Some(mark) = marks.iter().find(|mark| mark.line == part.first + at) else {
            return EditorLine { before: text.to_owned(), marked: String::new(), after: String::new(), is_hit: false };
        };
        let mut characters = text.chars();
        let before = characters.by_ref().take(mark.column.saturating_sub(1)).collect();
        let marked = characters.by_ref().take(mark.width).collect();
        EditorLine { before, marked, after: characters.collect(), is_hit: true }
    };
    part.text.split('\n').enumerate().map(line).collect()
}

/// A text with another string at a place: the button of a hint.
pub(super) fn fixed(text: &str, mark: Mark, replacement: &str) -> Option<String> {
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let line = lines.get_mut(mark.line.checked_sub(1)?)?;
    let characters: Vec<char> = line.chars().collect();
    let start = mark.column.checked_sub(1)?;
    let end = start.checked_add(mark.width)?;
    let (head, tail) = (characters.get(..start)?, characters.get(end..)?);
    *line = head.iter().collect::<String>() + replacement + &tail.iter().collect::<String>();
    Some(lines.join("\n"))
}

/// `19:8:10:"enforce"`: a fix, as the value of a button.
pub(super) fn fix_value(mark: Mark, replacement: &str) -> String {
    format!("{}:{}:{}:{replacement}", mark.line, mark.column, mark.width)
}

/// Reads the value of such a button.
pub(super) fn of_fix_value(value: &str) -> Option<(Mark, &str)> {
    let mut parts = value.splitn(4, ':');
    let mut number = || parts.next()?.parse().ok();
    let mark = Mark { line: number()?, column: number()?, width: number()? };
    Some((mark, parts.next()?))
}

/// The number of the first line that has a word, in any case of letters.
pub(super) fn find(text: &str, word: &str) -> Option<usize> {
    let word = word.to_lowercase();
    if word.is_empty() {
        return None;
    }
    if !word.is_ascii() {
        return text.lines().position(|line| line.to_lowercase().contains(&word)).map(|at| at + 1);
    }
    // A hundred thousand lines: no copy of each in lower case, and no look at each byte.
    let (bytes, word) = (text.as_bytes(), word.as_bytes());
    let first = *word.first()?;
    let is_there = |at: &usize| {
        let part = bytes.get(*at..).and_then(|rest| rest.get(..word.len()));
        part.is_some_and(|part| part.eq_ignore_ascii_case(word))
    };
    let at = memchr2_iter(first, first.to_ascii_uppercase(), bytes).find(is_there)?;
    Some(memchr_iter(b'\n', bytes.get(..at)?).count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_long_text() {
        let text: String = (1..=1000).map(|n| format!("line {n}\n")).collect();
        let all = part("a\nb\n", 1);
        assert_eq!((all.first, all.count, all.text.as_str(), all.all), (1, 3, "a\nb\n", 3));
        for around in [1, 2, 500, 1000, 1001, 5000] {
            let part = part(&text, around);
            let at = around.min(1001);
            assert!(part.first <= at && at < part.first + part.count, "{around}: {} {}", part.first, part.count);
            assert!(part.count <= LINES_MAX && part.text.len() <= BYTES_MAX);
            assert_eq!(with_part(&text, part.first, part.count, &part.text).unwrap(), text, "{around}");
        }
        let long = "x".repeat(BYTES_MAX * 2);
        assert_eq!(part(&long, 1).count, 1);
        let quoted = "\"\"\"\"\"\"\"\"\n".repeat(350);
        let shown = part(&quoted, 1);
        assert!(shown.count < 350 && length_on_page(&shown.text) <= BYTES_MAX, "{}", shown.count);
        assert_eq!(with_part("a\nb\nc", 2, 1, "x\ny").unwrap(), "a\nx\ny\nc");
        // To a browser, CR alone ends a line, too. It sends CR LF.
        let file = text.replace('\n', "\r\n");
        let shown = part(&file, 500);
        let sent = shown.text.replace("\r\n", "\n").replace(['\n', '\r'], "\r\n");
        assert_eq!(with_part(&file, shown.first, shown.count, &received(&sent, &file)).unwrap(), file);
        for (first, count) in [(0, 1), (4, 1), (1, 9), (usize::MAX, 1)] {
            assert_eq!(with_part("a\nb", first, count, "x"), None, "{first} {count}");
        }
    }

    #[test]
    fn lines_begin_after_ends() {
        let text = "é\n".repeat(CHUNK) + "end";
        for line in [0, 1, 2, CHUNK / 3, CHUNK / 3 + 1, CHUNK - 1, CHUNK] {
            assert_eq!(begin_of(&text, line), line * 3, "{line}");
        }
        assert_eq!((begin_of(&text, CHUNK + 1), begin_of("", 0), begin_of("", 1)), (text.len(), 0, 0));
    }

    #[test]
    fn an_edited_part_replaces_its_lines_only() {
        let file: String = (1..=1000).map(|n| format!("line {n}\n")).collect();
        let shown = part(&file, 500);
        for (from, to) in [("line 500", "line 500\nnew\nnew 2"), ("line 500\nline 501\n", ""), ("line 500", "x")] {
            // The text is checked first, and comes back from the browser as it was shown.
            let text = with_part(&file, shown.first, shown.count, &shown.text.replacen(from, to, 1)).unwrap();
            let again = EditedLines::of(&file, &text, shown.first, shown.count).part(&text);
            assert_eq!(again.text, shown.text.replacen(from, to, 1));
            assert_eq!(with_part(&file, again.first, again.count, &again.text).unwrap(), text, "{to}");
        }
    }

    #[test]
    fn a_whole_text_stays_whole() {
        let text = "# a long comment of the operator\n".repeat(LINES_MAX * 2);
        let window = EditedLines::whole(&text);
        let part = window.part(&text);
        assert!(window.is_whole() && part.text == text);
        assert_eq!((part.first, part.count), (1, part.all), "so that its form is that of a whole text");
        assert!(!EditedLines::of(&text, &text, 2, 10).is_whole());
    }

    #[test]
    fn found_lines() {
        let text = "a = 1\nhosts = [\"Shop.example\"]\n# Über\nhosts = [\"shop.example\"]";
        let check = |word: &str, line: Option<usize>| assert_eq!(find(text, word), line, "{word}");
        check("shop.EXAMPLE", Some(2));
        check("a", Some(1));
        check("über", Some(3));
        check("none", None);
        check("", None);
        check(&"x".repeat(100), None);
    }

    #[test]
    fn ends_of_lines_stay() {
        assert_eq!(received("a\r\nb", "a\nb"), "a\nb");
        assert_eq!(received("a\r\nc", "a\nb"), "a\nc");
        assert_eq!(received("a\r\nc\r\n", "a\r\nb\r\n"), "a\r\nc\r\n");
        assert_eq!(received("a\r\nb", "a\r\nb"), "a\r\nb");
    }

    #[test]
    fn fixes() {
        let mark = Mark { line: 2, column: 8, width: 10 };
        assert_eq!(fixed("x\nmode = \"enforced\" # ü", mark, "\"enforce\"").unwrap(), "x\nmode = \"enforce\" # ü");
        assert_eq!(of_fix_value(&fix_value(mark, "a:b")), Some((mark, "a:b")));
        for bad in ["", "1:2", "1:2:3", "a:1:1:x"] {
            assert_eq!(of_fix_value(bad), None, "{bad}");
        }
        for mark in [Mark { line: 9, ..mark }, Mark { column: 90, ..mark }, Mark { width: usize::MAX, ..mark }] {
            assert_eq!(fixed("x\ny", mark, ""), None);
        }
    }

    #[test]
    fn marks() {
        let text = part("a = 1\nü = \"x\" # c", 1);
        let found = lines(&text, &[Mark { line: 2, column: 5, width: 3 }]);
        assert_eq!((found[0].before.as_str(), found[0].is_hit), ("a = 1", false));
        assert_eq!(
            (found[1].before.as_str(), found[1].marked.as_str(), found[1].after.as_str()),
            ("ü = ", "\"x\"", " # c")
        );
    }
}
