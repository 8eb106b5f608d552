//! Matters that need the operator's attention, for `pintle status`: present problems, each with a remedy if there is one.

use std::time::Duration;

use serde_json::{Value, json};

use super::Control;
use super::expiry::{Stage, left};
use crate::clock::uptime;
use crate::config::report::{Lack, Site};
use crate::policy::promise::Seconds;
use crate::reason::Reason;
use crate::telemetry::LogThread;
use crate::upstream::{Circuit, Upstream};

/// A present problem.
struct Item {
    /// The site; `None` for the whole process.
    site: Option<String>,
    reason: Reason,
}

impl Control {
    /// All present problems, those of the process first.
    pub(super) fn attention(&self) -> Vec<Value> {
        let mut items = self.of_process();
        let now = self.now();
        for (site, upstream) in self.sites() {
            self.of_site(site, now, &mut items);
            items.extend(upstream.and_then(of_upstream).map(|reason| Item::of(site, reason)));
        }
        let shown = |item: Item| {
            let Item { site, reason } = item;
            json!({ "site": site, "what": reason.line(), "hints": reason.hints })
        };
        items.into_iter().map(shown).collect()
    }

    fn of_process(&self) -> Vec<Item> {
        let mut reasons = Vec::new();
        if let Some(trouble) = &self.promises.trouble {
            let reason = Reason::new(format!("the ledger is not writable, pins are withheld: {}", trouble.error));
            reasons.push(reason.hint("check free space and permissions of state.directory"));
        }
        reasons.extend(self.operator.access_log.as_ref().and_then(LogThread::trouble));
        if self.upgrades.launcher.is_none() && !self.upgrades.is_demo && self.upgrades.tie.is_none() {
            reasons.push(Reason::new("the launcher has ended: no upgrade is possible").hint("restart pintle"));
        }
        reasons.into_iter().map(|reason| Item { site: None, reason }).collect()
    }

    fn of_site(&self, site: &Site, now: Seconds, items: &mut Vec<Item>) {
        let mut add = |reason: Reason| items.push(Item::of(site, reason));
        match site.lacks_certificate {
            Some(Lack::NotYet) => add(Reason::new("no certificate: it waits for its first one from the CA")),
            Some(Lack::Broken) => add(Reason::new("no certificate: TLS is refused, plain HTTP gets 503")),
            None if !site.missing.is_empty() => {
                add(Reason::new("one of its certificates is missing; the others are served"));
            }
            None => {}
        }
        for reason in self.files.refused.get(site.name()).into_iter().flat_map(|refused| &refused.reasons) {
            add(Reason {
                what: format!("certificate refused: {}", reason.line()),
                place: None,
                notes: Vec::new(),
                ..reason.clone()
            });
        }
        for certificate in &site.certificates {
            let hint = "renew it: pintle takes new files up by itself, and `pintle install` checks them first";
            match Stage::of(certificate, now) {
                Stage::ENDED => {
                    add(Reason::new(format!("the certificate {} has ended: clients refuse it", certificate.path))
                        .hint(hint));
                }
                stage if stage > Stage::default() => {
                    let left = left(certificate, now);
                    add(Reason::new(format!("the certificate {} is about to end: {left}", certificate.path)).hint(hint));
                }
                _ => {}
            }
        }
        if let Some(withheld) = site.withheld.filter(|_| site.missing.is_empty()) {
            add(Reason::new(format!("pins are withheld: {}", withheld.why())));
        }
        for task in super::status::todo(site, self.draft.path()) {
            add(Reason::new(task));
        }
    }
}

impl Item {
    fn of(site: &Site, reason: Reason) -> Self {
        Self { site: Some(site.name().to_owned()), reason }
    }
}

fn of_upstream(upstream: &Upstream) -> Option<Reason> {
    let now = uptime();
    if matches!(upstream.health.circuit(now), Circuit::Open(_) | Circuit::HalfOpen) {
        return Some(Reason::new("its upstream fails: requests get 503"));
    }
    let known = upstream.addresses.known();
    let out = known.iter().filter(|address| upstream.health.address(**address, now) != (false, Duration::ZERO)).count();
    (out > 0).then(|| Reason::new(format!("{out} of {} upstream addresses are left out, as they fail", known.len())))
}
