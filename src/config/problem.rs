//! The problems of one configuration file, with the place of each.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::reason::{Place, Reason, SharedFault, shell_word};
pub use crate::reason::{Problem, Severity};

/// Sites that one warning names; it counts the others.
const NAMED_MAX: usize = 3;
/// Files that one command names.
const FILES_MAX: usize = 20;

/// All problems of one file.
#[derive(Debug, Clone)]
pub struct Problems {
    path: PathBuf,
    text: Arc<str>,
    /// The beginning of each line, in bytes.
    lines: Arc<[usize]>,
    list: Vec<Problem>,
    /// Places in the list, by where the problem is.
    by_start: HashMap<usize, Vec<usize>>,
}

/// A value, and its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its place, in bytes.
    pub span: Range<usize>,
}

impl<T> At<T> {
    /// Replaces the value by a function of it.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At { value: f(self.value), span: self.span }
    }

    /// Another value at the same place.
    pub fn with<U>(&self, value: U) -> At<U> {
        At { value, span: self.span.clone() }
    }
}

impl Problems {
    /// No problems yet.
    #[must_use]
    pub fn new(path: &Path, text: String) -> Self {
        let begins = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(begins).collect();
        Self { path: path.to_owned(), text: text.into(), lines, list: Vec::new(), by_start: HashMap::new() }
    }

    /// No problems yet, for the same file; without its text.
    pub(super) fn scratch(&self) -> Self {
        Self::new(&self.path, String::new())
    }

    /// All problems.
    pub(super) fn into_list(self) -> Vec<Problem> {
        self.list
    }

    /// Adds problems that were found elsewhere.
    pub(super) fn extend(&mut self, list: impl IntoIterator<Item = Problem>) {
        for problem in list {
            self.insert(problem);
        }
    }

    /// Turns all errors so far into warnings.
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

    /// The same text, to keep.
    pub(super) fn shared_text(&self) -> Arc<str> {
        self.text.clone()
    }

    /// Adds an error.
    pub fn error(&mut self, span: &Range<usize>, reason: impl Into<Reason>) {
        self.insert(Problem::error(span, reason));
    }

    /// Adds a warning.
    pub fn warn(&mut self, span: &Range<usize>, reason: impl Into<Reason>) {
        self.insert(Problem::warning(span, reason));
    }

    /// Adds a problem, unless the same one is there already.
    pub fn insert(&mut self, problem: Problem) {
        let here = self.by_start.entry(problem.span.start).or_default();
        if !here.iter().any(|at| self.list.get(*at) == Some(&problem)) {
            here.push(self.list.len());
            self.list.push(problem);
        }
    }

    /// `true` if there is an error.
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

    /// `true` if there are no problems.
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

    /// A problem with its place in the file, as it is printed, logged and sent.
    #[must_use]
    pub fn placed(&self, problem: &Problem) -> Problem {
        let (line, column) = self.line_and_column(problem.span.start);
        let begin = self.lines.get(line - 1).copied().unwrap_or_default();
        let text = self.text.get(begin..).and_then(|rest| rest.lines().next()).unwrap_or_default().to_owned();
        let marked = self.text.get(problem.span.clone()).map_or(1, |t| t.lines().next().unwrap_or("").chars().count());
        let place = Place { file: self.path.display().to_string(), line, column, text, width: marked };
        Problem { reason: Reason { place: Some(Box::new(place)), ..problem.reason.clone() }, ..problem.clone() }
    }

    /// All problems with their places, in the order of the file. Sites with the same warning share one.
    #[must_use]
    pub fn shown(&self) -> Vec<Problem> {
        let mut shown: Vec<(Problem, Vec<&Problem>)> = Vec::new();
        let mut known = HashMap::new();
        for problem in self.sorted() {
            if problem.severity == Severity::Warning && (problem.site.is_some() || problem.shared.is_some()) {
                let same = match &problem.shared {
                    Some(shared) => (shared.name, &None),
                    None => (problem.reason.what.as_str(), &problem.path),
                };
                if let Some((first, more)) = known.get(&same).and_then(|at: &usize| shown.get_mut(*at))
                    && are_alike(first, problem)
                {
                    more.push(problem);
                    continue;
                }
                known.insert(same, shown.len());
            }
            shown.push((self.placed(problem), Vec::new()));
        }
        let noted = |(mut problem, more): (Problem, Vec<&Problem>)| {
            problem.reason.notes.extend(self.others(&more));
            name_all_files(&mut problem, &more);
            problem
        };
        shown.into_iter().map(noted).collect()
    }

    /// `the same for shop.example.com (line 13), blog.example.com (line 25), and 7 more`
    fn others(&self, more: &[&Problem]) -> Option<String> {
        let named = more.iter().take(NAMED_MAX).map(|problem| {
            // It has no place in the file.
            if let (None, Some(shared)) = (&problem.site, &problem.shared) {
                return shared.about.clone();
            }
            let line = self.line_and_column(problem.span.start).0;
            let site = problem.site.as_deref().unwrap_or_default();
            let own = problem.shared.as_ref().map(|shared| shared.about.as_str()).filter(|about| *about != site);
            let of = own.map(|about| format!("{about} of ")).unwrap_or_default();
            match site {
                "" => format!("{of}the site in line {line}"),
                site => format!("{of}{site} (line {line})"),
            }
        });
        let mut named: Vec<String> = named.collect();
        if let left @ 1.. = more.len().saturating_sub(NAMED_MAX) {
            named.push(format!("and {left} more"));
        }
        (!named.is_empty()).then(|| format!("the same for {}", named.join(", ")))
    }
}

