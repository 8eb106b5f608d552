//! Stored responses, and the page that holds the variants of one URL.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use http::StatusCode;

use super::conditional::{Validators, opaque};
use super::directives::{Request, Response, Scope};
use super::earlier::EarlierHead;
use super::freshness::{Lifetime, ReceivedAt, initial_age, lifetime};
use super::partial::StoredParts;
use super::reuse::FreshnessClock;
use super::rules::CacheRules;
use super::storing::{Allowed, NotStored, StoringRequest, judge};
use super::tags::tags;
use super::vary::Variant;
use crate::message::{Fields, Name};

/// The most variants of one URL.
pub const VARIANTS_MAX: usize = 32;
/// Cookies are never sent to the origin with a request whose response may be stored.
const ALLOWED: Allowed = Allowed { strips_cookies: false, ignores_cookies: true, nonces: false };
/// The memory of a stored response besides its body and its fields, in bytes.
const OVERHEAD: u64 = 512;
/// The first and the longest pause between attempts to validate a response whose origin fails, in milliseconds.
const PAUSE: u64 = 1000;
const PAUSE_MAX: u64 = 60_000;
/// The time from one note of a response's use to the next, in milliseconds.
const NOTE_EVERY: u64 = 3_600_000;

/// The numbers of stored responses.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// Fields that are never stored. pintle adds its own policies to each answer, and drops these from the upstream's.
const NEVER: [Name; 7] = [
    Name::ContentLength,
    Name::PublicKeyPins,
    Name::PublicKeyPinsReportOnly,
    Name::AltSvc,
    Name::Trailer,
    Name::ProxyAuthenticate,
    Name::Te,
];
/// The same, by their names.
const NEVER_NAMES: [&[u8]; 3] = [b"age", b"proxy-authentication-info", b"x-cache-invalidate"];
/// Fields by which the origin speaks to this cache alone. They are not sent to clients.
pub const FOR_THE_CACHE: [&[u8]; 4] = [b"pintle-cache-control", b"cache-tag", b"surrogate-key", b"x-cache-invalidate"];
/// Fields of a stored response that a 304 does not replace (RFC 9111 section 3.2).
const KEPT: [&[u8]; 3] = [b"content-length", b"content-encoding", b"content-range"];

/// The head of a stored response.
#[derive(Debug, Clone)]
pub struct StoredHead {
    /// The status code.
    pub status: StatusCode,
    /// The fields, without those that are never stored.
    pub fields: Fields,
    /// `true` if some of them are for this cache alone.
    speaks_to_cache: bool,
    /// The directives of the origin.
    pub said: Response,
    /// The time for which it is fresh.
    pub lifetime: Lifetime,
    /// The time of its head, in seconds since 1970.
    at: i64,
    initial_age: u32,
    /// The time of its head, in milliseconds of [`crate::clock::uptime`].
    since: u64,
    /// The requests that it answers.
    pub variant: Variant,
    /// The tags that it can be purged by.
    pub tags: Box<[Box<[u8]>]>,
    /// The number of soft purges of the whole site before it.
    epoch: u64,
}

/// The circumstances of a response.
#[derive(Debug, Clone, Copy)]
pub struct HeadArrival {
    /// The time of its head.
    pub received: ReceivedAt,
    /// The same, in milliseconds of [`crate::clock::uptime`].
    pub uptime: u64,
    /// The number of soft purges so far.
    pub epoch: u64,
}

/// A request that a response may be stored for.
#[derive(Debug, Clone, Copy)]
pub struct ForRequest<'a> {
    /// What counts for storing.
    pub asked: &'a StoringRequest<'a>,
    /// The fields that the upstream got.
    pub sent: &'a Fields,
}

