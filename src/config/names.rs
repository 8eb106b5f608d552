//! The tables of all keys, for a key that stands in the wrong one: by the reference, which is in the program for its
//! man page. A test compares the reference with the reader.

use std::sync::LazyLock;

/// The reference of all keys.
pub const REFERENCE: &str = include_str!("../../docs/reference/config.md");

/// Tables that may be repeated.
const LISTS: [&str; 4] = ["site", "hook", "rate", "admin.user"];
/// Tables that are named as the place of one key.
const TABLES_MAX: usize = 3;

/// Returns a hint to the tables that a key, or a table, belongs to. `table` is the one that has it now.
pub(super) fn belongs(table: &str, name: &str) -> Option<String> {
    let mut places: Vec<&str> = Vec::new();
    for key in keys() {
        let (home, last) = key.rsplit_once('.').unwrap_or(("", key));
        // The tables around the key, the outermost first.
        let around = home.match_indices('.').map(|(at, _)| &home[..at]).chain([home]);
        // A table in another place, or without its first parts: `[hsts]`.
        let tables = around.filter(|place| place.rsplit('.').next() == Some(name) && parent(place) != table);
        for place in tables.chain([home].into_iter().filter(|home| last == name && *home != table)) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    if places.is_empty() || places.len() > TABLES_MAX {
        return None;
    }
    if let Some(place) = places.iter().find(|place| is_above(place, table)) {
        return Some(format!("{name} is a key of {}: write it above [{table}]", shown(place)));
    }
    let named = places.iter().map(|place| shown(place)).collect::<Vec<_>>().join(" or ");
    // The table itself, or a table that has the key.
    match places.iter().all(|place| place.rsplit('.').next() == Some(name)) {
        true => Some(format!("did you mean {named}?")),
        false => Some(format!("{name} is a key of {named}")),
    }
}

/// All keys, with their tables: `site.hsts.max_age`.
fn keys() -> impl Iterator<Item = &'static str> {
    // The reference is long, and a file may have thousands of unknown keys.
    static KEYS: LazyLock<Vec<&str>> =
        LazyLock::new(|| REFERENCE.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect());
    KEYS.iter().copied()
}

/// The table around a table.
fn parent(table: &str) -> &str {
    table.rsplit_once('.').map_or("", |(parent, _)| parent)
}

fn is_above(place: &str, table: &str) -> bool {
    table.strip_prefix(place).is_some_and(|rest| rest.starts_with('.'))
}

/// `true` for a table of which a configuration can have several.
pub(super) fn is_list(table: &str) -> bool {
    LISTS.contains(&table)
}

/// `[[site]]`, `[site.hsts]`
fn shown(table: &str) -> String {
    if is_list(table) { format!("[[{table}]]") } else { format!("[{table}]") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let check = |table: &str, name: &str, want: Option<&str>| {
            assert_eq!(belongs(table, name).as_deref(), want, "{name} in [{table}]");
        };
        check("site.certificate", "upstream", Some("upstream is a key of [[site]]: write it above [site.certificate]"));
        check("site", "host_header", Some("host_header is a key of [site.upstream_options]"));
        check("", "hsts", Some("did you mean [site.hsts]?"));
        check("site", "tls", Some("did you mean [tls]?"));
        check("site", "backups", Some("backups is a key of [site.hpkp]"));
        check("", "max_age", Some("max_age is a key of [site.hsts] or [site.hpkp]"));
        check("site", "nothing", None);
        check("", "server", None);
        check("site.hsts", "max-age", None);
        check("site.rate", "methods", Some("methods is a key of [[rate]]"));
        check("", "secret_file", Some("secret_file is a key of [[hook]]"));
    }

    /// The reference heads the section of such a table with `[[`, or says how to repeat it.
    #[test]
    fn tables_that_may_be_repeated() {
        let headed = REFERENCE.lines().filter_map(|line| line.strip_prefix("## [[")?.strip_suffix("]]"));
        let unknown: Vec<&str> = headed.filter(|table| !LISTS.contains(table)).collect();
        assert_eq!(unknown, Vec::<&str>::new());
    }
}
