//! A difference in the form of diff -u, as lines of a page.

use crate::admin::page::value::length_on_page;

/// The lines that one page shows, and their bytes there.
const LINES_MAX: usize = 300;
const BYTES_MAX: usize = 5 << 10;
/// The characters of a line that are shown.
const LINE_MAX: usize = 240;
/// The bytes of a line's tags.
const TAGS: usize = 12;

/// The kind of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiffKind {
    Same,
    Added,
    Removed,
    Place,
}

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DiffLine {
    pub(super) kind: DiffKind,
    pub(super) text: String,
}

/// A difference.
#[derive(Debug, Default)]
pub(super) struct LineDiff {
    pub(super) lines: Vec<DiffLine>,
    /// `2 lines added, 1 removed`
    pub(super) summary: String,
    /// The lines that are not shown.
    pub(super) more: usize,
}

/// Reads a difference without its two lines of names.
pub(super) fn of(unified: &str) -> LineDiff {
    let all: Vec<&str> = unified.lines().skip(2).collect();
    let count = |kind| all.iter().filter(|line| kind_of(line) == kind).count();
    let in_words = |n: usize| crate::reason::counted(n, "line");
    let summary = match (count(DiffKind::Added), count(DiffKind::Removed)) {
        (0, 0) => "No line differs".to_owned(),
        (added, 0) => format!("{} added", in_words(added)),
        (0, removed) => format!("{} removed", in_words(removed)),
        (added, removed) => format!("{} added, {removed} removed", in_words(added)),
    };
    let mut bytes = 0;
    let fits = |line: &DiffLine| {
        bytes += length_on_page(&line.text) + TAGS;
        bytes <= BYTES_MAX
    };
    let lines: Vec<DiffLine> = all.iter().take(LINES_MAX).map(|text| line(text)).take_while(fits).collect();
    let more = all.len().saturating_sub(lines.len());
    LineDiff { lines, summary, more }
}

fn kind_of(text: &str) -> DiffKind {
    match text.chars().next() {
        Some('+') => DiffKind::Added,
        Some('-') => DiffKind::Removed,
        Some('@') => DiffKind::Place,
        _ => DiffKind::Same,
    }
}

fn line(text: &str) -> DiffLine {
    let shown = match text.char_indices().nth(LINE_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    };
    DiffLine { kind: kind_of(text), text: shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let diff = of("--- a\n+++ b\n@@ -1,2 +1,3 @@\n a\n-b\n+c\n+d\n");
        assert_eq!(diff.summary, "2 lines added, 1 removed");
        assert_eq!(diff.lines.len(), 5);
        assert_eq!(diff.lines[2], DiffLine { kind: DiffKind::Removed, text: "-b".into() });
        assert_eq!(of("").summary, "No line differs");
        let long = of(&format!("--- a\n+++ b\n{}", "+x\n".repeat(LINES_MAX + 5)));
        assert_eq!((long.lines.len(), long.more), (LINES_MAX, 5));
        let wide = of(&format!("--- a\n+++ b\n{}", format!("+{}\n", "<".repeat(10_000)).repeat(20)));
        let shown: usize = wide.lines.iter().map(|line| length_on_page(&line.text)).sum();
        assert!(!wide.lines.is_empty() && shown <= BYTES_MAX, "{shown}");
        assert_eq!(wide.lines.len() + wide.more, 20);
    }
}
