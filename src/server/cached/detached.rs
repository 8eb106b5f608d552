//! A request to the origin that others wait for: if its client leaves, it continues for them, in a task of its own.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::StatusCode;
use tokio::runtime::Handle;
use tokio::task::spawn_local;

use super::super::asked::Turn;
use super::super::cache_request::Fetch;
use super::super::mixed::rewrite_references;
use super::super::record::failed;
use super::super::snapshot::SiteOfView;
use super::super::worker::Worker;
use super::leading::Leading;
use super::pump::{BodyTimes, pump};
use super::received::{OriginRequest, is_failure};
use super::reused::ON_ERROR;
use crate::cache::filling::{Filling, Outcome};
use crate::cache::page::StoredResponse;
use crate::cache::stored_head::StoredHead;
use crate::cache::storing::NotStored;
use crate::clock::Alarm;
use crate::message::{Framing, RequestHead, ResponseHead};
use crate::policy::redirect::HttpsPorts;
use crate::telemetry::access::UpstreamFacts;
use crate::upstream::rewrite::rewrite;
use crate::upstream::{Forwarded, Interim, Pool, ResponseBody, UpstreamError, UpstreamRequest, UpstreamResponse};
use crate::wire::body::Body as _;

/// The traces that a request to the origin leaves for its client meanwhile.
#[derive(Default)]
struct SendingTraces {
    /// Interim responses of the origin, until the client's connection takes them.
    interim: RefCell<Vec<ResponseHead>>,
    facts: RefCell<UpstreamFacts>,
}

impl Interim for &SendingTraces {
    fn interim(&mut self, head: &ResponseHead) {
        self.interim.borrow_mut().push(head.clone());
    }
}

/// The origin's answer, or its failure, with all that was needed to ask.
pub(super) struct OriginAnswer {
    pub(super) fetch: Box<Fetch>,
    pub(super) leading: Leading,
    pub(super) received: OriginRequest,
    site: SiteOfView,
    pub(super) sent: Result<UpstreamResponse, UpstreamError>,
}

/// A request to the origin under way. It has its own copy of all that it needs. If it is dropped early, it continues
/// for those who wait.
pub(super) struct OriginSending {
    /// `None` once it is over.
    whole: Option<Pin<Box<dyn Future<Output = OriginAnswer>>>>,
    filling: Arc<Filling>,
    traces: Rc<SendingTraces>,
}

impl OriginSending {
    /// Begins to ask.
    pub(super) fn new(fetch: Box<Fetch>, leading: Leading, site: &SiteOfView, turn: &Turn<'_>) -> Self {
        let Turn { asked, context, .. } = *turn;
        let worker = &context.worker;
        UpstreamFacts::note(&asked.facts, |facts| facts.asked = true);
        let filling = leading.filling.clone();
        let traces = Rc::new(SendingTraces { facts: asked.facts.clone(), ..SendingTraces::default() });
        let received = OriginRequest::begin(&fetch.cache, fetch.wanted.generation, worker);
        let whole = {
            let (client, origin) = (context.client.clone(), asked.origin.clone());
            let alarm = worker.clock.alarm();
            let (traces, site) = (traces.clone(), site.clone());
            let trace = asked.trace.as_deref().copied();
            async move {
                let request = UpstreamRequest {
                    head: &fetch.head,
                    site: &site,
                    origin: &origin,
                    client: &client,
                    websocket_key: None,
                    facts: &traces.facts,
                    trace: trace.as_ref(),
                };
                let sent = send(&fetch.pool, &request, &alarm, &mut &*traces).await;
                OriginAnswer { fetch, leading, received, site, sent }
            }
        };
        Self { whole: Some(Box::pin(whole)), filling, traces }
    }

    /// Waits for the answer.
    pub(super) async fn answer(mut self, turn: &Turn<'_>, interim: &mut dyn Interim) -> OriginAnswer {
        let answer = poll_fn(|cx| {
            let Some(whole) = &mut self.whole else { return Poll::Pending };
            let poll = whole.as_mut().poll(cx);
            // The record of a client that leaves has them, too.
            *turn.asked.facts.borrow_mut() = *self.traces.facts.borrow();
            self.traces.interim.borrow_mut().drain(..).for_each(|head| interim.interim(&head));
            poll
        })
        .await;
        self.whole = None;
        let is_under_way = |response: &UpstreamResponse| !response.body.is_end();
        if answer.sent.as_ref().is_ok_and(is_under_way)
            && let Some(left) = answer.received.time_left(answer.fetch.pool.upstream())
        {
            turn.alarm.cap(left);
        }
        answer
    }
}

impl Drop for OriginSending {
    fn drop(&mut self) {
        let Some(whole) = self.whole.take() else { return };
        if self.filling.is_followed() && Handle::try_current().is_ok() {
            spawn_local(async move { Box::pin(end(whole.await)).await });
        }
    }
}

