//! The roots that a verification trusts: Mozilla's, or those of a file.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;

use super::chain::ClientTrust;
use crate::keys::key_file::{self, Want};
use crate::reason::Reason;
use crate::upstream::tls::default_roots;

/// Mozilla's roots, as browsers have them.
#[must_use]
pub fn of_browsers() -> ClientTrust {
    ClientTrust { roots: default_roots(), own: Vec::new(), file: None }
}

/// The certificates of a file: roots, or the server's own. `usage` says what the file is for.
///
/// # Errors
///
/// If the file has no certificate, or one that is not fit as a root.
pub fn of_file(contents: &[u8], path: &Path, usage: &str) -> Result<ClientTrust, Reason> {
    let wrong = |why: &str| Reason::new(format!("{}: {why}", path.display()));
    let mut roots = RootCertStore::empty();
    let mut own = Vec::new();
    let certificates = key_file::certificates(contents).map_err(|error| {
        wrong(&error.to_string()).hint(error.hint(path, Want::Chain).unwrap_or_else(|| usage.to_owned()))
    })?;
    for (_, certificate) in certificates {
        roots.add(certificate.clone()).map_err(|_| wrong("a certificate in it is not fit as a root").hint(usage))?;
        own.push(certificate);
    }
    Ok(ClientTrust { roots: Arc::new(roots), own, file: Some(path.to_owned()) })
}
