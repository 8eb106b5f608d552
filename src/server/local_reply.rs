//! The answers that pintle makes itself.

use bytes::Bytes;
use http::{Method, StatusCode};

use super::asked::{Asked, Turn};
use super::context::Context;
use super::page;
use super::rejection::Rejection;
use super::reply::Reply;
use super::why;
use crate::message::{RequestHead, ResponseHead};
use crate::policy::Scheme;
use crate::policy::forwarded::RequestField;
use crate::upstream::ResponseBody;

/// A redirect. To https it is always a 301, as users and scanners expect. Under https, a 308 keeps the method (RFC 9110
/// section 15.4.9).
pub(super) fn redirect(location: &[u8], turn: &Turn<'_>) -> Reply {
    let secure = turn.asked.origin.scheme == Scheme::Https;
    let keeps_method = secure && !matches!(turn.head.method, Method::GET | Method::HEAD);
    let mut response =
        page::answer(if keeps_method { StatusCode::PERMANENT_REDIRECT } else { StatusCode::MOVED_PERMANENTLY });
    response.fields.push(b"Location", location);
    reply(response, Bytes::new(), secure, turn)
}

/// The methods that pintle forwards.
pub(super) fn options(turn: &Turn<'_>) -> Reply {
    let mut response = page::answer(StatusCode::NO_CONTENT);
    response.fields.push(b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    reply(response, Bytes::new(), true, turn)
}

/// The key authorization of an ACME challenge.
pub(super) fn challenge(contents: Bytes, turn: &Turn<'_>) -> Reply {
    let mut response = page::answer(StatusCode::OK);
    response.fields.push(b"Content-Type", b"application/octet-stream");
    reply(response, contents, false, turn)
}

/// The answer to a report that was accepted.
pub(super) fn report_accepted(turn: &Turn<'_>) -> Reply {
    let secure = turn.asked.origin.scheme == Scheme::Https;
    reply(page::answer(StatusCode::NO_CONTENT), Bytes::new(), secure, turn)
}

fn reply(mut head: ResponseHead, body: Bytes, secure: bool, turn: &Turn<'_>) -> Reply {
    let Turn { asked, context, .. } = *turn;
    if context.client.peer.proxy.is_some() {
        // The answer depends on what the proxy says about the client, and the URL does not show that. A cache in between
        // would give the redirect to clients that came over https, without end.
        head.fields.push(b"Cache-Control", b"no-store");
    }
    let site = asked.site.as_ref();
    let noted = secure && asked.names_host;
    Reply {
        site: site.cloned(),
        secure,
        noted,
        pinned: noted && site.is_some_and(|site| context.may_pin(site, turn.head)),
        vary: asked.origin.decided_by.map(RequestField::scheme_field),
        ..Reply::local(head, if body.is_empty() { ResponseBody::Empty } else { ResponseBody::Full(body) })
    }
}

/// The answer to a refused request. `asked` is `None` if its head could not be read.
///
/// Policies go with it only if the request named a host, the host is a site's, and the connection's certificate covers it: a
/// client notes them for the host that it asked for (RFC 6797 section 8.1, RFC 7469 section 2.3.1).
pub(super) fn reject(rejection: Rejection, head: &RequestHead, asked: Option<&Asked>, context: &Context) -> Reply {
    context.worker.counters.rejections.increment();
    if rejection.is_slow_body() {
        context.worker.counters.bodies_too_slow.increment();
    }
    let details = asked.is_some_and(|asked| asked.sees_details(context));
    let (response, body) = page::of_rejection(&rejection, head, details);
    let scheme = asked.map_or(context.client.peer.listener, |a| a.origin.scheme);
    let view = asked.map_or_else(|| context.worker.view(), |a| a.view.clone());
    let named = asked.and_then(|a| a.site.clone());
    let secure = scheme == Scheme::Https;
    let noted = secure
        && asked.is_some_and(|a| a.names_host)
        && named.as_ref().is_some_and(|site| context.certificate_covers(site, head))
        && !rejection.is_misdirected();
    // A request for no site is answered by the rules of the connection's site.
    let site = named.or_else(|| context.site_of_connection(&view));
    Reply {
        pinned: noted && site.as_ref().is_some_and(|site| context.may_pin(site, head)),
        site,
        secure,
        noted,
        vary: asked.and_then(|a| a.origin.decided_by).map(RequestField::scheme_field),
        closes: rejection.ends_connection(),
        error: Some(rejection.cause()),
        why: why::of_rejection(&rejection),
        ..Reply::local(response, ResponseBody::Full(body))
    }
}
