//! The facts about one certificate that the plan is made from: what is on disk, what the ledger says,
//! and what the CA and the operator said last.

use serde::{Deserialize, Serialize};

use super::backoff::Attempts;
use super::preflight::PreflightFinding;
use super::renewal_info::RenewalInfo;
use crate::config::acme::Method;
use crate::config::own_key::UnusableKeyFile;
use crate::keys::pin::Pin;
use crate::policy::promise::Seconds;
use crate::reason::Reason;

/// All facts about one certificate: one site, one algorithm.
#[derive(Debug, Clone, Default)]
pub struct CertificateFacts {
    /// The site, by its first name.
    pub site: String,
    /// The algorithm of its keys, as the configuration names it.
    pub algorithm: String,
    /// The names that the certificate must have, in lower case and in order.
    pub names: Vec<String>,
    /// The chain in use; `None` before the first certificate.
    pub chain: Option<ChainInUse>,
    /// The pin of the live key; `None` if there is no such file yet.
    pub live: Option<Pin>,
    /// The time at which the live key came into use.
    pub live_since: Seconds,
    /// The next key; `None` if there is no such file yet.
    pub next: Option<NextKey>,
    /// The fault of the live key's file; `None` if it can be read, or if there is none.
    pub unusable_live: Option<UnusableKeyFile>,
    /// The same for the next key.
    pub unusable_next: Option<UnusableNext>,
    /// The renewal information of the chain in use.
    pub info: RenewalInfo,
    /// An order that was begun.
    pub order: Option<OpenOrder>,
    /// The last preflight.
    pub checked: Option<Checked>,
    /// The operator's requests.
    pub asked: OperatorRequests,
    /// A key that the operator declared compromised.
    pub compromise: Option<Compromise>,
    /// Keys that the ledger marks as burnt: compromised once, and never to be used again.
    pub burnt: Vec<Pin>,
    /// The CAs, in order of preference: one or two.
    pub cas: Vec<Ca>,
    /// The time from one planned changeover to the next; `None` if only by hand.
    pub rotate_every: Option<Seconds>,
}

/// The chain in use.
#[derive(Debug, Clone, PartialEq)]
pub struct ChainInUse {
    /// The start of its validity.
    pub not_before: Seconds,
    /// The end of its validity.
    pub not_after: Seconds,
    /// The pin of its leaf.
    pub pin: Pin,
    /// The names in it.
    pub names: Vec<String>,
    /// Its identifier for renewal information (`renewal_info::certificate_id`); `None` without an
    /// authority key identifier.
    pub id: Option<String>,
    /// The directory of the CA that issued it; `None` if pintle did not order it.
    pub from: Option<String>,
    /// A random number from 0 to 1, drawn when the chain came and kept with it: it spreads renewals.
    pub spread: f64,
}

impl ChainInUse {
    /// Returns the length of its validity, in seconds.
    #[must_use]
    pub fn lifetime(&self) -> Seconds {
        self.not_after.saturating_sub(self.not_before).max(1)
    }
}

/// The next key, with the ledger's facts about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextKey {
    /// Its pin.
    pub pin: Pin,
    /// The time since which clients of the site receive it; `None` if they never did.
    pub promised_since: Option<Seconds>,
    /// The time from which a certificate with it breaks no living promise
    /// (`policy::promise::Promises::safe_from`); `None` if that is now.
    pub usable_from: Option<Seconds>,
    /// The longest max-age among the living promises that bind the site's names, in seconds; 0
    /// without any.
    pub longest: Seconds,
}

/// A next key whose file holds no usable key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableNext {
    /// The fault.
    pub fault: UnusableKeyFile,
    /// The end of the promises that clients of the site hold now: a fresh key locks them out before; `None` if they hold
    /// none.
    pub held_until: Option<Seconds>,
}

