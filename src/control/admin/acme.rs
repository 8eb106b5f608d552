//! Commands about the certificates that pintle obtains.

use serde_json::Value;
use tokio::sync::oneshot;

use crate::acme::request::{Renew, Renewing, Revoke, Revoking};

/// A command about the certificates that pintle obtains.
pub(in crate::control) enum AcmeCommand {
    /// Return the plans.
    Plans(oneshot::Sender<Value>),
    /// Renew the certificates of a site now, or change over to their next keys.
    Renew { host: String, asked: Renew, reply: oneshot::Sender<Renewing> },
    /// Declare keys of a site compromised.
    Revoke { host: String, asked: Revoke, reply: oneshot::Sender<Revoking> },
}
