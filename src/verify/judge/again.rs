//! The second visit: changes since the first, and the verdict of a client that remembers the first.

use crate::verify::finding::{Group, Level, VerifyFinding};
use crate::verify::notes::{ClientMemory, NotedVisit, VisitRefusal};
use crate::verify::target::Url;

/// Both visits.
#[derive(Debug)]
pub struct Visits<'a> {
    /// The first.
    pub first: &'a NotedVisit<'a>,
    /// The second.
    pub second: &'a NotedVisit<'a>,
    /// The memory of a client after the first visit.
    pub after_first: &'a ClientMemory,
    /// The memory of a client that has made only the second visit.
    pub after_second: &'a ClientMemory,
    /// The http URL that a client with noted HSTS replaces.
    pub plain: &'a Url,
    /// The https URL.
    pub secure: &'a Url,
}

/// Judges the second visit.
#[must_use]
pub fn judge(visits: &Visits<'_>) -> Vec<VerifyFinding> {
    let row = VerifyFinding::new;
    let (first, second) = (visits.first, visits.second);
    let mut findings = Vec::new();
    if first.path != second.path {
        let message = "a second visit gets another chain: this name has several keys";
        findings.push(
            row(Group::Certificate, Level::Warning, "chain-varies", message)
                .hint("with pins, all of them must be promised; --json shows both chains"),
        );
    }
    if first.sts != second.sts {
        let message = "a second visit gets another Strict-Transport-Security: clients keep the latest";
        findings.push(row(Group::Hsts, Level::Warning, "sts-varies", message).hint("send the same from every server"));
    }
    if first.pkp != second.pkp {
        let message = "a second visit gets other Public-Key-Pins: clients keep the latest";
        findings.push(row(Group::Pins, Level::Warning, "pkp-varies", message).hint("send the same from every server"));
    }
    if findings.is_empty() {
        let message = "a second visit finds the same chain and the same policies";
        findings.push(row(Group::Tls, Level::Ok, "visit-again", message));
    }
    let admitted = visits.after_first.admits(second);
    findings.extend(visits.after_first.hsts.map(|_| judge_hsts(visits, admitted)));
    if visits.after_first.pins.is_some() || visits.after_second.pins.is_some() {
        findings.extend(judge_pins(visits, admitted));
    }
    findings
}

fn judge_hsts(visits: &Visits<'_>, admitted: Result<(), VisitRefusal>) -> VerifyFinding {
    let row = |level, message: String| VerifyFinding::new(Group::Hsts, level, "sts-second-visit", message);
    if admitted == Err(VisitRefusal::Tls) {
        return row(Level::Error, "the second visit has a TLS error: with HSTS, visitors cannot bypass it".into());
    }
    let upgraded = visits.plain.upgraded();
    if upgraded == *visits.secure {
        row(Level::Ok, format!("browsers request {upgraded} instead of {}, with no plain HTTP request", visits.plain))
    } else {
        // RFC 6797 section 8.3 has no pair of ports other than 80 and 443.
        row(Level::Note, format!("browsers request {upgraded} instead of {}: the port stays", visits.plain))
    }
}

fn judge_pins(visits: &Visits<'_>, admitted: Result<(), VisitRefusal>) -> Option<VerifyFinding> {
    let row = |level, message: &str| VerifyFinding::new(Group::Pins, level, "pkp-second-visit", message);
    const HINT: &str = "add the pins of all live keys to the field on every server";
    if admitted == Err(VisitRefusal::Pins) {
        let message = "the second visit serves another key, which locks out a client that noted the pins";
        return Some(row(Level::Error, message).hint(HINT));
    }
    // The same servers, visited in the other order.
    if visits.after_second.admits(visits.first) == Err(VisitRefusal::Pins) {
        let message = "the key of the first visit locks out a client that noted the pins of the second";
        return Some(row(Level::Error, message).hint(HINT));
    }
    let holds = visits.after_first.pins.is_some() && admitted.is_ok();
    holds.then(|| row(Level::Ok, "a client that noted the pins connects again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::pin::Pin;
    use crate::verify::notes::{note_hsts, note_pins};

    fn pin(n: u8) -> Pin {
        Pin::of_spki(&[n])
    }

    fn check(first: (&[u8], &'static str, &str), second: (&[u8], &'static str, &str), want: &[(&str, Level)]) {
        let fill = |v: &str| {
            (1..10u8).fold(v.to_owned(), |v, n| v.replace(&format!("{{{n}}}"), &format!("pin-sha256=\"{}\"", pin(n))))
        };
        let values = [fill(first.2), fill(second.2)];
        let seen = |keys: &[u8], sts: &'static str, pkp| NotedVisit {
            host_is_address: false,
            secure: true,
            path: keys.iter().map(|n| pin(*n)).collect(),
            sts: vec![sts.as_bytes()],
            pkp: vec![pkp],
        };
        let (a, b) = (seen(first.0, first.1, values[0].as_bytes()), seen(second.0, second.1, values[1].as_bytes()));
        let memory = |seen: &NotedVisit<'_>| {
            let mut memory = ClientMemory::default();
            memory.note(&note_hsts(seen), &note_pins(seen));
            memory
        };
        let (plain, secure) = ("http://a.example/".parse().unwrap(), "https://a.example/".parse().unwrap());
        let visits = Visits {
            first: &a,
            second: &b,
            after_first: &memory(&a),
            after_second: &memory(&b),
            plain: &plain,
            secure: &secure,
        };
        let got: Vec<_> = judge(&visits).iter().map(|f| (f.check, f.level)).collect();
        assert_eq!(got, want, "{first:?} {second:?}");
    }

    #[test]
    fn table() {
        use Level::{Error, Ok, Warning};
        let (age, both) = ("max-age=5", "{1}; {2}; max-age=5");
        let (chain, upgrade) = (("chain-varies", Warning), ("sts-second-visit", Ok));
        check((&[1, 9], age, both), (&[1, 9], age, both), &[("visit-again", Ok), upgrade, ("pkp-second-visit", Ok)]);
        // The backup key is deployed between the visits.
        check((&[1, 9], age, both), (&[2, 9], age, both), &[chain, upgrade, ("pkp-second-visit", Ok)]);
        check((&[1, 9], age, both), (&[3, 9], age, both), &[chain, upgrade, ("pkp-second-visit", Error)]);
        // Several servers, each of which promises its own key alone.
        let other = "{3}; {4}; max-age=5";
        let varies = ("pkp-varies", Warning);
        check((&[1, 9], age, both), (&[3, 9], age, other), &[chain, varies, upgrade, ("pkp-second-visit", Error)]);
        check(
            (&[1, 9], age, "max-age=5"),
            (&[3, 9], age, other),
            &[chain, varies, upgrade, ("pkp-second-visit", Error)],
        );
        check((&[1, 9], age, "x"), (&[1, 9], "max-age=6", "x"), &[("sts-varies", Warning), upgrade]);
    }
}
