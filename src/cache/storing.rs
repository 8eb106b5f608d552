//! May a response be stored (RFC 9111 section 3)?

use http::{Method, StatusCode};

use super::directives::{Request, Response, Scope};
use super::freshness::{Lifetime, LifetimeBasis};
use crate::message::{Fields, Name};

/// The most members of a Vary field that is stored.
const VARY_MAX: usize = 64;
/// Statuses beside 2xx that may be stored.
const STORED: [u16; 6] = [301, 302, 307, 308, 404, 410];
/// Statuses that this cache understands (`must-understand`, RFC 9111 section 5.2.2.3).
const UNDERSTOOD: [u16; 9] = [200, 203, 204, 301, 302, 307, 308, 404, 410];

/// Fields by which Ghost marks responses that are not for everybody.
const PROGRAM: [&[u8]; 2] = [b"x-member-cache-tier", b"x-ghost-degraded-render"];

/// The reason why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStored {
    /// The request's method is not GET.
    Method,
    /// The request says `no-store`.
    RequestNoStore,
    /// The status is never stored.
    Status,
    /// `must-understand`, and this cache does not know the status.
    NotUnderstood,
    /// The response says `no-store`.
    NoStore,
    /// The response says `private`.
    Private,
    /// The request had Authorization, and nothing allows sharing.
    Authorization,
    /// The response sets a cookie.
    SetCookie,
    /// `Vary: *`, or more fields than are kept.
    Vary,
    /// The response depends on the cookies of the request.
    VaryCookie,
    /// Its Content-Security-Policy has a nonce for one visitor.
    Nonce,
    /// No time is stated, and nothing gives it one.
    NoLifetime,
    /// It is stale on arrival, and cannot be validated.
    NoUse,
    /// It permits another origin to read it, and does not vary by Origin.
    Origin,
    /// It is a stream of events.
    Stream,
    /// Its body ends with the connection: nobody can tell whether it is whole.
    Framing,
    /// Its body is larger than `max_object`.
    TooLarge,
    /// Ghost marks it as one of a tier of members, or as made in haste.
    Program,
    /// It varies by a field of the request that its upstream did not get.
    Dropped,
    /// It is a part that cannot be put together with others.
    Part,
    /// Its body broke off.
    Cut,
    /// Something was purged, or changed, since the request began.
    Purged,
}

impl NotStored {
    /// `true` if the request is the cause: the response to another one may be stored.
    #[must_use]
    pub fn is_of_request(self) -> bool {
        matches!(self, Self::Method | Self::RequestNoStore | Self::Authorization | Self::Part)
    }

    /// The reason in Cache-Status (`detail`) and in `pintle cache`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::RequestNoStore => "request-no-store",
            Self::Status => "status",
            Self::NotUnderstood => "not-understood",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::Vary => "vary",
            Self::VaryCookie => "vary-cookie",
            Self::Nonce => "nonce",
            Self::NoLifetime => "no-lifetime",
            Self::NoUse => "no-use",
            Self::Origin => "origin",
            Self::Stream => "stream",
            Self::Framing => "until-close",
            Self::TooLarge => "too-large",
            Self::Program => "program",
            Self::Dropped => "vary-dropped",
            Self::Part => "part",
            Self::Cut => "cut",
            Self::Purged => "purged",
        }
    }
}

/// The facts about a request that count.
#[derive(Debug, Clone)]
pub struct StoringRequest<'a> {
    /// Its method.
    pub method: &'a Method,
    /// It has an Authorization field.
    pub has_authorization: bool,
    /// Its directives.
    pub directives: &'a Request,
}

/// The permissions of the operator.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    /// Set-Cookie is removed from what is stored and sent, instead of forbidding the store.
    pub strips_cookies: bool,
    /// The cookies that the origin sees say nothing about the visitor: `Vary: Cookie` is no reason.
    pub ignores_cookies: bool,
    /// Pages with a nonce may be stored.
    pub nonces: bool,
}

