//! Secrets that a configuration holds inline. The history has a placeholder instead of each, and a version that comes
//! back gets the secrets of the present file.
//!
//! Most secrets of a configuration are in files of their own, which it only names. These are not: the URLs of webhooks,
//! the fields that upstreams and collectors get (`request_headers`, `otlp_headers`), the hash of the password, and whatever has the form of a secret,
//! also in a line that is commented out. The prose of comments stays: nobody can tell a secret in it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::reason::Reason;

/// The placeholder of a secret.
pub const KEPT_OUT: &str = "(kept out of the history)";
/// Beginnings of secrets: of Standard Webhooks, of password hashes, of PEM.
const FORMS: [&str; 7] = ["whsec_", "whsk_", "$argon2", "$2y$", "$2b$", "$scrypt$", "PRIVATE KEY-----"];
/// Parts of the names of keys whose values are secrets, in lines that are commented out.
const NAMES: [&str; 13] = [
    "secret",
    "token",
    "password",
    "passwd",
    "hash",
    "auth",
    "hmac",
    "credential",
    "cookie",
    "signature",
    "api-key",
    "api_key",
    "otlp_headers",
];
/// The letters and digits of a part of `metrics.graphite_prefix` that is a key: a hosted Graphite wants it there.
const GRAPHITE_KEY_MIN: usize = 16;

/// A secret that a version lacks, and that the present file does not have either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingSecret {
    /// Its place in the version, in bytes.
    pub span: Range<usize>,
    /// Its name: `hook "chat": url`.
    pub name: String,
}

impl MissingSecret {
    /// The reason why a version cannot come back without it. The remedy depends on where the version is to go.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let name = &self.name;
        Reason::new(format!("{name}: the history has no secrets, and the present file has none of this name"))
    }
}

/// A string of the file: its name, which is the same in other versions, its place, and its value.
struct FoundString {
    name: String,
    span: Range<usize>,
    value: String,
    /// The value is one that the history must not have.
    is_secret: bool,
}

/// A text without its secrets; `None` if it is not TOML.
#[must_use]
pub fn masked(text: &str) -> Option<String> {
    let root = DeTable::parse(text).ok()?;
    let (strings, others) = strings(root.get_ref());
    let mut spans: Vec<Range<usize>> = strings.iter().filter(|s| s.is_secret).map(|s| s.span.clone()).collect();
    let comments = comments(text, spans_of(&strings, others));
    spans.extend(comments.into_iter().filter_map(|comment| of_comment(text, comment)));
    spans.sort_by_key(|span| span.start);
    let (mut masked, mut at) = (String::with_capacity(text.len()), 0);
    for span in spans {
        masked.push_str(text.get(at..span.start)?);
        masked.push_str(&format!("{KEPT_OUT:?}"));
        at = span.end;
    }
    masked.push_str(text.get(at..)?);
    Some(masked)
}

/// A version with the secrets of the present file.
///
/// # Errors
///
/// The secrets that the present file does not have.
pub fn unmasked(version: &str, present: &str) -> Result<String, Vec<MissingSecret>> {
    if !version.contains(KEPT_OUT) {
        return Ok(version.to_owned());
    }
    let Ok(root) = DeTable::parse(version) else {
        return Err(vec![MissingSecret { span: 0..0, name: "the version is not TOML".to_owned() }]);
    };
    let (wanted, others) = strings(root.get_ref());
    let known = KnownSecrets::of(present);
    let (mut lacks, mut changes) = (Vec::new(), Vec::new());
    for string in wanted.iter().filter(|string| string.value == KEPT_OUT) {
        match known.values.get(&string.name) {
            Some(written) => changes.push((string.span.clone(), *written)),
            None => lacks.push(MissingSecret { span: string.span.clone(), name: string.name.clone() }),
        }
    }
    // A comment that the present file does not have keeps its placeholder.
    for comment in comments(version, spans_of(&wanted, others)) {
        if let Some(written) = version.get(comment.clone()).and_then(|masked| known.comments.get(masked)) {
            changes.push((comment, *written));
        }
    }
    if !lacks.is_empty() {
        return Err(lacks);
    }
    changes.sort_by_key(|(span, _)| span.start);
    let (mut whole, mut at) = (String::with_capacity(version.len()), 0);
    for (span, written) in changes {
        whole.push_str(version.get(at..span.start).unwrap_or_default());
        whole.push_str(written);
        at = span.end;
    }
    whole.push_str(version.get(at..).unwrap_or_default());
    Ok(whole)
}

/// The secrets of a file, as it writes them.
#[derive(Default)]
struct KnownSecrets<'t> {
    /// By the name of the string.
    values: HashMap<String, &'t str>,
    /// By the comment without its secret.
    comments: HashMap<String, &'t str>,
}

