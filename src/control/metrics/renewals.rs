//! Metrics of the certificates that pintle obtains: renewals, compromised keys.

use std::sync::Arc;

use super::label_sets::alone;
use super::{Control, flag};
use crate::acme::outlook::Outlook;
use crate::telemetry::exposition::{Exposition, LabelSets};

impl Control {
    pub(super) fn renewal_metrics(&self, metrics: &mut Exposition) {
        let outlooks = self.outlooks();
        let mut labels = LabelSets::default();
        outlooks.iter().for_each(|o| labels.push(&[("site", &o.site), ("algorithm", &o.algorithm)]));
        let labels = Arc::new(labels);
        let mut add = |name: &str, help: &str, value: &dyn Fn(&Outlook) -> Option<f64>| {
            metrics.many_gauges(name, help, &labels, vec![alone(outlooks.iter().map(value).collect())]);
        };
        let help = "1 if a renewal is due and not done, or the certificate has expired.";
        add("renewal_overdue", help, &|o| Some(flag(o.is_overdue())));
        let help = "When the next certificate is due, in seconds since 1970.";
        add("renewal_due_timestamp_seconds", help, &|o| Some(o.due as f64));
        let help =
            "When pintle tries next, in seconds since 1970; absent if a try is under way or waits for the operator.";
        add("renewal_next_try_timestamp_seconds", help, &|o| Some(o.next_try? as f64));
        let help = "1 if the last attempt to obtain a certificate failed.";
        add("renewal_last_failed", help, &|o| Some(flag(o.failing_since.is_some())));
        let help = "1 if pintle does not try again before the operator acts.";
        add("renewal_waits_for_operator", help, &|o| Some(flag(o.is_stopped)));
        let help = "1 if the last preflight found that the CA cannot validate the names, or may not issue.";
        add("challenge_path_broken", help, &|o| Some(flag(o.is_path_broken)));
        let help = "The beginning of the window in which the CA wants a renewal (ARI), in seconds since 1970.";
        add("renewal_window_start_timestamp_seconds", help, &|o| Some(o.window?.0 as f64));
        let help = "The end of the window in which the CA wants a renewal (ARI), in seconds since 1970.";
        add("renewal_window_end_timestamp_seconds", help, &|o| Some(o.window?.1 as f64));
        let help = "Failures in a row to obtain a certificate.";
        add("renewal_failures", help, &|o| Some(f64::from(o.failures)));
        let help = "When the first of the failures in a row happened, in seconds since 1970.";
        add("renewal_failing_since_timestamp_seconds", help, &|o| Some(o.failing_since? as f64));
        let help = "1 while pintle replaces and revokes a compromised key.";
        add("key_compromised", help, &|o| Some(flag(o.compromised.is_some())));
        let help = "1 if the file of the live or the next key cannot be used.";
        add("key_unusable", help, &|o| Some(flag(o.key_fault.is_some())));
        let help = "Valid certificates of a burnt key that are not revoked.";
        add(
            "certificates_unrevoked",
            help,
            &|o| Some(o.unrevoked.as_ref().map_or(0, |open| open.serials.len()) as f64),
        );
    }
}
