//! The ledger, its clock and its leases.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use crate::control::ledger_trouble::LedgerTrouble;
use crate::ledger::Ledger;
use crate::ledger::leases::Leases;
use crate::ledger::time::{ClockReading, Time};
use crate::policy::promise::Seconds;

/// The ledger, the leases, and what has delayed a ramp.
pub(in crate::control) struct LedgerState {
    pub(in crate::control) ledger: Arc<Mutex<Ledger>>,
    pub(in crate::control) time: RefCell<Time>,
    pub(in crate::control) leases: RefCell<Leases>,
    /// The reason why pins are withheld; `None` while they are sent.
    pub(in crate::control) trouble: Option<LedgerTrouble>,
    /// Failed attempts to write the ledger.
    pub(in crate::control) errors: Cell<u64>,
    /// The last attempt to write the ledger failed. A doubt about the clock changes nothing here.
    pub(in crate::control) is_unwritable: Cell<bool>,
    /// The time of the last check of the ledger's file.
    pub(in crate::control) looked_at: Instant,
    /// The copies of pairs note no promise that was over by then.
    pub(in crate::control) ends_noted: Seconds,
    /// The reports of failed pins that have been counted, by site.
    pub(in crate::control) reported: HashMap<String, u64>,
    /// By site, the last step of its ramp that reports have delayed.
    pub(in crate::control) waited: BTreeMap<String, usize>,
}

impl LedgerState {
    pub(in crate::control) fn new(ledger: Ledger, time: Time, leases: Leases, trouble: Option<LedgerTrouble>) -> Self {
        Self {
            ledger: Arc::new(Mutex::new(ledger)),
            ends_noted: time.judged(ClockReading::take()),
            time: RefCell::new(time),
            leases: RefCell::new(leases),
            is_unwritable: Cell::new(trouble.as_ref().is_some_and(|trouble| !trouble.by_clock)),
            trouble,
            errors: Default::default(),
            looked_at: Instant::now(),
            reported: HashMap::new(),
            waited: BTreeMap::new(),
        }
    }
}
