//! The control thread's own knowledge for pages, metrics and reports: nothing of it is needed to serve.

use std::cell::OnceCell;

use super::expiry::Reported;
use super::metrics::LabelsInUse;
use super::views::{Rates, RecentStates};

/// Facts about the running process, noted while it serves.
#[derive(Default)]
pub(super) struct Observations {
    /// The certificates that were reported, since they are about to end.
    pub(super) endings: Reported,
    /// The traffic of the last minutes.
    pub(super) rates: Rates,
    /// The last report of `pintle doctor`.
    pub(super) doctor: Option<serde_json::Value>,
    /// The labels of metrics of the configuration in use.
    pub(super) labels: OnceCell<LabelsInUse>,
    /// The states of the sites a moment ago.
    pub(super) states: RecentStates,
}
