//! The host, the site and the client of a request.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use super::cache_note::CacheNote;
use super::compression_note::CompressionNote;
use super::context::Context;
use super::held_rates::HeldRates;
use super::rewritten::{RewrittenCount, may_rewrite};
use super::snapshot::{SiteOfView, View};
use super::trace;
use crate::clock::Alarm;
use crate::compression::{drop_dated_range, undo};
use crate::message::{RequestHead, TargetScheme, Version};
use crate::policy::Scheme;
use crate::policy::forwarded::{Origin, origin};
use crate::site::Site;
use crate::telemetry::access::UpstreamFacts;
use crate::telemetry::trace::Trace;
use crate::upstream::UpstreamRequest;

/// The facts about a request, before the decision.
pub(super) struct Asked {
    pub(super) view: Rc<View>,
    pub(super) site: Option<SiteOfView>,
    pub(super) origin: Origin,
    /// `true` if the request itself names its host. If not, no policy goes with the answer.
    pub(super) names_host: bool,
    /// The facts that its way to the upstream leaves for its record.
    pub(super) facts: RefCell<UpstreamFacts>,
    /// The part of the site's cache in the answer, once it is known.
    pub(super) cache: Cell<Option<CacheNote>>,
    /// Its place in a trace, if pintle takes part in traces.
    pub(super) trace: Option<Box<Trace>>,
    /// Its place in the counts of clients, if its site has limits of requests.
    pub(super) rates: OnceCell<Box<HeldRates>>,
    /// Its conditions name tags that pintle had made weak. The upstream gets them as it sent them.
    pub(super) has_undone_tags: bool,
    /// The references that are rewritten in its answer, if any may be.
    pub(super) rewritten: OnceCell<RewrittenCount>,
    /// The compression of its answer, if pintle compresses it.
    pub(super) compressed: OnceCell<Rc<CompressionNote>>,
}

impl Asked {
    /// Returns `true` if the request is a trusted proxy's own, and not one that it forwards for somebody else.
    pub(super) fn is_trusted(&self, context: &Context) -> bool {
        context.client.peer.proxy.is_some() && self.view.shared.trust.contains(self.origin.client)
    }

    /// Returns `true` if its answer may say why the upstream failed (`listen.error_details`).
    pub(super) fn sees_details(&self, context: &Context) -> bool {
        self.is_trusted(context) || self.view.shared.error_details
    }
}

/// A request on its way to an answer.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) asked: &'a Asked,
    pub(super) context: &'a Context,
    pub(super) alarm: &'a Alarm,
}

impl<'a> Turn<'a> {
    /// Returns the request to the upstream. `websocket_key` is pintle's own, for a WebSocket that came over HTTP/2.
    pub(super) fn upstream_request<'r>(&self, site: &'r Site, websocket_key: Option<&'r str>) -> UpstreamRequest<'r>
    where
        'a: 'r,
    {
        let Turn { head, asked, context, .. } = *self;
        UpstreamRequest {
            head,
            site,
            origin: &asked.origin,
            client: &context.client,
            websocket_key,
            facts: &asked.facts,
            trace: asked.trace.as_deref(),
        }
    }
}

/// Finds the site and the client of a request.
pub(super) fn read(head: &mut RequestHead, context: &Context) -> Asked {
    let view = context.worker.view();
    let names_host = !head.host_bytes().is_empty();
    if !names_host
        && head.version == Version::Http10
        && let Some(name) = context.name()
    {
        // HTTP/1.0 needs no Host (RFC 9112 section 3.3), but under TLS the client has named one in its SNI. The certificate
        // resolver has read that name; an invalid one would lead to no site.
        let _ = head.set_authority(name.as_bytes());
    }
    let site = view.site(head.host_bytes());
    let origin = origin(&context.client.peer, &head.fields, &view.shared.trust);
    head.drop_default_port(match origin.scheme {
        Scheme::Http => TargetScheme::Http,
        Scheme::Https => TargetScheme::Https,
    });
    let trace = match &view.shared.traces {
        None => None,
        Some(rules) => trace::begin(rules, head, site.as_ref(), context),
    };
    let compression = site.as_ref().and_then(|site| site.compression.as_ref());
    if let Some(own) = compression {
        drop_dated_range(head, &own.rules.encodings);
    }
    // Tags of rewritten bodies are weak whatever the upstream sends, and it compares them as weak ones.
    let is_rewritten = |head: &RequestHead| site.as_ref().is_some_and(|site| may_rewrite(site, head));
    let has_undone_tags =
        compression.is_some_and(|own| !own.tags.are_weak() && !is_rewritten(head) && undo(&mut head.fields));
    let (facts, cache, rates) = (RefCell::default(), Cell::default(), OnceCell::new());
    let (compressed, rewritten) = (OnceCell::new(), OnceCell::new());
    Asked { view, site, origin, names_host, facts, cache, trace, rates, has_undone_tags, compressed, rewritten }
}

/// Does the same for a request whose head is refused. Returns `None` unless its host is certain.
pub(super) fn read_refused(head: &mut RequestHead, context: &Context) -> Option<Asked> {
    (!head.host_bytes().is_empty()).then(|| read(head, context))
}
