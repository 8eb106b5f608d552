//! May a stored response be sent (RFC 9111 section 4, RFC 5861)?

use super::directives::{AGE_MAX, Request, Response, Scope};

/// The weight of directives of clients: each reload asks for validation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Honour {
    /// As the RFC says.
    Yes,
    /// Validation asked for by a client is made at most once a second for each key.
    #[default]
    Cheap,
    /// Not at all, but for `only-if-cached` and `no-store`.
    No,
}

/// The permissions of the operator beyond those of the origin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stale {
    /// Seconds that a stale response is sent for if the origin fails.
    pub if_error: Option<u32>,
    /// Seconds that a stale response is sent for while it is validated.
    pub while_revalidate: Option<u32>,
    /// These hold although the origin states `s-maxage`.
    pub despite_s_maxage: bool,
}

/// The times of a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreshnessClock {
    /// For how long it is fresh, in seconds.
    pub lifetime: u32,
    /// Its age now, in seconds.
    pub age: u32,
}

impl FreshnessClock {
    /// `true` while it is fresh.
    #[must_use]
    pub fn is_fresh(self) -> bool {
        self.lifetime > self.age
    }

    /// The seconds until it is stale; negative for the seconds since.
    #[must_use]
    pub fn left(self) -> i64 {
        i64::from(self.lifetime) - i64::from(self.age)
    }

    /// The seconds for which it has been stale.
    fn stale_for(self) -> u32 {
        self.age.saturating_sub(self.lifetime)
    }
}

/// The decision about a request for which a response is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReuseDecision {
    /// Send it.
    Fresh,
    /// Send it although it is stale; the client allows that.
    MaxStale,
    /// Send it, and validate it meanwhile.
    WhileRevalidate,
    /// Ask the origin first, for this reason.
    Validate(Because),
    /// Answer 504: only a stored response is wanted.
    Nothing,
}

/// Why the origin is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// It is stale.
    Stale,
    /// The origin wants each use validated.
    NoCache,
    /// The client asks for it.
    Request,
}

/// Decides by the directives of both sides. `may_insist`: the client's wish for validation counts
/// now ([`Honour::Cheap`]).
#[must_use]
pub fn decide(
    clock: FreshnessClock,
    said: &Response,
    asked: &Request,
    honour: Honour,
    stale: Stale,
    may_insist: impl FnOnce() -> bool,
) -> ReuseDecision {
    let found = without_only(clock, said, asked, honour, stale, may_insist);
    match found {
        ReuseDecision::Validate(_) if asked.only_if_cached => ReuseDecision::Nothing,
        found => found,
    }
}

fn without_only(
    clock: FreshnessClock,
    said: &Response,
    asked: &Request,
    honour: Honour,
    stale: Stale,
    may_insist: impl FnOnce() -> bool,
) -> ReuseDecision {
    if said.no_cache.as_ref().is_some_and(Scope::is_whole) {
        return ReuseDecision::Validate(Because::NoCache);
    }
    let insists = match honour {
        Honour::No => false,
        Honour::Yes | Honour::Cheap => is_refused_by(clock, said, asked),
    };
    if clock.is_fresh() {
        let counts = insists && (honour == Honour::Yes || asked.only_if_cached || may_insist());
        return if counts { ReuseDecision::Validate(Because::Request) } else { ReuseDecision::Fresh };
    }
    if asked.no_cache && insists {
        return ReuseDecision::Validate(Because::Request);
    }
    let is_forbidden = forbids_stale(said);
    let max_stale = asked.max_stale.filter(|_| honour == Honour::Yes && !is_forbidden && !states_s_maxage(said));
    if max_stale.is_some_and(|most| most == AGE_MAX || clock.stale_for() <= most) && !insists {
        return ReuseDecision::MaxStale;
    }
    let own = said.stale_while_revalidate;
    let window = own.or_else(|| stale.while_revalidate.filter(|_| stale.despite_s_maxage || !states_s_maxage(said)));
    let is_within = window.is_some_and(|seconds| clock.stale_for() < seconds);
    // A client that wants a newer page waits for it (RFC 9111 section 5.2.1).
    match is_within && !is_forbidden && !insists {
        true => ReuseDecision::WhileRevalidate,
        false => ReuseDecision::Validate(Because::Stale),
    }
}

/// The client does not accept the stored response (RFC 9111 section 5.2.1).
fn is_refused_by(clock: FreshnessClock, said: &Response, asked: &Request) -> bool {
    if asked.no_cache {
        return true;
    }
    // A page that never changes needs no validation by a reload (RFC 8246).
    let max_age = asked.max_age.filter(|most| !(said.immutable && *most == 0 && clock.is_fresh()));
    max_age.is_some_and(|most| clock.age > most || most == 0)
        || asked.min_fresh.is_some_and(|least| clock.left() < i64::from(least))
}

