//! The freshness and the age of a response (RFC 9111 section 4.2).

use http::StatusCode;

use super::date;
use super::directives::{AGE_MAX, Response, age};
use crate::message::{Fields, Name};

/// The part of the time since Last-Modified that heuristic freshness lasts, as a divisor (RFC 9111
/// section 4.2.2 names 10 %).
const HEURISTIC_PART: i64 = 10;
/// Statuses that may be stored without an explicit time (RFC 9110 section 15.1). Errors among them
/// are left out: `negative` is for those.
const HEURISTIC: [u16; 5] = [200, 203, 204, 300, 301];

/// The settings of the operator about times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeRules {
    /// For responses without an explicit time, in seconds. It stays between pintle and its store.
    pub default_ttl: Option<u32>,
    /// `default_ttl` also replaces `max-age=0` (Ghost's default).
    pub replaces_zero: bool,
    /// For 404 and 410 without an explicit time, in seconds.
    pub negative: Option<u32>,
    /// The bound of heuristic freshness, in seconds; none: no heuristic freshness.
    pub heuristic_max: Option<u32>,
}

/// The reason for a lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the directive, field or key of that name")]
pub enum LifetimeBasis {
    SMaxage,
    MaxAge,
    Expires,
    DefaultTtl,
    Negative,
    Heuristic,
}

impl LifetimeBasis {
    /// Its name in `pintle cache`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SMaxage => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "expires",
            Self::DefaultTtl => "default_ttl",
            Self::Negative => "negative",
            Self::Heuristic => "heuristic",
        }
    }
}

/// The time for which a response is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// In seconds, from the response's making.
    pub seconds: u32,
    /// The source of the lifetime.
    pub basis: LifetimeBasis,
}

/// When a response was asked for and received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedAt {
    /// The time of its head, in seconds since 1970.
    pub at: i64,
    /// The seconds between the request's sending and the head.
    pub delay: u32,
}

/// Returns the lifetime of a response; `None` if nothing gives it one.
#[must_use]
pub fn lifetime(
    status: StatusCode,
    directives: &Response,
    fields: &Fields,
    received: ReceivedAt,
    times: TimeRules,
) -> Option<Lifetime> {
    let given = |seconds, basis| Some(Lifetime { seconds, basis });
    // Only a stated zero is replaced: one that could not be read is the origin's fault, not its wish.
    let replaced = |seconds| {
        let is_replaced = seconds == 0 && times.replaces_zero && directives.no_cache.is_none();
        times.default_ttl.filter(|_| is_replaced)
    };
    if let Some(seconds) = directives.s_maxage {
        return given(seconds, LifetimeBasis::SMaxage);
    }
    if let Some(seconds) = directives.max_age {
        return replaced(seconds)
            .map_or_else(|| given(seconds, LifetimeBasis::MaxAge), |ttl| given(ttl, LifetimeBasis::DefaultTtl));
    }
    if !directives.is_targeted && fields.has_field(b"expires") {
        // Several, or none that can be read: in the past.
        let expires = single(fields, b"expires").and_then(|value| date::parse(value, received.at));
        let left = expires.map_or(0, |at| at.saturating_sub(made(fields, received)));
        return given(bounded(left), LifetimeBasis::Expires);
    }
    if directives.no_cache.as_ref().is_some_and(super::directives::Scope::is_whole) {
        return None;
    }
    if matches!(status.as_u16(), 404 | 410) {
        return times.negative.and_then(|seconds| given(seconds, LifetimeBasis::Negative));
    }
    if !HEURISTIC.contains(&status.as_u16()) && !directives.public {
        return None;
    }
    if let Some(seconds) = times.default_ttl.filter(|_| status.is_success() || status.is_redirection()) {
        return given(seconds, LifetimeBasis::DefaultTtl);
    }
    let most = times.heuristic_max?;
    let modified = date::parse(single(fields, b"last-modified")?, received.at)?;
    let since = made(fields, received).checked_sub(modified).filter(|since| *since > 0)?;
    given(bounded(since / HEURISTIC_PART).min(most), LifetimeBasis::Heuristic)
}

