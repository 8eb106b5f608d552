//! A certificate chain with its private key, verified to match.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS;
use x509_parser::prelude::{FromDer, X509Certificate, X509Extension};

use super::extensions;
use super::path::Paths;
use super::rule::Rule;
use super::session_chain::ChainId;
use crate::host::HostPattern;
use crate::keys::key_file::{self, KeyAlgorithm, KeyFileError, algorithm_of};
use crate::keys::pem;
use crate::keys::pin::Pin;

/// The most certificates in one chain.
const CHAIN_MAX: usize = 16;

/// The facts of a leaf certificate.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Its serial number in hexadecimal.
    pub serial: String,
    /// The name of its issuer.
    pub issuer: String,
    /// The beginning of its validity.
    pub not_before: Timestamp,
    /// The end of its validity.
    pub not_after: Timestamp,
    /// The key's algorithm.
    pub algorithm: KeyAlgorithm,
    /// `true` if servers may use it: it has no extended key usage, or one with serverAuth (RFC 5280
    /// section 4.2.1.12).
    pub is_for_servers: bool,
    /// `true` if it may issue certificates.
    pub is_authority: bool,
    /// `true` if it names the place of its issuer's certificate, as public authorities do.
    pub has_issuer_elsewhere: bool,
    /// `true` if clients refuse it without an OCSP staple (RFC 7633).
    pub must_staple: bool,
    /// `true` if its key may sign handshakes (RFC 5280 section 4.2.1.3, digitalSignature).
    pub may_sign: bool,
    /// `true` if a public authority seems to have issued it.
    pub looks_public: bool,
    names: Vec<HostPattern>,
    addresses: Vec<IpAddr>,
    /// Names that cannot match any host.
    unusable: Vec<String>,
}

/// A chain as clients receive it, with its pins and the facts of its leaf.
#[derive(Debug, Clone)]
pub struct Chain {
    /// The leaf's facts.
    pub leaf: Leaf,
    /// The pins of all served certificates, the leaf's first.
    pub pins: Vec<Pin>,
    /// The pins on every path that a client may build: those of the leaf and of the key that signed
    /// it. Keys further up may be missing, depending on the client's trust anchors (RFC 7469
    /// section 2.6). A client may trust a cross-signed authority itself and never look at the one
    /// above.
    pub certain: Vec<Pin>,
    id: ChainId,
    paths: Arc<Paths>,
    /// Moved out once the chain has its key.
    der: Vec<CertificateDer<'static>>,
}

/// A chain and the private key of its leaf.
pub struct Certificate {
    /// The chain.
    pub chain: Arc<Chain>,
    key: Arc<CertifiedKey>,
}

/// The reason why a chain, or its key, cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateError {
    /// The file has no readable certificate.
    Chain(KeyFileError),
    /// The chain is longer than any real one.
    ChainTooLong,
    /// The certificate at this position (1 is the leaf) is damaged; the line where it begins.
    Malformed(usize, Option<usize>),
    /// The file has no usable private key.
    Key(KeyFileError),
    /// The key belongs to another certificate.
    KeyMismatch,
    /// The certificate at this position was not issued by the next one.
    Order(usize),
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(why) => write!(f, "no certificate chain: {why}"),
            Self::ChainTooLong => write!(f, "more than {CHAIN_MAX} certificates in one chain"),
            Self::Malformed(at, None) => write!(f, "certificate {at} of the chain is damaged"),
            Self::Malformed(at, Some(line)) => write!(f, "certificate {at} of the chain, in line {line}, is damaged"),
            Self::Key(why) => write!(f, "no usable private key: {why}"),
            Self::KeyMismatch => f.write_str("the private key does not match the certificate"),
            Self::Order(at) => write!(f, "certificate {at} of the chain was not issued by certificate {}", at + 1),
        }
    }
}

impl std::error::Error for CertificateError {}

