//! Public keys out of files: certificates, chains, CSRs, private and public keys, in PEM or DER.

mod algorithm;
mod foreign;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

pub use self::algorithm::KeyAlgorithm;
use self::foreign::{EXPLICIT_CURVE, beside, shell};
pub use self::foreign::{Foreign, Want};
use crate::keys::pem::{self, PemError, Section};
use crate::keys::pin::Pin;

/// The largest file that is read as a key or a chain, in bytes.
pub const FILE_MAX: u64 = 1024 * 1024;

/// The RSA keys that TLS here signs with, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// What kind of file a key came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// One certificate.
    Certificate,
    /// Several; the key is the first one's.
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
    /// What it was found in.
    pub kind: KeyKind,
    /// Its algorithm.
    pub algorithm: KeyAlgorithm,
}

/// Why there is no key in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFileError {
    /// None of the formats.
    Unknown,
    /// There is something in it, but no certificate.
    NoCertificate,
    /// There is something in it, but no private key.
    NoPrivateKey,
    /// PEM with a line that is not understood.
    Pem(PemError),
    /// The section of this line has a label that has no place here.
    Label(usize, String),
    /// The named part, at this line of PEM, does not parse.
    Malformed(&'static str, Option<usize>),
    /// A private key under a passphrase, in PEM or in DER.
    Encrypted {
        /// Whether it is in PEM.
        pem: bool,
    },
    /// A private key of an algorithm, or a size, that TLS here cannot use.
    Unsupported(String),
    /// A form that is not read here.
    Foreign(Foreign),
    /// Two keys, at these lines: nobody can say which one is meant.
    Several(usize, usize),
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("no certificate, CSR, private or public key in it"),
            Self::NoCertificate => f.write_str("no certificate found"),
            Self::NoPrivateKey => f.write_str("none found"),
            Self::Pem(error) => write!(f, "damaged PEM: {error}"),
            Self::Label(line, label) => write!(f, "line {line}: a section {label:?} has no place here"),
            Self::Malformed(what, None) => write!(f, "damaged {what}"),
            Self::Malformed(what, Some(line)) => write!(f, "line {line}: damaged {what}"),
            Self::Encrypted { .. } => f.write_str("the private key is encrypted"),
            Self::Unsupported(why) => write!(f, "the private key cannot be used: {why}"),
            Self::Foreign(form) => write!(f, "is {}", form.name()),
            Self::Several(first, second) => {
                write!(f, "line {second}: another key than that of line {first}; one file has one key")
            }
        }
    }
}

impl std::error::Error for KeyFileError {}

impl KeyFileError {
    /// What to do about it: a command that can be pasted, wherever one helps.
    #[must_use]
    pub fn hint(&self, path: &Path, want: Want) -> Option<String> {
        let file = shell(path);
        match self {
            Self::Foreign(form) => Some(form.hint(path, want)),
            Self::Encrypted { pem } => {
                let form = if *pem { "" } else { " -inform DER" };
                Some(match want {
                    Want::Pin => format!("openssl pkey{form} -in {file} -pubout | pintle pin -"),
                    Want::Chain | Want::Key => {
                        format!("openssl pkey{form} -in {file} -out {}", shell(&beside(path, "new.key")))
                    }
                })
            }
            Self::Unsupported(why) if why.contains(EXPLICIT_CURVE) => {
                Some(format!("openssl ec -in {file} -param_enc named_curve -out {}", shell(&beside(path, "new.key"))))
            }
            Self::Unsupported(_) => Some(match want {
                Want::Pin => format!("openssl pkey -in {file} -pubout | pintle pin -"),
                Want::Chain | Want::Key => format!(
                    "no command converts it; make another key, and have a certificate issued for it: openssl genpkey \
                     -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {}",
                    shell(&beside(path, "new.key"))
                ),
            }),
            Self::Several(..) => Some("put each key into a file of its own".to_owned()),
            _ => None,
        }
    }
}

/// A part of a file.
struct Item {
    /// Its line in PEM.
    line: Option<usize>,
    what: What,
    der: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Certificate,
    Csr,
    PublicKey,
    PrivateKey(SectionKind),
    Encrypted,
}

