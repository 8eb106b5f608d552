//! One site whole.

use serde_json::json;

use super::chain;
use crate::clock::uptime;
use crate::control::Control;
use crate::control::admin::{Answered, PageRefusal};
use crate::control::promises::{HeldSets, PromiseDates, promised_since};
use crate::keys::pin::Pin;
use crate::ledger::time::rfc3339;
use crate::policy::promise::{Promise, Promises};

impl Control {
    /// The state of a site as in `status`, with its chains, its state in words and its last reports.
    pub(super) fn whole_site(&self, host: &str) -> Answered {
        let index = self.index_of(host)?;
        let now = self.now();
        let (site, upstream) = self.sites().nth(index).ok_or_else(|| PageRefusal::no_site(host))?;
        let state = self.state_of(site, upstream, &self.outlooks(), (now, uptime()));
        let reports = self.server.reports();
        let ledger = self.ledger();
        let book = ledger.book();
        let own = book.promises().iter().filter(|set| set.site == site.name() && set.is_alive(now));
        let ends: Vec<_> = own.map(Promise::honoured_until).collect();
        let held = ends.iter().max().map(|until| HeldSets { sets: ends.len(), until: *until });
        let names = self.config.names_of(index).ok_or_else(|| PageRefusal::no_site(host))?;
        let alive = Promises::alive(book.promises().iter().filter(|set| names.bound_by(set)), now);
        let since = promised_since(book, |of| of == site.name());
        let dates = |pin: Pin| PromiseDates {
            since: since.get(&(site.name(), pin)).copied(),
            usable_from: alive.safe_from(names.hosts, names.except, pin),
        };
        let count = reports.counts().get(site.name()).copied().unwrap_or_default();
        let mut shown = self.site(site, upstream, (book, now), (held, count), &dates);
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
        shown["requests_per_second"] = json!(self.observed.rates.of_site(index));
        shown["ledger_error"] = json!(self.promises.trouble.as_ref().map(|trouble| &trouble.error));
        Ok(shown)
    }
}
