//! The facts about each certificate: from the disk, from its record and from the ledger.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::DriverThread;
use crate::acme::budget::{CountedOrder, OrderBudget};
use crate::acme::facts::{Ca, CertificateFacts, NextKey, UnusableNext};
use crate::acme::request::{CandidateKey, DriverRequest, ask};
use crate::acme::step::KeyChoice;
use crate::acme::work::CertificateWork;
use crate::acme::{held, store};
use crate::config::{Acme, Managed};
use crate::keys::pin::Pin;
use crate::ledger::time::wall;
use crate::os::words::words;
use crate::policy::promise::Seconds;

impl DriverThread {
    /// Asks for the ledger's facts about all next keys, and for the certificates in use.
    pub(super) async fn ask_control(&mut self) {
        let mut places = Vec::new();
        let mut asked = Vec::new();
        for (place, work) in &self.certificates {
            // The facts about a fresh key are those about one that no client knows.
            let pin = store::usable_pin(&work.certificate, KeyChoice::Next).unwrap_or_else(|_| Some(unknown_pin()));
            if let Some(pin) = pin {
                let Managed { site, hosts, .. } = &work.certificate;
                places.push(place.clone());
                asked.push(CandidateKey { site: site.clone(), hosts: hosts.clone(), pin });
            }
        }
        if let Some(known) = ask(&self.questions, |reply| DriverRequest::Keys { asked, reply }).await {
            self.next_keys = places.into_iter().zip(known.next).collect();
            self.burnt = known.burnt;
            self.in_use = Some(known.in_use);
        }
    }

    pub(super) fn budget(&mut self, settings: &Acme, directory: &str) -> Rc<RefCell<OrderBudget>> {
        let load = || {
            let path = store::file_of(&settings.folder, "budget", directory);
            let read = store::load(&path).unwrap_or_else(|error| {
                tracing::error!(file = %path.display(), error = %words(&error), "ACME: cannot read the budget of orders");
                None
            });
            let mut budget: OrderBudget = read.unwrap_or_default();
            budget.settle(wall());
            Rc::new(RefCell::new(budget))
        };
        self.budgets.entry(directory.to_owned()).or_insert_with(load).clone()
    }

    pub(super) fn facts(&mut self, work: &CertificateWork, settings: &Arc<Acme>, now: Seconds) -> CertificateFacts {
        let certificate = &work.certificate;
        let record = work.record.borrow();
        let chain = held::in_use(certificate, &record, self.in_use.as_deref(), now);
        let (live, next) =
            (store::usable_pin(certificate, KeyChoice::Live), store::usable_pin(certificate, KeyChoice::Next));
        let known = self.next_keys.get(&certificate.folder);
        let held_until = known.filter(|key| key.pin == unknown_pin()).and_then(|key| key.usable_from);
        let unusable_next = next.as_ref().err().map(|fault| UnusableNext { fault: fault.clone(), held_until });
        let pin = next.ok().flatten();
        let unknown = |pin| NextKey { pin, promised_since: None, usable_from: Some(Seconds::MAX), longest: 0 };
        let known = known.filter(|key| Some(key.pin) == pin).cloned();
        let mut facts = CertificateFacts {
            site: certificate.site.clone(),
            algorithm: certificate.algorithm.to_string(),
            names: held::names(certificate),
            chain,
            unusable_live: live.as_ref().err().cloned(),
            unusable_next,
            live: live.ok().flatten(),
            live_since: record.live_since,
            next: known.or_else(|| pin.map(unknown)),
            info: record.info.clone(),
            order: record.order.clone(),
            checked: record.checked.clone(),
            asked: record.asked,
            compromise: record.compromise.clone(),
            burnt: self.burnt.clone(),
            cas: Vec::new(),
            rotate_every: settings.rotate_every.and_then(|every| Seconds::try_from(every.as_secs()).ok()),
        };
        for authority in &settings.authorities {
            let known = record.authorities.get(&authority.directory).cloned().unwrap_or_default();
            facts.cas.push(Ca {
                directory: authority.directory.clone(),
                has_renewal_info: known.has_renewal_info,
                attempts: known.attempts,
                ..Ca::default()
            });
        }
        facts.settle(now);
        for at in 0..facts.cas.len() {
            let budget = self.budget(settings, &facts.cas[at].directory);
            let ask = CountedOrder { names: &facts.names, replaces: facts.replaces(at).is_some() };
            let open = self.certificates.values().filter(|other| {
                let record = other.record.borrow();
                let is_open = record.order.as_ref().is_some_and(|order| {
                    !order.is_counted && order.ca == facts.cas[at].directory && order.names == facts.names
                });
                is_open && other.certificate.folder != certificate.folder
            });
            let (open, budget) = (open.count(), budget.borrow());
            facts.cas[at].order_from = budget.order_from(ask, now).map(|delay| (delay.from, delay.to_string()));
            facts.cas[at].open = open;
            let emergency = budget.emergency_from(ask, open, now);
            facts.cas[at].emergency_from = emergency.map(|delay| (delay.from, delay.to_string()));
        }
        facts
    }
}

/// A pin that no key has.
fn unknown_pin() -> Pin {
    Pin::of_spki(&[])
}
