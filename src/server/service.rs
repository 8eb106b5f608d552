//! One request: which site, redirect or forward, and what comes of it. The same for HTTP/1.1 and HTTP/2.

use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::time::Instant;

pub(super) use super::asked::{Asked, read, read_refused};
use super::challenge::{self, CHALLENGES};
use super::context::Context;
use super::rejection::Rejection;
use super::reply::Reply;
use super::worker::EVERY_SITE;
use super::{health, page};
use crate::clock::Alarm;
use crate::message::{Framing, Name, RequestHead, ResponseHead, TargetScheme};
use crate::policy::forwarded::RequestField;
use crate::policy::redirect::HttpsPorts;
use crate::policy::{Scheme, redirect};
use crate::upstream::rewrite::{SendsBack, rewrite};
use crate::upstream::{
    Forwarded, Forwarding, Interim, Pool, Response, ResponseBody, Upstream, UpstreamError, UpstreamRequest, is_grpc,
    own_hops,
};
use crate::wire::body::{RequestBody, RequestBodyError};

/// Requests of our own that a chain of proxies may show before it is a loop.
const OWN_HOPS_MAX: usize = 4;

/// Answers a request at once, if nobody else is needed for it: most of what comes without TLS. Else says who is.
pub(super) fn answer_at_once(head: &RequestHead, asked: &Asked, context: &Context) -> Result<Reply, Work> {
    match decide(head, asked, context) {
        Ok(Step::Redirect(location)) => Ok(redirect_to(&location, head, asked, context)),
        Ok(Step::Options) => Ok(options(asked, context)),
        Ok(Step::Health) => Ok(health::answer(context)),
        Ok(Step::Work(work)) => Err(work),
        Err(rejection) => Ok(reject(rejection, head, Some(asked), context)),
    }
}

/// A request that the upstream has been asked without ado.
pub(super) struct Asking {
    forwarding: Forwarding,
    begin: Option<Instant>,
}

/// Asks the upstream, if that is the work and nothing needs to be waited for first: most of what comes by TLS.
pub(super) fn ask_at_once(
    work: Work,
    head: &RequestHead,
    asked: &Asked,
    context: &Context,
    alarm: &Alarm,
) -> Result<Asking, Work> {
    let (Work::Forward(pool, None), Some(site)) = (&work, &asked.site) else { return Err(work) };
    let begin = context.begin();
    let upstream_request =
        UpstreamRequest { head, site, origin: &asked.origin, client: &context.client, websocket_key: None };
    match pool.forward_at_once(&upstream_request, alarm) {
        Some(forwarding) => Ok(Asking { forwarding, begin }),
        None => Err(work),
    }
}

