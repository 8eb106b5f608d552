//! The options of a verification.

use jiff::Timestamp;

use super::chain::ClientTrust;
use super::target::{ConnectTo, Url};
use crate::keys::pin::Pin;

/// The options of a verification.
#[derive(Debug, Clone)]
pub struct Options {
    /// The https URL.
    pub url: Url,
    /// The address to connect to instead of DNS.
    pub connect: Option<ConnectTo>,
    /// The address of plain HTTP.
    pub connect_http: Option<ConnectTo>,
    /// The certificates to trust.
    pub trust: ClientTrust,
    /// The pins of which the served chain must have one.
    pub pins: Option<Vec<Pin>>,
    /// The time at which certificates must be valid.
    pub now: Timestamp,
}
