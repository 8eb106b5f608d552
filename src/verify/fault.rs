//! The ways in which header values miss their grammar: how each is called, and what to do about it.

use super::field::PolicyField;
use super::finding::{Finding, Group, Level, excerpt};

/// Characters of a value that are shown.
const SHOWN: usize = 72;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// The directive, or the value, as it came; shortened.
    pub at: String,
    /// How many directives more have it.
    pub more: usize,
}

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// No directive at all by the grammar.
    Syntax,
    /// A comma where a semicolon should be, or two values in one.
    Comma,
    /// `name: value` in place of `name=value`.
    Colon,
    /// `max-age: N`, the most frequent of these.
    MaxAgeColon,
    /// `;;`, or a semicolon at the end, in a field that allows neither.
    EmptyDirective,
    /// White space around `=`: legal in Strict-Transport-Security only.
    SpaceAroundEquals(PolicyField),
    /// A directive that may come once has come again.
    DuplicateDirective,
    /// A value where there must be none.
    UnexpectedValue,
    /// A directive that no RFC knows; clients ignore it.
    UnknownDirective,
    /// The same, but close to one that they know.
    MisspeltDirective(&'static str),
    /// No max-age.
    MaxAgeMissing,
    /// max-age is no number of seconds.
    MaxAgeInvalid,
    /// max-age as a quoted string: legal, and more than some parsers take.
    MaxAgeQuoted,
    /// A pin without quotes.
    UnquotedPin,
    /// A pin in other quotes than `"`.
    MisquotedPin,
    /// A pin that is not the base64 of 32 bytes.
    InvalidPin,
    /// A pin of another algorithm than SHA-256; clients ignore it.
    UnknownAlgorithm,
    /// A report-uri without quotes.
    UnquotedReportUri,
    /// A report-uri that no client can report to.
    InvalidReportUri,
}

impl FaultKind {
    /// Whether the RFCs have clients ignore the whole field for it (RFC 6797 section 6.1, RFC 7469 section 2.1).
    #[must_use]
    pub fn voids(self) -> bool {
        !matches!(
            self,
            Self::SpaceAroundEquals(PolicyField::Sts)
                | Self::UnknownDirective
                | Self::MisspeltDirective(_)
                | Self::MaxAgeQuoted
                | Self::UnknownAlgorithm
                | Self::InvalidReportUri
        )
    }

    fn level(self) -> Level {
        match self {
            Self::UnknownDirective | Self::MaxAgeQuoted | Self::SpaceAroundEquals(PolicyField::Sts) => Level::Note,
            _ if self.voids() => Level::Error,
            _ => Level::Warning,
        }
    }

