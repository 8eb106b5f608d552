//! A client that follows RFC 6797 and RFC 7469: it visits a server, notes its policies, visits it
//! again, and reports its findings. `docs/guide/verify.md` lists the checks.
//!
//! Pure code is separate from I/O: [`grammar`], [`notes`], [`page`], [`hello`] and the [`judge`]s
//! take values. Only [`client`] has sockets; [`visits`] uses it, and [`report`] puts the results
//! together.

pub mod chain;
pub mod client;
pub mod fault;
pub mod field;
pub mod finding;
pub mod grammar;
pub mod hello;
pub mod json;
pub mod judge;
pub mod notes;
pub mod options;
pub mod page;
pub mod pin_file;
pub mod report;
pub mod style;
pub mod target;
pub mod trust;
pub mod visits;

use client::VisitFailure;

pub use options::Options;
pub use report::VerifyReport;

/// Verifies a server: two visits, and the checks between them.
///
/// # Errors
///
/// [`VisitFailure`], if the server cannot be reached. Later failures are part of the report.
pub async fn verify(options: &Options) -> Result<VerifyReport, VisitFailure> {
    let gathered = visits::gather(options).await?;
    Ok(report::report(options, gathered))
}