/// May a stale response be sent because the origin failed (RFC 5861 section 4)? The origin's word
/// counts, then the operator's.
#[must_use]
pub fn is_usable_on_error(
    clock: FreshnessClock,
    said: &Response,
    asked: &Request,
    honour: Honour,
    stale: Stale,
) -> bool {
    if said.no_cache.as_ref().is_some_and(Scope::is_whole) || forbids_stale(said) {
        return false;
    }
    if clock.is_fresh() {
        return true;
    }
    let of_operator = stale.if_error.filter(|_| stale.despite_s_maxage || !states_s_maxage(said));
    let of_client = asked.stale_if_error.filter(|_| honour == Honour::Yes && !states_s_maxage(said));
    let longest = said.stale_if_error.into_iter().chain(of_operator).chain(of_client).max();
    longest.is_some_and(|seconds| clock.stale_for() < seconds)
}

/// Stale responses are forbidden (RFC 9111 section 4.2.4), whatever else is said.
fn forbids_stale(said: &Response) -> bool {
    said.must_revalidate || said.proxy_revalidate
}

/// `s-maxage` forbids stale responses, too, unless the origin itself allows them.
fn states_s_maxage(said: &Response) -> bool {
    said.s_maxage.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Fields;

    fn cc(value: &str) -> Fields {
        let mut fields = Fields::default();
        fields.push(b"Cache-Control", value.as_bytes());
        fields
    }

    fn reuse(age: u32, said: &str, asked: &str, honour: Honour, stale: Stale) -> ReuseDecision {
        let said = Response::of(&cc(said));
        let lifetime = said.s_maxage.or(said.max_age).unwrap_or_default();
        decide(FreshnessClock { lifetime, age }, &said, &Request::of(&cc(asked)), honour, stale, || true)
    }

    #[test]
    fn fresh_and_stale() {
        use Because::{NoCache, Stale as IsStale};
        for (age, said, want) in [
            (0, "max-age=60", ReuseDecision::Fresh),
            (59, "max-age=60", ReuseDecision::Fresh),
            (60, "max-age=60", ReuseDecision::Validate(IsStale)),
            (5, "max-age=60, no-cache", ReuseDecision::Validate(NoCache)),
            (5, "max-age=60, no-cache=\"x\"", ReuseDecision::Fresh),
            (5, "max-age=60, must-revalidate", ReuseDecision::Fresh),
            (61, "max-age=60, stale-while-revalidate=10", ReuseDecision::WhileRevalidate),
            (70, "max-age=60, stale-while-revalidate=10", ReuseDecision::Validate(IsStale)),
            (61, "max-age=60, stale-while-revalidate=10, must-revalidate", ReuseDecision::Validate(IsStale)),
            (61, "max-age=60, stale-while-revalidate=10, proxy-revalidate", ReuseDecision::Validate(IsStale)),
            (61, "s-maxage=60, stale-while-revalidate=10", ReuseDecision::WhileRevalidate),
            (61, "max-age=60, stale-while-revalidate=10, no-cache", ReuseDecision::Validate(NoCache)),
        ] {
            assert_eq!(reuse(age, said, "", Honour::Yes, Stale::default()), want, "{age} {said}");
        }
        let operator = Stale { while_revalidate: Some(10), ..Stale::default() };
        let allowed = |said, stale| reuse(61, said, "", Honour::Yes, stale);
        assert_eq!(allowed("max-age=60", operator), ReuseDecision::WhileRevalidate);
        assert_eq!(allowed("s-maxage=60", operator), ReuseDecision::Validate(IsStale));
        assert_eq!(
            allowed("s-maxage=60", Stale { despite_s_maxage: true, ..operator }),
            ReuseDecision::WhileRevalidate
        );
        assert_eq!(allowed("max-age=60, must-revalidate", operator), ReuseDecision::Validate(IsStale));
        // The origin's own window is the one that counts.
        assert_eq!(allowed("max-age=60, stale-while-revalidate=1", operator), ReuseDecision::Validate(IsStale));
    }

    #[test]
    fn wishes_of_clients() {
        use Because::{Request as Wish, Stale as IsStale};
        for (age, said, asked, want) in [
            (5, "max-age=60", "no-cache", ReuseDecision::Validate(Wish)),
            (5, "max-age=60", "max-age=0", ReuseDecision::Validate(Wish)),
            (0, "max-age=60", "max-age=0", ReuseDecision::Validate(Wish)),
            (5, "max-age=60", "max-age=3", ReuseDecision::Validate(Wish)),
            (3, "max-age=60", "max-age=3", ReuseDecision::Fresh),
            (5, "max-age=60", "min-fresh=58", ReuseDecision::Validate(Wish)),
            (2, "max-age=60", "min-fresh=58", ReuseDecision::Fresh),
            (5, "max-age=60, immutable", "max-age=0", ReuseDecision::Fresh),
            (5, "max-age=60, immutable", "no-cache", ReuseDecision::Validate(Wish)),
            (65, "max-age=60, immutable", "max-age=0", ReuseDecision::Validate(IsStale)),
            (65, "max-age=60", "max-stale", ReuseDecision::MaxStale),
            (65, "max-age=60", "max-stale=5", ReuseDecision::MaxStale),
            (66, "max-age=60", "max-stale=5", ReuseDecision::Validate(IsStale)),
            (65, "max-age=60, must-revalidate", "max-stale", ReuseDecision::Validate(IsStale)),
            (65, "max-age=60, proxy-revalidate", "max-stale", ReuseDecision::Validate(IsStale)),
            (65, "s-maxage=60", "max-stale", ReuseDecision::Validate(IsStale)),
            (65, "max-age=60, no-cache", "max-stale", ReuseDecision::Validate(Because::NoCache)),
            (65, "max-age=60, stale-while-revalidate=10", "max-age=64", ReuseDecision::Validate(IsStale)),
            (65, "max-age=60, stale-while-revalidate=10", "max-age=65", ReuseDecision::WhileRevalidate),
            (65, "max-age=60, stale-while-revalidate=10", "min-fresh=1", ReuseDecision::Validate(IsStale)),
            (65, "max-age=60, stale-while-revalidate=10", "only-if-cached", ReuseDecision::WhileRevalidate),
            (65, "max-age=60, stale-while-revalidate=10", "only-if-cached, max-age=0", ReuseDecision::Nothing),
            (5, "max-age=60", "only-if-cached", ReuseDecision::Fresh),
            (65, "max-age=60", "only-if-cached", ReuseDecision::Nothing),
            (65, "max-age=60", "only-if-cached, max-stale", ReuseDecision::MaxStale),
            (5, "max-age=60", "only-if-cached, no-cache", ReuseDecision::Nothing),
        ] {
            let stale = Stale::default();
            assert_eq!(reuse(age, said, asked, Honour::Yes, stale), want, "{age} {said} / {asked}");
        }
        let none = Stale::default();
        assert_eq!(reuse(5, "max-age=60", "no-cache", Honour::No, none), ReuseDecision::Fresh);
        assert_eq!(reuse(65, "max-age=60", "max-stale", Honour::Cheap, none), ReuseDecision::Validate(IsStale));
        let said = Response::of(&cc("max-age=60"));
        let asked = Request::of(&cc("no-cache"));
        let cheap = |may| decide(FreshnessClock { lifetime: 60, age: 5 }, &said, &asked, Honour::Cheap, none, || may);
        assert_eq!((cheap(true), cheap(false)), (ReuseDecision::Validate(Wish), ReuseDecision::Fresh));
    }

    #[test]
    fn stale_when_the_origin_fails() {
        let week = Stale { if_error: Some(604_800), ..Stale::default() };
        let (none, over) = (Stale::default(), Stale { despite_s_maxage: true, ..week });
        for (age, said, asked, stale, want) in [
            (65, "max-age=60", "", none, false),
            (65, "max-age=60", "", week, true),
            (604_859, "max-age=60", "", week, true),
            (604_860, "max-age=60", "", week, false),
            (65, "max-age=60, stale-if-error=10", "", none, true),
            (70, "max-age=60, stale-if-error=10", "", none, false),
            (70, "max-age=60, stale-if-error=10", "", week, true),
            (65, "max-age=60, must-revalidate", "", week, false),
            (65, "max-age=60, must-revalidate, stale-if-error=10", "", week, false),
            (65, "max-age=60, proxy-revalidate", "", week, false),
            (65, "max-age=60, no-cache", "", week, false),
            (65, "max-age=60, no-cache=\"x\"", "", week, true),
            (65, "s-maxage=60", "", week, false),
            (65, "s-maxage=60, stale-if-error=10", "", none, true),
            (65, "s-maxage=60", "", over, true),
            (65, "max-age=60", "stale-if-error=10", none, true),
            (75, "max-age=60", "stale-if-error=10", none, false),
            (5, "max-age=60", "", none, true),
        ] {
            let directives = Response::of(&cc(said));
            let lifetime = directives.s_maxage.or(directives.max_age).unwrap_or_default();
            let clock = FreshnessClock { lifetime, age };
            let found = is_usable_on_error(clock, &directives, &Request::of(&cc(asked)), Honour::Yes, stale);
            assert_eq!(found, want, "{age} {said} / {asked}");
        }
    }
}
