//! Translates the head of an HTTP/2 request into a head like any other.
//!
//! h2 has checked names, connection fields, and the presence and order of pseudo-fields (RFC 9113 sections 8.2 and 8.3), and
//! it compares the body with its content-length. It passes an invalid target on unchanged (vendor/README.md): pintle answers
//! it by the same rules as in HTTP/1.1.

use h2::ext::{Protocol, Unparsed};
use http::Method;
use http::request::Parts;

use crate::message::{
    Framing, HeadFault, HeadLimits, Name, RequestHead, TargetScheme, Version, bytes_of, field_fits, is_token,
    parse_length,
};

/// The bytes that a crumb of a cookie takes as a field of its own (`Cookie: ` and CRLF) beyond those when it is joined to the
/// others (`; `).
const CRUMB: usize = 8;

/// Translates a head. `ended` if no body comes.
///
/// # Errors
///
/// [`HeadFault`]: a head that HTTP/1.1 cannot express, or only ambiguously; or one that is too large.
pub fn read(parts: &Parts, ended: bool, limits: &HeadLimits, head: &mut RequestHead) -> Result<(), HeadFault> {
    head.version = Version::Http2;
    head.keep_alive = true;
    head.method = parts.method.clone();
    for (name, value) in &parts.headers {
        head.fields.push(name.as_str().as_bytes(), value.as_bytes());
    }
    let unparsed = parts.extensions.get::<Unparsed>();
    let target = unparsed.and_then(Unparsed::path).or_else(|| parts.uri.path_and_query().map(|p| p.as_str()));
    let target = target.unwrap_or("/");
    // `OPTIONS *` is valid; anything else must be a path (section 8.3.1).
    let is_path = target.starts_with('/') || (target == "*" && head.method == Method::OPTIONS);
    let path = if is_path { head.read_target(target.as_bytes()) } else { Err(HeadFault::Syntax("request target")) };
    head.scheme = read_scheme(parts, unparsed)?;
    // The host comes first: a refusal carries its policies.
    read_host(parts, unparsed, head).inspect_err(|_| head.clear_host())?;
    path?;
    if !parts.headers.keys().all(is_token) {
        return Err(HeadFault::Syntax("field name"));
    }
    // Section 8.2.1: no field value begins or ends with white space.
    if head.fields.iter().any(|(_, _, value)| value.trim_ascii().len() < value.len()) {
        return Err(HeadFault::Syntax("field value"));
    }
    let protocol = parts.extensions.get::<Protocol>();
    head.websocket = protocol.is_some_and(|p| p.as_str().eq_ignore_ascii_case("websocket"));
    let mut lengths = head.fields.get_all(Name::ContentLength);
    // The rule of HTTP/1.1: digits, and once. h2 reads an empty one as 0, and accepts two equal ones.
    let length = lengths.next().map(|value| parse_length(value).ok_or(INVALID_LENGTH)).transpose()?;
    if lengths.next().is_some() {
        return Err(INVALID_LENGTH);
    }
    head.framing = match length {
        _ if head.websocket || ended => Framing::None,
        Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    };
    if target.len() > limits.request_line {
        return Err(HeadFault::TargetTooLong);
    }
    // The size of the head as HTTP/1.1 writes it, with the crumbs of a cookie joined (section 8.2.3). h2 has a more generous
    // limit.
    let crumbs = parts.headers.get_all(http::header::COOKIE).iter().count().saturating_sub(1);
    let bytes = bytes_of(&parts.headers) - crumbs * CRUMB + target.len();
    if bytes > limits.head {
        return Err(HeadFault::TooLarge);
    }
    if parts.headers.len() - crumbs > limits.fields {
        return Err(HeadFault::TooMany);
    }
    if !head.fields.iter().all(|(_, name, value)| field_fits(name, value, limits.field)) {
        return Err(HeadFault::FieldTooLarge);
    }
    Ok(())
}

const INVALID_LENGTH: HeadFault = HeadFault::Framing("Content-Length");

/// Returns the bytes of a head as h2 holds it.
pub(super) fn bytes<B>(request: &http::Request<B>) -> usize {
    let unparsed = request.extensions().get::<Unparsed>();
    let unparsed =
        unparsed.map_or(0, |u| [u.scheme(), u.authority(), u.path()].into_iter().flatten().map(str::len).sum());
    bytes_of(request.headers()) + request.uri().path_and_query().map_or(0, |p| p.as_str().len()) + unparsed
}

/// Reads `:scheme`. Other schemes than http and https are refused.
fn read_scheme(parts: &Parts, unparsed: Option<&Unparsed>) -> Result<Option<TargetScheme>, HeadFault> {
    match unparsed.and_then(Unparsed::scheme).or_else(|| parts.uri.scheme_str()) {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => Ok(Some(TargetScheme::Https)),
        Some(scheme) if scheme.eq_ignore_ascii_case("http") => Ok(Some(TargetScheme::Http)),
        Some(_) => Err(HeadFault::Syntax("scheme")),
        None => Ok(None),
    }
}

/// Reads `:authority`, or Host if it is missing. If both are present, they must agree (section 8.3.1).
fn read_host(parts: &Parts, unparsed: Option<&Unparsed>, head: &mut RequestHead) -> Result<(), HeadFault> {
    let mut hosts = head.fields.get_all(Name::Host);
    let host = hosts.next().map(<[u8]>::to_vec);
    if hosts.next().is_some() {
        return Err(HeadFault::Host(None));
    }
    drop(hosts);
    let authority = unparsed.and_then(Unparsed::authority).or_else(|| parts.uri.authority().map(|a| a.as_str()));
    let named = match (authority, &host) {
        (Some(authority), _) => authority.as_bytes(),
        (None, Some(host)) => host,
        (None, None) => return Err(HeadFault::Host(None)),
    };
    head.set_authority(named).map_err(|e| HeadFault::Host(Some(e)))?;
    if authority.is_some() && host.is_some_and(|host| !head.is_same_authority(&host)) {
        return Err(HeadFault::Host(None));
    }
    Ok(())
}
