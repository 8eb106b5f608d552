//! The demo's keys and certificates: a CA, a live key with its certificate, and two backups.

use std::fs;
use std::io;
use std::path::Path;

use jiff::{Timestamp, ToSpan as _};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};

use crate::keys::pin::Pin;
use crate::os::plain_file::replace;
use crate::tls::certificate::Chain;

const CA_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 365;
/// A certificate with less than this left is made anew.
const RENEW_DAYS: i64 = 7;

/// The pins of the three keys.
pub(super) struct Keys {
    pub(super) live: Pin,
    pub(super) next: Pin,
    pub(super) spare: Pin,
}

impl Keys {
    /// Makes what is not there yet, or has nearly expired.
    pub(super) fn ensure(folder: &Path) -> io::Result<Self> {
        make_folder(folder)?;
        let ca = key(folder, "ca.key")?;
        let (live, next, spare) = (key(folder, "live.key")?, key(folder, "next.key")?, key(folder, "spare.key")?);
        let pins = Self { live: pin_of(&live), next: pin_of(&next), spare: pin_of(&spare) };
        let authority = certificate_authority();
        if !is_good(&folder.join("ca.pem"), &ca) {
            let certificate = authority.self_signed(&ca).map_err(io::Error::other)?;
            replace(&folder.join("ca.pem"), certificate.pem().as_bytes(), 0o644)?;
            // A certificate of another CA is useless.
            let _ = fs::remove_file(folder.join("live.pem"));
        }
        if !is_good(&folder.join("live.pem"), &live) {
            let issuer = Issuer::new(authority, ca);
            let leaf: Certificate =
                leaf_params().and_then(|p| p.signed_by(&live, &issuer)).map_err(io::Error::other)?;
            replace(&folder.join("live.pem"), leaf.pem().as_bytes(), 0o644)?;
        }
        let csr =
            leaf_params().and_then(|p| p.serialize_request(&next)).and_then(|c| c.pem()).map_err(io::Error::other)?;
        replace(&folder.join("next.csr"), csr.as_bytes(), 0o644)?;
        replace(&folder.join("spare.pub"), spare.public_key_pem().as_bytes(), 0o644)?;
        Ok(pins)
    }
}

/// Makes the folder, for this user alone.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Loads a key, or makes one that only its owner can read.
fn key(folder: &Path, name: &str) -> io::Result<KeyPair> {
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(|e| io::Error::other(format!("{name}: {e}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(io::Error::other)?;
            replace(&path, key.serialize_pem().as_bytes(), 0o600)?;
            Ok(key)
        }
        Err(error) => Err(error),
    }
}

fn pin_of(key: &KeyPair) -> Pin {
    Pin::of_spki(&key.subject_public_key_info())
}

/// Returns `true` if a certificate of this key exists and stays valid for a while.
fn is_good(path: &Path, key: &KeyPair) -> bool {
    let chain = fs::read(path).ok().and_then(|contents| Chain::from_pem(&contents).ok());
    let soon = Timestamp::now() + (RENEW_DAYS * 24).hours();
    chain.is_some_and(|c| c.pin() == pin_of(key) && c.leaf.not_after > soon)
}

fn certificate_authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "pintle demo CA");
    (params.not_before, params.not_after) = validity(CA_DAYS);
    params
}

fn leaf_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    (params.not_before, params.not_after) = validity(LEAF_DAYS);
    Ok(params)
}

/// From a day ago, for clocks that disagree.
fn validity(days: i64) -> (time::OffsetDateTime, time::OffsetDateTime) {
    let now = time::OffsetDateTime::now_utc();
    (now - time::Duration::days(1), now + time::Duration::days(days))
}
