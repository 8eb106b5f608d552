//! The content codings that a client accepts, in four classes: each is a variant of a page.

use crate::message::Fields;

/// A class of clients. Requests that may be stored carry its value as Accept-Encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// No coding.
    #[default]
    Identity,
    /// gzip.
    Gzip,
    /// gzip and brotli.
    Brotli,
    /// gzip, brotli and zstd.
    Zstd,
}

impl Encoding {
    /// Reads the Accept-Encoding fields of a request (RFC 9110 section 12.5.3). A coding that the class implies, and the
    /// client does not accept, leads to the class below.
    #[must_use]
    pub fn of(fields: &Fields) -> Self {
        let accepts = |coding: &[u8]| accepts(fields, coding);
        match () {
            () if !accepts(b"gzip") => Self::Identity,
            () if !accepts(b"br") => Self::Gzip,
            () if !accepts(b"zstd") => Self::Brotli,
            () => Self::Zstd,
        }
    }

    /// Returns the value of Accept-Encoding for the origin.
    #[must_use]
    pub fn value(self) -> &'static [u8] {
        match self {
            Self::Identity => b"identity",
            Self::Gzip => b"gzip",
            Self::Brotli => b"br, gzip",
            Self::Zstd => b"zstd, br, gzip",
        }
    }
}

fn accepts(fields: &Fields, coding: &[u8]) -> bool {
    let (mut named, mut any) = (None, None);
    for member in fields.values_of(b"accept-encoding").flat_map(|value| value.split(|b| *b == b',')) {
        let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
        let is_accepted = weight.is_none_or(|weight| weight.iter().any(|b| (b'1'..=b'9').contains(b)));
        if name.eq_ignore_ascii_case(coding) || coding == b"gzip" && name.eq_ignore_ascii_case(b"x-gzip") {
            named = Some(is_accepted);
        } else if name == b"*" {
            any = Some(is_accepted);
        }
    }
    named.or(any).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        for (value, want) in [
            ("", Encoding::Identity),
            ("gzip, deflate, br, zstd", Encoding::Zstd),
            ("gzip;q=0.5, br", Encoding::Brotli),
            ("br,gzip", Encoding::Brotli),
            ("BR , GZip", Encoding::Brotli),
            ("*", Encoding::Zstd),
            ("*;q=0", Encoding::Identity),
            ("*, br;q=0", Encoding::Gzip),
            ("br;q=0.000, gzip", Encoding::Gzip),
            ("gzip;q=0, br, zstd", Encoding::Identity),
            ("deflate", Encoding::Identity),
            ("br", Encoding::Identity),
            ("gzip, zstd", Encoding::Gzip),
            ("x-gzip", Encoding::Gzip),
            ("gzip;q=0.001", Encoding::Gzip),
            (";;;,,gzip;foo=1;q=1,", Encoding::Gzip),
        ] {
            let mut fields = Fields::default();
            fields.push(b"Accept-Encoding", value.as_bytes());
            assert_eq!(Encoding::of(&fields), want, "{value}");
        }
        assert_eq!(Encoding::of(&Fields::default()), Encoding::Identity);
    }
}
