//! A live key whose file is lost.

use std::path::PathBuf;

use super::step::KeyChoice;
use crate::config::{LastGood, Managed};

/// A live key whose file was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostKey {
    /// The file.
    pub file: PathBuf,
    /// `true` if a copy had the key, `false` if pintle makes another one.
    pub is_restored: bool,
}

impl LostKey {
    /// Logs it.
    pub fn log(&self) {
        let file = self.file.display();
        match self.is_restored {
            true => tracing::warn!(%file, "the key was lost: restored from the copy of the served pair"),
            false => tracing::warn!(%file, "the key was lost: no copy has it, so pintle makes another one"),
        }
    }
}

/// Returns the live key that was served last, in PEM, if its file is lost: a fresh one would be a rotation. Also returns the
/// loss.
pub(super) fn served_key(certificate: &Managed, choice: KeyChoice) -> (Option<String>, Option<LostKey>) {
    let is_compromised = certificate.compromised().iter().any(|file| file.exists());
    let Some(state) = certificate.state().filter(|_| choice == KeyChoice::Live && !is_compromised) else {
        return (None, None);
    };
    let key = LastGood::of(state).key(&certificate.chain(), &certificate.hosts);
    // The whole folder may be lost, and the copy is there. Without either, there was no key.
    let was_there = key.is_some() || certificate.chain().exists();
    let loss = was_there.then(|| LostKey { file: certificate.key(), is_restored: key.is_some() });
    (key.map(|key| key.as_str().to_owned()), loss)
}
