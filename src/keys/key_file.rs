//! Reads the public key of a file: certificate, chain, CSR, private or public key, in PEM or DER.

mod algorithm;
mod error;
mod foreign;
mod private;

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

pub use self::algorithm::{KeyAlgorithm, UnusableForTls, algorithm_of};
pub use self::error::KeyFileError;
pub use self::foreign::{Foreign, Want};
pub use self::private::may_be_private;
use crate::keys::pem::{self, Section};
use crate::keys::pin::Pin;

/// The largest key or chain file that pintle reads, in bytes.
pub const FILE_MAX: u64 = 1024 * 1024;

/// Sizes of the RSA keys that TLS can sign with, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = algorithm::RSA_MIN..=algorithm::RSA_MAX;

/// The kind of file that a key came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// One certificate.
    Certificate,
    /// Several certificates; the key is the first one's.
    Chain,
    /// A certificate signing request.
    Csr,
    /// A private key: PKCS#8, PKCS#1 or SEC1.
    PrivateKey,
    /// A SubjectPublicKeyInfo.
    PublicKey,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Certificate => "certificate",
            Self::Chain => "chain",
            Self::Csr => "csr",
            Self::PrivateKey => "private-key",
            Self::PublicKey => "public-key",
        })
    }
}

/// A public key found in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    /// Its pin.
    pub pin: Pin,
    /// The kind of file that held it.
    pub kind: KeyKind,
    /// Its algorithm.
    pub algorithm: KeyAlgorithm,
}

/// One part of a file.
struct FilePart {
    /// The line of PEM where it begins.
    line: Option<usize>,
    kind: PartKind,
    der: Zeroizing<Vec<u8>>,
}

/// The kind of a part.
#[derive(Clone, Copy, PartialEq)]
enum PartKind {
    Certificate,
    Csr,
    PublicKey,
    PrivateKey(SectionKind),
    Encrypted,
}

/// Returns all parts of a file, in PEM or DER.
fn parts(contents: &[u8]) -> Result<Vec<FilePart>, KeyFileError> {
    if let Some(form) = foreign::of(contents) {
        return Err(KeyFileError::Foreign(form));
    }
    if foreign::is_whole(contents) {
        return Ok(vec![part_of_der(contents)?]);
    }
    if pem::is_pem(contents) {
        let sections = pem::read(contents).map_err(KeyFileError::Pem)?;
        let parts = sections.into_iter().map(part_of_section).filter_map(Result::transpose);
        return parts.collect();
    }
    let form = foreign::bare_base64(contents).or_else(|| several_in_der(contents));
    Err(form.map_or(KeyFileError::Unknown, KeyFileError::Foreign))
}

/// Recognizes a certificate or key in DER that is followed by more data.
fn several_in_der(contents: &[u8]) -> Option<Foreign> {
    let first = foreign::first_element(contents).filter(|first| first.len() < contents.len())?;
    if matches!(part_of_der(first), Err(KeyFileError::Unknown)) {
        return None;
    }
    let (mut rest, mut certificates) = (contents, true);
    while let Some(element) = foreign::first_element(rest) {
        certificates &= of_certificate(element).is_some();
        rest = &rest[element.len()..];
    }
    Some(Foreign::Several { certificates: certificates && rest.is_empty() })
}

/// Returns `None` for a section that is not a key, but may stand beside one.
fn part_of_section(section: Section) -> Result<Option<FilePart>, KeyFileError> {
    let Section { line, label, is_encrypted, mut der } = section;
    let kind = match label.as_str() {
        _ if is_encrypted => PartKind::Encrypted,
        "CERTIFICATE" | "X509 CERTIFICATE" => PartKind::Certificate,
        "TRUSTED CERTIFICATE" => {
            let length = foreign::first_element(&der).map_or(0, <[u8]>::len);
            der.truncate(length);
            PartKind::Certificate
        }
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => PartKind::Csr,
        "PUBLIC KEY" => PartKind::PublicKey,
        "RSA PUBLIC KEY" => {
            der = Zeroizing::new(foreign::spki_of_pkcs1(&der));
            PartKind::PublicKey
        }
        "PRIVATE KEY" => PartKind::PrivateKey(SectionKind::PrivateKey),
        "RSA PRIVATE KEY" => PartKind::PrivateKey(SectionKind::RsaPrivateKey),
        "EC PRIVATE KEY" => PartKind::PrivateKey(SectionKind::EcPrivateKey),
        "ENCRYPTED PRIVATE KEY" => PartKind::Encrypted,
        // Parameters that OpenSSL writes before a key, or that other servers expect in the same
        // file.
        "EC PARAMETERS" | "DH PARAMETERS" | "X9.42 DH PARAMETERS" | "DSA PARAMETERS" => return Ok(None),
        "PKCS7" | "PKCS #7 SIGNED DATA" => return Err(KeyFileError::Foreign(Foreign::Pkcs7 { pem: true })),
        "OPENSSH PRIVATE KEY" => return Err(KeyFileError::Foreign(Foreign::OpenSsh)),
        "DSA PRIVATE KEY" => return Err(KeyFileError::Unsupported(UnusableForTls::Algorithm("DSA"))),
        "RSA-PSS PRIVATE KEY" => return Err(KeyFileError::Unsupported(UnusableForTls::Algorithm("RSA-PSS"))),
        _ => return Err(KeyFileError::Label(line, label)),
    };
    Ok(Some(FilePart { line: Some(line), kind, der }))
}

