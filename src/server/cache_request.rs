//! A request as the cache sees it: its part in the store, its key, and the head that the upstream gets.

use std::rc::Rc;
use std::sync::Arc;

use http::Method;

use super::asked::Turn;
use crate::cache::directives::Request;
use crate::cache::encoding::Encoding;
use crate::cache::page::{CachedPage, StoredResponse};
use crate::cache::page_key::PageKey;
use crate::cache::profile::Cookies;
use crate::cache::status::ForwardReason;
use crate::cache::store::Store;
use crate::cache::stored_head::StoredHead;
use crate::cache::storing::{NotStored, StoringRequest};
use crate::cache::under_way::FieldNames;
use crate::cache::{CacheRules, SiteCache, conditional};
use crate::message::{Fields, Framing, Name, RequestHead, tokens};
use crate::upstream::Pool;

/// The fields of a client that reach the upstream with a request whose response may be stored. Everything else would
/// change a response that other clients get, or says something about this client only. What a response names in Vary passes
/// for its key.
const PASSING: [&[u8]; 10] = [
    b"accept-language",
    b"authorization",
    b"cache-control",
    b"cdn-loop",
    b"origin",
    b"pragma",
    b"traceparent",
    b"tracestate",
    b"user-agent",
    b"via",
];

/// The property of a request that keeps it from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BypassCause {
    Upgrade,
    Method,
    Body,
    Cookie,
    Path,
    Nonce,
    Condition,
}

impl BypassCause {
    /// Returns the reason and the detail for Cache-Status (RFC 9211 sections 2.2 and 2.8).
    pub(super) fn cache_status(self) -> (ForwardReason, Option<&'static str>) {
        let detail = match self {
            Self::Method => return (ForwardReason::Method, None),
            Self::Upgrade => "upgrade",
            Self::Body => "body",
            Self::Cookie => "cookie",
            Self::Path => "path",
            Self::Nonce => "nonce",
            Self::Condition => "condition",
        };
        (ForwardReason::Bypass, Some(detail))
    }
}

/// Returns the reason why a request has nothing to do with the store, by the request alone; `None` if it is looked up.
pub(super) fn bypass_cause(rules: &CacheRules, head: &RequestHead) -> Option<BypassCause> {
    let fields = &head.fields;
    Some(match () {
        () if head.websocket => BypassCause::Upgrade,
        () if !matches!(head.method, Method::GET | Method::HEAD) => BypassCause::Method,
        () if head.framing != Framing::None => BypassCause::Body,
        () if rules.profile.cookies(fields.get_all(Name::Cookie)) == Cookies::Personal => BypassCause::Cookie,
        () if rules.profile.bypasses(head.target_bytes()) => BypassCause::Path,
        () if fields.has_field(b"x-wp-nonce") => BypassCause::Nonce,
        () if conditional::is_for_the_origin(fields) => BypassCause::Condition,
        () => return None,
    })
}

/// A request that is looked up.
#[derive(Debug)]
pub(super) struct CacheRequest {
    pub(super) key: PageKey,
    /// The number of purges and changes before the look at the store.
    pub(super) generation: u64,
    /// The target after the rules for queries, if they change it.
    pub(super) target: Option<Vec<u8>>,
    pub(super) directives: Request,
    pub(super) has_authorization: bool,
    pub(super) has_range: bool,
    /// pintle compresses what is stored.
    compresses: bool,
    /// Fields that responses of this key vary by, and that pass for this key only.
    varied: Option<FieldNames>,
}

impl CacheRequest {
    pub(super) fn of(cache: &SiteCache, turn: &Turn<'_>) -> Self {
        let head = turn.head;
        let target = cache.rules.query.apply(head.target_bytes());
        Self {
            generation: cache.store.generation(),
            key: key_of(turn, &target),
            varied: None,
            directives: Request::of(&head.fields),
            has_authorization: head.fields.has_field(b"authorization"),
            has_range: head.method == Method::GET && head.fields.has_field(b"range"),
            compresses: cache.rules.compresses,
            target: match target {
                std::borrow::Cow::Borrowed(_) => None,
                std::borrow::Cow::Owned(target) => Some(target),
            },
        }
    }

    /// Returns `true` if a stored response may answer the request: one that carries Authorization gets only what any
    /// reader may have (RFC 9111 section 3.5).
    pub(super) fn may_have(&self, head: &StoredHead) -> bool {
        !self.has_authorization || head.is_for_authorized()
    }

    /// Returns what counts for storing its response.
    pub(super) fn asked<'a>(&'a self, method: &'a Method) -> StoringRequest<'a> {
        StoringRequest { method, has_authorization: self.has_authorization, directives: &self.directives }
    }

    /// Looks up which more fields pass. Only a request that goes upstream needs them.
    pub(super) fn varied(&mut self, store: &Store) -> &Self {
        self.varied = store.under_way.varied(&self.key);
        self
    }

    /// Returns the head for the upstream: without conditions, cookies and everything that could make the response differ
    /// for others. `stored` gives it the validators. `page` names fields that its responses vary by: these pass.
    pub(super) fn upstream_head(
        &self,
        head: &RequestHead,
        stored: Option<&StoredResponse>,
        page: Option<&CachedPage>,
    ) -> RequestHead {
        let mut own = head.working_copy();
        own.fields.retain(|field, name| !field.is_named() && passes(name, page, self.varied.as_deref()));
        let encoding = if self.compresses { Encoding::Identity } else { Encoding::of(&head.fields) };
        own.fields.push(b"Accept-Encoding", encoding.value());
        if let Some(stored) = stored {
            let fields = &stored.head.fields;
            for (condition, validator) in
                [(&b"If-None-Match"[..], &b"etag"[..]), (b"If-Modified-Since", b"last-modified")]
            {
                if let Some(validator) = fields.value_of(validator) {
                    own.fields.push(condition, validator);
                }
            }
        }
        if let Some(target) = &self.target {
            own.set_target(target);
        }
        own
    }

