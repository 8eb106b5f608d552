//! One site whole.

use serde_json::json;

use super::{Answered, PageRefusal, chain};
use crate::control::Control;
use crate::control::promises::held;
use crate::ledger::time::rfc3339;
use crate::policy::promise::Promises;

impl Control {
    /// The state of a site as in `status`, with its chains, its state in words and its last reports.
    pub(super) fn whole_site(&self, host: &str) -> Answered {
        let index = self.index_of(host)?;
        let now = self.now();
        let (site, upstream) = self.sites().nth(index).ok_or_else(|| PageRefusal::no_site(host))?;
        let state = self.state_of(site, upstream, &self.outlooks(), now);
        let reports = self.server.reports();
        let ledger = self.ledger();
        let book = ledger.book();
        let held = held(book, now).get(site.name()).copied();
        let alive = Promises::alive(book.promises(), now);
        let names = self.config.site_names();
        let usable_from =
            |pin| names.get(site.name()).and_then(|names| alive.safe_from(names.hosts, names.except, pin));
        let count = reports.counts().get(site.name()).copied().unwrap_or_default();
        let mut shown = self.site(site, upstream, (book, now), (held, count), &usable_from);
        let recent = reports.recent();
        let recent = recent.iter().rev().filter(|report| report.site == site.name()).map(|report| {
            json!({
                "at": rfc3339(report.at), "hostname": report.hostname, "noted_hostname": report.noted_hostname,
                "chain_length": report.chain_length, "known_pins": report.known_pins,
            })
        });
        let sets = self.config.snapshot.sets.get(index).and_then(Option::as_ref);
        let chains = sets.map(|set| {
            set.iter().map(|one| chain::certificates(one.der().iter().map(|der| der.as_ref()))).collect::<Vec<_>>()
        });
        shown["now"] = rfc3339(now).into();
        shown["level"] = state.level.word().into();
        shown["state"] = state.words.into();
        shown["chains"] = json!(chains.unwrap_or_default());
        shown["recent_reports"] = recent.collect::<Vec<_>>().into();
        shown["requests_per_second"] = json!(self.rates.of_site(index));
        shown["ledger_error"] = json!(self.promises.trouble.as_ref().map(|trouble| &trouble.error));
        Ok(shown)
    }
}
