//! The decision about a response: compressed, and how, or not, and why.

use http::Method;

use super::accept::choose;
use super::coding::Coding;
use super::types::{TypePattern, is_event_stream};
use crate::filter::head::{Unchanged, has_directive, may_change_for, may_change_response};
use crate::message::{Name, RequestHead, ResponseHead};

/// The settings of a site: `[site.compression]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompressionRules {
    /// The codings, in the order that breaks ties.
    pub encodings: Vec<Coding>,
    /// The smallest body that is compressed, in bytes.
    pub min_size: u64,
    /// The media types that are compressed.
    pub types: Vec<TypePattern>,
    /// `true` if personal responses are compressed, too.
    pub personal: bool,
}

/// Facts about a response besides its head.
#[derive(Debug, Clone, Copy, Default)]
pub struct Circumstances {
    /// The length of the body in bytes, if it is known.
    pub length: Option<u64>,
    /// The request has a cookie that may belong to a visitor, or Authorization.
    pub is_personal: bool,
    /// The response is from the store: the same for all.
    pub is_shared: bool,
}

/// The reason why a body is sent as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Nothing may change the body.
    Unchanged(Unchanged),
    /// The method is not one whose response is compressed.
    Method,
    /// The body has a coding already.
    Encoded,
    /// The type does not gain, or there is none.
    Type,
    /// An event stream, or a body that must not be held back.
    Stream,
    /// The body is small.
    Small,
    /// The response sets a cookie, or belongs to one visitor.
    Personal,
    /// The client accepts no coding that the site offers.
    NotAccepted,
    /// Too many compressors run, or the worker is late.
    Busy,
}

impl Identity {
    /// The reason in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Unchanged(why) => why.words(),
            Self::Method => "the method is neither GET, HEAD nor POST",
            Self::Encoded => "the upstream has compressed it",
            Self::Type => "the type is not in types",
            Self::Stream => "its pieces must not wait",
            Self::Small => "the body is smaller than min_size",
            Self::Personal => "it may hold a secret of this visitor (BREACH)",
            Self::NotAccepted => "the client accepts none of the encodings",
            Self::Busy => "too many responses are being compressed",
        }
    }
}

/// Judges whether a response is one that the site compresses, for whichever client: then the choice depends on
/// Accept-Encoding, and each answer says so in Vary.
///
/// # Errors
///
/// The first reason against it.
pub fn judge_response(rules: &CompressionRules, head: &ResponseHead, known: Circumstances) -> Result<(), Identity> {
    may_change_response(head).map_err(Identity::Unchanged)?;
    let fields = &head.fields;
    if fields.has_field(b"content-encoding") {
        return Err(Identity::Encoded);
    }
    let kind = fields.get(Name::ContentType).unwrap_or_default();
    let is_unbuffered = |(_, name, value): (Name, &[u8], &[u8])| {
        name.eq_ignore_ascii_case(b"x-accel-buffering") && value.eq_ignore_ascii_case(b"no")
    };
    if is_event_stream(kind) || fields.iter().any(is_unbuffered) {
        return Err(Identity::Stream);
    }
    if !rules.types.iter().any(|pattern| pattern.matches(kind)) {
        return Err(Identity::Type);
    }
    if known.length.is_some_and(|length| length < rules.min_size) {
        return Err(Identity::Small);
    }
    if !rules.personal && fields.has(Name::SetCookie) {
        return Err(Identity::Personal);
    }
    Ok(())
}

/// Chooses the coding of a response that [`judge_response`] has found fit.
///
/// # Errors
///
/// The first reason against each.
pub fn judge(
    rules: &CompressionRules,
    request: &RequestHead,
    head: &ResponseHead,
    known: Circumstances,
) -> Result<Coding, Identity> {
    if !matches!(request.method, Method::GET | Method::HEAD | Method::POST) {
        return Err(Identity::Method);
    }
    may_change_for(request).map_err(Identity::Unchanged)?;
    // What is stored, or declared to be for everybody, has no secret of one visitor.
    let is_public = known.is_shared || has_directive(&head.fields, b"public");
    if known.is_personal && !rules.personal && !is_public {
        return Err(Identity::Personal);
    }
    choose(&request.fields, &rules.encodings).ok_or(Identity::NotAccepted)
}

#[cfg(test)]
mod tests {
    use super::super::types::usual_types;
    use super::*;
    use crate::message::Fields;
    use http::StatusCode;

    fn rules() -> CompressionRules {
        CompressionRules { encodings: Coding::ALL.to_vec(), min_size: 1024, types: usual_types(), personal: false }
    }

    fn response(list: &[(&str, &str)]) -> ResponseHead {
        ResponseHead { status: StatusCode::OK, fields: Fields::of(list), ..ResponseHead::default() }
    }

    #[test]
    fn responses() {
        let html = ("Content-Type", "text/html");
        let large = Circumstances { length: Some(5000), ..Circumstances::default() };
        for (list, known, want) in [
            (vec![html], large, None),
            (vec![html], Circumstances::default(), None),
            (vec![html], Circumstances { length: Some(1024), ..large }, None),
            (vec![html], Circumstances { length: Some(1023), ..large }, Some(Identity::Small)),
            (vec![], large, Some(Identity::Type)),
            (vec![("Content-Type", "image/png")], large, Some(Identity::Type)),
            (vec![("Content-Type", "text/event-stream")], large, Some(Identity::Stream)),
            (vec![html, ("X-Accel-Buffering", "no")], large, Some(Identity::Stream)),
            (vec![html, ("Content-Encoding", "gzip")], large, Some(Identity::Encoded)),
            (vec![html, ("Set-Cookie", "a=b")], large, Some(Identity::Personal)),
            (vec![html, ("Cache-Control", "no-transform")], large, Some(Identity::Unchanged(Unchanged::NoTransform))),
        ] {
            assert_eq!(judge_response(&rules(), &response(&list), known).err(), want, "{list:?} {known:?}");
        }
        let all = CompressionRules { personal: true, ..rules() };
        assert!(judge_response(&all, &response(&[html, ("Set-Cookie", "a=b")]), large).is_ok());
    }

    #[test]
    fn requests() {
        let accepts = ("Accept-Encoding", "br");
        let html = ("Content-Type", "text/html");
        let personal = Circumstances { is_personal: true, ..Circumstances::default() };
        let check = |method: Method, request: &[(&str, &str)], head: &[(&str, &str)], known, want| {
            let mut asked = RequestHead::default();
            (asked.method, asked.fields) = (method, Fields::of(request));
            assert_eq!(judge(&rules(), &asked, &response(head), known), want);
        };
        let plain = Circumstances::default();
        check(Method::GET, &[accepts], &[html], plain, Ok(Coding::Brotli));
        check(Method::HEAD, &[accepts], &[html], plain, Ok(Coding::Brotli));
        check(Method::POST, &[accepts], &[html], plain, Ok(Coding::Brotli));
        check(Method::PUT, &[accepts], &[html], plain, Err(Identity::Method));
        check(Method::GET, &[], &[html], plain, Err(Identity::NotAccepted));
        check(Method::GET, &[accepts], &[html], personal, Err(Identity::Personal));
        check(Method::GET, &[accepts], &[html, ("Cache-Control", "public")], personal, Ok(Coding::Brotli));
        check(Method::GET, &[accepts], &[html], Circumstances { is_shared: true, ..personal }, Ok(Coding::Brotli));
        let part = Err(Identity::Unchanged(Unchanged::Part));
        check(Method::GET, &[accepts, ("Range", "bytes=0-1")], &[html], plain, part);
    }
}
