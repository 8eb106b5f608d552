//! A first question to the authorities, before any order: whether they answer, and whether a setting is missing.

use super::client::AcmeClient;
use super::directory::Directory;
use super::fault::StepFault;
use crate::config::{Acme, Authority};
use crate::reason::{Problem, Reason, Severity};
use crate::upstream::dns::NameServers;

/// The answer of an authority to the question for its directory.
#[derive(Debug)]
pub struct AskedAuthority {
    /// Its name in the configuration, or its URL.
    pub name: String,
    /// `true` if it shows its directory.
    pub is_reached: bool,
    /// An error if pintle cannot order there without another setting; a warning if it may work later.
    pub problem: Option<Problem>,
}

/// Asks the authorities of a configuration for their directories, one after the other, on a [`tokio::task::LocalSet`].
pub async fn ask_all(settings: &Acme, servers: &NameServers) -> Vec<AskedAuthority> {
    let mut asked = Vec::new();
    for (at, authority) in settings.authorities.iter().enumerate() {
        let directory = fetch(authority, servers).await;
        let problem = match &directory {
            Ok(directory) => lacking(settings, authority, at > 0, directory),
            // It may be down at this moment, and pintle tries again by itself.
            Err(fault) => {
                let reason = (*fault.reason).clone().within(&format_args!("authority {}", authority.name));
                Some((Severity::Warning, reason))
            }
        };
        let problem = problem.map(|(severity, reason)| Problem { severity, ..reason.into() });
        asked.push(AskedAuthority { name: authority.name.clone(), is_reached: directory.is_ok(), problem });
    }
    asked
}

async fn fetch(authority: &Authority, servers: &NameServers) -> Result<Directory, StepFault> {
    let client = AcmeClient::start(authority, servers).map_err(StepFault::operator)?;
    Directory::fetch(&client, &authority.directory).await
}

/// The first setting that this authority wants, and that the configuration lacks.
fn lacking(
    settings: &Acme,
    authority: &Authority,
    is_fallback: bool,
    directory: &Directory,
) -> Option<(Severity, Reason)> {
    if let Some(what) = directory.lacks_eab(authority, is_fallback) {
        return Some((Severity::Error, what.into()));
    }
    // The second authority gets orders without the profile.
    let profile = settings.profile.as_ref().filter(|_| !is_fallback)?;
    let what = directory.lacks_profile(authority, profile)?;
    Some((Severity::Error, Reason::new(what).hint("set acme.profile to one that the authority offers")))
}
