//! When the process and its configuration came into use.

use jiff::Timestamp;

/// The times of the start and of the reloads, and how the last one ended.
pub(super) struct LoadHistory {
    pub(super) started: Timestamp,
    /// The time at which the configuration in use was loaded.
    pub(super) loaded: Timestamp,
    /// The time of the last reload that has changed something, or of the start.
    pub(super) changed: Timestamp,
    /// The last reload was refused.
    pub(super) is_refused: bool,
}

impl LoadHistory {
    /// That of a process that starts now.
    pub(super) fn begin() -> Self {
        let now = Timestamp::now();
        Self { started: now, loaded: now, changed: now, is_refused: false }
    }
}
