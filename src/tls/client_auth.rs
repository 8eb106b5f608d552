//! Client certificates of readers. They are judged after the handshake, so that a client without a fit one gets an answer in
//! words instead of an alert.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::config::provider;
use super::failure;

/// The longest subject in logs and histories, in bytes.
const SUBJECT_MAX: usize = 64;

/// The authorities whose certificates let a client in.
#[derive(Debug)]
pub struct ClientAuthority(Arc<dyn ClientCertVerifier>);

/// A client that has proved its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The subject of the certificate, in printable ASCII: other bytes are percent-encoded.
    pub subject: String,
    /// The serial number, in hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
}

impl ClientAuthority {
    /// The authorities with these certificates, in DER.
    ///
    /// # Errors
    ///
    /// The reason why one of them cannot be used.
    pub fn new(roots: Vec<Vec<u8>>) -> Result<Self, String> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(CertificateDer::from(root)).map_err(|error| error.to_string())?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider());
        builder.allow_unauthenticated().build().map(Self).map_err(|error| error.to_string())
    }

    /// The verifier of handshakes: any certificate passes whose key the client has. [`Self::judge`] decides what it is worth.
    #[must_use]
    pub fn for_handshakes(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::new(PossessionOnly(self.0.clone()))
    }

    /// Judges the certificates of a client, leaf first.
    ///
    /// # Errors
    ///
    /// The reason against them, in words.
    pub fn judge(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<ClientIdentity, String> {
        let (leaf, above) = chain.split_first().ok_or("there is none")?;
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        self.0.verify_client_cert(leaf, above, now).map_err(|error| failure::of_client(&error))?;
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| "it is damaged")?;
        let serial = certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
        let subject = printable(&certificate.subject().to_string());
        Ok(ClientIdentity { subject, serial, fingerprint: Sha256::digest(leaf).into() })
    }
}

/// A text of a stranger, as logs and histories may show it.
fn printable(text: &str) -> String {
    let mut shown = String::new();
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b" .-_@=,+".contains(&byte);
        let next = if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        if shown.len() + next.len() > SUBJECT_MAX {
            break;
        }
        shown += &next;
    }
    if shown.is_empty() { "no subject".to_owned() } else { shown }
}

/// Verifies that a client has the key of its certificate, and nothing else.
#[derive(Debug)]
struct PossessionOnly(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for PossessionOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer, KeyPair,
        date_time_ymd,
    };

    fn authority(name: &str) -> (Vec<u8>, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().der().to_vec(), Issuer::new(params, key))
    }

    fn client(name: &str, usage: Usage, ends: i32, issuer: &Issuer<'_, KeyPair>) -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(ends, 1, 1));
        vec![params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()]
    }

    #[test]
    fn certificates_of_clients() {
        let ((root, issuer), (_, stranger)) = (authority("Clients"), authority("Clients"));
        let authority = ClientAuthority::new(vec![root]).unwrap();
        let now: Timestamp = "2026-11-27T12:00:00Z".parse().unwrap();
        let judge = |chain: &[CertificateDer<'_>]| authority.judge(chain, now);
        let anna = judge(&client("Anna Meier", Usage::ClientAuth, 2030, &issuer)).unwrap();
        assert_eq!(anna.subject, "CN=Anna Meier");
        for (chain, why) in [
            (Vec::new(), "there is none"),
            (client("a", Usage::ClientAuth, 2021, &issuer), "it expired on 2021-01-01"),
            (
                client("a", Usage::ServerAuth, 2030, &issuer),
                "it is not for clients (no clientAuth in its extended key usage)",
            ),
            (vec![CertificateDer::from(vec![48, 0])], "it is damaged"),
        ] {
            assert_eq!(judge(&chain).unwrap_err(), why);
        }
        let foreign = judge(&client("a", Usage::ClientAuth, 2030, &stranger)).unwrap_err();
        assert!(foreign.contains("admin.https.client_ca"), "{foreign}");
        assert!(ClientAuthority::new(vec![vec![1, 2, 3]]).is_err() && ClientAuthority::new(Vec::new()).is_err());
    }

    #[test]
    fn subjects_are_harmless() {
        let long = "x".repeat(200);
        for (text, want) in [
            ("CN=Anna Meier, O=B", "CN=Anna Meier, O=B"),
            ("<script>\n\u{202e}", "%3Cscript%3E%0A%E2%80%AE"),
            ("", "no subject"),
            (&long, &long[..SUBJECT_MAX]),
            (&format!("{}<", &long[..SUBJECT_MAX - 1]), &long[..SUBJECT_MAX - 1]),
        ] {
            assert_eq!(printable(text), want);
        }
    }
}
