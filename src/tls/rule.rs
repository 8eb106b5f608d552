//! The rules of a path of certificates, and what to do where one is broken.

use std::fmt;

use jiff::Timestamp;

use super::extensions::Digest;
use super::preflight::day;
use crate::keys::key_file::KeyAlgorithm;

/// A rule that a path breaks. Places are those of the file: 1 is the leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// A certificate does not bear its issuer's signature.
    Signature {
        /// The certificate.
        at: usize,
        /// The issuer by its name.
        by: usize,
    },
    /// A certificate is signed over a digest that nobody takes any more.
    Digest {
        /// The certificate.
        at: usize,
        /// The digest.
        digest: Digest,
        /// Whether it is above the leaf's own issuer, so that clients may know it as a root.
        is_above: bool,
    },
    /// An extension that clients must understand, and do not.
    Critical {
        /// The certificate.
        at: usize,
        /// The extension.
        oid: String,
    },
    /// An issuer may not issue for a name of the leaf.
    Constraints {
        /// The issuer.
        at: usize,
        /// The name.
        name: String,
    },
    /// An issuer is no CA.
    NoAuthority(usize),
    /// An issuer's key may not sign certificates.
    MayNotSign(usize),
    /// There are more certificates below an issuer than it allows.
    PathLength {
        /// The issuer.
        at: usize,
        /// What it allows.
        length: u32,
    },
    /// An issuer is for something else than servers.
    IssuerUsage(usize),
    /// An issuer's key is too weak.
    WeakIssuer {
        /// The issuer.
        at: usize,
        /// Its key.
        algorithm: KeyAlgorithm,
    },
    /// An issuer has expired.
    IssuerExpired {
        /// The issuer.
        at: usize,
        /// When.
        on: Timestamp,
        /// Whether clients may know it as a root all the same.
        is_above: bool,
    },
    /// An issuer is not valid yet.
    IssuerNotYetValid {
        /// The issuer.
        at: usize,
        /// From when it is.
        on: Timestamp,
        /// Whether clients may know it as a root all the same.
        is_above: bool,
    },
    /// The leaf's issuer expires soon, and the leaf with it.
    IssuerExpiresSoon {
        /// The issuer.
        at: usize,
        /// When.
        on: Timestamp,
    },
    /// rustls refuses the path.
    Refused(String),
    /// A certificate is there twice.
    Copy {
        /// The copy.
        at: usize,
        /// The first of them.
        of: usize,
    },
    /// A certificate that has nothing to do with the leaf.
    Stranger(usize),
    /// The certificates are not in the order of the path.
    Order,
}

impl Rule {
    /// Whether clients refuse the path for it.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Digest { is_above, .. }
            | Self::IssuerExpired { is_above, .. }
            | Self::IssuerNotYetValid { is_above, .. } => !is_above,
            Self::IssuerExpiresSoon { .. } | Self::Refused(_) | Self::Copy { .. } | Self::Stranger(_) | Self::Order => {
                false
            }
            _ => true,
        }
    }

    /// The certificate that it is about, from 1.
    pub(super) fn place(&self) -> Option<usize> {
        match self {
            Self::Signature { at, .. }
            | Self::Digest { at, .. }
            | Self::Critical { at, .. }
            | Self::Constraints { at, .. }
            | Self::NoAuthority(at)
            | Self::MayNotSign(at)
            | Self::PathLength { at, .. }
            | Self::IssuerUsage(at)
            | Self::WeakIssuer { at, .. }
            | Self::IssuerExpired { at, .. }
            | Self::IssuerNotYetValid { at, .. }
            | Self::IssuerExpiresSoon { at, .. }
            | Self::Copy { at, .. }
            | Self::Stranger(at) => Some(*at),
            Self::Refused(_) | Self::Order => None,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Signature { .. } => {
                "put the intermediates behind the leaf that came with it: those of another certificate may have the same \
                 names, but other keys"
            }
            Self::Digest { is_above: true, .. } => "leave it out: clients that know its issuer's root need it no more",
            Self::Digest { .. } => "have it issued anew, signed with SHA-256",
            Self::Critical { .. } => "ask the CA for one without it; a precertificate is not for serving",
            Self::Constraints { .. } => "use an issuer that may issue for this name",
            Self::NoAuthority(_) => "put the CA's own certificate there: basicConstraints = CA:TRUE",
            Self::MayNotSign(_) => "have the CA's certificate issued anew with keyCertSign in its key usage",
            Self::PathLength { .. } => "issue the leaf by a CA that is directly below this one",
            Self::IssuerUsage(_) => "use an issuer for servers: serverAuth in its extended key usage, or none",
            Self::WeakIssuer { .. } => "use an issuer with an RSA key of 2048 bits or more",
            Self::IssuerExpired { is_above: true, .. } => {
                "leave it and what is behind it out: clients go around it, and old ones stumble over it"
            }
            Self::IssuerExpired { .. } | Self::IssuerExpiresSoon { .. } => {
                "get the issuer's renewed certificate from the CA"
            }
            Self::IssuerNotYetValid { .. } => "wait until then, or set this host's clock",
            Self::Refused(_) => "have it issued anew: other clients may refuse it, too",
            Self::Copy { .. } => "leave the copy out; it is not served",
            Self::Stranger(_) => "leave it out; it is not served",
            Self::Order => {
                "the leaf comes first, then the one that issued it, and so on; they are served in this order"
            }
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature { at, by } => {
                write!(f, "certificate {at} of the chain is not signed by the key of certificate {by}")
            }
            Self::Digest { at, digest, .. } => {
                write!(f, "certificate {at} of the chain is signed with {digest}, which clients refuse")
            }
            Self::Critical { at, oid } => {
                write!(f, "certificate {at} of the chain has a critical extension that clients do not know: {oid}")
            }
            Self::Constraints { at, name } => {
                write!(f, "certificate {at} of the chain may not issue for {name} (its name constraints)")
            }
            Self::NoAuthority(at) => {
                write!(f, "certificate {at} of the chain is no CA, and issues (its basic constraints)")
            }
            Self::MayNotSign(at) => {
                write!(f, "certificate {at} of the chain may not sign certificates (no keyCertSign in its key usage)")
            }
            Self::PathLength { at, length } => {
                write!(
                    f,
                    "certificate {at} of the chain allows for {length} CAs below it, and there are more (pathlen)"
                )
            }
            Self::IssuerUsage(at) => write!(
                f,
                "certificate {at} of the chain may not issue for servers (no serverAuth in its extended key usage)"
            ),
            Self::WeakIssuer { at, algorithm } => {
                write!(f, "the key of certificate {at} of the chain is too weak for today's clients: {algorithm}")
            }
            Self::IssuerExpired { at, on, .. } => {
                write!(f, "certificate {at} of the chain, an issuer, expired on {}", day(*on))
            }
            Self::IssuerNotYetValid { at, on, .. } => {
                write!(f, "certificate {at} of the chain, an issuer, is not valid before {}", day(*on))
            }
            Self::IssuerExpiresSoon { at, on } => {
                write!(f, "certificate {at} of the chain, an issuer, expires on {}", day(*on))
            }
            Self::Refused(why) => write!(f, "some clients refuse the chain: {why}"),
            Self::Copy { at, of } => write!(f, "certificate {at} of the chain is a copy of certificate {of}"),
            Self::Stranger(at) => write!(f, "certificate {at} of the chain is on no path from the leaf"),
            Self::Order => f.write_str("the certificates of the chain are not in order"),
        }
    }
}