/// `true` for the same fault of two sites, which has the same remedy.
fn are_alike(first: &Problem, other: &Problem) -> bool {
    match (&first.shared, &other.shared) {
        (Some(first), Some(other)) => first.name == other.name,
        (None, None) => first.reason.hints == other.reason.hints && first.reason.notes == other.reason.notes,
        _ => false,
    }
}

/// Lets the command of a warning mend the files of other sites, too.
fn name_all_files(problem: &mut Problem, more: &[&Problem]) {
    let Some(SharedFault { command: Some(command), about, .. }) = &problem.shared else { return };
    let others = more.iter().filter_map(|other| other.shared.as_ref()).map(|shared| shared.about.as_str());
    let mut files = Vec::new();
    for file in std::iter::once(about.as_str()).chain(others).map(shell_word) {
        if files.len() < FILES_MAX && !files.contains(&file) {
            files.push(file);
        }
    }
    let own = format!("{command} {}", shell_word(about));
    let all = format!("{command} {}", files.join(" "));
    let Reason { hints, commands, .. } = &mut problem.reason;
    for hint in hints.iter_mut().chain(commands).filter(|hint| **hint == own) {
        hint.clone_from(&all);
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.sorted() {
            writeln!(f, "{}", self.placed(problem).render(false))?;
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
        problems.error(&(12..15), Reason::new("no such thing").hint("try another"));
        problems.warn(&(0..1), "hm");
        let want = "c.toml:1:1: warning: hm\n    1 | a = 1\n      | ^\n\
                    c.toml:2:6: error: no such thing\n    2 | \tü = \"x\"\n      | \t    ^^^\n  hint: try another\n";
        assert_eq!(problems.to_string(), want);
    }

    #[test]
    fn sites_share_a_warning() {
        let mut problems = Problems::new(Path::new("c.toml"), "a\nb\nc\nd\ne\nf\n".into());
        for (at, site) in ["a.example", "b.example", "", "d.example", "e.example", "f.example"].iter().enumerate() {
            let warning = Problem::warning(&(2 * at..2 * at + 1), "odd");
            problems.insert(Problem { site: Some((*site).to_owned()), ..warning });
        }
        problems.error(&(0..1), "odd");
        let shown: Vec<String> = problems.shown().iter().map(|problem| problem.reason.line()).collect();
        let warning =
            "c.toml:1:1: odd; the same for b.example (line 2), the site in line 3, d.example (line 4), and 2 more";
        assert_eq!(shown, [warning, "c.toml:1:1: odd"]);
    }

    #[test]
    fn sites_share_a_warning_about_files_of_their_own() {
        let mut problems = Problems::new(Path::new("c.toml"), "a\nb\nc\nd\ne\nf\n".into());
        for (at, site) in ["a.example", "b.example", "c.example", "d.example", "e.example"].iter().enumerate() {
            let file = if at == 1 { "my key".to_owned() } else { format!("{at}.key") };
            let warning = Problem::warning(&(2 * at..2 * at + 1), format!("{file}: open"));
            let warning = warning.shared_remedy("open key", "chmod o=", &file).about(Path::new(&file));
            problems.insert(Problem { site: Some((*site).to_owned()), ..warning });
        }
        let other = Problem::warning(&(10..11), "z.example is odd").shared("odd host", "z.example");
        problems.insert(Problem { site: Some("z.example".to_owned()), ..other });
        let shown: Vec<String> = problems.shown().iter().map(|problem| problem.reason.full_line()).collect();
        let open = "c.toml:1:1: 0.key: open; the same for my key of b.example (line 2), 2.key of c.example (line 3), \
                    3.key of d.example (line 4), and 1 more (hint: chmod o= 0.key 'my key' 2.key 3.key 4.key)";
        assert_eq!(shown, [open, "c.toml:6:1: z.example is odd"]);
    }

    #[test]
    fn warnings_without_a_place_share_one() {
        let mut problems = Problems::new(Path::new("c.toml"), "a\n".into());
        for name in ["a.example", "b.example", "c.example", "d.example", "e.example"] {
            problems.insert(Problem::warning(&(0..0), format!("{name} is odd")).shared("odd name", name));
        }
        let shown: Vec<String> = problems.shown().iter().map(|problem| problem.reason.what.clone()).collect();
        assert_eq!(shown, ["a.example is odd"]);
        let note = "the same for b.example, c.example, d.example, and 1 more";
        assert_eq!(problems.shown()[0].reason.notes, [note]);
    }

    #[test]
    fn places_outside_of_the_text_are_its_end() {
        let problems = Problems::new(Path::new("c.toml"), "ü".into());
        assert_eq!(problems.line_and_column(1), (1, 1));
        assert_eq!(problems.line_and_column(100), (1, 2));
    }
}
