//! A live key whose file is lost.

use super::step::KeyChoice;
use crate::config::{LastGood, Managed};

/// A compromised key and its chain, until the chain is revoked.
pub(super) const COMPROMISED: [&str; 2] = ["compromised.key.pem", "compromised.chain.pem"];
/// The folder of the state is this many folders above that of a certificate.
const STATE_ABOVE: usize = 3;

/// Returns the live key that was served last, in PEM, if its file is lost: a fresh one would be a rotation.
pub(super) fn served_key(certificate: &Managed, choice: KeyChoice) -> Option<String> {
    let state = certificate.folder.ancestors().nth(STATE_ABOVE)?;
    let is_compromised = COMPROMISED.iter().any(|name| certificate.folder.join(name).exists());
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
