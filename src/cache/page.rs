//! Stored responses, and the page that holds the variants of one URL.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::partial::StoredParts;
use super::stored_head::StoredHead;
use crate::message::Fields;
use bytes::Bytes;

/// The most variants of one URL.
pub const VARIANTS_MAX: usize = 32;
/// The memory of a stored response besides its body, its fields and its key, in bytes: its own parts, its place in the
/// table, and the room that the allocator leaves.
const OVERHEAD: u64 = 320;
/// The first and the longest pause between attempts to validate a response whose origin fails, in milliseconds.
const PAUSE: u64 = 1000;
const PAUSE_MAX: u64 = 60_000;
/// The time from one note of a response's use to the next, in milliseconds.
const NOTE_EVERY: u64 = 3_600_000;

/// It must be validated before the next use: a soft purge, or a change by an unsafe method.
const INVALID: u8 = 1;
/// A purge or the origin has taken it away: it is not sent any more, and nothing confirms it.
const GONE: u8 = 2;
/// Somebody validates it in the background.
const VALIDATING: u8 = 4;
/// The bits of the number of failures, and the largest one: from there on, the pause does not grow.
const FAILURE_BITS: u32 = 4;
const FAILURES_MAX: u64 = 15;

/// The numbers of stored responses.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// A stored response.
#[derive(Debug)]
pub struct StoredResponse {
    /// Its head.
    pub head: StoredHead,
    /// Its whole body; of a response in parts, these.
    pub body: Bytes,
    /// Its number, which no other response has: its compressed forms are found by it.
    pub number: u64,
    /// The places of the parts, if some are missing.
    pub parts: Option<Box<StoredParts>>,
    /// [`INVALID`], [`GONE`] and [`VALIDATING`].
    marks: AtomicU8,
    /// The uptime before which no validation is tried, and in the lowest bits the number of failed ones in a row.
    attempts: AtomicU64,
    /// The uptime of the last validation that a client's directives have caused, its lowest bits; 0 before the first one.
    insisted: AtomicU32,
    /// The hour of its last use that was noted, from 1 on, its lowest bits.
    noted: AtomicU16,
}

impl StoredResponse {
    /// Makes a stored response.
    #[must_use]
    pub fn new(head: StoredHead, body: Bytes) -> Self {
        Self {
            head,
            body,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            parts: None,
            marks: AtomicU8::default(),
            attempts: AtomicU64::default(),
            insisted: AtomicU32::default(),
            noted: AtomicU16::default(),
        }
    }

    fn has(&self, mark: u8) -> bool {
        self.marks.load(Ordering::Acquire) & mark != 0
    }

    /// Makes one of which parts are stored.
    #[must_use]
    pub fn in_parts(head: StoredHead, body: Bytes, parts: StoredParts) -> Self {
        Self { parts: Some(Box::new(parts)), ..Self::new(head, body) }
    }

    /// Requires validation before the next use, which waits for no pause.
    pub fn invalidate(&self) {
        self.marks.fetch_or(INVALID, Ordering::AcqRel);
        let _ = self.attempts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some(held & FAILURES_MAX));
    }

    /// Takes it away, also from requests that have it.
    pub fn withdraw(&self) {
        self.marks.fetch_or(GONE, Ordering::AcqRel);
        self.invalidate();
    }

    /// `true` if [`Self::withdraw`] was called.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.has(GONE)
    }

    /// `true` if it must be validated before its next use. `epoch` is the number of soft purges of the site.
    #[must_use]
    pub fn is_invalid(&self, epoch: u64) -> bool {
        !self.head.is_of(epoch) || self.has(INVALID)
    }

    /// `true` if [`Self::invalidate`] was called.
    #[must_use]
    pub fn is_marked_invalid(&self) -> bool {
        self.has(INVALID)
    }

    /// `true` if its use is worth a note: at the first use, and then once an hour.
    #[must_use]
    pub fn is_note_due(&self, uptime: u64) -> bool {
        let hour = u16::try_from((uptime / NOTE_EVERY) % u64::from(u16::MAX)).unwrap_or_default() + 1;
        self.noted.load(Ordering::Relaxed) != hour && self.noted.swap(hour, Ordering::Relaxed) != hour
    }

    /// Begins a validation in the background; `false` if one is under way, or the origin failed just now.
    #[must_use]
    pub fn begin_validation(&self, uptime: u64) -> bool {
        !self.is_resting(uptime) && self.marks.fetch_or(VALIDATING, Ordering::AcqRel) & VALIDATING == 0
    }

    /// Ends a validation in the background.
    pub fn end_validation(&self) {
        self.marks.fetch_and(!VALIDATING, Ordering::AcqRel);
    }

    /// Notes a failure of the origin: the next attempt waits twice as long.
    pub fn failed(&self, uptime: u64) {
        let _ = self.attempts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            let failures = held & FAILURES_MAX;
            let next = uptime + (PAUSE << failures).min(PAUSE_MAX);
            Some(next << FAILURE_BITS | (failures + 1).min(FAILURES_MAX))
        });
    }

    /// Notes that the origin has answered with a failure. The cause may be the client's request alone, so the pause is short.
    pub fn refused(&self, uptime: u64) {
        let _ = self.attempts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            let next = (held >> FAILURE_BITS).max(uptime + PAUSE);
            Some(next << FAILURE_BITS | held & FAILURES_MAX)
        });
    }

    /// `true` in the pause after a failure of the origin.
    #[must_use]
    pub fn is_resting(&self, uptime: u64) -> bool {
        uptime < self.attempts.load(Ordering::Relaxed) >> FAILURE_BITS
    }

    /// `true` if a client's wish for validation counts now: at most once a second.
    #[must_use]
    pub fn may_insist(&self, uptime: u64) -> bool {
        let last = self.insisted.load(Ordering::Relaxed);
        let now = u32::try_from(uptime & u64::from(u32::MAX)).unwrap_or_default().max(1);
        let is_due = last == 0 || now.wrapping_sub(last) >= 1000;
        is_due && self.insisted.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The bytes that it counts for.
    fn weight(&self) -> u64 {
        let head = &self.head;
        let tags: usize = head.tags().iter().map(|tag| tag.len() + 16).sum();
        let parts = self.parts.as_ref().map_or(0, |parts| parts.size());
        OVERHEAD + (self.body.len() + head.fields.size() + tags + head.variant().size() + parts) as u64
    }
}

