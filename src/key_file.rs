//! Public keys out of files: certificates, chains, CSRs, private and public keys, in PEM or DER.

use std::fmt;

use rustls::pki_types::pem::{self, PemObject, SectionKind};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::pin::Pin;

/// The largest file that is read as a key or a chain, in octets.
pub const FILE_MAX: u64 = 1024 * 1024;

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

/// A key's algorithm, as far as operators care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// RSA, with the size of the modulus in bits.
    Rsa(usize),
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// Ed25519.
    Ed25519,
    /// Any other.
    Other,
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => f.pad(&format!("rsa-{bits}")),
            Self::EcdsaP256 => f.pad("ecdsa-p256"),
            Self::EcdsaP384 => f.pad("ecdsa-p384"),
            Self::EcdsaP521 => f.pad("ecdsa-p521"),
            Self::Ed25519 => f.pad("ed25519"),
            Self::Other => f.pad("other"),
        }
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
    /// PEM whose contents do not decode.
    Pem(String),
    /// The named part does not parse.
    Malformed(&'static str),
    /// A private key under a passphrase.
    Encrypted,
    /// A private key of an algorithm, or a size, that TLS here cannot use.
    Unsupported(String),
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("no certificate, CSR, private or public key in it"),
            Self::Pem(why) => write!(f, "damaged PEM: {why}"),
            Self::Malformed(what) => write!(f, "damaged {what}"),
            Self::Encrypted => f.write_str("the private key is encrypted"),
            Self::Unsupported(why) => write!(f, "the private key cannot be used: {why}"),
        }
    }
}

impl std::error::Error for KeyFileError {}

/// Finds the public key in a file's contents.
///
/// # Errors
///
/// [`KeyFileError`], when there is none.
pub fn public_key(contents: &[u8]) -> Result<PublicKey, KeyFileError> {
    if contents.windows(11).any(|w| w == b"-----BEGIN ") { from_pem(contents) } else { from_der(contents) }
}

fn from_pem(contents: &[u8]) -> Result<PublicKey, KeyFileError> {
    let mut chain: Vec<Vec<u8>> = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(contents) {
        let (kind, der) = section.map_err(|e| {
            if is_encrypted(contents) { KeyFileError::Encrypted } else { KeyFileError::Pem(pem_message(&e)) }
        })?;
        match kind {
            SectionKind::Certificate => chain.push(der),
            // A key ahead of its certificates in one file is the same key.
            _ if !chain.is_empty() => {}
            SectionKind::Csr => return of_csr(&der).ok_or(KeyFileError::Malformed("CSR")),
            SectionKind::PublicKey => {
                return of_spki(&der, KeyKind::PublicKey).ok_or(KeyFileError::Malformed("public key"));
            }
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                let key = PrivateKeyDer::from_pem(kind, der).ok_or(KeyFileError::Unknown)?;
                return of_private(&key);
            }
            _ => {}
        }
    }
    let Some(leaf) = chain.first() else {
        return Err(if is_encrypted(contents) { KeyFileError::Encrypted } else { KeyFileError::Unknown });
    };
    let key = of_certificate(leaf).ok_or(KeyFileError::Malformed("certificate"))?;
    Ok(if chain.len() > 1 { PublicKey { kind: KeyKind::Chain, ..key } } else { key })
}

/// PKCS#8 and the older form of OpenSSL, whose headers make the base64 look damaged.
fn is_encrypted(contents: &[u8]) -> bool {
    let marks = [&b"ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"];
    marks.iter().any(|mark| contents.windows(mark.len()).any(|w| w == *mark))
}

/// The words of the PEM reader, without the debug form of its fields.
pub(crate) fn pem_message(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section does not end".into(),
        pem::Error::IllegalSectionStart { .. } => "a section does not begin properly".into(),
        pem::Error::Base64Decode(_) => "not base64".into(),
        pem::Error::NoItemsFound => "nothing found".into(),
        other => other.to_string(),
    }
}

fn from_der(contents: &[u8]) -> Result<PublicKey, KeyFileError> {
    of_certificate(contents)
        .or_else(|| of_csr(contents))
        .or_else(|| of_spki(contents, KeyKind::PublicKey))
        .map_or_else(|| private_from_der(contents), Ok)
}

fn private_from_der(contents: &[u8]) -> Result<PublicKey, KeyFileError> {
    // The formats cannot be told apart by their first octets; each parser refuses the others'.
    let forms: [PrivateKeyDer<'_>; 3] = [
        PrivatePkcs8KeyDer::from(contents).into(),
        PrivateSec1KeyDer::from(contents).into(),
        PrivatePkcs1KeyDer::from(contents).into(),
    ];
    let mut refusal = KeyFileError::Unknown;
    for form in &forms {
        match of_private(form) {
            Err(e @ KeyFileError::Unsupported(_)) if contents.first() == Some(&0x30) => refusal = e,
            Err(_) => {}
            found => return found,
        }
    }
    // An ASN.1 sequence that is none of them is not necessarily a key.
    Err(if matches!(refusal, KeyFileError::Unsupported(_)) { KeyFileError::Unknown } else { refusal })
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
    let known = algorithm_of(&spki) != KeyAlgorithm::Other;
    (rest.is_empty() && known).then(|| key_of(&spki, kind))
}

fn of_private(key: &PrivateKeyDer<'_>) -> Result<PublicKey, KeyFileError> {
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(key)
        .map_err(|e| KeyFileError::Unsupported(e.to_string()))?;
    let spki = signer.public_key().ok_or(KeyFileError::Malformed("private key"))?;
    of_spki(&spki, KeyKind::PrivateKey).ok_or(KeyFileError::Malformed("private key"))
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
        assert_eq!(public_key(encrypted), Err(KeyFileError::Encrypted));
        assert!(matches!(
            public_key(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            Err(KeyFileError::Malformed(_))
        ));
        assert!(matches!(public_key(b"-----BEGIN CERTIFICATE-----\nAAAA\n"), Err(KeyFileError::Pem(_))));
    }

    proptest! {
        #[test]
        fn octets_never_panic(mut octets in prop::collection::vec(any::<u8>(), 0..200), sequence in any::<bool>()) {
            if sequence {
                octets.splice(..0, [0x30, 0x82]);
            }
            let _ = public_key(&octets);
        }
    }
}
