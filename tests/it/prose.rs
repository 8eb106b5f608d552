//! The texts are easy to read: Markdown is wrapped, and words that our texts avoid stay away.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest line of prose, in characters.
const COLUMNS: usize = 100;
/// Slow or unclear words, with the better ones.
const AVOIDED: [(&str, &str); 9] = [
    ("stands for", "means, matches, replaces"),
    ("stand for", "mean, match, replace"),
    ("in place of", "instead of"),
    ("of before", "previous"),
    ("goes on", "continues"),
    ("go on ", "continue"),
    ("is there twice", "duplicate"),
    ("octets ", "bytes"),
    ("is told", "learns, gets a message"),
];
/// Documents, and folders of them.
const DOCUMENTS: [&str; 8] = [
    "README.md",
    "ARCHITECTURE.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "RELEASING.md",
    "CHANGELOG.md",
    "docs",
    "vendor/README.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files at a path of the repository, sorted.
fn files(path: &Path) -> Vec<PathBuf> {
    if !root().join(path).is_dir() {
        return vec![path.to_owned()];
    }
    let names = fs::read_dir(root().join(path)).unwrap().map(|entry| entry.unwrap().file_name());
    let mut found: Vec<_> = names.flat_map(|name| files(&path.join(name))).collect();
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn documents() -> Vec<PathBuf> {
    let all = DOCUMENTS.iter().flat_map(|path| files(Path::new(path)));
    let found: Vec<_> = all.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    assert!(found.len() > 20, "only {} documents were found", found.len());
    found
}

#[test]
fn prose_is_wrapped() {
    let mut wrong = String::new();
    for path in documents() {
        let mut is_code = false;
        for (number, line) in read(&path).lines().enumerate() {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            // Tables, headings, links at the end, and code have lines of their own.
            let is_prose =
                !is_code && !is_fence && !line.starts_with(['|', '#', '<', '[']) && !line.starts_with("    ");
            if is_prose && line.chars().count() > COLUMNS {
                writeln!(wrong, "{}:{}: {} columns", path.display(), number + 1, line.chars().count()).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn words_to_avoid_stay_away() {
    // Former versions are described as they were.
    let mut all = documents();
    all.retain(|path| !path.ends_with("CHANGELOG.md"));
    all.extend(["src", "templates"].iter().flat_map(|folder| files(Path::new(folder))));
    let mut wrong = String::new();
    for path in &all {
        let is_text = path.extension().is_some_and(|ending| ["md", "rs", "html"].iter().any(|text| ending == *text));
        let text = if is_text { read(path) } else { String::new() };
        for (number, line) in text.lines().enumerate() {
            for (word, better) in AVOIDED.iter().filter(|(word, _)| line.contains(word)) {
                writeln!(wrong, "{}:{}: {word:?}; better: {better}", path.display(), number + 1).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
