//! The head of a stored response: what is kept of it, and how a 304 changes it.

use http::StatusCode;

use super::conditional::{Validators, opaque};
use super::directives::{KeptDirectives, Request, Response, Scope};
use super::earlier::EarlierHead;
use super::freshness::{Lifetime, LifetimeBasis, ReceivedAt, initial_age, lifetime};
use super::reuse::FreshnessClock;
use super::rules::CacheRules;
use super::stored_fields::StoredFields;
use super::storing::{Allowed, NotStored, StoringRequest, judge};
use super::tags::tags;
use super::vary::Variant;
use crate::message::{Fields, Name};

/// Cookies are never sent to the origin with a request whose response may be stored.
const ALLOWED: Allowed = Allowed { strips_cookies: false, ignores_cookies: true, nonces: false };

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

/// The variant of a response that is for every request.
static FOR_ALL: Variant = Variant::FOR_ALL;

/// The head of a stored response. A store may hold a million of them: each is as small as it can be.
#[derive(Debug, Clone)]
pub struct StoredHead {
    /// The status code.
    pub status: StatusCode,
    /// The fields, without those that are never stored.
    pub fields: StoredFields,
    /// `true` if some of them are for this cache alone.
    speaks_to_cache: bool,
    /// The directives of the origin.
    said: KeptDirectives,
    lifetime: u32,
    basis: LifetimeBasis,
    /// The time of its head, in seconds since 1970.
    at: u32,
    initial_age: u32,
    /// The time of its head, in milliseconds of [`crate::clock::uptime`].
    since: u64,
    epoch: u32,
    few: Option<Box<RareParts>>,
}

/// The parts of a head that few responses have.
#[derive(Debug, Clone)]
struct RareParts {
    variant: Variant,
    tags: Box<[Box<[u8]>]>,
}

impl RareParts {
    fn of(variant: Variant, tags: Box<[Box<[u8]>]>) -> Option<Box<Self>> {
        (!variant.is_for_all() || !tags.is_empty()).then(|| Box::new(Self { variant, tags }))
    }
}

