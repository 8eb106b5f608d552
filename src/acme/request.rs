//! The messages between the control thread and the driver.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::facts::NextKey;
use super::issued::Issued;
use super::step::KeyChoice;
use crate::host::HostPattern;
use crate::keys::key_file::KeyAlgorithm;
use crate::keys::pin::Pin;
use crate::policy::promise::Seconds;
use crate::reason::Reason;

/// The reason for the end of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverEnd {
    /// The process ends: its DNS records are removed.
    Stop,
    /// Another process continues the orders, with their DNS records.
    HandOver,
}

/// A message to the driver.
pub(super) enum Message {
    /// Renew the certificates of a site now.
    Renew(Renew, oneshot::Sender<Renewing>),
    /// Declare keys of a site compromised.
    Revoke(Revoke, oneshot::Sender<Revoking>),
    /// The plans of all certificates.
    Plans(oneshot::Sender<Value>),
}

/// Certificates of a site that the operator wants.
#[derive(Debug, Clone)]
pub struct Renew {
    /// The site, by its first name.
    pub site: String,
    /// `true` for a changeover to the next keys.
    pub rotate: bool,
    /// `true` to order whatever the preflight says.
    pub despite_preflight: bool,
}

/// The answer: when pintle orders, or the reason for a refusal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Renewing {
    /// `true` if the request is recorded.
    pub ok: bool,
    /// The reason for a refusal.
    pub error: String,
    /// The remedies.
    pub hints: Vec<String>,
    /// The algorithms of the certificates.
    pub algorithms: Vec<String>,
    /// The certificates.
    pub certificates: Vec<WantedRenewal>,
}

impl Renewing {
    /// A refusal.
    #[must_use]
    pub fn refused(reason: Reason) -> Self {
        Self { error: reason.line(), hints: reason.hints, ..Self::default() }
    }
}

/// One certificate that the operator wants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WantedRenewal {
    /// Its algorithm.
    pub algorithm: String,
    /// The time of the order; `None` if that is now.
    pub from: Option<String>,
    /// Why it is later.
    pub why: Option<String>,
    /// The remedy, if there is one besides waiting.
    #[serde(default)]
    pub hint: Option<String>,
}

/// Keys of a site that the operator declares compromised.
#[derive(Debug, Clone)]
pub struct Revoke {
    /// The site, by its first name.
    pub site: String,
    /// The algorithm of the key; `None` for all of the site's certificates.
    pub algorithm: Option<String>,
    /// The role of the key.
    pub key: KeyChoice,
    /// The day until which the operator accepts a lockout.
    pub accept: Option<String>,
    /// `true` to return the effects without causing them.
    pub dry_run: bool,
}

/// The answer: the effects, or the reason for a refusal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Revoking {
    /// `true` if pintle ends the keys, or would without `dry_run`.
    pub ok: bool,
    /// The reason for a refusal.
    #[serde(default)]
    pub error: String,
    /// The remedies.
    #[serde(default)]
    pub hints: Vec<String>,
    /// The keys.
    #[serde(default)]
    pub keys: Vec<Compromised>,
}

impl Revoking {
    /// A refusal.
    #[must_use]
    pub fn refused(reason: Reason) -> Self {
        Self { error: reason.line(), hints: reason.hints, ..Self::default() }
    }
}

/// One key, and the effects of its end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Compromised {
    /// The site, by its first name.
    pub site: String,
    /// The algorithm.
    pub algorithm: String,
    /// Its role: `live` or `next`.
    pub role: String,
    /// Its pin.
    pub pin: String,
    /// The pin of the key that takes its place; `None` for a next key, which gets a fresh successor.
    pub successor: Option<String>,
    /// Its certificates, which will be revoked.
    pub certificates: Vec<ToRevoke>,
    /// The clients that the successor locks out.
    pub locked_out: Vec<LockedOutClients>,
    /// The day from which nobody is locked out.
    pub until: Option<String>,
}

/// A certificate that will be revoked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ToRevoke {
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// Its end.
    pub not_after: String,
    /// The CA.
    pub authority: String,
}

