//! The head of a response whose body is changed: whether it may be, and what the change does to the fields.

use http::{Method, StatusCode};

use crate::message::{Fields, Framing, Name, RequestHead, ResponseHead, has_token, tokens};

/// The reason why a body must stay as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unchanged {
    /// The status is one without a body, or one of a part.
    Status,
    /// The response is a part, or the request asks for one.
    Part,
    /// `Cache-Control: no-transform`, in the request or the response.
    NoTransform,
    /// A digest or a signature in the head is for the body as it is.
    Digest,
    /// The connection changes its protocol, or the method is CONNECT.
    Upgrade,
    /// gRPC has a framing of its own.
    Grpc,
}

impl Unchanged {
    /// The reason in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Status => "the status has no whole body",
            Self::Part => "it is a part, or the request asks for one",
            Self::NoTransform => "Cache-Control has no-transform",
            Self::Digest => "a digest or a signature is for the body as it is",
            Self::Upgrade => "the connection changes its protocol",
            Self::Grpc => "gRPC has a framing of its own",
        }
    }
}

/// Fields whose values are for the body as it is (RFC 9530, RFC 9421, RFC 3230).
const BOUND_TO_BODY: [&[u8]; 5] = [b"content-digest", b"repr-digest", b"digest", b"signature", b"signature-input"];
/// Fields that a change of the body makes wrong, and that a response can do without.
const DROPPED: [&[u8]; 2] = [b"accept-ranges", b"content-md5"];

/// Judges by the request alone whether a response's body may be changed, whatever the change. The method may be HEAD: then
/// the head is judged for the GET that it describes.
///
/// # Errors
///
/// The first reason against it.
pub fn may_change_for(request: &RequestHead) -> Result<(), Unchanged> {
    if request.websocket || request.method == Method::CONNECT {
        return Err(Unchanged::Upgrade);
    }
    if is_grpc_type(request.fields.get(Name::ContentType)) {
        return Err(Unchanged::Grpc);
    }
    if request.fields.has_field(b"range") {
        return Err(Unchanged::Part);
    }
    if has_directive(&request.fields, b"no-transform") {
        return Err(Unchanged::NoTransform);
    }
    Ok(())
}

/// Judges by the response alone.
///
/// # Errors
///
/// The first reason against it.
pub fn may_change_response(response: &ResponseHead) -> Result<(), Unchanged> {
    let (status, fields) = (response.status, &response.fields);
    let is_bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    if status == StatusCode::PARTIAL_CONTENT || fields.has_field(b"content-range") {
        return Err(Unchanged::Part);
    }
    if status.is_informational() || is_bodiless {
        return Err(Unchanged::Status);
    }
    if has_directive(fields, b"no-transform") {
        return Err(Unchanged::NoTransform);
    }
    let is_bound = |name: &[u8]| BOUND_TO_BODY.iter().any(|bound| name.eq_ignore_ascii_case(bound));
    let announced = fields.get_all(Name::Trailer).flat_map(tokens);
    if fields.iter().any(|(_, name, _)| is_bound(name)) || announced.into_iter().any(is_bound) {
        return Err(Unchanged::Digest);
    }
    if is_grpc_type(fields.get(Name::ContentType)) {
        return Err(Unchanged::Grpc);
    }
    Ok(())
}

/// Does to a head what each change of a body does: its length is unknown, ranges are off, and a strong ETag becomes a
/// weak one (RFC 9110 section 8.8.3).
pub fn changed(response: &mut ResponseHead) {
    let fields = &mut response.fields;
    fields.remove_if(|name, text, _| {
        name == Name::ContentLength || DROPPED.iter().any(|dropped| text.eq_ignore_ascii_case(dropped))
    });
    weaken(fields);
    response.framing = Framing::Chunked;
}

/// Makes a strong ETag weak. Returns `true` if there was one.
pub fn weaken(fields: &mut Fields) -> bool {
    let at = fields.iter().position(|(_, name, _)| name.eq_ignore_ascii_case(b"etag"));
    let Some(at) = at else { return false };
    let tag = fields.value(&fields.list()[at]);
    if !tag.starts_with(b"\"") {
        return false;
    }
    let weak = [&b"W/"[..], tag].concat();
    fields.replace(at, &weak);
    true
}

