//! Parses the heads of HTTP/1.1 messages. `httparse` reads the syntax; the framing rules are here.
//!
//! Requests are read strictly: pintle refuses a request that two parsers could read differently
//! (RFC 9112 section 11.2). Responses come from the operator's own upstream, and pintle writes them
//! anew. It therefore accepts harmless deviations (bare LF, white space before the colon), but none
//! of framing.

use std::mem::MaybeUninit;

use http::{Method, StatusCode};
use memchr::{memchr, memchr_iter};

use super::fault::HeadFault;
use super::field::{ConnectionOptions, Field, Fields, has_token, tokens};
use super::head::{Framing, RequestHead, ResponseHead, TargetScheme, Version};
use super::name::Name;

/// The most fields that the first parse has room for. [`HeadLimits::fields`] may be lower; a
/// response with more fields is parsed a second time.
const FIELDS_MAX: usize = 128;
/// The most bytes of empty lines before a request line (RFC 9112 section 2.2).
pub(super) const LEADING_EMPTY_MAX: usize = 4;

/// The limits of a request's head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes of the request line.
    pub request_line: usize,
    /// Bytes of the whole head.
    pub head: usize,
    /// Bytes of one field, name and value.
    pub field: usize,
    /// Number of fields, at most 128.
    pub fields: usize,
}

/// The limits of a response's head.
#[derive(Debug, Clone, Copy)]
pub struct ResponseLimits {
    /// Bytes of the whole head.
    pub head: usize,
    /// Bytes of one field, name and value.
    pub field: usize,
    /// Number of fields.
    pub fields: usize,
}

/// The longest name of a field, in bytes, whatever the limit of a field.
const FIELD_NAME_MAX: usize = 1024;

/// Returns `true` if a field is within `max` bytes, and its name is not too long.
#[must_use]
pub fn field_fits(name: &[u8], value: &[u8], max: usize) -> bool {
    name.len() <= FIELD_NAME_MAX && name.len() + value.len() <= max
}

/// Parses the request at the front of `buf` into `head`. Returns its length, or `None` if it is
/// incomplete.
///
/// # Errors
///
/// Returns a [`HeadFault`]. The caller answers, and closes the connection.
pub fn parse_request(buf: &[u8], limits: &HeadLimits, head: &mut RequestHead) -> Result<Option<usize>, HeadFault> {
    let skipped = leading_empty_lines(buf)?;
    let input = &buf[skipped..];
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_request_with_uninit_headers(&mut request, input, &mut slots)
        .map_err(|error| fault_of(error, input))?;
    let line_end = memchr(b'\n', input);
    if line_end.unwrap_or(input.len()) > limits.request_line {
        return Err(HeadFault::TargetTooLong);
    }
    let httparse::Status::Complete(len) = status else {
        return if input.len() > limits.head { Err(HeadFault::TooLarge) } else { Ok(None) };
    };
    if len > limits.head {
        return Err(HeadFault::TooLarge);
    }
    if request.headers.len() > limits.fields {
        return Err(HeadFault::TooMany);
    }
    if !request.headers.iter().all(|h| field_fits(h.name.as_bytes(), h.value, limits.field)) {
        return Err(HeadFault::FieldTooLarge);
    }
    every_line_ends_in_crlf(&input[..len])?;
    let version = if request.version == Some(0) { Version::Http10 } else { Version::Http11 };
    let method =
        Method::from_bytes(request.method.unwrap_or_default().as_bytes()).map_err(|_| HeadFault::Syntax("method"))?;
    let target = request.path.unwrap_or_default();

    // From here on, the fields are in `head`, at the same offsets.
    let offset = |part: &[u8]| part.as_ptr() as usize - input.as_ptr() as usize;
    let target_range = offset(target.as_bytes())..offset(target.as_bytes()) + target.len();
    head.clear();
    head.fields.set_raw(&input[..len], request.headers.len());
    for h in request.headers.iter() {
        let (name, value) = (offset(h.name.as_bytes()), offset(h.value));
        head.fields.push_range(name..name + h.name.len(), value..value + h.value.len());
    }
    head.method = method;
    head.version = version;
    read_target(head, target_range)?;
    head.framing = request_framing(head)?;
    head.read_connection();
    Ok(Some(skipped + len))
}