impl Asking {
    /// Ready with the answer, or with what is to be done for one.
    pub(super) fn poll(
        &mut self,
        head: &RequestHead,
        asked: &Asked,
        context: &Context,
        alarm: &Alarm,
        interim: &mut dyn Interim,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<Reply, Work>> {
        let forwarded = ready!(self.forwarding.poll(alarm, interim, cx));
        let pool = self.forwarding.pool();
        Poll::Ready(match forwarded {
            Forwarded::Over(sent) => Ok(answered(sent, None, head, asked, context, pool.upstream(), self.begin)),
            Forwarded::Stale(why) => Err(Work::Forward(pool.clone(), Some(why))),
        })
    }
}

/// Does what is needed for an answer.
pub(super) async fn answer(
    work: Work,
    head: &RequestHead,
    body: Option<RequestBody>,
    asked: &Asked,
    context: &Context,
    alarm: &Alarm,
    interim: &mut dyn Interim,
) -> Reply {
    let done = match (work, &asked.site) {
        (Work::Forward(pool, stale), Some(site)) => {
            let begin = context.begin();
            let key = context.websocket_key(head);
            let websocket_key = key.as_deref();
            let upstream_request =
                UpstreamRequest { head, site, origin: &asked.origin, client: &context.client, websocket_key };
            let sent = pool.send(&upstream_request, body, stale, alarm, interim).await;
            Ok(answered(sent, websocket_key, head, asked, context, pool.upstream(), begin))
        }
        (Work::Forward(..), None) => Err(Rejection::Misdirected),
        // A name that is no site's, and no challenge either.
        (Work::Challenge, _) => Box::pin(challenge::answer(head, asked, context)).await.map_err(|error| match error {
            Rejection::NoChallenge if asked.site.is_none() => Rejection::Misdirected,
            other => other,
        }),
        (Work::Report, _) => Box::pin(report(head, body, asked, context, alarm, interim)).await,
    };
    done.unwrap_or_else(|rejection| reject(rejection, head, Some(asked), context))
}

enum Step {
    Redirect(Vec<u8>),
    Options,
    Health,
    Work(Work),
}

/// What takes its time.
pub(super) enum Work {
    /// The upstream is asked; and why it has been once already, in vain, if it has.
    Forward(Rc<Pool>, Option<UpstreamError>),
    /// A file is read.
    Challenge,
    /// The body is read.
    Report,
}

/// What is to be done: a pure choice, but for the memory of redirects.
fn decide(head: &RequestHead, asked: &Asked, context: &Context) -> Result<Step, Rejection> {
    let shared = &asked.view.shared;
    if shared.health_path.as_deref().is_some_and(|path| health::is_probe(path, head, asked, context)) {
        return Ok(Step::Health);
    }
    // Before all else: the certificate that the challenge is for need not exist yet, nor the name be one of a site's.
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    let is_challenge = is_read && head.target_bytes().starts_with(CHALLENGES.as_bytes());
    if is_challenge && asked.origin.scheme == Scheme::Http && (asked.site.is_some() || has_webroot(asked)) {
        return Ok(Step::Work(Work::Challenge));
    }
    let Some(site) = &asked.site else { return Err(Rejection::Misdirected) };
    if !context.certificate_covers(site, head) {
        return Err(Rejection::Misdirected);
    }
    // RFC 9110 section 7.4, which leaves the word of trusted gateways to them.
    if head.scheme == Some(TargetScheme::Http) && context.is_tls() && context.client.peer.believed.is_none() {
        return Err(Rejection::HttpOverTls);
    }
    // RFC 9110 sections 9.3.6 and 9.3.8: no tunnels here, and no mirror for what browsers hide from scripts. An
    // extended CONNECT has been made a WebSocket request before.
    if (head.method == Method::CONNECT && !head.websocket) || head.method == Method::TRACE {
        return Err(Rejection::MethodNotAllowed);
    }
    // Before the redirect: a client whose pins fail may have been given an http URI, as RFC 7469 section 2.1.4 advises.
    if let Some(reports) = &shared.reports
        && reports.host.as_bytes() == head.host_bytes()
        && *reports.path == *head.path()
    {
        return if head.method == Method::POST {
            Ok(Step::Work(Work::Report))
        } else {
            Err(Rejection::MethodNotAllowed)
        };
    }
    let ports = context.worker.https_ports();
    let https = HttpsPorts { public: shared.public_https_port, listeners: &ports };
    if asked.origin.scheme == Scheme::Http {
        if !asked.origin.scheme_stated
            && let Some(field) = loops(head, asked, context)
        {
            return Err(Rejection::SchemeNotStated(field));
        }
        return Ok(Step::Redirect(redirect::to_https(head.host_bytes(), head.port(), head.target_bytes(), https)));
    }
    if let Some(proxy) = context.client.peer.proxy {
        context.worker.loop_guard.scheme_stated((proxy, head.host()));
    }
    if let Some(canonical) = &site.canonical
        && canonical.as_bytes() != head.host_bytes()
        && !head.websocket
    {
        return Ok(Step::Redirect(redirect::to_canonical(canonical, head.port(), head.target_bytes(), https)));
    }
    let expectation = head.fields.get(Name::Expect);
    if expectation.is_some_and(|e| !e.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Rejection::ExpectationFailed);
    }
    if own_hops(head) > OWN_HOPS_MAX {
        return Err(Rejection::Loop);
    }
    if matches!(head.framing, Framing::Length(n) if n > shared.limits.request_body) {
        return Err(Rejection::Body(RequestBodyError::TooLarge));
    }
    // RFC 9110 section 7.6.2: the last hop that may see it answers itself.
    if head.method == Method::OPTIONS && head.fields.get(Name::MaxForwards) == Some(b"0") {
        return Ok(Step::Options);
    }
    match asked.view.pools.get(site.index()) {
        Some(Some(pool)) => Ok(Step::Work(Work::Forward(pool.clone(), None))),
        Some(None) => Err(Rejection::NotFound),
        None => Err(Rejection::Misdirected),
    }
}

fn has_webroot(asked: &Asked) -> bool {
    asked.view.shared.acme_webroot.is_some()
}

