//! The head of an HTTP/2 request, as a head like any other.
//!
//! h2 has checked what RFC 9113 sections 8.2 and 8.3 say of names, of fields that belong to connections, and of the
//! pseudo-fields' presence and order; and it holds the body to its content-length.

use h2::ext::Protocol;
use http::Method;
use http::request::Parts;

use crate::message::{Framing, HeadFault, HeadLimits, Name, RequestHead, Version, field_fits, is_token, octets_of};

/// Translates a head; `ended` says that no body comes.
///
/// # Errors
///
/// [`HeadFault`]: what HTTP/1.1 could not say, or not say with one meaning only; or what is too large.
pub fn read(parts: &Parts, ended: bool, limits: &HeadLimits, head: &mut RequestHead) -> Result<(), HeadFault> {
    head.version = Version::Http2;
    head.keep_alive = true;
    head.method = parts.method.clone();
    for (name, value) in &parts.headers {
        head.fields.push(name.as_str().as_bytes(), value.as_bytes());
    }
    // The names and values that the client sent, as HTTP/1.1 writes them; h2 has bounded them before, more generously.
    let fields = octets_of(&parts.headers);
    let target = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    // `OPTIONS *`, too; whatever else is no path has no business in a request line (section 8.3.1).
    let is_path = target.starts_with('/') || (target == "*" && head.method == Method::OPTIONS);
    if !is_path || !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(HeadFault::Syntax("request target"));
    }
    head.set_target(target.as_bytes());
    read_host(parts, head)?;
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
    let length = lengths.next().and_then(|v| std::str::from_utf8(v).ok()?.parse().ok());
    head.framing = match length {
        _ if head.websocket || ended => Framing::None,
        Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    };
    if head.target_octets().len() > limits.request_line {
        return Err(HeadFault::TargetTooLong);
    }
    if fields + head.target_octets().len() > limits.head || parts.headers.len() > limits.fields {
        return Err(HeadFault::TooLarge);
    }
    if !head.fields.iter().all(|(_, name, value)| field_fits(name, value, limits.field)) {
        return Err(HeadFault::FieldTooLarge);
    }
    Ok(())
}

/// Octets of a head as h2 holds it.
pub(super) fn octets<B>(request: &http::Request<B>) -> usize {
    octets_of(request.headers()) + request.uri().path_and_query().map_or(0, |p| p.as_str().len())
}

/// `:authority`, or Host where there is none; and if there are both, they must agree (section 8.3.1).
fn read_host(parts: &Parts, head: &mut RequestHead) -> Result<(), HeadFault> {
    let mut hosts = head.fields.get_all(Name::Host);
    let host = hosts.next().map(<[u8]>::to_vec);
    if hosts.next().is_some() {
        return Err(HeadFault::Host(None));
    }
    drop(hosts);
    let authority = parts.uri.authority().map(|a| a.as_str().as_bytes().to_vec());
    match (authority, host) {
        (Some(authority), host) => {
            if host.is_some_and(|h| !h.eq_ignore_ascii_case(&authority)) {
                return Err(HeadFault::Host(None));
            }
            head.set_authority(&authority)
        }
        (None, Some(host)) => head.set_authority(&host),
        (None, None) => return Err(HeadFault::Host(None)),
    }
    .map_err(|e| HeadFault::Host(Some(e)))
}
