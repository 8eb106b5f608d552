//! What a certificate says in its extensions and by its signature, as far as clients refuse one for it.

use std::fmt;

use x509_parser::der_parser::oid::Oid;
use x509_parser::prelude::X509Certificate;
use x509_parser::signature_algorithm::RsaSsaPssParams;

/// A digest that nobody takes in signatures of certificates any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// SHA-1: broken in 2017.
    Sha1,
    /// MD5, and its forebears.
    Md5,
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "SHA-1",
            Self::Md5 => "MD5",
        })
    }
}

/// Signature algorithms over such digests.
const WEAK: [(&str, Digest); 8] = [
    ("1.2.840.113549.1.1.2", Digest::Md5),
    ("1.2.840.113549.1.1.3", Digest::Md5),
    ("1.2.840.113549.1.1.4", Digest::Md5),
    ("1.2.840.113549.1.1.5", Digest::Sha1),
    ("1.3.14.3.2.29", Digest::Sha1),
    ("1.3.14.3.2.27", Digest::Sha1),
    ("1.2.840.10045.4.1", Digest::Sha1),
    ("1.2.840.10040.4.3", Digest::Sha1),
];
const RSA_PSS: &str = "1.2.840.113549.1.1.10";
const SHA1: &str = "1.3.14.3.2.26";

/// Extensions that clients understand where they are critical: those of RFC 5280, those of RFC 3779, Netscape's certificate
/// type, and OCSP's no-check.
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
/// The features that want a staple: status_request (RFC 6066) and its second version (RFC 6961).
const STAPLES: [u8; 2] = [5, 17];
/// Certificates of public authorities: proofs of transparency (RFC 6962 section 3.3), and the policies of the CA/Browser
/// Forum.
const PROOFS: &str = "1.3.6.1.4.1.11129.2.4.2";
const FORUM_POLICIES: &str = "2.23.140.1.2.";

/// The digest of a certificate's signature, if it is weak.
pub(super) fn weak_digest(certificate: &X509Certificate<'_>) -> Option<Digest> {
    let algorithm = &certificate.signature_algorithm;
    let oid = algorithm.algorithm.to_id_string();
    if oid == RSA_PSS {
        // SHA-1 is the default where nothing is said (RFC 4055 section 3.1).
        let parameters = algorithm.parameters.as_ref().and_then(|p| RsaSsaPssParams::try_from(p).ok())?;
        return (parameters.hash_algorithm_oid().to_id_string() == SHA1).then_some(Digest::Sha1);
    }
    WEAK.iter().find(|(known, _)| *known == oid).map(|(_, digest)| *digest)
}

/// The first critical extension that clients do not understand.
pub(super) fn unknown_critical(certificate: &X509Certificate<'_>) -> Option<String> {
    let oid = |oid: &Oid<'_>| oid.to_id_string();
    let critical = certificate.extensions().iter().filter(|e| e.critical).map(|e| oid(&e.oid));
    critical.into_iter().find(|oid| !UNDERSTOOD.contains(&oid.as_str()))
}

/// Whether it asks clients to refuse it without an OCSP staple: a SEQUENCE of INTEGERs.
pub(super) fn must_staple(certificate: &X509Certificate<'_>) -> bool {
    let extension = certificate.extensions().iter().find(|e| e.oid.to_id_string() == FEATURES);
    let Some([0x30, _, features @ ..]) = extension.map(|e| e.value) else { return false };
    features.chunks(3).any(|f| matches!(f, [0x02, 0x01, feature] if STAPLES.contains(feature)))
}

/// Whether its key may sign handshakes: all that is left of key exchanges needs it (RFC 8446 section 4.4.2.2).
pub(super) fn may_sign_handshakes(certificate: &X509Certificate<'_>) -> bool {
    certificate.key_usage().ok().flatten().is_none_or(|usage| usage.value.digital_signature())
}

/// Whether it looks like one of a public authority, which browsers hold to the rules of those.
pub(super) fn looks_public(certificate: &X509Certificate<'_>) -> bool {
    use x509_parser::extensions::ParsedExtension;
    certificate.extensions().iter().any(|e| match e.parsed_extension() {
        ParsedExtension::CertificatePolicies(policies) => {
            policies.iter().any(|p| p.policy_id.to_id_string().starts_with(FORUM_POLICIES))
        }
        _ => e.oid.to_id_string() == PROOFS,
    })
}