fn leading_empty_lines(buf: &[u8]) -> Result<usize, HeadFault> {
    let mut at = 0;
    while buf[at..].starts_with(b"\r\n") {
        at += 2;
        if at > LEADING_EMPTY_MAX {
            return Err(HeadFault::Syntax("empty lines"));
        }
    }
    // httparse would accept a bare LF here.
    if buf.get(at) == Some(&b'\n') { Err(HeadFault::Syntax("line ending")) } else { Ok(at) }
}

fn fault_of(error: httparse::Error, input: &[u8]) -> HeadFault {
    match error {
        httparse::Error::TooManyHeaders => HeadFault::TooMany,
        // The preface of HTTP/2 counts as a request of that version. Three words alone are not a
        // request.
        httparse::Error::Version if names_a_version(input) => HeadFault::Version,
        httparse::Error::HeaderName => HeadFault::Syntax("field name"),
        httparse::Error::HeaderValue => HeadFault::Syntax("field value"),
        httparse::Error::NewLine => HeadFault::Syntax("line ending"),
        _ if input.is_empty() => HeadFault::Syntax("empty"),
        _ => HeadFault::Syntax("request line"),
    }
}

fn names_a_version(input: &[u8]) -> bool {
    let line = input.split(|b| *b == b'\n').next().unwrap_or_default();
    line.split(|b| *b == b' ').nth(2).is_some_and(|word| word.starts_with(b"HTTP/"))
}

/// Refuses a bare LF. RFC 9112 section 2.2 permits it as the end of a line, but not all recipients
/// accept it.
fn every_line_ends_in_crlf(head: &[u8]) -> Result<(), HeadFault> {
    let ends_in_crlf = |at: usize| at > 0 && head[at - 1] == b'\r';
    if memchr_iter(b'\n', head).all(ends_in_crlf) { Ok(()) } else { Err(HeadFault::Syntax("line ending")) }
}

/// Reads the request target in its four forms, and the host (RFC 9112 section 3.2).
fn read_target(head: &mut RequestHead, range: std::ops::Range<usize>) -> Result<(), HeadFault> {
    let target = head.fields.raw(range.clone());
    let (start, end) = (range.start, range.end);
    let mut named = None;
    if head.method == Method::CONNECT {
        named = Some(range);
        head.clear_target();
    } else if target.first() == Some(&b'/') {
        head.read_target_range(range)?;
    } else if target == b"*" {
        if head.method != Method::OPTIONS {
            return Err(HeadFault::Syntax("request target"));
        }
        head.read_target_range(range)?;
    } else {
        let starts = |s: &[u8]| target.get(..s.len()).is_some_and(|t| t.eq_ignore_ascii_case(s));
        let (scheme, len) = if starts(b"https://") {
            (TargetScheme::Https, 8)
        } else if starts(b"http://") {
            (TargetScheme::Http, 7)
        } else {
            return Err(HeadFault::Syntax("request target"));
        };
        let path = target[len..].iter().position(|b| matches!(b, b'/' | b'?' | b'#'));
        let path = path.map_or(end, |at| start + len + at);
        named = Some(start + len..path);
        head.scheme = Some(scheme);
        match head.fields.raw(path..end).first() {
            Some(b'/') => head.read_target_range(path..end)?,
            // RFC 9112 section 3.2.1: an empty path is sent as "/".
            _ => {
                let whole = [b"/", head.fields.raw(path..end)].concat();
                head.read_target(&whole)?;
            }
        }
    }
    // A refusal carries the policies of the requested host, which must be certain.
    read_host(head, named).inspect_err(|_| head.clear_host())
}

