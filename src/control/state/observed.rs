//! Facts about the running process, noted while it serves.

use std::cell::{OnceCell, RefCell};
use std::sync::{Arc, Weak};

use super::rates::Rates;
use crate::config::{Draft, Outline};
use crate::control::expiry::Reported;
use crate::control::site_state::RecentStates;
use crate::telemetry::exposition::LabelSets;

/// Facts about the running process, noted while it serves.
#[derive(Default)]
pub(in crate::control) struct Observations {
    /// The certificates that were reported, since they are about to end.
    pub(in crate::control) endings: Reported,
    /// The traffic of the last minutes.
    pub(in crate::control) rates: Rates,
    /// The last report of `pintle doctor`.
    pub(in crate::control) doctor: Option<serde_json::Value>,
    /// The labels of metrics of the configuration in use.
    pub(in crate::control) labels: OnceCell<LabelsInUse>,
    /// The states of the sites a moment ago.
    pub(in crate::control) states: RecentStates,
    /// The outline of the configuration in use, once a page has asked for it.
    pub(in crate::control) outline: KnownOutline,
}

/// The labels of one configuration.
pub(in crate::control) struct LabelsInUse {
    /// `site` for each site, and last for requests to none.
    pub(in crate::control) sites: Arc<LabelSets>,
    /// `site` and `algorithm` for each certificate.
    pub(in crate::control) certificates: Arc<LabelSets>,
    /// All facts about each certificate.
    pub(in crate::control) certificate_infos: Arc<LabelSets>,
}

/// The outline that was made last, and the draft that it is of.
#[derive(Default)]
pub(in crate::control) struct KnownOutline(pub(in crate::control) RefCell<Option<(Weak<Draft>, Arc<Outline>)>>);
