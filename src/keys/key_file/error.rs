//! The reasons why a file yields no key, and their remedies.

use std::fmt;
use std::path::Path;

use super::algorithm::UnusableForTls;
use super::foreign::{Foreign, Want, beside, shell};
use crate::keys::pem::PemError;

/// The reason why a file yields no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFileError {
    /// The file has none of the known formats.
    Unknown,
    /// The file has contents, but no certificate.
    NoCertificate,
    /// The file has contents, but no private key.
    NoPrivateKey,
    /// A line of PEM is malformed.
    Pem(PemError),
    /// The section that begins in this line has a label that is not allowed here.
    Label(usize, String),
    /// The named part, in this line of PEM, cannot be parsed.
    Malformed(&'static str, Option<usize>),
    /// A private key encrypted with a passphrase, in PEM or in DER.
    Encrypted {
        /// `true` if it is in PEM.
        pem: bool,
    },
    /// A private key of an algorithm or size that TLS cannot use.
    Unsupported(UnusableForTls),
    /// A format that pintle does not read.
    Foreign(Foreign),
    /// Two different keys, in these lines: it is unclear which one is meant.
    Several(usize, usize),
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("no certificate, CSR, private or public key in it"),
            Self::NoCertificate => f.write_str("no certificate found"),
            Self::NoPrivateKey => f.write_str("none found"),
            Self::Pem(error) => write!(f, "damaged PEM: {error}"),
            Self::Label(line, label) => write!(f, "line {line}: unexpected section {label:?}"),
            Self::Malformed(what, None) => write!(f, "damaged {what}"),
            Self::Malformed(what, Some(line)) => write!(f, "line {line}: damaged {what}"),
            Self::Encrypted { .. } => f.write_str("the private key is encrypted"),
            Self::Unsupported(why) => write!(f, "the private key cannot be used: {why}"),
            Self::Foreign(form) => write!(f, "is {}", form.name()),
            Self::Several(first, second) => {
                write!(f, "line {second}: a different key than in line {first}; a file must hold one key")
            }
        }
    }
}

impl std::error::Error for KeyFileError {}

impl KeyFileError {
    /// Returns the remedy: a command that works as pasted, where one helps.
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
            Self::Unsupported(UnusableForTls::ExplicitCurve) => {
                Some(format!("openssl ec -in {file} -param_enc named_curve -out {}", shell(&beside(path, "new.key"))))
            }
            Self::Unsupported(_) => Some(match want {
                Want::Pin => format!("openssl pkey -in {file} -pubout | pintle pin -"),
                Want::Chain | Want::Key => format!(
                    "this key cannot be converted; make a new one, and have a certificate issued for it: openssl genpkey \
                     -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {}",
                    shell(&beside(path, "new.key"))
                ),
            }),
            Self::Several(..) => Some("put each key into its own file".to_owned()),
            _ => None,
        }
    }
}