/// The field in which a trusted proxy should have stated the scheme, if the redirect of this request was followed, and
/// came back as this request by way of that proxy. Whom a PROXY header speaks for is no proxy that should state one: a
/// client may ask by http twice.
fn loops(head: &RequestHead, asked: &Asked, context: &Context) -> Option<RequestField> {
    let (proxy, field) = (context.client.peer.proxy?, context.client.peer.believed?);
    let proxy_and_host = (proxy, head.host());
    let agent = head.fields.get(Name::UserAgent);
    let client_and_url = (asked.origin.client, agent, head.host(), head.target());
    let back = context.worker.loop_guard.comes_back(proxy_and_host, client_and_url);
    if back {
        context.worker.counters.loops_broken.increment();
        context.worker.warn_seldom(EVERY_SITE, "scheme not stated", || {
            let missing = field.scheme_field();
            let remedy = match field {
                RequestField::XForwarded => "make it send X-Forwarded-Proto: https for TLS, http otherwise",
                RequestField::Forwarded => "make it send Forwarded: proto=https for TLS, proto=http otherwise",
            };
            tracing::warn!(%proxy, host = head.host(), hint = remedy, "redirect loop: this trusted proxy sends no {missing}");
        });
    }
    back.then_some(field)
}

/// What the upstream has said, as an answer; or that it has said nothing of use. `begin` is when it was asked.
fn answered(
    sent: Result<Response, UpstreamError>,
    key: Option<&str>,
    head: &RequestHead,
    asked: &Asked,
    context: &Context,
    upstream: &Upstream,
    begin: Option<Instant>,
) -> Reply {
    let upstream_time = begin.map(|b| b.elapsed());
    let Some(site) = &asked.site else {
        return reject(Rejection::Misdirected, head, Some(asked), context);
    };
    let rejection = match sent {
        Ok(Response { head: mut response, body, upgraded }) => {
            let checked = check_upgrade(head, &response, key, upgraded.is_some()).and_then(|()| {
                let ports = context.worker.https_ports();
                let https = HttpsPorts { public: site.view().shared.public_https_port, listeners: &ports };
                rewrite(&mut response, head, site, upstream, https).map_err(|SendsBack| {
                    context.worker.counters.loops_broken.increment();
                    Rejection::UpstreamRedirectsBack
                })
            });
            match checked {
                Ok(()) => {
                    return Reply {
                        head: response,
                        body,
                        site: Some(site.clone()),
                        secure: true,
                        noted: asked.names_host,
                        pinned: context.may_pin(site),
                        forwarded: true,
                        grpc: is_grpc(head),
                        vary: asked.origin.vary(),
                        upgraded,
                        closes: false,
                        error: None,
                        upstream_time,
                    };
                }
                Err(rejection) => rejection,
            }
        }
        Err(error) => Rejection::Upstream(error),
    };
    if let Rejection::Upstream(error) = &rejection {
        upstream_failed(error, asked, context);
    }
    let mut reply = reject(rejection, head, Some(asked), context);
    reply.upstream_time = upstream_time;
    reply
}

/// Counts a failure of the upstream, and tells of it; of each kind once in a while. What an open circuit refuses has
/// been told when it opened.
pub(super) fn upstream_failed(error: &UpstreamError, asked: &Asked, context: &Context) {
    let Some(site) = &asked.site else { return };
    if matches!(error, UpstreamError::RequestBody(_) | UpstreamError::CircuitOpen(_)) {
        return;
    }
    context.worker.counters.upstream_errors.increment();
    context.worker.warn_seldom(site.index(), error.cause(), || {
        let upstream = asked.view.pools.get(site.index()).into_iter().flatten().next();
        let upstream = upstream.map(|pool| &*pool.upstream().label).unwrap_or_default();
        tracing::warn!(site = site.label(), upstream, %error, "upstream failed");
    });
}

/// RFC 6455 section 4.1: what the upstream must answer to our own key.
fn check_upgrade(
    head: &RequestHead,
    response: &ResponseHead,
    key: Option<&str>,
    upgraded: bool,
) -> Result<(), Rejection> {
    let failed = |why| Err(Rejection::Upstream(UpstreamError::Upgrade(why)));
    if response.status == StatusCode::SWITCHING_PROTOCOLS && !upgraded {
        return failed("101 without an upgrade");
    }
    match key {
        Some(key) if head.websocket && upgraded => {
            let accept = response.fields.get(Name::SecWebsocketAccept);
            if accept == Some(super::tunnel::accept_for(key).as_bytes()) {
                Ok(())
            } else {
                failed("wrong Sec-WebSocket-Accept")
            }
        }
        _ => Ok(()),
    }
}

