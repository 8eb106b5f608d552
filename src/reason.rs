//! Reasons as data: what is wrong, where, and what to do about it.
//!
//! A [`Reason`] is made where something is found to be wrong, carried as it is, and printed at the edge. Code that
//! has to react to a problem looks at its [`Kind`], its severity or its path, never at the words. The running
//! process sends problems to commands, and to the other side of an upgrade, as JSON.

pub mod near;
pub mod pasted;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

/// The reason why something is refused or doubtful, and what to do about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The fault: one line, without a full stop.
    pub what: String,
    /// The place in a file, if the reason is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Box<Place>>,
    /// Facts that help to understand it: the values that are allowed, for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Remedies, each of which is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// The remedies among `hints` that are commands, as they can be pasted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// The text that mends it if it stands at the place instead: for an editor's button.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<Box<str>>,
}

/// A place in a text file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file, as the user named it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters from 1.
    pub column: usize,
    /// The text of the line; empty if there is nothing to show.
    #[serde(default)]
    pub text: String,
    /// The number of characters of the line that it is about.
    #[serde(default)]
    pub width: usize,
}

/// The severity of a problem.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// pintle serves all the same.
    Warning,
    /// pintle refuses.
    #[default]
    #[serde(other)]
    Error,
}

/// The distinctions that code reacts to: one variant for each reaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// This user may not read a file.
    Unreadable,
    /// This user may not read a private key. A key process may.
    UnreadableKey,
    /// A key was compromised once, and is refused for ever.
    BurntKey,
    /// Nothing depends on it. (Also a kind that a newer peer knows.)
    #[default]
    #[serde(other)]
    Other,
}

/// A reason with what code needs to know about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Its severity.
    #[serde(default)]
    pub severity: Severity,
    /// The kind, for code that reacts.
    #[serde(default)]
    pub kind: Kind,
    /// The position in the configuration file, in bytes, until it becomes a [`Place`].
    #[serde(skip)]
    pub span: Range<usize>,
    /// The file that it is about, beside the configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "lossy")]
    pub path: Option<PathBuf>,
    /// The site that it is about, by its first name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The pin of the key that it refuses, as it would break promises.
    #[serde(skip)]
    pub key: Option<Box<str>>,
    /// The name of a fault that several sites share, each with its own file, host or value.
    #[serde(skip)]
    pub shared: Option<SharedFault>,
    /// The fault, and its remedies.
    #[serde(flatten)]
    pub reason: Reason,
}

/// A fault that many sites can have, each with a file, a host or a value of its own: they share one
/// warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFault {
    /// Its name: the same for all sites.
    pub name: &'static str,
    /// The file, the host or the value of this site.
    pub about: String,
    /// The beginning of the remedy, if that is a command which takes the files of all sites.
    pub command: Option<&'static str>,
}

