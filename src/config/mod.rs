//! The configuration file: read with the place of every value, checked as a whole, and turned into what pintle serves.
//!
//! A [`Draft`] knows the text alone. With the ledger's book and the files that it names, it becomes a [`Config`]. A draft
//! can be checked again and again: unchanged parts are reused.

pub mod acme;
pub mod admin;
pub mod admin_https;
mod changes;
mod draft;
pub mod edit;
mod file;
pub mod history;
mod known_text;
mod last_good;
mod lines;
mod names;
pub mod new_key;
mod outline;
pub mod own_key;
pub mod problem;
mod process;
mod reader;
mod served_last;
mod build;
mod stamp;
mod syntax;
pub mod value;

use std::path::Path;

pub use acme::{Acme, Authority, Managed};
pub use build::refusal::{OwnKey, Refusal, safe_day};
pub use build::report;
pub use build::{
    AcceptedByCommand, AccessTarget, CheckContext, Config, DaysInUse, KeptSite, MayLack, NamedKeys, ServedBefore,
    StandIn,
};
pub use changes::{Changes, Difference};
pub use draft::{AdminAddress, Draft, TOKEN, read};
pub use known_text::KnownText;
pub use last_good::{
    CopiesWritten, CopyIndex, FOLDER as LAST_GOOD, FormerCopy, Fresh, HandedCopies, LastGood, PinnedName, key_in_pem,
};
pub use lines::Lines;
pub use names::REFERENCE;
pub use outline::{Outline, SiteOutline};
pub use problem::{At, Problem, Problems, Severity};
pub use process::Process;
pub use served_last::{Excuses, UnknownPair};
pub use stamp::{Stamp, Stamps};

/// The default paths of the file, in their order.
pub const DEFAULT_PATHS: [&str; 2] = ["config/pintle.toml", "/etc/pintle/pintle.toml"];

/// Returns `true` if commands find this file by themselves, from this folder.
#[must_use]
pub fn is_found(path: &Path) -> bool {
    let mut defaults = DEFAULT_PATHS.iter().map(Path::new);
    defaults.find(|default| default.exists()).is_some_and(|found| match (found.canonicalize(), path.canonicalize()) {
        (Ok(found), Ok(path)) => found == path,
        _ => found == path,
    })
}

#[cfg(test)]
mod tests;
pub mod withdrawal;
