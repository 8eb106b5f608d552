//! The pages of pintle's own answers: small, complete, and without anything from inside.

use bytes::Bytes;
use http::StatusCode;

use crate::message::{Framing, Name, RequestHead, ResponseHead, tokens};
use crate::upstream::PSEUDONYM;

use super::rejection::Rejection;

/// Returns the answer to a refused request. With `details`, Proxy-Status names the type of error (RFC 9209 section 2.3);
/// without, only pintle.
#[must_use]
pub(super) fn of_rejection(rejection: &Rejection, request: &RequestHead, details: bool) -> (ResponseHead, Bytes) {
    let status = rejection.status();
    let (headline, text) = rejection.message();
    let (kind, body) = if wants_html(request) {
        ("text/html; charset=utf-8", html(status, headline, text))
    } else {
        ("text/plain; charset=utf-8", format!("{} {headline}\n\n{text}\n", status.as_u16()))
    };
    let mut head = answer(status);
    head.fields.push(b"Content-Type", kind.as_bytes());
    head.fields.push(b"Cache-Control", b"no-store");
    if details {
        let proxy_status = format!("{PSEUDONYM}; error={}", rejection.proxy_status());
        head.fields.push(b"Proxy-Status", proxy_status.as_bytes());
    } else {
        head.fields.push(b"Proxy-Status", PSEUDONYM.as_bytes());
    }
    if let Some(seconds) = rejection.retry_after() {
        head.fields.push(b"Retry-After", seconds.to_string().as_bytes());
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        head.fields.push(b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    }
    (head, Bytes::from(body))
}

/// Returns a head without fields.
#[must_use]
pub(super) fn answer(status: StatusCode) -> ResponseHead {
    ResponseHead { status, framing: Framing::None, keep_alive: true, ..ResponseHead::default() }
}

/// Returns `true` if the client accepts HTML by name (RFC 9110 section 12.5.1), as browsers do and most programs do not.
fn wants_html(request: &RequestHead) -> bool {
    let accepts =
        |value| tokens(value).any(|range| range.get(..9).is_some_and(|r| r.eq_ignore_ascii_case(b"text/html")));
    request.fields.get_all(Name::Accept).any(accepts)
}

/// Headlines and texts are our own; nothing of the request is in them.
fn html(status: StatusCode, headline: &str, text: &str) -> String {
    let code = status.as_u16();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{headline}</title>\n\
         <style>\n\
         :root {{ color-scheme: light dark }}\n\
         body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 18vh auto 0; padding: 0 1.5rem }}\n\
         h1 {{ font-size: 1.6rem; line-height: 1.25; margin: 0 0 .6rem }}\n\
         p {{ margin: 0 }}\n\
         small {{ display: block; margin-top: 2rem; opacity: .6 }}\n\
         </style>\n\
         <h1>{headline}</h1>\n<p>{text}</p>\n<small>Error {code}</small>\n</html>\n"
    )
}
