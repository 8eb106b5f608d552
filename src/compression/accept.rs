//! Accept-Encoding (RFC 9110 section 12.5.3).

use super::coding::Coding;
use crate::message::Fields;

/// A weight in thousandths.
type CodingWeight = u16;

/// The codings that a client accepts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct AcceptedCodings {
    codings: [Option<CodingWeight>; Coding::ALL.len()],
    identity: Option<CodingWeight>,
    any: Option<CodingWeight>,
}

impl AcceptedCodings {
    fn of(fields: &Fields) -> Self {
        let mut all = Self::default();
        let lines = fields.values_of(b"accept-encoding");
        for member in lines.flat_map(|value| value.split(|b| *b == b',')) {
            let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(weight_of).unwrap_or(Some(1000));
            // What cannot be read is refused.
            let weight = weight.unwrap_or(0);
            let place = match Coding::of(name) {
                Some(coding) => &mut all.codings[coding as usize],
                None if name.eq_ignore_ascii_case(b"identity") => &mut all.identity,
                None if name == b"*" => &mut all.any,
                None => continue,
            };
            // Of two weights for one coding, the lower one counts.
            *place = Some(place.map_or(weight, |before| before.min(weight)));
        }
        all
    }

    fn weight(&self, coding: Coding) -> CodingWeight {
        self.codings[coding as usize].or(self.any).unwrap_or(0)
    }
}

/// The weight of a parameter, if it is `q`; `Some(None)` if it cannot be read.
fn weight_of(parameter: &[u8]) -> Option<Option<CodingWeight>> {
    let (name, value) = parameter.split_at_checked(2)?;
    name.eq_ignore_ascii_case(b"q=").then(|| parse(value))
}