impl StoredHead {
    /// Judges a response, and makes what is stored of its head.
    ///
    /// # Errors
    ///
    /// The first reason against it.
    pub fn of(
        rules: &CacheRules,
        request: ForRequest<'_>,
        status: StatusCode,
        fields: &Fields,
        arrival: HeadArrival,
    ) -> Result<Self, NotStored> {
        let said = Response::of(fields);
        let lasts = lifetime(status, &said, fields, arrival.received, rules.times);
        let lifetime = judge(request.asked, status, &said, fields, lasts, ALLOWED)?;
        // Asked for without a coding: pintle makes the codings that clients want.
        let has_any_coding = rules.compresses && !fields.has_field(b"content-encoding");
        let variant = Variant::of(fields, request.sent, has_any_coding).ok_or(NotStored::Vary)?;
        let initial_age = initial_age(fields, arrival.received);
        let tags = tags(fields);
        let (mut kept, mut speaks_to_cache) = (Fields::default(), false);
        for (name, text, value) in fields.iter() {
            let is_never = NEVER.contains(&name) || NEVER_NAMES.iter().any(|never| text.eq_ignore_ascii_case(never));
            speaks_to_cache |= FOR_THE_CACHE.iter().any(|own| text.eq_ignore_ascii_case(own));
            if !is_never && !hides(&said, text) {
                kept.push(text, value);
            }
        }
        if !kept.has(Name::Date) {
            // RFC 9110 section 6.6.1: a recipient that stores a response without a Date notes when it came.
            kept.push(b"Date", http_date(arrival.received.at).as_bytes());
        }
        let HeadArrival { received, uptime, epoch } = arrival;
        let (at, since) = (received.at, uptime);
        // A copy has buffers of its own size. Those that fields are gathered in are shared by the thread, and larger.
        let fields = kept.clone();
        Ok(Self { status, fields, speaks_to_cache, said, lifetime, at, initial_age, since, variant, tags, epoch })
    }

    /// The same for a part of a response, as if it were the whole. Only parts with the same strong ETag belong together (RFC
    /// 9111 section 3.4).
    ///
    /// # Errors
    ///
    /// The first reason against it.
    pub fn of_part(
        rules: &CacheRules,
        request: ForRequest<'_>,
        fields: &Fields,
        arrival: HeadArrival,
    ) -> Result<Self, NotStored> {
        let is_strong = fields.value_of(b"etag").is_some_and(|tag| opaque(tag) == Some(tag));
        let mut head = Self::of(rules, request, StatusCode::OK, fields, arrival)?;
        head.fields.remove_if(|_, name, _| name.eq_ignore_ascii_case(b"content-range"));
        head.status = StatusCode::PARTIAL_CONTENT;
        if is_strong { Ok(head) } else { Err(NotStored::Part) }
    }

    /// Returns the head for the whole, of whose parts this is the latest head.
    #[must_use]
    pub fn of_whole(&self) -> Self {
        Self { status: StatusCode::OK, ..self.clone() }
    }

    /// `true` if both have the same ETag.
    #[must_use]
    pub fn has_tag_of(&self, other: &Self) -> bool {
        self.fields.value_of(b"etag") == other.fields.value_of(b"etag")
    }

    /// Makes the head of a response that was stored earlier, whose age is known. It is judged again: rules may have become
    /// stricter.
    ///
    /// # Errors
    ///
    /// The first reason against it.
    pub fn restored(earlier: EarlierHead, age: u32, arrival: HeadArrival) -> Result<Self, NotStored> {
        let EarlierHead { status, fields, variant, lifetime, .. } = earlier;
        let said = Response::of(&fields);
        let directives = Request::default();
        let lifetime = judge(&own_request(&directives), status, &said, &fields, Some(lifetime), ALLOWED)?;
        let is_for_cache = |name: &[u8]| FOR_THE_CACHE.iter().any(|own| name.eq_ignore_ascii_case(own));
        let speaks_to_cache = fields.iter().any(|(_, name, _)| is_for_cache(name));
        let (tags, fields) = (tags(&fields), fields.clone());
        let HeadArrival { received: ReceivedAt { at, .. }, uptime: since, epoch } = arrival;
        Ok(Self { status, fields, speaks_to_cache, said, lifetime, at, initial_age: age, since, variant, tags, epoch })
    }

    /// Returns the fields of this response as a 304 has changed them (RFC 9111 section 3.2). Without a Date in the 304, the
    /// time of its coming counts (RFC 9110 section 6.6.1).
    #[must_use]
    pub fn updated_fields(&self, newer: &Fields) -> Fields {
        let replaces = |name: &[u8]| !KEPT.iter().any(|kept| name.eq_ignore_ascii_case(kept));
        let mut fields = Fields::default();
        for (_, name, value) in self.fields.iter() {
            if !replaces(name) || !newer.has_field(name) && !name.eq_ignore_ascii_case(b"date") {
                fields.push(name, value);
            }
        }
        for (_, name, value) in newer.iter().filter(|(_, name, _)| replaces(name)) {
            fields.push(name, value);
        }
        fields
    }