fn part_of_der(contents: &[u8]) -> Result<FilePart, KeyFileError> {
    let forms = [SectionKind::PrivateKey, SectionKind::EcPrivateKey, SectionKind::RsaPrivateKey];
    let kind = if of_certificate(contents).is_some() {
        PartKind::Certificate
    } else if of_csr(contents).is_some() {
        PartKind::Csr
    } else if foreign::is_encrypted(contents) {
        PartKind::Encrypted
    } else if of_spki(contents, KeyKind::PublicKey).is_some() {
        PartKind::PublicKey
    } else if let Some(kind) = forms.into_iter().find(|kind| of_private(contents, *kind).is_ok()) {
        // Their first bytes do not distinguish them; each parser refuses the other formats.
        PartKind::PrivateKey(kind)
    } else if let Some(error) = unusable_private(contents) {
        return Err(error);
    } else {
        return Err(KeyFileError::Unknown);
    };
    Ok(FilePart { line: None, kind, der: Zeroizing::new(contents.to_vec()) })
}

/// Returns the public key of a file: that of its first certificate, or of any other part. Further
/// certificates are the chain. Any other key in the file must be the same one.
///
/// # Errors
///
/// [`KeyFileError`] if there is none, or if it is unclear which one is meant.
pub fn public_key(contents: &[u8]) -> Result<PublicKey, KeyFileError> {
    let parts = parts(contents)?;
    let certificates = parts.iter().filter(|i| i.kind == PartKind::Certificate).count();
    let mut found: Option<(PublicKey, usize)> = None;
    let (mut refusal, mut seen_certificate) = (None, false);
    for part in &parts {
        if part.kind == PartKind::Certificate && std::mem::replace(&mut seen_certificate, true) {
            continue;
        }
        let key = match (key_of_part(part), found) {
            (Ok(key), _) => key,
            // A key that cannot be decrypted or used may stand beside a readable copy.
            (Err(e @ (KeyFileError::Encrypted { .. } | KeyFileError::Unsupported(_))), _) => {
                refusal = Some(e);
                continue;
            }
            (Err(e), _) => return Err(e),
        };
        match found {
            Some((first, line)) if first.pin != key.pin => {
                return Err(KeyFileError::Several(line, part.line.unwrap_or_default()));
            }
            Some(_) => {}
            None => found = Some((key, part.line.unwrap_or_default())),
        }
    }
    match found {
        Some((key, _)) if key.kind == KeyKind::Certificate && certificates > 1 => {
            Ok(PublicKey { kind: KeyKind::Chain, ..key })
        }
        Some((key, _)) => Ok(key),
        None => Err(refusal.unwrap_or(KeyFileError::Unknown)),
    }
}

/// Returns `true` if a file holds a private key, beside whatever else.
#[must_use]
pub fn has_private_key(contents: &[u8]) -> bool {
    parts(contents).is_ok_and(|parts| parts.iter().any(|i| matches!(i.kind, PartKind::PrivateKey(_))))
}

/// Returns the pin of a file's private key, whatever certificates are beside it; `None` if it has no private key.
#[must_use]
pub fn private_pin(contents: &[u8]) -> Option<Pin> {
    public_half(contents).map(|key| key.pin)
}

/// Returns the public half of a file's private key, as [`private_pin`] does.
#[must_use]
pub fn public_half(contents: &[u8]) -> Option<PublicKey> {
    public_key(private_key(contents).ok()?.secret_der()).ok()
}

/// Returns all certificates of a file, each with its line in PEM. Ignores private keys beside them.
///
/// # Errors
///
/// [`KeyFileError`] if there is none, or if a part of the file cannot be read.
pub fn certificates(contents: &[u8]) -> Result<Vec<(Option<usize>, CertificateDer<'static>)>, KeyFileError> {
    let parts = parts(contents).map_err(|e| instead_of_unknown(e, KeyFileError::NoCertificate))?;
    let is_encrypted = parts.iter().all(|i| i.kind == PartKind::Encrypted) && !parts.is_empty();
    let found: Vec<_> = parts.into_iter().filter(|i| i.kind == PartKind::Certificate).collect();
    if found.is_empty() {
        return Err(if is_encrypted { KeyFileError::Encrypted { pem: true } } else { KeyFileError::NoCertificate });
    }
    Ok(found.into_iter().map(|mut i| (i.line, std::mem::take(&mut *i.der).into())).collect())
}

