//! The reason why pins are withheld: a clock that cannot be right, or a ledger that cannot be written.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::time::Doubt;
use crate::ledger::{FILE, OpenError};
use crate::os::words::words;
use crate::reason::pasted;

/// The pause before the ledger is written again after a failure.
const LEDGER_RETRY: Duration = Duration::from_secs(5);

/// The reason why pins are withheld.
pub(super) struct LedgerTrouble {
    pub(super) error: String,
    /// `true` if the clock is the cause, `false` for the ledger.
    pub(super) by_clock: bool,
    /// `true` if promises may be lost: the ledger is not written before somebody has repaired it.
    is_damaged: bool,
    pub(super) retry: Instant,
}

impl LedgerTrouble {
    pub(super) fn new(error: &io::Error) -> Self {
        let retry = Instant::now() + LEDGER_RETRY;
        let opened = error.get_ref().and_then(|inner| inner.downcast_ref::<OpenError>());
        match opened {
            Some(damage @ OpenError::Damaged(_)) => {
                let error = format!("{FILE}: {damage}; `{}` names the ways out", pasted::pintle("ledger repair"));
                Self { error, by_clock: false, is_damaged: true, retry }
            }
            _ => Self { error: words(error), by_clock: false, is_damaged: false, retry },
        }
    }

    pub(super) fn of_clock(doubt: Doubt) -> Self {
        Self { error: doubt.to_string(), by_clock: true, is_damaged: false, retry: Instant::now() }
    }

    pub(super) fn log(&self) {
        if self.by_clock {
            tracing::error!(
                error = self.error,
                "the clock cannot be right: pins are withheld, everything else continues"
            );
            return;
        }
        if self.is_damaged {
            tracing::error!(
                error = self.error,
                hint = self.hint(),
                "the ledger is damaged: pins are withheld until it is repaired, everything else continues"
            );
            return;
        }
        tracing::error!(
            error = self.error,
            "the ledger cannot be written: pins are withheld until it can be, everything else continues; check free space \
             and permissions of state.directory"
        );
    }

    /// The cause in a few words.
    pub(super) fn what(&self) -> &'static str {
        match (self.by_clock, self.is_damaged) {
            (true, _) => "the clock cannot be right",
            (false, true) => "the ledger is damaged",
            (false, false) => "the ledger is not writable",
        }
    }

    pub(super) fn hint(&self) -> String {
        match (self.by_clock, self.is_damaged) {
            (true, _) => "set the clock: timedatectl set-ntp true".into(),
            (false, true) => format!("`{}` shows the damage and the ways out", pasted::pintle("ledger repair")),
            (false, false) => "check free space and permissions of state.directory".into(),
        }
    }

    /// The reason why pins are withheld, for `status`.
    pub(super) fn why(&self) -> String {
        match (self.by_clock, self.is_damaged) {
            (true, _) => self.error.clone(),
            (false, true) => format!("the ledger is damaged: {}", self.error),
            (false, false) => format!("the ledger cannot be written: {}", self.error),
        }
    }
}
