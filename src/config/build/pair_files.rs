//! The files of a site's pairs and backups, read and parsed. None of them needs another, so that several threads may do
//! it ahead ([`FilesAhead`](super::files_ahead::FilesAhead)).

use std::sync::Arc;

use rustls::sign::SigningKey;
use zeroize::Zeroizing;

use crate::config::last_good::{KeyText, key_in_pem};
use crate::keys::key_file::{
    KeyFileError, KeyKind, PublicKey, certificates, has_private_key, private_key, public_key, signer,
};
use crate::tls::CertificateError;
use crate::tls::certificate::Chain;

/// The file of a chain.
pub(super) struct ChainFile {
    contents: Zeroizing<Vec<u8>>,
    pub(super) chain: Result<Chain, CertificateError>,
}

impl ChainFile {
    pub(super) fn of(contents: Zeroizing<Vec<u8>>) -> Self {
        let chain = Chain::from_pem(&contents);
        Self { contents, chain }
    }
}

/// The file of a private key.
pub(super) struct KeyFile {
    contents: Zeroizing<Vec<u8>>,
    /// It holds a private key, beside whatever else.
    pub(super) is_private: bool,
    pub(super) signer: Result<Arc<dyn SigningKey>, KeyFileError>,
    text: Option<Zeroizing<String>>,
}

impl KeyFile {
    pub(super) fn of(contents: Zeroizing<Vec<u8>>) -> Self {
        let key = private_key(&contents);
        Self {
            is_private: key.is_ok() || has_private_key(&contents),
            text: key.as_ref().ok().map(|key| key_in_pem(key)),
            signer: key.and_then(|key| signer(&key)),
            contents,
        }
    }

    /// The key, for the copy of its pair. `is_of_leaf` if it is the one of the leaf.
    pub(super) fn text(&self, is_of_leaf: bool) -> KeyText {
        self.text.clone().map_or_else(KeyText::default, |text| KeyText::of(text, is_of_leaf))
    }

    /// The public key of whatever the file holds.
    pub(super) fn public(&self) -> Result<PublicKey, KeyFileError> {
        public_key(&self.contents)
    }

    /// `true` if the file of the chain holds a key alone, and this file holds certificates alone.
    pub(super) fn is_swapped_with(&self, chain: &ChainFile) -> bool {
        let chain = &chain.contents;
        has_private_key(chain)
            && certificates(chain).is_err()
            && certificates(&self.contents).is_ok()
            && !self.is_private
    }
}

/// The file of a backup key.
pub(super) struct BackupFile {
    pub(super) key: Result<PublicKey, KeyFileError>,
    /// It holds the private key.
    pub(super) is_private: bool,
}

impl BackupFile {
    pub(super) fn of(contents: &[u8]) -> Self {
        let key = public_key(contents);
        let is_private = key.as_ref().is_ok_and(|key| key.kind == KeyKind::PrivateKey) || has_private_key(contents);
        Self { key, is_private }
    }
}
