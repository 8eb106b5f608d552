//! What kind of key a key is.

use std::fmt;

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

impl KeyAlgorithm {
    /// The one that is shown as this.
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