    /// Returns the same for a part of a page: with the range that the client asks for.
    pub(super) fn part_head(&self, head: &RequestHead, page: Option<&CachedPage>) -> RequestHead {
        let mut own = self.upstream_head(head, None, page);
        if let Some(range) = head.fields.value_of(b"range") {
            own.fields.push(b"Range", range);
        }
        own
    }

    /// `true` if the request is for one range, without conditions: its response may be a part of a stored page.
    pub(super) fn is_for_a_part(&self, head: &RequestHead) -> bool {
        let range = head.fields.value_of(b"range").unwrap_or_default();
        let is_plain =
            range.get(..6).is_some_and(|unit| unit.eq_ignore_ascii_case(b"bytes=")) && !range.contains(&b',');
        let has_condition = [&b"if-range"[..], b"if-none-match", b"if-modified-since"]
            .into_iter()
            .any(|name| head.fields.has_field(name));
        self.has_range && is_plain && !has_condition && !self.directives.no_store
    }
}

/// A request that the store does not answer.
pub(super) struct Fetch {
    pub(super) cache: Arc<SiteCache>,
    pub(super) pool: Rc<Pool>,
    pub(super) wanted: CacheRequest,
    /// The head for the upstream.
    pub(super) head: RequestHead,
    pub(super) reason: ForwardReason,
    /// The response to validate.
    pub(super) stored: Option<Arc<StoredResponse>>,
    /// Only a part of the page is asked for.
    pub(super) is_part: bool,
    /// The reason why the last response was not stored, if the upstream gets the client's conditions for it.
    pub(super) refused: Option<NotStored>,
}

impl Fetch {
    pub(super) fn new(
        cache: &Arc<SiteCache>,
        pool: Rc<Pool>,
        mut wanted: CacheRequest,
        (reason, stored): (ForwardReason, Option<Arc<StoredResponse>>),
        page: Option<&CachedPage>,
        head: &RequestHead,
    ) -> Self {
        let mut own = wanted.varied(&cache.store).upstream_head(head, stored.as_deref(), page);
        let refused = if stored.is_none() { pass_conditions(&cache.store, &wanted.key, head, &mut own) } else { None };
        Self { cache: cache.clone(), pool, wanted, head: own, reason, stored, is_part: false, refused }
    }

    /// Asks for a part of a page.
    pub(super) fn part(
        cache: &Arc<SiteCache>,
        pool: Rc<Pool>,
        mut wanted: CacheRequest,
        reason: ForwardReason,
        page: Option<&CachedPage>,
        head: &RequestHead,
    ) -> Self {
        let head = wanted.varied(&cache.store).part_head(head, page);
        Self { cache: cache.clone(), pool, wanted, head, reason, stored: None, is_part: true, refused: None }
    }
}

/// Lets the client's conditions pass if the last response was not stored: the answer is for this client alone, and the
/// upstream may confirm the client's copy. Returns the reason why it was not stored, if there are conditions.
pub(super) fn pass_conditions(
    store: &Store,
    key: &PageKey,
    client: &RequestHead,
    own: &mut RequestHead,
) -> Option<NotStored> {
    let names = [&b"If-None-Match"[..], b"If-Modified-Since"];
    let refused = || store.under_way.refusal(key);
    let refused = names.iter().any(|name| client.fields.has_field(name)).then(refused).flatten()?;
    for name in names {
        client.fields.values_of(name).for_each(|value| own.fields.push(name, value));
    }
    Some(refused)
}

/// Returns the key of a target for the host of a request.
pub(super) fn key_of(turn: &Turn<'_>, target: &[u8]) -> PageKey {
    let Turn { head, asked, .. } = *turn;
    let stated = asked.site.as_ref().and_then(|site| asked.origin.host_of(&site.hosts));
    PageKey::of_page(head.host_bytes(), head.port(), stated.as_deref(), target)
}

fn passes(name: &[u8], page: Option<&CachedPage>, noted: Option<&[Box<[u8]>]>) -> bool {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    let is_noted = || noted.into_iter().flatten().any(|varied| is(varied));
    let is_varied = || {
        let variants = page.into_iter().flat_map(CachedPage::variants);
        variants.flat_map(|stored| stored.head.variant().fields()).any(|(varied, _)| is(varied))
    };
    let passes_always = || PASSING.iter().any(|passing| is(passing));
    !is(b"accept-encoding") && !is(b"cookie") && (passes_always() || is_noted() || is_varied())
}

/// The fields of the client's request that a response varies by, and that the upstream did not get. Each request of a key
/// has the same host.
pub(super) fn varied_by_dropped(response: &Fields, head: &RequestHead, sent: &RequestHead) -> Vec<Box<[u8]>> {
    const OWN: [&[u8]; 3] = [b"accept-encoding", b"cookie", b"host"];
    let varied = response.get_all(Name::Vary).flat_map(tokens).map(<[u8]>::to_ascii_lowercase);
    let is_dropped = |name: &Vec<u8>| head.fields.has_field(name) && !sent.fields.has_field(name);
    let dropped = varied.filter(|name| !OWN.contains(&&**name) && is_dropped(name));
    dropped.map(Vec::into_boxed_slice).collect()
}
