//! Files with a chain or a key, as an installation reads them.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use zeroize::Zeroizing;

use crate::config::key_in_pem;
use crate::keys::key_file::{FILE_MAX, PublicKey, has_private_key, private_key, public_key};
use crate::keys::pin::Pin;

/// Reads a file that may have a key.
pub(super) fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut contents = Zeroizing::new(Vec::new());
    File::open(path)?.take(FILE_MAX.saturating_add(1)).read_to_end(&mut contents)?;
    match u64::try_from(contents.len()) {
        Ok(length) if length <= FILE_MAX => Ok(contents),
        _ => Err(io::Error::new(io::ErrorKind::FileTooLarge, "too large to be a key or a certificate")),
    }
}

/// The contents of a file; `None` if it is too large for a key file, or cannot be read.
fn small(path: &Path) -> Option<Zeroizing<Vec<u8>>> {
    let is_small = fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= FILE_MAX);
    is_small.then(|| read(path).ok()).flatten()
}

/// The key in a file; `None` if it is no key file, or too large for one.
pub(super) fn key_of(path: &Path) -> Option<PublicKey> {
    public_key(&small(path)?).ok()
}

/// `true` if a file has the private key with this pin.
pub(super) fn has_key_of(path: &Path, pin: Pin) -> bool {
    small(path).is_some_and(|text| public_key(&text).is_ok_and(|key| key.pin == pin) && has_private_key(&text))
}

/// A chain and its key in one file.
pub(super) fn in_one(chain: &[u8], key: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(match private_key(key) {
        Ok(key) if !has_private_key(chain) => [chain, b"\n", key_in_pem(&key).as_bytes()].concat(),
        _ => chain.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_and_its_key_in_one_file() {
        let key = rcgen::KeyPair::generate().unwrap();
        let chain =
            rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let text = key.serialize_pem();
        let both = in_one(chain.as_bytes(), text.as_bytes());
        assert!(both.starts_with(chain.as_bytes()));
        assert_eq!(private_key(&both).unwrap(), private_key(text.as_bytes()).unwrap());
        assert_eq!(in_one(&both, text.as_bytes()), both);
        assert_eq!(in_one(chain.as_bytes(), &both), both);
    }
}
