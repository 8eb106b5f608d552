//! Strict-Transport-Security.

use super::{read_all, span};
use crate::verify::field::PolicyField;
use crate::verify::finding::{Group, Level, VerifyFinding};
use crate::verify::notes::{HeaderEffect, IgnoreReason, NotedHsts};

/// A shorter HSTS hardly protects visitors who come every few months; scanners demand at least
/// this.
const SHORT_SECONDS: u64 = 180 * 86400;

/// Judges the fields of a response.
#[must_use]
pub fn judge(values: &[&[u8]], outcome: &HeaderEffect<NotedHsts>) -> Vec<VerifyFinding> {
    let row = |level, check, message: String| VerifyFinding::new(Group::Hsts, level, check, message);
    let mut findings = Vec::new();
    if values.len() > 1 {
        let message =
            format!("{} {} fields: clients process the first one only", values.len(), PolicyField::Sts.name());
        findings.push(
            row(Level::Error, "sts-duplicate-field", message)
                .hint("send one (RFC 6797 section 7.1); does the application add its own?"),
        );
    }
    let reading = read_all(PolicyField::Sts, values, &mut findings);
    findings.push(match outcome {
        HeaderEffect::Absent => row(Level::Warning, "sts-missing", "no Strict-Transport-Security".into())
            .hint("without it, an attacker can hijack each visit by http:// before the redirect"),
        HeaderEffect::Ignored(IgnoreReason::Address) => row(
            Level::Warning,
            "sts-ip-address",
            "clients note no HSTS for IP addresses (RFC 6797 section 8.1.1)".into(),
        ),
        HeaderEffect::Ignored(reason) => {
            row(Level::Warning, "sts-not-noted", format!("clients do not note it: {}", reason.as_str()))
        }
        HeaderEffect::Forgotten => {
            row(Level::Warning, "sts-forgotten", "max-age=0: clients forget that the host wants TLS".into())
        }
        HeaderEffect::Noted(noted) => {
            let below = if noted.include_subdomains { ", with all names below" } else { "" };
            row(Level::Ok, "sts-noted", format!("noted for {}{below}", span(noted.max_age)))
        }
    });
    let max_age = reading.and_then(|r| r.max_age);
    if let Some(max_age) = max_age.filter(|age| (1..SHORT_SECONDS).contains(age)) {
        findings.push(
            row(Level::Note, "sts-max-age-short", format!("max-age is {}", span(max_age)))
                .hint("use a year when everything works: max-age=31536000"),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::notes::{NotedVisit, note_hsts};

    #[test]
    fn table() {
        let check = |values: &[&str], secure, want: &[(&str, Level)]| {
            let values: Vec<&[u8]> = values.iter().map(|v| v.as_bytes()).collect();
            let outcome = note_hsts(&NotedVisit { secure, sts: values.clone(), ..NotedVisit::default() });
            let got: Vec<_> = judge(&values, &outcome).iter().map(|f| (f.check, f.level)).collect();
            assert_eq!(got, want, "{values:?}");
        };
        check(&[], true, &[("sts-missing", Level::Warning)]);
        check(&["max-age=31536000"], true, &[("sts-noted", Level::Ok)]);
        check(&["max-age=31536000"], false, &[("sts-not-noted", Level::Warning)]);
        check(&["max-age=3600"], true, &[("sts-noted", Level::Ok), ("sts-max-age-short", Level::Note)]);
        check(&["max-age=0"], true, &[("sts-forgotten", Level::Warning)]);
        check(&["max-age: 31536000"], true, &[("sts-max-age-colon", Level::Error), ("sts-not-noted", Level::Warning)]);
        check(
            &["max-age=31536000", "max-age=31536000"],
            true,
            &[("sts-duplicate-field", Level::Error), ("sts-noted", Level::Ok)],
        );
    }
}
