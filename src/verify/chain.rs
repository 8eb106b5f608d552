//! The chain that a server sends, and the path that a client builds from it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::{CertificateError, RootCertStore};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::X509Name;

use crate::keys::key_file::KeyAlgorithm;
use crate::keys::pin::Pin;
use crate::tls::certificate::{Leaf, name_of};
use crate::tls::config::provider;
use crate::tls::failure::of_webpki;
use crate::tls::rule::day;

/// The most certificates of a chain that are read; the rest of a longer chain is ignored.
const CHAIN_MAX: usize = 16;
/// The tag of a SEQUENCE in DER.
const SEQUENCE: u8 = 0x30;

/// A certificate of the chain.
#[derive(Debug, Clone)]
pub struct SeenCertificate {
    /// The best-known part of its subject name.
    pub subject: String,
    /// The pin of its key.
    pub pin: Pin,
    /// Its other contents.
    pub facts: Leaf,
}

/// The root of a path.
#[derive(Debug, Clone)]
pub struct Root {
    /// The best-known part of its subject name.
    pub subject: String,
    /// The pin of its key.
    pub pin: Pin,
}

/// A server's chain, and the verdict of a client.
#[derive(Debug, Clone)]
pub struct SeenChain {
    /// The certificates in the order sent, the leaf first, without unreadable ones.
    pub served: Vec<SeenCertificate>,
    /// The reason why a client does not trust it, if any.
    pub distrust: Option<Distrust>,
    /// The root, if a client trusts the chain.
    pub root: Option<Root>,
    /// The pins of the validated path, root included. RFC 7469 section 2.6: clients compare pins
    /// with this path, not with the certificates that were sent.
    path: Vec<Pin>,
}

/// The certificates that a client trusts.
#[derive(Debug, Clone)]
pub struct ClientTrust {
    /// The roots.
    pub roots: Arc<RootCertStore>,
    /// Certificates that are trusted as they are: those of `--ca`. Many test servers send a root as
    /// their leaf, with which a path cannot begin.
    pub own: Vec<CertificateDer<'static>>,
    /// The file of `--ca`.
    pub file: Option<PathBuf>,
}

/// The reason why a client does not trust a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distrust {
    /// The name of the check.
    pub check: &'static str,
    /// The reason in words.
    pub message: String,
    /// A remedy, if there is a general one.
    pub hint: Option<&'static str>,
}

impl SeenChain {
    /// Examines a chain as a client with this trust would.
    #[must_use]
    pub fn examine(der: &[CertificateDer<'_>], trust: &ClientTrust, name: &ServerName<'_>, now: Timestamp) -> Self {
        let der = der.get(..CHAIN_MAX).unwrap_or(der);
        let served: Vec<SeenCertificate> = der.iter().filter_map(|d| SeenCertificate::read(d)).collect();
        let clock = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().unsigned_abs()));
        let (mut path, mut root) = (Vec::new(), None);
        let verdict = match der.first().filter(|leaf| trust.own.contains(leaf)) {
            Some(leaf) => verify_own(leaf, served.first(), name, now),
            None => verify(der, &trust.roots, name, clock),
        };
        let distrust = match verdict {
            Ok(()) => {
                (path, root) = validated_path(der, &trust.roots, clock).unwrap_or_default();
                None
            }
            Err(error) => Some(distrust(&error, served.first(), name, now)),
        };
        Self { served, distrust, root, path }
    }

    /// Returns the pins that a client compares its own with: those of the validated path, or
    /// without one those of the certificates sent.
    #[must_use]
    pub fn pins(&self) -> Vec<Pin> {
        if self.path.is_empty() { self.served.iter().map(|c| c.pin).collect() } else { self.path.clone() }
    }

    /// Returns the pin of the leaf.
    #[must_use]
    pub fn leaf_pin(&self) -> Option<Pin> {
        self.served.first().map(|c| c.pin)
    }

    /// Returns `true` if the leaf's key is RSA.
    #[must_use]
    pub fn is_rsa(&self) -> bool {
        self.served.first().is_some_and(|c| matches!(c.facts.algorithm, KeyAlgorithm::Rsa(_)))
    }
}

impl SeenCertificate {
    fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let pin = Pin::of_spki(certificate.tbs_certificate.subject_pki.raw);
        Some(Self { subject: name_of(certificate.subject()), pin, facts: Leaf::of(&certificate)? })
    }
}