impl Chain {
    /// Reads a chain from PEM (or one certificate from DER), leaf first. Drops copies and unrelated
    /// certificates.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] if it is not a chain.
    pub fn from_pem(contents: &[u8]) -> Result<Self, CertificateError> {
        let (mut der, mut lines) = (Vec::new(), Vec::new());
        for (line, certificate) in key_file::certificates(contents).map_err(CertificateError::Chain)? {
            der.push(certificate);
            lines.push(line);
            if der.len() > CHAIN_MAX {
                return Err(CertificateError::ChainTooLong);
            }
        }
        let mut parsed = Vec::with_capacity(der.len());
        for (at, one) in der.iter().enumerate() {
            match X509Certificate::from_der(one) {
                Ok(([], certificate)) => parsed.push(certificate),
                _ => return Err(CertificateError::Malformed(at + 1, lines[at])),
            }
        }
        let leaf = Leaf::of(&parsed[0]).ok_or(CertificateError::Malformed(1, lines[0]))?;
        let paths = Paths::find(&parsed, &der).ok_or(CertificateError::Order(1))?;
        let served: Vec<&X509Certificate<'_>> = paths.served.iter().map(|at| &parsed[*at]).collect();
        let pins: Vec<Pin> = served.iter().map(|c| Pin::of_spki(c.tbs_certificate.subject_pki.raw)).collect();
        let certain = certain(&paths, &pins);
        drop(parsed);
        let der = paths.served.iter().map(|at| der[*at].clone()).collect();
        let id = ChainId::of(&certain);
        Ok(Self { leaf, pins, certain, id, paths: Arc::new(paths), der })
    }

    /// Returns the served certificates in PEM; empty once the chain has its key.
    #[must_use]
    pub fn pem(&self) -> String {
        pem::certificates(&self.der)
    }

    /// Returns the leaf's pin.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.pins[0]
    }

    /// Returns the identity of the chain for sessions.
    #[must_use]
    pub fn id(&self) -> ChainId {
        self.id
    }

    /// Returns the path rules that the chain breaks at a time.
    #[must_use]
    pub fn broken_rules(&self, now: Timestamp) -> Vec<Rule> {
        self.paths.judge(now)
    }

    /// Returns the served certificates, leaf first. Empty once the chain has its key: then
    /// [`Certificate::der`] has them.
    #[must_use]
    pub fn der(&self) -> &[CertificateDer<'static>] {
        &self.der
    }
}

/// Returns the leaf's pin, and that of the key that signed it, if the chain has it.
fn certain(paths: &Paths, pins: &[Pin]) -> Vec<Pin> {
    let has_signed = |(at, _): &(&usize, &Pin)| paths.has_signed_leaf.get(**at).is_some_and(|signed| *signed);
    let issuer = paths.served.iter().zip(pins).skip(1).find(has_signed).map(|(_, pin)| pin);
    let mut certain: Vec<Pin> = pins.first().into_iter().chain(issuer).copied().collect();
    certain.dedup();
    certain
}

impl Leaf {
    /// Returns `None` if a date is out of range.
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Option<Self> {
        let (mut names, mut addresses, mut unusable) = (Vec::new(), Vec::new(), Vec::new());
        if let Ok(Some(extension)) = certificate.subject_alternative_name() {
            for name in &extension.value.general_names {
                match name {
                    // Names in certificates are ASCII (RFC 5280 section 4.2.1.6).
                    GeneralName::DNSName(name) if name.is_ascii() => match usable_name(name) {
                        Some(pattern) => names.push(pattern),
                        None => unusable.push((*name).to_owned()),
                    },
                    GeneralName::IPAddress(bytes) => addresses.extend(extensions::address(bytes)),
                    _ => {}
                }
            }
        }
        let validity = certificate.validity();
        Some(Self {
            serial: certificate.raw_serial().iter().map(|b| format!("{b:02x}")).collect(),
            issuer: name_of(certificate.issuer()),
            not_before: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
            not_after: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
            algorithm: algorithm_of(certificate.public_key()),
            is_for_servers: match certificate.extended_key_usage() {
                Ok(Some(usage)) => usage.value.server_auth || usage.value.any,
                Ok(None) => true,
                Err(_) => false,
            },
            is_authority: certificate.is_ca(),
            has_issuer_elsewhere: certificate.extensions().iter().any(names_issuer),
            must_staple: extensions::must_staple(certificate),
            may_sign: extensions::may_sign_handshakes(certificate),
            looks_public: extensions::looks_public(certificate),
            names,
            addresses,
            unusable,
        })
    }

