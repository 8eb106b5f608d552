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

/// Returns the live key that was served last, in PEM, if its file is lost: a fresh one would be a rotation. Adds the loss to
/// `lost`.
pub(super) fn served_key(certificate: &Managed, choice: KeyChoice, lost: &mut Vec<LostKey>) -> Option<String> {
    let state = certificate.state()?;
    let is_compromised = certificate.compromised().iter().any(|file| file.exists());
    if choice != KeyChoice::Live || is_compromised || !certificate.chain().exists() {
        return None;
    }
    let key = LastGood::of(state).key(&certificate.chain(), &certificate.hosts);
    lost.push(LostKey { file: certificate.key(), is_restored: key.is_some() });
    key.map(|key| key.as_str().to_owned())
}
