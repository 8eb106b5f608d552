//! The configuration in use, the verdict on another text, and a change.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::outcome::{AdoptionOrigin, ReloadOutcome};
use crate::config::KnownText;
use crate::config::edit::EditError;
use crate::config::history::ConfigHistory;

/// The control thread's knowledge of the configuration.
pub(in crate::control) struct InUse {
    pub(in crate::control) path: PathBuf,
    pub(in crate::control) text: Arc<KnownText>,
    pub(in crate::control) loaded: jiff::Timestamp,
    pub(in crate::control) history: Option<ConfigHistory>,
    pub(in crate::control) recorder: Value,
    /// `true` if this process may change the file (`admin.edit`).
    pub(in crate::control) may_edit: bool,
}

/// A change to make.
pub(in crate::control) struct Change {
    pub(in crate::control) text: String,
    /// The tags of the text that it replaces, as in `If-Match`.
    pub(in crate::control) if_match: String,
    pub(in crate::control) origin: AdoptionOrigin,
}

/// The outcome of a change.
pub(in crate::control) enum Changed {
    Refused(ReloadOutcome),
    /// The file cannot be changed, or is another one.
    Not(EditError),
    /// In use.
    Done {
        verdict: ReloadOutcome,
        /// The version that keeps it, if it is on disk already.
        version: Option<String>,
        /// The tag of the file's text: with the secrets that the request may have left out.
        tag: String,
    },
}

/// The verdict on a text, and the text in use at that moment.
pub(in crate::control) struct CheckedText {
    pub(in crate::control) verdict: ReloadOutcome,
    pub(in crate::control) text: Arc<str>,
    pub(in crate::control) running: Arc<KnownText>,
    /// The configuration file.
    pub(in crate::control) path: PathBuf,
}
