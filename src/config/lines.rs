//! The line of each key in the configuration file: of the tables that concern everything, and of one site.

use std::collections::HashMap;

use toml::de::{DeTable, DeValue};

use super::draft::Draft;

/// The lines of keys.
#[derive(Debug, Default)]
pub struct Lines {
    by_key: HashMap<String, KeyLine>,
    file: String,
}

/// The line of a key, and its value if that is a text.
#[derive(Debug)]
struct KeyLine {
    number: usize,
    text: Option<String>,
}

impl Draft {
    /// Returns the lines of all keys outside of sites, and of one site. A key is written as in messages:
    /// `listen.trusted_proxies`, `site.hosts[0]`, `site.request_headers.set.X-Edge`.
    #[must_use]
    pub fn lines(&self, site: Option<usize>) -> Lines {
        let text = self.text();
        let (root, _) = DeTable::parse_recoverable(&text);
        let mut lines = Lines { by_key: HashMap::new(), file: self.path().display().to_string() };
        for (key, value) in root.get_ref() {
            if key.get_ref() != "site" {
                lines.add(key.get_ref().to_string(), key.span().start, value.get_ref(), self);
                continue;
            }
            let DeValue::Array(sites) = value.get_ref() else { continue };
            let Some(own) = site.and_then(|at| sites.get(at)) else { continue };
            lines.add("site".to_owned(), own.span().start, own.get_ref(), self);
        }
        lines
    }
}

impl Lines {
    fn add(&mut self, key: String, start: usize, value: &DeValue<'_>, draft: &Draft) {
        let number = draft.problems().line_and_column(start).0;
        let text = value.as_str().map(str::to_owned);
        self.by_key.insert(key.clone(), KeyLine { number, text });
        match value {
            DeValue::Table(table) => {
                for (name, value) in table {
                    self.add(format!("{key}.{}", name.get_ref()), name.span().start, value.get_ref(), draft);
                }
            }
            DeValue::Array(list) => {
                for (at, value) in list.iter().enumerate() {
                    self.add(format!("{key}[{at}]"), value.span().start, value.get_ref(), draft);
                }
            }
            _ => {}
        }
    }

    /// Returns `file:line` of the first of these keys that the file has.
    #[must_use]
    pub fn at(&self, keys: &[&str]) -> Option<String> {
        let line = keys.iter().find_map(|key| self.by_key.get(*key))?;
        Some(format!("{}:{}", self.file, line.number))
    }

    /// Returns the text of a key.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.by_key.get(key)?.text.as_deref()
    }

    /// Returns the keys below a table or a list, in the order of the file.
    #[must_use]
    pub fn below(&self, key: &str) -> Vec<&str> {
        let is_below = |known: &str| known.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', '[']));
        let mut found: Vec<(usize, &str)> =
            self.by_key.iter().map(|(known, line)| (line.number, known.as_str())).collect();
        found.retain(|(_, known)| is_below(known));
        found.sort_unstable();
        found.into_iter().map(|(_, known)| known).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn lines_of_keys() {
        let text = "[listen]\nhttp = [\n  \"[::]:80\",\n]\n[[site]]\nhosts = [\"a.example\"]\n[[site]]\nhosts = [\n\
                    \"b.example\",\n\"*.b.example\"]\nrequest_headers = { set = { \"X-A\" = \"1\" }, remove = [\"X-B\"] }\n";
        let draft = Draft::new(Path::new("p.toml"), Path::new(""), text.to_owned());
        let lines = draft.lines(Some(1));
        let at = |key: &str| lines.at(&[key]);
        assert_eq!(at("listen.http").as_deref(), Some("p.toml:2"));
        assert_eq!(at("listen.http[0]").as_deref(), Some("p.toml:3"));
        assert_eq!(at("site.hosts[1]").as_deref(), Some("p.toml:10"));
        assert_eq!(at("site.request_headers.set.X-A").as_deref(), Some("p.toml:11"));
        assert_eq!(lines.text("site.request_headers.remove[0]"), Some("X-B"));
        assert_eq!(lines.below("site.request_headers.set"), ["site.request_headers.set.X-A"]);
        assert_eq!(lines.at(&["limits.idle", "listen"]).as_deref(), Some("p.toml:1"));
        assert_eq!(draft.lines(Some(0)).text("site.hosts[0]"), Some("a.example"));
        assert_eq!(draft.lines(None).at(&["site.hosts"]), None);
    }
}
