//! `listen.health_path`: balancers ask whether this process takes requests.

use bytes::Bytes;
use http::{Method, StatusCode};

use super::asked::Turn;
use super::context::Context;
use super::page;
use super::reply::Reply;
use crate::upstream::ResponseBody;

/// Returns `true` if a trusted peer asks for this process's health, and not for a page of a client behind it. The host does
/// not matter: probes name addresses, or nothing.
pub(super) fn is_probe(path: &str, turn: &Turn<'_>) -> bool {
    turn.head.path() == path
        && matches!(turn.head.method, Method::GET | Method::HEAD | Method::OPTIONS)
        && turn.asked.is_trusted(turn.context)
}

/// Answers with 200 while this process serves, and with 503 once it is going away, so that balancers take it out.
pub(super) fn answer(context: &Context) -> Reply {
    let (status, body) = match context.worker.is_leaving() {
        false => (StatusCode::OK, "ok\n"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    };
    let mut head = page::answer(status);
    head.fields.push(b"Content-Type", b"text/plain; charset=utf-8");
    head.fields.push(b"Cache-Control", b"no-store");
    Reply::local(head, ResponseBody::Full(Bytes::from_static(body.as_bytes())))
}