/// Reads the host from exactly one Host field (RFC 9112 section 3.2). An absolute target must name
/// the same host: request smuggling exploits intermediaries that disagree about it.
fn read_host(head: &mut RequestHead, named: Option<std::ops::Range<usize>>) -> Result<(), HeadFault> {
    let mut hosts = head.fields.list().iter().filter(|f| f.name == Name::Host);
    let field = hosts.next().map(Field::value_range);
    if hosts.next().is_some() || (field.is_none() && head.version == Version::Http11) {
        return Err(HeadFault::Host(None));
    }
    let invalid = |e| HeadFault::Host(Some(e));
    if let Some(range) = field {
        head.set_authority_range(range).map_err(invalid)?;
    }
    if let Some(range) = named {
        let (host, port) = head.host_and_port();
        let from_field = (host.to_owned(), port);
        head.set_authority_range(range).map_err(invalid)?;
        let (host, port) = head.host_and_port();
        if !from_field.0.is_empty() && (&*from_field.0, from_field.1) != (host, port) {
            return Err(HeadFault::Host(None));
        }
    }
    Ok(())
}

/// Returns the framing of a request's body (RFC 9112 section 6.3). Refuses every doubtful one.
fn request_framing(head: &RequestHead) -> Result<Framing, HeadFault> {
    let mut codings = head.fields.get_all(Name::TransferEncoding);
    let mut lengths = head.fields.get_all(Name::ContentLength);
    let (coding, length) = (codings.next(), lengths.next());
    if codings.next().is_some() || lengths.next().is_some() {
        return Err(HeadFault::Framing("several Content-Length or Transfer-Encoding fields"));
    }
    match (coding, length) {
        (None, None) => Ok(Framing::None),
        (Some(_), Some(_)) => Err(HeadFault::Framing("both Content-Length and Transfer-Encoding")),
        (Some(_), None) if head.version == Version::Http10 => Err(HeadFault::Framing("Transfer-Encoding in HTTP/1.0")),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (Some(coding), None) => {
            let last = tokens(coding).next_back();
            let chunked = tokens(coding).filter(|t| t.eq_ignore_ascii_case(b"chunked")).count();
            match last {
                Some(last) if last.eq_ignore_ascii_case(b"chunked") && chunked == 1 => Err(HeadFault::Coding),
                _ => Err(HeadFault::Framing("Transfer-Encoding does not end in chunked")),
            }
        }
        (None, Some(length)) => match parse_length(length).ok_or(HeadFault::Framing("Content-Length"))? {
            0 => Ok(Framing::None),
            n => Ok(Framing::Length(n)),
        },
    }
}

/// Parses a Content-Length: digits only (RFC 9110 section 8.6), at most 19 of them.
#[must_use]
pub fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0, |n, digit| digit.is_ascii_digit().then(|| n * 10 + u64::from(digit - b'0')))
}

/// Returns the length that all Content-Length fields state.
///
/// # Errors
///
/// Returns [`HeadFault::Framing`] unless all state the same number.
pub fn content_length(fields: &Fields) -> Result<Option<u64>, HeadFault> {
    let mut length = None;
    let mut add = |n: Option<u64>| {
        let n = n.ok_or(HeadFault::Framing("Content-Length"))?;
        let same = length.replace(n).is_none_or(|before| before == n);
        if same { Ok(()) } else { Err(HeadFault::Framing("several Content-Length values")) }
    };
    for value in fields.get_all(Name::ContentLength) {
        match parse_length(value) {
            Some(n) => add(Some(n))?,
            // A list of identical values may be read as one (RFC 9110 section 8.6).
            None => value.split(|b| *b == b',').try_for_each(|member| add(parse_length(member.trim_ascii())))?,
        }
    }
    Ok(length)
}