    fn check(self, field: PolicyField) -> &'static str {
        let (sts, pkp) = match self {
            Self::Syntax => ("sts-syntax", "pkp-syntax"),
            Self::Comma => ("sts-comma", "pkp-comma"),
            Self::Colon => ("sts-colon", "pkp-colon"),
            Self::MaxAgeColon => ("sts-max-age-colon", "pkp-max-age-colon"),
            Self::EmptyDirective => ("sts-syntax", "pkp-empty-directive"),
            Self::SpaceAroundEquals(_) => ("sts-space-around-equals", "pkp-space-around-equals"),
            Self::DuplicateDirective => ("sts-duplicate-directive", "pkp-duplicate-directive"),
            Self::UnexpectedValue => ("sts-unexpected-value", "pkp-unexpected-value"),
            Self::UnknownDirective => ("sts-unknown-directive", "pkp-unknown-directive"),
            Self::MisspeltDirective(_) => ("sts-misspelt-directive", "pkp-misspelt-directive"),
            Self::MaxAgeMissing => ("sts-max-age-missing", "pkp-max-age-missing"),
            Self::MaxAgeInvalid => ("sts-max-age-invalid", "pkp-max-age-invalid"),
            Self::MaxAgeQuoted => ("sts-max-age-quoted", "pkp-max-age-quoted"),
            Self::UnquotedPin => ("sts-syntax", "pkp-unquoted-pin"),
            Self::MisquotedPin => ("sts-syntax", "pkp-misquoted-pin"),
            Self::InvalidPin => ("sts-syntax", "pkp-invalid-pin"),
            Self::UnknownAlgorithm => ("sts-syntax", "pkp-unknown-algorithm"),
            Self::UnquotedReportUri => ("sts-syntax", "pkp-unquoted-report-uri"),
            Self::InvalidReportUri => ("sts-syntax", "pkp-invalid-report-uri"),
        };
        if field == PolicyField::Sts { sts } else { pkp }
    }

    /// What it is, and what to do about it.
    fn words(self) -> (&'static str, String) {
        let (what, hint) = match self {
            Self::Syntax => ("not a directive: NAME, NAME=TOKEN or NAME=\"TEXT\"", ""),
            Self::Comma => (
                "a comma between directives; or two fields that something has joined",
                "divide directives by semicolons",
            ),
            Self::Colon => ("a colon in place of \"=\"", "write NAME=VALUE"),
            Self::MaxAgeColon => {
                ("a colon behind max-age: the field means nothing to clients", "write max-age=SECONDS")
            }
            Self::EmptyDirective => (
                "an empty directive, or a semicolon at the end, which RFC 7469 section 2.1 does not have",
                "end the value with its last directive",
            ),
            Self::SpaceAroundEquals(PolicyField::Sts) => {
                ("white space around \"=\": legal, but not all parsers take it", "")
            }
            Self::SpaceAroundEquals(_) => ("white space around \"=\"", "write NAME=VALUE without spaces"),
            Self::DuplicateDirective => ("a directive for the second time, which voids the field", "give it once"),
            Self::UnexpectedValue => ("a value for a directive that has none", "write the name alone"),
            Self::UnknownDirective => ("a directive that no client knows; ignored", ""),
            Self::MisspeltDirective(meant) => {
                return ("a directive that no client knows; ignored", format!("is {meant} meant?"));
            }
            Self::MaxAgeMissing => ("no max-age, which is required", "add max-age=SECONDS"),
            Self::MaxAgeInvalid => ("max-age is no number of seconds", "write max-age=SECONDS, digits only"),
            Self::MaxAgeQuoted => ("max-age in quotes: legal, but not all parsers take it", ""),
            Self::UnquotedPin => (
                "a pin without quotes, which voids the field: clients must not repair it",
                "write pin-sha256=\"BASE64\"",
            ),
            Self::MisquotedPin => {
                ("a pin in quotes that are none: only \" counts, and it must be closed", "write pin-sha256=\"BASE64\"")
            }
            Self::InvalidPin => (
                "no pin: not the base64, with padding, of 32 bytes",
                "`pintle pin FILE` prints the pin of a key or certificate",
            ),
            Self::UnknownAlgorithm => ("a pin of another algorithm than sha256; clients ignore it", "use pin-sha256"),
            Self::UnquotedReportUri => {
                ("a report-uri without quotes, which voids the field", "write report-uri=\"https://...\"")
            }
            Self::InvalidReportUri => {
                ("a report-uri that is no absolute http or https URI: nobody can report to it", "")
            }
        };
        (what, hint.to_owned())
    }
}

impl Fault {
    pub(super) fn new(kind: FaultKind, at: &[u8]) -> Self {
        Self { kind, at: excerpt(at, SHOWN), more: 0 }
    }

    /// The row of the table.
    #[must_use]
    pub fn finding(&self, field: PolicyField) -> Finding {
        let (what, hint) = self.kind.words();
        let mut message = what.to_owned();
        if !self.at.is_empty() {
            message = format!("{message}: {}", self.at);
        }
        if self.more > 0 {
            message = format!("{message} (and {} more)", self.more);
        }
        if field == PolicyField::PkpReportOnly {
            message = format!("report-only: {message}");
        }
        let group = if field == PolicyField::Sts { Group::Hsts } else { Group::Pins };
        let finding = Finding::new(group, self.kind.level(), self.kind.check(field), message);
        if hint.is_empty() { finding } else { finding.hint(hint) }
    }
}