/// An order at a CA. Written to disk before the order is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenOrder {
    /// Its URL; `None` until the CA has answered.
    pub url: Option<String>,
    /// The directory of the CA.
    pub ca: String,
    /// The pin of the key that the certificate is ordered for.
    pub key: Pin,
    /// The ordered names.
    pub names: Vec<String>,
    /// The time of the order.
    pub since: Seconds,
    /// The end that the CA set.
    pub expires: Option<Seconds>,
    /// The time before which the CA does not want to be asked about it (Retry-After).
    #[serde(default)]
    pub poll_from: Seconds,
    /// `true` if the key was the next one when the order was made.
    #[serde(default)]
    pub is_changeover: bool,
    /// `true` if it names the certificate that it replaces.
    #[serde(default)]
    pub replaces: bool,
    /// The time since which only the CA has to act: it has all answers to its challenges, or the request for
    /// the certificate.
    #[serde(default)]
    pub waiting_since: Option<Seconds>,
    /// `true` once the CA was asked to issue: it may have done so, whatever became of its answer.
    #[serde(default)]
    pub is_finalized: bool,
    /// `true` once its certificate is counted in the budget.
    #[serde(default)]
    pub is_counted: bool,
    /// The time of the last look at it.
    #[serde(default)]
    pub seen: Seconds,
}

impl OpenOrder {
    /// Returns the time since which only the CA has to act. An order that it is processing waits for it at least since then,
    /// even if this process was killed before it could note the time.
    #[must_use]
    pub fn waits_since(&self) -> Option<Seconds> {
        self.waiting_since.or_else(|| self.is_finalized.then_some(self.since))
    }

    /// Returns `true` if it has expired. The CA decides that: a clock that jumps ends no order.
    #[must_use]
    pub fn has_expired(&self, now: Seconds) -> bool {
        self.expires.is_some_and(|expires| expires <= now && (self.url.is_none() || self.seen >= expires))
    }
}

/// The last preflight.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// The time.
    pub at: Seconds,
    /// The names that were checked.
    pub names: Vec<String>,
    /// The result.
    pub verdict: PreflightVerdict,
    /// Broken results in a row.
    #[serde(default)]
    pub failures: u32,
    /// The result in words: the record to change, for instance.
    #[serde(default)]
    pub text: String,
    /// The findings, each with its remedy.
    #[serde(default)]
    pub findings: Vec<PreflightFinding>,
    /// The challenge that proves each name.
    #[serde(default)]
    pub ways: Vec<Way>,
    /// `true` if the names are to be checked again before the next order.
    #[serde(default)]
    pub expired: bool,
}

impl Checked {
    /// Has the names checked again before the next order.
    pub fn expire(&mut self) {
        (self.expired, self.failures) = (true, 0);
    }
}

/// The challenge that proves a name, as far as pintle can tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The name.
    pub name: String,
    /// The challenge.
    pub method: Method,
}

/// The result of a preflight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PreflightVerdict {
    /// The CA will reach pintle.
    Fine,
    /// Nobody can say from here: a host that cannot reach its own public address, for instance.
    #[default]
    Unknown,
    /// The CA will not reach pintle, or may not issue.
    Broken,
}

/// The operator's requests since the last certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OperatorRequests {
    /// A certificate now: `pintle acme renew`.
    pub renew: bool,
    /// A changeover as soon as possible: `pintle key rotate`.
    pub rotate: bool,
    /// The next certificate is ordered whatever the preflight says: `pintle acme renew --despite-preflight`.
    pub despite_preflight: bool,
}

/// A key that the operator declared compromised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compromise {
    /// The key.
    pub pin: Pin,
    /// The time of the command.
    pub since: Seconds,
    /// The day until which the operator accepts the lockout of clients that do not know the next key,
    /// as the guard names it; `None` if no lockout is accepted.
    #[serde(default)]
    pub accepted_until: Option<String>,
    /// `true` once the CA has revoked its certificates, or if it has none.
    #[serde(default)]
    pub is_revoked: bool,
    /// The attempts at the revocation.
    #[serde(default)]
    pub attempts: Attempts,
}

