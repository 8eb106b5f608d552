//! The list of sites: searched, by state, the worst first, one page at a time.

use std::rc::Rc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::acme::outlook::{Outlook, of_site};
use crate::acme::step::CertificateStanding;
use crate::clock::uptime;
use crate::config::report::{CertificateLack, SiteReport};
use crate::control::Control;
use crate::control::admin::WantedSites;
use crate::control::expiry::{ExpiryStage, time_left};
use crate::control::promises::{HeldSets, held_of};
use crate::control::site_state::{SiteLevel, SiteState};
use crate::control::status::{has_failed_in_a_row, is_out};
use crate::ledger::Ramped;
use crate::ledger::time::rfc3339;
use crate::policy::promise::{DAY, Seconds};
use crate::upstream::{Circuit, Upstream};

/// Sites on one page.
const PAGE: usize = 40;
/// Days before the end of a certificate from which it is urgent.
const URGENT_DAYS: i64 = 10;

impl Control {
    /// The state of each site, in the order of the configuration.
    pub(super) fn states(&self, now: Seconds) -> Rc<[SiteState]> {
        self.observed.states.get(|| {
            let (outlooks, times) = (self.outlooks(), (now, uptime()));
            self.sites().map(|(site, upstream)| self.state_of(site, upstream, &outlooks, times)).collect()
        })
    }

    /// The state of one site: its worst problem. The times are that of judgements, and the uptime.
    pub(super) fn state_of(
        &self,
        site: &SiteReport,
        upstream: Option<&Upstream>,
        outlooks: &[Outlook],
        (now, up): (Seconds, u64),
    ) -> SiteState {
        // Mostly, pintle obtains no certificate, and refuses none: then no name is looked at, of ten thousand.
        let outlooks = if outlooks.is_empty() { outlooks } else { of_site(outlooks, site.name()) };
        let refused = &self.files.refused;
        let is_refused = || !refused.is_empty() && refused.contains_key(site.name());
        let fails = |outlook: &&Outlook| outlook.failing_since.is_some() || outlook.problem.is_some();
        let waits = outlooks.iter().any(|o| o.standing == CertificateStanding::Missing && fails(&o));
        let stages = site.certificates.iter().map(|c| (ExpiryStage::of(c, now), c));
        let worst = stages.max_by_key(|(stage, _)| *stage).filter(|(stage, _)| *stage > ExpiryStage::default());
        let bad = |words: &'static str| SiteState { level: SiteLevel::Bad, words: words.into() };
        let warn = |words: &'static str| SiteState { level: SiteLevel::Warning, words: words.into() };
        let of_certificate = match (site.lacks_certificate, &worst) {
            (Some(CertificateLack::NotYet), _) if waits => Some(bad("No certificate: the CA refuses")),
            (Some(CertificateLack::NotYet), _) => Some(warn("Waits for its certificate")),
            (Some(CertificateLack::Broken), _) => Some(bad("No certificate")),
            (None, Some((ExpiryStage::ENDED, _))) => Some(bad("Certificate expired")),
            (None, _) => None,
        };
        let ending = || {
            let (_, certificate) = worst?;
            let days = certificate.not_after.as_second().saturating_sub(now) / DAY;
            let words = ends_in(time_left(certificate, now)).into();
            Some(SiteState { level: if days < URGENT_DAYS { SiteLevel::Bad } else { SiteLevel::Warning }, words })
        };
        of_certificate
            .or_else(|| is_refused().then(|| bad("Renewal refused")))
            .or_else(|| upstream.is_some_and(|upstream| is_failing(upstream, up)).then(|| bad("Upstream fails")))
            .or_else(|| outlooks.iter().any(Outlook::is_overdue).then(|| bad("Renewal overdue")))
            .or_else(ending)
            .or_else(|| lesser(site, upstream, up).map(warn))
            .unwrap_or_else(|| SiteState { level: SiteLevel::Fine, words: "Fine".into() })
    }