    /// Returns the head with the fields of a 304, for its client alone: the 304 forbids storing it.
    #[must_use]
    pub fn for_one(&self, newer: &Fields, arrival: HeadArrival) -> Self {
        let mut fields = self.updated_fields(newer);
        let initial_age = initial_age(&fields, arrival.received);
        fields.remove_if(|name, text, _| {
            NEVER.contains(&name) || NEVER_NAMES.iter().any(|never| text.eq_ignore_ascii_case(never))
        });
        if !fields.has(Name::Date) {
            fields.push(b"Date", http_date(arrival.received.at).as_bytes());
        }
        let HeadArrival { received: ReceivedAt { at, .. }, uptime: since, epoch } = arrival;
        let said = Response::of(&fields);
        Self { fields, said, initial_age, at, since, epoch, speaks_to_cache: true, ..self.clone() }
    }

    /// Returns the fields for clients.
    #[must_use]
    pub fn client_fields(&self) -> Fields {
        let mut fields = self.fields.clone();
        if self.speaks_to_cache {
            fields.remove_if(|_, name, _| FOR_THE_CACHE.iter().any(|own| name.eq_ignore_ascii_case(own)));
        }
        fields
    }

    /// Returns its validators.
    #[must_use]
    pub fn validators(&self) -> Validators<'_> {
        Validators::of(&self.fields, self.at)
    }

    /// Returns its times at a moment of [`crate::clock::uptime`].
    #[must_use]
    pub fn clock(&self, uptime: u64) -> FreshnessClock {
        let resident = u32::try_from(uptime.saturating_sub(self.since) / 1000).unwrap_or(u32::MAX);
        let age = self.initial_age.saturating_add(resident).min(super::directives::AGE_MAX);
        FreshnessClock { lifetime: self.lifetime.seconds, age }
    }

    /// Returns the seconds since 1970 at a moment of [`crate::clock::uptime`], for dates in conditions.
    #[must_use]
    pub fn now(&self, uptime: u64) -> i64 {
        self.at.saturating_add_unsigned(uptime.saturating_sub(self.since) / 1000)
    }

    /// `true` if requests with Authorization may have it (RFC 9111 section 3.5).
    #[must_use]
    pub fn is_for_authorized(&self) -> bool {
        self.said.public || self.said.s_maxage.is_some() || self.said.must_revalidate
    }

    /// `true` if it may be sent to requests other than the one that it was asked for, without validation.
    #[must_use]
    pub fn is_shareable(&self) -> bool {
        self.lifetime.seconds > self.initial_age && !self.said.no_cache.as_ref().is_some_and(Scope::is_whole)
    }

    /// `true` if a 304 of the origin is about this response (RFC 9111 section 4.3.4).
    #[must_use]
    pub fn is_named_by(&self, not_modified: &Fields) -> bool {
        let own = self.fields.value_of(b"etag");
        match not_modified.value_of(b"etag") {
            Some(tag) if tag.starts_with(b"W/") => own.and_then(opaque).is_some_and(|own| Some(own) == opaque(tag)),
            Some(tag) => own == Some(tag),
            None => true,
        }
    }
}

/// Fields that only their first client may have: `private="..."` and `no-cache="..."`.
fn hides(said: &Response, name: &[u8]) -> bool {
    [&said.private, &said.no_cache].into_iter().flatten().any(|scope| match scope {
        Scope::Fields(names) => names.iter().any(|hidden| name.eq_ignore_ascii_case(hidden)),
        Scope::Whole => false,
    })
}

fn http_date(at: i64) -> String {
    let time = jiff::Timestamp::from_second(at).unwrap_or_default();
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap_or_default()
}

/// A stored response.
#[derive(Debug)]
pub struct StoredResponse {
    /// Its head.
    pub head: Arc<StoredHead>,
    /// Its whole body; of a response in parts, these.
    pub body: Bytes,
    /// Its number, which no other response has: its compressed forms are found by it.
    pub number: u64,
    /// The places of the parts, if some are missing.
    pub parts: Option<Box<StoredParts>>,
    /// It must be validated before the next use: a soft purge, or a change by an unsafe method.
    is_invalid: AtomicBool,
    /// A purge or the origin has taken it away: it is not sent any more, and nothing confirms it.
    is_gone: AtomicBool,
    /// Somebody validates it in the background.
    is_validating: AtomicBool,
    /// Failed validations in a row, and the uptime before which none is tried.
    failures: AtomicU32,
    next_try: AtomicU64,
    /// The uptime of the last validation that a client's directives have caused.
    insisted: AtomicU64,
    /// The hour of its last use that was noted, from 1 on.
    noted: AtomicU32,
}

