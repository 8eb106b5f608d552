//! The state in one glance: what needs the operator first, and the next dates of all sites.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use crate::control::Control;
use crate::control::expiry::ExpiryStage;
use crate::control::promises::{BySite, HeldSets, held};
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

/// A day with its dates of one kind.
type ComingDay = ((Seconds, DateKind), CountedDay);

/// Dates to come, by day and kind.
#[derive(Default)]
struct ComingDates(BTreeMap<(Seconds, DateKind), CountedDay>);

impl ComingDates {
    /// Counts a date. The name of its site is looked at only if it is the first one of its day.
    fn add(&mut self, at: Seconds, kind: DateKind, site: impl FnOnce() -> String, is_urgent: bool) {
        let day = self.0.entry((at.div_euclid(DAY), kind)).or_insert_with(|| (at, 0, site(), false));
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
            let name = || site.name().to_owned();
            for certificate in site.certificates.iter().filter(|certificate| !certificate.is_managed) {
                let is_urgent = ExpiryStage::of(certificate, now) > ExpiryStage::default();
                dates.add(certificate.not_after.as_second(), DateKind::CertificateEnds, name, is_urgent);
            }
            for next in site.ramps.iter().filter_map(|ramp| ramp.next) {
                dates.add(next.at, DateKind::RampStep, name, false);
            }
        }
        for outlook in self.outlooks().iter() {
            dates.add(outlook.due, DateKind::RenewalDue, || outlook.site.clone(), false);
        }
        let held = held(book, now);
        for held in held.values() {
            dates.add(held.until, DateKind::PinsEnd, String::new, false);
        }
        let coming = dates.0.into_iter().filter(|(_, (at, ..))| *at >= now).take(DATES_MAX);
        let mut coming: Vec<ComingDay> = coming.collect();
        self.name_ends(&mut coming, &held);
        coming
            .into_iter()
            .map(|((_, kind), (at, sites, site, is_urgent))| {
                json!({ "at": rfc3339(at), "what": kind.word(), "site": site, "sites": sites, "is_urgent": is_urgent })
            })
            .collect()
    }

    /// Names the first site of each day on which pins end: in the order of the configuration. A site that was removed is named if
    /// the day has no other.
    fn name_ends(&self, coming: &mut [ComingDay], held: &BySite<'_, HeldSets>) {
        let mut unnamed: Vec<&mut ComingDay> =
            coming.iter_mut().filter(|((_, kind), _)| *kind == DateKind::PinsEnd).collect();
        for site in self.config.sites() {
            if unnamed.is_empty() {
                return;
            }
            let Some(held) = held.get(site.name()) else { continue };
            let day = held.until.div_euclid(DAY);
            if let Some(at) = unnamed.iter().position(|((known, _), _)| *known == day) {
                let (_, counted) = unnamed.swap_remove(at);
                counted.2 = site.name().to_owned();
            }
        }
        for ((day, _), counted) in unnamed {
            let gone = held.iter().filter(|(_, held)| held.until.div_euclid(DAY) == *day).map(|(site, _)| *site);
            counted.2 = gone.min().unwrap_or_default().to_owned();
        }
    }
}
