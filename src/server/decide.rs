//! The decision about a request: redirect, answer, forward or refuse.

use std::rc::Rc;

use bytes::Bytes;
use http::Method;

use super::admit;
use super::asked::Turn;
use super::cache_request::Fetch;
use super::challenge;
use super::health;
use super::rejection::Rejection;
use super::snapshot::SiteOfView;
use super::worker::EVERY_SITE;
use crate::message::{Framing, Name, TargetScheme};
use crate::mixed::policy::REPORT_PATH;
use crate::policy::Scheme;
use crate::policy::forwarded::{RequestField, SchemeSource};
use crate::policy::redirect::{self, HttpsPorts};
use crate::upstream::{Pool, UpstreamError, own_hops};
use crate::wire::body::RequestBodyError;

/// Requests of our own that a chain of proxies may show before it is a loop.
const OWN_HOPS_MAX: usize = 4;

/// pintle's decision about a request.
pub(super) enum Decision {
    /// Redirects to this location.
    Redirect(Vec<u8>),
    /// Lists the methods.
    Options,
    /// Reports the health of this process.
    Health,
    /// Proves control of a name to an ACME authority.
    Proof(Bytes),
    Work(Work),
}

/// An answer that takes time.
pub(super) enum Work {
    /// Asks the upstream. The error is that of an attempt that was made already, if one was.
    Forward(Rc<Pool>, Option<UpstreamError>),
    /// Asks the upstream for a page that may be stored, or waits for another request that does.
    Cached(Box<Fetch>),
    /// Looks for a stored page on disk first.
    Recall(Rc<Pool>),
    /// Reads the file of an ACME challenge.
    Challenge,
    /// Reads a report from the request's body.
    Report,
    /// Reads a report of http references from the request's body.
    MixedReport,
}

/// Decides about a request. A pure choice, except for the memory of redirects.
pub(super) fn decide(turn: &Turn<'_>) -> Result<Decision, Rejection> {
    let Turn { head, asked, context, .. } = *turn;
    let shared = &asked.view.shared;
    if shared.health_path.as_deref().is_some_and(|path| health::is_probe(path, turn)) {
        return Ok(Decision::Health);
    }
    // Challenges come first: their certificate need not exist yet, and their name need not be a site's.
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    let is_challenge = is_read && head.target_bytes().starts_with(challenge::PATH.as_bytes());
    if is_challenge && let Some(contents) = challenge::answered(head, shared) {
        return Ok(Decision::Proof(contents));
    }
    if is_challenge && asked.origin.scheme == Scheme::Http && (asked.site.is_some() || shared.acme_webroot.is_some()) {
        return Ok(Decision::Work(Work::Challenge));
    }
    let Some(site) = &asked.site else { return Err(Rejection::Misdirected) };
    if !context.certificate_covers(site, head) {
        return Err(Rejection::Misdirected);
    }
    // RFC 9110 section 7.4. A trusted gateway may say otherwise.
    if head.scheme == Some(TargetScheme::Http) && context.is_tls() && context.client.peer.believed.is_none() {
        return Err(Rejection::HttpOverTls);
    }
    // RFC 9110 sections 9.3.6 and 9.3.8: pintle opens no tunnels, and TRACE would show scripts what browsers hide from
    // them. An extended CONNECT is a WebSocket request by now.
    if (head.method == Method::CONNECT && !head.websocket) || head.method == Method::TRACE {
        return Err(Rejection::MethodNotAllowed);
    }
    // Reports come before the redirect: a client whose pins fail may use an http URI, as RFC 7469 section 2.1.4 advises.
    if let Some(reports) = &shared.reports
        && reports.host.as_bytes() == head.host_bytes()
        && *reports.path == *head.path()
    {
        return match head.method {
            Method::POST => Ok(Decision::Work(Work::Report)),
            _ => Err(Rejection::MethodNotAllowed),
        };
    }
    let ports = context.worker.https_ports();
    let https = HttpsPorts { public: shared.public_https_port, listeners: &ports };
    match asked.origin.scheme {
        Scheme::Http if context.is_refused(site, head) => Err(Rejection::NoCertificate),
        Scheme::Http => to_https(turn, https),
        Scheme::Https => decide_https(turn, site, https),
    }
}

fn to_https(turn: &Turn<'_>, https: HttpsPorts<'_>) -> Result<Decision, Rejection> {
    let Turn { head, asked, context, .. } = *turn;
    if asked.origin.scheme_from == SchemeSource::Listener
        && let Some(field) = loops(turn)
    {
        return Err(Rejection::SchemeNotStated(field));
    }
    if context.client.peer.proxy.is_none() {
        context.worker.untrusted.look_at(context.client.peer.address, head);
    }
    Ok(Decision::Redirect(redirect::to_https(head.host_bytes(), head.port(), head.target_bytes(), https)))
}

fn decide_https(turn: &Turn<'_>, site: &SiteOfView, https: HttpsPorts<'_>) -> Result<Decision, Rejection> {
    let Turn { head, asked, context, .. } = *turn;
    if asked.view.shared.rates.is_some() {
        admit::check_address(turn)?;
    }
    if let Some(proxy) = context.client.peer.proxy {
        context.worker.loop_guard.scheme_stated((proxy, head.host()));
    }
    if site.mixed.as_ref().is_some_and(|mixed| mixed.reports) && *head.path() == *REPORT_PATH {
        return match head.method {
            Method::POST => Ok(Decision::Work(Work::MixedReport)),
            _ => Err(Rejection::MethodNotAllowed),
        };
    }
    if let Some(canonical) = &site.canonical
        && canonical.as_bytes() != head.host_bytes()
        && !head.websocket
    {
        return Ok(Decision::Redirect(redirect::to_canonical(canonical, head.port(), head.target_bytes(), https)));
    }
    let expectation = head.fields.get(Name::Expect);
    if expectation.is_some_and(|e| !e.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Rejection::ExpectationFailed);
    }
    if own_hops(head) > OWN_HOPS_MAX {
        return Err(Rejection::Loop);
    }
    if matches!(head.framing, Framing::Length(n) if n > asked.view.shared.limits.request_body) {
        return Err(Rejection::Body(RequestBodyError::TooLarge));
    }
    // RFC 9110 section 7.6.2: the last hop that may see the request answers it.
    if head.method == Method::OPTIONS && head.fields.get(Name::MaxForwards) == Some(b"0") {
        return Ok(Decision::Options);
    }
    match asked.view.pools.get(site.index()) {
        Some(Some(pool)) => Ok(Decision::Work(Work::Forward(pool.clone(), None))),
        Some(None) => Err(Rejection::NotFound),
        None => Err(Rejection::Misdirected),
    }
}

/// Returns the field in which a trusted proxy should have stated the scheme, if the client has followed a redirect and the
/// same request came back through that proxy. A client behind a PROXY header may ask over http twice: nobody states a
/// scheme for it.
fn loops(turn: &Turn<'_>) -> Option<RequestField> {
    let Turn { head, asked, context, .. } = *turn;
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
