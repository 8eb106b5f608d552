//! The parts of a certificate for which clients refuse it: its extensions and its signature
//! algorithm.

use std::fmt;
use std::net::IpAddr;

use x509_parser::der_parser::oid::Oid;
use x509_parser::prelude::X509Certificate;
use x509_parser::signature_algorithm::RsaSsaPssParams;

/// The part of a signature algorithm that clients refuse: its digest, or the algorithm itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// SHA-1: broken in 2017.
    Sha1,
    /// MD5 and its predecessors.
    Md5,
    /// SHA-224, which no current client supports.
    Sha224,
    /// DSA, with any digest.
    Dsa,
    /// Anything else that is not in `TAKEN`.
    Unknown,
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "SHA-1",
            Self::Md5 => "MD5",
            Self::Sha224 => "SHA-224",
            Self::Dsa => "DSA",
            Self::Unknown => "an algorithm that is not RSA, ECDSA or Ed25519 over SHA-256, SHA-384 or SHA-512",
        })
    }
}

/// Signature algorithms with these digests.
const WEAK: [(&str, Digest); 12] = [
    ("1.2.840.113549.1.1.2", Digest::Md5),
    ("1.2.840.113549.1.1.3", Digest::Md5),
    ("1.2.840.113549.1.1.4", Digest::Md5),
    ("1.2.840.113549.1.1.5", Digest::Sha1),
    ("1.3.14.3.2.29", Digest::Sha1),
    ("1.3.14.3.2.27", Digest::Sha1),
    ("1.2.840.10045.4.1", Digest::Sha1),
    ("1.2.840.10040.4.3", Digest::Sha1),
    ("1.2.840.113549.1.1.14", Digest::Sha224),
    ("1.2.840.10045.4.3.1", Digest::Sha224),
    ("2.16.840.1.101.3.4.3.1", Digest::Dsa),
    ("2.16.840.1.101.3.4.3.2", Digest::Dsa),
];
/// Signature algorithms that clients accept: RSA and ECDSA with SHA-256, SHA-384 and SHA-512, and
/// Ed25519.
const TAKEN: [&str; 7] = [
    "1.2.840.113549.1.1.11",
    "1.2.840.113549.1.1.12",
    "1.2.840.113549.1.1.13",
    "1.2.840.10045.4.3.2",
    "1.2.840.10045.4.3.3",
    "1.2.840.10045.4.3.4",
    "1.3.101.112",
];
/// The digests that they accept with RSA-PSS.
const TAKEN_DIGESTS: [&str; 3] = ["2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.2", "2.16.840.1.101.3.4.2.3"];
const SHA224: &str = "2.16.840.1.101.3.4.2.4";
const RSA_PSS: &str = "1.2.840.113549.1.1.10";
const SHA1: &str = "1.3.14.3.2.26";

/// Extensions that clients understand when they are critical: those of RFC 5280 and RFC 3779,
/// Netscape's certificate type, and OCSP's no-check.
const UNDERSTOOD: [&str; 14] = [
    "2.5.29.15",
    "2.5.29.17",
    "2.5.29.19",
    "2.5.29.30",
    "2.5.29.31",
    "2.5.29.32",
    "2.5.29.33",
    "2.5.29.36",
    "2.5.29.37",
    "2.5.29.54",
    "2.16.840.1.113730.1.1",
    "1.3.6.1.5.5.7.1.7",
    "1.3.6.1.5.5.7.1.8",
    "1.3.6.1.5.5.7.48.1.5",
];
/// TLS features (RFC 7633 section 4).
const FEATURES: &str = "1.3.6.1.5.5.7.1.24";
/// The features that require a staple: status_request (RFC 6066) and its second version (RFC 6961).
const STAPLES: [u8; 2] = [5, 17];
/// Signs of public authorities: proofs of transparency (RFC 6962 section 3.3), and the policies of
/// the CA/Browser Forum.
const PROOFS: &str = "1.3.6.1.4.1.11129.2.4.2";
const FORUM_POLICIES: &str = "2.23.140.1.2.";