impl StoredResponse {
    /// Makes a stored response.
    #[must_use]
    pub fn new(head: Arc<StoredHead>, body: Bytes) -> Self {
        Self {
            head,
            body,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            parts: None,
            is_invalid: AtomicBool::default(),
            is_gone: AtomicBool::default(),
            is_validating: AtomicBool::default(),
            failures: AtomicU32::default(),
            next_try: AtomicU64::default(),
            insisted: AtomicU64::default(),
            noted: AtomicU32::default(),
        }
    }

    /// Makes one of which parts are stored.
    #[must_use]
    pub fn in_parts(head: Arc<StoredHead>, body: Bytes, parts: StoredParts) -> Self {
        Self { parts: Some(Box::new(parts)), ..Self::new(head, body) }
    }

    /// Requires validation before the next use, which waits for no pause.
    pub fn invalidate(&self) {
        self.is_invalid.store(true, Ordering::Release);
        self.next_try.store(0, Ordering::Relaxed);
    }

    /// Takes it away, also from requests that have it.
    pub fn withdraw(&self) {
        self.is_gone.store(true, Ordering::Release);
        self.invalidate();
    }

    /// `true` if [`Self::withdraw`] was called.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// `true` if it must be validated before its next use. `epoch` is the number of soft purges of the site.
    #[must_use]
    pub fn is_invalid(&self, epoch: u64) -> bool {
        self.head.epoch != epoch || self.is_invalid.load(Ordering::Acquire)
    }

    /// `true` if [`Self::invalidate`] was called.
    #[must_use]
    pub fn is_marked_invalid(&self) -> bool {
        self.is_invalid.load(Ordering::Acquire)
    }

    /// `true` if its use is worth a note: at the first use, and then once an hour.
    #[must_use]
    pub fn is_note_due(&self, uptime: u64) -> bool {
        let hour = u32::try_from(uptime / NOTE_EVERY).unwrap_or(u32::MAX - 1) + 1;
        self.noted.load(Ordering::Relaxed) != hour && self.noted.swap(hour, Ordering::Relaxed) != hour
    }

    /// Begins a validation in the background; `false` if one is under way, or the origin failed just now.
    #[must_use]
    pub fn begin_validation(&self, uptime: u64) -> bool {
        !self.is_resting(uptime) && !self.is_validating.swap(true, Ordering::AcqRel)
    }

    /// Ends a validation in the background.
    pub fn end_validation(&self) {
        self.is_validating.store(false, Ordering::Release);
    }

    /// Notes a failure of the origin: the next attempt waits twice as long.
    pub fn failed(&self, uptime: u64) {
        let before = self.failures.fetch_add(1, Ordering::Relaxed).min(16);
        self.next_try.store(uptime + (PAUSE << before).min(PAUSE_MAX), Ordering::Relaxed);
    }

    /// Notes that the origin has answered with a failure. The cause may be the client's request alone, so the pause is short.
    pub fn refused(&self, uptime: u64) {
        self.next_try.fetch_max(uptime + PAUSE, Ordering::Relaxed);
    }

    /// `true` in the pause after a failure of the origin.
    #[must_use]
    pub fn is_resting(&self, uptime: u64) -> bool {
        uptime < self.next_try.load(Ordering::Relaxed)
    }

