//! Responses of the origin: what becomes of them, and of what is stored.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use url::{Position, Url};

use super::super::asked::Turn;
use super::super::cache_note::CacheNote;
use super::super::cache_request::{Fetch, key_of};
use super::super::reply::Reply;
use super::super::worker::Worker;
use super::editors::{is_editors, learn, purge_all};
use crate::cache::SiteCache;
use crate::cache::freshness::ReceivedAt;
use crate::cache::key::{names, origin, same_page, site_names, with_target};
use crate::cache::page::StoredResponse;
use crate::cache::page_key::PageKey;
use crate::cache::profile::CacheProfile;
use crate::cache::purge::PurgeScope;
use crate::cache::store::Store;
use crate::cache::stored_head::{FOR_THE_CACHE, ForRequest, HeadArrival, StoredHead};
use crate::cache::storing::{NotStored, StoringRequest};
use crate::message::{Fields, Framing, Name, RequestHead, ResponseHead};
use crate::upstream::Upstream;

/// The most URLs, or groups, that one answer purges.
const PURGED_MAX: usize = 100;

/// `true` for statuses by which the origin fails: a stale response may take their place (RFC 5861 section 4).
pub(super) fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// A request to the origin, from its beginning on.
pub(super) struct OriginRequest {
    cache: Arc<SiteCache>,
    pub(super) worker: Rc<Worker>,
    /// The uptime of its beginning.
    begun: u64,
    generation: u64,
    epoch: u64,
}

impl OriginRequest {
    /// `generation` is that of the look at the store: what was found there, and is confirmed now, may have been purged since.
    pub(super) fn begin(cache: &Arc<SiteCache>, generation: u64, worker: &Rc<Worker>) -> Self {
        let epoch = cache.store.epoch();
        Self { cache: cache.clone(), worker: worker.clone(), begun: worker.clock.uptime(), generation, epoch }
    }

    /// Returns the rest of the upstream's total timeout.
    pub(super) fn time_left(&self, upstream: &Upstream) -> Option<Duration> {
        let elapsed = Duration::from_millis(self.worker.clock.uptime().saturating_sub(self.begun));
        upstream.total_timeout.map(|total| total.saturating_sub(elapsed))
    }

    /// The time of a response's head: now.
    fn arrival(&self) -> HeadArrival {
        let clock = &self.worker.clock;
        let (uptime, wall) = (clock.uptime(), clock.wall(clock.time()));
        let delay = u32::try_from(uptime.saturating_sub(self.begun) / 1000).unwrap_or(u32::MAX);
        HeadArrival { received: ReceivedAt { at: wall.div_euclid(1000), delay }, uptime, epoch: self.epoch }
    }

