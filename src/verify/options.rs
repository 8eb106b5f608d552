//! The options of a verification.

use jiff::Timestamp;

use super::chain::Trust;
use super::target::{Place, Url};
use crate::keys::pin::Pin;

/// What is to be verified.
#[derive(Debug, Clone)]
pub struct Options {
    /// The https URL.
    pub url: Url,
    /// Where to connect to in place of what DNS says.
    pub connect: Option<Place>,
    /// Where plain HTTP is.
    pub connect_http: Option<Place>,
    /// Whom to trust.
    pub trust: Trust,
    /// Pins that the served chain must have one of.
    pub pins: Option<Vec<Pin>>,
    /// The time by which certificates are judged.
    pub now: Timestamp,
}
