//! The findings of a verification, one row each.

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; needs no action.
    Note,
    /// Worth fixing; clients cope.
    Warning,
    /// A violation of a MUST, or clients do something else than the site wants.
    Error,
}

impl Level {
    /// Returns its name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The subject of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Versions and handshakes.
    Tls,
    /// The chain.
    Certificate,
    /// Plain HTTP and its redirect.
    Redirect,
    /// Strict-Transport-Security, and the preload list.
    Hsts,
    /// Public-Key-Pins, and the pins of `--pins`.
    Pins,
    /// The page.
    Page,
}

impl Group {
    /// All groups, in the order of the table.
    pub const ALL: [Self; 6] = [Self::Tls, Self::Certificate, Self::Redirect, Self::Hsts, Self::Pins, Self::Page];

    /// Returns the heading.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "TLS",
            Self::Certificate => "certificate",
            Self::Redirect => "redirect",
            Self::Hsts => "HSTS",
            Self::Pins => "pins",
            Self::Page => "page",
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyFinding {
    /// The subject.
    pub group: Group,
    /// The severity.
    pub level: Level,
    /// The name of the check, one of [`CHECKS`]. Programs depend on it: it does not change.
    pub check: &'static str,
    /// The finding in words.
    pub message: String,
    /// A remedy.
    pub hint: Option<String>,
}

impl VerifyFinding {
    /// Creates a row. The message may contain text from the server: control characters are removed,
    /// so that a terminal does not interpret them.
    #[must_use]
    pub fn new(group: Group, level: Level, check: &'static str, message: impl AsRef<str>) -> Self {
        debug_assert!(CHECKS.contains(&check), "{check} is not in CHECKS");
        Self { group, level, check, message: printable(message.as_ref()), hint: None }
    }

    /// Adds a remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.hint = Some(printable(hint.as_ref()));
        self
    }
}

/// Returns `true` for characters that a terminal obeys: control characters, and those that change
/// the text direction.
#[must_use]
pub fn is_command(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns the text with a replacement for each character that a terminal would obey.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if is_command(c) { '\u{fffd}' } else { c }).collect()
}

/// Returns bytes as text for a message, at most this many characters.
#[must_use]
pub fn excerpt(bytes: &[u8], max: usize) -> String {
    let text = String::from_utf8_lossy(bytes.get(..max * 4).unwrap_or(bytes));
    let mut short: String = text.chars().take(max).collect();
    if short.len() < text.len() || bytes.len() > max * 4 {
        short.push_str("...");
    }
    printable(&short)
}

/// The names of all checks. `docs/guide/verify.md` describes each; a test compares the two.
pub const CHECKS: &[&str] = &[
    "unreachable",
    "tls-1.3",
    "tls-1.2",
    "tls-1.1",
    "tls-1.0",
    "ssl-3.0",
    "tls-handshake",
    "http-response",
    "visit-again",
    "certificate-valid",
    "certificate-expired",
    "certificate-not-yet-valid",
    "certificate-name",
    "certificate-untrusted",
    "certificate-invalid",
    "certificate-expires-soon",
    "certificate-second",
    "chain-varies",
    "redirect-ok",
    "redirect-missing",
    "redirect-temporary",
    "redirect-not-https",
    "redirect-other-host",
    "redirect-other-port",
    "redirect-path-lost",
    "redirect-unreadable",
    "redirect-not-checked",
    "https-downgrade",
    "sts-on-plain-http",
    "pkp-on-plain-http",
    "sts-missing",
    "sts-noted",
    "sts-not-noted",
    "sts-forgotten",
    "sts-ip-address",
    "sts-second-visit",
    "sts-varies",
    "sts-duplicate-field",
    "sts-syntax",
    "sts-comma",
    "sts-colon",
    "sts-space-around-equals",
    "sts-duplicate-directive",
    "sts-unexpected-value",
    "sts-unknown-directive",
    "sts-misspelt-directive",
    "sts-max-age-colon",
    "sts-max-age-missing",
    "sts-max-age-invalid",
    "sts-max-age-quoted",
    "sts-max-age-short",
    "preload-ready",
    "preload-not-ready",
    "pkp-absent",
    "pkp-browsers",
    "pkp-noted",
    "pkp-not-noted",
    "pkp-forgotten",
    "pkp-second-visit",
    "pkp-varies",
    "pkp-duplicate-field",
    "pkp-syntax",
    "pkp-comma",
    "pkp-colon",
    "pkp-empty-directive",
    "pkp-space-around-equals",
    "pkp-duplicate-directive",
    "pkp-unexpected-value",
    "pkp-unknown-directive",
    "pkp-misspelt-directive",
    "pkp-max-age-colon",
    "pkp-max-age-missing",
    "pkp-max-age-invalid",
    "pkp-max-age-quoted",
    "pkp-max-age-long",
    "pkp-unquoted-pin",
    "pkp-misquoted-pin",
    "pkp-invalid-pin",
    "pkp-unknown-algorithm",
    "pkp-no-pins",
    "pkp-single-pin",
    "pkp-repeated-pin",
    "pkp-no-match",
    "pkp-no-backup",
    "pkp-unquoted-report-uri",
    "pkp-invalid-report-uri",
    "pkp-report-uri-own-host",
    "pkp-report-only",
    "pkp-report-only-no-uri",
    "pins-file",
    "pins-file-no-match",
    "page-status",
    "page-not-checked",
    "page-mixed-content",
    "page-insecure-form",
    "page-upgraded",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_as_a_command() {
        let finding =
            VerifyFinding::new(Group::Page, Level::Note, "page-status", "a\x1b[31mb\r\n\u{9b}c\u{202e}d").hint("e\x07");
        assert_eq!(finding.message, "a\u{fffd}[31mb\u{fffd}\u{fffd}\u{fffd}c\u{fffd}d");
        assert_eq!(finding.hint.as_deref(), Some("e\u{fffd}"));
    }

    #[test]
    fn excerpts() {
        assert_eq!(excerpt(b"short", 8), "short");
        assert_eq!(excerpt(b"12345678", 8), "12345678");
        assert_eq!(excerpt(b"123456789", 8), "12345678...");
        assert_eq!(excerpt(&[b'x'; 100], 8), "xxxxxxxx...");
        assert_eq!(excerpt("\u{fc}\u{fc}\u{fc}".as_bytes(), 2), "\u{fc}\u{fc}...");
        assert_eq!(excerpt(b"a\xff\nb", 8), "a\u{fffd}\u{fffd}b");
    }

    #[test]
    fn checks_are_told_apart() {
        for (at, check) in CHECKS.iter().enumerate() {
            assert!(!CHECKS[..at].contains(check), "{check} twice");
            assert!(
                check.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b)),
                "{check}"
            );
        }
    }
}
