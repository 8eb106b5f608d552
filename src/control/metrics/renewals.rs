//! Metrics of the certificates that pintle obtains: renewals, compromised keys.

use super::{Control, flag};
use crate::acme::outlook::Outlook;
use crate::telemetry::exposition::{Exposition, Labels, Values};

impl Control {
    pub(super) fn renewal_metrics(&self, metrics: &mut Exposition) {
        let outlooks = self.outlooks();
        let labels = |o: &Outlook| Labels::new(&[("site", &o.site), ("algorithm", &o.algorithm)]);
        let values =
            |value: &dyn Fn(&Outlook) -> f64| -> Values { outlooks.iter().map(|o| (labels(o), value(o))).collect() };
        let help = "1 if a renewal is due and not done, or the certificate has expired.";
        metrics.gauges("renewal_overdue", help, &values(&|o| flag(o.is_overdue())));
        let help = "When the next certificate is due, in seconds since 1970.";
        metrics.gauges("renewal_due_timestamp_seconds", help, &values(&|o| o.due as f64));
        let help =
            "When pintle tries next, in seconds since 1970; absent if a try is under way or waits for the operator.";
        let next = outlooks.iter().filter_map(|o| Some((labels(o), o.next_try? as f64)));
        metrics.gauges("renewal_next_try_timestamp_seconds", help, &next.collect::<Values>());
        let help = "1 if the last attempt to obtain a certificate failed.";
        metrics.gauges("renewal_last_failed", help, &values(&|o| flag(o.failing_since.is_some())));
        let help = "1 if pintle does not try again before the operator acts.";
        metrics.gauges("renewal_waits_for_operator", help, &values(&|o| flag(o.is_stopped)));
        let window = |end: &dyn Fn((i64, i64)) -> i64| -> Values {
            outlooks.iter().filter_map(|o| Some((labels(o), end(o.window?) as f64))).collect()
        };
        let help = "The begin of the window in which the CA wants a renewal (ARI), in seconds since 1970.";
        metrics.gauges("renewal_window_start_timestamp_seconds", help, &window(&|(start, _)| start));
        let help = "The end of this window, in seconds since 1970.";
        metrics.gauges("renewal_window_end_timestamp_seconds", help, &window(&|(_, end)| end));
        let help = "Failures in a row to obtain a certificate.";
        metrics.gauges("renewal_failures", help, &values(&|o| f64::from(o.failures)));
        let failing = outlooks.iter().filter_map(|o| Some((labels(o), o.failing_since? as f64)));
        let help = "When the first of these failures happened, in seconds since 1970.";
        metrics.gauges("renewal_failing_since_timestamp_seconds", help, &failing.collect::<Values>());
        let help = "1 while pintle replaces and revokes a compromised key.";
        metrics.gauges("key_compromised", help, &values(&|o| flag(o.compromised.is_some())));
        let help = "1 if the file of the live or the next key cannot be used.";
        metrics.gauges("key_unusable", help, &values(&|o| flag(o.key_fault.is_some())));
        let open = |o: &Outlook| o.unrevoked.as_ref().map_or(0, |open| open.serials.len()) as f64;
        let help = "Valid certificates of a burnt key that are not revoked.";
        metrics.gauges("certificates_unrevoked", help, &values(&open));
    }
}
