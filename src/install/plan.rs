//! The files that an installation writes: the chain, and its key if that is a new one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::pair_file::{has_key_of, in_one, key_of, read};
use crate::config::edit::tag;
use crate::config::{Outline, SiteOutline};
use crate::keys::key_file::{KeyAlgorithm, KeyFileError, Want, has_private_key, public_key};
use crate::keys::pin::Pin;
use crate::os::plain_file::{self, folder_of};
use crate::os::words::words;
use crate::os::{privileges, read_error, sandbox};
use crate::reason::pasted::pintle;
use crate::reason::{Reason, shell_path, shell_word};
use crate::telemetry::trace::hex;
use crate::tls::CertificateError;
use crate::tls::certificate::Chain;

/// The most files that are searched for the key of a chain.
const SEARCH_MAX: usize = 1000;

/// A file to install.
pub struct GivenFile {
    /// Its path; for an uploaded one, its name.
    pub name: PathBuf,
    /// Its contents, which may have a key.
    pub contents: Zeroizing<Vec<u8>>,
}

/// A pair to install.
pub struct GivenPair {
    /// The chain.
    pub chain: GivenFile,
    /// Its key. Default: the key in use, or another key nearby that fits.
    pub key: Option<GivenFile>,
    /// `true` if the chain is a file of this host: its key may be beside it.
    pub is_on_disk: bool,
    /// The configured path of the chain that it replaces, if that is known.
    pub place: Option<PathBuf>,
}

/// The files to write, and their places.
pub struct InstallPlan {
    /// The site's first name.
    pub site: String,
    /// The chain.
    pub chain: Chain,
    /// The site's places for chain and key.
    pub places: Vec<PathBuf>,
    /// The files to write; the key first.
    pub files: Vec<Placed>,
    /// The file of the key, if it was searched for and found.
    pub found_key: Option<PathBuf>,
}

impl InstallPlan {
    /// The leaf, as it is to be served.
    #[must_use]
    pub fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.chain.der().first()
    }

    /// The places of the files to write.
    pub fn places_of_files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// `true` if clients get the chain from pintle, which has its key.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.places.len() > 1
    }
}

/// A file to put in place.
pub struct Placed {
    /// Its place.
    pub path: PathBuf,
    /// Its source.
    pub source: PathBuf,
    /// Its contents.
    pub contents: Zeroizing<Vec<u8>>,
    /// Its permissions.
    pub mode: u32,
}

const CHAIN_MODE: u32 = 0o644;
const KEY_MODE: u32 = 0o600;
/// The group of the key's file, if the old file has it: the serving user's.
const KEY_MODE_GROUP: u32 = 0o040;

/// Plans which file goes where. `in_use` is the pin of the pair that is served where a chain is configured: its key may be
/// in a file that this process cannot read.
///
/// # Errors
///
/// The reason why the pair cannot be installed.
pub fn plan(
    outline: &Outline,
    site: &SiteOutline,
    given: GivenPair,
    in_use: &dyn Fn(&Path) -> Option<Pin>,
) -> Result<InstallPlan, Reason> {
    let GivenPair { chain: GivenFile { name, contents }, key, is_on_disk, place: wanted } = given;
    let chain = chain_of(&name, &contents)?;
    let (chain_path, key_path) = place(outline, site, &chain, wanted.as_deref())?;
    // Of an upload, nothing but the certificates: it may have any text between them.
    let contents = if is_on_disk { contents } else { Zeroizing::new(chain.pem().into_bytes()) };
    let places = vec![chain_path.clone()];
    let mut plan = InstallPlan { site: site.label(), chain, places, files: Vec::new(), found_key: None };
    if let Some(path) = key_path {
        plan.places.push(path.clone());
        let pin = plan.chain.pin();
        let key = match key {
            Some(key) => Some(checked_key(key, &plan.chain, &name)?),
            None if has_key_of(&path, pin) || path != chain_path && in_use(&chain_path) == Some(pin) => None,
            None => {
                let beside = is_on_disk.then_some(name.as_path());
                let found = find_key(outline, site, &path, beside, (&name, pin))?;
                plan.found_key = Some(found.name.clone());
                Some(found)
            }
        };
        if path == chain_path {
            let key = match key {
                Some(key) => key.contents,
                None => read(&path).map_err(|error| read_error::reason(&path, &error))?,
            };
            let contents = in_one(&contents, &key);
            plan.files.push(Placed { path, source: name, contents, mode: KEY_MODE });
            return Ok(plan);
        }
        let before = fs::metadata(&path).map_or(0, |m| m.permissions().mode());
        // A file that others can read was created without a group in mind.
        let mode = if before & 0o007 == 0 { KEY_MODE | before & KEY_MODE_GROUP } else { KEY_MODE };
        let placed = |key: GivenFile| Placed { path, source: key.name, contents: key.contents, mode };
        plan.files.extend(key.map(placed));
    }
    // Everybody may read it.
    let has_key = has_private_key(&contents);
    let contents = if has_key { Zeroizing::new(plan.chain.pem().into_bytes()) } else { contents };
    plan.files.push(Placed { path: chain_path, source: name, contents, mode: CHAIN_MODE });
    Ok(plan)
}

