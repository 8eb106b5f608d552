//! Finds the known name of a field, and the names that look like one.

pub use super::known_name::Name;
use super::known_name::{KNOWN, OTHER_FORWARDED, families};

/// The third bytes of the families, for each first byte of a name: a bit for each, by the last five
/// bits of its folded form. For most unknown names, this look-up is enough.
static THIRDS: [u32; 256] = {
    let mut thirds = [0; 256];
    let mut pair: u16 = 0;
    loop {
        let [first, third] = pair.to_be_bytes();
        if !families(fold(first), fold(third)).is_empty() {
            thirds[first as usize] |= 1 << (FOLDED[third as usize] & 31);
        }
        if pair == u16::MAX {
            break thirds;
        }
        pair += 1;
    }
};

/// Folds a byte of a name as servers do that turn names into variables: without case, and with one
/// character for all but letters and digits.
#[must_use]
const fn fold(b: u8) -> u8 {
    if b.is_ascii_alphanumeric() { b.to_ascii_lowercase() } else { b'-' }
}

const FOLDED: [u8; 256] = {
    let mut table = [b'-'; 256];
    let mut b: u8 = 0;
    loop {
        table[b as usize] = fold(b);
        if b == u8::MAX {
            break table;
        }
        b += 1;
    }
};

/// Returns a name in the form that [`folds_to`] compares with.
#[must_use]
pub fn folded(name: &[u8]) -> Box<[u8]> {
    name.iter().map(|b| fold(*b)).collect()
}

/// Returns `true` if a name is, or looks like, a name in its folded form.
#[must_use]
pub fn folds_to(name: &[u8], folded: &[u8]) -> bool {
    name.len() == folded.len() && name.iter().zip(folded).all(|(b, f)| FOLDED[usize::from(*b)] == *f)
}

fn begins_with(name: &[u8], folded: &[u8]) -> bool {
    name.get(..folded.len()).is_some_and(|begin| folds_to(begin, folded))
}

/// The size of the hash table of known names. The hash has the length and three bytes of a name; a
/// taken place leads to the next free one. Most unknown names meet an empty place at once.
const PLACES: usize = 512;

const fn place(name: &[u8]) -> usize {
    let len = name.len();
    if len == 0 {
        return 0;
    }
    let (first, middle, last) = (name[0], name[len / 2], name[len - 1]);
    let sum = len * 7
        + FOLDED[first as usize] as usize * 5
        + FOLDED[middle as usize] as usize * 11
        + FOLDED[last as usize] as usize * 29;
    sum % PLACES
}

/// The hash table: numbers of known names, from 1.
const TABLE: [u8; PLACES] = {
    let mut table = [0; PLACES];
    let mut number: u8 = 0;
    while (number as usize) < KNOWN.len() {
        let mut at = place(KNOWN[number as usize].0.as_bytes());
        while table[at] != 0 {
            at = (at + 1) % PLACES;
        }
        number += 1;
        table[at] = number;
    }
    table
};

/// A known name, prepared to be compared eight bytes at a time.
struct Spelled {
    name: Name,
    len: usize,
    /// The bytes in lower case.
    ends: [u64; 2],
    middle: [u64; 2],
    /// The bit of each letter that distinguishes the cases.
    ends_case: [u64; 2],
    middle_case: [u64; 2],
}

static SPELLED: [Spelled; KNOWN.len()] = {
    let mut all = [const {
        Spelled { name: Name::Other, len: 0, ends: [0; 2], middle: [0; 2], ends_case: [0; 2], middle_case: [0; 2] }
    }; KNOWN.len()];
    let mut number = 0;
    while number < all.len() {
        all[number] = Spelled::new(KNOWN[number].0.as_bytes(), KNOWN[number].1);
        number += 1;
    }
    all
};

impl Spelled {
    const LEN_MAX: usize = 32;

    const fn new(text: &[u8], name: Name) -> Self {
        assert!(text.len() <= Self::LEN_MAX, "a name of more than four times eight bytes");
        let (mut lower, mut case) = ([0; Self::LEN_MAX], [0; Self::LEN_MAX]);
        let mut at = 0;
        while at < text.len() {
            lower[at] = text[at].to_ascii_lowercase();
            case[at] = if text[at].is_ascii_alphabetic() { b'a' - b'A' } else { 0 };
            at += 1;
        }
        let (lower, case) = (lower.split_at(text.len()).0, case.split_at(text.len()).0);
        Self {
            name,
            len: text.len(),
            ends: ends(lower),
            middle: middle(lower),
            ends_case: ends(case),
            middle_case: middle(case),
        }
    }

    /// Returns `true` if `name`, which has the same length, is this name in any case.
    fn is(&self, name: &[u8]) -> bool {
        let same = |name: [u64; 2], case: [u64; 2], lower: [u64; 2]| {
            name[0] | case[0] == lower[0] && name[1] | case[1] == lower[1]
        };
        same(ends(name), self.ends_case, self.ends)
            && (name.len() <= 16 || same(middle(name), self.middle_case, self.middle))
    }
}