    /// Returns `true` if clients accept the certificate for this name: only subject alternative
    /// names count (RFC 9525 section 6).
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| name.matches(host))
            || HostPattern::parse(host).ok().and_then(|h| h.address()).is_some_and(|a| self.addresses.contains(&a))
    }

    /// Returns `true` if clients accept the certificate for all names of a pattern.
    #[must_use]
    pub fn covers_pattern(&self, pattern: &HostPattern) -> bool {
        match pattern.exact() {
            Some(host) => self.covers(host),
            None => self.names.contains(pattern),
        }
    }

    /// Returns its names that cannot match any host, unchanged.
    #[must_use]
    pub fn unusable_names(&self) -> &[String] {
        &self.unusable
    }

    /// Returns its names, and its addresses in their normal form.
    pub fn all_names(&self) -> impl Iterator<Item = String> {
        let names = self.names.iter().map(ToString::to_string);
        names.chain(self.addresses.iter().map(|address| address.to_canonical().to_string()))
    }

    /// Returns its names for messages.
    #[must_use]
    pub fn names(&self) -> String {
        let names = self.names.iter().map(ToString::to_string);
        let all: Vec<String> = names.chain(self.addresses.iter().map(ToString::to_string)).collect();
        if all.is_empty() { "no name at all".into() } else { all.join(", ") }
    }
}

/// Returns a DNS name as clients match it. In a certificate a name has no trailing dot (RFC 5280
/// section 4.2.1.6), and an address is an entry of another type.
fn usable_name(name: &str) -> Option<HostPattern> {
    let is_name = |pattern: &HostPattern| pattern.address().is_none() && !pattern.base().starts_with('[');
    HostPattern::parse(name).ok().filter(|pattern| !name.ends_with('.') && is_name(pattern))
}

/// Returns `true` for an authority information access with caIssuers (RFC 5280 section 4.2.2.1).
fn names_issuer(extension: &X509Extension<'_>) -> bool {
    match extension.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(access) => {
            access.accessdescs.iter().any(|a| a.access_method == OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS)
        }
        _ => false,
    }
}

/// Returns the best-known part of a distinguished name: common name, or organization.
pub(crate) fn name_of(name: &x509_parser::x509::X509Name<'_>) -> String {
    let first = |mut parts: Box<dyn Iterator<Item = String> + '_>| parts.next();
    let common = first(Box::new(name.iter_common_name().filter_map(|p| p.as_str().ok().map(str::to_owned))));
    common
        .or_else(|| first(Box::new(name.iter_organization().filter_map(|p| p.as_str().ok().map(str::to_owned)))))
        .unwrap_or_else(|| name.to_string())
}

impl Certificate {
    /// Combines a chain and its key.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] if the key cannot be used, or belongs to another certificate.
    pub fn new(chain: Chain, key_pem: &[u8]) -> Result<Self, CertificateError> {
        let key = key_file::private_key(key_pem).map_err(CertificateError::Key)?;
        let signer = key_file::signer(&key).map_err(CertificateError::Key)?;
        Self::with_signer(chain, signer)
    }

    /// Combines a chain and a signer, whose key may be in another process.
    ///
    /// # Errors
    ///
    /// [`CertificateError::KeyMismatch`] if the key belongs to another certificate.
    pub fn with_signer(mut chain: Chain, signer: Arc<dyn SigningKey>) -> Result<Self, CertificateError> {
        if signer.public_key().is_none_or(|spki| Pin::of_spki(&spki) != chain.pin()) {
            return Err(CertificateError::KeyMismatch);
        }
        let key = Arc::new(CertifiedKey::new(std::mem::take(&mut chain.der), signer));
        Ok(Self { chain: Arc::new(chain), key })
    }

    /// Wraps a chain without its key, to judge it: it signs nothing.
    #[must_use]
    pub fn without_key(mut chain: Chain) -> Self {
        let signer = Arc::new(AbsentKey(match chain.leaf.algorithm {
            KeyAlgorithm::Rsa(_) => SignatureAlgorithm::RSA,
            KeyAlgorithm::Ed25519 => SignatureAlgorithm::ED25519,
            _ => SignatureAlgorithm::ECDSA,
        }));
        let key = Arc::new(CertifiedKey::new(std::mem::take(&mut chain.der), signer));
        Self { chain: Arc::new(chain), key }
    }

