//! Certificates.

use jiff::Timestamp;

use crate::reason::counted;
use crate::tls::rule::day;
use crate::verify::chain::SeenChain;
use crate::verify::finding::{Group, Level, VerifyFinding};

/// A certificate expires soon if no more than this and no more than a third of its life is left.
const DUE_SECONDS: i64 = 14 * 86400;

/// Judges a chain.
#[must_use]
pub fn judge(chain: &SeenChain, now: Timestamp) -> Vec<VerifyFinding> {
    let row = |level, check, message: String| VerifyFinding::new(Group::Certificate, level, check, message);
    if let Some(distrust) = &chain.distrust {
        let finding = row(Level::Error, distrust.check, distrust.message.clone());
        return vec![match distrust.hint {
            Some(hint) => finding.hint(hint),
            None => finding,
        }];
    }
    let Some(leaf) = chain.served.first().map(|c| &c.facts) else { return Vec::new() };
    let root = chain.root.as_ref().map(|r| format!(", root {}", r.subject)).unwrap_or_default();
    let message = format!(
        "for {}, {}, until {}, issued by {}{root}",
        leaf.names(),
        leaf.algorithm,
        day(leaf.not_after),
        leaf.issuer
    );
    let mut findings = vec![row(Level::Ok, "certificate-valid", message)];
    let life = leaf.not_after.as_second() - leaf.not_before.as_second();
    let left = leaf.not_after.as_second() - now.as_second();
    if left < DUE_SECONDS && left < life / 3 {
        let days = left.max(0) / 86400;
        findings.push(
            row(Level::Warning, "certificate-expires-soon", format!("expires in {}", counted(days, "day")))
                .hint("renew it; with pins, the new key must be one that was promised"),
        );
    }
    findings
}

/// Judges a second certificate, which clients with another kind of key get.
#[must_use]
pub fn judge_other(chain: &SeenChain) -> VerifyFinding {
    let leaf = chain.served.first();
    let kind = leaf.map_or_else(String::new, |c| c.facts.algorithm.to_string());
    match &chain.distrust {
        Some(distrust) => {
            let message = format!("the {kind} certificate, which other clients get: {}", distrust.message);
            VerifyFinding::new(Group::Certificate, Level::Error, distrust.check, message)
        }
        None => {
            let until = leaf.map(|c| day(c.facts.not_after)).unwrap_or_default();
            let message = format!("other clients get another certificate: {kind}, until {until}");
            VerifyFinding::new(Group::Certificate, Level::Ok, "certificate-second", message)
        }
    }
}
