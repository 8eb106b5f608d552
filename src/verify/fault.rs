//! Grammar errors of header values: name, message and remedy of each.

use super::field::PolicyField;
use super::finding::{Group, Level, VerifyFinding, excerpt};

/// The most characters of a value that are shown.
const SHOWN: usize = 72;

/// A grammar error, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrammarFault {
    /// The kind of error.
    pub kind: FaultKind,
    /// The directive or value as sent, shortened.
    pub at: String,
    /// The number of further directives with the same error.
    pub more: usize,
}

/// The kinds of grammar errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Not a directive.
    Syntax,
    /// A comma instead of a semicolon, or two values in one.
    Comma,
    /// `name: value` instead of `name=value`.
    Colon,
    /// `max-age: N`, the most frequent of these.
    MaxAgeColon,
    /// `;;`, or a semicolon at the end, in a field that allows neither.
    EmptyDirective,
    /// White space around `=`: allowed in Strict-Transport-Security only.
    SpaceAroundEquals(PolicyField),
    /// A repeated directive that may appear once.
    DuplicateDirective,
    /// A value for a directive that takes none.
    UnexpectedValue,
    /// A directive unknown to the RFCs; clients ignore it.
    UnknownDirective,
    /// An unknown directive that resembles a known one.
    MisspeltDirective(&'static str),
    /// No max-age.
    MaxAgeMissing,
    /// max-age is not a number of seconds.
    MaxAgeInvalid,
    /// max-age as a quoted string: allowed, but some parsers reject it.
    MaxAgeQuoted,
    /// A pin without quotes.
    UnquotedPin,
    /// A pin in quotes other than `"`.
    MisquotedPin,
    /// A pin that is not the base64 of 32 bytes.
    InvalidPin,
    /// A pin with another algorithm than SHA-256; clients ignore it.
    UnknownAlgorithm,
    /// A report-uri without quotes.
    UnquotedReportUri,
    /// A report-uri that clients cannot report to.
    InvalidReportUri,
}

impl FaultKind {
    /// Returns `true` if the RFCs have clients ignore the whole field (RFC 6797 section 6.1, RFC
    /// 7469 section 2.1).
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

    /// Returns the message and the remedy, which may be empty.
    fn words(self) -> (&'static str, String) {
        let (what, hint) = match self {
            Self::Syntax => ("not a directive: expected NAME, NAME=TOKEN or NAME=\"TEXT\"", ""),
            Self::Comma => {
                ("a comma between directives, or two fields joined into one", "separate directives with semicolons")
            }
            Self::Colon => ("a colon instead of \"=\"", "write NAME=VALUE"),
            Self::MaxAgeColon => ("a colon after max-age: clients ignore the field", "write max-age=SECONDS"),
            Self::EmptyDirective => (
                "an empty directive, or a semicolon at the end, which RFC 7469 section 2.1 does not allow",
                "end the value with its last directive",
            ),
            Self::SpaceAroundEquals(PolicyField::Sts) => {
                ("white space around \"=\": allowed, but some parsers reject it", "")
            }
            Self::SpaceAroundEquals(_) => ("white space around \"=\"", "write NAME=VALUE without spaces"),
            Self::DuplicateDirective => ("a repeated directive, which voids the field", "write it once"),
            Self::UnexpectedValue => ("a value for a directive that takes none", "write the name alone"),
            Self::UnknownDirective => ("an unknown directive: clients ignore it", ""),
            Self::MisspeltDirective(meant) => {
                return ("an unknown directive: clients ignore it", format!("did you mean {meant}?"));
            }
            Self::MaxAgeMissing => ("max-age is missing, which is required", "add max-age=SECONDS"),
            Self::MaxAgeInvalid => ("max-age is not a number of seconds", "write max-age=SECONDS, digits only"),
            Self::MaxAgeQuoted => ("max-age in quotes: allowed, but some parsers reject it", ""),
            Self::UnquotedPin => ("a pin without quotes, which voids the field", "write pin-sha256=\"BASE64\""),
            Self::MisquotedPin => ("a pin in wrong quotes: write \" on both sides", "write pin-sha256=\"BASE64\""),
            Self::InvalidPin => (
                "not a pin: expected the base64, with padding, of 32 bytes",
                "`pintle pin FILE` prints the pin of a key or certificate",
            ),
            Self::UnknownAlgorithm => ("a pin with another algorithm than sha256: clients ignore it", "use pin-sha256"),
            Self::UnquotedReportUri => {
                ("a report-uri without quotes, which voids the field", "write report-uri=\"https://...\"")
            }
            Self::InvalidReportUri => {
                ("report-uri is not an absolute http or https URI: clients cannot report to it", "")
            }
        };
        (what, hint.to_owned())
    }
}

impl GrammarFault {
    pub(super) fn new(kind: FaultKind, at: &[u8]) -> Self {
        Self { kind, at: excerpt(at, SHOWN), more: 0 }
    }

    /// Returns the row of the table.
    #[must_use]
    pub fn finding(&self, field: PolicyField) -> VerifyFinding {
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
        let finding = VerifyFinding::new(group, self.kind.level(), self.kind.check(field), message);
        if hint.is_empty() { finding } else { finding.hint(hint) }
    }
}
