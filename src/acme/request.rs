//! The messages between the control thread and the driver.

use std::path::PathBuf;

use serde_json::Value;
use tokio::sync::oneshot;

use super::facts::NextKey;
use crate::host::HostPattern;
use crate::keys::pin::Pin;

/// A message to the driver.
pub(super) enum Message {
    /// Renew the certificates of a site now. Answers with their algorithms.
    Renew { site: String, rotate: bool, reply: oneshot::Sender<Vec<String>> },
    /// The plans of all certificates.
    Plans(oneshot::Sender<Value>),
}

/// A question of the driver to the control thread.
pub enum Request {
    /// Return the times since when clients know these next keys.
    Keys {
        /// The keys.
        asked: Vec<Asked>,
        /// The answer.
        reply: oneshot::Sender<Known>,
    },
    /// What does pintle serve now?
    Served(oneshot::Sender<Served>),
    /// May this chain be served? It is not in place yet.
    Judge {
        /// The site, by its first name.
        site: String,
        /// The file that the chain is for.
        path: PathBuf,
        /// The chain, in PEM.
        chain: String,
        /// The errors; none if it may.
        reply: oneshot::Sender<Vec<String>>,
    },
    /// The files of a site have changed. Serve them.
    Serve {
        /// The site, by its first name.
        site: String,
        /// The pin and the serial number of the new certificate.
        certificate: (Pin, String),
        /// The errors; none if it is in use.
        reply: oneshot::Sender<Vec<String>>,
    },
}

/// What pintle serves.
#[derive(Debug, Default)]
pub struct Served {
    /// The pins of all certificates.
    pub pins: Vec<Pin>,
    /// `true` if it trusts proxies in front of it.
    pub behind_proxy: bool,
}

/// The ledger's facts.
#[derive(Debug, Default)]
pub struct Known {
    /// About the keys that were asked for, in the same order.
    pub next: Vec<NextKey>,
    /// All burnt keys.
    pub burnt: Vec<Pin>,
}

/// A next key.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The site, by its first name.
    pub site: String,
    /// Its names.
    pub hosts: Vec<HostPattern>,
    /// The key.
    pub pin: Pin,
}
