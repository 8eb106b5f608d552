//! The files that `pintle install` writes: the chain, and its key if that is a new one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

use super::files::{has_key_of, in_one, key_of};
use crate::config::{Outline, SiteOutline};
use crate::keys::key_file::{KeyAlgorithm, KeyFileError, Want, has_private_key, public_key};
use crate::keys::pin::Pin;
use crate::os::read_error;
use crate::reason::Reason;
use crate::tls::CertificateError;
use crate::tls::certificate::Chain;

/// The most files that are searched for the key of a chain.
const SEARCH_MAX: usize = 1000;

/// The files to write, and their places.
pub(super) struct InstallPlan {
    /// The site's first name.
    pub(super) site: String,
    pub(super) chain: Chain,
    /// The site's places for chain and key.
    pub(super) places: Vec<PathBuf>,
    /// The files to write; the key first.
    pub(super) files: Vec<Placed>,
    /// The file of the key, if it was searched for and found.
    pub(super) found_key: Option<PathBuf>,
}

impl InstallPlan {
    /// The leaf, as it is to be served.
    pub(super) fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.chain.der().first()
    }

    pub(super) fn places_of_files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }
}

/// A file to put in place.
pub(super) struct Placed {
    /// Its place.
    pub(super) path: PathBuf,
    /// Its source.
    pub(super) source: PathBuf,
    pub(super) contents: Vec<u8>,
    pub(super) mode: u32,
}

const CHAIN_MODE: u32 = 0o644;
const KEY_MODE: u32 = 0o600;
/// The group of the key's file, if the old file has it: the serving user's.
const KEY_MODE_GROUP: u32 = 0o040;

/// Plans which file goes where.
pub(super) fn plan(
    outline: &Outline,
    site: &SiteOutline,
    new_chain: &Path,
    new_key: Option<&Path>,
) -> Result<InstallPlan, Reason> {
    let contents = read(new_chain)?;
    let chain = Chain::from_pem(&contents).map_err(|e| {
        let hint = match &e {
            CertificateError::Chain(why) => why.hint(new_chain, Want::Chain),
            _ => None,
        };
        let look = || format!("`pintle pin {}` shows what the file holds", new_chain.display());
        Reason::new(format!("{}: {e}", new_chain.display())).hint(hint.unwrap_or_else(look))
    })?;
    let (chain_path, key_path) = place(outline, site, &chain)?;
    let places = vec![chain_path.clone()];
    let mut plan = InstallPlan { site: site.label(), chain, places, files: Vec::new(), found_key: None };
    if let Some(path) = key_path {
        plan.places.push(path.clone());
        let key = match new_key {
            Some(key) => Some((key.to_owned(), read_key(key, &plan.chain, new_chain)?)),
            None if has_key_of(&path, plan.chain.pin()) => None,
            None => {
                let (source, contents) = find_key(outline, site, &path, new_chain, plan.chain.pin())?;
                plan.found_key = Some(source.clone());
                Some((source, contents))
            }
        };
        if path == chain_path {
            let key = key.map_or_else(|| read(&path), |(_, key)| Ok(key))?;
            let contents = in_one(&contents, &key);
            plan.files.push(Placed { path, source: new_chain.to_owned(), contents, mode: KEY_MODE });
            return Ok(plan);
        }
        let before = fs::metadata(&path).map_or(0, |m| m.permissions().mode());
        // A file that others can read was created without a group in mind.
        let mode = if before & 0o007 == 0 { KEY_MODE | before & KEY_MODE_GROUP } else { KEY_MODE };
        plan.files.extend(key.map(|(source, contents)| Placed { path, source, contents, mode }));
    }
    // Everybody may read it.
    let contents = if has_private_key(&contents) { plan.chain.pem().into_bytes() } else { contents };
    plan.files.push(Placed { path: chain_path, source: new_chain.to_owned(), contents, mode: CHAIN_MODE });
    Ok(plan)
}

/// Returns the given key, if it is the chain's.
fn read_key(path: &Path, chain: &Chain, chain_path: &Path) -> Result<Vec<u8>, Reason> {
    let contents = read(path)?;
    let key = match public_key(&contents) {
        Ok(key) => key,
        // The preflight words the problem of an unusable key, for example one that is too small.
        Err(KeyFileError::Unsupported(_)) => return Ok(contents),
        Err(error) => {
            let reason = Reason::new(format!("{}: {error}", path.display()));
            return Err(match error.hint(path, Want::Key) {
                Some(hint) => reason.hint(hint),
                None => reason.note("expected a private key in PEM"),
            });
        }
    };
    if key.pin != chain.pin() {
        return Err(Reason::new(format!("{}: not the key of {}", path.display(), chain_path.display())).note(format!(
            "its pin is {}, the chain's is {}",
            key.pin,
            chain.pin()
        )));
    }
    Ok(contents)
}

fn read(path: &Path) -> Result<Vec<u8>, Reason> {
    super::pin::read(path).map_err(|error| read_error::reason(path, &error))
}

/// The pair of files that the new one replaces: of several, the one with the same kind of key.
fn place(outline: &Outline, site: &SiteOutline, chain: &Chain) -> Result<(PathBuf, Option<PathBuf>), Reason> {
    let pair =
        |(chain, key): &(String, Option<String>)| (outline.path(chain), key.as_ref().map(|key| outline.path(key)));
    let kind = |algorithm: &KeyAlgorithm| matches!(algorithm, KeyAlgorithm::Rsa(_));
    match site.certificates.as_slice() {
        [] => Err(Reason::new(format!("{}: the site has no certificate to replace", site.label()))
            .hint("add [site.certificate] with chain and key")),
        [one] => Ok(pair(one)),
        several => several
            .iter()
            .map(pair)
            .find(|(path, _)| key_of(path).is_some_and(|key| kind(&key.algorithm) == kind(&chain.leaf.algorithm)))
            .ok_or_else(|| {
                Reason::new(format!("none of the site's certificates has a key like {}", chain.leaf.algorithm))
                    .hint("replace an RSA certificate with an RSA one, an ECDSA certificate with an ECDSA one")
            }),
    }
}

/// Searches for the private key of a chain: beside the chain, in use, among the backups.
fn find_key(
    outline: &Outline,
    site: &SiteOutline,
    in_use: &Path,
    chain: &Path,
    pin: Pin,
) -> Result<(PathBuf, Vec<u8>), Reason> {
    let mut folders: Vec<PathBuf> = Vec::new();
    let near = [in_use.to_owned(), chain.to_owned()].into_iter().chain(site.backups.iter().map(|b| outline.path(b)));
    for file in near {
        let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new(".")).to_owned();
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    for entry in entries.take(SEARCH_MAX) {
        let path = entry.path();
        if has_key_of(&path, pin) {
            let contents = read(&path)?;
            return Ok((path, contents));
        }
    }
    let looked: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    let what = format!("{}: its key is neither the one in use, nor in {}", chain.display(), looked.join(", "));
    Err(Reason::new(what).hint("name it: pintle install --site HOST CHAIN KEY"))
}
