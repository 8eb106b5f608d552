//! Algorithms of keys, and keys that TLS cannot use.

use std::fmt;

use x509_parser::x509::SubjectPublicKeyInfo;

/// A key's algorithm, in the detail that operators need.
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
    /// Any other algorithm.
    Other,
}

/// The smallest and the largest RSA key that TLS can sign with, in bits.
pub(super) const RSA_MIN: usize = 2048;
pub(super) const RSA_MAX: usize = 8192;

/// The reason why TLS cannot use a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnusableForTls {
    /// Its algorithm or curve is not supported.
    Algorithm(&'static str),
    /// Its curve is given by explicit parameters instead of a name.
    ExplicitCurve,
    /// An RSA key whose modulus has this many bits.
    RsaSize(usize),
}

impl fmt::Display for UnusableForTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Algorithm(name) => write!(f, "{name} is not supported in TLS"),
            Self::ExplicitCurve => f.write_str("its elliptic curve has explicit parameters instead of a name"),
            Self::RsaSize(bits) => {
                write!(f, "RSA of {bits} bits is not supported in TLS: {RSA_MIN} to {RSA_MAX} bits are")
            }
        }
    }
}

impl KeyAlgorithm {
    /// Returns the algorithm with this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match (name, name.strip_prefix("rsa-").and_then(|bits| bits.parse().ok())) {
            (_, Some(bits)) => Self::Rsa(bits),
            ("ecdsa-p256", _) => Self::EcdsaP256,
            ("ecdsa-p384", _) => Self::EcdsaP384,
            ("ecdsa-p521", _) => Self::EcdsaP521,
            ("ed25519", _) => Self::Ed25519,
            _ => Self::Other,
        }
    }
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

/// Returns the algorithm of a SubjectPublicKeyInfo.
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
