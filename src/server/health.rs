//! `listen.health_path`: how balancers find out whether to send anybody here.

use bytes::Bytes;
use http::{Method, StatusCode};

use super::context::Context;
use super::page;
use super::reply::Reply;
use super::service::Asked;
use crate::message::RequestHead;
use crate::upstream::ResponseBody;

/// `true` if a trusted peer asks for this process's health, and not for a page of somebody behind it. The host does not
/// matter: probes name addresses, or nothing.
pub(super) fn is_probe(path: &str, head: &RequestHead, asked: &Asked, context: &Context) -> bool {
    head.path() == path
        && matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS)
        && asked.is_trusted(context)
}

/// 200 while this process serves; 503 once it is going away, so that balancers take it out.
pub(super) fn answer(context: &Context) -> Reply {
    let (status, body) = match context.worker.is_leaving() {
        false => (StatusCode::OK, "ok\n"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    };
    let mut head = page::answer(status);
    head.fields.push(b"Content-Type", b"text/plain; charset=utf-8");
    head.fields.push(b"Cache-Control", b"no-store");
    Reply {
        head,
        body: ResponseBody::Full(Bytes::from_static(body.as_bytes())),
        site: None,
        secure: false,
        noted: false,
        pinned: false,
        forwarded: false,
        grpc: false,
        vary: None,
        upgraded: None,
        closes: false,
        error: None,
        upstream_time: None,
    }
}