impl Compromise {
    /// Returns `true` if the operator accepts a lockout.
    #[must_use]
    pub fn accepts_lockout(&self) -> bool {
        self.accepted_until.is_some()
    }
}

/// A CA, with what is known about the attempts there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ca {
    /// The URL of its directory.
    pub directory: String,
    /// `true` if it offers renewal information.
    pub has_renewal_info: bool,
    /// The attempts for this certificate.
    pub attempts: Attempts,
    /// The time from which an order is within the budget (`budget::OrderBudget::order_from`), and the
    /// limit that delays it; `None` if that is now.
    pub order_from: Option<(Seconds, String)>,
    /// The same for an order that replaces a compromised key (`budget::OrderBudget::emergency_from`).
    pub emergency_from: Option<(Seconds, String)>,
    /// The open orders of other certificates for the same names whose certificates do not count yet.
    pub open: usize,
}

impl CertificateFacts {
    /// Returns the identifier for `replaces` in an order at a CA: only the issuer of the chain in use
    /// knows it.
    #[must_use]
    pub fn replaces(&self, ca: usize) -> Option<&str> {
        let (chain, ca) = (self.chain.as_ref()?, self.cas.get(ca)?);
        let is_issuer = chain.from.as_ref() == Some(&ca.directory);
        let shares = chain.names.iter().any(|name| self.names.contains(name));
        let id = chain.id.as_deref().filter(|_| is_issuer && shares && ca.has_renewal_info)?;
        (!ca.attempts.without_replaces).then_some(id)
    }

    /// Returns the wanted names that the chain in use lacks.
    #[must_use]
    pub fn missing_names(&self) -> Vec<String> {
        let Some(chain) = &self.chain else { return self.names.clone() };
        self.names.iter().filter(|name| !chain.names.contains(name)).cloned().collect()
    }

    /// Returns `true` if the chain in use is from a CA that is no longer configured: the CA for tests, for instance.
    #[must_use]
    pub fn has_left_its_ca(&self) -> bool {
        let from = self.chain.as_ref().and_then(|chain| chain.from.as_ref());
        from.is_some_and(|from| !self.cas.is_empty() && self.cas.iter().all(|ca| ca.directory != *from))
    }

    /// Returns the compromised key once another one serves.
    #[must_use]
    pub fn retired(&self) -> Option<&Compromise> {
        let in_use = [self.live, self.chain.as_ref().map(|chain| chain.pin)];
        self.compromise.as_ref().filter(|compromise| !in_use.contains(&Some(compromise.pin)))
    }

    /// Returns the fault of a key that cannot be used, with its remedies.
    #[must_use]
    pub fn key_fault(&self) -> Option<Reason> {
        let live = self.unusable_live.as_ref().map(UnusableKeyFile::live_key);
        live.or_else(|| self.unusable_next.as_ref().map(|next| next.fault.next_key(next.held_until)))
    }

    /// Returns `true` if a key must not be ordered with any more.
    #[must_use]
    pub fn is_burnt(&self, key: Pin) -> bool {
        self.burnt.contains(&key)
    }

    /// Corrects times in the future, which a clock that was ahead has left. Call it with facts that
    /// were read from disk.
    pub fn settle(&mut self, now: Seconds) {
        self.info.settle(now);
        self.live_since = self.live_since.min(now);
        self.cas.iter_mut().for_each(|ca| ca.attempts.settle(now));
        if let Some(compromise) = &mut self.compromise {
            compromise.attempts.settle(now);
        }
        if let Some(checked) = &mut self.checked {
            checked.at = checked.at.min(now);
        }
        if let Some(order) = self.order.as_mut().filter(|order| order.since > now) {
            order.expires = order.expires.map(|expires| expires.saturating_sub(order.since).saturating_add(now));
            order.since = now;
            order.seen = order.seen.min(now);
            order.waiting_since = order.waiting_since.map(|since| since.min(now));
            order.poll_from = order.poll_from.min(now);
        }
    }
}
