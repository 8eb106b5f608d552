//! The changes of a configuration in words: for the answer of a reload, the log and the history. Keys and names only, as
//! some values are secret.

use super::Control;
use crate::config::{Changes, Config, Difference};

impl Control {
    /// The notes about a configuration that differs from the one in use.
    pub(super) fn notes_of(&self, config: &Config, changes: &Changes) -> Vec<String> {
        let mut fixed = self.fixed.differs_from(config);
        if config.workers != self.server.workers() {
            fixed.push(("listen.workers", "listen.workers has changed: it takes effect at the next start".into()));
        }
        let changed = changed_keys(changes, &fixed);
        let mut notes: Vec<String> = fixed.into_iter().map(|(_, note)| note).chain(changed).collect();
        notes.extend(differences(&self.config, config, changes));
        notes
    }
}

/// `a has`, `a, b have`
fn listed(names: &[String]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "has" } else { "have" })
}

/// The changed settings of the process that take effect now: without those already known to wait.
fn changed_keys(changes: &Changes, known: &[(&str, String)]) -> Vec<String> {
    let is_part =
        |key: &str, name: &str| key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    let is_known = |key: &str| known.iter().any(|(name, _)| is_part(key, name));
    changes.keys.iter().filter(|key| !is_known(key)).map(|key| format!("{key} has changed")).collect()
}

/// The changes of sites that the log reports.
pub(super) fn differences(before: &Config, after: &Config, changes: &Changes) -> Vec<String> {
    let mut notes = Vec::new();
    let (different, gone) = after.differences(before);
    for Difference { now: site, before: old, files } in different {
        let name = site.name();
        let Some(old) = old else {
            notes.push(format!("new site {name}"));
            continue;
        };
        let known = notes.len();
        if old.hosts != site.hosts {
            notes.push(format!("{name}: its hosts are {}", site.hosts.join(", ")));
        }
        for certificate in &site.certificates {
            if !old.certificates.iter().any(|c| c.is(certificate)) {
                notes.push(format!("{name}: certificate {} with pin {}", certificate.serial, certificate.pin));
            }
        }
        match (&old.hpkp, &site.hpkp) {
            (Some(_), None) => notes.push(format!("{name}: pins are not sent any more")),
            (None, Some(_)) => notes.push(format!("{name}: pins are sent now")),
            (old_pins, pins) if old_pins != pins || old.withheld != site.withheld => {
                notes.push(format!("{name}: the pins have changed"));
            }
            _ => {}
        }
        if old.hsts != site.hsts {
            notes.push(format!("{name}: the HSTS policy has changed"));
        }
        if old.upstream != site.upstream {
            notes.push(format!("{name}: the upstream has changed"));
        }
        let keys = changes.sites.get(name).map(Vec::as_slice).unwrap_or_default();
        if !keys.is_empty() {
            notes.push(format!("{name}: {} changed", listed(keys)));
        } else if notes.len() == known && !files.is_empty() {
            let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            notes.push(format!("{name}: {} changed", listed(&files)));
        }
    }
    notes.extend(gone.into_iter().map(|name| format!("site {name} is gone")));
    notes
}
