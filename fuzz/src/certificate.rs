//! Certificates and requests for them, as operators have them in files, and as servers send them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use pintle::host::HostPattern;
use pintle::keys::key_file::{KeyKind, public_key};
use pintle::tls::certificate::Chain;
use pintle::tls::preflight::judge;
use pintle::verify::chain::{ClientTrust, SeenChain as Examined};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName};

const HOST: &str = "blog.example.com";
/// More than a chain may have.
const CERTIFICATES_MAX: usize = 20;
/// In 2027: the seeds are valid then.
const NOW: i64 = 1_800_000_000;

/// PEM, or certificates in DER, one behind the other: what is accepted has the same pin and algorithm whoever reads it, in
/// PEM and in DER; and can be judged, shown, and examined as a client does that trusts it, or its last certificate.
pub fn certificate(data: &[u8]) {
    let now = Timestamp::from_second(NOW).expect("a date");
    let found = public_key(data);
    if data.windows(11).any(|w| w == b"-----BEGIN ") {
        if let Ok(chain) = Chain::from_pem(data) {
            assert!(found.is_ok() || data.windows(7).any(|w| w == b"PRIVATE" || w == b" PUBLIC" || w == b"REQUEST"));
            look_at(&chain, now);
        }
        return;
    }
    // One certificate, or one request: the same in PEM.
    for (kind, label) in [(KeyKind::Certificate, "CERTIFICATE"), (KeyKind::Csr, "CERTIFICATE REQUEST")] {
        if let Some(key) = found.as_ref().ok().filter(|key| key.kind == kind) {
            assert_eq!(Ok(*key), public_key(pem(label, data).as_bytes()));
        }
    }
    let certificates = cut(data);
    let text: String = certificates.iter().map(|der| pem("CERTIFICATE", der)).collect();
    let served = Chain::from_pem(text.as_bytes());
    if let Ok(chain) = &served {
        // Copies, and what is on no path, are left out.
        assert!((1..=certificates.len()).contains(&chain.pins.len()));
        let key = public_key(text.as_bytes()).expect("a chain has a key");
        assert_eq!((key.pin, key.algorithm), (chain.pin(), chain.leaf.algorithm));
        look_at(chain, now);
    }
    let der: Vec<CertificateDer<'_>> = certificates.iter().map(|der| CertificateDer::from(*der)).collect();
    let mut roots = RootCertStore::empty();
    let _ = der.last().map(|last| roots.add(last.clone().into_owned()));
    let trusts = [Vec::new(), der.first().map(|leaf| leaf.clone().into_owned()).into_iter().collect()]
        .map(|own| ClientTrust { roots: roots.clone().into(), own, file: None });
    let name = ServerName::try_from(HOST).expect("a name");
    for trust in &trusts {
        let examined = Examined::examine(&der, trust, &name, now);
        if let Ok(chain) = &served {
            assert_eq!(examined.leaf_pin(), Some(chain.pin()));
        }
        assert!(examined.distrust.is_some() || !examined.pins().is_empty());
        let _ = examined.distrust.map(|distrust| format!("{} {:?}", distrust.message, distrust.hint));
    }
}

/// A certificate's contents, and the findings about them.
fn look_at(chain: &Chain, now: Timestamp) {
    let hosts = [HOST, "*.example.com"].map(|host| HostPattern::parse(host).expect("a host"));
    for fault in judge(chain, &hosts, now, Some(chain)) {
        let _ = format!("{fault} {}", fault.hint(&chain.leaf));
    }
    let is_covered = chain.leaf.covers(HOST);
    assert_eq!(is_covered, chain.leaf.covers_pattern(&hosts[0]));
    assert!(!is_covered || chain.leaf.names() != "no name at all");
    assert_eq!(chain.der().len(), chain.pins.len());
}

/// One DER value behind the other (X.690 section 8.1.3); what is left in the end is the last one.
fn cut(mut data: &[u8]) -> Vec<&[u8]> {
    let mut values = Vec::new();
    while !data.is_empty() && values.len() < CERTIFICATES_MAX {
        let (value, rest) = data.split_at(length(data).unwrap_or(data.len()).min(data.len()));
        values.push(value);
        data = rest;
    }
    values
}

/// The bytes of the value that begins here, its head included; none if that is no length.
fn length(data: &[u8]) -> Option<usize> {
    let first = usize::from(*data.get(1)?);
    if first < 0x80 {
        return Some(2 + first);
    }
    let bytes = data.get(2..2 + (first & 0x7f)).filter(|bytes| bytes.len() <= 3)?;
    Some(2 + bytes.len() + bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}