/// Returns a number with its noun: `1 site`, `2 sites`.
#[must_use]
pub fn counted(number: impl fmt::Display, noun: &str) -> String {
    let number = number.to_string();
    let plural = if number == "1" { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Quotes a word for a shell, if necessary: for commands in hints.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/.-_:@%+,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Quotes a path for a shell, if necessary: for commands in hints.
#[must_use]
pub fn shell_path(path: &Path) -> String {
    shell_word(&path.display().to_string())
}

/// JSON has no other paths than Unicode ones.
fn lossy<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}

impl Reason {
    /// A reason without a remedy.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), ..Self::default() }
    }

    /// One reason for several: their faults in one line, and all their remedies, each once.
    #[must_use]
    pub fn of_all(reasons: &[Self]) -> Self {
        let lines: Vec<String> = reasons.iter().map(Self::line).collect();
        let mut hints: Vec<String> = Vec::new();
        for hint in reasons.iter().flat_map(|reason| &reason.hints) {
            if !hints.contains(hint) {
                hints.push(hint.clone());
            }
        }
        let commands = reasons.iter().flat_map(|reason| reason.commands.iter().cloned()).collect();
        Self { hints, commands, ..Self::new(lines.join("; ")) }
    }

    /// Adds a remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds a remedy that is a command, as it can be pasted.
    #[must_use]
    pub fn command(mut self, command: impl Into<String>) -> Self {
        let command = command.into();
        self.commands.push(command.clone());
        self.hint(command)
    }

    /// Adds the remedies of another reason.
    #[must_use]
    pub fn remedies_of(mut self, other: &Self) -> Self {
        self.hints.extend(other.hints.iter().cloned());
        self.commands.extend(other.commands.iter().cloned());
        self
    }

    /// Adds remedies.
    #[must_use]
    pub fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.hints.extend(hints);
        self
    }

    /// Adds a text that may stand at the place instead.
    #[must_use]
    pub fn fix(mut self, text: impl Into<Box<str>>) -> Self {
        self.fix = Some(text.into());
        self
    }

    /// Adds the string that somebody may have meant: `did you mean "enforce"?`
    #[must_use]
    pub fn meant(self, string: &str) -> Self {
        let string = format!("{string:?}");
        self.hint(format!("did you mean {string}?")).fix(string)
    }

    /// Adds the known string that is nearest to an unknown one, if one is near enough.
    #[must_use]
    pub fn meant_of<'k>(self, unknown: &str, known: impl IntoIterator<Item = &'k str>) -> Self {
        match near::nearest(unknown, known) {
            Some(near) => self.meant(near),
            None => self,
        }
    }

    /// Adds a fact.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Puts something in front of what is wrong: `FRONT: what`.
    #[must_use]
    pub fn within(mut self, front: &dyn fmt::Display) -> Self {
        self.what = format!("{front}: {}", self.what);
        self
    }

    /// The reason in a text of older versions: lines that were made for people. Nothing is read out of them.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        let mut lines = text.trim_end().lines();
        let what = lines.next().unwrap_or_default().to_owned();
        let notes = lines.map(|line| line.strip_prefix("  ").unwrap_or(line).to_owned()).collect();
        Self { what, notes, ..Self::default() }
    }

    /// The fault on one line, with its place: for logs.
    #[must_use]
    pub fn line(&self) -> String {
        let place = self.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        let notes: String = self.notes.iter().map(|note| format!("; {note}")).collect();
        format!("{place}{}{notes}", self.what)
    }

    /// All remedies on one line, if there are any: for logs.
    #[must_use]
    pub fn hint_line(&self) -> Option<String> {
        (!self.hints.is_empty()).then(|| self.hints.join("; or: "))
    }

    /// The fault and its remedies on one line: `WHAT (hint: REMEDY; or: REMEDY)`.
    #[must_use]
    pub fn full_line(&self) -> String {
        let hint = self.hint_line().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        format!("{}{hint}", self.line())
    }

    /// The fault on one line and its remedies, for an answer of the API.
    #[must_use]
    pub fn brief(&self) -> Value {
        json!({ "error": self.line(), "hints": self.hints, "commands": self.commands })
    }

    /// The text that people read: `PLACE: LABEL: WHAT`, the line of the file, notes, and one `hint:` for each remedy.
    #[must_use]
    pub fn render(&self, severity: Severity, color: bool) -> String {
        let (bold, blue, off) = if color { ("\x1b[1m", "\x1b[34m", "\x1b[0m") } else { ("", "", "") };
        let tint = match severity {
            _ if !color => "",
            Severity::Error => "\x1b[31m",
            Severity::Warning => "\x1b[33m",
        };
        let mut out = String::new();
        if let Some(place) = &self.place {
            out.push_str(&format!("{bold}{place}:{off} "));
        }
        out.push_str(&format!("{tint}{}:{off} {}", severity.label(), self.what));
        if let Some(place) = self.place.as_ref().filter(|place| !place.text.trim().is_empty()) {
            // Tabs keep the mark below what it points at.
            let before = place.text.chars().take(place.column.saturating_sub(1));
            let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let rest = place.text.chars().count().saturating_sub(indent.chars().count()).max(1);
            let mark = "^".repeat(place.width.clamp(1, rest));
            out.push_str(&format!("\n{blue}{:>5} |{off} {}", place.line, place.text));
            out.push_str(&format!("\n      {blue}|{off} {indent}{tint}{mark}{off}"));
        }
        for note in &self.notes {
            out.push_str(&format!("\n  {note}"));
        }
        for hint in &self.hints {
            out.push_str(&format!("\n  {blue}hint:{off} {hint}"));
        }
        out
    }
}

/// Shows what is wrong on one line, without the remedies.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())
    }
}

impl std::error::Error for Reason {}

impl From<String> for Reason {
    fn from(what: String) -> Self {
        Self::new(what)
    }
}

impl From<&str> for Reason {
    fn from(what: &str) -> Self {
        Self::new(what)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Severity {
    /// The word in front of a message.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Problem {
    /// Something that pintle refuses.
    pub fn error(span: &Range<usize>, reason: impl Into<Reason>) -> Self {
        Self { severity: Severity::Error, span: span.clone(), reason: reason.into(), ..Self::default() }
    }

    /// Something that pintle serves all the same.
    pub fn warning(span: &Range<usize>, reason: impl Into<Reason>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, reason) }
    }

    /// Names the file that it is about.
    #[must_use]
    pub fn about(mut self, path: &Path) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// Names the key that it refuses.
    #[must_use]
    pub fn of_key(mut self, pin: impl Into<Box<str>>) -> Self {
        self.key = Some(pin.into());
        self
    }