    /// Returns the certificates, leaf first.
    #[must_use]
    pub fn der(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    pub(super) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    pub(super) fn is_rsa(&self) -> bool {
        self.key.key.algorithm() == SignatureAlgorithm::RSA
    }
}

/// A stand-in for a key in another place: it signs nothing.
#[derive(Debug)]
struct AbsentKey(SignatureAlgorithm);

impl SigningKey for AbsentKey {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        None
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0
    }
}

impl fmt::Debug for Certificate {
    /// Omits the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("chain", &self.chain).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    fn authority() -> (rcgen::Certificate, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (certificate, Issuer::new(params, key))
    }

    fn leaf(names: &[&str], issuer: &Issuer<'_, KeyPair>) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(names).unwrap().signed_by(&key, issuer).unwrap(), key)
    }

    #[test]
    fn chain_and_key() {
        let (ca, issuer) = authority();
        let (certificate, key) = leaf(&["a.example", "*.b.example", "127.0.0.1"], &issuer);
        let chain = Chain::from_pem((certificate.pem() + &ca.pem()).as_bytes()).unwrap();
        assert_eq!(chain.pins.len(), 2);
        let covers = |host| chain.leaf.covers(host);
        assert!(covers("a.example") && covers("x.b.example") && covers("127.0.0.1"));
        assert!(!covers("b.example") && !covers("x.y.b.example") && !covers("127.0.0.2"));
        assert!(chain.leaf.covers_pattern(&HostPattern::parse("*.b.example").unwrap()));
        assert!(!chain.leaf.covers_pattern(&HostPattern::parse("*.a.example").unwrap()));
        assert_eq!(chain.leaf.issuer, "Test CA");
        assert!(Certificate::new(chain.clone(), key.serialize_pem().as_bytes()).is_ok());
        let other = KeyPair::generate().unwrap();
        let mismatch = Certificate::new(chain, other.serialize_pem().as_bytes()).unwrap_err();
        assert_eq!(mismatch, CertificateError::KeyMismatch);
    }

    /// A root, and its key signed by an older one: a client may end its path at either.
    #[test]
    fn keys_on_every_path() {
        let named = |name: &str| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let (old_key, new_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let old_root = named("old").self_signed(&old_key).unwrap();
        let old = Issuer::new(named("old"), old_key);
        let crossed = named("new").signed_by(&new_key, &old).unwrap();
        let new = Issuer::new(named("new"), new_key);
        let (certificate, _) = leaf(&["a.example"], &new);
        let chain = Chain::from_pem((certificate.pem() + &crossed.pem() + &old_root.pem()).as_bytes()).unwrap();
        assert_eq!(chain.pins.len(), 3);
        assert_eq!(chain.certain, chain.pins[..2]);
        // Without its issuer, the leaf alone is certain.
        let chain = Chain::from_pem(certificate.pem().as_bytes()).unwrap();
        assert_eq!(chain.certain, chain.pins[..1]);
    }

    #[test]
    fn names_that_clients_match() {
        let check = |name: &str, want: bool| assert_eq!(usable_name(name).is_some(), want, "{name}");
        check("a.example", true);
        check("*.a.example", true);
        check("a_b.example", true);
        check("a.example.", false);
        check("*.a.example.", false);
        check("192.0.2.1", false);
        check("[2001:db8::1]", false);
        check("a.example:443", false);
        check("", false);
    }

    #[test]
    fn chains_in_disorder() {
        let (ca, issuer) = authority();
        let (a, _) = leaf(&["a.example"], &issuer);
        let (b, _) = leaf(&["b.example"], &issuer);
        let read = |pem: String| Chain::from_pem(pem.as_bytes()).map(|_| ());
        assert_eq!(read(ca.pem() + &a.pem()), Err(CertificateError::Order(1)));
        assert_eq!(read(a.pem() + &b.pem()), Err(CertificateError::Order(1)));
        assert_eq!(read(a.pem() + &b.pem() + &ca.pem()), Ok(()));
        assert!(matches!(read(String::new()), Err(CertificateError::Chain(_))));
        assert_eq!(read(ca.pem().repeat(CHAIN_MAX + 1)), Err(CertificateError::ChainTooLong));
    }
}