    /// `true` if a client's wish for validation counts now: at most once a second.
    #[must_use]
    pub fn may_insist(&self, uptime: u64) -> bool {
        let last = self.insisted.load(Ordering::Relaxed);
        let is_due = last == 0 || uptime >= last + 1000;
        is_due && self.insisted.compare_exchange(last, uptime.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The bytes that it counts for.
    fn weight(&self) -> u64 {
        let head = &self.head;
        let tags: usize = head.tags.iter().map(|tag| tag.len() + 16).sum();
        let fields = head.fields.size() + head.fields.len() * 40;
        let parts = self.parts.as_ref().map_or(0, |parts| parts.size());
        OVERHEAD + (self.body.len() + fields + tags + head.variant.size() + parts) as u64
    }
}

/// The responses of one URL, the latest first.
#[derive(Debug, Default, Clone)]
pub struct CachedPage {
    variants: Vec<Arc<StoredResponse>>,
}

impl CachedPage {
    /// Returns the response for a request. One that names the request's fields comes before one for all (RFC 9111 section
    /// 4.1).
    #[must_use]
    pub fn find(&self, request: &Fields) -> Option<&Arc<StoredResponse>> {
        let wholes = self.variants.iter().filter(|stored| stored.parts.is_none());
        let mut fitting = wholes.filter(|stored| stored.head.variant.fits(request));
        let first = fitting.next()?;
        if !first.head.variant.is_for_all() {
            return Some(first);
        }
        Some(fitting.find(|stored| !stored.head.variant.is_for_all()).unwrap_or(first))
    }

    /// Returns the response for a request of which parts are stored.
    #[must_use]
    pub fn find_parts(&self, request: &Fields) -> Option<&Arc<StoredResponse>> {
        let mut in_parts = self.variants.iter().filter(|stored| stored.parts.is_some());
        in_parts.find(|stored| stored.head.variant.fits(request))
    }

    /// Returns all responses.
    #[must_use]
    pub fn variants(&self) -> &[Arc<StoredResponse>] {
        &self.variants
    }

    /// Returns the page with one more response. It replaces the one of the same variant, and has that one's limit of
    /// validations that clients ask for.
    #[must_use]
    pub fn with(&self, new: Arc<StoredResponse>) -> Self {
        if let Some(replaced) = self.variants.iter().find(|other| other.head.variant == new.head.variant) {
            let before = replaced.insisted.load(Ordering::Relaxed);
            new.insisted.fetch_max(before, Ordering::Relaxed);
        }
        let others = self.variants.iter().filter(|other| other.head.variant != new.head.variant).cloned();
        let variants = std::iter::once(new.clone()).chain(others).take(VARIANTS_MAX).collect();
        Self { variants }
    }

    /// Returns the page without the responses for which `drops` is `true`; `None` if none is left.
    #[must_use]
    pub fn without(&self, drops: impl Fn(&StoredResponse) -> bool) -> Option<Self> {
        let variants: Vec<_> = self.variants.iter().filter(|stored| !drops(stored)).cloned().collect();
        (!variants.is_empty()).then_some(Self { variants })
    }

    /// The bytes that it counts for, with its key.
    #[must_use]
    pub fn weight(&self, key: &[u8]) -> u64 {
        self.variants.iter().map(|stored| stored.weight()).sum::<u64>() + key.len() as u64
    }
}

/// What counts of a request for storing its response, if it was asked for by this cache itself.
#[must_use]
pub fn own_request(directives: &Request) -> StoringRequest<'_> {
    StoringRequest { method: &http::Method::GET, has_authorization: false, directives }
}

#[cfg(test)]
mod tests {
    use super::super::freshness::TimeRules;
    use super::super::reuse::Honour;
    use super::*;
    use std::time::Duration;

    fn rules() -> CacheRules {
        CacheRules {
            profile: super::super::profile::CacheProfile::None,
            memory: 1 << 20,
            disk: None,
            max_object: 1 << 16,
            times: TimeRules::default(),
            stale: super::super::reuse::Stale::default(),
            query: super::super::query::QueryRules::default(),
            honour: Honour::Yes,
            collapse_wait: Duration::from_secs(5),
            compresses: false,
        }
    }

    fn head(response: &[(&str, &str)], request: &[(&str, &str)]) -> StoredHead {
        let directives = Request::default();
        let sent = Fields::of(request);
        let request = ForRequest { asked: &own_request(&directives), sent: &sent };
        let arrival = HeadArrival { received: ReceivedAt { at: 1_795_794_000, delay: 1 }, uptime: 5000, epoch: 0 };
        StoredHead::of(&rules(), request, StatusCode::OK, &Fields::of(response), arrival).unwrap()
    }

    fn names(fields: &Fields) -> Vec<String> {
        fields.iter().map(|(_, name, _)| String::from_utf8_lossy(name).to_lowercase()).collect()
    }

    #[test]
    fn fields_that_are_not_stored() {
        let head = head(
            &[
                ("Cache-Control", "max-age=60, private=\"x-u\", no-cache=\"x-n, set-cookie\""),
                ("X-U", "1"),
                ("X-N", "1"),
                ("Set-Cookie", "a=1"),
                ("Age", "5"),
                ("Content-Length", "3"),
                ("Public-Key-Pins", "x"),
                ("Alt-Svc", "x"),
                ("Cache-Tag", "a, b"),
                ("Surrogate-Key", "c d"),
                ("Cache-Groups", "\"e\""),
                ("X-Other", "y"),
            ],
            &[],
        );
        assert_eq!(names(&head.client_fields()), ["cache-control", "cache-groups", "x-other", "date"]);
        let tags: Vec<&[u8]> = head.tags.iter().map(|tag| &**tag).collect();
        assert_eq!(tags, [&b"a"[..], b"b", b"e", b"c", b"d"]);
        // An age of 5, and a second for the request.
        assert_eq!((head.clock(5000).age, head.clock(9999).age, head.clock(0).age), (6, 10, 6));
    }

