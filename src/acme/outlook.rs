//! The outlook of a certificate: the state of its renewal, for `pintle status`, metrics, `/ready` and the log.

use std::path::PathBuf;

use serde::Serialize;

use super::backoff::{failing_since, last_failure};
use super::facts::{CertificateFacts, PreflightVerdict};
use super::problem::AcmeRemedy;
use super::step::{CertificatePlan, CertificateStanding, HoldCause, NextStep, Stop};
use super::store::CertificateRecord;
use super::words::{OTHER_LIMITS, minute, stop_text};
use crate::config::Managed;
use crate::keys::pin::Pin;
use crate::policy::promise::Seconds;
use crate::reason::Reason;
use crate::reason::pasted::pintle;

/// The state of a certificate and of its renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// The site, by its first name.
    pub site: String,
    /// The algorithm of its keys.
    pub algorithm: String,
    /// Its state.
    pub standing: CertificateStanding,
    /// The time from which a certificate is wanted.
    pub due: Seconds,
    /// The end of the certificate in use; `None` without one.
    pub not_after: Option<Seconds>,
    /// Failures in a row, at all CAs.
    pub failures: u32,
    /// The time of the first failure since the last certificate; `None` if nothing failed.
    pub failing_since: Option<Seconds>,
    /// The last problem, if it is not solved.
    pub problem: Option<String>,
    /// Its remedy.
    pub hint: Option<String>,
    /// The next try; `None` if one is under way.
    pub next_try: Option<Seconds>,
    /// `true` if only the operator can help. pintle tries again daily all the same.
    pub is_stopped: bool,
    /// The window in which the CA wants it renewed, from its start to its end; `None` if the CA names none.
    pub window: Option<(Seconds, Seconds)>,
    /// `true` if the last preflight found that the CA cannot validate the names, or may not issue.
    pub is_path_broken: bool,
    /// The fault of a key that cannot be used, with its remedies.
    pub key_fault: Option<Reason>,
    /// The key that is compromised, with the step that pintle is at.
    pub compromised: Option<(Pin, OutlookStep)>,
    /// The certificates of a burnt key that are not revoked.
    pub unrevoked: Option<Unrevoked>,
}

/// A step of the end of a compromised key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutlookStep {
    /// A certificate for another key is ordered.
    Ordering,
    /// Another key serves; the certificates are revoked.
    Revoking,
    /// They are revoked; the key is recorded as burnt.
    Burning,
}

/// Certificates of a burnt key that the CA has not revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrevoked {
    /// The key.
    pub pin: Pin,
    /// Their serial numbers.
    pub serials: Vec<String>,
    /// The directory of the CA.
    pub from: String,
    /// The copies of the key and of its chain.
    pub files: [PathBuf; 2],
    /// The reason.
    pub problem: Option<String>,
}

impl Outlook {
    /// Makes the outlook of a certificate.
    #[must_use]
    pub fn of(
        facts: &CertificateFacts,
        plan: &CertificatePlan,
        certificate: &Managed,
        record: &CertificateRecord,
        now: Seconds,
    ) -> Self {
        let attempts = || facts.cas.iter().map(|ca| &ca.attempts);
        let broken = facts.checked.as_ref().filter(|checked| checked.verdict == PreflightVerdict::Broken);
        let stop = match &plan.next {
            NextStep::OperatorsTurn { stop, .. } => Some(stop_text(stop)),
            _ => None,
        };
        let last = last_failure(attempts());
        // The preflight says more about a validation than the CA does.
        let last = last.filter(|last| broken.is_none_or(|broken| broken.at < last.at));
        let (problem, remedy) = match (last, broken) {
            (Some(last), _) => (Some(last.text.clone()), last.remedy),
            (None, Some(broken)) => (Some(broken.text.clone()), None),
            (None, None) => match plan.hold.as_ref().map(|hold| &hold.cause) {
                Some(HoldCause::Budget(limit)) => (Some(limit.clone()), Some(AcmeRemedy::RateLimit)),
                _ => (stop.clone(), Some(AcmeRemedy::Operator)),
            },
        };
        // The remedies of a refused chain are for files of the operator's own.
        let own = last.filter(|last| last.remedy != Some(AcmeRemedy::Candidate));
        let own = own.and_then(|last| last.reason().hint_line());
        let by_kind = || match remedy {
            Some(remedy) => remedy_text(remedy, &facts.site),
            None => preflight_hint(&facts.site),
        };
        let hint = || own.unwrap_or_else(by_kind);
        let next_try = match &plan.next {
            NextStep::Wait { until } if plan.due <= now => Some(*until),
            NextStep::Wait { .. } => Some(plan.due),
            // pintle waits for the key, and looks at it often.
            NextStep::OperatorsTurn { stop: Stop::Key(_), .. } => None,
            NextStep::OperatorsTurn { until, .. } => Some(*until),
            _ => None,
        };
        Self {
            site: facts.site.clone(),
            algorithm: facts.algorithm.clone(),
            standing: plan.standing,
            due: plan.due,
            not_after: facts.chain.as_ref().map(|chain| chain.not_after),
            failures: attempts().map(|attempts| attempts.failures).fold(0, u32::saturating_add),
            failing_since: failing_since(attempts()),
            hint: problem.is_some().then(hint),
            problem,
            next_try,
            is_stopped: stop.is_some(),
            window: facts.info.window.as_ref().map(|window| (window.start, window.end)),
            is_path_broken: broken.is_some_and(|broken| broken.names == facts.names && !broken.expired),
            key_fault: facts.key_fault(),
            compromised: compromised(facts),
            unrevoked: unrevoked(certificate, record, now),
        }
    }

