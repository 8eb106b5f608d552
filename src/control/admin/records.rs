//! The recent records of the access log.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::telemetry::RecentRecords;

/// The recent records, and why a record may be missing among them.
pub(in crate::control) struct KeptRecords {
    pub(in crate::control) recent: Option<Arc<RecentRecords>>,
    /// Records have ids.
    pub(in crate::control) has_ids: bool,
    /// The file with the older records, if it has their ids.
    pub(in crate::control) file: Option<PathBuf>,
    /// The start of this process.
    pub(in crate::control) started: Timestamp,
}