/// Returns the age of a response when its head was received, in seconds (RFC 9111 section 4.2.3).
#[must_use]
pub fn initial_age(fields: &Fields, received: ReceivedAt) -> u32 {
    let apparent = bounded(received.at.saturating_sub(made(fields, received)));
    // The first member counts, and only if it is a number (section 5.1).
    let stated = fields.value_of(b"age").and_then(|ages| {
        let first = ages.split(|b| *b == b',').next().unwrap_or_default();
        age(first.trim_ascii())
    });
    apparent.max(stated.unwrap_or_default().saturating_add(received.delay)).min(AGE_MAX)
}

/// The time of the response's making: its Date, or when it came.
pub(super) fn made(fields: &Fields, received: ReceivedAt) -> i64 {
    let date = fields.get(Name::Date).and_then(|value| date::parse(value, received.at));
    date.unwrap_or(received.at)
}

fn bounded(seconds: i64) -> u32 {
    u32::try_from(seconds.max(0)).map_or(AGE_MAX, |seconds| seconds.min(AGE_MAX))
}

/// The value of a field that is there once, or several times alike.
fn single<'a>(fields: &'a Fields, name: &'a [u8]) -> Option<&'a [u8]> {
    let mut all = fields.values_of(name);
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_794_000;
    const DATE: (&str, &str) = ("Date", "Fri, 27 Nov 2026 15:40:00 GMT");
    const RECEIVED: ReceivedAt = ReceivedAt { at: NOW, delay: 0 };

    fn of(status: u16, list: &[(&str, &str)], times: TimeRules) -> Option<(u32, LifetimeBasis)> {
        let fields = Fields::of(list);
        let found = lifetime(StatusCode::from_u16(status).unwrap(), &Response::of(&fields), &fields, RECEIVED, times);
        found.map(|l| (l.seconds, l.basis))
    }

    #[test]
    fn explicit_times() {
        let cc = |value| ("Cache-Control", value);
        let in_a_minute = ("Expires", "Fri, 27 Nov 2026 15:41:00 GMT");
        for (list, want) in [
            (vec![cc("s-maxage=5, max-age=9"), in_a_minute], Some((5, LifetimeBasis::SMaxage))),
            (vec![cc("max-age=9"), in_a_minute], Some((9, LifetimeBasis::MaxAge))),
            (vec![cc("max-age=x"), in_a_minute], Some((0, LifetimeBasis::MaxAge))),
            (vec![in_a_minute], Some((60, LifetimeBasis::Expires))),
            (vec![DATE, in_a_minute], Some((60, LifetimeBasis::Expires))),
            (vec![("Date", "Fri, 27 Nov 2026 15:39:00 GMT"), in_a_minute], Some((120, LifetimeBasis::Expires))),
            (vec![("Date", "nonsense"), in_a_minute], Some((60, LifetimeBasis::Expires))),
            (vec![in_a_minute, in_a_minute], Some((60, LifetimeBasis::Expires))),
            (vec![in_a_minute, ("Expires", "0")], Some((0, LifetimeBasis::Expires))),
            (vec![("Expires", "0")], Some((0, LifetimeBasis::Expires))),
            (vec![("Expires", "-1")], Some((0, LifetimeBasis::Expires))),
            (vec![("Expires", "Fri, 27 Nov 2026 15:41:00 CET")], Some((0, LifetimeBasis::Expires))),
            (vec![("Expires", "Thu, 01 Dec 1994 16:00:00 GMT")], Some((0, LifetimeBasis::Expires))),
            (vec![("Expires", "Fri, 27 Nov 9999 15:41:00 GMT")], Some((AGE_MAX, LifetimeBasis::Expires))),
            // A field for this cache decides alone.
            (vec![("CDN-Cache-Control", "private"), in_a_minute], None),
            (vec![("CDN-Cache-Control", "max-age=3"), in_a_minute, cc("s-maxage=9")], Some((3, LifetimeBasis::MaxAge))),
            (vec![], None),
        ] {
            assert_eq!(of(200, &list, TimeRules::default()), want, "{list:?}");
        }
    }

    #[test]
    fn times_of_the_operator() {
        let times =
            TimeRules { default_ttl: Some(600), replaces_zero: false, negative: Some(10), heuristic_max: Some(3600) };
        let zero = TimeRules { replaces_zero: true, ..times };
        let modified = ("Last-Modified", "Tue, 17 Nov 2026 15:40:00 GMT");
        let heuristic = TimeRules { default_ttl: None, ..times };
        let cc = |value| ("Cache-Control", value);
        for (status, list, times, want) in [
            (200, vec![], times, Some((600, LifetimeBasis::DefaultTtl))),
            (200, vec![cc("max-age=5")], times, Some((5, LifetimeBasis::MaxAge))),
            (200, vec![cc("max-age=0")], times, Some((0, LifetimeBasis::MaxAge))),
            (200, vec![cc("max-age=0")], zero, Some((600, LifetimeBasis::DefaultTtl))),
            (200, vec![cc("max-age=0, no-cache")], zero, Some((0, LifetimeBasis::MaxAge))),
            (200, vec![cc("s-maxage=0")], zero, Some((0, LifetimeBasis::SMaxage))),
            (200, vec![cc("no-cache")], times, None),
            (200, vec![("Expires", "0")], times, Some((0, LifetimeBasis::Expires))),
            (301, vec![], times, Some((600, LifetimeBasis::DefaultTtl))),
            (302, vec![], times, None),
            (302, vec![cc("public")], times, Some((600, LifetimeBasis::DefaultTtl))),
            (404, vec![], times, Some((10, LifetimeBasis::Negative))),
            (410, vec![], times, Some((10, LifetimeBasis::Negative))),
            (404, vec![cc("max-age=5")], times, Some((5, LifetimeBasis::MaxAge))),
            (404, vec![], TimeRules { negative: None, ..times }, None),
            (500, vec![], times, None),
            (500, vec![cc("public")], times, None),
            // Heuristics: a tenth of ten days, at most an hour.
            (200, vec![DATE, modified], heuristic, Some((3600, LifetimeBasis::Heuristic))),
            (
                200,
                vec![DATE, ("Last-Modified", "Fri, 27 Nov 2026 15:30:00 GMT")],
                heuristic,
                Some((60, LifetimeBasis::Heuristic)),
            ),
            (200, vec![DATE, ("Last-Modified", "Fri, 27 Nov 2026 15:50:00 GMT")], heuristic, None),
            (200, vec![DATE, modified, ("Expires", "0")], heuristic, Some((0, LifetimeBasis::Expires))),
            (200, vec![DATE, modified, cc("max-age=x")], heuristic, Some((0, LifetimeBasis::MaxAge))),
            (200, vec![DATE, modified], TimeRules::default(), None),
            (302, vec![DATE, modified], heuristic, None),
            (302, vec![DATE, modified, cc("public")], heuristic, Some((3600, LifetimeBasis::Heuristic))),
        ] {
            assert_eq!(of(status, &list, times), want, "{status} {list:?}");
        }
    }

    #[test]
    fn ages_on_arrival() {
        let received = ReceivedAt { at: NOW, delay: 2 };
        for (list, want) in [
            (vec![], 2),
            (vec![DATE], 2),
            (vec![DATE, ("Age", "50")], 52),
            (vec![DATE, ("Age", "50, 99")], 52),
            (vec![DATE, ("Age", "50"), ("Age", "99")], 52),
            (vec![DATE, ("Age", "-1")], 2),
            (vec![DATE, ("Age", "x")], 2),
            (vec![DATE, ("Age", "99999999999")], AGE_MAX),
            (vec![("Date", "Fri, 27 Nov 2026 15:39:00 GMT")], 60),
            (vec![("Date", "Fri, 27 Nov 2026 15:39:00 GMT"), ("Age", "70")], 72),
            // A clock ahead at the origin: never negative.
            (vec![("Date", "Fri, 27 Nov 2026 15:41:00 GMT")], 2),
            (vec![("Date", "Thu, 01 Jan 1970 00:00:00 GMT")], 1_795_794_000),
        ] {
            assert_eq!(initial_age(&Fields::of(&list), received), want, "{list:?}");
        }
    }
}