/// All parts of a file, in PEM or DER.
fn items(contents: &[u8]) -> Result<Vec<Item>, KeyFileError> {
    if let Some(form) = foreign::of(contents) {
        return Err(KeyFileError::Foreign(form));
    }
    if foreign::is_whole(contents) {
        return Ok(vec![item_of_der(contents)?]);
    }
    if pem::is_pem(contents) {
        let sections = pem::read(contents).map_err(KeyFileError::Pem)?;
        let items = sections.into_iter().map(item_of_section).filter_map(Result::transpose);
        return items.collect();
    }
    let form = foreign::bare_base64(contents).or_else(|| several_in_der(contents));
    Err(form.map_or(KeyFileError::Unknown, KeyFileError::Foreign))
}

/// A certificate or key in DER, with something behind it.
fn several_in_der(contents: &[u8]) -> Option<Foreign> {
    let first = foreign::first_element(contents).filter(|first| first.len() < contents.len())?;
    if matches!(item_of_der(first), Err(KeyFileError::Unknown)) {
        return None;
    }
    let (mut rest, mut certificates) = (contents, true);
    while let Some(element) = foreign::first_element(rest) {
        certificates &= of_certificate(element).is_some();
        rest = &rest[element.len()..];
    }
    Some(Foreign::Several { certificates: certificates && rest.is_empty() })
}

/// `None` for what is no key, and has its place beside one.
fn item_of_section(section: Section) -> Result<Option<Item>, KeyFileError> {
    let Section { line, label, is_encrypted, mut der } = section;
    let what = match label.as_str() {
        _ if is_encrypted => What::Encrypted,
        "CERTIFICATE" | "X509 CERTIFICATE" => What::Certificate,
        "TRUSTED CERTIFICATE" => {
            let length = foreign::first_element(&der).map_or(0, <[u8]>::len);
            der.truncate(length);
            What::Certificate
        }
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => What::Csr,
        "PUBLIC KEY" => What::PublicKey,
        "RSA PUBLIC KEY" => {
            der = foreign::spki_of_pkcs1(&der);
            What::PublicKey
        }
        "PRIVATE KEY" => What::PrivateKey(SectionKind::PrivateKey),
        "RSA PRIVATE KEY" => What::PrivateKey(SectionKind::RsaPrivateKey),
        "EC PRIVATE KEY" => What::PrivateKey(SectionKind::EcPrivateKey),
        "ENCRYPTED PRIVATE KEY" => What::Encrypted,
        // Parameters that OpenSSL writes before a key, or that other servers want in the same file.
        "EC PARAMETERS" | "DH PARAMETERS" | "X9.42 DH PARAMETERS" | "DSA PARAMETERS" => return Ok(None),
        "PKCS7" | "PKCS #7 SIGNED DATA" => return Err(KeyFileError::Foreign(Foreign::Pkcs7 { pem: true })),
        "OPENSSH PRIVATE KEY" => return Err(KeyFileError::Foreign(Foreign::OpenSsh)),
        "DSA PRIVATE KEY" => return Err(KeyFileError::Unsupported(algorithm_of_nobody("DSA"))),
        "RSA-PSS PRIVATE KEY" => return Err(KeyFileError::Unsupported(algorithm_of_nobody("RSA-PSS"))),
        _ => return Err(KeyFileError::Label(line, label)),
    };
    Ok(Some(Item { line: Some(line), what, der }))
}

fn item_of_der(contents: &[u8]) -> Result<Item, KeyFileError> {
    let forms = [SectionKind::PrivateKey, SectionKind::EcPrivateKey, SectionKind::RsaPrivateKey];
    let what = if of_certificate(contents).is_some() {
        What::Certificate
    } else if of_csr(contents).is_some() {
        What::Csr
    } else if foreign::is_encrypted(contents) {
        What::Encrypted
    } else if of_spki(contents, KeyKind::PublicKey).is_some() {
        What::PublicKey
    } else if let Some(kind) = forms.into_iter().find(|kind| of_private(contents, *kind).is_ok()) {
        // They cannot be told apart by their first bytes; each parser refuses the others'.
        What::PrivateKey(kind)
    } else if let Some(error) = unusable_private(contents) {
        return Err(error);
    } else {
        return Err(KeyFileError::Unknown);
    };
    Ok(Item { line: None, what, der: contents.to_vec() })
}

