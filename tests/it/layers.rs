//! Imports run downward, and files stay small: rules about the source itself.

use std::fs;
use std::path::{Path, PathBuf};

/// From top to bottom, as lib.rs lists them; a module imports from those below it only.
const LAYERS: [&str; 23] = [
    "cli",
    "commands",
    "control",
    "config",
    "verify",
    "export",
    "ledger",
    "server",
    "limits",
    "upstream",
    "wire",
    "tls",
    "site",
    "lease",
    "policy",
    "keys",
    "message",
    "host",
    "telemetry",
    "clock",
    "handover",
    "os",
    "main",
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

fn all_sources() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files: Vec<_> = sources(&root)
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&root).unwrap().to_owned();
            let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            (inside, module, text)
        })
        .collect();
    assert!(files.len() > 40, "the sources were not found");
    files
}

/// A file without its tests.
fn program(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default()
}

#[test]
fn imports_run_downward() {
    let mut wrong = Vec::new();
    for (path, module, text) in all_sources() {
        if module == "lib" {
            continue;
        }
        let own = LAYERS.iter().position(|l| *l == module).unwrap_or_else(|| panic!("{module} is in no layer"));
        for (number, line) in program(&text).lines().enumerate() {
            for part in line.split("crate::").skip(1) {
                let name: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let other = LAYERS.iter().position(|l| *l == name);
                if other.is_some_and(|other| other < own) {
                    wrong.push(format!("src/{}:{}: {module} is below {name}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rules about pins, redirects and headers are values in, values out.
#[test]
fn policies_do_no_io() {
    let pure = ["policy", "keys/pin.rs", "host.rs", "export"];
    for part in pure {
        assert!(all_sources().iter().any(|(path, _, _)| path.starts_with(part)), "src/{part} does not exist");
    }
    for (path, module, text) in
        all_sources().iter().filter(|(path, _, _)| pure.iter().any(|part| path.starts_with(part)))
    {
        for forbidden in ["std::fs", "std::io", "tokio", "std::time::SystemTime", "Timestamp::now"] {
            assert!(!program(text).contains(forbidden), "src/{} ({module}) uses {forbidden}", path.display());
        }
    }
}

#[test]
fn files_are_small() {
    for (path, _, text) in all_sources() {
        let lines = program(&text).lines().count();
        assert!(lines <= 450, "src/{} has {lines} lines; split it by subject", path.display());
    }
}
