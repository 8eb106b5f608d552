//! Public-Key-Pins, its report-only sister, and the pins of a file.

use super::{read_all, span};
use crate::keys::pin::Pin;
use crate::policy::hpkp::{MAX_AGE_CAP, TODAY};
use crate::reason::counted;
use crate::verify::field::PolicyField;
use crate::verify::finding::{Group, Level, VerifyFinding};
use crate::verify::grammar::Reading;
use crate::verify::notes::{HeaderEffect, NotedPins, distinct};
use crate::verify::target::Url;

/// The keys that clients of one kind get.
#[derive(Debug, Clone)]
pub struct Path {
    /// A name for the path; empty if it is the only one.
    pub label: String,
    /// Its pins.
    pub pins: Vec<Pin>,
}

/// The facts that the fields are compared with.
#[derive(Debug, Clone)]
pub struct PinFacts<'a> {
    /// The https URL.
    pub url: &'a Url,
    /// The paths of all certificates that clients may get.
    pub paths: &'a [Path],
}

/// Judges the fields of a response.
#[must_use]
pub fn judge(
    served: &PinFacts<'_>,
    enforced: &[&[u8]],
    report_only: &[&[u8]],
    outcome: &HeaderEffect<NotedPins>,
) -> Vec<VerifyFinding> {
    let row = |level, check, message: String| VerifyFinding::new(Group::Pins, level, check, message);
    let mut findings = Vec::new();
    judge_field(PolicyField::Pkp, served, enforced, &mut findings);
    match outcome {
        HeaderEffect::Absent => {}
        HeaderEffect::Ignored(reason) => {
            let message = format!("clients do not note the pins: {}", reason.as_str());
            findings.push(row(Level::Warning, "pkp-not-noted", message));
        }
        HeaderEffect::Forgotten => {
            findings.push(row(Level::Note, "pkp-forgotten", "max-age=0: clients forget the pins".into()));
        }
        HeaderEffect::Noted(noted) => {
            let below = if noted.include_subdomains { ", with all names below" } else { "" };
            let message = format!("{} noted for {}{below}", counted(noted.pins.len(), "pin"), span(noted.max_age));
            findings.push(row(Level::Ok, "pkp-noted", message));
        }
    }
    if !report_only.is_empty() {
        judge_field(PolicyField::PkpReportOnly, served, report_only, &mut findings);
        let message = "Public-Key-Pins-Report-Only: clients report violations, and connect".to_owned();
        findings.push(row(Level::Note, "pkp-report-only", message));
    }
    if enforced.is_empty() && report_only.is_empty() {
        findings.push(row(Level::Note, "pkp-absent", "no Public-Key-Pins; none are needed".into()));
    }
    findings.push(row(Level::Note, "pkp-browsers", TODAY.into()));
    findings
}

fn judge_field(field: PolicyField, served: &PinFacts<'_>, values: &[&[u8]], findings: &mut Vec<VerifyFinding>) {
    if values.len() > 1 {
        let message = format!("{} {} fields: clients process the first one only", values.len(), field.name());
        findings.push(
            VerifyFinding::new(Group::Pins, Level::Error, "pkp-duplicate-field", message)
                .hint("send one (RFC 7469 section 2.2.1); does the application add its own?"),
        );
    }
    let Some(reading) = read_all(field, values, findings) else { return };
    judge_pins(field, served, &reading, findings);
    if field == PolicyField::Pkp && reading.max_age.is_some_and(|age| age > MAX_AGE_CAP) {
        let message =
            format!("max-age is {}; clients cap it at 60 (RFC 7469 section 4.1)", span(reading.max_age.unwrap_or(0)));
        findings.push(VerifyFinding::new(Group::Pins, Level::Note, "pkp-max-age-long", message));
    }
    judge_report_uri(field, served.url, &reading, findings);
}

