//! Validation of a stale response in the background, after it was sent.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use http::{Method, StatusCode};

use super::super::asked::Turn;
use super::super::cache_request::CacheRequest;
use super::super::record::failed;
use super::super::snapshot::SiteOfView;
use super::super::worker::Worker;
use super::detached::for_clients;
use super::pump::{BodyTimes, collect};
use super::received::{OriginRequest, is_failure, retire};
use crate::cache::SiteCache;
use crate::cache::directives::Request;
use crate::cache::page::StoredResponse;
use crate::cache::page_key::PageKey;
use crate::cache::store::BackgroundPlace;
use crate::cache::stored_head::own_request;
use crate::message::{RequestHead, ResponseHead};
use crate::policy::forwarded::Origin;
use crate::upstream::{Client, Interim, Pool, UpstreamRequest};

struct IgnoredInterim;

impl Interim for IgnoredInterim {
    fn interim(&mut self, _: &ResponseHead) {}
}

/// A validation. It has its own copy of the request, whose client may leave.
struct Validation {
    cache: Arc<SiteCache>,
    worker: Rc<Worker>,
    pool: Rc<Pool>,
    site: SiteOfView,
    key: PageKey,
    generation: u64,
    head: RequestHead,
    origin: Origin,
    client: Rc<Client>,
    stored: Arc<StoredResponse>,
    /// The stored response has a successor. Requests that still have it begin no validation.
    is_replaced: Cell<bool>,
    _place: BackgroundPlace,
}

/// The end of a validation.
enum ValidationEnd {
    /// The origin has confirmed the response, or sent another one.
    Done,
    /// It has answered, but not for this response.
    Refused,
    /// It has not answered, or not to the end, or with something that is not for everybody.
    Failed,
}

impl Drop for Validation {
    fn drop(&mut self) {
        if !self.is_replaced.get() {
            self.stored.end_validation();
        }
    }
}

/// Begins to validate a stored response, unless that is under way, the origin failed just now, or too many validations are
/// under way.
pub(super) fn validate(
    cache: &Arc<SiteCache>,
    pool: &Rc<Pool>,
    wanted: &CacheRequest,
    stored: &Arc<StoredResponse>,
    turn: &Turn<'_>,
) {
    let Turn { head, asked, context, .. } = *turn;
    let worker = &context.worker;
    let (Some(site), Some(place)) = (&asked.site, cache.store.background()) else { return };
    if !stored.begin_validation(worker.clock.uptime()) {
        return;
    }
    let page = cache.store.page(&wanted.key);
    let mut head = wanted.upstream_head(head, Some(stored), page.as_ref());
    head.method = Method::GET;
    head.fields.remove_if(|_, name, _| name.eq_ignore_ascii_case(b"authorization"));
    let validation = Validation {
        cache: cache.clone(),
        worker: worker.clone(),
        pool: pool.clone(),
        site: site.clone(),
        key: wanted.key.clone(),
        generation: wanted.generation,
        head,
        origin: asked.origin.clone(),
        client: context.client.clone(),
        stored: stored.clone(),
        is_replaced: Cell::default(),
        _place: place,
    };
    tokio::task::spawn_local(async move {
        let uptime = |validation: &Validation| validation.worker.clock.uptime();
        match validation.run().await {
            ValidationEnd::Done => {}
            ValidationEnd::Refused => validation.stored.refused(uptime(&validation)),
            ValidationEnd::Failed => validation.stored.failed(uptime(&validation)),
        }
    });
}

impl Validation {
    /// Asks the origin.
    async fn run(&self) -> ValidationEnd {
        let Self { cache, worker, pool, site, key, generation, head, origin, client, stored, .. } = self;
        let (alarm, facts) = (worker.clock.alarm(), RefCell::default());
        let received = OriginRequest::begin(cache, *generation, worker);
        let request = UpstreamRequest { head, site, origin, client, websocket_key: None, facts: &facts, trace: None };
        let sent = pool.send(&request, None, None, &alarm, &mut IgnoredInterim).await;
        let response = match sent {
            Ok(response) if is_failure(response.head.status) => return ValidationEnd::Refused,
            Ok(response) => response,
            Err(error) => {
                failed(&error, &pool.upstream().label, site, worker);
                return ValidationEnd::Failed;
            }
        };
        let directives = Request::default();
        let asked = own_request(&directives);
        let Some((answer, body)) = for_clients(response, head, site, pool, worker) else {
            return ValidationEnd::Refused;
        };
        if answer.status == StatusCode::NOT_MODIFIED {
            if !stored.head.is_named_by(&answer.fields) {
                return ValidationEnd::Refused;
            }
            let updated = received.update(key, stored, &answer.fields, (&asked, &head.fields));
            self.is_replaced.set(updated.is_ok_and(|(_, was_stored)| was_stored));
            return ValidationEnd::Done;
        }
        let judged = received.judge(&answer, (&asked, &head.fields));
        retire(&cache.store, key, stored, answer.status, judged.as_ref().err().copied());
        let Ok(judged) = judged else { return ValidationEnd::Failed };
        let left = received.time_left(pool.upstream());
        let times = BodyTimes { pause: site.view().shared.limits.body_progress, left };
        match collect(body, cache.rules.max_object, times, &worker.clock).await {
            Some(body) => {
                self.is_replaced.set(received.put(key, &Arc::new(StoredResponse::new(judged, body))));
                ValidationEnd::Done
            }
            None => ValidationEnd::Failed,
        }
    }
}
