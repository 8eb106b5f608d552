//! When the process and its configuration came into use.

use jiff::Timestamp;

/// The times of the start and of the reloads, and how the last one ended.
pub(in crate::control) struct LoadHistory {
    pub(in crate::control) started: Timestamp,
    /// The time at which the configuration in use was loaded.
    pub(in crate::control) loaded: Timestamp,
    /// The time of the last reload that has changed something, or of the start.
    pub(in crate::control) changed: Timestamp,
    /// The last reload was refused.
    pub(in crate::control) is_refused: bool,
}

impl LoadHistory {
    /// That of a process that starts now.
    pub(in crate::control) fn begin() -> Self {
        let now = Timestamp::now();
        Self { started: now, loaded: now, changed: now, is_refused: false }
    }
}