fn judge_pins(field: PolicyField, served: &PinFacts<'_>, reading: &Reading, findings: &mut Vec<VerifyFinding>) {
    // Reports enforce nothing: an error that voids the enforced field is only a warning here.
    let (level, prefix) = match field {
        PolicyField::PkpReportOnly => (Level::Warning, "report-only: "),
        _ => (Level::Error, ""),
    };
    let mut tell = |level, check, message: String, hint: &str| {
        let finding = VerifyFinding::new(Group::Pins, level, check, format!("{prefix}{message}"));
        findings.push(if hint.is_empty() { finding } else { finding.hint(hint) });
    };
    if reading.pin_directives == 0 {
        return tell(
            level,
            "pkp-no-pins",
            "the field has no pin".into(),
            "`pintle pin --as header FILE...` prints the field",
        );
    }
    // Pins in wrong quotes are judged as well, so that one visit reports everything.
    let pins = distinct(&reading.meant_pins);
    let all_read = reading.meant_pins.len() == reading.pin_directives;
    if pins.len() < reading.meant_pins.len() {
        tell(Level::Warning, "pkp-repeated-pin", "a repeated pin, which counts once".into(), "");
    }
    if reading.pin_directives == 1 || (pins.len() == 1 && all_read) {
        let hint = "add the pin of a key that is kept elsewhere, such as the next certificate's";
        tell(level, "pkp-single-pin", "only one pin: clients ignore the field without a backup pin".into(), hint);
    }
    let is_served = |pin: &Pin| served.paths.iter().any(|path| path.pins.contains(pin));
    for path in served.paths {
        if all_read && !pins.iter().any(|pin| path.pins.contains(pin)) {
            let label = if path.label.is_empty() { "the served chain".to_owned() } else { path.label.clone() };
            let message = format!("no pin matches a key of {label}");
            tell(level, "pkp-no-match", message, "`pintle pin CHAIN` prints the pin of the live key");
        }
    }
    if pins.len() > 1 && pins.iter().all(is_served) {
        let hint = "add the pin of a key that is kept elsewhere, such as the next certificate's";
        tell(level, "pkp-no-backup", "every pin belongs to a key of the served chain: none is a backup".into(), hint);
    }
}

/// If its pins fail, a client cannot send reports to the host itself (RFC 7469 section 2.1.4).
fn judge_report_uri(field: PolicyField, url: &Url, reading: &Reading, findings: &mut Vec<VerifyFinding>) {
    let uri = reading.report_uri.as_deref().and_then(|uri| uri.parse::<Url>().ok());
    if let Some(uri) = uri {
        let below = reading.include_subdomains && uri.host.ends_with(&format!(".{}", url.host));
        if uri.host == url.host || below {
            let message = format!("reports go to {}, which is pinned itself: they are lost if its pins fail", uri.host);
            let finding = VerifyFinding::new(Group::Pins, Level::Warning, "pkp-report-uri-own-host", message);
            findings.push(finding.hint("name a host that is not pinned"));
        }
    } else if field == PolicyField::PkpReportOnly && reading.report_uri.is_none() {
        let message = "report-only: report-uri is missing, so the field has no effect".to_owned();
        findings.push(VerifyFinding::new(Group::Pins, Level::Warning, "pkp-report-only-no-uri", message));
    }
}