fn redirect_to(location: &[u8], head: &RequestHead, asked: &Asked, context: &Context) -> Reply {
    let secure = asked.origin.scheme == Scheme::Https;
    // To https always 301, as users and scanners expect. Under https, 308 keeps the method (RFC 9110 section 15.4.9).
    let keeps_method = secure && !matches!(head.method, Method::GET | Method::HEAD);
    let mut response =
        page::answer(if keeps_method { StatusCode::PERMANENT_REDIRECT } else { StatusCode::MOVED_PERMANENTLY });
    response.fields.push(b"Location", location);
    own(response, Bytes::new(), asked, secure, context)
}

fn options(asked: &Asked, context: &Context) -> Reply {
    let mut response = page::answer(StatusCode::NO_CONTENT);
    response.fields.push(b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    own(response, Bytes::new(), asked, true, context)
}

/// Takes in a report of pins that did not match.
async fn report(
    head: &RequestHead,
    body: Option<RequestBody>,
    asked: &Asked,
    context: &Context,
    alarm: &Alarm,
    interim: &mut dyn Interim,
) -> Result<Reply, Rejection> {
    if head.expects_continue() {
        interim.interim(&page::answer(StatusCode::CONTINUE));
    }
    context.worker.reports.take(body, asked.origin.client, &asked.view.shared, alarm).await?;
    let secure = asked.origin.scheme == Scheme::Https;
    Ok(own(page::answer(StatusCode::NO_CONTENT), Bytes::new(), asked, secure, context))
}

/// An answer of our own that is no refusal.
pub(super) fn own(mut head: ResponseHead, body: Bytes, asked: &Asked, secure: bool, context: &Context) -> Reply {
    if context.client.peer.proxy.is_some() {
        // It depends on what the proxy says, or fails to say, outside of the URL. A cache in between that kept it would
        // give the redirect to those who came by https, for ever.
        head.fields.push(b"Cache-Control", b"no-store");
    }
    let site = asked.site.as_ref();
    let noted = secure && asked.names_host;
    let pinned = noted && site.is_some_and(|site| context.may_pin(site));
    Reply {
        head,
        body: if body.is_empty() { ResponseBody::Empty } else { ResponseBody::Full(body) },
        site: site.cloned(),
        secure,
        noted,
        pinned,
        forwarded: false,
        grpc: false,
        vary: asked.origin.decided_by.map(RequestField::scheme_field),
        upgraded: None,
        closes: false,
        error: None,
        upstream_time: None,
    }
}

/// A refusal as an answer. `asked` is none where the request could not even be read.
///
/// Policies go with it only if the request named a host, that host is a site's, and the site is the one of this connection's
/// certificate: a client notes them for the host that it asked for (RFC 6797 section 8.1, RFC 7469 section 2.3.1).
pub(super) fn reject(rejection: Rejection, head: &RequestHead, asked: Option<&Asked>, context: &Context) -> Reply {
    context.worker.counters.rejections.increment();
    if rejection.is_slow_body() {
        context.worker.counters.bodies_too_slow.increment();
    }
    let is_trusted = asked.is_some_and(|asked| asked.is_trusted(context));
    let details = is_trusted || asked.is_some_and(|asked| asked.view.shared.error_details);
    let (response, body) = page::of_rejection(&rejection, head, details);
    let scheme = asked.map_or(context.client.peer.listener, |a| a.origin.scheme);
    let view = asked.map_or_else(|| context.worker.view(), |a| a.view.clone());
    let named = asked.and_then(|a| a.site.clone());
    let secure = scheme == Scheme::Https;
    let noted = secure
        && asked.is_some_and(|a| a.names_host)
        && named.as_ref().is_some_and(|site| context.certificate_covers(site, head))
        && !rejection.is_misdirected();
    // A request that names no site is answered by the rules of the one that the connection is for.
    let site = named.or_else(|| context.site_of_connection(&view));
    Reply {
        head: response,
        body: ResponseBody::Full(body),
        pinned: noted && site.as_ref().is_some_and(|site| context.may_pin(site)),
        site,
        secure,
        noted,
        forwarded: false,
        grpc: false,
        vary: asked.and_then(|a| a.origin.decided_by).map(RequestField::scheme_field),
        upgraded: None,
        closes: rejection.ends_connection(),
        error: Some(rejection.cause()),
        upstream_time: None,
    }
}
