//! The outcomes of reloads, upgrades and tests, and the origin of an adoption.

use crate::config::history::How;
use crate::keys::pin::Pin;
use crate::reason::{Problem, of_peer, texts};

/// The outcome of a reload, or of a look at a certificate.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct ReloadOutcome {
    /// `true` if it is in use.
    pub ok: bool,
    /// Errors and warnings as texts, for programs and commands of older versions.
    pub problems: Vec<String>,
    /// Errors and warnings.
    #[serde(default)]
    pub reasons: Vec<Problem>,
    /// The changes.
    pub notes: Vec<String>,
}

impl ReloadOutcome {
    pub(in crate::control) fn new(ok: bool, reasons: Vec<Problem>, notes: Vec<String>) -> Self {
        Self { ok, problems: texts(&reasons), reasons, notes }
    }

    pub(in crate::control) fn refused(reasons: Vec<Problem>) -> Self {
        Self::new(false, reasons, Vec::new())
    }

    /// The same without the lines of the file: there may be secrets in them.
    pub(in crate::control) fn without_lines(mut self) -> Self {
        for place in self.reasons.iter_mut().filter_map(|problem| problem.reason.place.as_mut()) {
            place.text.clear();
        }
        Self::new(self.ok, self.reasons, self.notes)
    }

    /// The errors and warnings, whatever the version of the process that found them.
    #[must_use]
    pub fn reasons(self) -> Vec<Problem> {
        of_peer(self.reasons, &self.problems)
    }
}

/// The outcome of an upgrade.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct UpgradeOutcome {
    /// `true` if the new process serves.
    pub ok: bool,
    /// The reasons against it as texts, for programs and commands of older versions.
    pub problems: Vec<String>,
    /// The reasons against it.
    #[serde(default)]
    pub reasons: Vec<Problem>,
    /// Notes for the operator.
    pub notes: Vec<String>,
    /// The new process's id.
    pub pid: Option<u32>,
    /// Its version.
    pub version: Option<String>,
}

impl UpgradeOutcome {
    /// The reasons against it, whatever the version of the process that found them.
    #[must_use]
    pub fn reasons(&self) -> Vec<Problem> {
        of_peer(self.reasons.clone(), &self.problems)
    }
}

/// A certificate that `pintle install` has put in place.
#[derive(Debug, Clone)]
pub(in crate::control) struct Installed {
    pub(in crate::control) pin: Pin,
    /// The leaf's serial number, in hexadecimal.
    pub(in crate::control) serial: String,
}

/// The origin of an adoption.
#[derive(Debug, Clone)]
pub(in crate::control) struct AdoptionOrigin {
    pub(in crate::control) how: How,
    pub(in crate::control) who: String,
    /// The version that it brings back.
    pub(in crate::control) restores: Option<String>,
}

impl AdoptionOrigin {
    pub(in crate::control) fn new(how: How, who: impl Into<String>) -> Self {
        Self { how, who: who.into(), restores: None }
    }

    /// An adoption that nobody has asked this process for.
    pub(in crate::control) fn own(how: How) -> Self {
        Self::new(how, crate::os::privileges::user())
    }
}

/// The outcome of a test.
#[derive(Debug, Default)]
pub(in crate::control) struct Tested {
    /// Each hook that was tested, and why it failed.
    pub(in crate::control) hooks: Vec<(String, Option<String>)>,
    /// The names of all hooks.
    pub(in crate::control) known: Vec<String>,
}