/// Judges the pins of `--pins`.
#[must_use]
pub fn judge_file(paths: &[Path], expected: &[Pin]) -> Vec<VerifyFinding> {
    let mut findings = Vec::new();
    for path in paths {
        let found = path.pins.iter().find(|pin| expected.contains(pin));
        let label = if path.label.is_empty() { "the served chain" } else { path.label.as_str() };
        findings.push(match found {
            Some(pin) => {
                VerifyFinding::new(Group::Pins, Level::Ok, "pins-file", format!("{pin} of --pins is in {label}"))
            }
            None => {
                let leaf = path.pins.first().map(|p| format!("; the live key is {p}")).unwrap_or_default();
                let message = format!("{label} has no pin of --pins{leaf}");
                VerifyFinding::new(Group::Pins, Level::Error, "pins-file-no-match", message)
                    .hint("clients that hold these pins are locked out")
            }
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::notes::{NotedVisit, note_pins};

    fn pin(n: u8) -> Pin {
        Pin::of_spki(&[n])
    }

    /// Checks the rows that are not ok for a value in which a pin replaces `{1}`; the served keys
    /// are 1 and 9.
    #[track_caller]
    fn check(field: PolicyField, values: &[&str], want: &[(&str, Level)]) {
        check_with(&[&[1, 9]], field, values, want);
    }

    #[track_caller]
    fn check_with(paths: &[&[u8]], field: PolicyField, values: &[&str], want: &[(&str, Level)]) {
        let url: Url = "https://a.example/".parse().unwrap();
        let label = |at: usize| if paths.len() == 1 { String::new() } else { format!("chain {at}") };
        let of = |keys: &[u8]| keys.iter().map(|n| pin(*n)).collect::<Vec<_>>();
        let paths: Vec<Path> = paths.iter().enumerate().map(|(at, k)| Path { label: label(at), pins: of(k) }).collect();
        let fill = |v: &str| {
            (1..10u8).fold(v.to_owned(), |v, n| v.replace(&format!("{{{n}}}"), &format!("pin-sha256=\"{}\"", pin(n))))
        };
        let values: Vec<String> = values.iter().map(|v| fill(v)).collect();
        let bytes: Vec<&[u8]> = values.iter().map(String::as_bytes).collect();
        let (enforced, report_only) = if field == PolicyField::Pkp { (bytes, vec![]) } else { (vec![], bytes) };
        let seen =
            NotedVisit { secure: true, path: paths[0].pins.clone(), pkp: enforced.clone(), ..NotedVisit::default() };
        let served = PinFacts { url: &url, paths: &paths };
        let got = judge(&served, &enforced, &report_only, &note_pins(&seen));
        assert_eq!(got.last().map(|f| f.check), Some("pkp-browsers"));
        let got: Vec<_> = got.iter().map(|f| (f.check, f.level)).filter(|(c, _)| *c != "pkp-browsers").collect();
        assert_eq!(got, want, "{values:?}");
    }

    #[test]
    fn enforced() {
        use Level::{Error, Note, Ok, Warning};
        let pkp = |values: &[&str], want: &[(&str, Level)]| check(PolicyField::Pkp, values, want);
        let ignored = ("pkp-not-noted", Warning);
        pkp(&[], &[("pkp-absent", Note)]);
        pkp(&["{1}; {2}; max-age=5"], &[("pkp-noted", Ok)]);
        pkp(&["{9}; {2}; max-age=5"], &[("pkp-noted", Ok)]);
        pkp(&["{1}; {2}; max-age=0"], &[("pkp-forgotten", Note)]);
        pkp(&["{1}; max-age=5"], &[("pkp-single-pin", Error), ignored]);
        pkp(&["{1}; {1}; max-age=5"], &[("pkp-repeated-pin", Warning), ("pkp-single-pin", Error), ignored]);
        pkp(&["{3}; max-age=5"], &[("pkp-single-pin", Error), ("pkp-no-match", Error), ignored]);
        pkp(&["{2}; {3}; max-age=5"], &[("pkp-no-match", Error), ignored]);
        pkp(&["{1}; {9}; max-age=5"], &[("pkp-no-backup", Error), ignored]);
        pkp(&["max-age=5"], &[("pkp-no-pins", Error), ignored]);
        pkp(&["{1}; {2}; max-age: 5"], &[("pkp-max-age-colon", Error), ignored]);
        pkp(&["pin-sha256=AAAA; pin-sha256=BBBB; max-age=5"], &[("pkp-unquoted-pin", Error), ignored]);
        let bare = |n| format!("pin-sha256={}", pin(n));
        let two = |a, b| format!("{}; {}; max-age=5", bare(a), bare(b));
        pkp(&[&two(1, 2)], &[("pkp-unquoted-pin", Error), ignored]);
        pkp(&[&two(2, 3)], &[("pkp-unquoted-pin", Error), ("pkp-no-match", Error), ignored]);
        pkp(&[&two(1, 9)], &[("pkp-unquoted-pin", Error), ("pkp-no-backup", Error), ignored]);
        let one = format!("{}; max-age=5", bare(1));
        pkp(&[&one], &[("pkp-unquoted-pin", Error), ("pkp-single-pin", Error), ignored]);
        // A pin in wrong quotes is not missing.
        pkp(&["{1}; pin-sha256='AAAA'; max-age=5"], &[("pkp-misquoted-pin", Error), ignored]);
        pkp(&["{1}; {2}; max-age=5", "{1}; {2}; max-age=5"], &[("pkp-duplicate-field", Error), ("pkp-noted", Ok)]);
        pkp(&["{1}; {2}; max-age=5184001"], &[("pkp-max-age-long", Note), ("pkp-noted", Ok)]);
        let own = ("pkp-report-uri-own-host", Warning);
        pkp(&["{1}; {2}; max-age=5; report-uri=\"https://a.example/r\""], &[own, ("pkp-noted", Ok)]);
        pkp(&["{1}; {2}; max-age=5; report-uri=\"https://r.a.example/r\""], &[("pkp-noted", Ok)]);
        pkp(
            &["{1}; {2}; max-age=5; includeSubDomains; report-uri=\"https://r.a.example/r\""],
            &[own, ("pkp-noted", Ok)],
        );
    }

    #[test]
    fn report_only() {
        use Level::{Error, Note, Warning};
        let ro = |values: &[&str], want: &[(&str, Level)]| {
            check(PolicyField::PkpReportOnly, values, &[want, &[("pkp-report-only", Note)]].concat());
        };
        ro(&["{1}; {2}; report-uri=\"https://r.example/\""], &[]);
        ro(&["{1}; {2}"], &[("pkp-report-only-no-uri", Warning)]);
        ro(&["{2}; {3}; report-uri=\"https://r.example/\""], &[("pkp-no-match", Warning)]);
        ro(&["{1}; report-uri=\"https://r.example/\""], &[("pkp-single-pin", Warning)]);
        let bare = "pin-sha256=AAAA; pin-sha256=BBBB; report-uri=\"https://r.example/\"";
        ro(&[bare], &[("pkp-unquoted-pin", Error)]);
    }

    #[test]
    fn every_certificate_must_match() {
        use Level::{Error, Ok};
        let pair: &[&[u8]] = &[&[1, 9], &[5, 9]];
        check_with(pair, PolicyField::Pkp, &["{1}; {5}; {2}; max-age=5"], &[("pkp-noted", Ok)]);
        check_with(pair, PolicyField::Pkp, &["{1}; {2}; max-age=5"], &[("pkp-no-match", Error), ("pkp-noted", Ok)]);
        check_with(pair, PolicyField::Pkp, &["{1}; {5}; max-age=5"], &[("pkp-no-backup", Error), ("pkp-noted", Ok)]);
    }

    #[test]
    fn pins_of_a_file() {
        let path = |keys: &[u8]| Path { label: String::new(), pins: keys.iter().map(|n| pin(*n)).collect() };
        let check = |paths: &[Path], expected: &[u8], want: &[&str]| {
            let expected: Vec<Pin> = expected.iter().map(|n| pin(*n)).collect();
            let got: Vec<&str> = judge_file(paths, &expected).iter().map(|f| f.check).collect();
            assert_eq!(got, want);
        };
        check(&[path(&[1, 9])], &[1, 2], &["pins-file"]);
        check(&[path(&[1, 9])], &[9], &["pins-file"]);
        check(&[path(&[1, 9])], &[2, 3], &["pins-file-no-match"]);
        check(&[path(&[1, 9]), path(&[5, 8])], &[1], &["pins-file", "pins-file-no-match"]);
    }
}
