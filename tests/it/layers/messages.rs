//! Finds code that decides by the words of a message: a search in it, a comparison with a literal, a `match` on it.
//!
//! A message is known by its name: the variable, field or method that has it. Comments are left out; a chain of calls
//! over several lines counts as one line.

/// Variables, fields and methods that are messages or parts of them.
const NAMES: [&str; 18] = [
    "what",
    "message",
    "hint",
    "hints",
    "note",
    "notes",
    "reason",
    "problem",
    "error",
    "why",
    "detail",
    "left",
    "label",
    "cause",
    "fault",
    "words",
    "line()",
    "to_string()",
];
/// Functions that return a message, whatever their arguments are. `text` and `some` read an answer of the API.
const CALLS: [&str; 12] = [
    "line",
    "full_line",
    "hint_line",
    "left",
    "words",
    "cause",
    "connect_cause",
    "tls_cause",
    "describe",
    "what",
    "text",
    "some",
];
const SEARCHES: [&str; 16] = [
    "contains",
    "starts_with",
    "ends_with",
    "split",
    "split_once",
    "rsplit_once",
    "find",
    "rfind",
    "strip_prefix",
    "strip_suffix",
    "trim_start_matches",
    "trim_end_matches",
    "matches",
    "match_indices",
    "eq_ignore_ascii_case",
    "replace",
];
/// Lines that are printed, in the files that print them: their colour and their columns are data, too.
const PRINTED: [&str; 5] = ["line", "cut", "rest", "row", "shown"];
const PRINTERS: [&str; 3] = ["commands/sheet.rs", "commands/status.rs", "commands/watch/screen.rs"];

/// Names that are no messages where they are: the file, the name, and the reason.
pub const FOREIGN: &[(&str, &str, &str)] = &[
    ("cli/man.rs", "text", "the roff of a man page, made by clap"),
    ("keys/pem.rs", "label", "the label of a PEM section, by RFC 7468"),
    ("os/sandbox/attempts.rs", "what", "the name of an attempt, which a test gives"),
    ("tls/key_process/protocol.rs", "message", "the bytes to sign, by RFC 8446"),
];

/// A decision by a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision {
    pub line: usize,
    /// The name of the message.
    pub name: String,
}

/// Returns the decisions of a program by messages. `path` is below src.
pub fn decisions(path: &str, program: &str) -> Vec<Decision> {
    let names = if PRINTERS.contains(&path) { [&NAMES[..], &PRINTED].concat() } else { NAMES.to_vec() };
    let statements = statements(program);
    let mut found = Vec::new();
    for (at, (line, statement)) in statements.iter().enumerate() {
        let next = statements.get(at + 1).map_or("", |(_, next)| next.as_str());
        let all = searched(statement, &names).into_iter();
        let all = all.chain(compared(statement, &names)).chain(matched(statement, next, &names));
        found.extend(all.map(|name| Decision { line: *line, name }));
    }
    found
}

/// Returns the lines without comments, with their numbers. Lines that begin with a dot belong to the line before.
fn statements(program: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for (number, line) in program.lines().enumerate() {
        let line = line.trim();
        match found.last_mut() {
            _ if line.is_empty() || line.starts_with("//") => {}
            Some((_, last)) if line.starts_with('.') && !line.starts_with("..") => last.push_str(line),
            _ => found.push((number + 1, line.to_owned())),
        }
    }
    found
}

/// `hint.starts_with(…)`, `moment.left().trim_end_matches(…)`
fn searched(statement: &str, names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for search in SEARCHES {
        let call = format!(".{search}(");
        for (at, _) in statement.match_indices(&call) {
            let argument = &statement[at + call.len()..];
            let Some(name) = last_name(&statement[..at]) else { continue };
            let is_literal = argument.starts_with(['"', '\'']);
            let is_printed = PRINTED.contains(&name.as_str());
            let decides = match search {
                // A list may contain a value.
                "contains" => is_literal,
                // Words are wrapped at spaces.
                "split" if is_printed => false,
                _ if name == "to_string()" => argument.starts_with('"'),
                _ => is_literal || !is_printed,
            };
            if decides && is_message(&name, names) {
                found.push(name);
            }
        }
    }
    found
}