/// The lowest bits of the number of soft purges.
fn short(epoch: u64) -> u32 {
    u32::try_from(epoch & u64::from(u32::MAX)).unwrap_or_default()
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
    /// The request as the rules of storing see it.
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
        let few = RareParts::of(variant, tags(fields));
        let mut kept = fields.working_copy();
        drop_never_stored(&mut kept);
        if has_hidden(&said) {
            kept.remove_if(|_, name, _| hides(&said, name));
        }
        note_date(&mut kept, arrival.received.at);
        Ok(Self::new((status, &kept), &said, lifetime, initial_age(fields, arrival.received), few, arrival))
    }

    fn new(
        (status, fields): (StatusCode, &Fields),
        said: &Response,
        Lifetime { seconds, basis }: Lifetime,
        initial_age: u32,
        few: Option<Box<RareParts>>,
        arrival: HeadArrival,
    ) -> Self {
        Self {
            status,
            fields: StoredFields::of(fields),
            speaks_to_cache: FOR_THE_CACHE.iter().any(|own| fields.has_field(own)),
            said: KeptDirectives::of(said),
            lifetime: seconds,
            basis,
            at: u32::try_from(arrival.received.at.max(0)).unwrap_or(u32::MAX),
            initial_age,
            since: arrival.uptime,
            epoch: short(arrival.epoch),
            few,
        }
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
        let mut whole = fields.working_copy();
        whole.remove_if(|_, name, _| name.eq_ignore_ascii_case(b"content-range"));
        let mut head = Self::of(rules, request, StatusCode::OK, &whole, arrival)?;
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
        let few = RareParts::of(variant, tags(&fields));
        Ok(Self::new((status, &fields), &said, lifetime, age, few, arrival))
    }

    /// Returns the time for which it is fresh, and what gave it.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        Lifetime { seconds: self.lifetime, basis: self.basis }
    }

    /// Returns the directives of the origin that its uses depend on.
    #[must_use]
    pub fn said(&self) -> Response {
        self.said.all()
    }

    /// Returns the requests that it answers.
    #[must_use]
    pub fn variant(&self) -> &Variant {
        self.few.as_ref().map_or(&FOR_ALL, |few| &few.variant)
    }

    /// Returns the tags that it can be purged by.
    #[must_use]
    pub fn tags(&self) -> &[Box<[u8]>] {
        self.few.as_ref().map_or(&[], |few| &few.tags)
    }

    /// `true` if the number of soft purges of the whole site before it was this one.
    pub(super) fn is_of(&self, epoch: u64) -> bool {
        self.epoch == short(epoch)
    }

    /// Returns the fields of this response as a 304 has changed them (RFC 9111 section 3.2). Without a Date in the 304, the
    /// time of its coming counts (RFC 9110 section 6.6.1).
    #[must_use]
    pub fn updated_fields(&self, newer: &Fields) -> Fields {
        let replaces = |name: &[u8]| !KEPT.iter().any(|kept| name.eq_ignore_ascii_case(kept));
        let mut fields = Fields::default();
        for (name, value) in self.fields.iter() {
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
        drop_never_stored(&mut fields);
        note_date(&mut fields, arrival.received.at);
        let said = Response::of(&fields);
        Self::new((self.status, &fields), &said, self.lifetime(), initial_age, self.few.clone(), arrival)
    }

    /// Returns the fields for clients.
    #[must_use]
    pub fn client_fields(&self) -> Fields {
        let mut fields = self.fields.unpacked();
        if self.speaks_to_cache {
            fields.remove_if(|_, name, _| FOR_THE_CACHE.iter().any(|own| name.eq_ignore_ascii_case(own)));
        }
        fields
    }

    /// Returns its validators.
    #[must_use]
    pub fn validators(&self) -> Validators<'_> {
        Validators::of(&self.fields, i64::from(self.at))
    }

    /// Returns its times at a moment of [`crate::clock::uptime`].
    #[must_use]
    pub fn clock(&self, uptime: u64) -> FreshnessClock {
        let resident = u32::try_from(uptime.saturating_sub(self.since) / 1000).unwrap_or(u32::MAX);
        let age = self.initial_age.saturating_add(resident).min(super::directives::AGE_MAX);
        FreshnessClock { lifetime: self.lifetime, age }
    }

    /// Returns the seconds since 1970 at a moment of [`crate::clock::uptime`], for dates in conditions.
    #[must_use]
    pub fn now(&self, uptime: u64) -> i64 {
        i64::from(self.at).saturating_add_unsigned(uptime.saturating_sub(self.since) / 1000)
    }

    /// `true` if requests with Authorization may have it (RFC 9111 section 3.5).
    #[must_use]
    pub fn is_for_authorized(&self) -> bool {
        let said = self.said();
        said.public || said.s_maxage.is_some() || said.must_revalidate
    }

    /// `true` if it may be sent to requests other than the one that it was asked for, without validation.
    #[must_use]
    pub fn is_shareable(&self) -> bool {
        self.lifetime > self.initial_age && self.said().no_cache.is_none()
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

/// `true` if there are such fields.
fn has_hidden(said: &Response) -> bool {
    [&said.private, &said.no_cache].into_iter().flatten().any(|scope| !scope.is_whole())
}

/// Removes fields that are never stored.
fn drop_never_stored(fields: &mut Fields) {
    let has_others = NEVER_NAMES.iter().any(|name| fields.has_field(name));
    let is_other = |text: &[u8]| NEVER_NAMES.iter().any(|never| text.eq_ignore_ascii_case(never));
    fields.remove_if(|name, text, _| NEVER.contains(&name) || has_others && is_other(text));
}

/// Adds a Date, if there is none: a recipient that stores a response without one notes when it came (RFC 9110 section 6.6.1).
fn note_date(fields: &mut Fields, at: i64) {
    if !fields.has(Name::Date) {
        let time = jiff::Timestamp::from_second(at).unwrap_or_default();
        let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap_or_default();
        fields.push(b"Date", date.as_bytes());
    }
}

/// The request as the rules of storing see it, if the cache itself makes it.
#[must_use]
pub fn own_request(directives: &Request) -> StoringRequest<'_> {
    StoringRequest { method: &http::Method::GET, has_authorization: false, directives }
}