/// Adds a name to Vary, unless it is there, or `*` is.
pub fn add_vary(fields: &mut Fields, added: &str) {
    let mut varied = fields.get_all(Name::Vary).flat_map(tokens);
    if varied.any(|name| name == b"*" || name.eq_ignore_ascii_case(added.as_bytes())) {
        return;
    }
    drop(varied);
    match fields.list().iter().rposition(|field| field.name == Name::Vary) {
        Some(at) => {
            let list = fields.value(&fields.list()[at]);
            let joined =
                if list.is_empty() { added.as_bytes().to_vec() } else { [list, b", ", added.as_bytes()].concat() };
            fields.replace(at, &joined);
        }
        None => fields.push(b"Vary", added.as_bytes()),
    }
}

/// `true` if Cache-Control has a directive.
#[must_use]
pub fn has_directive(fields: &Fields, directive: &[u8]) -> bool {
    fields.values_of(b"cache-control").any(|list| has_token(list, directive))
}

fn is_grpc_type(content_type: Option<&[u8]>) -> bool {
    let begins = |value: &[u8]| value.get(..16).is_some_and(|begin| begin.eq_ignore_ascii_case(b"application/grpc"));
    content_type.is_some_and(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(fields: &Fields) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|(_, name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn bodies_that_stay() {
        type Case<'a> = (u16, &'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)], Option<Unchanged>);
        let cases: &[Case<'_>] = &[
            (200, &[], &[("Content-Type", "text/html")], None),
            (404, &[], &[], None),
            (204, &[], &[], Some(Unchanged::Status)),
            (304, &[], &[], Some(Unchanged::Status)),
            (101, &[], &[], Some(Unchanged::Status)),
            (206, &[], &[], Some(Unchanged::Part)),
            (200, &[], &[("Content-Range", "bytes 0-1/2")], Some(Unchanged::Part)),
            (200, &[("Range", "bytes=0-1")], &[], Some(Unchanged::Part)),
            (200, &[], &[("Cache-Control", "public, No-Transform")], Some(Unchanged::NoTransform)),
            (200, &[("Cache-Control", "no-transform")], &[], Some(Unchanged::NoTransform)),
            (200, &[("Cache-Control", "no-cache")], &[("Cache-Control", "max-age=1")], None),
            (200, &[], &[("Repr-Digest", "sha-256=:x:")], Some(Unchanged::Digest)),
            (200, &[], &[("Trailer", "x, Content-Digest")], Some(Unchanged::Digest)),
            (200, &[], &[("Content-Type", "application/grpc+proto")], Some(Unchanged::Grpc)),
        ];
        for (status, request, response, want) in cases {
            let mut asked = RequestHead::default();
            asked.fields = Fields::of(request);
            let status = StatusCode::from_u16(*status).unwrap();
            let head = ResponseHead { status, fields: Fields::of(response), ..ResponseHead::default() };
            assert_eq!(
                may_change_response(&head).and_then(|()| may_change_for(&asked)).err(),
                *want,
                "{status} {response:?}"
            );
        }
    }

    #[test]
    fn heads_of_changed_bodies() {
        let own = Fields::of(&[
            ("Content-Length", "5"),
            ("Accept-Ranges", "bytes"),
            ("Content-MD5", "x"),
            ("ETag", "\"a\""),
            ("X", "y"),
        ]);
        let mut head = ResponseHead { fields: own, framing: Framing::Length(5), ..ResponseHead::default() };
        changed(&mut head);
        assert_eq!(text(&head.fields), [("ETag".into(), "W/\"a\"".into()), ("X".into(), "y".into())]);
        assert_eq!(head.framing, Framing::Chunked);
        changed(&mut head);
        assert_eq!(text(&head.fields)[0].1, "W/\"a\"");
    }

    #[test]
    fn names_in_vary() {
        let check = |before: &[(&str, &str)], after: &[&str]| {
            let mut fields = Fields::of(before);
            add_vary(&mut fields, "Accept-Encoding");
            let values: Vec<String> = text(&fields).into_iter().map(|(_, value)| value).collect();
            assert_eq!(values, after, "{before:?}");
        };
        check(&[], &["Accept-Encoding"]);
        check(&[("Vary", "Cookie")], &["Cookie, Accept-Encoding"]);
        check(&[("Vary", "")], &["Accept-Encoding"]);
        check(&[("Vary", "accept-encoding")], &["accept-encoding"]);
        check(&[("Vary", "Cookie"), ("Vary", "Accept-Encoding, X")], &["Cookie", "Accept-Encoding, X"]);
        check(&[("Vary", "*")], &["*"]);
    }
}
