//! Keys that the operator declares compromised: the effects, and the order to act.

use std::rc::Rc;

use super::DriverThread;
use crate::acme::facts::Compromise;
use crate::acme::held;
use crate::acme::issued::{self, Issued};
use crate::acme::request::{
    CandidateKey, Compromised, DriverRequest, LockedOutClients, Revoke, Revoking, ToRevoke, ask,
};
use crate::acme::step::KeyChoice;
use crate::acme::store;
use crate::acme::words::time;
use crate::acme::work::CertificateWork;
use crate::config::{Managed, safe_day};
use crate::keys::pin::Pin;
use crate::ledger::time::wall;
use crate::reason::Reason;
use crate::reason::near::did_you_mean;
use crate::reason::pasted::pintle;

impl DriverThread {
    /// Declares keys compromised. Changes nothing if one of them cannot be declared, or if the operator does not accept a
    /// lockout. If a record cannot be written, the keys before it stay declared.
    pub(super) async fn declare(&mut self, asked: &Revoke) -> Revoking {
        self.ask_control().await;
        let of_site = self.certificates.values().filter(|work| work.certificate.site == asked.site);
        let all: Vec<Rc<CertificateWork>> = of_site.cloned().collect();
        let algorithm = |work: &CertificateWork| work.certificate.algorithm.to_string();
        let is_meant =
            |work: &&Rc<CertificateWork>| asked.algorithm.as_ref().is_none_or(|wanted| *wanted == algorithm(work));
        let meant: Vec<Rc<CertificateWork>> = all.iter().filter(is_meant).cloned().collect();
        if meant.is_empty() {
            let known: Vec<String> = all.iter().map(|work| algorithm(work)).collect();
            let wanted = asked.algorithm.as_deref().unwrap_or_default();
            let reason = Reason::new(format!("{}: no key with the algorithm {wanted:?}", asked.site));
            let reason = reason.hint(format!("its keys: {}", known.join(", ")));
            return Revoking::refused(reason.hints(did_you_mean(wanted, known.iter().map(String::as_str))));
        }
        let mut keys = Vec::new();
        for work in &meant {
            match self.effects(work, asked).await {
                Ok(key) => keys.push(key),
                Err(refused) => return refused,
            }
        }
        if let Some(refused) = lockout(&keys, asked) {
            return Revoking { keys, ..refused };
        }
        if !asked.dry_run {
            for work in &meant {
                if let Err(reason) = note(work, asked) {
                    return Revoking::refused(reason.hint("check free space and permissions of state.directory"));
                }
            }
        }
        Revoking { ok: true, keys, ..Revoking::default() }
    }

    /// The effects for one key; a refusal if it cannot be declared.
    async fn effects(&self, work: &CertificateWork, asked: &Revoke) -> Result<Compromised, Revoking> {
        let Managed { site, hosts, algorithm, .. } = &work.certificate;
        let refused = |reason: Reason| Revoking::refused(reason.within(&format_args!("{site} ({algorithm})")));
        let read = |choice| match store::usable_pin(&work.certificate, choice) {
            Ok(Some(pin)) => Ok(pin),
            Ok(None) => {
                let path = store::key_path(&work.certificate, choice);
                Err(refused(Reason::new(format!("{}: no such key yet", path.display())).hint("try again")))
            }
            Err(fault) => {
                let reason = if choice == KeyChoice::Live { fault.live_key() } else { fault.next_key(None) };
                Err(refused(reason))
            }
        };
        let pin = read(asked.key)?;
        let next = read(KeyChoice::Next)?;
        let plan = pintle(format_args!("acme plan --site {site}"));
        if let Some(other) = work.record.borrow().compromise.as_ref().filter(|known| known.pin != pin) {
            let reason = Reason::new(format!("pintle is still ending the compromised key {}", other.pin));
            return Err(refused(reason.hint(format!("wait until it is burnt, then again: {plan}"))));
        }
        let is_live = asked.key == KeyChoice::Live;
        let locked_out = match is_live {
            true => self.locked_out(CandidateKey { site: site.clone(), hosts: hosts.clone(), pin: next }).await,
            false => Vec::new(),
        };
        let until = locked_out.iter().map(|clients| clients.until).max().map(safe_day);
        let certificates = certificates(work, pin).iter().map(|issued| self.shown(issued)).collect();
        Ok(Compromised {
            site: site.clone(),
            algorithm: algorithm.to_string(),
            role: asked.key.name().to_owned(),
            pin: pin.to_string(),
            successor: is_live.then(|| next.to_string()),
            certificates,
            locked_out,
            until,
        })
    }