/// `0`, `1`, `0.123`, `1.000`: at most three digits behind the point.
fn parse(text: &[u8]) -> Option<CodingWeight> {
    let (whole, rest) = text.split_first()?;
    let digits = match rest {
        [] => &[][..],
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut weight = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    for (digit, unit) in digits.iter().zip([100, 10, 1]) {
        weight +=
            CodingWeight::from(char::from(*digit).to_digit(10).and_then(|digit| u8::try_from(digit).ok())?) * unit;
    }
    (weight <= 1000).then_some(weight)
}

/// Returns the coding for a client among those offered, which are in the server's order. `None` is identity.
///
/// The coding with the highest weight is chosen, the first one of several. Identity wins if the client gives it a higher
/// weight in so many words. A client that refuses identity, and all else that is offered, still gets it: a response that
/// it cannot read is not worse than none.
#[must_use]
pub fn choose(fields: &Fields, offered: &[Coding]) -> Option<Coding> {
    let accepted = AcceptedCodings::of(fields);
    let mut best: Option<(Coding, CodingWeight)> = None;
    for coding in offered {
        let weight = accepted.weight(*coding);
        if weight > best.map_or(0, |(_, best)| best) {
            best = Some((*coding, weight));
        }
    }
    let (coding, weight) = best?;
    (weight >= accepted.identity.unwrap_or(0)).then_some(coding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chosen(lines: &[&str], offered: &[Coding]) -> &'static str {
        let mut fields = Fields::default();
        lines.iter().for_each(|line| fields.push(b"Accept-Encoding", line.as_bytes()));
        choose(&fields, offered).map_or("identity", Coding::name)
    }

    #[test]
    fn choices() {
        for (value, want) in [
            ("", "identity"),
            ("gzip, deflate, br, zstd", "zstd"),
            ("gzip, deflate, br", "br"),
            ("gzip, deflate", "gzip"),
            ("deflate", "identity"),
            ("gzip", "gzip"),
            ("x-gzip", "gzip"),
            ("GZIP", "gzip"),
            ("Br , GZip", "br"),
            ("gzip;q=0.5, br", "br"),
            ("gzip, br;q=0.5", "gzip"),
            ("gzip;q=0.5, br;q=0.5", "br"),
            ("zstd;q=0.1, br;q=0.2, gzip;q=0.3", "gzip"),
            ("zstd;q=0.999, br;q=1.000", "br"),
            ("gzip;q=0", "identity"),
            ("gzip;q=0.000", "identity"),
            ("gzip;q=0.001", "gzip"),
            ("gzip;q=0, br", "br"),
            ("br;q=0, *", "zstd"),
            ("zstd;q=0, *", "br"),
            ("*", "zstd"),
            ("*;q=0", "identity"),
            ("*;q=0, gzip", "gzip"),
            ("*;q=0.5, gzip;q=0.4", "zstd"),
            ("*;q=0.5, gzip", "gzip"),
            ("identity", "identity"),
            ("identity, gzip", "gzip"),
            ("identity;q=1, gzip;q=0.5", "identity"),
            ("identity;q=0.5, gzip;q=1.0", "gzip"),
            ("identity;q=0.5, gzip;q=0.5", "gzip"),
            ("identity;q=0", "identity"),
            ("identity;q=0, gzip;q=0", "identity"),
            ("identity;q=0, deflate", "identity"),
            ("identity;q=0, *", "zstd"),
            ("*;q=0, identity;q=0", "identity"),
            ("compress, x-compress", "identity"),
            ("gzip; q=0.5", "gzip"),
            ("gzip ;q=0", "identity"),
            ("gzip;Q=0", "identity"),
            ("gzip;foo=1;q=0", "identity"),
            ("gzip;q", "gzip"),
            ("gzip;q=", "identity"),
            ("gzip;q=2", "identity"),
            ("gzip;q=1.001", "identity"),
            ("gzip;q=0.1234", "identity"),
            ("gzip;q=.5", "identity"),
            ("gzip;q=-1", "identity"),
            ("gzip;q=0,5", "identity"),
            ("gzip;q=0.5, gzip;q=0", "identity"),
            ("gzip;q=1.", "gzip"),
            (",,, gzip ,,", "gzip"),
            (";;;,,gzip;foo=1;q=1,", "gzip"),
            ("\"gzip\"", "identity"),
            ("gzip2", "identity"),
            ("brotli", "identity"),
            ("zst", "identity"),
            ("br\u{e9}", "identity"),
            ("* ;q=0.1", "zstd"),
            ("dcb, dcz, br", "br"),
        ] {
            assert_eq!(chosen(&[value], &Coding::ALL), want, "{value}");
        }
        assert_eq!(chosen(&[], &Coding::ALL), "identity");
        assert_eq!(chosen(&["gzip", "br"], &Coding::ALL), "br");
        assert_eq!(chosen(&["gzip;q=0.5", "br;q=0"], &Coding::ALL), "gzip");
    }

    #[test]
    fn the_servers_order_breaks_ties() {
        let offered = [Coding::Gzip, Coding::Brotli];
        assert_eq!(chosen(&["zstd, br, gzip"], &offered), "gzip");
        assert_eq!(chosen(&["zstd, br, gzip;q=0.9"], &offered), "br");
        assert_eq!(chosen(&["zstd"], &offered), "identity");
        assert_eq!(chosen(&["gzip"], &[]), "identity");
    }

    proptest! {
        /// A coding that the client refuses, or does not name without `*`, is never chosen.
        #[test]
        fn only_what_is_accepted(members in proptest::collection::vec(("(zstd|br|gzip|identity|\\*|x)", 0u16..=1000), 0..8)) {
            let value: Vec<String> = members
                .iter()
                .map(|(name, weight)| format!("{name};q={}.{:03}", weight / 1000, weight % 1000))
                .collect();
            let found = chosen(&[&value.join(",")], &Coding::ALL);
            if found != "identity" {
                let named: Vec<u16> = members.iter().filter(|(name, _)| name == found).map(|(_, weight)| *weight).collect();
                let any = members.iter().any(|(name, weight)| name == "*" && *weight > 0);
                prop_assert!(named.iter().all(|weight| *weight > 0) && (!named.is_empty() || any), "{found} of {value:?}");
            }
        }
    }
}
