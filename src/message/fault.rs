//! The faults of heads.

use crate::host::InvalidHost;

/// The reason why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFault {
    /// The head does not follow the syntax of RFC 9112, or a line does not end in CRLF.
    Syntax(&'static str),
    /// The request line is longer than the limit (414).
    TargetTooLong,
    /// The head is larger than the limit (431).
    TooLarge,
    /// The head has more fields than the limit (431).
    TooMany,
    /// A field is larger than the limit, or its name is too long (431).
    FieldTooLarge,
    /// The version is neither 1.0 nor 1.1 (505).
    Version,
    /// Host is missing, repeated or invalid (400).
    Host(Option<InvalidHost>),
    /// The end of the body is not certain (400).
    Framing(&'static str),
    /// A transfer coding is not `chunked` (501).
    Coding,
}