fn verify(
    der: &[CertificateDer<'_>],
    roots: &Arc<RootCertStore>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let (leaf, rest) = der.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider())
        .build()
        .map_err(|e| rustls::Error::General(e.to_string()))?;
    verifier.verify_server_cert(leaf, rest, name, &[], now).map(|_| ())
}

/// Checks a certificate that the user trusts: it needs no issuer, but must be valid for this name
/// and this day.
fn verify_own(
    der: &CertificateDer<'_>,
    leaf: Option<&SeenCertificate>,
    name: &ServerName<'_>,
    now: Timestamp,
) -> Result<(), rustls::Error> {
    let facts = &leaf.ok_or(CertificateError::BadEncoding)?.facts;
    let certificate = webpki::EndEntityCert::try_from(der).map_err(|_| CertificateError::BadEncoding)?;
    if now > facts.not_after {
        return Err(CertificateError::Expired.into());
    }
    if now < facts.not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    certificate.verify_is_valid_for_subject_name(name).map_err(|_| CertificateError::NotValidForName.into())
}

fn distrust(error: &rustls::Error, leaf: Option<&SeenCertificate>, name: &ServerName<'_>, now: Timestamp) -> Distrust {
    let certificate = match error {
        rustls::Error::InvalidCertificate(certificate) => certificate,
        rustls::Error::NoCertificatesPresented => return invalid("no certificate was sent", None),
        other => return invalid(other.to_string(), None),
    };
    of_leaf(certificate, leaf.map(|c| &c.facts), name, now).unwrap_or_else(|| of_chain(certificate))
}

fn invalid(message: impl Into<String>, hint: Option<&'static str>) -> Distrust {
    Distrust { check: "certificate-invalid", message: message.into(), hint }
}

/// Explains errors with the leaf's dates, names and issuer.
fn of_leaf(error: &CertificateError, leaf: Option<&Leaf>, name: &ServerName<'_>, now: Timestamp) -> Option<Distrust> {
    use CertificateError as E;
    let on = |time: Option<Timestamp>| time.map(|t| format!(" on {}", day(t))).unwrap_or_default();
    let (check, message, hint) = match error {
        E::Expired | E::ExpiredContext { .. } => {
            // The date is the leaf's only if the leaf has expired.
            let end = leaf.map(|f| f.not_after).filter(|end| *end < now);
            let what = if end.is_some() { "expired" } else { "a certificate of the chain has expired" };
            ("certificate-expired", format!("{what}{}", on(end)), "install a renewed certificate")
        }
        E::NotValidYet | E::NotValidYetContext { .. } => {
            let begin = leaf.map(|f| f.not_before).filter(|begin| *begin > now);
            ("certificate-not-yet-valid", format!("becomes valid{}", on(begin)), "check the clocks of both machines")
        }
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            let names = leaf.map(Leaf::names).unwrap_or_default();
            let message = format!("is for {names}, not for {}", name.to_str());
            ("certificate-name", message, "get a certificate for all names of the site")
        }
        // Another root of the same name has another signature.
        E::UnknownIssuer | E::BadSignature => {
            let issuer = leaf.map(|f| f.issuer.as_str()).unwrap_or_default();
            (
                "certificate-untrusted",
                format!("no path to a trusted root; the certificate names {issuer} as its issuer"),
                "check that the server sends all intermediate certificates; --ca FILE trusts roots of your own",
            )
        }
        _ => return None,
    };
    Some(Distrust { check, message, hint: Some(hint) })
}

/// Explains errors of any certificate of the chain.
fn of_chain(error: &CertificateError) -> Distrust {
    use CertificateError as E;
    match error {
        E::UnsupportedSignatureAlgorithmContext { .. } | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            invalid(
                "a certificate of the chain is signed with an algorithm or a key that clients do not accept",
                Some("have it reissued, signed with SHA-256 by an ECDSA key, or by an RSA key of 2048 bits or more"),
            )
        }
        E::BadEncoding => invalid("a certificate of the chain is damaged", None),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => invalid(
            "a certificate of the chain is not for servers (no serverAuth in its extended key usage)",
            Some("ask the CA for a certificate with the extended key usage serverAuth"),
        ),
        E::UnhandledCriticalExtension => invalid(
            "a certificate of the chain has a critical extension that clients do not know",
            Some("ask the CA for a certificate without it"),
        ),
        E::Other(other) => invalid(of_webpki(&other.0), None),
        other => invalid(other.to_string(), None),
    }
}