/// Judges a response.
///
/// # Errors
///
/// If it may not be stored: the first reason.
pub fn judge(
    asked: &StoringRequest<'_>,
    status: StatusCode,
    directives: &Response,
    fields: &Fields,
    lifetime: Option<Lifetime>,
    allowed: Allowed,
) -> Result<Lifetime, NotStored> {
    let reason = |is_so: bool, reason: NotStored| if is_so { Err(reason) } else { Ok(()) };
    reason(asked.method != Method::GET, NotStored::Method)?;
    reason(asked.directives.no_store, NotStored::RequestNoStore)?;
    let is_understood = UNDERSTOOD.contains(&status.as_u16());
    reason(directives.must_understand && !is_understood, NotStored::NotUnderstood)?;
    // On a known status, `must-understand` outweighs `no-store`.
    reason(directives.no_store && !directives.must_understand, NotStored::NoStore)?;
    let is_storable = status.is_success() || STORED.contains(&status.as_u16());
    reason(!is_storable || status == StatusCode::PARTIAL_CONTENT, NotStored::Status)?;
    reason(directives.private.as_ref().is_some_and(Scope::is_whole), NotStored::Private)?;
    let is_shared = directives.public || directives.s_maxage.is_some() || directives.must_revalidate;
    reason(asked.has_authorization && !is_shared, NotStored::Authorization)?;
    let hides_cookies = names(directives.private.as_ref(), b"set-cookie");
    let may_hide = names(directives.no_cache.as_ref(), b"set-cookie") || hides_cookies;
    let sets_cookie = fields.has(Name::SetCookie) && !may_hide;
    reason(sets_cookie && !allowed.strips_cookies, NotStored::SetCookie)?;
    varies(fields, allowed)?;
    reason(!allowed.nonces && has_nonce(fields), NotStored::Nonce)?;
    reason(permits_one_origin(fields), NotStored::Origin)?;
    reason(is_stream(fields), NotStored::Stream)?;
    reason(PROGRAM.iter().any(|name| fields.value_of(name).is_some()), NotStored::Program)?;
    let lifetime = lifetime.ok_or(NotStored::NoLifetime)?;
    // Statuses beside 2xx need a stated time, or `negative`.
    let is_stated = !matches!(lifetime.basis, LifetimeBasis::DefaultTtl | LifetimeBasis::Heuristic);
    reason(!status.is_success() && !is_stated && status != StatusCode::MOVED_PERMANENTLY, NotStored::NoLifetime)?;
    let has_validator = fields.value_of(b"etag").is_some() || fields.value_of(b"last-modified").is_some();
    let may_be_stale = directives.stale_if_error.is_some() || directives.stale_while_revalidate.is_some();
    reason(lifetime.seconds == 0 && !has_validator && !may_be_stale, NotStored::NoUse)?;
    Ok(lifetime)
}

fn names(scope: Option<&Scope>, field: &[u8]) -> bool {
    matches!(scope, Some(Scope::Fields(names)) if names.iter().any(|name| **name == *field))
}

fn varies(fields: &Fields, allowed: Allowed) -> Result<(), NotStored> {
    let mut count = 0;
    for name in fields.get_all(Name::Vary).flat_map(crate::message::tokens) {
        count += 1;
        if name == b"*" || count > VARY_MAX {
            return Err(NotStored::Vary);
        }
        if name.eq_ignore_ascii_case(b"cookie") && !allowed.ignores_cookies {
            return Err(NotStored::VaryCookie);
        }
    }
    Ok(())
}

/// `true` if the response is readable for the one origin that asked, and says so to all.
fn permits_one_origin(fields: &Fields) -> bool {
    let varies =
        || fields.get_all(Name::Vary).flat_map(crate::message::tokens).any(|name| name.eq_ignore_ascii_case(b"origin"));
    fields.value_of(b"access-control-allow-origin").is_some_and(|origin| origin != b"*" && !varies())
}

fn is_stream(fields: &Fields) -> bool {
    let kind = fields.get(Name::ContentType).unwrap_or_default();
    let is_events = kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"));
    is_events || fields.value_of(b"x-accel-buffering").is_some_and(|value| value.eq_ignore_ascii_case(b"no"))
}