/// Clients that are locked out: they hold pins without the key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedOutClients {
    /// The site that promised the pins.
    pub site: String,
    /// The hosts for which the clients hold them.
    pub hosts: Vec<String>,
    /// The time until which they may hold them.
    pub until: Seconds,
}

/// Asks a thread a question, and waits for the answer; `None` if the thread has ended, or drops the question.
pub async fn ask<Q, T>(thread: &mpsc::Sender<Q>, question: impl FnOnce(oneshot::Sender<T>) -> Q) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    thread.send(question(reply)).await.ok()?;
    answer.await.ok()
}

/// A question of the driver to the control thread.
pub enum DriverRequest {
    /// Return the times since when clients know these next keys.
    Keys {
        /// The keys.
        asked: Vec<CandidateKey>,
        /// The answer.
        reply: oneshot::Sender<KeyFacts>,
    },
    /// The question which certificates pintle serves now.
    Served(oneshot::Sender<ServedCertificates>),
    /// The question whether this chain may be served. It is not in place yet.
    Judge {
        /// The site, by its first name.
        site: String,
        /// The file that the chain is for.
        path: PathBuf,
        /// The chain, in PEM.
        chain: String,
        /// The day until which the operator accepts a lockout by its key.
        accept: Option<String>,
        /// The errors; none if it may.
        reply: oneshot::Sender<Vec<Reason>>,
    },
    /// The files of a site have changed. Serve them.
    Serve {
        /// The site, by its first name.
        site: String,
        /// The pin and the serial number of the new certificate.
        certificate: (Pin, String),
        /// The day until which the operator accepts a lockout by its key.
        accept: Option<String>,
        /// The errors; none if it is in use.
        reply: oneshot::Sender<Vec<Reason>>,
    },
    /// Is a certificate with this key in use?
    Serves {
        /// The site, by its first name.
        site: String,
        /// The key.
        pin: Pin,
        /// `true` if there is one.
        reply: oneshot::Sender<bool>,
    },
    /// Record a key as burnt.
    Burn {
        /// The site, by its first name.
        site: String,
        /// The key.
        pin: Pin,
        /// The error if the ledger cannot be written.
        reply: oneshot::Sender<Result<(), Reason>>,
    },
    /// Report that the CA has revoked a certificate of a compromised key.
    Revoked {
        /// The site, by its first name.
        site: String,
        /// The algorithm of the key.
        algorithm: String,
        /// The certificate.
        issued: Box<Issued>,
        /// The answer.
        reply: oneshot::Sender<()>,
    },
    /// The question which clients a certificate with this key locks out.
    LockedOut {
        /// The site and the key.
        asked: CandidateKey,
        /// The clients.
        reply: oneshot::Sender<Vec<LockedOutClients>>,
    },
}

/// The certificates that pintle serves.
#[derive(Debug, Default)]
pub struct ServedCertificates {
    /// The pins of all certificates.
    pub pins: Vec<Pin>,
    /// `true` if it trusts proxies in front of it.
    pub behind_proxy: bool,
}

/// The ledger's facts about keys.
#[derive(Debug, Default)]
pub struct KeyFacts {
    /// About the keys that were asked for, in the same order.
    pub next: Vec<NextKey>,
    /// All burnt keys.
    pub burnt: Vec<Pin>,
    /// The certificates in use.
    pub in_use: Vec<CertificateInUse>,
}

/// A certificate that pintle serves.
#[derive(Debug, Clone)]
pub struct CertificateInUse {
    /// The site, by its first name.
    pub site: String,
    /// The algorithm of its key.
    pub algorithm: KeyAlgorithm,
    /// The pin of its key.
    pub pin: Pin,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// The start of its validity.
    pub not_before: Seconds,
    /// The end of its validity.
    pub not_after: Seconds,
}

/// A next key, and its site.
#[derive(Debug, Clone)]
pub struct CandidateKey {
    /// The site, by its first name.
    pub site: String,
    /// Its names.
    pub hosts: Vec<HostPattern>,
    /// The key.
    pub pin: Pin,
}