    /// Judges whether a response may be stored.
    pub(super) fn judge(
        &self,
        head: &ResponseHead,
        request: (&StoringRequest<'_>, &Fields),
    ) -> Result<StoredHead, NotStored> {
        let (asked, sent) = request;
        let rules = &self.cache.rules;
        let judged = StoredHead::of(rules, ForRequest { asked, sent }, head.status, &head.fields, self.arrival())?;
        match head.framing {
            Framing::UntilClose => Err(NotStored::Framing),
            Framing::Length(length) if length > rules.max_object => Err(NotStored::TooLarge),
            _ => Ok(judged),
        }
    }

    /// Judges the response to a request for a page, and notes the outcome for its key and its stored response.
    pub(super) fn judge_page(&self, fetch: &Fetch, head: &ResponseHead) -> Result<StoredHead, NotStored> {
        let (key, uptime) = (&fetch.wanted.key, self.worker.clock.uptime());
        let judged = self.judge(head, (&fetch.wanted.asked(&Method::GET), &fetch.head.fields));
        // An answer to credentials says nothing about the page of everybody.
        if let Some(stored) = fetch.stored.as_ref().filter(|_| !fetch.wanted.has_authorization) {
            retire(fetch.store(), key, stored, head.status, judged.as_ref().err().copied());
        }
        match &judged {
            Ok(judged) => fetch.store().under_way.accept(key, judged.is_shareable(), uptime),
            Err(reason) if !reason.is_of_request() => fetch.store().under_way.refuse(key, *reason, uptime),
            Err(_) => {}
        }
        judged
    }

    /// Judges whether a part of a response may be stored.
    pub(super) fn judge_part(
        &self,
        head: &ResponseHead,
        (asked, sent): (&StoringRequest<'_>, &Fields),
    ) -> Result<StoredHead, NotStored> {
        let request = ForRequest { asked, sent };
        let judged = StoredHead::of_part(&self.cache.rules, request, &head.fields, self.arrival())?;
        if head.framing == Framing::UntilClose { Err(NotStored::Framing) } else { Ok(judged) }
    }

    /// Stores a part of a response, unless something was purged meanwhile.
    pub(super) fn put_part(&self, key: &PageKey, head: &StoredHead, place: (Range<u64>, u64), data: &Bytes) -> bool {
        self.cache.store.put_part(key, head, (place, data), self.generation)
    }

    /// Stores a response, unless something was purged meanwhile.
    pub(super) fn put(&self, key: &PageKey, stored: &Arc<StoredResponse>) -> bool {
        self.cache.store.put(key, stored.clone(), self.generation)
    }

    /// Returns a stored response as a 304 that forbids storing has changed it, for the client of that request.
    pub(super) fn for_one(&self, stored: &StoredResponse, fields: &Fields) -> Arc<StoredResponse> {
        let head = stored.head.for_one(fields, self.arrival());
        Arc::new(StoredResponse::new(head, stored.body.clone()))
    }

    /// Updates a stored response by a 304. Returns it, and `true` if it was stored.
    pub(super) fn update(
        &self,
        key: &PageKey,
        stored: &Arc<StoredResponse>,
        fields: &Fields,
        (asked, sent): (&StoringRequest<'_>, &Fields),
    ) -> Result<(Arc<StoredResponse>, bool), NotStored> {
        let fields = stored.head.updated_fields(fields);
        let request = ForRequest { asked, sent };
        let judged = StoredHead::of(&self.cache.rules, request, stored.head.status, &fields, self.arrival());
        match judged {
            Ok(head) => {
                let updated = Arc::new(StoredResponse::new(head, stored.body.clone()));
                let was_stored = self.put(key, &updated);
                Ok((updated, was_stored))
            }
            Err(reason) => {
                self.cache.store.remove(key, stored);
                Err(reason)
            }
        }
    }

    /// Updates the stored response of a page by a 304, and notes it for its key. Returns it, and `true` if it was stored.
    pub(super) fn confirm(
        &self,
        fetch: &Fetch,
        stored: &Arc<StoredResponse>,
        fields: &Fields,
    ) -> Result<(Arc<StoredResponse>, bool), NotStored> {
        let key = &fetch.wanted.key;
        let updated = self.update(key, stored, fields, (&fetch.wanted.asked(&Method::GET), &fetch.head.fields))?;
        let is_shareable = updated.0.head.is_shareable();
        fetch.store().under_way.accept(key, is_shareable, self.worker.clock.uptime());
        Ok(updated)
    }
}

/// Drops a stored response whose page is gone, or is no longer for everybody.
pub(super) fn retire(
    store: &Store,
    key: &PageKey,
    stored: &Arc<StoredResponse>,
    status: StatusCode,
    refused: Option<NotStored>,
) {
    let is_gone = matches!(status.as_u16(), 404 | 410);
    if is_gone || matches!(refused, Some(NotStored::NoStore | NotStored::Private)) {
        store.remove(key, stored);
    }
}

/// `true` if an answer to HEAD contradicts a stored response (RFC 9111 section 4.3.5).
pub(super) fn contradicts(reply: &Reply, stored: &StoredResponse) -> bool {
    let (new, held) = (&reply.head.fields, &stored.head.fields);
    let length = crate::message::content_length(new).ok().flatten();
    let is_other = |name: &[u8]| new.value_of(name) != held.value_of(name);
    reply.head.status == StatusCode::OK
        && (is_other(b"etag")
            || is_other(b"last-modified")
            || length.is_some_and(|length| length != stored.body.len() as u64))
}

/// Finishes an answer of the origin: with Cache-Status, and without the fields that are for this cache alone.
pub(super) fn own(mut reply: Reply, turn: &Turn<'_>, note: CacheNote) -> Reply {
    if reply.forwarded {
        mark(&mut reply, note);
    }
    turn.asked.cache.set(Some(note));
    reply
}

fn mark(reply: &mut Reply, note: CacheNote) {
    let fields = &mut reply.head.fields;
    if FOR_THE_CACHE.iter().any(|own| fields.has_field(own)) {
        fields.remove_if(|_, name, _| FOR_THE_CACHE.iter().any(|own| name.eq_ignore_ascii_case(own)));
    }
    fields.push(b"Cache-Status", note.status.member().as_bytes());
}

/// Finishes an answer to a request that had nothing to do with the store. An unsafe method may have changed pages.
pub(in crate::server) fn note(reply: &mut Reply, note: CacheNote, turn: &Turn<'_>) {
    let status = reply.head.status;
    if let Some(cache) = turn.asked.site.as_ref().and_then(|site| site.cache()) {
        if cache.rules.profile == CacheProfile::WordPress {
            learn(&cache.store.editors, reply, turn);
        }
        if !is_safe(&turn.head.method) && (status.is_success() || status.is_redirection()) {
            changed(cache, reply, turn);
        }
    }
    if status != StatusCode::SWITCHING_PROTOCOLS {
        mark(reply, note);
    }
}

/// `true` for methods whose responses leave the state of the origin as it is (RFC 9110 section 9.2.1).
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// Invalidates what an unsafe method may have changed (RFC 9111 section 4.4): the target, the URLs of the same origin that
/// the answer names, and what the program's profile knows. The exact names of a site are names of one origin: the operator
/// says so.
fn changed(cache: &SiteCache, reply: &Reply, turn: &Turn<'_>) {
    let head = turn.head;
    let own = |target: &[u8]| {
        let target = target.split(|b| *b == b'#').next().unwrap_or_default();
        key_of(turn, &cache.rules.query.apply(target))
    };
    let hosts = turn.asked.site.as_ref().map(|site| site.hosts.as_slice()).unwrap_or_default();
    let is_stated = !turn.asked.view.shared.trust.is_empty();
    let change = |key: &[u8]| cache.store.invalidate(key, &same_page(key, hosts, is_stated));
    let key = own(head.target_bytes());
    change(&key);
    let others = site_names(&key, hosts);
    let known = || names(&key).chain(others.iter().map(Vec::as_slice));
    for name in [Name::Location, Name::ContentLocation] {
        let url = reply.head.fields.get(name);
        if let Some(target) = url.and_then(|url| known().find_map(|own| same_origin(url, own, head))) {
            change(&own(&target));
        }
    }
    // RFC 9875 sections 2 and 3: groups of the same origin.
    let groups = reply.head.fields.values_of(b"cache-group-invalidation").flat_map(crate::message::tokens);
    for group in groups.take(PURGED_MAX) {
        let group = group.strip_prefix(b"\"").and_then(|group| group.strip_suffix(b"\""));
        let scope = group.map(|group| PurgeScope::Group(origin(&key).to_vec(), group.to_vec()));
        scope.into_iter().for_each(|scope| _ = cache.store.purge(&scope, true));
    }
    match cache.rules.profile {
        CacheProfile::WordPress if is_editors(&cache.store.editors, reply, turn) => purge_all(&cache.store, turn),
        CacheProfile::Ghost if head.path().starts_with("/ghost/api/admin/") => {
            let listed = reply.head.fields.values_of(b"x-cache-invalidate");
            let paths = listed.flat_map(|list| list.split(|b| *b == b',')).map(<[u8]>::trim_ascii);
            for path in paths.filter(|path| path.starts_with(b"/")).take(PURGED_MAX) {
                match path.strip_suffix(b"*") {
                    Some(_) => purge_all(&cache.store, turn),
                    None => change(&with_target(&own(b"/"), path)),
                }
            }
        }
        _ => {}
    }
}

/// Returns the target of a reference (RFC 3986 section 4.2) in the answer to a request, if it has the same origin.
/// `authority` is a name of the request's.
fn same_origin(reference: &[u8], authority: &[u8], request: &RequestHead) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(reference).ok()?;
    let [authority, target] = [authority, request.target_bytes()].map(String::from_utf8_lossy);
    let base = Url::parse(&format!("https://{authority}{target}")).ok()?;
    let url = base.join(text).ok().filter(|url| url.origin() == base.origin())?;
    Some(url[Position::BeforePath..Position::AfterQuery].as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_the_same_origin() {
        let mut request = RequestHead::default();
        request.set_authority(b"a.example").unwrap();
        request.set_target(b"/x/y?z");
        for (url, want) in [
            ("/b", Some("/b")),
            ("//A.example/b", Some("/b")),
            ("https://a.example:443/b", Some("/b")),
            ("https://a.example?q", Some("/?q")),
            ("b", Some("/x/b")),
            ("../b?c", Some("/b?c")),
            ("?d", Some("/x/y?d")),
            ("", Some("/x/y?z")),
            ("https://a.example/b?c#d", Some("/b?c")),
            ("HTTPS://A.example/", Some("/")),
            ("https://a.example", Some("/")),
            ("https://a.example.net/b", None),
            ("https://a.example:8443/b", None),
            ("http://a.example/b", None),
            ("https://b.example/b", None),
            ("//b.example/b", None),
            ("mailto:a@a.example", None),
        ] {
            let found = same_origin(url.as_bytes(), b"a.example", &request);
            assert_eq!(found.as_deref(), want.map(str::as_bytes), "{url}");
        }
    }
}
