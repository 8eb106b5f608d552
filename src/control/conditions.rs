//! The conditions that hooks hear of when they begin and end.

use std::collections::BTreeMap;

use serde_json::json;

use super::Control;
use super::expiry::{ExpiryStage, left};
use super::promises::is_sent;
use super::state::{Condition, Expiry, HEADER};
use crate::clock::uptime;
use crate::config::report::SiteReport;
use crate::events::EventKind;
use crate::keys::pin::Pin;
use crate::ledger::Book;
use crate::ledger::time::rfc3339;
use crate::policy::promise::{Promise, PromiseChannel, Seconds};
use crate::reason::pasted::pintle;
use crate::telemetry::LogThread;
use crate::upstream::{Circuit, Upstream};

/// Promises that end within this time, or within a quarter of their lifetime, end soon.
const SOON: Seconds = 7 * 86_400;

impl Control {
    /// All present conditions, except those of promises.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        let mut conditions = self.of_the_process();
        for outlook in self.outlooks().iter().filter(|outlook| outlook.is_overdue()) {
            let data = json!({
                "site": outlook.site,
                "algorithm": outlook.algorithm,
                "due": rfc3339(outlook.due),
                "not_after": outlook.not_after.map(rfc3339),
                "failing_since": outlook.failing_since.map(rfc3339),
                "next_try": outlook.next_try.map(rfc3339),
                "what": outlook.words(),
                "hint": outlook.hint,
            });
            let subject = format!("{} {}", outlook.site, outlook.algorithm);
            conditions.push(Condition::new(EventKind::CertificateOverdue, &subject, data));
        }
        self.of_compromised_keys(&mut conditions);
        let now = self.now();
        for site in self.config.sites() {
            self.of_certificates(site, now, &mut conditions);
            if let Some(withheld) = site.withheld {
                let data = json!({ "site": site.name(), "what": withheld.why(), "hint": pintle("status") });
                conditions.push(Condition::new(EventKind::PinsWithheld, site.name(), data));
            }
        }
        self.of_upstreams(&mut conditions);
        conditions
    }

    fn of_the_process(&self) -> Vec<Condition> {
        let mut conditions = Vec::new();
        if let Some(trouble) = &self.promises.trouble {
            let begins = if trouble.by_clock { EventKind::ClockDoubted } else { EventKind::LedgerUnwritable };
            let data = json!({ "what": "pins are withheld", "error": trouble.error, "hint": trouble.hint() });
            conditions.push(Condition::new(begins, "", data));
        }
        if self.loads.is_refused {
            let data = json!({
                "config": self.draft.path().display().to_string(),
                "reasons": self.reporter.refusal,
                "what": "pintle keeps serving the previous configuration",
                "hint": pintle("check"),
            });
            let version = i64::try_from(self.counts.reloads_refused).unwrap_or_default();
            conditions.push(Condition::new(EventKind::ConfigRefused, "", data).with(version));
        }
        if let Some(reason) = self.operator.access_log.as_ref().and_then(LogThread::trouble) {
            let data = json!({ "what": reason.what, "hint": reason.hint_line() });
            conditions.push(Condition::new(EventKind::LogUnwritten, "", data));
        }
        conditions
    }

    fn of_certificates(&self, site: &SiteReport, now: Seconds, conditions: &mut Vec<Condition>) {
        let refused = self.files.refused.get(site.name());
        let reasons = || refused.iter().flat_map(|refused| &refused.reasons).map(|reason| reason.line());
        let hint = || refused.and_then(|refused| refused.reasons.first()?.hint_line());
        if let Some(lack) = site.lacks_certificate {
            let data = json!({
                "site": site.name(), "why": lack.word(), "what": "no certificate: TLS is refused",
                "reasons": reasons().collect::<Vec<_>>(), "hint": hint(),
            });
            conditions.push(Condition::new(EventKind::CertificateMissing, site.name(), data));
        } else if let Some(refused) = refused {
            let data = json!({
                "site": site.name(), "by_promise": refused.by_guard, "what": "the previous certificate stays in use",
                "reasons": reasons().collect::<Vec<_>>(), "hint": hint(), "since": rfc3339(refused.since),
            });
            conditions.push(Condition::new(EventKind::CertificateRefused, site.name(), data).with(refused.since));
        }
        if let Some(refused) = refused.filter(|refused| refused.burnt) {
            let data = json!({
                "site": site.name(), "what": "a key that was compromised is refused",
                "reasons": reasons().collect::<Vec<_>>(), "hint": hint(), "since": rfc3339(refused.since),
            });
            conditions.push(Condition::new(EventKind::KeyRefused, site.name(), data).with(refused.since));
        }
        for certificate in &site.certificates {
            let stage = ExpiryStage::of(certificate, now);
            if stage == ExpiryStage::default() {
                continue;
            }
            let (begins, version) = match stage {
                ExpiryStage::ENDED => (EventKind::CertificateExpired, 0),
                stage => (EventKind::CertificateExpiring, i64::try_from(stage.number()).unwrap_or_default()),
            };
            let what = match stage {
                ExpiryStage::ENDED => "the certificate has ended: clients refuse it".to_owned(),
                _ => format!("the certificate is about to end: {}", left(certificate, now)),
            };
            let data = json!({
                "site": site.name(), "algorithm": certificate.algorithm.to_string(), "serial": certificate.serial,
                "not_after": certificate.not_after.to_string(), "what": what,
            });
            // Authorities may give one number to two certificates of a site.
            let subject = format!("{} {} {}", site.name(), certificate.serial, certificate.pin);
            conditions.push(Condition::new(begins, &subject, data).with(version));
        }
    }

    /// Compromised keys that pintle replaces, and burnt ones whose certificates the CA has not revoked.
    fn of_compromised_keys(&self, conditions: &mut Vec<Condition>) {
        for outlook in self.outlooks().iter() {
            let subject = |pin: &Pin| format!("{} {} {pin}", outlook.site, outlook.algorithm);
            if let Some((pin, step)) = &outlook.compromised {
                let data = json!({
                    "site": outlook.site, "algorithm": outlook.algorithm, "pin": pin.to_string(), "step": step,
                    "what": "the key is compromised: pintle replaces it and revokes its certificates",
                    "hint": pintle(format_args!("acme plan --site {}", outlook.site)),
                });
                conditions.push(Condition::new(EventKind::KeyCompromised, &subject(pin), data));
            }
            if let Some(unrevoked) = &outlook.unrevoked {
                let [key, chain] = unrevoked.files.each_ref().map(|file| file.display());
                let data = json!({
                    "site": outlook.site, "algorithm": outlook.algorithm, "pin": unrevoked.pin.to_string(),
                    "serials": unrevoked.serials, "authority": unrevoked.from, "error": unrevoked.problem,
                    "what": "the CA has not revoked the certificates of a burnt key",
                    "hint": format!("revoke them by hand at {}, with {key} and {chain}", unrevoked.from),
                });
                conditions.push(Condition::new(EventKind::KeyUnrevoked, &subject(&unrevoked.pin), data));
            }
        }
    }

    /// The upstreams that do not answer. Sites that share one get one event.
    fn of_upstreams(&self, conditions: &mut Vec<Condition>) {
        let now = uptime();
        let mut down: Vec<(*const Upstream, &SiteReport, Vec<&str>)> = Vec::new();
        for (site, upstream) in self.sites() {
            let Some(upstream) = upstream.filter(|upstream| is_down(upstream, now)) else { continue };
            match down.iter_mut().find(|(known, ..)| std::ptr::eq(*known, upstream)) {
                Some((.., sites)) => sites.push(site.name()),
                None => down.push((upstream, site, vec![site.name()])),
            }
        }
        for (_, first, sites) in down {
            let url = first.upstream.as_ref().map(|upstream| upstream.url.as_str()).unwrap_or_default();
            let data = json!({
                "upstream": url, "site": first.name(), "sites": sites, "count": sites.len(),
                "what": "the upstream does not answer", "hint": pintle("status"),
            });
            conditions.push(Condition::new(EventKind::UpstreamDown, &format!("{} {url}", first.name()), data));
        }
    }
}

