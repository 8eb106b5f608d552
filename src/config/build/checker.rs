//! The common inputs of every check: the paths, the clock, and the place for problems.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::files_ahead::FilesAhead;
use crate::config::problem::{At, Problem, Problems};
use crate::config::stamp::{Stamp, Stamps};
use crate::os::plain_file::tidy;
use crate::reason::Reason;
use crate::reason::near::nearest;

/// The common inputs of every check: the folder of relative paths, the problems, and the time.
pub(super) struct Checker<'a> {
    pub(super) folder: &'a Path,
    pub(super) problems: &'a mut Problems,
    pub(super) now: Timestamp,
    /// The clock's time, where it is doubtful: either the clock is wrong, or nothing was written down for a year.
    pub(super) doubted: Option<Timestamp>,
    /// Contents that replace those of files.
    pub(super) instead: &'a HashMap<PathBuf, Zeroizing<Vec<u8>>>,
    /// Names of files in messages, where they differ from the path.
    pub(super) shown_as: &'a HashMap<PathBuf, PathBuf>,
    /// The chains among `instead` have no keys here.
    pub(super) chains_alone: bool,
    pub(super) looked: &'a Stamps,
    pub(super) ahead: &'a FilesAhead,
    /// The files that were read, with their stamps.
    pub(super) stamps: Vec<(PathBuf, Stamp)>,
}

impl Checker<'_> {
    pub(super) fn error(&mut self, span: &Range<usize>, reason: impl Into<Reason>) {
        self.problems.error(span, reason);
    }

    pub(super) fn error_with_hint(&mut self, span: &Range<usize>, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.error(span, Reason::new(what).hint(hint));
    }

    pub(super) fn warn(&mut self, span: &Range<usize>, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.warn(span, Reason::new(what).hint(hint));
    }

    pub(super) fn report(&mut self, problem: Problem) {
        self.problems.insert(problem);
    }

    /// The name of a file in messages.
    pub(super) fn shown(&self, path: &Path) -> String {
        self.shown_path(path).display().to_string()
    }

    /// The same, for hints that are commands.
    pub(super) fn shown_path(&self, path: &Path) -> PathBuf {
        tidy(self.shown_as.get(path).map_or(path, PathBuf::as_path))
    }

    /// The path that the configuration means: relative ones begin in its folder.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        self.folder.join(text)
    }

    /// One of several words; `default` if the value is missing or unknown.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &str,
        value: Option<&At<String>>,
        words: &[(&str, T)],
        default: T,
    ) -> T {
        let Some(value) = value else { return default };
        if let Some((_, chosen)) = words.iter().find(|(word, _)| *word == value.value) {
            return *chosen;
        }
        let last = key.rsplit('.').next().unwrap_or(key);
        let noun = if matches!(last, "mode" | "profile" | "format") { last } else { "value" };
        let reason = unknown(key, noun, &value.value, words.iter().map(|(word, _)| *word));
        self.error(&value.span, reason);
        default
    }
}

/// Words that other programs have for a value: the key, the word, and the value.
const OTHER_WORDS: [(&str, &str, &str); 10] = [
    ("listen.trust", "x-forwarded-for", "x-forwarded"),
    ("listen.trust", "x-forwarded-proto", "x-forwarded"),
    ("listen.trust", "rfc7239", "forwarded"),
    ("listen.trust", "proxy-protocol", "proxy"),
    ("tls.versions", "tlsv1.2", "1.2"),
    ("tls.versions", "tlsv1.3", "1.3"),
    ("tls.profile", "old", "intermediate"),
    ("tls.unknown_name", "reject", "refuse"),
    ("tls.unknown_name", "deny", "refuse"),
    ("site.hpkp.mode", "report", "report-only"),
];

/// An unknown word: which ones are known, and which one may have been meant.
pub(super) fn unknown<'k>(key: &str, noun: &str, word: &str, known: impl Iterator<Item = &'k str> + Clone) -> Reason {
    let expected: Vec<&str> = known.clone().collect();
    let mut reason = Reason::new(format!("{key}: unknown {noun} {word:?}"));
    reason.notes.push(format!("expected one of: {}", expected.join(", ")));
    match nearest(word, known).or_else(|| of_other_program(key, word)) {
        Some(near) => reason.meant(near),
        None => reason,
    }
}

fn of_other_program(key: &str, word: &str) -> Option<&'static str> {
    let words = OTHER_WORDS.iter().filter(|(of, ..)| *of == key);
    let near = nearest(word, words.clone().map(|(_, other, _)| *other))?;
    words.clone().find(|(_, other, _)| *other == near).map(|(.., value)| *value)
}

/// The same problem, with the site that has it.
pub(super) fn of_site(label: &str, problem: Problem) -> Problem {
    Problem { site: Some(label.to_owned()), ..problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_other_programs() {
        let check = |key: &str, word: &str, known: &[&str], want: Option<&str>| {
            let hints = unknown(key, "value", word, known.iter().copied()).hints;
            let want: Vec<String> = want.map(|want| format!("did you mean {want:?}?")).into_iter().collect();
            assert_eq!(hints, want, "{key} {word}");
        };
        let fields = ["x-forwarded", "forwarded", "proxy"];
        check("listen.trust", "X-Forwarded-For", &fields, Some("x-forwarded"));
        check("listen.trust", "x-forwaded", &fields, Some("x-forwarded"));
        check("listen.trust", "nobody", &fields, None);
        check("tls.versions", "TLSv1.2", &["1.2", "1.3"], Some("1.2"));
        check("tls.versions", "TLS 1.3", &["1.2", "1.3"], Some("1.3"));
        check("tls.unknown_name", "rejekt", &["refuse", "default"], Some("refuse"));
        // Each key has words of its own.
        check("tls.profile", "reject", &["modern", "intermediate"], None);
    }
}