/// Returns the pins of the path from leaf to root, and the root.
fn validated_path(
    der: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
) -> Option<(Vec<Pin>, Option<Root>)> {
    let (leaf, rest) = der.split_first()?;
    let leaf = webpki::EndEntityCert::try_from(leaf).ok()?;
    let algorithms = provider().signature_verification_algorithms.all;
    let usage = webpki::KeyUsage::server_auth();
    let path = leaf.verify_for_usage(algorithms, &roots.roots, rest, now, usage, None, None).ok()?;
    let root = root_of(path.anchor());
    let mut pins = vec![Pin::of_spki(&leaf.subject_public_key_info())];
    pins.extend(path.intermediate_certificates().map(|c| Pin::of_spki(&c.subject_public_key_info())));
    pins.push(root.pin);
    // A root that is the leaf, or one that is sent along under another's signature, counts once.
    let mut distinct: Vec<Pin> = Vec::new();
    for pin in pins {
        if !distinct.contains(&pin) {
            distinct.push(pin);
        }
    }
    Some((distinct, Some(root)))
}

/// Reads a trust anchor. It holds the contents of its name and key without the header of the
/// SEQUENCE, which a pin includes.
fn root_of(anchor: &TrustAnchor<'_>) -> Root {
    let name = sequence(&anchor.subject);
    let subject = X509Name::from_der(&name).map(|(_, name)| name_of(&name)).unwrap_or_default();
    Root { subject, pin: Pin::of_spki(&sequence(&anchor.subject_public_key_info)) }
}

