//! A client that goes by RFC 6797 and RFC 7469: it visits a server, notes what it says, and visits it again; and it
//! tells all that it has found on the way. `docs/guide/verify.md` lists the checks.
//!
//! What is pure stands apart from what talks: [`grammar`], [`notes`], [`page`], [`hello`] and the [`judge`]s take
//! values; [`client`] alone has sockets; [`visits`] leads to it, and [`report`] puts together what comes of it.

pub mod chain;
pub mod client;
pub mod fault;
pub mod finding;
pub mod grammar;
pub mod hello;
pub mod judge;
pub mod notes;
pub mod page;
pub mod pin_file;
pub mod report;
pub mod style;
pub mod target;
pub mod visits;

use jiff::Timestamp;

use crate::keys::pin::Pin;
use chain::Trust;
use client::Failure;
use target::{Place, Url};

pub use report::Report;

/// What is to be verified.
#[derive(Debug, Clone)]
pub struct Request {
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

/// Visits, notes, visits again.
///
/// # Errors
///
/// [`Failure`], if nothing is there that could be visited. All that goes wrong later is in the report.
pub async fn verify(request: &Request) -> Result<Report, Failure> {
    let gathered = visits::gather(request).await?;
    Ok(report::report(request, gathered))
}
