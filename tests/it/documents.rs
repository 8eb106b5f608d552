//! The documents name only what exists: paths, links, and the tests that `tests/run --fast` leaves out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::output;

/// The folders whose paths are checked wherever a document names them.
const FOLDERS: [&str; 8] = ["src/", "tests/", "benches/", "docs/", "fuzz/", "dist/", "vendor/", ".ci/"];
/// Made by `fuzz/run`, and in no commit.
const MADE: [&str; 2] = ["fuzz/corpus", "fuzz/artifacts"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Markdown file of ours, from the root of the repository.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap().flatten() {
            let (path, name) = (folder.join(entry.file_name()), entry.file_name());
            let foreign = ["target", ".git", "corpus", "seeds", "h2"].iter().any(|foreign| name == *foreign);
            if entry.path().is_dir() && !foreign {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 20, "only {} documents were found", found.len());
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The words of a text that begin like one of our paths. Placeholders (`fuzz/seeds/TARGET`) and patterns end at the
/// folder before them.
fn paths_in(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| c.is_whitespace() || "`\"'()[]|<>,;".contains(c)).filter_map(|word| {
        let word = word.trim_start_matches("./").split(['#', ':']).next().unwrap_or_default().trim_end_matches('.');
        FOLDERS.iter().any(|folder| word.starts_with(folder)).then(|| {
            let known = |part: &&str| {
                !part.contains(['*', '$', '{', '…']) && !part.chars().all(|c| c.is_ascii_uppercase() || c == '_')
            };
            word.split('/').take_while(known).collect::<Vec<_>>().join("/")
        })
    })
}

#[test]
fn paths_exist() {
    let mut dead = Vec::new();
    let mut known = 0;
    let more = ["justfile", "tests/run", ".github/workflows/ci.yml"].map(PathBuf::from);
    // What it says of older versions was true of them.
    for document in documents().into_iter().filter(|d| d != Path::new("CHANGELOG.md")).chain(more) {
        for path in paths_in(&read(&document)) {
            known += 1;
            if !MADE.iter().any(|made| path.starts_with(made)) && !root().join(&path).exists() {
                dead.push(format!("{}: {path} does not exist", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
    assert!(known > 100, "only {known} paths were found");
}

/// `book.rs` could be in any folder.
#[test]
fn the_architecture_writes_paths_in_full() {
    let text = read(Path::new("ARCHITECTURE.md"));
    let bare: Vec<&str> =
        text.split('`').skip(1).step_by(2).filter(|span| span.ends_with(".rs") && !span.contains('/')).collect();
    assert!(bare.is_empty(), "ARCHITECTURE.md: write the path from the root: {bare:?}");
}

/// A heading's name in links, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The lines of a document outside its fenced blocks.
fn prose(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let prose = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    });
    prose.collect()
}

#[test]
fn links_lead_somewhere() {
    let mut dead = Vec::new();
    let mut known = 0;
    for document in documents() {
        let text = read(&document);
        for line in prose(&text) {
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                if link.contains("://") || link.starts_with("mailto:") {
                    continue;
                }
                known += 1;
                let (file, heading) =
                    link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
                let target = match file {
                    "" => document.clone(),
                    file => document.parent().unwrap().join(file),
                };
                let exists = root().join(&target).exists()
                    && heading.is_none_or(|heading| {
                        let text = read(&target);
                        let headings = prose(&text);
                        headings.iter().any(|line| line.starts_with('#') && anchor(line.trim_matches('#')) == heading)
                    });
                if !exists {
                    dead.push(format!("{}: {link}", document.display()));
                }
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere:\n{}", dead.join("\n"));
    assert!(known > 50, "only {known} links were found");
}

/// A package has the text of each licence that a linked crate or C library may be used under, and names no crate that
/// only a feature which is off would use.
#[test]
fn each_licence_has_its_text() {
    let text = output(Command::new(root().join("dist/copyright")).env("CARGO_NET_OFFLINE", "true"));
    assert!(text.contains("License: Apache-2.0\n") && text.contains("Files: crates/rustls-"), "{text}");
    for library in ["AWS-LC (C and assembler)", "jemalloc (C)", "zstd (C)"] {
        assert!(text.contains(&format!("Comment: {library}\n")), "{library}: {text}");
    }
    assert!(!text.contains("Files: crates/ring-"), "{text}");
}

/// A test by its path: `loss::an_old_copy_is_refused` of this binary, or `lease::tests::lengths` of the library.
fn is_test(path: &str, listed: &str) -> bool {
    if listed.lines().any(|line| line.strip_suffix(": test") == Some(path)) {
        return true;
    }
    let Some((module, name)) = path.rsplit_once("::") else { return false };
    let module = module.trim_end_matches("::tests").replace("::", "/");
    let files = [".rs", "/mod.rs", "/tests.rs"].map(|end| root().join(format!("src/{module}{end}")));
    let is_in = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.contains(&format!("fn {name}(")) && text.contains("#[test]")
    };
    files.iter().any(is_in)
}

#[test]
fn the_tests_that_hold_the_promise_exist() {
    let document = read(Path::new("docs/development/tests.md"));
    let table =
        document.split("and the tests against them\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    assert_eq!(rows.len(), 22, "{rows:#?}");
    let listed = output(Command::new(std::env::current_exe().unwrap()).args(["--list", "--format", "terse"]));
    for row in rows {
        let named = row.rsplit_once(" | ").unwrap().1.trim_end_matches(" |");
        let tests: Vec<&str> = named.split(", ").map(|name| name.trim_matches('`')).collect();
        let gone: Vec<&&str> = tests.iter().filter(|test| !is_test(test, &listed)).collect();
        assert!(!tests.is_empty() && gone.is_empty(), "no such tests: {gone:?} in {row}");
    }
}

#[test]
fn the_map_has_every_test() {
    let document = read(Path::new("docs/development/tests.md"));
    let map = document.split("\n## Map\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let entries = |folder: &str| -> Vec<(String, bool)> {
        let entries = fs::read_dir(root().join(folder)).unwrap().flatten();
        entries.map(|e| (format!("{folder}/{}", e.file_name().display()), e.path().is_dir())).collect()
    };
    let folders = entries("tests/it").into_iter().filter(|(_, is_folder)| *is_folder);
    let wanted: Vec<String> = entries("tests").into_iter().chain(folders).map(|(path, _)| path).collect();
    let is_there = |path: &String| {
        let name = format!("`{path}");
        let mut places = map.match_indices(&name);
        places.any(|(at, found)| map[at + found.len()..].starts_with(['`', '/', ' ', '.']))
    };
    let missing: Vec<_> = wanted.iter().filter(|path| !is_there(path)).collect();
    assert!(wanted.len() > 30 && missing.is_empty(), "not in the map: {missing:?}");
}

/// On a machine with more packages, CI would not see a test that needs one of them.
#[test]
fn ci_tries_fast_with_the_packages_that_contributing_names() {
    let document = read(Path::new("CONTRIBUTING.md"));
    let line = document.lines().find_map(|line| line.strip_prefix("sudo apt-get install ")).expect("the set-up");
    let jobs = read(Path::new(".github/workflows/ci.yml"));
    let fast = jobs.split("\n  fast:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("the job");
    let installs = fast.lines().any(|step| step.trim().ends_with(&format!("--no-install-recommends {line}")));
    assert!(installs && fast.contains("container: debian:"), "{line}: {fast}");
}

#[test]
fn the_tests_that_fast_leaves_out_exist() {
    let script = read(Path::new("tests/run"));
    let list = script.split("left_out='").nth(1).and_then(|rest| rest.split('\'').next()).expect("the list is there");
    let listed: BTreeSet<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let tests = output(Command::new(std::env::current_exe().unwrap()).args(["--list", "--format", "terse"]));
    let gone: Vec<_> =
        listed.iter().filter(|left_out| !tests.lines().any(|test| test.starts_with(**left_out))).collect();
    assert!(gone.is_empty(), "tests/run --fast leaves out tests that there are not: {gone:?}");
    // `--skip` looks for the name anywhere in a test's.
    let is_listed = |test: &&str| listed.iter().any(|left_out| test.starts_with(left_out));
    let is_skipped = |test: &&str| listed.iter().any(|left_out| test.contains(left_out));
    let silent: Vec<_> = tests.lines().filter(is_skipped).filter(|test| !is_listed(test)).collect();
    assert!(silent.is_empty(), "tests/run --fast leaves these out, too, and does not say so: {silent:?}");
    assert!(listed.len() > 3, "{listed:?}");
}
