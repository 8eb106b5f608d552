//! The rules for a path of certificates, and the remedies.

use std::fmt;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::extensions::Digest;
use crate::keys::key_file::KeyAlgorithm;

/// A certificate with less time left should have been renewed.
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Of a short lifetime, it is this part. The threshold is a week from a lifetime of 42 days on.
const SOON_PART: i32 = 6;

/// Returns `true` if a certificate that is valid between these times should have been renewed by now.
pub(super) fn ends_soon(from: Timestamp, to: Timestamp, now: Timestamp) -> bool {
    now + SOON.min(to.duration_since(from) / SOON_PART) > to
}

/// A rule that a path breaks. Positions are those of the file: 1 is the leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// A certificate lacks the signature of its issuer.
    Signature {
        /// The certificate.
        at: usize,
        /// The issuer by name.
        by: usize,
    },
    /// A certificate has a signature with an obsolete digest.
    Digest {
        /// The certificate.
        at: usize,
        /// The digest.
        digest: Digest,
        /// `true` if it is above the leaf's own issuer, so clients may trust it as a root.
        is_above: bool,
    },
    /// An extension that is critical, but clients do not understand it.
    Critical {
        /// The certificate.
        at: usize,
        /// The extension.
        oid: String,
    },
    /// An issuer may not certify a name of the leaf.
    Constraints {
        /// The issuer.
        at: usize,
        /// The name.
        name: String,
    },
    /// An issuer is not a CA.
    NoAuthority(usize),
    /// An issuer's key may not sign certificates.
    MayNotSign(usize),
    /// More CAs are below an issuer than it allows.
    PathLength {
        /// The issuer.
        at: usize,
        /// The allowed number.
        length: u32,
    },
    /// An issuer is not for servers.
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
        /// The time of expiry.
        on: Timestamp,
        /// `true` if clients may trust it as a root nevertheless.
        is_above: bool,
    },
    /// An issuer is not valid yet.
    IssuerNotYetValid {
        /// The issuer.
        at: usize,
        /// The beginning of its validity.
        on: Timestamp,
        /// `true` if clients may trust it as a root nevertheless.
        is_above: bool,
    },
    /// The leaf's issuer expires soon. Then the leaf is unusable, too.
    IssuerExpiresSoon {
        /// The issuer.
        at: usize,
        /// The time of expiry.
        on: Timestamp,
    },
    /// rustls refuses the path.
    Refused(String),
    /// The file has a certificate twice.
    Copy {
        /// The copy.
        at: usize,
        /// The first copy.
        of: usize,
    },
    /// A certificate that is unrelated to the leaf.
    Stranger(usize),
    /// The certificates are not in path order.
    Order,
}

impl Rule {
    /// Returns `true` if clients refuse the path for it.
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

    /// Returns the position of the certificate, from 1.
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

    /// Returns the remedy.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Signature { .. } => {
                "use the intermediates that came with this leaf: those of another certificate may have the same names, but \
                 other keys"
            }
            Self::Digest { is_above: true, .. } => "remove it: clients that know its issuer's root do not need it",
            Self::Digest { .. } => "have it reissued with a SHA-256 signature",
            Self::Critical { .. } => "ask the CA for one without it; a precertificate cannot be served",
            Self::Constraints { .. } => "use an issuer that may issue for this name",
            Self::NoAuthority(_) => "use the CA's own certificate there: basicConstraints = CA:TRUE",
            Self::MayNotSign(_) => "have the CA's certificate reissued with keyCertSign in its key usage",
            Self::PathLength { .. } => "have the leaf issued by a CA directly below this one",
            Self::IssuerUsage(_) => "use an issuer for servers: serverAuth in its extended key usage, or none",
            Self::WeakIssuer { .. } => "use an issuer with an RSA key of 2048 bits or more",
            Self::IssuerExpired { is_above: true, .. } => {
                "remove it and the certificates after it: current clients use another path, old ones may fail on it"
            }
            Self::IssuerExpired { .. } | Self::IssuerExpiresSoon { .. } => {
                "get the issuer's renewed certificate from the CA"
            }
            Self::IssuerNotYetValid { .. } => "wait until then, or set this host's clock",
            Self::Refused(_) => "have it reissued: other clients may refuse it, too",
            Self::Copy { .. } => "remove the copy; pintle does not serve it",
            Self::Stranger(_) => "remove it; pintle does not serve it",
            Self::Order => "the leaf comes first, then its issuer, and so on; pintle serves them in this order",
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
                write!(f, "certificate {at} of the chain is not a CA, but an issuer (its basic constraints)")
            }
            Self::MayNotSign(at) => {
                write!(f, "certificate {at} of the chain may not sign certificates (no keyCertSign in its key usage)")
            }
            Self::PathLength { at, length } => {
                write!(f, "certificate {at} of the chain allows {length} CAs below it, but there are more (pathlen)")
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

/// Formats a day in UTC: `2026-11-26`.
pub fn day(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string()
}