/// Reads a chain.
///
/// # Errors
///
/// The reason why it is none, with the command that converts its form.
pub fn chain_of(name: &Path, contents: &[u8]) -> Result<Chain, Reason> {
    Chain::from_pem(contents).map_err(|e| {
        let hint = match &e {
            CertificateError::Chain(why) => why.hint(name, Want::Chain),
            _ => None,
        };
        let look = || format!("`pintle pin {}` shows what the file holds", shell_path(name));
        Reason::new(format!("{}: {e}", name.display())).hint(hint.unwrap_or_else(look))
    })
}

/// Returns the given key, if it is the chain's.
fn checked_key(given: GivenFile, chain: &Chain, of: &Path) -> Result<GivenFile, Reason> {
    let name = &given.name;
    let key = match public_key(&given.contents) {
        Ok(key) => key,
        // The preflight words the problem of an unusable key, for example one that is too small.
        Err(KeyFileError::Unsupported(_)) => return Ok(given),
        Err(error) => {
            let reason = Reason::new(format!("{}: {error}", name.display()));
            return Err(match error.hint(name, Want::Key) {
                Some(hint) => reason.hint(hint),
                None => reason.note("expected a private key in PEM"),
            });
        }
    };
    if key.pin != chain.pin() {
        return Err(Reason::new(format!("{}: not the key of {}", name.display(), of.display())).note(format!(
            "its pin is {}, the chain's is {}",
            key.pin,
            chain.pin()
        )));
    }
    Ok(given)
}

/// The reason why a certificate that pintle obtains is not installed by hand.
#[must_use]
pub fn managed(site: &SiteOutline) -> Reason {
    let label = site.label();
    let word = shell_word(&label);
    let what = format!("{label}: pintle obtains this certificate itself, and would replace an installed one");
    Reason::new(what)
        .note("it keeps the certificate in use until a new one is verified")
        .command(pintle(format_args!("acme renew --site {word}")))
        .hint(format!("if a key is compromised: `{}`", pintle(format_args!("key revoke --site {word}"))))
        .hint("to use a certificate of your own: chain and key instead of acme in [site.certificate]")
}

/// A chain's path, and its key's if there is one.
type PairPaths = (PathBuf, Option<PathBuf>);

