//! A difference in the form of diff -u, as lines of a page.

/// The lines that one page shows.
const LINES_MAX: usize = 300;

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
    let mut all: Vec<DiffLine> = unified.lines().skip(2).map(line).collect();
    let count = |kind| all.iter().filter(|line| line.kind == kind).count();
    let lines = |n: usize| crate::reason::counted(n, "line");
    let summary = match (count(DiffKind::Added), count(DiffKind::Removed)) {
        (0, 0) => "No line differs".to_owned(),
        (added, 0) => format!("{} added", lines(added)),
        (0, removed) => format!("{} removed", lines(removed)),
        (added, removed) => format!("{} added, {removed} removed", lines(added)),
    };
    let more = all.len().saturating_sub(LINES_MAX);
    all.truncate(LINES_MAX);
    LineDiff { lines: all, summary, more }
}

fn line(text: &str) -> DiffLine {
    let kind = match text.chars().next() {
        Some('+') => DiffKind::Added,
        Some('-') => DiffKind::Removed,
        Some('@') => DiffKind::Place,
        _ => DiffKind::Same,
    };
    DiffLine { kind, text: text.to_owned() }
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
    }
}