/// The responses of one URL, the latest first. A copy shares them.
#[derive(Debug, Default, Clone)]
pub struct CachedPage(Variants);

/// Most pages have one response.
#[derive(Debug, Default, Clone)]
enum Variants {
    #[default]
    None,
    One(Arc<StoredResponse>),
    Several(Arc<Vec<Arc<StoredResponse>>>),
}

impl CachedPage {
    /// Returns the response for a request. One that names the request's fields comes before one for all (RFC 9111 section
    /// 4.1).
    #[must_use]
    pub fn find(&self, request: &Fields) -> Option<&Arc<StoredResponse>> {
        let wholes = self.variants().iter().filter(|stored| stored.parts.is_none());
        let mut fitting = wholes.filter(|stored| stored.head.variant().fits(request));
        let first = fitting.next()?;
        if !first.head.variant().is_for_all() {
            return Some(first);
        }
        Some(fitting.find(|stored| !stored.head.variant().is_for_all()).unwrap_or(first))
    }

    /// Returns the response for a request of which parts are stored.
    #[must_use]
    pub fn find_parts(&self, request: &Fields) -> Option<&Arc<StoredResponse>> {
        let mut in_parts = self.variants().iter().filter(|stored| stored.parts.is_some());
        in_parts.find(|stored| stored.head.variant().fits(request))
    }

    /// Returns all responses.
    #[must_use]
    pub fn variants(&self) -> &[Arc<StoredResponse>] {
        match &self.0 {
            Variants::None => &[],
            Variants::One(only) => std::slice::from_ref(only),
            Variants::Several(all) => all,
        }
    }

    fn of(all: Vec<Arc<StoredResponse>>) -> Self {
        Self(match <[_; 1]>::try_from(all) {
            Ok([only]) => Variants::One(only),
            Err(all) if all.is_empty() => Variants::None,
            Err(all) => Variants::Several(Arc::new(all)),
        })
    }

    /// Returns the page with one more response. It replaces the one of the same variant, and has that one's limit of
    /// validations that clients ask for.
    #[must_use]
    pub fn with(&self, new: Arc<StoredResponse>) -> Self {
        let is_same = |other: &Arc<StoredResponse>| other.head.variant() == new.head.variant();
        if let Some(replaced) = self.variants().iter().find(|other| is_same(other)) {
            // The new one has been asked for by nobody yet.
            let before = replaced.insisted.load(Ordering::Relaxed);
            let _ = new.insisted.compare_exchange(0, before, Ordering::Relaxed, Ordering::Relaxed);
        }
        let mut others = self.variants().iter().filter(|other| !is_same(other)).peekable();
        if others.peek().is_none() {
            return Self(Variants::One(new));
        }
        Self::of(std::iter::once(&new).chain(others).take(VARIANTS_MAX).cloned().collect())
    }

    /// Returns the page without the responses for which `drops` is `true`; `None` if none is left.
    #[must_use]
    pub fn without(&self, drops: impl Fn(&StoredResponse) -> bool) -> Option<Self> {
        let left: Vec<_> = self.variants().iter().filter(|stored| !drops(stored)).cloned().collect();
        (!left.is_empty()).then(|| Self::of(left))
    }

    /// The bytes that it counts for, with its key.
    #[must_use]
    pub fn weight(&self, key: &[u8]) -> u64 {
        self.variants().iter().map(|stored| stored.weight()).sum::<u64>() + key.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::directives::Request;
    use super::super::freshness::{ReceivedAt, TimeRules};
    use super::super::page_key::PageKey;
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
        let tags: Vec<&[u8]> = head.tags().iter().map(|tag| &**tag).collect();
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
            Arc::new(StoredResponse::new(head(response, request), Bytes::from_static(body)))
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
        let stored = head(&[("Cache-Control", "max-age=60"), ("ETag", "\"x\"")], &[]);
        let text = "Cache-Controlmax-age=60ETag\"x\"DateFri, 27 Nov 2026 15:40:00 GMT".len();
        assert_eq!(stored.fields.size(), text + 1 + 3 * 2);
        // Besides its key, its fields and its body, an object takes a response behind two counts, a place in the table with
        // the pointers to its page and its key, and the counts and the hash of the key. The store counts more for it.
        let (response, place) = (size_of::<StoredResponse>() + 16, size_of::<CachedPage>() + size_of::<PageKey>() + 16);
        assert!(response <= 144 && place <= 48, "{response} {place}");
        let fixed = response + place + 16 + 8;
        assert!((fixed as u64) < OVERHEAD && fixed <= 216, "{fixed}");
    }

    #[test]
    fn pauses_after_failures() {
        let stored = StoredResponse::new(head(&[("Cache-Control", "max-age=60")], &[]), Bytes::new());
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