/// Returns the private key of a file. It is wiped at its end.
///
/// # Errors
///
/// [`KeyFileError`] if there is none, if there are several, or if a part of the file cannot be
/// read.
pub fn private_key(contents: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, KeyFileError> {
    let parts = parts(contents).map_err(|e| instead_of_unknown(e, KeyFileError::NoPrivateKey))?;
    let encrypted = parts.iter().find(|i| i.kind == PartKind::Encrypted).map(|i| i.line.is_some());
    let mut found: Option<(Zeroizing<PrivateKeyDer<'static>>, usize)> = None;
    for mut part in parts {
        let PartKind::PrivateKey(kind) = part.kind else { continue };
        let line = part.line.unwrap_or_default();
        if let Some((first, at)) = &found {
            if first.secret_der() != part.der.as_slice() {
                return Err(KeyFileError::Several(*at, line));
            }
            continue;
        }
        let der = std::mem::take(&mut *part.der);
        let key = PrivateKeyDer::from_pem(kind, der).ok_or(KeyFileError::Malformed("private key", part.line))?;
        found = Some((Zeroizing::new(key), line));
    }
    match (found, encrypted) {
        (Some((key, _)), _) => Ok(key),
        (None, Some(pem)) => Err(KeyFileError::Encrypted { pem }),
        (None, None) => Err(KeyFileError::NoPrivateKey),
    }
}

fn instead_of_unknown(error: KeyFileError, other: KeyFileError) -> KeyFileError {
    if error == KeyFileError::Unknown { other } else { error }
}

/// Makes a signer for TLS of a private key.
///
/// # Errors
///
/// [`KeyFileError::Unsupported`] for an algorithm or size that TLS cannot use.
pub fn signer(key: &PrivateKeyDer<'_>) -> Result<Arc<dyn SigningKey>, KeyFileError> {
    rustls::crypto::aws_lc_rs::sign::any_supported_type(key)
        .map_err(|_| unusable_private(key.secret_der()).unwrap_or(KeyFileError::Malformed("private key", None)))
}

/// Returns why TLS refuses a private key; `None` if the data are not a private key.
fn unusable_private(der: &[u8]) -> Option<KeyFileError> {
    if let Some(why) = foreign::unsupported_private(der) {
        return Some(KeyFileError::Unsupported(why));
    }
    let bits = foreign::rsa_bits(der)?;
    Some(if RSA_BITS.contains(&bits) {
        KeyFileError::Malformed("private key", None)
    } else {
        KeyFileError::Unsupported(UnusableForTls::RsaSize(bits))
    })
}

fn key_of_part(part: &FilePart) -> Result<PublicKey, KeyFileError> {
    let malformed = |what| KeyFileError::Malformed(what, part.line);
    match part.kind {
        PartKind::Certificate => of_certificate(&part.der).ok_or_else(|| malformed("certificate")),
        PartKind::Csr => of_csr(&part.der).ok_or_else(|| malformed("CSR")),
        PartKind::PublicKey => of_spki(&part.der, KeyKind::PublicKey).ok_or_else(|| malformed("public key")),
        PartKind::PrivateKey(kind) => of_private(&part.der, kind).map_err(|e| match e {
            KeyFileError::Malformed(what, _) => malformed(what),
            other => other,
        }),
        PartKind::Encrypted => Err(KeyFileError::Encrypted { pem: part.line.is_some() }),
    }
}

fn of_certificate(der: &[u8]) -> Option<PublicKey> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    let spki = &certificate.tbs_certificate.subject_pki;
    rest.is_empty().then(|| key_of(spki, KeyKind::Certificate))
}

fn of_csr(der: &[u8]) -> Option<PublicKey> {
    let (rest, csr) = X509CertificationRequest::from_der(der).ok()?;
    rest.is_empty().then(|| key_of(&csr.certification_request_info.subject_pki, KeyKind::Csr))
}

fn of_spki(der: &[u8], kind: KeyKind) -> Option<PublicKey> {
    let (rest, spki) = SubjectPublicKeyInfo::from_der(der).ok()?;
    // RFC 5280 section 4.1. The algorithm must be known: any SEQUENCE { SEQUENCE, BIT STRING }
    // would parse.
    let known = algorithm_of(&spki) != KeyAlgorithm::Other || foreign::unsupported_public(der).is_some();
    (rest.is_empty() && known).then(|| key_of(&spki, kind))
}

fn of_private(der: &[u8], kind: SectionKind) -> Result<PublicKey, KeyFileError> {
    let malformed = || KeyFileError::Malformed("private key", None);
    let key = Zeroizing::new(PrivateKeyDer::from_pem(kind, der.to_vec()).ok_or_else(malformed)?);
    let spki = signer(&key)?.public_key().map(|spki| spki.to_vec()).ok_or_else(malformed)?;
    of_spki(&spki, KeyKind::PrivateKey).ok_or_else(malformed)
}

fn key_of(spki: &SubjectPublicKeyInfo<'_>, kind: KeyKind) -> PublicKey {
    PublicKey { pin: Pin::of_spki(spki.raw), kind, algorithm: algorithm_of(spki) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    fn check(contents: &[u8], want: (Pin, KeyKind)) {
        let key = public_key(contents).unwrap();
        assert_eq!((key.pin, key.kind), want);
    }

    /// Every file format of one key has the same pin; tests/ recompute it with the openssl command
    /// line.
    #[test]
    fn forms_of_one_key() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            use rcgen::PublicKeyData as _;
            let pin = Pin::of_spki(&key.subject_public_key_info());
            let params = CertificateParams::new(vec!["a.example".into()]).unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let csr = params.serialize_request(&key).unwrap();
            check(certificate.pem().as_bytes(), (pin, KeyKind::Certificate));
            check(certificate.der(), (pin, KeyKind::Certificate));
            check((certificate.pem() + &certificate.pem()).as_bytes(), (pin, KeyKind::Chain));
            check(csr.pem().unwrap().as_bytes(), (pin, KeyKind::Csr));
            check(csr.der(), (pin, KeyKind::Csr));
            check(key.serialize_pem().as_bytes(), (pin, KeyKind::PrivateKey));
            check(&key.serialize_der(), (pin, KeyKind::PrivateKey));
            check(&key.subject_public_key_info(), (pin, KeyKind::PublicKey));
            check(key.public_key_pem().as_bytes(), (pin, KeyKind::PublicKey));
        }
    }

    #[test]
    fn refusals() {
        assert_eq!(public_key(b""), Err(KeyFileError::Unknown));
        assert_eq!(public_key(b"hello"), Err(KeyFileError::Unknown));
        assert_eq!(
            public_key(b"-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n"),
            Err(KeyFileError::Unknown)
        );
        let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(public_key(encrypted), Err(KeyFileError::Encrypted { pem: true }));
        assert_eq!(
            public_key(b"\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            Err(KeyFileError::Malformed("certificate", Some(2)))
        );
        assert!(matches!(public_key(b"-----BEGIN CERTIFICATE-----\nAAAA\n"), Err(KeyFileError::Pem(_))));
        let crl = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
        assert_eq!(public_key(crl), Err(KeyFileError::Label(1, "X509 CRL".into())));
    }

    /// A file with two keys is refused: its user would see the pin of one of them only.
    #[test]
    fn one_file_has_one_key() {
        let (one, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let params = CertificateParams::new(vec!["a.example".into()]).unwrap();
        let certificate = params.self_signed(&one).unwrap().pem();
        let key = |pem: &str| public_key(pem.as_bytes()).map(|k| k.kind);
        assert_eq!(key(&(one.serialize_pem() + &certificate)), Ok(KeyKind::PrivateKey));
        assert_eq!(key(&(certificate.clone() + &one.serialize_pem())), Ok(KeyKind::Certificate));
        assert!(has_private_key((certificate.clone() + &one.serialize_pem()).as_bytes()));
        for pem in [
            other.serialize_pem() + &certificate,
            certificate.clone() + &other.serialize_pem(),
            one.public_key_pem() + &other.public_key_pem(),
        ] {
            assert!(matches!(key(&pem), Err(KeyFileError::Several(1, _))), "{pem}");
        }
        assert!(private_key((one.serialize_pem() + &one.serialize_pem()).as_bytes()).is_ok());
        let two = private_key((one.serialize_pem() + &other.serialize_pem()).as_bytes());
        assert!(matches!(two, Err(KeyFileError::Several(1, _))));
        assert_eq!(certificates(one.serialize_pem().as_bytes()), Err(KeyFileError::NoCertificate));
        assert_eq!(private_key(certificate.as_bytes()), Err(KeyFileError::NoPrivateKey));
    }

    proptest! {
        #[test]
        fn bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), sequence in any::<bool>()) {
            if sequence {
                bytes.splice(..0, [0x30, 0x82]);
            }
            let _ = public_key(&bytes);
        }
    }
}