/// Parses the response at the front of `buf` into `head`. Returns its length, or `None` if it is
/// incomplete.
///
/// `to_head` is true if the request was a HEAD: its response has no body, whatever the fields say.
/// Drops hop-by-hop fields and the fields that Connection names.
///
/// # Errors
///
/// Returns a [`HeadFault`]. The upstream's connection cannot be used further.
pub fn parse_response(
    buf: &[u8],
    to_head: bool,
    limits: &ResponseLimits,
    head: &mut ResponseHead,
) -> Result<Option<usize>, HeadFault> {
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    match parse_response_with(buf, to_head, limits, &mut slots, head) {
        Err(HeadFault::TooMany) if limits.fields > FIELDS_MAX => {
            let mut slots = vec![MaybeUninit::uninit(); limits.fields];
            parse_response_with(buf, to_head, limits, &mut slots, head)
        }
        parsed => parsed,
    }
}

fn parse_response_with<'b>(
    buf: &'b [u8],
    to_head: bool,
    limits: &ResponseLimits,
    slots: &mut [MaybeUninit<httparse::Header<'b>>],
    head: &mut ResponseHead,
) -> Result<Option<usize>, HeadFault> {
    let mut response = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .allow_spaces_after_header_name_in_responses(true)
        .parse_response_with_uninit_headers(&mut response, buf, slots)
        .map_err(|error| match error {
            httparse::Error::TooManyHeaders => HeadFault::TooMany,
            httparse::Error::HeaderName | httparse::Error::HeaderValue => HeadFault::Syntax("field"),
            _ => HeadFault::Syntax("status line"),
        })?;
    let httparse::Status::Complete(len) = status else {
        return if buf.len() > limits.head { Err(HeadFault::TooLarge) } else { Ok(None) };
    };
    if len > limits.head {
        return Err(HeadFault::TooLarge);
    }
    if response.headers.len() > limits.fields {
        return Err(HeadFault::TooMany);
    }
    if !response.headers.iter().all(|h| field_fits(h.name.as_bytes(), h.value, limits.field)) {
        return Err(HeadFault::FieldTooLarge);
    }
    let http11 = response.version == Some(1);
    let offset = |part: &[u8]| part.as_ptr() as usize - buf.as_ptr() as usize;
    head.clear();
    head.status = StatusCode::from_u16(response.code.unwrap_or(0)).map_err(|_| HeadFault::Syntax("status code"))?;
    head.fields.set_raw(&buf[..len], response.headers.len());
    let mut options = ConnectionOptions::default();
    for h in response.headers.iter() {
        // Nearly every response says it, and it does not pass.
        if h.value == b"keep-alive" && Name::of(h.name.as_bytes()) == Name::Connection {
            (options.any, options.keep_alive) = (true, true);
            continue;
        }
        let (name, value) = (offset(h.name.as_bytes()), offset(h.value));
        head.fields.push_range(name..name + h.name.len(), value..value + h.value.len());
    }
    // A 101 names its protocol (RFC 9110 section 15.2.2). pintle asks for no other than this one.
    let switches = head.fields.get_all(Name::Upgrade).any(|v| has_token(v, b"websocket"));
    if head.status == StatusCode::SWITCHING_PROTOCOLS && !switches {
        return Err(HeadFault::Syntax("101 without an upgrade to websocket"));
    }
    head.framing = response_framing(head, http11, to_head)?;
    head.fields.read_connection(&mut options);
    head.keep_alive = response_keeps_alive(head, options, http11, to_head);
    drop_hop_by_hop(head, options);
    Ok(Some(len))
}