/// `label == "HSTS"`, `matches!(self.what, HIT | STALE)`
fn compared(statement: &str, names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for sign in [" == \"", " != \""] {
        let before = statement.match_indices(sign).map(|(at, _)| &statement[..at]);
        found.extend(before.filter_map(last_name).filter(|name| is_message(name, names)));
    }
    for (at, begin) in statement.match_indices("matches!(") {
        let Some((value, pattern)) = statement[at + begin.len()..].split_once(", ") else { continue };
        let word: String = pattern.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
        let is_constant = word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        let name = last_name(value).filter(|_| pattern.starts_with('"') || is_constant);
        found.extend(name.filter(|name| is_message(name, names)));
    }
    found
}

/// `match connect_cause(e) {` before a literal. The values of the API are an enum's words.
fn matched(statement: &str, next: &str, names: &[&str]) -> Option<String> {
    let value = statement.strip_suffix(" {")?.rsplit_once("match ")?.1;
    let is_value = |name: &String| matches!(name.as_str(), "text()" | "some()");
    last_name(value).filter(|name| next.starts_with('"') && !is_value(name) && is_message(name, names))
}

/// Returns the name at the end of an expression: `hint` of `self.hint.as_str()`, `left()` of `moment.left()`, and `cause`
/// with its parentheses of `cause(e)`.
fn last_name(expression: &str) -> Option<String> {
    let mut rest = expression.trim_end();
    for same in [".as_str()", ".as_ref()", ".trim()", ".trim_end()", ".as_deref()", "?"] {
        rest = rest.strip_suffix(same).unwrap_or(rest);
    }
    let mut call = "";
    if rest.ends_with(')') {
        let mut depth = 0_usize;
        let open = rest.char_indices().rev().find(|(_, c)| {
            depth = match *c {
                ')' => depth + 1,
                '(' => depth - 1,
                _ => depth,
            };
            depth == 0
        });
        let (at, _) = open?;
        call = &rest[at..];
        rest = &rest[..at];
    }
    let start = rest.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
    let name = &rest[start..];
    (!name.is_empty()).then(|| format!("{name}{}", if call.is_empty() { "" } else { "()" }))
}

fn is_message(name: &str, names: &[&str]) -> bool {
    names.contains(&name) || name.strip_suffix("()").is_some_and(|call| CALLS.contains(&call))
}

#[test]
fn decisions_are_found() {
    let check = |program: &str, want: &[&str]| {
        let found: Vec<_> = decisions("a.rs", program).into_iter().map(|found| found.name).collect();
        assert_eq!(found, want, "{program}");
    };
    // Each of these was in the program once.
    check("programs.iter().any(|program| hint.starts_with(program))", &["hint"]);
    check("match left.strip_suffix(\" left\") {", &["left"]);
    check("format!(\" · {}\", moment.left().trim_end_matches(\" left\"))", &["left()"]);
    check("match connect_cause(e) {\n    \"connection refused\" => x,", &["connect_cause()"]);
    check("if label.is_empty() || label == \"HSTS\" {", &["label"]);
    check("matches!(self.what, HIT | STALE)", &["what"]);
    check("(what != \"forward\").then_some(own)", &["what"]);
    check("if text(&leaf, \"algorithm\").starts_with(\"rsa\") { a }", &["text()"]);
    check("let x = self\n    .reason\n    // Why not?\n    .what\n    .contains(\"mark\");", &["what"]);
    check("error.to_string().split_once(\"x\")", &["to_string()"]);
    // These decide nothing by a message.
    check("if !hints.contains(hint) {", &[]);
    check("words.contains(&word); host.to_string().replace('*', \"_\");", &[]);
    check("matches!(error, UpstreamError::Busy | UpstreamError::QueueTimeout)", &[]);
    check("match error.kind() {\n    A => \"x\",", &[]);
    check("// hint.starts_with(\"x\")", &[]);
    let printed = |program| decisions("commands/sheet.rs", program).len();
    assert_eq!((printed("look.color && cut.starts_with('!')"), printed("rest.find(\"  \")")), (1, 1));
    assert_eq!((printed("if rest.starts_with(is_number) {"), printed("for line in lines.split('\\n') {")), (0, 0));
}