    #[test]
    fn updates_by_304() {
        let head =
            head(&[("Cache-Control", "max-age=60"), ("ETag", "\"a\""), ("Content-Encoding", "gzip"), ("X", "1")], &[]);
        let newer = Fields::of(&[
            ("cache-control", "max-age=5"),
            ("Content-Length", "0"),
            ("Content-Encoding", "br"),
            ("Y", "2"),
        ]);
        let updated = head.updated_fields(&newer);
        assert_eq!(names(&updated), ["etag", "content-encoding", "x", "cache-control", "y"]);
        assert_eq!(updated.value_of(b"content-encoding"), Some(&b"gzip"[..]));
        for (tag, want) in [("\"a\"", true), ("\"b\"", false), ("W/\"a\"", true), ("W/\"b\"", false)] {
            assert_eq!(head.is_named_by(&Fields::of(&[("ETag", tag)])), want, "{tag}");
        }
        assert!(head.is_named_by(&Fields::default()));
    }

    #[test]
    fn variants_of_a_page() {
        let cc = ("Cache-Control", "max-age=60");
        let stored = |response: &[(&str, &str)], request: &[(&str, &str)], body: &'static [u8]| {
            Arc::new(StoredResponse::new(Arc::new(head(response, request)), Bytes::from_static(body)))
        };
        let by_language = [cc, ("Vary", "Accept-Language")];
        let page = CachedPage::default()
            .with(stored(&by_language, &[("Accept-Language", "de")], b"de"))
            .with(stored(&by_language, &[("Accept-Language", "en")], b"en"))
            .with(stored(&[cc], &[], b"all"));
        let found = |page: &CachedPage, language: &str| {
            page.find(&Fields::of(&[("Accept-Language", language)])).map(|stored| stored.body.clone())
        };
        assert_eq!(found(&page, "de").as_deref(), Some(&b"de"[..]));
        assert_eq!(found(&page, "fr").as_deref(), Some(&b"all"[..]));
        let page = page.with(stored(&by_language, &[("Accept-Language", "de")], b"new"));
        assert_eq!((found(&page, "de").as_deref(), page.variants().len()), (Some(&b"new"[..]), 3));
        let mut many = CachedPage::default();
        for n in 0..100 {
            many = many.with(stored(&[cc, ("Vary", "User-Agent")], &[("User-Agent", &n.to_string())], b""));
        }
        assert_eq!(many.variants().len(), VARIANTS_MAX);
    }

    /// A stored head holds no buffers that are larger than what it has: the bound of the store would not be the memory's.
    #[test]
    fn heads_take_what_they_count_for() {
        // A request of before has left large buffers.
        let mut large = Fields::default();
        large.push(b"A", &[b'a'; 4000]);
        drop(large);
        let stored = head(&[("Cache-Control", "max-age=60"), ("ETag", "\"x\"")], &[]);
        let own = stored.fields.size() + stored.fields.len() * 40;
        assert_eq!(stored.fields.room(), own);
        // What an object takes besides its key, its fields and its body: what the store counts for it is more.
        let fixed = size_of::<StoredHead>() + size_of::<StoredResponse>() + size_of::<CachedPage>() + 3 * 16 + 8;
        assert!(fixed <= 400 && (fixed as u64) < OVERHEAD, "{fixed}");
        println!("{fixed} {} {} {}", size_of::<StoredHead>(), size_of::<StoredResponse>(), size_of::<CachedPage>());
    }

    #[test]
    fn pauses_after_failures() {
        let stored = StoredResponse::new(Arc::new(head(&[("Cache-Control", "max-age=60")], &[])), Bytes::new());
        assert!(stored.begin_validation(0) && !stored.begin_validation(0));
        stored.end_validation();
        for (at, pause) in [(0, 1000), (1000, 2000), (3000, 4000), (7000, 8000)] {
            stored.failed(at);
            assert!(stored.is_resting(at + pause - 1) && !stored.is_resting(at + pause));
        }
        (0..100).for_each(|_| stored.failed(0));
        assert!(!stored.is_resting(PAUSE_MAX));
        assert!(stored.may_insist(5000) && !stored.may_insist(5999) && stored.may_insist(6000));
    }
}