    fn shown(&self, issued: &Issued) -> ToRevoke {
        let from = &issued.from;
        let authority = self.settings.as_ref().map_or(&**from, |settings| settings.authority_name(from)).to_owned();
        ToRevoke { serial: issued.serial.clone(), not_after: time(issued.not_after), authority }
    }

    async fn locked_out(&self, asked: CandidateKey) -> Vec<LockedOutClients> {
        ask(&self.questions, |reply| DriverRequest::LockedOut { asked, reply }).await.unwrap_or_default()
    }
}

/// The certificates of a key that are neither revoked nor expired, the one in use included.
fn certificates(work: &CertificateWork, pin: Pin) -> Vec<Issued> {
    let mut record = work.record.borrow().clone();
    note_in_use(&mut record, work);
    issued::open(&record.issued, pin, wall())
}

/// Remembers the certificate in use, as an earlier version may not have done.
fn note_in_use(record: &mut store::CertificateRecord, work: &CertificateWork) {
    if let (Some(chain), Some(from)) = (store::chain(&work.certificate), record.from.clone()) {
        issued::note(&mut record.issued, Issued::new(&chain, &from), wall());
    }
}

/// The refusal if clients would be locked out without the operator's consent.
fn lockout(keys: &[Compromised], asked: &Revoke) -> Option<Revoking> {
    let until = keys.iter().filter_map(|key| key.until.as_ref()).max()?;
    if asked.accept.as_ref() == Some(until) {
        return None;
    }
    let mut hosts: Vec<&str> =
        keys.iter().flat_map(|key| &key.locked_out).flat_map(|c| &c.hosts).map(String::as_str).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let given = asked.accept.as_ref().map(|day| format!(" (--accept-lockout-until is {day})")).unwrap_or_default();
    let error = format!(
        "would lock readers out of {} until {until}: clients hold pins that do not contain the next key{given}",
        hosts.join(", ")
    );
    let site = &asked.site;
    let hints = [
        format!(
            "to lock these readers out anyway: {}",
            pintle(format_args!("key revoke --site {site} --accept-lockout-until {until}"))
        ),
        format!(
            "a certificate for a promised spare key locks nobody out: `{}` shows the keys that clients know; name its chain \
             and key in [site.certificate] instead of acme",
            pintle(format_args!("key list --site {site}"))
        ),
        format!("or wait: from {until} on, the command locks nobody out; until then, the compromised key stays in use"),
    ];
    Some(Revoking::refused(Reason::new(error).hints(hints)))
}

/// Writes the declaration down, before anything is done.
fn note(work: &CertificateWork, asked: &Revoke) -> Result<(), Reason> {
    let Some(pin) = store::pin_of(&work.certificate, asked.key) else { return Err("the key is gone".into()) };
    let changed = work.change(|record| {
        note_in_use(record, work);
        let now = wall();
        let known = record.compromise.take();
        let is_revoked = asked.key == KeyChoice::Next && issued::open(&record.issued, pin, now).is_empty();
        record.compromise = Some(Compromise {
            pin,
            since: known.as_ref().map_or(now, |known| known.since),
            accepted_until: asked.accept.clone(),
            is_revoked,
            attempts: Default::default(),
        });
        record.release();
    });
    changed.map_err(|fault| *fault.reason)?;
    tracing::warn!(
        site = work.certificate.site,
        algorithm = %work.certificate.algorithm,
        key = asked.key.name(),
        %pin,
        names = held::names(&work.certificate).join(" "),
        "key declared compromised"
    );
    Ok(())
}
