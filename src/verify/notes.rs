//! The state that a client keeps under RFC 6797 and RFC 7469, and its effect on the next visit:
//! values in, values out.

use super::field::PolicyField;
use super::grammar::read;
use crate::keys::pin::Pin;

/// One visit, as far as policies depend on it.
#[derive(Debug, Clone, Default)]
pub struct NotedVisit<'a> {
    /// `true` if the URL's host is an IP address.
    pub host_is_address: bool,
    /// `true` if TLS was established without any error or warning.
    pub secure: bool,
    /// The pins of the validated path.
    pub path: Vec<Pin>,
    /// The values of Strict-Transport-Security, in their order.
    pub sts: Vec<&'a [u8]>,
    /// The values of Public-Key-Pins, in their order.
    pub pkp: Vec<&'a [u8]>,
}

/// A known HSTS host (RFC 6797 section 8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotedHsts {
    /// Seconds.
    pub max_age: u64,
    /// `true` if HSTS includes the names below it.
    pub include_subdomains: bool,
}

/// A known pinned host (RFC 7469 section 2.3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedPins {
    /// The pins, each once.
    pub pins: Vec<Pin>,
    /// Seconds.
    pub max_age: u64,
    /// `true` if the pins bind the names below it, too.
    pub include_subdomains: bool,
    /// The URI for reports of violations.
    pub report_uri: Option<String>,
}

/// The effect of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderEffect<T> {
    /// The response has no such header.
    Absent,
    /// The client ignores the header.
    Ignored(IgnoreReason),
    /// max-age=0: the client forgets its note.
    Forgotten,
    /// The client notes it.
    Noted(T),
}

/// The reason why a client ignores a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IgnoreReason {
    /// The connection had an error (RFC 6797 section 8.1, RFC 7469 section 2.3.1).
    NotSecure,
    /// IP addresses have no policies (RFC 6797 section 8.1.1, RFC 7469 section 2.3.3).
    Address,
    /// The first field violates the grammar; the client reads no other (RFC 6797 section 8.1, RFC
    /// 7469 section 2.3.1).
    Grammar,
    /// No pin is in the validated path (RFC 7469 section 2.5).
    NoMatch,
    /// Every pin is in the validated path: no backup pin (RFC 7469 section 2.5).
    NoBackup,
}

impl IgnoreReason {
    /// Returns the reason in words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotSecure => "the connection had a TLS error",
            Self::Address => "the host is an address",
            Self::Grammar => "the field is not valid",
            Self::NoMatch => "no pin is in the validated chain",
            Self::NoBackup => "the field has no backup pin",
        }
    }
}

impl<T> HeaderEffect<T> {
    /// Returns the noted policy, if any.
    #[must_use]
    pub fn noted(&self) -> Option<&T> {
        match self {
            Self::Noted(noted) => Some(noted),
            _ => None,
        }
    }
}

/// Returns the effect of Strict-Transport-Security.
#[must_use]
pub fn note_hsts(seen: &NotedVisit<'_>) -> HeaderEffect<NotedHsts> {
    // RFC 6797 section 8.1: clients process the first field only.
    let Some(first) = seen.sts.first() else { return HeaderEffect::Absent };
    if let Some(reason) = refusal(seen) {
        return HeaderEffect::Ignored(reason);
    }
    let reading = read(PolicyField::Sts, first);
    match reading.max_age {
        Some(0) if reading.is_valid() => HeaderEffect::Forgotten,
        Some(max_age) if reading.is_valid() => {
            HeaderEffect::Noted(NotedHsts { max_age, include_subdomains: reading.include_subdomains })
        }
        _ => HeaderEffect::Ignored(IgnoreReason::Grammar),
    }
}

/// Returns the effect of Public-Key-Pins.
#[must_use]
pub fn note_pins(seen: &NotedVisit<'_>) -> HeaderEffect<NotedPins> {
    // RFC 7469 section 2.3.1: clients process the first field only.
    let Some(first) = seen.pkp.first() else { return HeaderEffect::Absent };
    if let Some(reason) = refusal(seen) {
        return HeaderEffect::Ignored(reason);
    }
    let reading = read(PolicyField::Pkp, first);
    let Some(max_age) = reading.max_age.filter(|_| reading.is_valid()) else {
        return HeaderEffect::Ignored(IgnoreReason::Grammar);
    };
    let pins = distinct(&reading.pins);
    if !pins.iter().any(|pin| seen.path.contains(pin)) {
        return HeaderEffect::Ignored(IgnoreReason::NoMatch);
    }
    if pins.iter().all(|pin| seen.path.contains(pin)) {
        return HeaderEffect::Ignored(IgnoreReason::NoBackup);
    }
    if max_age == 0 {
        return HeaderEffect::Forgotten;
    }
    HeaderEffect::Noted(NotedPins {
        pins,
        max_age,
        include_subdomains: reading.include_subdomains,
        report_uri: reading.report_uri,
    })
}