    /// Returns `true` if a renewal is due and not done, or the certificate has expired.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.standing.is_overdue()
    }

    /// Returns the state in words: since when, until when, and the next try.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = vec![match self.standing {
            CertificateStanding::Missing => "no certificate yet".to_owned(),
            _ => format!("renewal overdue: due since {}", minute(self.due)),
        }];
        words.extend(self.failing_since.map(|since| format!("failing since {}", minute(since))));
        words.extend(self.not_after.map(|end| format!("the certificate in use ends {}", minute(end))));
        words.push(match self.next_try {
            Some(at) if self.is_stopped => format!("pintle needs you, and tries again {}", minute(at)),
            Some(at) => format!("next try {}", minute(at)),
            None if self.is_stopped => "no next try before you act".to_owned(),
            None => "a try is under way".to_owned(),
        });
        let problem = self.problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
        format!("{}{problem}", words.join(", "))
    }
}

/// Returns the outlooks of one site, from outlooks in the order of their sites.
#[must_use]
pub fn of_site<'o>(outlooks: &'o [Outlook], site: &str) -> &'o [Outlook] {
    let begin = outlooks.partition_point(|outlook| outlook.site.as_str() < site);
    let end = outlooks.partition_point(|outlook| outlook.site.as_str() <= site);
    outlooks.get(begin..end).unwrap_or_default()
}

fn compromised(facts: &CertificateFacts) -> Option<(Pin, OutlookStep)> {
    let compromise = facts.compromise.as_ref()?;
    let step = match (facts.retired(), compromise.is_revoked) {
        (None, _) => OutlookStep::Ordering,
        (Some(_), false) => OutlookStep::Revoking,
        (Some(_), true) => OutlookStep::Burning,
    };
    Some((compromise.pin, step))
}

fn unrevoked(certificate: &Managed, record: &CertificateRecord, now: Seconds) -> Option<Unrevoked> {
    let retired = record.retired.as_ref()?;
    let open: Vec<_> = retired.open(now).collect();
    let from = open.first()?.from.clone();
    let serials = open.iter().map(|issued| issued.serial.clone()).collect();
    let files = certificate.compromised();
    Some(Unrevoked { pin: retired.pin, serials, from, files, problem: retired.problem.clone() })
}

/// Returns what the operator can do about a preflight that fails.
fn preflight_hint(site: &str) -> String {
    let renew = |more: &str| pintle(format_args!("acme renew --site {site}{more}"));
    format!(
        "the DNS records of these names must lead here, and the CA must reach the ports; then: {}; if the CA sees other \
         records or addresses than this host: {}",
        renew(""),
        renew(" --despite-preflight")
    )
}

/// Returns what the operator can do about a failure.
#[must_use]
pub fn remedy_text(remedy: AcmeRemedy, site: &str) -> String {
    let now = pintle(format_args!("acme renew --site {site}"));
    match remedy {
        AcmeRemedy::NewNonce
        | AcmeRemedy::WithoutReplaces
        | AcmeRemedy::ReadOrder
        | AcmeRemedy::Register
        | AcmeRemedy::Temporary => {
            format!(
                "pintle tries again by itself; check that this host reaches the CA, or name a second one in acme.fallback; to \
             try now: {now}"
            )
        }
        AcmeRemedy::RateLimit => format!("pintle waits as the CA asks; {OTHER_LIMITS}"),
        AcmeRemedy::Validation => {
            format!("the DNS records of these names must point here, and the CA must reach the ports; then: {now}")
        }
        AcmeRemedy::Candidate => {
            format!("`{}` and `{}` have the reason; then: {now}", pintle("check"), pintle("status"))
        }
        AcmeRemedy::Caa => format!("change the CAA record so that it allows this CA, or name another CA; then: {now}"),
        AcmeRemedy::Key => format!("this CA does not accept the key: name a second CA in acme.fallback; then: {now}"),
        AcmeRemedy::Profile => format!("set acme.profile to one that the CA offers, then `{}`", pintle("reload")),
        AcmeRemedy::Name => format!("remove the name from hosts, or name another CA, then `{}`", pintle("reload")),
        AcmeRemedy::Operator => format!("do what the CA asks for; then: {now}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::facts::Ca;
    use crate::acme::fault::StepFault;
    use crate::acme::step::{KeyChoice, OrderReason};
    use crate::keys::key_file::KeyAlgorithm;

    fn words(next: NextStep) -> String {
        let plan = CertificatePlan {
            next,
            due: 0,
            why: OrderReason::First,
            key: KeyChoice::Live,
            standing: CertificateStanding::Overdue,
            changeover: None,
            hold: None,
            next_check: None,
        };
        let (site, folder) = ("a.example".to_owned(), PathBuf::new());
        let hosts = Vec::new();
        let certificate = Managed { site, hosts, algorithm: KeyAlgorithm::EcdsaP256, folder, adopt: None };
        let mut facts = CertificateFacts::default();
        let mut ca = Ca::default();
        let failure = StepFault::here("out of order").failure(None);
        ca.attempts.failed(failure, 0, None, 0.0);
        facts.cas.push(ca);
        Outlook::of(&facts, &plan, &certificate, &CertificateRecord::default(), 60).words()
    }

    #[test]
    fn the_next_try_in_words() {
        for (next, want) in [
            (NextStep::Wait { until: 120 }, "next try 1970-01-01 00:02 UTC"),
            (NextStep::Order { key: KeyChoice::Live, ca: 0, replaces: None }, "a try is under way"),
            (NextStep::Resume, "a try is under way"),
            (
                NextStep::OperatorsTurn { stop: Stop::NoAuthority, until: 86_400 },
                "pintle needs you, and tries again 1970-01-02 00:00 UTC",
            ),
        ] {
            let found = words(next);
            assert!(found.contains(want), "{want} is not in {found}");
        }
    }
}
