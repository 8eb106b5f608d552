//! From a request to its answer, the same for HTTP/1.1 and HTTP/2.

use std::task::{Context as TaskContext, Poll, ready};

use http::StatusCode;
use tokio::time::Instant;

use super::admit;
use super::asked::Turn;
use super::decide::{Decision, decide};
use super::local_reply::{self, reject};
use super::record::upstream_failed;
use super::rejection::Rejection;
use super::reply::Reply;
use super::snapshot::SiteOfView;
use super::why::Why;
use super::{challenge, health, tunnel};
use crate::message::{Name, RequestHead, ResponseHead};
use crate::policy::redirect::HttpsPorts;
use crate::telemetry::access::UpstreamFacts;
use crate::upstream::rewrite::{SendsBack, rewrite};
use crate::upstream::{Forwarded, Forwarding, Interim, Upstream, UpstreamError, UpstreamResponse, is_grpc};
use crate::wire::body::RequestBody;

pub(super) use super::decide::Work;

/// Answers a request if nobody else is needed for it, as for most requests without TLS. Else returns the work.
pub(super) fn answer_at_once(turn: &Turn<'_>) -> Result<Reply, Work> {
    let mut decided = decide(turn);
    if matches!(decided, Ok(Decision::Work(Work::Forward(..))))
        && turn.asked.view.shared.rates.is_some()
        && let Err(rejection) = admit::admit(turn)
    {
        decided = Err(rejection);
    }
    reply_to(decided, turn)
}

/// Answers a decision. Returns the work, if it is one for later.
pub(super) fn reply_to(decided: Result<Decision, Rejection>, turn: &Turn<'_>) -> Result<Reply, Work> {
    match decided {
        Ok(Decision::Redirect(location)) => Ok(local_reply::redirect(&location, turn)),
        Ok(Decision::Options) => Ok(local_reply::options(turn)),
        Ok(Decision::Proof(contents)) => Ok(local_reply::challenge(contents, turn)),
        Ok(Decision::Health) => Ok(health::answer(turn.context)),
        Ok(Decision::Work(work)) => Err(work),
        Err(rejection) => Ok(reject(rejection, turn.head, Some(turn.asked), turn.context)),
    }
}

/// A request that is with the upstream.
pub(super) struct Asking {
    forwarding: Forwarding,
    begin: Option<Instant>,
}

/// Asks the upstream, if that is the work and nothing needs to be waited for first, as for most requests under TLS.
pub(super) fn ask_at_once(work: Work, turn: &Turn<'_>) -> Result<Asking, Work> {
    let Turn { asked, context, alarm, .. } = *turn;
    let (Work::Forward(pool, None), Some(site)) = (&work, &asked.site) else { return Err(work) };
    let begin = context.begin();
    UpstreamFacts::note(&asked.facts, |facts| facts.asked = true);
    match pool.forward_at_once(&turn.upstream_request(site, None), alarm) {
        Some(forwarding) => Ok(Asking { forwarding, begin }),
        None => Err(work),
    }
}

impl Asking {
    /// Polls for the answer. Returns the work that is left, if the connection to the upstream turns out to be stale.
    pub(super) fn poll(
        &mut self,
        turn: &Turn<'_>,
        interim: &mut dyn Interim,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<Reply, Work>> {
        let forwarded = ready!(self.forwarding.poll(turn.alarm, interim, cx));
        let pool = self.forwarding.pool();
        Poll::Ready(match forwarded {
            Forwarded::Over(sent) => Ok(answered(sent, None, turn, pool.upstream(), self.begin)),
            Forwarded::Stale(why) => Err(Work::Forward(pool.clone(), Some(why))),
        })
    }
}

/// Does the work for an answer.
pub(super) async fn answer(work: Work, body: Option<RequestBody>, turn: &Turn<'_>, interim: &mut dyn Interim) -> Reply {
    let Turn { head, asked, context, alarm } = *turn;
    let done = match (work, &asked.site) {
        (Work::Forward(pool, stale), Some(site)) => {
            let begin = context.begin();
            UpstreamFacts::note(&asked.facts, |facts| facts.asked = true);
            let key = context.websocket_key(head);
            let websocket_key = key.as_deref();
            let upstream_request = turn.upstream_request(site, websocket_key);
            let sent = pool.send(&upstream_request, body, stale, alarm, interim).await;
            Ok(answered(sent, websocket_key, turn, pool.upstream(), begin))
        }
        (Work::Forward(..), None) => Err(Rejection::Misdirected),
        (Work::Challenge, _) => {
            let contents = Box::pin(challenge::read(head, &asked.view.shared, &context.worker.challenges)).await;
            contents.map(|contents| local_reply::challenge(contents, turn)).map_err(|error| match error {
                // Neither a challenge nor a name of a site.
                Rejection::NoChallenge if asked.site.is_none() => Rejection::Misdirected,
                other => other,
            })
        }
        (Work::Report, _) => {
            let reports = &context.worker.reports;
            let client = asked.origin.client;
            let taken = Box::pin(reports.take(head, body, client, &asked.view.shared, alarm, interim)).await;
            taken.map(|()| local_reply::report_accepted(turn))
        }
    };
    done.unwrap_or_else(|rejection| reject(rejection, head, Some(asked), context))
}

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
    if let (Some(begin), Some(now)) = (begin, begun) {
        let status = sent.as_ref().ok().map(|response| response.head.status.as_u16());
        UpstreamFacts::note(&asked.facts, |facts| {
            (facts.time, facts.status) = (Some(now.saturating_duration_since(begin)), status);
        });
    }
    let Some(site) = &asked.site else {
        return reject(Rejection::Misdirected, head, Some(asked), context);
    };
    let rejection = match sent {
        Ok(UpstreamResponse { head: mut response, body, upgraded }) => {
            let checked = check_upgrade(head, &response, key, upgraded.is_some()).and_then(|()| {
                let ports = context.worker.https_ports();
                let https = HttpsPorts { public: site.view().shared.public_https_port, listeners: &ports };
                match rewrite(&mut response, head, site, upstream, https) {
                    Some(back) => break_loop(back, turn, site, upstream),
                    None => Ok(()),
                }
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
        let hint = match back {
            SendsBack::ToItself if upstream.tls.is_some() => {
                "let the upstream serve this name instead of redirecting to it: upstream_options.host_header names the Host that it gets"
            }
            _ => "let the upstream believe X-Forwarded-Proto: docs/guide/wordpress.md has the lines for WordPress",
        };
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