/// Returns the framing of a response's body (RFC 9112 section 6.3).
fn response_framing(head: &ResponseHead, http11: bool, to_head: bool) -> Result<Framing, HeadFault> {
    let length = content_length(&head.fields)?;
    let mut codings = head.fields.get_all(Name::TransferEncoding).flat_map(tokens);
    let coding = codings.next();
    if let Some(coding) = coding {
        if !http11 || length.is_some() {
            return Err(HeadFault::Framing("Transfer-Encoding with Content-Length, or in HTTP/1.0"));
        }
        if codings.next().is_some() || !coding.eq_ignore_ascii_case(b"chunked") {
            return Err(HeadFault::Framing("a transfer coding other than chunked"));
        }
    }
    Ok(match (is_bodiless(head.status, to_head), coding, length) {
        (true, ..) => Framing::None,
        (_, Some(_), _) => Framing::Chunked,
        (.., Some(0)) => Framing::None,
        (.., Some(n)) => Framing::Length(n),
        _ => Framing::UntilClose,
    })
}

fn response_keeps_alive(head: &ResponseHead, options: ConnectionOptions, http11: bool, to_head: bool) -> bool {
    let keeps = if options.any { !options.close && (http11 || options.keep_alive) } else { http11 };
    keeps && head.framing != Framing::UntilClose && !announces_a_stray_body(head, to_head)
}

/// Returns `true` if a response without a body announces one. Its sender may send that body, which
/// pintle would read as the next response.
///
/// Content-Length is correct in answers to HEAD and in a 304, where it describes the answer to a
/// GET (RFC 9110 section
/// 8.6). In a 204 and in interim responses it is not. Transfer-Encoding may stand in a response without a body (RFC 9112
/// section 6.1), but some servers then send the last chunk.
fn announces_a_stray_body(head: &ResponseHead, to_head: bool) -> bool {
    if !is_bodiless(head.status, to_head) {
        return false;
    }
    let describes = head.status == StatusCode::NOT_MODIFIED
        || (to_head && !head.status.is_informational() && head.status != StatusCode::NO_CONTENT);
    let has_length = || head.fields.get_all(Name::ContentLength).any(|v| parse_length(v) != Some(0));
    head.fields.has(Name::TransferEncoding) || (!describes && has_length())
}

