//! The header fields that clients note.

/// A header field whose value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyField {
    /// Strict-Transport-Security
    Sts,
    /// Public-Key-Pins
    Pkp,
    /// Public-Key-Pins-Report-Only
    PkpReportOnly,
}

impl PolicyField {
    /// Returns the field's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sts => "Strict-Transport-Security",
            Self::Pkp => "Public-Key-Pins",
            Self::PkpReportOnly => "Public-Key-Pins-Report-Only",
        }
    }
}
