//! From a request to its answer, the same for HTTP/1.1 and HTTP/2.

use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, ready};

use tokio::time::Instant;

use super::admit;
use super::answered::answered;
use super::asked::Turn;
use super::decide::{Decision, decide};
use super::local_reply::{self, reject};
use super::rejection::Rejection;
use super::reply::Reply;
use super::snapshot::SiteOfView;
use super::uploads::{self, Buffered};
use super::{cached, challenge, health};
use crate::telemetry::access::UpstreamFacts;
use crate::upstream::{Forwarded, Forwarding, Interim, Pool, UpstreamError};
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
    match (decided, turn.asked.site.as_ref().and_then(SiteOfView::cache)) {
        (Ok(Decision::Work(Work::Forward(pool, None))), Some(cache)) => cached::look(cache, pool, turn),
        (decided, _) => reply_to(decided, turn),
    }
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
            Forwarded::Over(sent) => {
                let mut reply = answered(sent, None, turn, pool.upstream(), self.begin);
                note(&mut reply, turn);
                Ok(reply)
            }
            Forwarded::Stale(why) => Err(Work::Forward(pool.clone(), Some(why))),
        })
    }
}

/// Does the work for an answer.
pub(super) async fn answer(
    mut work: Work,
    body: Option<RequestBody>,
    turn: &Turn<'_>,
    interim: &mut dyn Interim,
) -> Reply {
    let Turn { head, asked, context, alarm } = *turn;
    if let (Work::Recall(pool), Some(cache)) = (&work, asked.site.as_ref().and_then(SiteOfView::cache)) {
        match Box::pin(cached::recall(cache, pool.clone(), turn)).await {
            Ok(reply) => return reply,
            Err(left) => work = left,
        }
    }
    let done = match (work, &asked.site) {
        (Work::Forward(pool, stale), Some(site)) => forward((pool, stale), body, site, turn, interim).await,
        (Work::Cached(fetch), Some(_)) => return Box::pin(cached::ask(fetch, turn, interim)).await,
        (Work::Recall(_), _) | (Work::Forward(..) | Work::Cached(_) | Work::MixedReport, None) => {
            Err(Rejection::Misdirected)
        }
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
        (Work::MixedReport, Some(site)) => {
            let reports = &context.worker.reports.mixed_content;
            let taken = Box::pin(reports.take(head, body, (asked.origin.client, site), alarm, interim)).await;
            taken.map(|()| local_reply::report_accepted(turn))
        }
    };
    done.unwrap_or_else(|rejection| reject(rejection, head, Some(asked), context))
}

/// Sends a request to the upstream, with its body as it comes, or once it is complete.
async fn forward(
    (pool, stale): (Rc<Pool>, Option<UpstreamError>),
    body: Option<RequestBody>,
    site: &SiteOfView,
    turn: &Turn<'_>,
    interim: &mut dyn Interim,
) -> Result<Reply, Rejection> {
    let Turn { head, asked, context, alarm } = *turn;
    let (buffered, body) = match body {
        Some(body) if uploads::is_buffered(head, site) => {
            let Buffered { head, body } = Box::pin(uploads::buffer(body, turn, interim)).await?;
            (Some(head), Some(body))
        }
        body => (None, body),
    };
    let begin = context.begin();
    UpstreamFacts::note(&asked.facts, |facts| facts.asked = true);
    let key = context.websocket_key(head);
    let websocket_key = key.as_deref();
    let mut upstream_request = turn.upstream_request(site, websocket_key);
    if let Some(head) = &buffered {
        upstream_request.head = head;
    }
    let sent = pool.send(&upstream_request, body, stale, alarm, interim).await;
    let mut reply = answered(sent, websocket_key, turn, pool.upstream(), begin);
    note(&mut reply, turn);
    Ok(reply)
}

/// Finishes an answer of the upstream that has nothing to do with the store of the site's cache, if it has one.
fn note(reply: &mut Reply, turn: &Turn<'_>) {
    if let Some(note) = turn.asked.cache.get().filter(|_| reply.forwarded) {
        cached::note_forwarded(reply, note, turn);
    }
}
