//! The directory of an authority, as far as instant-acme does not show it.

use serde_json::Value;

use super::client::AcmeClient;
use super::fault::StepFault;
use super::problem::AcmeProblem;
use crate::config::Authority;
use crate::reason::Reason;
use crate::reason::pasted::pintle;

/// The most names of an authority that are read.
const IDENTITIES_MAX: usize = 10;

/// The members of a directory that instant-acme does not show.
pub struct Directory(Value);

impl Directory {
    pub(super) async fn fetch(client: &AcmeClient, url: &str) -> Result<Self, StepFault> {
        let received = client.get(url).await.map_err(StepFault::here)?;
        if let Some(location) = &received.location {
            let reason = Reason::new(format!("{url}: the CA redirects to {location:?}"));
            let hint = format!("name that URL in [acme], then `{}`", pintle("reload"));
            return Err(StepFault::here(reason.hint(hint)));
        }
        if received.status != 200 {
            return Err(StepFault::reported(&AcmeProblem::read(received.status, &received.body), received.retry_after));
        }
        let found = serde_json::from_slice(&received.body);
        found.map(Self).map_err(|error| StepFault::here(format!("{url}: not the directory of an authority: {error}")))
    }

    /// The whole document.
    pub(super) fn document(&self) -> &Value {
        &self.0
    }

    /// The URL of renewal information about a certificate (RFC 9773 section 4.1); `None` if there is none.
    pub(super) fn renewal_info(&self, id: &str) -> Option<String> {
        let base = self.0["renewalInfo"].as_str()?;
        Some(format!("{}/{id}", base.trim_end_matches('/')))
    }

    fn profiles(&self) -> Vec<&str> {
        let profiles = self.0["meta"]["profiles"].as_object();
        profiles.into_iter().flat_map(|profiles| profiles.keys()).map(String::as_str).collect()
    }

    /// The names of the authority in CAA records.
    pub(super) fn identities(&self) -> Vec<String> {
        let listed = self.0["meta"]["caaIdentities"].as_array();
        listed.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).take(IDENTITIES_MAX).collect()
    }

    /// Returns what is missing if the authority wants an external account binding, and has none.
    pub(super) fn lacks_eab(&self, authority: &Authority, is_fallback: bool) -> Option<String> {
        if self.0["meta"]["externalAccountRequired"] != true || authority.eab.is_some() {
            return None;
        }
        let key = if is_fallback { "fallback_eab" } else { "eab" };
        Some(format!(
            "{} needs an external account binding: {key} = {{ key_id = \"...\", hmac_key_file = \"...\" }} in [acme]",
            authority.name
        ))
    }

    /// Returns what is wrong if the authority does not offer a profile.
    pub(super) fn lacks_profile(&self, authority: &Authority, profile: &str) -> Option<String> {
        let offered = self.profiles();
        if offered.contains(&profile) {
            return None;
        }
        let offer = if offered.is_empty() { "no profiles".to_owned() } else { offered.join(", ") };
        Some(format!("acme.profile: {} does not offer {profile:?}; it offers {offer}", authority.name))
    }

    pub(super) fn has_renewal_info(&self) -> bool {
        self.0["renewalInfo"].is_string()
    }
}
