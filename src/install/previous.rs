//! The pair that an installation replaced, beside the one in use: the way back. It is one generation, with the name of the
//! file and an end, and the permissions of the file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::copies::{become_previous, old_of, previous_of};
use super::pair_file::read;
use super::plan::{GivenFile, GivenPair, managed};
use crate::config::{Outline, SiteOutline};
use crate::keys::key_file::{FILE_MAX, KeyAlgorithm, private_pin};
use crate::keys::pin::Pin;
use crate::os::plain_file;
use crate::os::words::words;
use crate::reason::{Reason, shell_path};
use crate::tls::certificate::Chain;

/// A pair that was replaced.
pub struct PreviousPair {
    /// Its chain.
    pub chain: Chain,
    /// The time at which it was replaced.
    pub until: Option<Timestamp>,
    /// Its files.
    pub pair: GivenPair,
}

/// Makes the copies of an installation the previous pair. A repeated installation of the same files leaves the previous pair
/// as it is.
pub(super) fn replace(places: &[PathBuf]) -> io::Result<()> {
    let mut kept = Vec::new();
    for place in places {
        let old = old_of(place)?;
        if fs::symlink_metadata(&old).is_ok() {
            kept.push((old, place));
        }
    }
    if kept.iter().all(|(old, place)| read(old).ok() == read(place).ok()) {
        return kept.iter().try_for_each(|(old, _)| fs::remove_file(old));
    }
    // The key first, as everywhere: until its chain follows, the two do not fit, and nobody takes them for a pair.
    for (old, place) in kept.iter().rev() {
        become_previous(old, place)?;
    }
    forget_other_key(places)
}

/// Removes a previous key that is not the previous chain's.
fn forget_other_key(places: &[PathBuf]) -> io::Result<()> {
    let [chain, key] = places else { return Ok(()) };
    let key = previous_of(key)?;
    let of_chain = read_believed(&previous_of(chain)?).ok().and_then(|c| Chain::from_pem(&c).ok()).map(|c| c.pin());
    let of_key = read_believed(&key).ok().map(|key| private_pin(&key));
    match of_key {
        Some(of_key) if of_key.is_none() || of_key != of_chain => fs::remove_file(key),
        _ => Ok(()),
    }
}

/// Reads a file that a user without root rights may have made.
fn read_believed(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = plain_file::open(path).and_then(|file| plain_file::believed(file, path))?;
    plain_file::read_opened(file, FILE_MAX).map(Zeroizing::new)
}

/// The previous pairs of a site: for each certificate that has one, with the configured path of its chain.
#[must_use]
pub fn previous_pairs(outline: &Outline, site: &SiteOutline) -> Vec<(PathBuf, Result<PreviousPair, Reason>)> {
    let given = site.certificates.iter().filter(|(chain, _)| site.given_chains.contains(chain));
    let pairs = given.map(|(chain, key)| (outline.path(chain), key.as_ref().map(|key| outline.path(key))));
    pairs.filter_map(|(chain, key)| Some((chain.clone(), previous_pair(&chain, key.as_deref()).transpose()?))).collect()
}

/// `None` without one.
fn previous_pair(place: &Path, key: Option<&Path>) -> Result<Option<PreviousPair>, Reason> {
    let name = previous_of(place).map_err(|error| Reason::new(format!("{}: {}", place.display(), words(&error))))?;
    let contents = match read_believed(&name) {
        Ok(contents) => contents,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Reason::new(format!("{}: {}", name.display(), words(&error)))),
    };
    let chain = Chain::from_pem(&contents).map_err(|error| {
        Reason::new(format!("{}: {error}", name.display())).command(format!("rm {}", shell_path(&name)))
    })?;
    let until = fs::metadata(&name).and_then(|file| file.modified()).ok().and_then(timestamp);
    let key = match key {
        // The chain's file has the key, too.
        Some(key) if key == place => Some(GivenFile { name: name.clone(), contents: contents.clone() }),
        Some(key) => previous_key(key, chain.pin()),
        None => None,
    };
    let pair = GivenPair { chain: GivenFile { name, contents }, key, is_on_disk: true, place: Some(place.to_owned()) };
    Ok(Some(PreviousPair { chain, until, pair }))
}

/// The previous key, if it is the chain's. Otherwise the key in use may be.
fn previous_key(place: &Path, pin: Pin) -> Option<GivenFile> {
    let name = previous_of(place).ok()?;
    let contents = read_believed(&name).ok()?;
    (private_pin(&contents) == Some(pin)).then_some(GivenFile { name, contents })
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}

/// The previous pair of a site: of several, the one with this kind of key.
///
/// # Errors
///
/// The reason why there is none, or why it is unclear which one is meant.
pub fn find(outline: &Outline, site: &SiteOutline, rsa: Option<bool>) -> Result<PreviousPair, Reason> {
    if site.is_managed() {
        return Err(managed(site));
    }
    let label = site.label();
    let mut found = Vec::new();
    for (_, pair) in previous_pairs(outline, site) {
        let pair = pair?;
        if rsa.is_none_or(|rsa| rsa == matches!(pair.chain.leaf.algorithm, KeyAlgorithm::Rsa(_))) {
            found.push(pair);
        }
    }
    match (found.len(), found.pop()) {
        (1, Some(pair)) => Ok(pair),
        (0, _) | (_, None) => {
            let what = format!("{label}: there is no previous pair");
            Err(Reason::new(what).note("`pintle install` and the page Install keep the pair that they replace"))
        }
        (_, Some(_)) => {
            let what = format!("{label}: several certificates have a previous pair");
            Err(Reason::new(what).hint("name the kind of key: --algorithm rsa, or --algorithm ecdsa"))
        }
    }
}
