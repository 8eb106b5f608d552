//! The reader and docs/reference/config.md have the same keys.

use std::collections::BTreeSet;
use std::path::Path;

use super::reader::{ASKED, TABLES};
use super::*;

#[test]
fn every_key_is_documented_and_every_documented_key_is_read() {
    let documented: BTreeSet<String> = REFERENCE
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'))
        .map(|key| key.replace("[[", "").replace("]]", "").replace(['[', ']'], ""))
        .collect();
    let read = keys_read();
    let missing: Vec<_> = read.difference(&documented).collect();
    let needless: Vec<_> = documented.difference(&read).collect();
    assert!(missing.is_empty(), "read, but not in docs/reference/config.md: {missing:?}");
    assert!(needless.is_empty(), "in docs/reference/config.md, but read by nobody: {needless:?}");
    assert!(documented.len() > 50, "only {} keys found in docs/reference/config.md", documented.len());
}

/// Returns every key of the file. Opens each table that the reader asks for, until it asks for nothing new.
fn keys_read() -> BTreeSet<String> {
    let mut opened = BTreeSet::new();
    loop {
        ASKED.take();
        TABLES.take();
        let text: String = opened
            .iter()
            .map(|table: &String| if table == "site" { "[[site]]\n".to_owned() } else { format!("[{table}]\n") })
            .collect();
        let _ = Draft::new(Path::new("pintle.toml"), Path::new(""), text);
        let tables: BTreeSet<String> = TABLES.take().into_iter().collect();
        let asked: BTreeSet<String> = ASKED.take().into_iter().collect();
        if tables == opened {
            return asked.difference(&tables).cloned().collect();
        }
        opened = tables;
    }
}
