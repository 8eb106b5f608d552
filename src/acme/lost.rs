//! A live key whose file is lost.

use super::step::KeyChoice;
use crate::config::{LastGood, Managed};

/// Returns the live key that was served last, in PEM, if its file is lost: a fresh one would be a rotation.
pub(super) fn served_key(certificate: &Managed, choice: KeyChoice) -> Option<String> {
    let state = certificate.state()?;
    let is_compromised = certificate.compromised().iter().any(|file| file.exists());
    if choice != KeyChoice::Live || is_compromised || !certificate.chain().exists() {
        return None;
    }
    let key = LastGood::of(state).key(&certificate.chain(), &certificate.hosts);
    let file = certificate.key();
    match key {
        Some(_) => {
            tracing::warn!(file = %file.display(), "the key was lost: restored from the copy of the served pair")
        }
        None => tracing::warn!(file = %file.display(), "the key was lost: no copy has it, so pintle makes another one"),
    }
    key.map(|key| key.as_str().to_owned())
}