/// Finds the public key in a file's contents: the first certificate's, or that of any other part. Further certificates
/// are the chain; any other key beside it must be the same.
///
/// # Errors
///
/// [`KeyFileError`], when there is none, or nobody can say which one is meant.
pub fn public_key(contents: &[u8]) -> Result<PublicKey, KeyFileError> {
    let items = items(contents)?;
    let certificates = items.iter().filter(|i| i.what == What::Certificate).count();
    let mut found: Option<(PublicKey, usize)> = None;
    let (mut refusal, mut seen_certificate) = (None, false);
    for item in &items {
        if item.what == What::Certificate && std::mem::replace(&mut seen_certificate, true) {
            continue;
        }
        let key = match (key_of_item(item), found) {
            (Ok(key), _) => key,
            // A key that cannot be opened or used, beside one that says the same.
            (Err(e @ (KeyFileError::Encrypted { .. } | KeyFileError::Unsupported(_))), _) => {
                refusal = Some(e);
                continue;
            }
            (Err(e), _) => return Err(e),
        };
        match found {
            Some((first, line)) if first.pin != key.pin => {
                return Err(KeyFileError::Several(line, item.line.unwrap_or_default()));
            }
            Some(_) => {}
            None => found = Some((key, item.line.unwrap_or_default())),
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

/// Whether a private key is in a file, whatever else is.
#[must_use]
pub fn has_private_key(contents: &[u8]) -> bool {
    items(contents).is_ok_and(|items| items.iter().any(|i| matches!(i.what, What::PrivateKey(_))))
}

/// All certificates of a file, each with its line in PEM. Private keys beside them are left where they are.
///
/// # Errors
///
/// [`KeyFileError`], when there is none, or something in the file is not understood.
pub fn certificates(contents: &[u8]) -> Result<Vec<(Option<usize>, CertificateDer<'static>)>, KeyFileError> {
    let items = items(contents).map_err(|e| instead_of_unknown(e, KeyFileError::NoCertificate))?;
    let is_encrypted = items.iter().all(|i| i.what == What::Encrypted) && !items.is_empty();
    let found: Vec<_> = items.into_iter().filter(|i| i.what == What::Certificate).collect();
    if found.is_empty() {
        return Err(if is_encrypted { KeyFileError::Encrypted { pem: true } } else { KeyFileError::NoCertificate });
    }
    Ok(found.into_iter().map(|i| (i.line, i.der.into())).collect())
}

/// The private key of a file.
///
/// # Errors
///
/// [`KeyFileError`], when there is none, or more than one, or something in the file is not understood.
pub fn private_key(contents: &[u8]) -> Result<PrivateKeyDer<'static>, KeyFileError> {
    let items = items(contents).map_err(|e| instead_of_unknown(e, KeyFileError::NoPrivateKey))?;
    let encrypted = items.iter().find(|i| i.what == What::Encrypted).map(|i| i.line.is_some());
    let mut found: Option<(PrivateKeyDer<'static>, usize)> = None;
    for item in items {
        let What::PrivateKey(kind) = item.what else { continue };
        let line = item.line.unwrap_or_default();
        if let Some((first, at)) = &found {
            if first.secret_der() != item.der.as_slice() {
                return Err(KeyFileError::Several(*at, line));
            }
            continue;
        }
        let key = PrivateKeyDer::from_pem(kind, item.der).ok_or(KeyFileError::Malformed("private key", item.line))?;
        found = Some((key, line));
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

/// What TLS makes of a private key.
///
/// # Errors
///
/// [`KeyFileError::Unsupported`] for algorithms and sizes that it cannot use, by their names.
pub fn signer(key: &PrivateKeyDer<'_>) -> Result<Arc<dyn SigningKey>, KeyFileError> {
    rustls::crypto::aws_lc_rs::sign::any_supported_type(key)
        .map_err(|_| unusable_private(key.secret_der()).unwrap_or(KeyFileError::Malformed("private key", None)))
}

/// Why a private key that TLS has refused is refused, if it is one.
fn unusable_private(der: &[u8]) -> Option<KeyFileError> {
    if let Some(name) = foreign::unsupported_private(der) {
        return Some(KeyFileError::Unsupported(algorithm_of_nobody(name)));
    }
    let bits = foreign::rsa_bits(der)?;
    Some(if RSA_BITS.contains(&bits) {
        KeyFileError::Malformed("private key", None)
    } else {
        let (least, largest) = RSA_BITS.into_inner();
        KeyFileError::Unsupported(format!("RSA of {bits} bits, and TLS here takes {least} to {largest}"))
    })
}

fn algorithm_of_nobody(name: &str) -> String {
    format!("{name}, which TLS here does not speak")
}

fn key_of_item(item: &Item) -> Result<PublicKey, KeyFileError> {
    let malformed = |what| KeyFileError::Malformed(what, item.line);
    match item.what {
        What::Certificate => of_certificate(&item.der).ok_or_else(|| malformed("certificate")),
        What::Csr => of_csr(&item.der).ok_or_else(|| malformed("CSR")),
        What::PublicKey => of_spki(&item.der, KeyKind::PublicKey).ok_or_else(|| malformed("public key")),
        What::PrivateKey(kind) => of_private(&item.der, kind).map_err(|e| match e {
            KeyFileError::Malformed(what, _) => malformed(what),
            other => other,
        }),
        What::Encrypted => Err(KeyFileError::Encrypted { pem: item.line.is_some() }),
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
    // RFC 5280 section 4.1: an algorithm that is known, or else any SEQUENCE { SEQUENCE, BIT STRING } would do.
    let known = algorithm_of(&spki) != KeyAlgorithm::Other || foreign::unsupported_public(der).is_some();
    (rest.is_empty() && known).then(|| key_of(&spki, kind))
}

fn of_private(der: &[u8], kind: SectionKind) -> Result<PublicKey, KeyFileError> {
    let malformed = || KeyFileError::Malformed("private key", None);
    let key = PrivateKeyDer::from_pem(kind, der.to_vec()).ok_or_else(malformed)?;
    let spki = signer(&key)?.public_key().map(|spki| spki.to_vec()).ok_or_else(malformed)?;
    of_spki(&spki, KeyKind::PrivateKey).ok_or_else(malformed)
}

fn key_of(spki: &SubjectPublicKeyInfo<'_>, kind: KeyKind) -> PublicKey {
    PublicKey { pin: Pin::of_spki(spki.raw), kind, algorithm: algorithm_of(spki) }
}

/// The algorithm of a SubjectPublicKeyInfo.
#[must_use]
pub fn algorithm_of(spki: &SubjectPublicKeyInfo<'_>) -> KeyAlgorithm {
    let parameter = || spki.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|o| o.to_id_string());
    match spki.algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.1" => match spki.parsed() {
            Ok(x509_parser::public_key::PublicKey::RSA(key)) => KeyAlgorithm::Rsa(key.key_size()),
            _ => KeyAlgorithm::Other,
        },
        "1.2.840.10045.2.1" => match parameter().as_deref() {
            Some("1.2.840.10045.3.1.7") => KeyAlgorithm::EcdsaP256,
            Some("1.3.132.0.34") => KeyAlgorithm::EcdsaP384,
            Some("1.3.132.0.35") => KeyAlgorithm::EcdsaP521,
            _ => KeyAlgorithm::Other,
        },
        "1.3.101.112" => KeyAlgorithm::Ed25519,
        _ => KeyAlgorithm::Other,
    }
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

    /// Every form of one key has one pin; tests/ recompute it with the openssl command line.
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

    /// Two keys in one file: nobody is told the pin of one of them, as if the other were not there.
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