impl<'t> KnownSecrets<'t> {
    fn of(text: &'t str) -> Self {
        let Ok(root) = DeTable::parse(text) else { return Self::default() };
        let (strings, others) = strings(root.get_ref());
        let mut known = Self::default();
        for comment in comments(text, spans_of(&strings, others)) {
            let Some(secret) = of_comment(text, comment.clone()) else { continue };
            let (front, back) = (text.get(comment.start..secret.start), text.get(secret.end..comment.end));
            if let (Some(front), Some(back), Some(written)) = (front, back, text.get(comment.clone())) {
                known.comments.insert(format!("{front}{KEPT_OUT:?}{back}"), written);
            }
        }
        let values = strings.into_iter().filter(|string| string.value != KEPT_OUT);
        known.values = values.filter_map(|string| Some((string.name, text.get(string.span)?))).collect();
        known
    }
}

/// The places of all values and keys.
fn spans_of(strings: &[FoundString], mut others: Vec<Range<usize>>) -> Vec<Range<usize>> {
    others.extend(strings.iter().map(|string| string.span.clone()));
    others
}

/// The strings of a file that are the placeholder of a secret.
#[must_use]
pub fn placeholders(root: &DeTable<'_>) -> Vec<MissingSecret> {
    let found = strings(root).0.into_iter().filter(|string| string.value == KEPT_OUT);
    found.map(|string| MissingSecret { span: string.span, name: string.name }).collect()
}

/// All strings of a file with their names; and the places of everything else that is no comment.
fn strings(root: &DeTable<'_>) -> (Vec<FoundString>, Vec<Range<usize>>) {
    let mut walk = StringWalk::default();
    walk.table(root, "", "");
    // A table is in no order.
    walk.found.sort_by_key(|found| found.span.start);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for found in &mut walk.found {
        // A list may repeat a name: the order counts then.
        let nth = seen.entry(found.name.clone()).or_default();
        if *nth > 0 {
            found.name = format!("{} ({})", found.name, *nth + 1);
        }
        *nth += 1;
    }
    (walk.found, walk.others)
}

#[derive(Default)]
struct StringWalk {
    found: Vec<FoundString>,
    others: Vec<Range<usize>>,
}

impl StringWalk {
    /// `path` is the names of keys alone; `name` says which table of several it is, too.
    fn table(&mut self, table: &DeTable<'_>, path: &str, name: &str) {
        for (key, value) in table {
            self.others.push(key.span());
            let join = |front: &str, sign: &str| match front {
                "" => key.get_ref().to_string(),
                front => format!("{front}{sign}{}", key.get_ref()),
            };
            self.value(value, &join(path, "."), &join(name, if name.ends_with('"') { ": " } else { "." }));
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, path: &str, name: &str) {
        match value.get_ref() {
            DeValue::String(text) => {
                let is_secret = is_secret(path, text);
                let found =
                    FoundString { name: name.to_owned(), span: value.span(), value: text.to_string(), is_secret };
                self.found.push(found);
            }
            DeValue::Array(list) => {
                for item in list.iter() {
                    match item.get_ref() {
                        DeValue::Table(table) => {
                            self.table(table, path, &format!("{name} {:?}", name_of(path, table)));
                        }
                        _ => self.value(item, path, name),
                    }
                }
            }
            DeValue::Table(table) => self.table(table, path, name),
            _ => self.others.push(value.span()),
        }
    }
}

/// The value that tells a table of a list from its neighbours, in other versions, too: of `hosts`, `name` or `events`.
fn name_of(path: &str, table: &DeTable<'_>) -> String {
    let keys: &[&str] = match path {
        "site" => &["hosts"],
        "hook" => &["name", "command", "events"],
        _ => &["name", "chain", "path"],
    };
    let value = |wanted: &&str| table.iter().find(|(key, _)| key.get_ref() == wanted).map(|(_, value)| value.get_ref());
    match keys.iter().find_map(value) {
        Some(DeValue::String(text)) => text.to_string(),
        // The first host is a site's name; events count together.
        Some(DeValue::Array(list)) => {
            let texts: Vec<&str> = list.iter().filter_map(|item| item.get_ref().as_str()).collect();
            if path == "site" { texts.first().copied().unwrap_or_default().to_owned() } else { texts.join(" ") }
        }
        _ => String::new(),
    }
}

/// `true` if the history must not have a value.
fn is_secret(path: &str, value: &str) -> bool {
    if value.is_empty() || value == KEPT_OUT {
        return false;
    }
    let fields = ["site.request_headers.set.", "site.request_headers.add.", "metrics.otlp_headers."];
    let is_field = fields.iter().any(|key| path.starts_with(key));
    is_field
        || matches!(path, "hook.url" | "admin.password_hash")
        || path == "metrics.graphite_prefix" && value.split('.').any(is_graphite_key)
        || has_form(value)
}

/// `true` for text with the form of a secret, wherever it is.
fn has_form(text: &str) -> bool {
    let has_password = text.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', '#', ' ', '"']).next().unwrap_or_default();
        authority.contains('@')
    });
    has_password || FORMS.iter().any(|form| text.contains(form)) || text.contains("hooks.slack.com/services/")
}

fn is_graphite_key(part: &str) -> bool {
    let count = part.chars().filter(char::is_ascii_alphanumeric).count();
    count >= GRAPHITE_KEY_MIN && part.bytes().any(|byte| byte.is_ascii_digit())
}