/// Sends a request: at once, if a connection is at rest.
async fn send(
    pool: &Rc<Pool>,
    request: &UpstreamRequest<'_>,
    alarm: &Alarm,
    interim: &mut dyn Interim,
) -> Result<UpstreamResponse, UpstreamError> {
    let stale = match pool.forward_at_once(request, alarm) {
        Some(mut forwarding) => match poll_fn(|cx| forwarding.poll(alarm, interim, cx)).await {
            Forwarded::Over(sent) => return sent,
            Forwarded::Stale(error) => Some(error),
        },
        None => None,
    };
    Box::pin(pool.send(request, None, stale, alarm, interim)).await
}

/// Ends a request whose client has left: gives the answer to those who wait, and to the store.
async fn end(answer: OriginAnswer) {
    let OriginAnswer { fetch, leading, received, site, sent } = answer;
    let (pool, worker) = (&fetch.pool, received.worker.clone());
    let response = match sent {
        Ok(response) if !is_failure(response.head.status) || fetch.reserve(worker.clock.uptime()).is_none() => response,
        failed => return leading.resolve(failure(&fetch, failed, &site, &worker)),
    };
    let Some((head, body)) = for_clients(response, &fetch.head, &site, pool, &worker) else {
        return leading.resolve(Outcome::Released);
    };
    if head.status == StatusCode::NOT_MODIFIED {
        let confirmed = fetch.stored.as_ref().filter(|stored| stored.head.is_named_by(&head.fields));
        return leading.resolve(match confirmed.map(|stored| received.confirm(&fetch, stored, &head.fields)) {
            Some(Ok((updated, _))) => Outcome::Whole(updated, None),
            Some(Err(_)) => Outcome::Released,
            // The next one asks anew.
            None => Outcome::Abandoned,
        });
    }
    let Ok(judged) = received.judge_page(&fetch, &head) else { return leading.resolve(Outcome::Released) };
    let judged = Arc::new(judged);
    let length = if let Framing::Length(length) = head.framing { Some(length) } else { None };
    leading.resolve(Outcome::Streams(judged.clone(), length));
    let times = BodyTimes { pause: site.view().shared.limits.body_progress, left: received.time_left(pool.upstream()) };
    fill(body, leading, (received, judged), times).await;
}

/// Notes that the origin has failed. Returns what those who wait get.
fn failure(
    fetch: &Fetch,
    result: Result<UpstreamResponse, UpstreamError>,
    site: &SiteOfView,
    worker: &Worker,
) -> Outcome {
    let uptime = worker.clock.uptime();
    let reserve = fetch.reserve(uptime);
    match &result {
        Ok(_) => reserve.into_iter().for_each(|stored| stored.refused(uptime)),
        Err(error) => {
            reserve.into_iter().for_each(|stored| stored.failed(uptime));
            failed(error, &fetch.pool.upstream().label, site, worker);
        }
    }
    reserve.map_or(Outcome::Failed, |stored| Outcome::Whole(stored.clone(), Some(ON_ERROR)))
}

/// Returns a response as clients get it; `None` for a redirect that leads back to its page.
pub(super) fn for_clients(
    response: UpstreamResponse,
    request: &RequestHead,
    site: &SiteOfView,
    pool: &Pool,
    worker: &Worker,
) -> Option<(ResponseHead, ResponseBody)> {
    let UpstreamResponse { mut head, body, .. } = response;
    let ports = worker.https_ports();
    let https = HttpsPorts { public: site.view().shared.public_https_port, listeners: &ports };
    if rewrite(&mut head, request, site, pool.upstream(), https).is_some() {
        return None;
    }
    let body = rewrite_references((&mut head, body), request, site, https, worker, || None);
    Some((head, body))
}

/// Moves a body from the origin to its readers, and stores it once it is whole.
pub(super) async fn fill(
    body: ResponseBody,
    leading: Leading,
    (received, judged): (OriginRequest, Arc<StoredHead>),
    times: BodyTimes,
) {
    let worker = received.worker.clone();
    let is_whole = pump(body, &leading.filling, times, &worker.clock).await;
    match leading.filling.body().filter(|_| is_whole) {
        Some(body) => {
            // Whoever reads along needs the head no more, or has a copy of its own.
            let stored = StoredResponse::new(Arc::unwrap_or_clone(judged), body);
            _ = received.put(&leading.key, &Arc::new(stored));
        }
        None if is_whole && leading.filling.is_crowded_out() => {}
        None if is_whole => {
            leading.store.under_way.refuse(&leading.key, NotStored::TooLarge, worker.clock.uptime());
        }
        None => worker.counters.upstream_errors.increment(),
    }
    leading.filling.finish(is_whole);
}
