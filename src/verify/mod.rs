//! A client that goes by RFC 6797 and RFC 7469: it visits a server, notes what it says, and visits it again; and it
//! tells all that it has found on the way. `docs/guide/verify.md` lists the checks.
//!
//! What is pure stands apart from what talks: [`grammar`], [`notes`], [`page`], [`hello`] and the [`judge`]s take
//! values; [`client`] alone has sockets; [`visits`] leads to it, and [`report`] puts together what comes of it.

pub mod chain;
pub mod client;
pub mod fault;
pub mod field;
pub mod finding;
pub mod grammar;
pub mod hello;
pub mod judge;
pub mod notes;
pub mod options;
pub mod page;
pub mod pin_file;
pub mod report;
pub mod style;
pub mod target;
pub mod visits;

use client::Failure;

pub use options::Options;
pub use report::Report;

/// Visits, notes, visits again.
///
/// # Errors
///
/// [`Failure`], if nothing is there that could be visited. All that goes wrong later is in the report.
pub async fn verify(options: &Options) -> Result<Report, Failure> {
    let gathered = visits::gather(options).await?;
    Ok(report::report(options, gathered))
}