fn has_nonce(fields: &Fields) -> bool {
    let policies = [&b"content-security-policy"[..], b"content-security-policy-report-only"];
    let mut policies = policies.into_iter().flat_map(|name| fields.values_of(name));
    policies.any(|policy| memchr::memmem::find(&policy.to_ascii_lowercase(), b"'nonce-").is_some())
}

#[cfg(test)]
mod tests {
    use super::super::freshness::{ReceivedAt, TimeRules, lifetime};
    use super::*;

    const TIMES: TimeRules = TimeRules { default_ttl: None, replaces_zero: false, negative: None, heuristic_max: None };

    struct Case<'a> {
        method: Method,
        status: u16,
        request: &'a [(&'a str, &'a str)],
        response: &'a [(&'a str, &'a str)],
        times: TimeRules,
        allowed: Allowed,
    }

    impl Default for Case<'_> {
        fn default() -> Self {
            let (request, response) = (&[][..], &[("Cache-Control", "max-age=60")][..]);
            Self { method: Method::GET, status: 200, request, response, times: TIMES, allowed: Allowed::default() }
        }
    }

    impl Case<'_> {
        fn judged(&self) -> Result<u32, NotStored> {
            let (request, response) = (Fields::of(self.request), Fields::of(self.response));
            let (asked, said) = (Request::of(&request), Response::of(&response));
            let has_authorization = request.value_of(b"authorization").is_some();
            let asked = StoringRequest { method: &self.method, has_authorization, directives: &asked };
            let status = StatusCode::from_u16(self.status).unwrap();
            let received = ReceivedAt { at: 1_795_794_000, delay: 0 };
            let lasts = lifetime(status, &said, &response, received, self.times);
            judge(&asked, status, &said, &response, lasts, self.allowed).map(|l| l.seconds)
        }
    }

    /// A table of status and directive.
    #[test]
    fn statuses() {
        let stored = |status, value| Case { status, response: &[("Cache-Control", value)], ..Case::default() }.judged();
        for status in [200, 203, 204, 226, 299, 301, 302, 307, 308, 404, 410] {
            assert_eq!(stored(status, "max-age=60"), Ok(60), "{status}");
        }
        for status in [
            206, 300, 303, 304, 400, 401, 403, 405, 408, 412, 413, 414, 416, 421, 425, 428, 429, 431, 500, 501, 502,
            503, 504, 511,
        ] {
            for value in ["max-age=60", "public, max-age=60", "s-maxage=60"] {
                assert_eq!(stored(status, value), Err(NotStored::Status), "{status} {value}");
            }
        }
        assert_eq!(stored(200, "must-understand, no-store, max-age=60"), Ok(60));
        assert_eq!(stored(299, "must-understand, no-store, max-age=60"), Err(NotStored::NotUnderstood));
        assert_eq!(stored(299, "must-understand, max-age=60"), Err(NotStored::NotUnderstood));
        assert_eq!(stored(429, "must-understand, no-store, max-age=60"), Err(NotStored::NotUnderstood));
        assert_eq!(stored(302, "public"), Err(NotStored::NoLifetime));
        let ttl = TimeRules { default_ttl: Some(9), negative: Some(3), ..TIMES };
        let with_ttl = |status, response| Case { status, response, times: ttl, ..Case::default() }.judged();
        assert_eq!((with_ttl(200, &[]), with_ttl(301, &[]), with_ttl(404, &[])), (Ok(9), Ok(9), Ok(3)));
        assert_eq!(with_ttl(302, &[("Cache-Control", "public")]), Err(NotStored::NoLifetime));
        assert_eq!(with_ttl(500, &[("Cache-Control", "public")]), Err(NotStored::Status));
    }

    #[test]
    fn methods_and_requests() {
        for method in [Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert_eq!(Case { method, ..Case::default() }.judged(), Err(NotStored::Method));
        }
        let with = |request| Case { request, ..Case::default() }.judged();
        assert_eq!(with(&[("Cache-Control", "no-store")]), Err(NotStored::RequestNoStore));
        assert_eq!(with(&[("Cache-Control", "no-cache")]), Ok(60));
        let secret = &[("Authorization", "Basic eA==")];
        for (value, want) in [
            ("max-age=60", Err(NotStored::Authorization)),
            ("max-age=60, proxy-revalidate", Err(NotStored::Authorization)),
            ("max-age=60, public", Ok(60)),
            ("s-maxage=60", Ok(60)),
            ("max-age=60, must-revalidate", Ok(60)),
            ("max-age=60, public, private", Err(NotStored::Private)),
        ] {
            let case = Case { request: secret, response: &[("Cache-Control", value)], ..Case::default() };
            assert_eq!(case.judged(), want, "{value}");
        }
    }

    #[test]
    fn responses() {
        let cc = ("Cache-Control", "max-age=60");
        let cookies = Allowed { strips_cookies: true, ignores_cookies: true, nonces: true };
        let many = vec!["x"; 65].join(",");
        for (response, by_default, if_allowed) in [
            (vec![("Cache-Control", "no-store, max-age=60")], Err(NotStored::NoStore), Err(NotStored::NoStore)),
            (vec![("Cache-Control", "private, max-age=60")], Err(NotStored::Private), Err(NotStored::Private)),
            (vec![("Cache-Control", "private=\"x-u\", max-age=60")], Ok(60), Ok(60)),
            (vec![("Cache-Control", "no-cache, max-age=60")], Ok(60), Ok(60)),
            (vec![cc, ("Set-Cookie", "sid=1")], Err(NotStored::SetCookie), Ok(60)),
            (vec![("Cache-Control", "private=set-cookie, max-age=60"), ("Set-Cookie", "a=1")], Ok(60), Ok(60)),
            (vec![cc, ("Vary", "*")], Err(NotStored::Vary), Err(NotStored::Vary)),
            (vec![cc, ("Vary", "Accept, *")], Err(NotStored::Vary), Err(NotStored::Vary)),
            (vec![cc, ("Vary", &many)], Err(NotStored::Vary), Err(NotStored::Vary)),
            (vec![cc, ("Vary", "accept, COOKIE")], Err(NotStored::VaryCookie), Ok(60)),
            (vec![cc, ("Vary", "Origin")], Ok(60), Ok(60)),
            (vec![cc, ("Access-Control-Allow-Origin", "*")], Ok(60), Ok(60)),
            (vec![cc, ("Access-Control-Allow-Origin", "https://a")], Err(NotStored::Origin), Err(NotStored::Origin)),
            (vec![cc, ("Access-Control-Allow-Origin", "https://a"), ("Vary", "Origin")], Ok(60), Ok(60)),
            (vec![cc, ("Content-Type", "Text/Event-Stream; x")], Err(NotStored::Stream), Err(NotStored::Stream)),
            (vec![cc, ("X-Accel-Buffering", "no")], Err(NotStored::Stream), Err(NotStored::Stream)),
            (vec![cc, ("X-Member-Cache-Tier", "x")], Err(NotStored::Program), Err(NotStored::Program)),
            (vec![cc, ("Content-Security-Policy", "script-src 'Nonce-x'")], Err(NotStored::Nonce), Ok(60)),
            (vec![cc, ("Content-Security-Policy", "script-src 'self'")], Ok(60), Ok(60)),
            (vec![], Err(NotStored::NoLifetime), Err(NotStored::NoLifetime)),
            (vec![("Cache-Control", "public")], Err(NotStored::NoLifetime), Err(NotStored::NoLifetime)),
            (vec![("Cache-Control", "max-age=0")], Err(NotStored::NoUse), Err(NotStored::NoUse)),
            (vec![("Cache-Control", "max-age=0"), ("ETag", "\"a\"")], Ok(0), Ok(0)),
            (vec![("Cache-Control", "max-age=0, stale-if-error=9")], Ok(0), Ok(0)),
            (vec![("Pragma", "no-cache"), cc], Ok(60), Ok(60)),
            (vec![("CDN-Cache-Control", "private"), cc], Err(NotStored::Private), Err(NotStored::Private)),
            (vec![("CDN-Cache-Control", "max-age=5"), ("Cache-Control", "no-store")], Ok(5), Ok(5)),
        ] {
            let case = |allowed| Case { response: &response, allowed, ..Case::default() }.judged();
            assert_eq!((case(Allowed::default()), case(cookies)), (by_default, if_allowed), "{response:?}");
        }
    }
}