    /// Says what to react to.
    #[must_use]
    pub fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Names the fault, and what it is about here: sites with the same one share a warning.
    #[must_use]
    pub fn shared(mut self, name: &'static str, about: impl Into<String>) -> Self {
        self.shared = Some(SharedFault { name, about: about.into(), command: None });
        self
    }

    /// The same, about a file for which a command is the remedy: `chmod o= FILE`.
    #[must_use]
    pub fn shared_remedy(mut self, name: &'static str, command: &'static str, file: &str) -> Self {
        self.reason = self.reason.command(format!("{command} {}", shell_word(file)));
        self.shared = Some(SharedFault { name, about: file.to_owned(), command: Some(command) });
        self
    }

    /// `true` for what pintle refuses.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The text that people read.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        self.reason.render(self.severity, color)
    }
}

impl From<Reason> for Problem {
    fn from(reason: Reason) -> Self {
        Self { reason, ..Self::default() }
    }
}

impl From<String> for Problem {
    fn from(what: String) -> Self {
        Reason::new(what).into()
    }
}

impl From<&str> for Problem {
    fn from(what: &str) -> Self {
        Reason::new(what).into()
    }
}

/// The problems of a peer: those that it sent as data, or its texts if its version sends texts alone.
#[must_use]
pub fn of_peer(problems: Vec<Problem>, texts: &[String]) -> Vec<Problem> {
    if problems.is_empty() { texts.iter().map(|text| Reason::of_text(text).into()).collect() } else { problems }
}

/// The texts of problems, for peers of older versions.
#[must_use]
pub fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(|problem| problem.render(false)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed() {
        let mut reason = Reason::new("site.hpkp.mode: unknown mode \"enforced\"")
            .note("expected one of: enforce, report-only, withdraw")
            .hint("did you mean \"enforce\"?")
            .hint("leave the key out");
        assert_eq!(
            reason.render(Severity::Error, false),
            "error: site.hpkp.mode: unknown mode \"enforced\"\n  expected one of: enforce, report-only, withdraw\n  \
             hint: did you mean \"enforce\"?\n  hint: leave the key out"
        );
        let (file, text) = ("c.toml".to_owned(), "\tü = \"x\"".to_owned());
        let place = Place { file, line: 2, column: 6, text, width: 9 };
        reason = Reason { place: Some(Box::new(place)), ..Reason::new("no") };
        assert_eq!(
            reason.render(Severity::Warning, false),
            "c.toml:2:6: warning: no\n    2 | \tü = \"x\"\n      | \t    ^^^"
        );
        assert_eq!(reason.line(), "c.toml:2:6: no");
        assert!(reason.render(Severity::Warning, true).starts_with("\x1b[1mc.toml:2:6:\x1b[0m \x1b[33mwarning:"));
    }

    #[test]
    fn words_of_a_shell() {
        assert_eq!(shell_word("/etc/pintle/pintle.toml"), "/etc/pintle/pintle.toml");
        assert_eq!(shell_word("*.example.com"), "'*.example.com'");
        assert_eq!(shell_word("it's"), "'it'\\''s'");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("a b"), "'a b'");
        assert_eq!(shell_word("$(x)"), "'$(x)'");
    }

    #[test]
    fn sent_to_another_version_and_back() {
        let problem = Problem {
            site: Some("a.example".into()),
            ..Problem::warning(&(3..5), Reason::new("what").hint("do"))
                .about(Path::new("/a.pem"))
                .of_kind(Kind::UnreadableKey)
        };
        let json = serde_json::to_string(&problem).unwrap();
        let read: Problem = serde_json::from_str(&json).unwrap();
        assert_eq!(read, Problem { span: 0..0, ..problem }, "{json}");
        // A newer peer may know more.
        let newer = r#"{"severity":"grave","kind":"of tomorrow","what":"w","more":[1]}"#;
        assert_eq!(serde_json::from_str::<Problem>(newer).unwrap(), Problem::from(Reason::new("w")));
    }

    #[test]
    fn several_reasons_in_one() {
        let one = Reason::new("a").note("b").hint("do c").command("do d");
        let other = Reason::new("e").hint("do d").hint("do f");
        let want = Reason::new("a; b; e").hint("do c").command("do d").hint("do f");
        assert_eq!(Reason::of_all(&[one, other]), want);
    }

    #[test]
    fn texts_of_older_versions() {
        let text = "c.toml:1:1: wrong\n    1 | a = 1\n      | ^\n  hint: do this\n";
        let reason = Reason::of_text(text);
        assert_eq!(reason.render(Severity::Error, false), format!("error: {}", text.trim_end()));
        assert_eq!(Reason::of_text("").what, "");
    }
}