/// `true` if the circuit is not closed, or if every address fails its health check.
fn is_down(upstream: &Upstream, now: u64) -> bool {
    if upstream.health.circuit(now) != Circuit::Closed {
        return true;
    }
    if upstream.health.check.is_none() {
        return false;
    }
    let known = upstream.addresses.known();
    !known.is_empty() && known.iter().all(|address| upstream.health.address(*address, now).0)
}

/// Promises by site and channel, each with its end.
type Held = BTreeMap<(String, String), Seconds>;

/// The promises that clients may hold, and those of them that end soon and are not renewed.
pub(super) fn promises(book: &Book, now: Seconds) -> (Held, Vec<Expiry>) {
    let mut last: BTreeMap<(&str, &str), (&Promise, bool)> = BTreeMap::new();
    for promise in book.promises().iter().filter(|promise| promise.is_alive(now)) {
        let channel = match &promise.channel {
            PromiseChannel::Header(_) | PromiseChannel::Assumed => HEADER,
            PromiseChannel::Export { form, .. } => form,
        };
        let sent = is_sent(promise, now);
        let known = last.entry((&promise.site, channel)).or_insert((promise, sent));
        known.1 |= sent;
        if promise.honoured_until() > known.0.honoured_until() {
            known.0 = promise;
        }
    }
    let mut held = Held::new();
    let mut expiring = Vec::new();
    for ((site, channel), (promise, is_renewed)) in last {
        let until = promise.honoured_until();
        let soon = SOON.min(i64::try_from(promise.max_age / 4).unwrap_or(SOON));
        if !is_renewed && until.saturating_sub(now) <= soon {
            expiring.push(Expiry { site: site.to_owned(), channel: channel.to_owned(), until });
        }
        held.insert((site.to_owned(), channel.to_owned()), until);
    }
    (held, expiring)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Record;
    use crate::policy::hpkp::Mode;
    use crate::policy::promise::DAY;

    fn promise(site: &str, channel: PromiseChannel, max_age: Seconds, last_sent: Seconds) -> Record {
        Record::Promise(Promise {
            site: site.to_owned(),
            hosts: Vec::new(),
            except: Vec::new(),
            pins: vec![Pin::of_spki(site.as_bytes())],
            max_age: max_age.unsigned_abs(),
            include_subdomains: false,
            channel,
            first_sent: 0,
            last_sent,
        })
    }

    #[test]
    fn promises_that_end_soon() {
        let now = 1000 * DAY;
        let header = || PromiseChannel::Header(Mode::Enforce);
        let export = |form: &str| PromiseChannel::Export { form: form.into(), id: "1".into(), leaf_only: false };
        let mut book = Book::default();
        for record in [
            promise("sent.example", header(), DAY, now + 60),
            promise("withdrawn.example", header(), 30 * DAY, now - 22 * DAY),
            promise("soon.example", header(), 30 * DAY, now - 23 * DAY),
            promise("short.example", header(), 4 * DAY, now - 2 * DAY),
            promise("short-soon.example", header(), 4 * DAY, now - 3 * DAY),
            promise("ended.example", header(), DAY, now - DAY),
            promise("sent.example", export("android"), 300 * DAY, now - 295 * DAY),
        ] {
            book.apply(record);
        }
        let (held, expiring) = promises(&book, now);
        assert_eq!(held.len(), 6);
        let named: Vec<_> = expiring.iter().map(|e| (e.site.as_str(), e.channel.as_str())).collect();
        assert_eq!(named, [("sent.example", "android"), ("short-soon.example", "header"), ("soon.example", "header")]);
        assert_eq!(expiring[2].until, now + 7 * DAY);
    }
}
