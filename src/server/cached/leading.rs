//! A request to the origin that others may wait for, and the response that it has in reserve.

use std::cell::Cell;
use std::sync::Arc;

use super::super::asked::Turn;
use super::super::cache_note::CacheNote;
use super::super::cache_request::{Fetch, pass_conditions};
use super::reused::may_be_stale;
use crate::cache::filling::{Filling, Outcome};
use crate::cache::page::StoredResponse;
use crate::cache::page_key::PageKey;
use crate::cache::status::Status;
use crate::cache::store::{CachePart, Store};
use crate::message::RequestHead;
use crate::site::Site;
use crate::telemetry::access::UpstreamFacts;
use crate::upstream::{Interim, UpstreamError, UpstreamRequest, UpstreamResponse};

impl Fetch {
    pub(super) fn store(&self) -> &Arc<Store> {
        &self.cache.store
    }

    /// Leads with a response under way.
    pub(super) fn leading(&self, filling: Arc<Filling>) -> Leading {
        Leading { store: self.store().clone(), key: self.wanted.key.clone(), filling, is_over: Cell::default() }
    }

    /// Makes the head for the upstream anew: more fields pass since.
    pub(super) fn renew_head(&mut self, head: &RequestHead) {
        let page = self.cache.store.peek(&self.wanted.key);
        self.wanted.varied(&self.cache.store);
        self.head = self.wanted.upstream_head(head, self.stored.as_deref(), page.as_ref());
        if self.refused.is_some() {
            self.refused = pass_conditions(&self.cache.store, &self.wanted.key, head, &mut self.head);
        }
    }

    /// Takes the conditions from the head for the upstream: it sends a whole response.
    pub(super) fn drop_conditions(&mut self) {
        self.head.fields.remove_if(|_, name, _| {
            name.eq_ignore_ascii_case(b"if-none-match") || name.eq_ignore_ascii_case(b"if-modified-since")
        });
    }

    /// The note for an answer of the origin.
    pub(super) fn miss(&self, detail: Option<&'static str>) -> CacheNote {
        let status = Status { forwarded: Some(self.reason), detail, ..Status::default() };
        CacheNote { status, part: CachePart::Miss }
    }

    /// Returns the stored response, if it may be sent because the origin fails.
    pub(super) fn reserve(&self, uptime: u64) -> Option<&Arc<StoredResponse>> {
        self.stored.as_ref().filter(|stored| self.may_be_stale(stored, uptime))
    }

    pub(super) fn may_be_stale(&self, stored: &StoredResponse, uptime: u64) -> bool {
        may_be_stale(&self.cache, stored, &self.wanted, uptime)
    }

    pub(super) async fn send(
        &self,
        head: &RequestHead,
        site: &Site,
        turn: &Turn<'_>,
        interim: &mut dyn Interim,
    ) -> Result<UpstreamResponse, UpstreamError> {
        UpstreamFacts::note(&turn.asked.facts, |facts| facts.asked = true);
        let request = UpstreamRequest { head, ..turn.upstream_request(site, None) };
        self.pool.send(&request, None, None, turn.alarm, interim).await
    }
}

/// A request that others may wait for. If it ends early, another one leads.
pub(super) struct Leading {
    pub(super) store: Arc<Store>,
    pub(super) key: PageKey,
    pub(super) filling: Arc<Filling>,
    /// Nobody waits for it any more.
    is_over: Cell<bool>,
}

impl Leading {
    pub(super) fn resolve(&self, outcome: Outcome) {
        if !matches!(outcome, Outcome::Streams(..)) {
            self.store.under_way.leave(&self.key, &self.filling);
            self.is_over.set(true);
        }
        self.filling.resolve(outcome);
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        if self.is_over.get() {
            return;
        }
        self.store.under_way.leave(&self.key, &self.filling);
        self.filling.resolve(Outcome::Abandoned);
        self.filling.finish(false);
    }
}
