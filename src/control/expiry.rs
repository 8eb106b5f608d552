//! Certificates that are about to end: each threshold is reported once.

use std::collections::HashMap;

use crate::acme::due::left_at_renewal;
use crate::config::report;
use crate::keys::pin::Pin;
use crate::policy::promise::{DAY, Seconds};

/// The days left at which a certificate is reported.
const DAYS: [i64; 4] = [14, 7, 3, 1];
/// Certificates with a shorter lifetime, in days, are reported at the same fractions of it: the first threshold is a third.
const WHOLE_DAYS_FROM: i64 = 42;
/// A certificate that pintle renews itself is reported from half of the time that is left when its renewal is due: that is
/// the latest time that a CA's window can set. The other thresholds are the same fractions of that time.
const FIRST_DAYS: i64 = DAYS[0];
/// The remedy for a certificate from elsewhere.
const RENEW: &str = "renew it: pintle loads new files by itself, and `pintle install` checks them first";

/// The number of passed thresholds before the end of a certificate, the end included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ExpiryStage(usize);

impl ExpiryStage {
    /// The certificate has ended.
    pub(super) const ENDED: Self = Self(DAYS.len() + 1);

    /// The stage of a certificate.
    pub(super) fn of(certificate: &report::CertificateReport, now: Seconds) -> Self {
        let end = certificate.not_after.as_second();
        if end <= now {
            return Self::ENDED;
        }
        Self(thresholds(certificate).filter(|threshold| *threshold <= now).count())
    }

    /// The number, for programs: 0 far from the end, 5 ended.
    pub(super) fn number(self) -> usize {
        self.0
    }

    /// The word for programs.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self(0) => "valid",
            Self::ENDED => "ended",
            Self(_) => "ending",
        }
    }
}

/// The times of the thresholds, without the end.
pub(super) fn thresholds(certificate: &report::CertificateReport) -> impl Iterator<Item = Seconds> {
    let end = certificate.not_after.as_second();
    let lifetime = end.saturating_sub(certificate.not_before.as_second()).max(0);
    DAYS.iter().map(move |days| {
        let part = match certificate.is_managed {
            true => (left_at_renewal(lifetime) / 2).saturating_mul(*days) / FIRST_DAYS,
            false => lifetime.saturating_mul(*days) / WHOLE_DAYS_FROM,
        };
        let left = (days * DAY).min(part);
        end.saturating_sub(left)
    })
}

/// The remedy for a certificate that is about to end.
pub(super) fn remedy(site: &str, certificate: &report::CertificateReport) -> String {
    match certificate.is_managed {
        true => report::hint_to_renewal(site),
        false => RENEW.to_owned(),
    }
}

/// The time left, for people: `9 days left`, or `expired`.
pub(super) fn left(certificate: &report::CertificateReport, now: Seconds) -> String {
    time_left(certificate, now).map_or_else(|| "expired".to_owned(), |time| format!("{time} left"))
}

/// The time left, to the nearest day; below two days to the nearest hour: `9 days`. `None` after the end.
pub(super) fn time_left(certificate: &report::CertificateReport, now: Seconds) -> Option<String> {
    Some(match certificate.not_after.as_second().saturating_sub(now) {
        ..=0 => return None,
        seconds if seconds >= 2 * DAY => format!("{} days", (seconds + DAY / 2) / DAY),
        seconds if seconds >= 2 * 3600 => format!("{} hours", (seconds + 1800) / 3600),
        seconds => format!("{} minutes", seconds / 60),
    })
}

/// The reports so far.
#[derive(Default)]
pub(super) struct Reported {
    /// By site.
    pub(super) stages: HashMap<String, Vec<ReportedCertificate>>,
    /// The next threshold of any certificate; `None` after a change of certificates.
    pub(super) next: Option<Seconds>,
}

/// A certificate in use.
pub(super) struct ReportedCertificate {
    pub(super) serial: String,
    pub(super) pin: Pin,
    pub(super) stage: ExpiryStage,
    /// The time at which it was first seen in use.
    pub(super) since: Seconds,
}

