//! From the upstream's response, or its failure, to an answer: names, upgrades, redirect loops.

use http::StatusCode;
use tokio::time::Instant;

use super::asked::Turn;
use super::local_reply::reject;
use super::mixed;
use super::record::upstream_failed;
use super::rejection::Rejection;
use super::reply::Reply;
use super::snapshot::SiteOfView;
use super::tunnel;
use super::why::Why;
use crate::message::{Name, RequestHead, ResponseHead};
use crate::policy::redirect::HttpsPorts;
use crate::telemetry::access::UpstreamFacts;
use crate::upstream::rewrite::{SendsBack, rewrite};
use crate::upstream::{Upstream, UpstreamError, UpstreamResponse, is_grpc};

/// Turns the upstream's response, or its failure, into an answer. `begin` is when it was asked.
pub(super) fn answered(
    sent: Result<UpstreamResponse, UpstreamError>,
    key: Option<&str>,
    turn: &Turn<'_>,
    upstream: &Upstream,
    begin: Option<Instant>,
) -> Reply {
    let Turn { head, asked, context, .. } = *turn;
    let begun = context.begin();
    note_time(&sent, turn, begin.zip(begun));
    let Some(site) = &asked.site else {
        return reject(Rejection::Misdirected, head, Some(asked), context);
    };
    let rejection = match sent {
        Ok(UpstreamResponse { head: mut response, body, upgraded }) => {
            let ports = context.worker.https_ports();
            let https = HttpsPorts { public: site.view().shared.public_https_port, listeners: &ports };
            let checked = check_upgrade(head, &response, key, upgraded.is_some()).and_then(|()| {
                match rewrite(&mut response, head, site, upstream, https) {
                    Some(back) => break_loop(back, turn, site, upstream),
                    None => Ok(()),
                }
            });
            match checked {
                Ok(()) => {
                    let body = mixed::answer((&mut response, body), turn, site, https);
                    return Reply {
                        head: response,
                        body,
                        site: Some(site.clone()),
                        secure: true,
                        noted: asked.names_host,
                        pinned: context.may_pin(site, head),
                        forwarded: true,
                        grpc: is_grpc(head),
                        stored: None,
                        vary: asked.origin.vary(),
                        upgraded,
                        closes: false,
                        error: None,
                        why: Why::default(),
                        begun,
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
    reply.begun = begun;
    reply
}

/// Notes the time that the upstream took, and the status that it answered with.
fn note_time(sent: &Result<UpstreamResponse, UpstreamError>, turn: &Turn<'_>, times: Option<(Instant, Instant)>) {
    let Some((begin, now)) = times else { return };
    let status = sent.as_ref().ok().map(|response| response.head.status.as_u16());
    let had_connection = !sent.as_ref().is_err_and(UpstreamError::is_without_connection);
    UpstreamFacts::note(&turn.asked.facts, |facts| {
        facts.status = status;
        // A refusal of pintle's own says nothing about the time that the upstream takes.
        facts.time = had_connection.then(|| now.saturating_duration_since(begin));
        facts.asked &= had_connection || facts.address.is_some() || facts.wait.is_some();
    });
}

/// Refuses a redirect of the upstream that leads back to the same page, if it leads there without end. A redirect to the
/// very URL may be right once for a client with cookies: the upstream may have noted something about its session.
fn break_loop(back: SendsBack, turn: &Turn<'_>, site: &SiteOfView, upstream: &Upstream) -> Result<(), Rejection> {
    let Turn { head, asked, context, .. } = *turn;
    let worker = &context.worker;
    let rejection = match back {
        SendsBack::ToHttp => Rejection::UpstreamRedirectsBack,
        SendsBack::ToItself => {
            let agent = head.fields.get(Name::UserAgent);
            let client_and_url = (asked.origin.client, agent, head.host(), head.target());
            if head.fields.has(Name::Cookie) && !worker.loop_guard.repeats(client_and_url) {
                return Ok(());
            }
            Rejection::UpstreamRedirectsToItself { knows_scheme: upstream.tls.is_some() }
        }
    };
    worker.counters.loops_broken.increment();
    worker.warn_seldom(site.index(), "upstream redirects back", || {
        let hint = back.hint(upstream.tls.is_some());
        tracing::warn!(
            site = site.label(),
            url = format!("https://{}{}", head.authority(), head.path()),
            upstream = upstream.label,
            hint,
            "redirect loop: the upstream redirects to the page that was asked for"
        );
    });
    Err(rejection)
}

/// Checks the upstream's answer to our own WebSocket key (RFC 6455 section 4.1).
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
            if accept == Some(tunnel::accept_for(key).as_bytes()) {
                Ok(())
            } else {
                failed("wrong Sec-WebSocket-Accept")
            }
        }
        _ => Ok(()),
    }
}