/// Returns the weakness for which clients refuse a certificate's signature, if any.
pub(super) fn weak_digest(certificate: &X509Certificate<'_>) -> Option<Digest> {
    let algorithm = &certificate.signature_algorithm;
    let oid = algorithm.algorithm.to_id_string();
    if oid == RSA_PSS {
        // SHA-1 is the default if nothing is stated (RFC 4055 section 3.1).
        let parameters = algorithm.parameters.as_ref().and_then(|p| RsaSsaPssParams::try_from(p).ok())?;
        return match parameters.hash_algorithm_oid().to_id_string().as_str() {
            taken if TAKEN_DIGESTS.contains(&taken) => None,
            SHA1 => Some(Digest::Sha1),
            SHA224 => Some(Digest::Sha224),
            _ => Some(Digest::Unknown),
        };
    }
    refused(&oid)
}

fn refused(oid: &str) -> Option<Digest> {
    if TAKEN.contains(&oid) {
        return None;
    }
    Some(WEAK.iter().find(|(known, _)| *known == oid).map_or(Digest::Unknown, |(_, digest)| *digest))
}

/// Returns the first critical extension that clients do not understand.
pub(super) fn unknown_critical(certificate: &X509Certificate<'_>) -> Option<String> {
    let oid = |oid: &Oid<'_>| oid.to_id_string();
    let critical = certificate.extensions().iter().filter(|e| e.critical).map(|e| oid(&e.oid));
    critical.into_iter().find(|oid| !UNDERSTOOD.contains(&oid.as_str()))
}

/// Returns `true` if clients must refuse it without an OCSP staple. The extension is a SEQUENCE of
/// INTEGERs.
pub(super) fn must_staple(certificate: &X509Certificate<'_>) -> bool {
    let extension = certificate.extensions().iter().find(|e| e.oid.to_id_string() == FEATURES);
    let Some([0x30, _, features @ ..]) = extension.map(|e| e.value) else { return false };
    features.chunks(3).any(|f| matches!(f, [0x02, 0x01, feature] if STAPLES.contains(feature)))
}

/// Returns `true` if its key may sign handshakes: all current key exchanges need it (RFC 8446
/// section 4.4.2.2).
pub(super) fn may_sign_handshakes(certificate: &X509Certificate<'_>) -> bool {
    certificate.key_usage().ok().flatten().is_none_or(|usage| usage.value.digital_signature())
}

/// Returns `true` if it looks like one of a public authority, to which browsers apply stricter
/// rules.
pub(super) fn looks_public(certificate: &X509Certificate<'_>) -> bool {
    use x509_parser::extensions::ParsedExtension;
    certificate.extensions().iter().any(|e| match e.parsed_extension() {
        ParsedExtension::CertificatePolicies(policies) => {
            policies.iter().any(|p| p.policy_id.to_id_string().starts_with(FORUM_POLICIES))
        }
        _ => e.oid.to_id_string() == PROOFS,
    })
}

/// Reads the address of an IP entry: four or sixteen bytes.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures() {
        let check = |oid: &str, want: Option<Digest>| assert_eq!(refused(oid), want, "{oid}");
        for taken in TAKEN {
            check(taken, None);
        }
        check("1.2.840.113549.1.1.5", Some(Digest::Sha1));
        check("1.2.840.113549.1.1.4", Some(Digest::Md5));
        check("1.2.840.10045.4.3.1", Some(Digest::Sha224));
        check("1.2.840.113549.1.1.14", Some(Digest::Sha224));
        check("2.16.840.1.101.3.4.3.2", Some(Digest::Dsa));
        // RSA with SHA-512/256, ECDSA with SHA3-256, Ed448.
        for unknown in ["1.2.840.113549.1.1.16", "2.16.840.1.101.3.4.3.10", "1.3.101.113"] {
            check(unknown, Some(Digest::Unknown));
        }
    }
}