fn refusal(seen: &NotedVisit<'_>) -> Option<IgnoreReason> {
    if seen.host_is_address {
        Some(IgnoreReason::Address)
    } else if !seen.secure {
        Some(IgnoreReason::NotSecure)
    } else {
        None
    }
}

/// Returns the pins without repetitions, in their order.
#[must_use]
pub fn distinct(pins: &[Pin]) -> Vec<Pin> {
    let mut distinct = Vec::new();
    for pin in pins {
        if !distinct.contains(pin) {
            distinct.push(*pin);
        }
    }
    distinct
}

/// The reason why a client ends its next visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VisitRefusal {
    /// HSTS is noted, and TLS has an error: the user cannot click through (RFC 6797 section 8.4).
    Tls,
    /// No noted pin is in the validated path: the client ends the connection (RFC 7469 section
    /// 2.6).
    Pins,
}

/// The policies that a client remembers of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientMemory {
    /// The host's HSTS.
    pub hsts: Option<NotedHsts>,
    /// The host's pins.
    pub pins: Option<NotedPins>,
}

impl ClientMemory {
    /// Checks a visit against the noted policies.
    ///
    /// # Errors
    ///
    /// [`VisitRefusal`], if the client ends the connection.
    pub fn admits(&self, seen: &NotedVisit<'_>) -> Result<(), VisitRefusal> {
        if self.hsts.is_some() && !seen.secure {
            return Err(VisitRefusal::Tls);
        }
        match &self.pins {
            Some(noted) if !noted.pins.iter().any(|pin| seen.path.contains(pin)) => Err(VisitRefusal::Pins),
            _ => Ok(()),
        }
    }

