//! The pin of a certificate, CSR or public key, and its role. Whatever may be a private key is refused.

use std::path::Path;

use http::StatusCode;
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::chain;
use crate::control::Control;
use crate::control::admin::{Answered, PageRefusal};
use crate::export::Role;
use crate::keys::key_file::{KeyKind, Want, certificates, may_be_private, public_key};
use crate::keys::pem;
use crate::keys::pin::Pin;
use crate::ledger::time::rfc3339;
use crate::reason::Reason;
use crate::tls::certificate::name_of;

/// Sites that are named for one key.
const KNOWN_MAX: usize = 20;
/// Names that are shown of a CSR.
const NAMES_MAX: usize = 100;

impl Control {
    /// The answer about a pin.
    pub(super) fn roles(&self, pin: Pin) -> Value {
        json!({
            "pin": pin.to_string(), "hex": pin.to_hex(), "kind": "pin", "known": self.roles_of(pin),
            "now": rfc3339(self.now()),
        })
    }

    /// The answer about a file.
    pub(super) fn fingerprint_of(&self, contents: &[u8]) -> Answered {
        let key = public_key(contents);
        let refused = |status, kind, reason| Err(PageRefusal::new(status, kind, reason));
        if may_be_private(contents, key.as_ref().err()) || key.as_ref().is_ok_and(|key| key.kind == KeyKind::PrivateKey)
        {
            let reason = Reason::new("this is a private key: it was wiped, and nothing of it is kept");
            let reason = reason.hint("show the public half: openssl pkey -in FILE -pubout");
            return refused(StatusCode::UNPROCESSABLE_ENTITY, "private-key", reason);
        }
        let key = match key {
            Ok(key) => key,
            Err(error) => {
                let hint = error.hint(Path::new("FILE"), Want::Pin);
                let hint =
                    hint.unwrap_or_else(|| "show a certificate, a CSR or a public key, in PEM or DER".to_owned());
                return refused(StatusCode::UNPROCESSABLE_ENTITY, "unknown", Reason::new(error.to_string()).hint(hint));
            }
        };
        let is_certificate = matches!(key.kind, KeyKind::Certificate | KeyKind::Chain);
        let chain = if is_certificate { certificates(contents).unwrap_or_default() } else { Vec::new() };
        let csr = if key.kind == KeyKind::Csr { names_of_csr(contents) } else { Vec::new() };
        Ok(json!({
            "pin": key.pin.to_string(), "hex": key.pin.to_hex(), "kind": key.kind.to_string(),
            "algorithm": key.algorithm.to_string(), "known": self.roles_of(key.pin), "names": csr,
            "now": rfc3339(self.now()),
            "certificates": chain::certificates(chain.iter().map(|(_, der)| der.as_ref())),
        }))
    }

    /// The roles of a key: of the sites that serve it, keep it as a backup, or have promised it.
    fn roles_of(&self, pin: Pin) -> Vec<Value> {
        let now = self.now();
        let ledger = self.ledger();
        let book = ledger.book();
        let mut found = Vec::new();
        for site in self.config.sites() {
            let algorithms = site.certificates.iter().map(|certificate| certificate.algorithm);
            let roles = Role::of_backups(algorithms, site.backups.iter().map(|(_, key)| Some(key.algorithm)));
            let backup = site.backups.iter().zip(roles).find(|((_, key), _)| key.pin == pin);
            let since = book.promised_since(site.name(), pin);
            let role = if site.certificates.iter().any(|c| c.pin == pin) {
                "live"
            } else if let Some((_, role)) = backup {
                role.name()
            } else if site.certificates.iter().any(|c| c.pins.contains(&pin)) {
                "issuer"
            } else if since.is_some() {
                "promised"
            } else {
                continue;
            };
            let until = book.promises().iter().filter(|p| p.site == site.name() && p.pins.contains(&pin));
            let until = until.filter(|promise| promise.is_alive(now)).map(|promise| promise.honoured_until()).max();
            found.push(json!({
                "site": site.name(), "role": role,
                "promised_since": since.map(rfc3339),
                "promised_until": until.map(rfc3339),
            }));
            if found.len() >= KNOWN_MAX {
                break;
            }
        }
        found
    }
}

/// The names that a CSR asks for.
fn names_of_csr(contents: &[u8]) -> Vec<String> {
    let der = match pem::is_pem(contents) {
        true => pem::read(contents).ok().and_then(|sections| sections.into_iter().next()).map(|section| section.der),
        false => Some(Zeroizing::new(contents.to_vec())),
    };
    let Some(der) = der else { return Vec::new() };
    let Ok((_, csr)) = X509CertificationRequest::from_der(&der) else { return Vec::new() };
    let mut names = Vec::new();
    for extension in csr.requested_extensions().into_iter().flatten() {
        if let ParsedExtension::SubjectAlternativeName(alternative) = extension {
            names.extend(alternative.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            }));
        }
    }
    if names.is_empty() {
        names.push(name_of(&csr.certification_request_info.subject));
    }
    names.truncate(NAMES_MAX);
    names
}