/// Returns `true` if there is no body, whatever the fields say (RFC 9112 section 6.3).
fn is_bodiless(status: StatusCode, to_head: bool) -> bool {
    to_head || status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

fn drop_hop_by_hop(head: &mut ResponseHead, options: ConnectionOptions) {
    let lengths = head.fields.get_all(Name::ContentLength).count();
    let bodiless = head.status == StatusCode::NO_CONTENT || head.status.is_informational();
    if options.names_fields {
        head.fields.mark_hop();
        head.fields.remove_named();
    }
    if lengths <= usize::from(!bodiless) && !head.fields.list().iter().any(|f| f.name.is_hop_by_hop()) {
        return;
    }
    // The caller writes its own Connection and Upgrade fields for a 101.
    let mut lengths = 0;
    head.fields.remove_if(|name, _, _| {
        if name == Name::ContentLength {
            lengths += 1;
        }
        name.is_hop_by_hop() || (name == Name::ContentLength && (lengths > 1 || bodiless))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { request_line: 200, head: 1000, field: 500, fields: 10 };

    fn request(text: &str) -> Result<Option<(RequestHead, usize)>, HeadFault> {
        let mut head = RequestHead::default();
        let len = parse_request(text.as_bytes(), &LIMITS, &mut head)?;
        Ok(len.map(|n| (head, n)))
    }

    fn accepted(text: &str) -> RequestHead {
        let (head, len) = request(text).unwrap_or_else(|e| panic!("{text:?}: {e:?}")).expect("complete");
        assert_eq!(len, text.len());
        head
    }

    #[test]
    fn a_request() {
        let head = accepted("GET /a?b=%20c HTTP/1.1\r\nHost: Blog.Example.com:8443\r\nX:  y \r\n\r\n");
        assert_eq!(
            (head.target(), head.path(), head.host(), head.port()),
            ("/a?b=%20c", "/a", "blog.example.com", Some(8443))
        );
        assert_eq!(head.fields.get(Name::Other), Some(&b"y"[..]));
        assert!(head.keep_alive);
        assert_eq!(request("GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None).map(|_: Option<()>| None));
    }

    impl PartialEq for RequestHead {
        fn eq(&self, other: &Self) -> bool {
            (&self.method, self.target(), self.host()) == (&other.method, other.target(), other.host())
        }
    }

    #[test]
    fn targets() {
        let host = "Host: a.example\r\n\r\n";
        let target = |line: &str| accepted(&format!("{line} HTTP/1.1\r\n{host}")).target().to_owned();
        assert_eq!(target("GET //evil.example/x"), "//evil.example/x");
        assert_eq!(target("GET http://a.example/x?y"), "/x?y");
        assert_eq!(target("GET HTTP://A.example"), "/");
        assert_eq!(target("GET https://a.example?q"), "/?q");
        assert_eq!(target("OPTIONS *"), "*");
        for bad in [
            "GET *",
            "GET a.example/x",
            "GET ftp://a.example/",
            "GET /a#b",
            "GET http://b.example/",
            "GET http://u@a.example/",
            "GET /\u{7f}",
        ] {
            assert!(request(&format!("{bad} HTTP/1.1\r\n{host}")).is_err(), "{bad}");
        }
    }

    /// The port that a scheme has anyway, and a trailing dot, change nothing (RFC 9110 section
    /// 4.2.3).
    #[test]
    fn one_host_by_several_names() {
        let same = |target: &str, host: &str| {
            let head = request(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).ok().flatten();
            head.map(|(head, _)| (head.host().to_owned(), head.scheme))
        };
        let https = Some(("a.example".to_owned(), Some(TargetScheme::Https)));
        for (target, host) in [
            ("https://a.example/", "a.example:443"),
            ("https://a.example:443/", "a.example"),
            ("https://a.example.:443/", "A.example"),
            ("https://a.example/", "a.example."),
            ("https://a.example:/", "a.example.:443"),
        ] {
            assert_eq!(same(target, host), https, "{target} {host}");
        }
        assert_eq!(same("http://a.example:80/", "a.example").unwrap().1, Some(TargetScheme::Http));
        assert_eq!(same("/", "a.example:443").unwrap().1, None);
        for (target, host) in [
            ("https://a.example:80/", "a.example"),
            ("http://a.example:443/", "a.example"),
            ("https://a.example:8443/", "a.example"),
            ("https://a.example:443/", "a.example:80"),
        ] {
            assert_eq!(same(target, host), None, "{target} {host}");
        }
        let mut head = accepted("GET / HTTP/1.1\r\nHost: a.example.:443\r\n\r\n");
        assert!(!head.is_same_authority(b"a.example"));
        head.drop_default_port(TargetScheme::Http);
        assert_eq!(head.authority(), "a.example:443");
        head.drop_default_port(TargetScheme::Https);
        assert_eq!(head.authority(), "a.example");
    }

    /// A refusal carries the policies of the requested host. If the host is not certain, the head
    /// has none.
    #[test]
    fn hosts_of_refused_requests() {
        let host = |text: &str| {
            let mut head = RequestHead::default();
            assert!(parse_request(text.as_bytes(), &LIMITS, &mut head).is_err(), "{text:?}");
            head.host().to_owned()
        };
        let of = |line: &str, fields: &str| host(&format!("{line} HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!(of("POST /", "Host: a\r\nContent-Length: x\r\n"), "a");
        assert_eq!(of("POST /", "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n"), "a");
        assert_eq!(of("GET /", "Host: a\r\nHost: b\r\n"), "");
        assert_eq!(of("GET https://b/", "Host: a\r\n"), "");
        assert_eq!(of("GET https://b@/", "Host: a\r\n"), "");
        assert_eq!(of("GET https://a/", "Host: x y\r\n"), "");
        assert_eq!(of("GET /a#b", "Host: a\r\n"), "");
    }

    #[test]
    fn what_two_parsers_could_read_differently() {
        let refused = |text: &str, want: HeadFault| match request(text) {
            Err(fault) => {
                assert_eq!(std::mem::discriminant(&fault), std::mem::discriminant(&want), "{text:?}: {fault:?}")
            }
            Ok(_) => panic!("{text:?} was accepted"),
        };
        let (syntax, framing, host) = (HeadFault::Syntax(""), HeadFault::Framing(""), HeadFault::Host(None));
        refused("GET / HTTP/1.1\nHost: a\n\n", syntax);
        refused("GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", syntax);
        refused("GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n", syntax);
        refused("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", syntax);
        refused("GET / HTTP/1.1\r\nHost : a\r\n\r\n", syntax);
        refused("GET / HTTP/1.1\r\n Host: a\r\n\r\n", syntax);
        refused("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", syntax);
        refused("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", syntax);
        refused("\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", syntax);
        refused("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", syntax);
        refused("GET / HTTP/2.0\r\nHost: a\r\n\r\n", HeadFault::Version);
        refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HeadFault::Version);
        refused("GET / HTTP/1.1\r\n\r\n", host);
        refused("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", host);
        refused("GET / HTTP/1.1\r\nHost:\r\n\r\n", host);
        refused("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", host);
        let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        for bad in [
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding:\r\n",
        ] {
            refused(&post(bad), framing);
        }
        refused(&post("Transfer-Encoding: gzip, chunked\r\n"), HeadFault::Coding);
        refused("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", framing);
        assert_eq!(accepted(&post("Transfer-Encoding: Chunked\r\n")).framing, Framing::Chunked);
        assert_eq!(accepted(&post("Content-Length: 007\r\n")).framing, Framing::Length(7));
    }

    #[test]
    fn limits() {
        let long = |n| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(n));
        assert!(request(&long(150)).is_ok());
        assert_eq!(request(&long(250)).unwrap_err(), HeadFault::TargetTooLong);
        assert_eq!(request(&long(250)[..230]).unwrap_err(), HeadFault::TargetTooLong);
        let many = |n| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(n));
        assert!(request(&many(9)).is_ok());
        assert_eq!(request(&many(10)).unwrap_err(), HeadFault::TooMany);
        assert_eq!(request(&many(500)).unwrap_err(), HeadFault::TooMany);
        let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(1000));
        let one = |name: usize, value: usize| format!("{}: {}\r\n\r\n", "x".repeat(name), "y".repeat(value));
        for (name, value, fits) in [(1, 499, true), (1, 500, false), (500, 0, true), (501, 0, false)] {
            let field = one(name, value);
            let asked = request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{field}"));
            assert_eq!(asked.map(|_| ()), if fits { Ok(()) } else { Err(HeadFault::FieldTooLarge) }, "{name}+{value}");
            let answered = response(&format!("HTTP/1.1 200 OK\r\n{field}"), false);
            assert_eq!(answered.map(|_| ()), if fits { Ok(()) } else { Err(HeadFault::FieldTooLarge) });
        }
        assert!(field_fits(&[b'x'; FIELD_NAME_MAX], b"", usize::MAX));
        assert!(!field_fits(&[b'x'; FIELD_NAME_MAX + 1], b"", usize::MAX));
        assert_eq!(request(&large).unwrap_err(), HeadFault::TooLarge);
    }

    #[test]
    fn connection_options() {
        let head = accepted("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\n\r\n");
        let named: Vec<bool> = head.fields.list().iter().map(Field::is_named).collect();
        assert_eq!((head.keep_alive, named), (false, vec![false, false, true]));
        assert!(!accepted("GET / HTTP/1.0\r\nHost: a\r\n\r\n").keep_alive);
        assert!(accepted("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").keep_alive);
        let upgrade = "Host: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert!(accepted(&format!("GET / HTTP/1.1\r\n{upgrade}")).websocket);
        assert!(!accepted(&format!("GET / HTTP/1.0\r\n{upgrade}")).websocket);
        assert!(!accepted("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n").websocket);
    }

    fn response(text: &str, to_head: bool) -> Result<ResponseHead, HeadFault> {
        let mut head = ResponseHead::default();
        parse_response(text.as_bytes(), to_head, &ResponseLimits { head: 2000, field: 500, fields: 200 }, &mut head)
            .map(|n| {
                assert_eq!(n, Some(text.len()), "{text:?}");
                head
            })
    }

    #[test]
    fn responses() {
        let framing = |text: &str| response(text, false).map(|h| (h.framing, h.keep_alive));
        assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), Ok((Framing::Length(5), true)));
        assert_eq!(
            framing("HTTP/1.1 200\r\nContent-Length: 5, 5\r\nConnection: close\r\n\r\n"),
            Ok((Framing::Length(5), false))
        );
        assert_eq!(framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), Ok((Framing::Chunked, true)));
        assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n"), Ok((Framing::UntilClose, false)));
        assert_eq!(framing("HTTP/1.0 200 OK\nContent-Length: 0\n\n"), Ok((Framing::None, false)));
        assert_eq!(framing("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n"), Ok((Framing::None, false)));
        assert_eq!(framing("HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n"), Ok((Framing::None, true)));
        assert_eq!(
            response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true).map(|h| h.framing),
            Ok(Framing::None)
        );
        for bad in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        ] {
            assert!(response(bad, false).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bodies_announced_where_there_are_none() {
        let check = |status: &str, fields: &str, to_head: bool, keeps: bool| {
            let text = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
            let got = response(&text, to_head).map(|h| (h.framing, h.keep_alive));
            assert_eq!(got, Ok((Framing::None, keeps)), "{text:?}, to HEAD: {to_head}");
        };
        let (some, none) = ("Content-Length: 40\r\n", "Content-Length: 0\r\n");
        for status in ["100", "103", "199", "204"] {
            for to_head in [false, true] {
                check(status, "", to_head, true);
                check(status, none, to_head, true);
                check(status, some, to_head, false);
                check(status, "Content-Length: 40, 40\r\n", to_head, false);
                check(status, "Transfer-Encoding: chunked\r\n", to_head, false);
            }
        }
        for (status, to_head) in [("304", false), ("304", true), ("200", true), ("404", true)] {
            check(status, some, to_head, true);
            check(status, "", to_head, true);
            check(status, "Transfer-Encoding: chunked\r\n", to_head, false);
        }
    }

    #[test]
    fn responses_of_many_fields() {
        let many = |n: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "A:\r\n".repeat(n));
        assert_eq!(response(&many(200), false).map(|h| h.fields.len()), Ok(200));
        for n in [201, 300] {
            assert_eq!(response(&many(n), false).err(), Some(HeadFault::TooMany), "{n}");
        }
    }

    #[test]
    fn switches_to_something_else() {
        let switch = |fields: &str| response(&format!("HTTP/1.1 101 X\r\n{fields}\r\n"), false).is_ok();
        assert!(switch("Connection: upgrade\r\nUpgrade: WebSocket\r\n"));
        assert!(!switch("") && !switch("Connection: upgrade\r\nUpgrade: h2c\r\n"));
    }

    #[test]
    fn hop_by_hop_fields_of_responses_stay() {
        let head = response(
            "HTTP/1.1 200 OK\r\nConnection: X-Own, keep-alive\r\nX-Own: 1\r\nKeep-Alive: 5\r\nContent-Length: 1\r\nContent-Length: 1\r\nX: 2\r\n\r\n",
            false,
        );
        let head = head.unwrap();
        let names: Vec<&[u8]> = head.fields.iter().map(|(_, n, _)| n).collect();
        assert_eq!(names, [&b"Content-Length"[..], b"X"]);
    }
}