fn sequence(contents: &[u8]) -> Vec<u8> {
    let length = contents.len().to_be_bytes();
    let significant = &length[length.iter().position(|b| *b != 0).unwrap_or(length.len() - 1)..];
    let mut der = vec![SEQUENCE];
    // X.690 section 8.1.3: one byte below 128, else the number of bytes that follow.
    if contents.len() >= 128 {
        der.push(0x80 | u8::try_from(significant.len()).unwrap_or_default());
    }
    der.extend_from_slice(significant);
    der.extend_from_slice(contents);
    der
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData as _};
    use rustls::pki_types::pem::PemObject as _;
    use time::OffsetDateTime;

    struct TestAuthority {
        certificate: rcgen::Certificate,
        pin: Pin,
        issuer: Issuer<'static, KeyPair>,
    }

    fn ca(name: &str, above: Option<&TestAuthority>, algorithm: &'static rcgen::SignatureAlgorithm) -> TestAuthority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = match above {
            Some(above) => params.signed_by(&key, &above.issuer),
            None => params.self_signed(&key),
        };
        let pin = Pin::of_spki(&key.subject_public_key_info());
        TestAuthority { certificate: certificate.unwrap(), pin, issuer: Issuer::new(params, key) }
    }

    fn leaf(names: &[&str], issuer: &TestAuthority, from: i64, to: i64) -> (CertificateDer<'static>, Pin) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = OffsetDateTime::now_utc() + time::Duration::days(from);
        params.not_after = OffsetDateTime::now_utc() + time::Duration::days(to);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer.issuer).unwrap();
        (certificate.der().clone(), Pin::of_spki(&key.subject_public_key_info()))
    }

    fn examine(der: &[CertificateDer<'static>], root: &TestAuthority, name: &str) -> SeenChain {
        let mut roots = RootCertStore::empty();
        roots.add(root.certificate.der().clone()).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let trust = ClientTrust { roots: Arc::new(roots), own: vec![root.certificate.der().clone()], file: None };
        SeenChain::examine(der, &trust, &name, Timestamp::now())
    }

    #[test]
    fn the_path_ends_at_the_root_and_leaves_out_what_is_not_on_it() {
        // P-384 and P-521 keys have headers of both forms in their SubjectPublicKeyInfo.
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let root = ca("root", None, algorithm);
            let middle = ca("middle", Some(&root), algorithm);
            let stray = ca("stray", None, algorithm);
            let (leaf, pin) = leaf(&["a.example"], &middle, -1, 9);
            let sent = [leaf, stray.certificate.der().clone(), middle.certificate.der().clone()];
            let chain = examine(&sent, &root, "a.example");
            assert_eq!(chain.distrust, None);
            assert_eq!(chain.pins(), [pin, middle.pin, root.pin]);
            assert_eq!(chain.root.as_ref().map(|r| (&*r.subject, r.pin)), Some(("root", root.pin)));
            assert_eq!(chain.served.len(), 3);
            assert_eq!((&*chain.served[0].facts.issuer, chain.served[1].pin), ("middle", stray.pin));
        }
    }

    /// No error is shown in its Debug form.
    #[test]
    fn rarer_distrust_is_told_in_words() {
        use CertificateError as E;
        let of_key = E::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: vec![1],
            public_key_algorithm_id: vec![2],
        };
        let of_digest =
            E::UnsupportedSignatureAlgorithmContext { signature_algorithm_id: vec![1], supported_algorithms: vec![] };
        let other = |error: webpki::Error| E::Other(rustls::OtherError(Arc::new(error)));
        let name = ServerName::try_from("a.example").unwrap();
        for (error, want) in [
            (of_key, "is signed with an algorithm"),
            (of_digest, "is signed with an algorithm"),
            (E::BadEncoding, "is damaged"),
            (E::InvalidPurpose, "is not for servers"),
            (E::UnhandledCriticalExtension, "critical extension"),
            (other(webpki::Error::CaUsedAsEndEntity), "a CA's own certificate"),
            (other(webpki::Error::PathLenConstraintViolated), "more CAs"),
        ] {
            let found = distrust(&error.into(), None, &name, Timestamp::now());
            assert_eq!(found.check, "certificate-invalid");
            assert!(found.message.contains(want) && !found.message.contains('{'), "{found:?}");
        }
    }

    #[test]
    fn distrust_is_told_in_words() {
        let root = ca("root", None, &rcgen::PKCS_ECDSA_P256_SHA256);
        let other = ca("other", None, &rcgen::PKCS_ECDSA_P256_SHA256);
        let check = |from, to, root: &TestAuthority, issuer: &TestAuthority, want: (&str, &str)| {
            let (leaf, pin) = leaf(&["a.example"], issuer, from, to);
            let name = if want.0 == "certificate-name" { "b.example" } else { "a.example" };
            let chain = examine(&[leaf], root, name);
            let distrust = chain.distrust.clone().unwrap();
            assert_eq!(distrust.check, want.0);
            assert!(distrust.message.contains(want.1), "{distrust:?}");
            // Without a path, pins are compared with the certificates that were sent.
            assert_eq!(chain.pins(), [pin]);
        };
        check(-9, -1, &root, &root, ("certificate-expired", "expired on 20"));
        check(1, 9, &root, &root, ("certificate-not-yet-valid", "becomes valid on 20"));
        check(-1, 9, &root, &root, ("certificate-name", "is for a.example, not for b.example"));
        check(-1, 9, &other, &root, ("certificate-untrusted", "names root as its issuer"));
        let garbage = CertificateDer::from(b"no certificate".to_vec());
        let chain = examine(&[garbage], &root, "a.example");
        assert_eq!((chain.served.len(), chain.distrust.unwrap().check), (0, "certificate-invalid"));
        assert_eq!(examine(&[], &root, "a.example").distrust.unwrap().message, "no certificate was sent");
    }

    /// `openssl req -x509` makes such certificates, and small servers send them.
    #[test]
    fn a_root_that_is_sent_as_leaf() {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let pin = Pin::of_spki(&key.subject_public_key_info());
        let root = TestAuthority { certificate, pin, issuer: Issuer::new(params, key) };
        let sent = [root.certificate.der().clone()];
        let chain = examine(&sent, &root, "a.example");
        assert_eq!((chain.distrust.clone(), chain.pins()), (None, vec![pin]));
        assert_eq!(examine(&sent, &root, "b.example").distrust.unwrap().check, "certificate-name");
        let other = ca("other", None, &rcgen::PKCS_ECDSA_P256_SHA256);
        assert!(examine(&sent, &other, "a.example").distrust.is_some());
    }

    #[test]
    fn headers_of_sequences() {
        for (len, header) in
            [(0, &[0x30, 0][..]), (127, &[0x30, 127]), (128, &[0x30, 0x81, 128]), (256, &[0x30, 0x82, 1, 0])]
        {
            let der = sequence(&vec![7; len]);
            assert_eq!((&der[..header.len()], der.len()), (header, header.len() + len));
        }
    }

    #[test]
    fn every_root_of_mozillas_has_a_name_and_a_key() {
        for anchor in webpki_roots::TLS_SERVER_ROOTS {
            assert!(!root_of(anchor).subject.is_empty());
            let spki = sequence(&anchor.subject_public_key_info);
            let (rest, spki) = x509_parser::x509::SubjectPublicKeyInfo::from_der(&spki).unwrap();
            assert!(rest.is_empty() && crate::keys::key_file::algorithm_of(&spki) != KeyAlgorithm::Other);
        }
        assert!(CertificateDer::from_pem_slice(b"").is_err());
    }
}