    /// Notes the policies of a visit: each valid header replaces the previous one (RFC 7469 section
    /// 2.3.1).
    pub fn note(&mut self, hsts: &HeaderEffect<NotedHsts>, pins: &HeaderEffect<NotedPins>) {
        match hsts {
            HeaderEffect::Noted(noted) => self.hsts = Some(*noted),
            HeaderEffect::Forgotten => self.hsts = None,
            HeaderEffect::Absent | HeaderEffect::Ignored(_) => {}
        }
        match pins {
            HeaderEffect::Noted(noted) => self.pins = Some(noted.clone()),
            HeaderEffect::Forgotten => self.pins = None,
            HeaderEffect::Absent | HeaderEffect::Ignored(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pin(n: u8) -> Pin {
        Pin::of_spki(&[n])
    }

    fn pins_value(pins: &[u8], rest: &str) -> String {
        pins.iter().map(|n| format!("pin-sha256=\"{}\"; ", pin(*n))).collect::<String>() + rest
    }

    fn seen<'a>(path: &[u8], sts: &[&'a str], pkp: &[&'a str]) -> NotedVisit<'a> {
        NotedVisit {
            host_is_address: false,
            secure: true,
            path: path.iter().map(|n| pin(*n)).collect(),
            sts: sts.iter().map(|v| v.as_bytes()).collect(),
            pkp: pkp.iter().map(|v| v.as_bytes()).collect(),
        }
    }

    #[test]
    fn hsts() {
        let check = |values: &[&str], want: HeaderEffect<NotedHsts>| {
            assert_eq!(note_hsts(&seen(&[], values, &[])), want, "{values:?}");
        };
        let noted = |max_age, include_subdomains| HeaderEffect::Noted(NotedHsts { max_age, include_subdomains });
        check(&[], HeaderEffect::Absent);
        check(&["max-age=5"], noted(5, false));
        check(&["max-age=5; includeSubDomains; unknown"], noted(5, true));
        check(&["max-age=0"], HeaderEffect::Forgotten);
        check(&["max-age: 5"], HeaderEffect::Ignored(IgnoreReason::Grammar));
        // Only the first field counts, valid or not.
        check(&["max-age=5", "max-age=0"], noted(5, false));
        check(&["nonsense", "max-age=5"], HeaderEffect::Ignored(IgnoreReason::Grammar));
        let mut visit = seen(&[], &["max-age=5"], &[]);
        visit.secure = false;
        assert_eq!(note_hsts(&visit), HeaderEffect::Ignored(IgnoreReason::NotSecure));
        visit.host_is_address = true;
        assert_eq!(note_hsts(&visit), HeaderEffect::Ignored(IgnoreReason::Address));
    }

    #[test]
    fn pins() {
        let check = |path: &[u8], values: &[&str], want: Result<&[u8], HeaderEffect<NotedPins>>| {
            let got = note_pins(&seen(path, &[], values));
            match want {
                Ok(pins) => {
                    let want: Vec<Pin> = pins.iter().map(|n| pin(*n)).collect();
                    assert_eq!(got.noted().map(|n| n.pins.clone()), Some(want), "{values:?}");
                }
                Err(want) => assert_eq!(got, want, "{values:?}"),
            }
        };
        let good = pins_value(&[1, 2], "max-age=5");
        check(&[1, 9], &[], Err(HeaderEffect::Absent));
        check(&[1, 9], &[&good], Ok(&[1, 2]));
        check(&[1, 9], &[&good, "nonsense"], Ok(&[1, 2]));
        check(&[1, 9], &["nonsense", &good], Err(HeaderEffect::Ignored(IgnoreReason::Grammar)));
        // The root's pin counts like the leaf's, and a repeated pin counts once.
        check(&[7, 9], &[&pins_value(&[9, 9, 2], "max-age=5")], Ok(&[9, 2]));
        check(&[3, 9], &[&good], Err(HeaderEffect::Ignored(IgnoreReason::NoMatch)));
        check(&[1, 2, 9], &[&good], Err(HeaderEffect::Ignored(IgnoreReason::NoBackup)));
        check(&[1, 9], &[&pins_value(&[1], "max-age=5")], Err(HeaderEffect::Ignored(IgnoreReason::NoBackup)));
        check(&[1, 9], &["max-age=5"], Err(HeaderEffect::Ignored(IgnoreReason::NoMatch)));
        check(&[1, 9], &[&pins_value(&[1, 2], "max-age=0")], Err(HeaderEffect::Forgotten));
        // RFC 7469 section 2.3.1: max-age=0 needs a valid header, too.
        check(&[3, 9], &[&pins_value(&[1, 2], "max-age=0")], Err(HeaderEffect::Ignored(IgnoreReason::NoMatch)));
        check(&[1, 9], &[&pins_value(&[1, 2], "max-age=5;")], Err(HeaderEffect::Ignored(IgnoreReason::Grammar)));
    }

    #[test]
    fn the_next_visit() {
        let value = pins_value(&[1, 2], "max-age=5");
        let first = seen(&[1, 9], &["max-age=5"], &[&value]);
        let mut memory = ClientMemory::default();
        assert_eq!(memory.admits(&NotedVisit::default()), Ok(()));
        memory.note(&note_hsts(&first), &note_pins(&first));
        let check = |memory: &ClientMemory, path: &[u8], secure, want| {
            assert_eq!(memory.admits(&NotedVisit { secure, ..seen(path, &[], &[]) }), want);
        };
        check(&memory, &[1, 9], true, Ok(()));
        check(&memory, &[2], true, Ok(()));
        check(&memory, &[3, 9], true, Err(VisitRefusal::Pins));
        check(&memory, &[1, 9], false, Err(VisitRefusal::Tls));
        // Without headers nothing changes; max-age=0 removes the note.
        memory.note(&HeaderEffect::Absent, &HeaderEffect::Ignored(IgnoreReason::NoMatch));
        check(&memory, &[3, 9], true, Err(VisitRefusal::Pins));
        let value = pins_value(&[1, 2], "max-age=0");
        let last = seen(&[1, 9], &["max-age=0"], &[&value]);
        memory.note(&note_hsts(&last), &note_pins(&last));
        assert_eq!(memory, ClientMemory::default());
    }

    proptest! {
        /// RFC 7469 section 2.5, by counting.
        #[test]
        fn what_is_noted_has_a_live_and_a_backup_pin(
            path in prop::collection::vec(0u8..6, 0..4), pins in prop::collection::vec(0u8..6, 0..5)
        ) {
            let value = pins_value(&pins, "max-age=5");
            let visit = seen(&path, &[], &[&value]);
            let inside = pins.iter().filter(|n| path.contains(n)).count();
            let sound = inside > 0 && inside < pins.len();
            let outcome = note_pins(&visit);
            prop_assert_eq!(outcome.noted().is_some(), sound);
            let mut memory = ClientMemory::default();
            memory.note(&HeaderEffect::Absent, &outcome);
            prop_assert_eq!(memory.admits(&visit), Ok(()));
        }
    }
}