impl Reported {
    /// Looks at all certificates at the next opportunity.
    pub(super) fn look_again(&mut self) {
        self.next = None;
    }

    /// Returns the time since which a certificate is in use; `None` if it was not looked at yet.
    pub(super) fn since(&self, site: &report::SiteReport, certificate: &report::CertificateReport) -> Option<Seconds> {
        self.seen(site, certificate).map(|seen| seen.since)
    }

    pub(super) fn seen(
        &self,
        site: &report::SiteReport,
        certificate: &report::CertificateReport,
    ) -> Option<&ReportedCertificate> {
        let of_site = self.stages.get(site.name())?;
        of_site.iter().find(|seen| seen.pin == certificate.pin && seen.serial == certificate.serial)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::keys::key_file::KeyAlgorithm;

    fn certificate(lifetime: i64) -> report::CertificateReport {
        report::CertificateReport {
            path: String::new(),
            serial: "01".into(),
            issuer: String::new(),
            algorithm: KeyAlgorithm::named("ECDSA P-256"),
            pin: Pin::of_spki(b""),
            pins: Vec::new(),
            certain: Vec::new(),
            not_before: Timestamp::from_second(0).unwrap(),
            not_after: Timestamp::from_second(lifetime).unwrap(),
            served: true,
            is_managed: false,
            scts: 0,
        }
    }

    #[test]
    fn thresholds_by_lifetime() {
        let check = |lifetime: i64, left: i64, stage: usize| {
            let got = ExpiryStage::of(&certificate(lifetime), lifetime - left).number();
            assert_eq!(got, stage, "{} h of {} h left", left / 3600, lifetime / 3600);
        };
        for lifetime in [42, 47, 64, 90, 398].map(|days| days * DAY) {
            for (days, stage) in [(14, 1), (7, 2), (3, 3), (1, 4)] {
                check(lifetime, days * DAY + 1, stage - 1);
                check(lifetime, days * DAY, stage);
            }
            check(lifetime, lifetime, 0);
            check(lifetime, 1, 4);
            check(lifetime, 0, 5);
            check(lifetime, -DAY, 5);
        }
        // Six days: a third, a sixth, a fourteenth and a forty-second part of 160 hours.
        let short = 160 * 3600;
        for (left, stage) in [(160, 0), (80, 0), (54, 0), (53, 1), (27, 1), (26, 2), (12, 2), (11, 3), (4, 3), (3, 4)] {
            check(short, left * 3600, stage);
        }
        check(short, 0, 5);
        check(0, 0, 5);
        check(0, 1, 0);
    }

    #[test]
    fn thresholds_of_certificates_that_pintle_renews() {
        let check = |lifetime: i64, left: i64, stage: usize| {
            let certificate = report::CertificateReport { is_managed: true, ..certificate(lifetime) };
            let got = ExpiryStage::of(&certificate, lifetime - left).number();
            assert_eq!(got, stage, "{} h of {} h left", left / 3600, lifetime / 3600);
        };
        // Renewal is due at a third of the lifetime, and at half of a short one; the CA's window may halve what is left.
        for (lifetime, first) in [(90, 14 * 24), (64, 256), (47, 188), (45, 180)] {
            check(lifetime * DAY, first * 3600 + 1, 0);
            check(lifetime * DAY, first * 3600, 1);
            check(lifetime * DAY, first * 3600 / 2 - 1, 2);
            check(lifetime * DAY, 0, 5);
        }
        let short = 160 * 3600;
        for (left, stage) in [(160, 0), (79, 0), (41, 0), (40, 1), (20, 2), (8, 3), (2, 4), (0, 5)] {
            check(short, left * 3600, stage);
        }
    }

    #[test]
    fn time_left() {
        let check = |left: i64, want: &str| assert_eq!(self::left(&certificate(90 * DAY), 90 * DAY - left), want);
        check(90 * DAY, "90 days left");
        check(2 * DAY, "2 days left");
        check(14 * DAY - 60, "14 days left");
        check(2 * DAY - 1, "48 hours left");
        check(7199, "119 minutes left");
        check(0, "expired");
        check(-5, "expired");
    }
}
