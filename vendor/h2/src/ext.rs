//! Extensions specific to the HTTP/2 protocol.

use crate::hpack::BytesStr;

use bytes::Bytes;
use std::fmt;

/// Represents the `:protocol` pseudo-header used by
/// the [Extended CONNECT Protocol].
///
/// [Extended CONNECT Protocol]: https://datatracker.ietf.org/doc/html/rfc8441#section-4
#[derive(Clone, Eq, PartialEq)]
pub struct Protocol {
    value: BytesStr,
}

impl Protocol {
    /// Converts a static string to a protocol name.
    pub const fn from_static(value: &'static str) -> Self {
        Self {
            value: BytesStr::from_static(value),
        }
    }

    /// Returns a str representation of the header.
    pub fn as_str(&self) -> &str {
        self.value.as_str()
    }

    pub(crate) fn try_from(bytes: Bytes) -> Result<Self, std::str::Utf8Error> {
        Ok(Self {
            value: BytesStr::try_from(bytes)?,
        })
    }
}

impl<'a> From<&'a str> for Protocol {
    fn from(value: &'a str) -> Self {
        Self {
            value: BytesStr::from(value),
        }
    }
}

impl AsRef<[u8]> for Protocol {
    fn as_ref(&self) -> &[u8] {
        self.value.as_ref()
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// The parts of a request's target that `http::Uri` has no room for, as they
/// came: an authority or a path that is none, or a scheme without authority.
///
/// Only requests that a server has received have this extension. Where it says
/// something, the request's `Uri` does not.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Unparsed {
    pub(crate) scheme: Option<BytesStr>,
    pub(crate) authority: Option<BytesStr>,
    pub(crate) path: Option<BytesStr>,
}

impl Unparsed {
    /// The `:scheme` pseudo-header.
    pub fn scheme(&self) -> Option<&str> {
        self.scheme.as_ref().map(BytesStr::as_str)
    }

    /// The `:authority` pseudo-header.
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_ref().map(BytesStr::as_str)
    }

    /// The `:path` pseudo-header.
    pub fn path(&self) -> Option<&str> {
        self.path.as_ref().map(BytesStr::as_str)
    }
}
