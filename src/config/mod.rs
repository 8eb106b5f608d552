//! The configuration file: read with the place of every value, checked as a whole, and turned into what the server is
//! built from.

mod file;
mod outline;
pub mod problem;
mod reader;
mod resolve;
pub mod value;

use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::server::Snapshot;
use crate::telemetry::AccessFormat;
use crate::upstream::resolve::{Name, NameServers};

pub use outline::{Outline, SiteOutline, outline};
pub use problem::{Problem, Problems, Severity};
pub use resolve::report;

/// Where the file is looked for when nobody names one.
pub const DEFAULT_PATHS: [&str; 2] = ["config/pintle.toml", "/etc/pintle/pintle.toml"];
/// The largest file that is read.
const FILE_MAX: u64 = 64 << 20;

/// A configuration that can be served.
pub struct Config {
    /// Where to listen with TLS.
    pub https: Vec<SocketAddr>,
    /// Where to listen without.
    pub http: Vec<SocketAddr>,
    /// How many workers.
    pub workers: usize,
    /// What the workers serve.
    pub snapshot: Snapshot,
    /// The upstreams' names, to be followed.
    pub names: Vec<Name>,
    /// Whom to ask for them.
    pub name_servers: NameServers,
    /// Where the access log goes.
    pub access: AccessTarget,
    /// Its form.
    pub access_format: AccessFormat,
    /// What there is to say about each site.
    pub sites: Vec<report::Site>,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// The end of a file.
    File(PathBuf),
}

/// Reads and checks a file. The configuration is there unless the problems have errors.
///
/// # Errors
///
/// When the file itself cannot be read.
pub fn load(path: &Path) -> io::Result<(Option<Config>, Problems)> {
    let text = read(path)?;
    Ok(load_text(path, folder_of(path), text))
}

fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any configuration"));
    }
    fs::read_to_string(path)
}

/// What relative paths in a file are taken from.
fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new(""))
}

/// Checks a text as if it stood in that file, and its relative paths were taken from that folder.
#[must_use]
pub fn load_text(path: &Path, folder: &Path, text: String) -> (Option<Config>, Problems) {
    let (file, mut problems) = parse(path, text);
    let config = file.and_then(|file| resolve::resolve(file, folder, &mut problems));
    (config.filter(|_| !problems.has_errors()), problems)
}

/// What stands in a text, if it is TOML.
fn parse(path: &Path, text: String) -> (Option<file::File>, Problems) {
    let problems = RefCell::new(Problems::new(path, text.clone()));
    let (root, errors) = DeTable::parse_recoverable(&text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        problems.borrow_mut().error(&span, error.message().trim().to_owned(), None);
    }
    if problems.borrow().has_errors() {
        // What a parser makes of the rest of a broken file is guesswork, and so would be all complaints about it.
        return (None, problems.into_inner());
    }
    let file = file::File::read(reader::Reader::new(&root, "", &problems));
    (Some(file), problems.into_inner())
}

#[cfg(test)]
mod tests;