/// The pair of files that the new one replaces: of several, the one with the same kind of key.
fn place(outline: &Outline, site: &SiteOutline, chain: &Chain, wanted: Option<&Path>) -> Result<PairPaths, Reason> {
    let pair =
        |(chain, key): &(String, Option<String>)| (outline.path(chain), key.as_ref().map(|key| outline.path(key)));
    let kind = |algorithm: &KeyAlgorithm| matches!(algorithm, KeyAlgorithm::Rsa(_));
    let is_like = |path: &Path| key_of(path).is_some_and(|key| kind(&key.algorithm) == kind(&chain.leaf.algorithm));
    let found = match site.certificates.as_slice() {
        [] => {
            let what = format!("{}: the site has no certificate to replace", site.label());
            return Err(Reason::new(what).hint("add [site.certificate] with chain and key"));
        }
        [one] => Some(one),
        several => several.iter().find(|(path, _)| {
            let path = outline.path(path);
            wanted.map_or_else(|| is_like(&path), |wanted| path == wanted)
        }),
    };
    let Some(found) = found else {
        let what = format!("none of the site's certificates has a key like {}", chain.leaf.algorithm);
        let hint = "replace an RSA certificate with an RSA one, an ECDSA certificate with an ECDSA one";
        return Err(Reason::new(what).hint(hint));
    };
    if site.given_chains.contains(&found.0) { Ok(pair(found)) } else { Err(managed(site)) }
}

/// Searches for the private key of a chain: beside the chain, in use, among the backups.
fn find_key(
    outline: &Outline,
    site: &SiteOutline,
    in_use: &Path,
    beside: Option<&Path>,
    (chain, pin): (&Path, Pin),
) -> Result<GivenFile, Reason> {
    let mut folders: Vec<PathBuf> = Vec::new();
    let backups = site.backups.iter().map(|backup| outline.path(backup));
    let near = [in_use.to_owned()].into_iter().chain(beside.map(Path::to_owned)).chain(backups);
    for file in near {
        let folder = folder_of(&file).to_owned();
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    for entry in entries.take(SEARCH_MAX) {
        let path = entry.path();
        if has_key_of(&path, pin) {
            let contents = read(&path).map_err(|error| read_error::reason(&path, &error))?;
            return Ok(GivenFile { name: path, contents });
        }
    }
    let looked: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    let what = format!("{}: its key is neither the one in use, nor in {}", chain.display(), looked.join(", "));
    let files = format!("{} KEY", shell_path(chain));
    let command = pintle(format_args!("install --site {} {files}", shell_word(&site.label())));
    Err(Reason::new(what).hint(format!("name it: {command}")))
}

/// The tag of a site's chains as they are on disk: another installation gives it another one.
#[must_use]
pub fn tag_of(outline: &Outline, site: &SiteOutline) -> String {
    let hash = |(chain, _): &(String, Option<String>)| match read(&outline.path(chain)) {
        Ok(contents) => hex(&Sha256::digest(contents.as_slice())),
        Err(error) => error.kind().to_string(),
    };
    tag(&site.certificates.iter().map(hash).collect::<Vec<_>>().join(" "))
}

/// The command that installs a certificate of a site, as it can be pasted.
#[must_use]
pub fn command(site: &str, files: &str) -> String {
    format!("sudo {}", pintle(format_args!("install --site {} {files}", shell_word(site))))
}

/// Says whether this process may write a site's pairs.
///
/// # Errors
///
/// The first place that it may not write, with the command that another user gives.
pub fn may_write<'p>(site: &str, places: impl Iterator<Item = &'p Path>) -> Result<(), Reason> {
    for place in places {
        let real = plain_file::follow_own_links(place).unwrap_or_else(|_| place.to_owned());
        let (user, folder) = (privileges::user(), folder_of(&real));
        // Nothing is tried in a folder of the sandbox: an empty file may stay there.
        if sandbox::forbids_writing(folder) {
            let what = format!("{}: the sandbox of this process forbids to write it", place.display());
            let hint = "edit = true in [admin], then `pintle upgrade`: the sandbox permits it from then on";
            return Err(Reason::new(what).command(command(site, "CHAIN KEY")).hint(hint));
        }
        if let Err(error) = plain_file::try_put(place, KEY_MODE) {
            let what = format!("{}: the user {user} may not write it: {}", place.display(), words(&error));
            let (folder, file) = (shell_path(folder), shell_path(&real));
            let hint = format!("chown {user} {folder} {file}: pintle may write there from then on");
            return Err(Reason::new(what).command(command(site, "CHAIN KEY")).hint(hint));
        }
    }
    Ok(())
}
