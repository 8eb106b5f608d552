//! The judges: facts in, rows out, no I/O.

pub mod again;
pub mod certificate;
pub mod hsts;
pub mod page;
pub mod pins;
pub mod preload;
pub mod redirect;
pub mod versions;

use super::fault::GrammarFault;
use super::field::PolicyField;
use super::finding::VerifyFinding;
use super::grammar::{Reading, read};
use crate::reason::counted;

/// Reports the grammar errors of all fields of one name, each kind once; returns the reading of the
/// first field, which clients process.
fn read_all(field: PolicyField, values: &[&[u8]], findings: &mut Vec<VerifyFinding>) -> Option<Reading> {
    let readings: Vec<Reading> = values.iter().map(|value| read(field, value)).collect();
    let mut reported: Vec<GrammarFault> = Vec::new();
    for fault in readings.iter().flat_map(|r| &r.faults) {
        match reported.iter_mut().find(|t| t.kind == fault.kind) {
            Some(reported) => reported.more += 1 + fault.more,
            None => reported.push(fault.clone()),
        }
    }
    findings.extend(reported.iter().map(|fault| fault.finding(field)));
    readings.into_iter().next()
}

/// Formats seconds in the largest fitting unit.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => counted(seconds, "second"),
        60..3600 => counted(seconds / 60, "minute"),
        3600..86400 => counted(seconds / 3600, "hour"),
        _ => counted(seconds / 86400, "day"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let check = |seconds, want: &str| assert_eq!(span(seconds), want);
        check(0, "0 seconds");
        check(60, "1 minute");
        check(7200, "2 hours");
        check(31_536_000, "365 days");
    }

    #[test]
    fn the_faults_of_two_fields_are_told_once() {
        let mut findings = Vec::new();
        let first = read_all(PolicyField::Sts, &[b"max-age: 5", b"max-age: 6; x"], &mut findings).unwrap();
        assert_eq!(first.max_age, None);
        let checks: Vec<&str> = findings.iter().map(|f| f.check).collect();
        assert_eq!(checks, ["sts-max-age-colon", "sts-unknown-directive"]);
        assert!(findings[0].message.ends_with("max-age: 5 (and 1 more)"), "{findings:?}");
    }
}
