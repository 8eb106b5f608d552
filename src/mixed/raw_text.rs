//! Raw text: the contents of elements whose end tag alone ends them (HTML Living Standard, sections 13.2.5.2 to
//! 13.2.5.31).

/// The end of raw text, or the part of it that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawEnd {
    /// The end tag begins here.
    At(usize),
    /// The text continues; from here on, more bytes are needed.
    After(usize),
}

/// The state of a script: comments may contain scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScriptState {
    Plain,
    Escaped,
    DoubleEscaped,
}

/// The search for the end of an element.
#[derive(Debug, Clone)]
pub struct RawText {
    name: &'static str,
    script: ScriptState,
}

/// Elements of raw text, except script.
const RAW: [&str; 8] = ["style", "textarea", "title", "xmp", "iframe", "noembed", "noframes", "script"];

/// A comparison with a text that may be cut off.
#[derive(PartialEq, Eq)]
enum Match {
    Yes,
    No,
    Cut,
}

impl RawText {
    /// Begins the raw text of an element, by its name in lower case. `None` if it has none.
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        let name = RAW.iter().find(|raw| raw.as_bytes() == name)?;
        Some(Self { name, script: ScriptState::Plain })
    }

    /// Searches the end, from `from` on: what is before it has been searched.
    pub fn find(&mut self, text: &[u8], from: usize, is_last: bool) -> RawEnd {
        let mut at = from;
        while let Some(next) = memchr::memchr2(b'<', b'-', text.get(at..).unwrap_or_default()) {
            at += next;
            let rest = &text[at..];
            let step = if self.name == "script" { self.script(rest) } else { self.end(rest).map(|()| 1) };
            match step {
                Ok(length) => at += length,
                Err(Match::Yes) => return RawEnd::At(at),
                Err(_) if is_last => at += 1,
                Err(_) => return RawEnd::After(at),
            }
        }
        RawEnd::After(text.len())
    }

    /// Fails with `Yes` at the end tag, and with `Cut` if more bytes decide.
    fn end(&self, rest: &[u8]) -> Result<(), Match> {
        match tag(rest, "</", self.name) {
            Match::No => Ok(()),
            found => Err(found),
        }
    }

    /// Returns the length to pass over.
    fn script(&mut self, rest: &[u8]) -> Result<usize, Match> {
        match self.script {
            ScriptState::Plain => match prefix(rest, b"<!--") {
                Match::Yes => {
                    self.script = ScriptState::Escaped;
                    // `<!-->` ends at once: the same hyphens count.
                    return Ok(2);
                }
                Match::Cut => return Err(Match::Cut),
                Match::No => {}
            },
            ScriptState::Escaped | ScriptState::DoubleEscaped => match prefix(rest, b"-->") {
                Match::Yes => {
                    self.script = ScriptState::Plain;
                    return Ok(3);
                }
                Match::Cut => return Err(Match::Cut),
                Match::No => {}
            },
        }
        let (opens, closes) = (tag(rest, "<", "script"), self.end(rest));
        match (self.script, opens, closes) {
            (ScriptState::DoubleEscaped, _, Err(Match::Yes)) => self.script = ScriptState::Escaped,
            (ScriptState::Escaped, Match::Yes, _) => self.script = ScriptState::DoubleEscaped,
            (ScriptState::Escaped, Match::Cut, _) | (_, _, Err(Match::Cut)) => return Err(Match::Cut),
            (_, _, Err(found)) => return Err(found),
            _ => {}
        }
        Ok(1)
    }
}

fn prefix(text: &[u8], wanted: &[u8]) -> Match {
    let length = text.len().min(wanted.len());
    match text[..length].eq_ignore_ascii_case(&wanted[..length]) {
        false => Match::No,
        true if length < wanted.len() => Match::Cut,
        true => Match::Yes,
    }
}

/// Compares with a tag up to its name, which something must end.
fn tag(text: &[u8], opens: &str, name: &str) -> Match {
    match prefix(text, opens.as_bytes()) {
        Match::Yes => {}
        other => return other,
    }
    match prefix(&text[opens.len()..], name.as_bytes()) {
        Match::Yes => match text.get(opens.len() + name.len()) {
            None => Match::Cut,
            Some(b'\t' | b'\n' | b'\x0c' | b'\r' | b' ' | b'/' | b'>') => Match::Yes,
            Some(_) => Match::No,
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        for (name, text, want) in [
            ("style", "a</style>", Some("a")),
            ("style", "a</styles></STYLE >", Some("a</styles>")),
            ("title", "<b></title/", Some("<b>")),
            ("style", "a</style", None),
            ("script", "a<b</script>", Some("a<b")),
            ("script", "<!--<script></script>--></script>", Some("<!--<script></script>-->")),
            ("script", "<!--<script></script></script>", Some("<!--<script></script>")),
            ("script", "<!--></script>", Some("<!-->")),
            ("script", "<!-- </script>", Some("<!-- ")),
            ("script", "i--; a</script>", Some("i--; a")),
        ] {
            let whole = RawText::of(name.as_bytes()).unwrap().find(text.as_bytes(), 0, false);
            let end = if let RawEnd::At(end) = whole { Some(&text[..end]) } else { None };
            assert_eq!(end, want, "{text}");
            // By single bytes.
            let (mut raw, mut from, mut found) = (RawText::of(name.as_bytes()).unwrap(), 0, None);
            for n in 0..=text.len() {
                match raw.find(&text.as_bytes()[..n], from, false) {
                    RawEnd::At(end) => {
                        found = Some(&text[..end]);
                        break;
                    }
                    RawEnd::After(end) => from = end,
                }
            }
            assert_eq!(found, want, "{text} by single bytes");
        }
        assert!(RawText::of(b"p").is_none());
    }
}
