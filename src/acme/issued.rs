//! The certificates that CAs have issued, until they expire: those of a compromised key are to be revoked.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::keys::pem;
use crate::keys::pin::Pin;
use crate::policy::promise::Seconds;
use crate::tls::certificate::Chain;

/// Certificates remembered for one site and algorithm. Beyond, those that expire first are forgotten.
const ISSUED_MAX: usize = 40;

/// A certificate that a CA has issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// Its end.
    pub not_after: Seconds,
    /// The directory of the CA.
    pub from: String,
    /// The pin of its key.
    pub pin: Pin,
    /// The certificate, in base64.
    der: String,
    /// `true` once the CA has revoked it.
    #[serde(default)]
    pub is_revoked: bool,
}

impl Issued {
    /// Returns a chain's leaf as issued by the CA of a directory.
    #[must_use]
    pub fn new(chain: &Chain, from: &str) -> Self {
        let leaf = &chain.leaf;
        Self {
            serial: leaf.serial.clone(),
            not_after: leaf.not_after.as_second(),
            from: from.to_owned(),
            pin: chain.pin(),
            der: BASE64_STANDARD.encode(chain.der().first().map(AsRef::as_ref).unwrap_or_default()),
            is_revoked: false,
        }
    }

    /// Returns the certificate; `None` if the record is damaged.
    #[must_use]
    pub fn der(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(&self.der).ok()
    }

    /// Returns `true` if it must still be revoked with its key.
    #[must_use]
    pub fn is_open(&self, now: Seconds) -> bool {
        !self.is_revoked && self.not_after > now
    }
}

/// The last key that was compromised, after its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredKey {
    /// Its pin.
    pub pin: Pin,
    /// The time at which it was recorded as burnt.
    pub at: Seconds,
    /// Its certificates.
    pub certificates: Vec<Issued>,
    /// The reason why some of them are not revoked.
    #[serde(default)]
    pub problem: Option<String>,
}

impl RetiredKey {
    /// Returns the certificates that are neither revoked nor expired.
    pub fn open(&self, now: Seconds) -> impl Iterator<Item = &Issued> {
        self.certificates.iter().filter(move |issued| issued.is_open(now))
    }
}

/// Remembers an issued certificate, and forgets expired ones.
pub(super) fn note(known: &mut Vec<Issued>, new: Issued, now: Seconds) {
    if known.iter().any(|known| (&known.serial, &known.from) == (&new.serial, &new.from)) {
        return;
    }
    known.push(new);
    known.retain(|issued| issued.not_after > now);
    while known.len() > ISSUED_MAX {
        let first = known.iter().enumerate().min_by_key(|(_, issued)| issued.not_after).map(|(at, _)| at);
        first.map(|at| known.remove(at));
    }
}

/// Returns the certificates of a key that are neither revoked nor expired.
pub(super) fn open(known: &[Issued], pin: Pin, now: Seconds) -> Vec<Issued> {
    known.iter().filter(|issued| issued.pin == pin && issued.is_open(now)).cloned().collect()
}

/// Returns certificates in PEM, without those whose record is damaged.
pub(super) fn in_pem(known: &[Issued]) -> String {
    known.iter().filter_map(Issued::der).map(|der| pem::written("CERTIFICATE", &der)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(serial: u32, not_after: Seconds) -> Issued {
        Issued {
            serial: serial.to_string(),
            not_after,
            from: "ca".to_owned(),
            pin: Pin::of_spki(&[u8::from(serial.is_multiple_of(2))]),
            der: String::new(),
            is_revoked: false,
        }
    }

    #[test]
    fn certificates_are_remembered_until_they_expire() {
        let mut known = Vec::new();
        for serial in 0..4 {
            note(&mut known, issued(serial, 100 + i64::from(serial)), 0);
            note(&mut known, issued(serial, 100 + i64::from(serial)), 0);
        }
        assert_eq!(known.len(), 4);
        let pin = known[0].pin;
        let serials =
            |known: &[Issued], now| open(known, pin, now).iter().map(|i| i.serial.clone()).collect::<Vec<_>>();
        assert_eq!(serials(&known, 99), ["0", "2"]);
        assert_eq!(serials(&known, 100), ["2"]);
        known[2].is_revoked = true;
        assert_eq!(serials(&known, 99), ["0"]);
        note(&mut known, issued(9, 200), 101);
        assert_eq!(known.len(), 3);
        for serial in 100..300 {
            note(&mut known, issued(serial, 1000 + i64::from(serial)), 101);
        }
        assert_eq!((known.len(), known[0].serial.as_str()), (ISSUED_MAX, "260"));
    }
}
