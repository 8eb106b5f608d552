//! The log lines of a start: keys and promises that are lost, the ledger, the sandbox, the launcher.

use crate::acme::lost::LostKey;
use crate::commands::begun_ledger::LedgerRemarks;
use crate::commands::first_promises::{FirstKind, FirstPromises};
use crate::control::{FoundPromises, sandbox_rules};
use crate::os::sandbox;
use crate::os::words::words;
use crate::reason::Reason;

/// Logs the lost keys, the remarks on the ledger, and the sandbox.
pub(super) fn log_start(remarks: &LedgerRemarks, lost: &[LostKey], no_launcher: Option<std::io::Error>) {
    lost.iter().for_each(LostKey::log);
    if let Some(reason) = &remarks.ahead {
        let (problem, hint) = (reason.line(), reason.hint_line());
        tracing::warn!(problem, hint, "the ledger has dates ahead of the clock");
    }
    if let Some(first) = &remarks.first {
        log_new_ledger(&first.logged(), first.kind());
    }
    remarks.left_out.iter().for_each(log_left_out);
    for notice in &remarks.notices {
        tracing::warn!(%notice, "ledger");
    }
    log_process(no_launcher);
}

/// Logs where the promises of a first ledger come from.
pub(super) fn log_first_promises(first: &FirstPromises) {
    let kind =
        if first.found.as_ref().is_some_and(FoundPromises::is_addition) { FirstKind::Added } else { FirstKind::New };
    first.found_reason().iter().for_each(|reason| log_new_ledger(reason, kind));
    first.lost.iter().for_each(|lost| log_new_ledger(&lost.reason(), FirstKind::Lost));
    first.left_out.iter().for_each(log_left_out);
}

fn log_new_ledger(reason: &Reason, kind: FirstKind) {
    let (problem, hint) = (reason.line(), reason.hint_line());
    match kind {
        FirstKind::Lost => {
            tracing::error!(problem, hint, "the ledger is lost: the previous keys are assumed to be promised");
        }
        FirstKind::Added => tracing::warn!(problem, hint, "the promises in another folder count"),
        FirstKind::New => tracing::warn!(problem, hint, "the ledger is new"),
    }
}

fn log_left_out(reason: &Reason) {
    let (problem, hint) = (reason.line(), reason.hint_line());
    tracing::error!(problem, hint, "promises in another folder may be missing");
}

/// Logs the sandbox, and a missing launcher.
pub(super) fn log_process(no_launcher: Option<std::io::Error>) {
    if let Some(held) = sandbox::held() {
        sandbox_rules::announce(held);
    }
    if let Some(error) = no_launcher {
        tracing::warn!(error = %words(&error), "no launcher: upgrades are impossible");
    }
}