/// The comments of a text, without their `#`. `known` is the places of keys and values, in which `#` is a character.
fn comments(text: &str, mut known: Vec<Range<usize>>) -> Vec<Range<usize>> {
    known.retain(|span| text.get(span.clone()).is_some_and(|part| part.contains('#')));
    known.sort_by_key(|span| span.start);
    let (mut comments, mut at) = (Vec::new(), 0);
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('#')) {
        let start = at + found;
        let next = known.partition_point(|span| span.start <= start);
        if let Some(span) = next.checked_sub(1).and_then(|last| known.get(last)).filter(|span| span.contains(&start)) {
            at = span.end;
            continue;
        }
        let length = text.get(start..).and_then(|rest| rest.find('\n'));
        let end = length.map_or(text.len(), |length| start + length);
        comments.push(start + 1..end);
        at = end;
    }
    comments
}

/// The place of a secret in a comment: the value of a line that is commented out, or the whole comment.
fn of_comment(text: &str, comment: Range<usize>) -> Option<Range<usize>> {
    let written = text.get(comment.clone())?;
    let end = comment.start + written.trim_end().len();
    let (key, value) = written.split_once('=').unwrap_or(("", ""));
    let value = value.trim();
    let name = key.trim().trim_start_matches('#').trim().to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default().trim_matches(['"', '\'', ' ']);
    let is_key =
        !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let is_value = value.len() > 1 && value.starts_with(['"', '\'', '{', '[']);
    let is_assignment = is_key && is_value;
    let is_named = NAMES.iter().any(|part| last.contains(part)) && !last.ends_with("_file");
    // Only a webhook's URL has this name.
    let is_secret = is_named || last == "url" || has_form(written);
    match (is_secret, is_assignment) {
        (true, true) if value.contains(KEPT_OUT) => None,
        (true, true) => Some(comment.start + written.find('=')? + 1 + leading(written.split_once('=')?.1)..end),
        (true, false) if has_form(written) => Some(comment.start + leading(written)..end),
        _ => None,
    }
}

/// The bytes of white space at the beginning.
fn leading(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"# url = "https://hooks.slack.com/services/T/B/comment"
#password_hash = "$argon2id$v=19$x"
# the # of "colour" = "blue" stays
[admin]
password_hash = "$argon2id$v=19$m=1$salt$hash" # whsec_inline
[metrics]
graphite_prefix = "0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f.pintle"
#otlp_headers = { "dd" = "secret-7" }
otlp_headers = { "x-honeycomb-team" = "secret-6" }
[[hook]]
name = "chat"
events = ["certificate.*"]
url = 'https://chat.example/hook/#secret-1'
secret_file = "hook.secret"
[[hook]]
events = ["upstream.down"]
url = """https://pager.example/secret-2"""
[[site]]
hosts = ["blog.example.com"]
upstream = "https://origin.example/#x"
[site.request_headers.set]
"X-Origin-Key" = "secret-3"
[site.request_headers]
add = { X-More = "secret-4 # not a comment" }
[site.response_headers.set]
X-Public = "shown"
[[site]]
hosts = ["shop.example.com"]
request_headers.set = { "X-Origin-Key" = "secret-5" }
"#;

    #[test]
    fn secrets_are_kept_out_and_come_back() {
        let masked = masked(FILE).unwrap();
        for secret in ["secret-", "argon2", "services/T", "whsec_", "0a1b2c3d"] {
            assert!(!masked.contains(secret), "{secret} in {masked}");
        }
        for kept in
            ["hook.secret", "https://origin.example/#x", "shown", "\"colour\" = \"blue\" stays", "upstream.down"]
        {
            assert!(masked.contains(kept), "{kept} not in {masked}");
        }
        assert_eq!(super::masked(&masked).unwrap(), masked);
        assert_eq!(masked.lines().count(), FILE.lines().count());
        assert_eq!(unmasked(&masked, FILE).unwrap(), FILE);
        let root = DeTable::parse(&masked).unwrap();
        assert_eq!(placeholders(root.get_ref()).len(), 8);
    }

    #[test]
    fn a_secret_goes_to_its_own_table_only() {
        let masked = masked(FILE).unwrap();
        let swapped = FILE.replace("blog.example.com", "other.example.com");
        let missing = unmasked(&masked, &swapped).unwrap_err();
        let names: Vec<&str> = missing.iter().map(|missing| missing.name.as_str()).collect();
        let of = |name: &str| format!("site \"blog.example.com\": request_headers.{name}");
        assert_eq!(names, [of("set.X-Origin-Key"), of("add.X-More")]);
        // The secrets of now, in the version of then.
        let rotated = FILE.replace("secret-3", "rotated");
        let back = unmasked(&masked, &rotated).unwrap();
        assert!(back.contains("\"X-Origin-Key\" = \"rotated\""), "{back}");
        assert_eq!(back, rotated);
    }

    #[test]
    fn a_file_that_is_not_toml_has_no_masked_form() {
        assert_eq!(masked("a = "), None);
        assert_eq!(masked("").as_deref(), Some(""));
        assert!(unmasked("a = \"(kept out of the history)\"", "").is_err());
    }
}
