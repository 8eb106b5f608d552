//! Stored responses, and the page that holds the variants of one URL.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::partial::StoredParts;
use super::stored_head::StoredHead;
use crate::message::Fields;
use bytes::Bytes;

/// The most variants of one URL.
pub const VARIANTS_MAX: usize = 32;
/// The memory of a stored response besides its body and its fields, in bytes.
const OVERHEAD: u64 = 512;
/// The first and the longest pause between attempts to validate a response whose origin fails, in milliseconds.
const PAUSE: u64 = 1000;
const PAUSE_MAX: u64 = 60_000;
/// The time from one note of a response's use to the next, in milliseconds.
const NOTE_EVERY: u64 = 3_600_000;

/// The numbers of stored responses.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

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

#[cfg(test)]
mod tests {
    use super::super::directives::Request;
    use super::super::freshness::{ReceivedAt, TimeRules};
    use super::super::reuse::Honour;
    use super::super::rules::CacheRules;
    use super::super::stored_head::{ForRequest, HeadArrival, own_request};
    use super::*;
    use http::StatusCode;
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
        // An earlier request has left large buffers.
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
