//! Pairs that are about to be copied, with the text of their keys.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

use super::batch::CopiesWritten;
use super::contents::{Breaches, key_note};
use super::name::ServedPair;
use super::{LastGood, read};
use crate::keys::key_file::{FILE_MAX, private_key, private_pin};
use crate::keys::pem;
use crate::keys::pin::Pin;
use crate::tls::key_process;

/// The beginning of a section.
const ARMOUR: &[u8] = b"-----BEGIN";

/// Pairs that have come into use, and need copies.
pub struct Fresh(pub(in crate::config) Vec<Pair>);

/// A pair as it is served, with the file of its key.
pub(in crate::config) struct Pair {
    /// The site's first name.
    pub(in crate::config) site: String,
    pub(in crate::config) breaches: Breaches,
    pub(in crate::config) path: PathBuf,
    pub(in crate::config) pin: Pin,
    pub(in crate::config) chain: Box<dyn Fn() -> String + Send>,
    pub(in crate::config) key: Option<PathBuf>,
    pub(in crate::config) text: KeyText,
}

/// The key of a pair as it was read: its file may change, and its copy may be deleted, at any moment.
#[derive(Clone, Default)]
pub(in crate::config) struct KeyText {
    text: Option<Arc<Zeroizing<String>>>,
    /// It is known to be the key of the leaf.
    is_of_leaf: bool,
}

impl KeyText {
    pub(in crate::config) fn new(contents: &[u8]) -> Self {
        private_key(contents).map_or_else(|_| Self::default(), |key| Self::of(key_in_pem(&key), false))
    }

    pub(in crate::config) fn of(text: Zeroizing<String>, is_of_leaf: bool) -> Self {
        Self { text: Some(Arc::new(text)), is_of_leaf }
    }

    /// The key, if it is that of a leaf with this pin.
    fn get(&self, pin: Pin) -> Option<Zeroizing<String>> {
        let text = self.text.as_ref()?;
        if self.is_of_leaf { Some((**text).clone()) } else { key_of(text.as_bytes(), pin) }
    }
}

impl Fresh {
    /// `true` if there is nothing to copy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Copies the pairs. A copy lacks the key if that is not here, or no longer readable: it then has the chain only.
    ///
    /// # Errors
    ///
    /// The first failure. All other pairs are copied all the same.
    pub fn keep(self, copies: &LastGood) -> io::Result<CopiesWritten> {
        let mut batch = copies.begin();
        let note = copies.ledger_note();
        for pair in self.0 {
            let Some(contents) = pair.contents(Some(copies)).map(Zeroizing::new) else { continue };
            // A copy of a first start has no id. It gets one with its next change: none is written for the id alone.
            let known = read(&copies.path(pair.served())).map(Zeroizing::new);
            let is_written = known.is_ok_and(|known| *known == *contents);
            let note = if is_written { "" } else { note.as_str() };
            // It never grows: it has the key.
            let mut noted = Zeroizing::new(Vec::<u8>::with_capacity(note.len().saturating_add(contents.len())));
            noted.extend_from_slice(note.as_bytes());
            noted.extend_from_slice(&contents);
            batch.add(pair.served(), &noted);
        }
        batch.finish()
    }
}

impl Pair {
    pub(super) fn served(&self) -> ServedPair<'_> {
        ServedPair { site: &self.site, chain: &self.path, pin: self.pin }
    }

    /// The contents of its copy; `None` if there is a copy already that may have the only key.
    pub(super) fn contents(&self, copies: Option<&LastGood>) -> Option<Vec<u8>> {
        // A pair in use whose key is in the key process has its key in its own file, which its copy names. This process does
        // not read it.
        let is_elsewhere = key_process::running().is_some();
        let note = self.key.as_deref().filter(|_| is_elsewhere).map(key_note).unwrap_or_default();
        let mut contents = (self.breaches.text() + &note).into_bytes();
        let here = self.text.get(self.pin);
        let in_file = || read_key(self.key.as_deref().filter(|_| !is_elsewhere)?);
        let key = here.or_else(|| in_file().and_then(|key| key_of(&key, self.pin)));
        let path = copies.map(|copies| copies.path(self.served()));
        let is_there = |path: &PathBuf| fs::exists(path).unwrap_or(false);
        if let Some(path) = path.filter(|path| key.is_none() && !is_elsewhere && is_there(path)) {
            let known = read(&path).map(Zeroizing::new).ok()?;
            let begin = known.windows(ARMOUR.len()).position(|at| at == ARMOUR).unwrap_or_default();
            contents.extend_from_slice(&known[begin..]);
            return Some(contents);
        }
        contents.extend_from_slice((self.chain)().as_bytes());
        // The site had another first name, or the file another path: its previous copy has the key.
        let of_copy = || copies?.with_key(self.pin).and_then(|known| key_of(&known, self.pin));
        let key = key.or_else(|| of_copy().filter(|_| self.key.is_some() && !is_elsewhere));
        contents.extend_from_slice(key.as_ref().map_or(&[], |key| key.as_bytes()));
        Some(contents)
    }
}

/// Reads a file of a key or a chain, up to the largest size of one; `None` if it cannot be read.
pub(in crate::config) fn read_key(path: &Path) -> Option<Zeroizing<Vec<u8>>> {
    let mut contents = Zeroizing::new(Vec::new());
    File::open(path).ok()?.take(FILE_MAX).read_to_end(&mut contents).ok()?;
    Some(contents)
}

/// The key in PEM, whatever the form of its file.
#[must_use]
pub fn key_in_pem(key: &PrivateKeyDer<'_>) -> Zeroizing<String> {
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    Zeroizing::new(pem::written(label, key.secret_der()))
}

/// The key with this pin in PEM, if a file has it. The file may have certificates, too, in any order.
fn key_of(contents: &[u8], pin: Pin) -> Option<Zeroizing<String>> {
    if private_pin(contents)? != pin {
        return None;
    }
    private_key(contents).ok().map(|key| key_in_pem(&key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::key_file::public_key;

    /// Some programs want the key behind its certificates, some before them.
    #[test]
    fn a_key_is_found_beside_its_certificates() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        let pin = public_key(key.serialize_pem().as_bytes()).unwrap().pin;
        let (chain, text) = (certificate.pem(), key.serialize_pem());
        for contents in [text.clone(), text.clone() + &chain, chain.clone() + &text] {
            let found = key_of(contents.as_bytes(), pin).unwrap();
            assert_eq!(private_key(found.as_bytes()).unwrap(), private_key(text.as_bytes()).unwrap());
            assert!(key_of(contents.as_bytes(), Pin::of_spki(b"other")).is_none());
        }
        assert!(key_of(chain.as_bytes(), pin).is_none());
    }
}
