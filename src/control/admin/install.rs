//! The steps of an installation on the control thread, and their answers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::sync::oneshot;

use super::outcome::ReloadOutcome;
use crate::config::Outline;
use crate::install::judge::InstallVerdict;
use crate::install::kept::{Before, KeptFiles};
use crate::install::plan::InstallPlan;
use crate::keys::pin::Pin;
use crate::reason::Reason;

/// A step of an installation.
pub(in crate::control) enum InstallStep {
    /// Which pairs does the site of this host have, and where?
    Facts { host: String, reply: oneshot::Sender<InstallFacts> },
    /// May this pair be served?
    Judge { plan: Arc<InstallPlan>, accept: Option<String>, reply: oneshot::Sender<JudgedInstall> },
    /// Write the files, and serve them.
    Swap { job: Box<InstallJob>, reply: oneshot::Sender<Swapped> },
    /// Bring the previous files back. Answers with the failures.
    Undo { plan: Arc<InstallPlan>, files: Box<ReplacedFiles>, reply: oneshot::Sender<Vec<Reason>> },
}

/// The control thread's knowledge.
pub(in crate::control) struct InstallFacts {
    pub(in crate::control) outline: Option<Arc<Outline>>,
    /// The served leaf key where each chain of the site is configured.
    pub(in crate::control) pins: HashMap<PathBuf, Pin>,
    pub(in crate::control) allow_keys: bool,
    /// The TLS listener to look at.
    pub(in crate::control) https: Option<SocketAddr>,
    /// The listener expects a PROXY header.
    pub(in crate::control) greeting: bool,
}

/// A verdict, and the lockout that the guard sees.
pub(in crate::control) struct JudgedInstall {
    pub(in crate::control) verdict: InstallVerdict,
    /// The broken sets, their end, and the day to accept; `null` if none is broken.
    pub(in crate::control) lockout: Value,
}

/// An installation to carry out.
pub(in crate::control) struct InstallJob {
    pub(in crate::control) plan: Arc<InstallPlan>,
    pub(in crate::control) outline: Arc<Outline>,
    pub(in crate::control) accept: Option<String>,
    /// The tags of the chains that it replaces.
    pub(in crate::control) if_match: String,
}

/// The files that were replaced, until the new ones are verified.
pub(in crate::control) struct ReplacedFiles {
    pub(in crate::control) kept: KeptFiles,
    pub(in crate::control) before: Vec<Before>,
}

/// The outcome of a swap.
pub(in crate::control) enum Swapped {
    /// The new pair is in use. The leaves that the site serves now are beside it.
    InUse { outcome: ReloadOutcome, files: Box<ReplacedFiles>, leaves: Vec<CertificateDer<'static>> },
    /// This process refuses it. The previous files are back, except for these failures.
    Refused { outcome: ReloadOutcome, failures: Vec<Reason> },
    /// Somebody else has installed another chain meanwhile, or does so now.
    Changed(Reason),
    /// The files cannot be written.
    Not(Reason),
}
