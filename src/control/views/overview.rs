//! The state in one glance: what needs the operator first, and the next dates of all sites.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use crate::control::Control;
use crate::control::expiry::ExpiryStage;
use crate::control::promises::{BySite, held};
use crate::control::site_state::SiteLevel;
use crate::control::status::absolute;
use crate::ledger::time::rfc3339;
use crate::policy::promise::{DAY, Seconds};

/// Problems that are shown one by one.
const ATTENTION_MAX: usize = 6;
/// Dates that are shown.
const DATES_MAX: usize = 10;

/// The kind of a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum DateKind {
    CertificateEnds,
    RenewalDue,
    RampStep,
    PinsEnd,
}

impl DateKind {
    fn word(self) -> &'static str {
        match self {
            Self::CertificateEnds => "certificate-ends",
            Self::RenewalDue => "renewal-due",
            Self::RampStep => "ramp-step",
            Self::PinsEnd => "pins-end",
        }
    }
}

/// The dates of one day and kind: the earliest, how many there are, the first site, and whether one of them is urgent.
type CountedDay = (Seconds, usize, String, bool);

/// Dates to come, by day and kind.
#[derive(Default)]
struct ComingDates(BTreeMap<(Seconds, DateKind), CountedDay>);

impl ComingDates {
    fn add(&mut self, at: Seconds, kind: DateKind, site: &str, is_urgent: bool) {
        let day = self.0.entry((at.div_euclid(DAY), kind)).or_insert_with(|| (at, 0, site.to_owned(), false));
        day.0 = day.0.min(at);
        day.1 += 1;
        day.3 |= is_urgent;
    }
}

impl Control {
    /// The answer.
    pub(super) fn overview(&self) -> Value {
        let now = self.now();
        let states = self.states(now);
        // Mostly, few of ten thousand sites need any.
        let needs_it = |at: usize| states.get(at).is_none_or(|state| state.level > SiteLevel::Fine);
        let mut attention = self.attention_of(needs_it);
        let named = attention.iter().filter_map(|item| item["site"].as_str());
        let named: HashSet<&str, foldhash::fast::RandomState> = named.collect();
        let levels = self.config.sites().zip(&*states).filter(|_| !named.is_empty());
        let levels = levels.map(|(site, state)| (site.name(), state.level));
        let levels: BySite<'_, SiteLevel> = levels.filter(|(site, _)| named.contains(site)).collect();
        let level_of = |item: &Value| match item["site"].as_str() {
            Some(site) => levels.get(site).copied().unwrap_or(SiteLevel::Warning),
            None => SiteLevel::Bad,
        };
        attention.sort_by_cached_key(|item| std::cmp::Reverse(level_of(item)));
        let all = attention.len();
        attention.truncate(ATTENTION_MAX);
        for item in &mut attention {
            item["level"] = level_of(item).word().into();
        }
        let ledger = self.ledger();
        json!({
            "version": env!("CARGO_PKG_VERSION"), "started": self.loads.started.to_string(), "now": rfc3339(now),
            "config": absolute(self.draft.path()),
            "sites": states.len(), "connections": self.server.connections(), "draining": self.draining,
            "ledger": { "durable": ledger.is_durable(), "error": self.promises.trouble.as_ref().map(|t| &t.error) },
            "states": SiteLevel::counts(&states),
            "attention": attention, "attention_all": all,
            "dates": self.dates(now, ledger.book()),
        })
    }

    fn dates(&self, now: Seconds, book: &crate::ledger::Book) -> Vec<Value> {
        let mut dates = ComingDates::default();
        for site in self.config.sites() {
            let name = site.name();
            for certificate in site.certificates.iter().filter(|certificate| !certificate.is_managed) {
                let is_urgent = ExpiryStage::of(certificate, now) > ExpiryStage::default();
                dates.add(certificate.not_after.as_second(), DateKind::CertificateEnds, name, is_urgent);
            }
            for next in site.ramps.iter().filter_map(|ramp| ramp.next) {
                dates.add(next.at, DateKind::RampStep, name, false);
            }
        }
        for outlook in self.outlooks().iter() {
            dates.add(outlook.due, DateKind::RenewalDue, &outlook.site, false);
        }
        let mut held = held(book, now, |_| true);
        for site in self.config.sites() {
            if let Some(held) = held.remove(site.name()) {
                dates.add(held.until, DateKind::PinsEnd, site.name(), false);
            }
        }
        // Promises of removed sites. The page names the first one of a day, so the order must not vary.
        let mut gone: Vec<_> = held.into_iter().collect();
        gone.sort_unstable_by_key(|(site, _)| *site);
        for (site, held) in gone {
            dates.add(held.until, DateKind::PinsEnd, site, false);
        }
        let coming = dates.0.into_iter().filter(|(_, (at, ..))| *at >= now).take(DATES_MAX);
        coming
            .map(|((_, kind), (at, sites, site, is_urgent))| {
                json!({ "at": rfc3339(at), "what": kind.word(), "site": site, "sites": sites, "is_urgent": is_urgent })
            })
            .collect()
    }
}