/// Returns the first and the last eight bytes of a name: all of a name with up to sixteen.
const fn ends(name: &[u8]) -> [u64; 2] {
    if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
        [u64::from_le_bytes(*first), u64::from_le_bytes(*last)]
    } else if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
        [u32::from_le_bytes(*first) as u64, u32::from_le_bytes(*last) as u64]
    } else {
        match *name {
            [a] => [a as u64, 0],
            [a, b] => [a as u64, b as u64],
            [a, b, c] => [u32::from_le_bytes([a, b, c, 0]) as u64, 0],
            _ => [0; 2],
        }
    }
}

/// Returns the eight bytes after the first eight, and those before the last eight. With [`ends`],
/// all of a name with up to 32 bytes.
const fn middle(name: &[u8]) -> [u64; 2] {
    if name.len() <= 16 {
        return [0; 2];
    }
    let (behind, before) = (name.split_at(8).1, name.split_at(name.len() - 8).0);
    match (behind.first_chunk(), before.last_chunk()) {
        (Some(behind), Some(before)) => [u64::from_le_bytes(*behind), u64::from_le_bytes(*before)],
        _ => [0; 2],
    }
}

/// The kind of a match.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NameMatch {
    Exactly,
    ByLooks,
}

#[inline]
fn find(name: &[u8]) -> Option<(Name, NameMatch)> {
    let mut at = place(name);
    while let Some(number) = TABLE[at].checked_sub(1) {
        let known = &SPELLED[usize::from(number)];
        if name.len() == known.len {
            if known.is(name) {
                return Some((known.name, NameMatch::Exactly));
            }
            if looks_like(name, KNOWN[usize::from(number)].0) {
                return Some((known.name, NameMatch::ByLooks));
            }
        }
        at = (at + 1) % PLACES;
    }
    match *name {
        [first, _, third, ..] if THIRDS[usize::from(first)] >> (FOLDED[usize::from(third)] & 31) & 1 == 1 => {
            find_family(name, first, third)
        }
        _ => None,
    }
}

#[inline(never)]
fn looks_like(name: &[u8], spelled: &str) -> bool {
    name.iter().zip(spelled.as_bytes()).all(|(a, b)| FOLDED[usize::from(*a)] == FOLDED[usize::from(*b)])
}

#[inline(never)]
fn find_family(name: &[u8], first: u8, third: u8) -> Option<(Name, NameMatch)> {
    let family = families(fold(first), fold(third)).iter().find(|family| begins_with(name, family.as_bytes()))?;
    let known = if *family == OTHER_FORWARDED { Name::XForwardedOther } else { Name::Claim };
    Some((known, NameMatch::Exactly))
}

