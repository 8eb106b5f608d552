//! A new key of a site with its CSR: what `pintle key new` and the page Keys make.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rcgen::{CertificateParams, DnType, KeyPair, RsaKeySize};
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::{Outline, SiteOutline};
use crate::host::HostPattern;
use crate::keys::key_file::{PublicKey, public_key};
use crate::os::plain_file;
use crate::os::words::words;

/// The longest common name (RFC 5280, appendix A.1: ub-common-name).
const COMMON_NAME_MAX: usize = 64;

/// A kind of key. The comments are the texts of `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Algorithm {
    /// Small and fast; every client of the last ten years accepts it
    #[value(name = "ecdsa-p256", aliases = ["ecdsa", "p256", "p-256"])]
    EcdsaP256,
    /// For older clients
    #[value(name = "rsa-2048", aliases = ["rsa", "rsa2048"])]
    Rsa2048,
    /// For clients of your own: neither browsers nor public CAs accept it
    Ed25519,
}

/// The most names tried for a new key's files.
const NAMES_MAX: u32 = 100;

/// The path of a key's files, relative to the configuration's folder.
#[derive(Debug)]
pub struct KeyPath {
    folder: String,
    stem: String,
}

impl KeyPath {
    /// The folder of the site's first chain, or the configuration's. Nothing else belongs beside pintle's own chains.
    #[must_use]
    pub fn of(site: &SiteOutline) -> String {
        let chain = site.given_chains.first().map(Path::new);
        chain.and_then(Path::parent).map(|folder| folder.display().to_string()).unwrap_or_default()
    }

    /// Unused names: after the first key of a role, with the date, and a number if needed.
    #[must_use]
    pub fn free(outline: &Outline, folder: String, stem: &str) -> Self {
        let today = Timestamp::now().to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string();
        let dated = (1..NAMES_MAX).map(|n| match n {
            1 => format!("{stem}-{today}"),
            n => format!("{stem}-{today}-{n}"),
        });
        let place = |stem: String| Self { folder: folder.clone(), stem };
        let is_free = |place: &Self| {
            let free = |extension| outline.path(&place.name(extension)).symlink_metadata().is_err();
            free("key") && free("csr")
        };
        std::iter::once(stem.to_owned()).chain(dated).map(place).find(is_free).unwrap_or_else(|| place(stem.to_owned()))
    }

    /// The path of a file, as the configuration would name it.
    #[must_use]
    pub fn name(&self, extension: &str) -> String {
        Path::new(&self.folder).join(format!("{}.{extension}", self.stem)).display().to_string()
    }
}

/// A new key.
#[derive(Debug)]
pub struct KeyWithCsr {
    /// Its public part.
    pub public: PublicKey,
    /// The CSR, in PEM.
    pub csr: String,
}

/// The reason why no key was created.
#[derive(Debug)]
pub enum KeyFailure {
    /// A file of the name is there.
    Exists(PathBuf),
    /// The folder is missing.
    NoFolder(PathBuf),
    /// Any other failure.
    Other(String),
}

/// Creates both files, or none.
///
/// # Errors
///
/// [`KeyFailure`]; no file is left then.
pub fn make(
    outline: &Outline,
    site: &SiteOutline,
    algorithm: Algorithm,
    place: &KeyPath,
) -> Result<KeyWithCsr, KeyFailure> {
    let (key_path, csr_path) = (outline.path(&place.name("key")), outline.path(&place.name("csr")));
    // An early message. The files are opened as new ones, which decides.
    if let Some(there) = [&key_path, &csr_path].into_iter().find(|p| p.symlink_metadata().is_ok()) {
        return Err(KeyFailure::Exists(there.clone()));
    }
    let (key, csr) = generate(site, algorithm).map_err(|e| KeyFailure::Other(format!("no key could be made: {e}")))?;
    let key_pem = key.serialize_pem();
    // Nobody may rely on a key that pintle cannot serve with, or on a CSR of another key.
    let made = public_key(key_pem.as_bytes()).map_err(|e| KeyFailure::Other(format!("no key could be made: {e}")))?;
    if public_key(csr.as_bytes()).ok().map(|k| k.pin) != Some(made.pin) {
        return Err(KeyFailure::Other("no key could be made: its CSR is another's".to_owned()));
    }
    let write = |path: &Path, contents: &str, mode| {
        plain_file::create(path, contents.as_bytes(), mode).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => KeyFailure::Exists(path.to_owned()),
            io::ErrorKind::NotFound => KeyFailure::NoFolder(path.parent().unwrap_or(path).to_owned()),
            _ => KeyFailure::Other(format!("{}: {}", path.display(), words(&error))),
        })
    };
    write(&key_path, &key_pem, 0o600)?;
    if let Err(failure) = write(&csr_path, &csr, 0o644) {
        // It is new, so nobody has its pin.
        let _ = fs::remove_file(&key_path);
        return Err(failure);
    }
    Ok(KeyWithCsr { public: made, csr })
}

/// Generates a key, and a CSR for all names of the site.
fn generate(site: &SiteOutline, algorithm: Algorithm) -> Result<(KeyPair, String), rcgen::Error> {
    let key = match algorithm {
        Algorithm::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
        Algorithm::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        Algorithm::Ed25519 => ed25519()?,
    };
    // An address without brackets becomes an iPAddress, anything else a dNSName.
    let name = |host: &HostPattern| host.address().map_or_else(|| host.to_string(), |address| address.to_string());
    let names: Vec<String> = site.hosts.iter().map(name).collect();
    let common = names.first().filter(|name| name.len() <= COMMON_NAME_MAX).cloned();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(common) = common {
        params.distinguished_name.push(DnType::CommonName, common);
    }
    let csr = params.serialize_request(&key)?.pem()?;
    Ok((key, csr))
}

/// PKCS#8 version 1: rcgen writes version 2 (RFC 5958), which OpenSSL 3.0 does not read.
fn ed25519() -> Result<KeyPair, rcgen::Error> {
    let unavailable = |_| rcgen::Error::KeyGenerationUnavailable;
    let key = aws_lc_rs::signature::Ed25519KeyPair::generate().and_then(|key| key.to_pkcs8v1()).map_err(unavailable)?;
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key.as_ref()), &rcgen::PKCS_ED25519)
}