    /// The list.
    pub(super) fn listed_sites(&self, wanted: &WantedSites) -> Value {
        let now = self.now();
        let (states, has_text) = (self.states(now), wanted.in_names());
        let mut found: Vec<(usize, &SiteReport, &SiteState)> = self
            .config
            .sites()
            .zip(&*states)
            .enumerate()
            .map(|(at, (site, state))| (at, site, state))
            .filter(|(_, site, state)| wanted.level.is_none_or(|level| state.level == level) && has_text(site))
            .collect();
        // The order of the configuration within a level: it is the operator's own.
        found.sort_by_key(|(at, _, state)| (std::cmp::Reverse(state.level), *at));
        let pages = found.len().div_ceil(PAGE).max(1);
        let page = wanted.page.min(pages);
        let shown = || found.iter().skip((page - 1) * PAGE).take(PAGE);
        let ledger = self.ledger();
        let held = |site: &SiteReport| held_of(ledger.book(), now, site.name());
        let rows = shown().map(|(at, site, state)| self.row(*at, site, state, held(site).as_ref(), now));
        json!({
            "sites": rows.collect::<Vec<_>>(), "found": found.len(), "page": page, "pages": pages, "all": states.len(),
            "states": SiteLevel::counts(&states),
        })
    }

    fn row(&self, at: usize, site: &SiteReport, state: &SiteState, held: Option<&HeldSets>, now: Seconds) -> Value {
        let upstream = self.config.snapshot.upstreams.get(at).and_then(Option::as_deref);
        let ends = site.certificates.iter().map(|certificate| certificate.not_after).min();
        let ramp = site.ramps.iter().find(|ramp| ramp.policy == Ramped::Hsts);
        json!({
            "site": site.name(), "names": site.hosts.len(), "level": state.level.word(), "state": state.words,
            "certificate_ends": ends.map(|end: Timestamp| end.to_string()),
            "is_ending": site.certificates.iter().any(|c| ExpiryStage::of(c, now) > ExpiryStage::default()),
            "is_managed": site.certificates.iter().any(|certificate| certificate.is_managed),
            "pins": site.hpkp.is_some(), "pins_withheld": site.withheld.is_some(),
            "promised_until": held.filter(|held| held.until > now).map(|held| rfc3339(held.until)),
            "upstream": site.upstream.as_ref().map(|upstream| &upstream.url),
            "upstream_fails": upstream.map(|upstream| is_failing(upstream, uptime())),
            "hsts": site.hsts,
            "hsts_ramp": ramp.map(|ramp| json!({ "step": ramp.step + 1, "steps": ramp.steps })),
            "requests_per_second": self.observed.rates.of_site(at),
        })
    }
}

/// `true` unless the circuit of an upstream is closed.
fn is_failing(upstream: &Upstream, up: u64) -> bool {
    upstream.health.circuit(up) != Circuit::Closed
}

/// `Ends in 9 days`
fn ends_in(time: Option<String>) -> String {
    time.map_or_else(|| "Certificate expired".to_owned(), |time| format!("Ends in {time}"))
}

/// A problem that locks nobody out yet.
fn lesser(site: &SiteReport, upstream: Option<&Upstream>, up: u64) -> Option<&'static str> {
    let is_partly_out = |upstream: &Upstream| {
        let known = upstream.addresses.known();
        known.iter().any(|address| is_out(upstream, *address, up))
    };
    if !site.refused_names.is_empty() {
        Some("Some names refused")
    } else if !site.missing.is_empty() {
        Some("A certificate is missing")
    } else if site.withheld.is_some() {
        Some("Pins withheld")
    } else if !site.promoted.is_empty() {
        Some("Next key missing")
    } else if upstream.is_some_and(has_failed_in_a_row) {
        Some("Upstream fails")
    } else if upstream.is_some_and(is_partly_out) {
        Some("Upstream partly fails")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_the_end() {
        assert_eq!(ends_in(Some("9 days".to_owned())), "Ends in 9 days");
        assert_eq!(ends_in(None), "Certificate expired");
    }
}