impl Name {
    /// Returns the name that these bytes spell, in any case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        match find(name) {
            Some((known, NameMatch::Exactly)) | Some((known @ Self::Claim, _)) => known,
            Some((_, NameMatch::ByLooks)) => Self::Lookalike,
            None => Self::Other,
        }
    }

    /// Returns the name that a CGI-like origin reads in these bytes. There, all characters but
    /// letters and digits become the same character of a variable: `X_Forwarded_Proto` could pass
    /// for a field that pintle writes.
    #[must_use]
    pub fn of_lookalike(name: &[u8]) -> Self {
        find(name).map_or(Self::Other, |(known, _)| known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        let check = |text: &str, want| assert_eq!(Name::of(text.as_bytes()), want, "{text}");
        check("Host", Name::Host);
        check("x-FORWARDED-proto", Name::XForwardedProto);
        for name in ["X-Forwarded-Port", "X-Forwarded-", "X-Forwarded", "x-forwarded-prefix", "X_Forwarded_Server"] {
            check(name, Name::XForwardedOther);
        }
        check("Strict-Transport-Security", Name::StrictTransportSecurity);
        for name in ["", "X", "Accept-Language", "X-Forwar", "X-Other", "X_Other", "XHost", "X-Requested-With"] {
            check(name, Name::Other);
        }
    }

    #[test]
    fn every_name_is_known_in_any_case() {
        for (text, want) in KNOWN {
            for spelled in [(*text).to_owned(), text.to_ascii_lowercase(), text.to_ascii_uppercase()] {
                assert_eq!(Name::of(spelled.as_bytes()), *want, "{spelled}");
            }
            // A name with one other letter is another name.
            for at in (0..text.len()).filter(|at| text.as_bytes()[*at] != b'-') {
                let mut other = text.as_bytes().to_vec();
                other[at] = b'~';
                assert_ne!((Name::of(&other), other.len()), (*want, text.len() + 1));
                assert!(!matches!(Name::of(&other), known if known == *want && known != Name::Claim), "{text}");
            }
        }
        assert!(KNOWN.len() < usize::from(u8::MAX));
    }

    /// Finds a name as [`find`] does, without its tables.
    fn looked_up(name: &[u8]) -> (Name, Name) {
        let same = |text: &str| folds_to(name, &folded(text.as_bytes()));
        let begins = |begin: &str| begins_with(name, begin.as_bytes());
        let exact = KNOWN.iter().find(|(text, _)| name.eq_ignore_ascii_case(text.as_bytes()));
        let by_looks = KNOWN.iter().find(|(text, _)| same(text));
        let mut pairs = (0..=u16::MAX).map(u16::to_be_bytes);
        match (exact, by_looks) {
            (Some((_, known)), _) | (None, Some((_, known @ Name::Claim))) => (*known, *known),
            (None, Some((_, known))) => (Name::Lookalike, *known),
            _ if begins("x-forwarded") => (Name::XForwardedOther, Name::XForwardedOther),
            _ if pairs.any(|[a, b]| families(fold(a), fold(b)).iter().any(|f| begins(f))) => (Name::Claim, Name::Claim),
            _ => (Name::Other, Name::Other),
        }
    }

    proptest! {
        #[test]
        fn tables_find_what_a_search_finds(
            (known, _) in prop::sample::select(KNOWN),
            family in prop::sample::select(&["x-forwarded-", "x-auth-request-", "cf-access-", "ssl-", "x-original-"][..]),
            at in 0usize..32,
            other in prop_oneof![any::<u8>(), prop::sample::select(&b"-_.aAxX0\r\x10@[`{"[..])],
        ) {
            for begin in [known, family] {
                let mut name = begin.as_bytes().to_vec();
                if let Some(byte) = name.get_mut(at) {
                    *byte = other;
                }
                for len in [name.len(), name.len() - 1] {
                    let name = &name[..len];
                    prop_assert_eq!((Name::of(name), Name::of_lookalike(name)), looked_up(name), "{}", name.escape_ascii());
                }
                name.push(other);
                prop_assert_eq!((Name::of(&name), Name::of_lookalike(&name)), looked_up(&name), "{}", name.escape_ascii());
            }
        }
    }

    #[test]
    fn names_that_look_like_others() {
        for (text, want) in KNOWN.iter().filter(|(text, _)| text.contains('-')) {
            for mark in "!#$%&'*+._`|~^\"".chars() {
                let other = text.replace('-', &mark.to_string());
                let dropped = matches!(Name::of(other.as_bytes()), Name::Lookalike | Name::Claim);
                assert!(dropped, "{other}");
                assert_eq!(Name::of_lookalike(other.as_bytes()), *want, "{other}");
            }
        }
        for family in [
            "client-cert",
            "cloudfront-",
            "fly-forwarded-",
            "forwarded-",
            "ssl-client-",
            "wl-proxy-",
            "x-accel-",
            "x-amzn-mtls-",
            "x-amzn-oidc-",
            "x-appengine-",
            "x-arr-",
            "x-client-cert",
            "x-client-dn",
            "x-client-verify",
            "x-envoy-",
            "x-forward-",
            "x-ms-client-principal",
            "x-original-",
            "x-proxy-",
            "x-real-",
            "x-remote-",
            "x-rewrite-",
            "x-sendfile",
            "x-ssl-",
            "x-vercel-",
            "cf-access-",
            "remote-",
            "tailscale-",
            "x-amzn-tls-",
            "x-auth-request-",
            "x-authenticated-",
            "x-authentik-",
            "x-cert-",
            "x-client-ssl-",
            "x-consumer-",
            "x-credential-",
            "x-goog-authenticated-",
            "x-goog-iap-",
            "x-ms-token-",
            "x-pomerium-",
            "x-tls-",
            "x-vouch-",
            "x-webauth-",
        ] {
            assert_eq!(Name::of(family.replace('-', "_").as_bytes()), Name::Claim, "{family}");
            assert_eq!(Name::of(format!("{}Else", family.to_uppercase()).as_bytes()), Name::Claim, "{family}");
        }
        assert_eq!(Name::of_lookalike(b"X_Other"), Name::Other);
        assert!(folds_to(b"X!Edge", &folded(b"x-edge")) && !folds_to(b"XEdge", &folded(b"x-edge")));
    }

    /// Fields of usual requests and responses, which stay.
    #[test]
    fn names_that_are_no_claims() {
        for name in [
            "Accept-Encoding",
            "Accept-Language",
            "Authorization",
            "Cache-Control",
            "CDN-Loop",
            "Content-Encoding",
            "DNT",
            "Forwarding",
            "Grpc-Timeout",
            "If-Modified-Since",
            "If-None-Match",
            "Link",
            "Pragma",
            "Priority",
            "Range",
            "Sec-Fetch-Mode",
            "Sec-GPC",
            "Sec-WebSocket-Version",
            "Server",
            "Service-Worker",
            "Upgrade-Insecure-Requests",
            "X-Amz-Date",
            "X-Amzn-Trace-Id",
            "X-Api-Key",
            "X-Auth-Token",
            "X-Authorization",
            "X-B3-TraceId",
            "X-Client-Version",
            "X-Correlation-ID",
            "X-CSRF-Token",
            "X-Csrf-Protection",
            "X-Goog-Api-Key",
            "X-HTTP-Method-Override",
            "X-Middleware-Prefetch",
            "X-Request-ID",
            "X-Requested-With",
            "X-WP-Nonce",
            "X-Xsrf-Token",
            "X-Webhook-Signature",
            "x_a",
        ] {
            assert_eq!(Name::of(name.as_bytes()), Name::Other, "{name}");
        }
    }
}
