//! The findings of `pintle doctor`: the command leaves them here, since the sandbox keeps the serving process from looking
//! at its host itself.

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::control::Control;
use crate::control::status::absolute;
use crate::ledger::time::rfc3339;

/// The report in a body; `None` if it is none.
pub(in crate::control) fn report_of(body: &[u8]) -> Option<Value> {
    let report: Value = serde_json::from_slice(body).ok()?;
    let is_report = report["findings"].is_array() && report["at"].is_string() && report["checks"].is_array();
    is_report.then_some(report)
}

impl Control {
    /// Keeps a report until the next one.
    pub(in crate::control) fn keep_findings(&mut self, report: Value, reply: oneshot::Sender<()>) {
        self.observed.doctor = Some(report);
        let _ = reply.send(());
    }

    /// The last report, if there is one.
    pub(super) fn findings(&self) -> Value {
        json!({ "now": rfc3339(self.now()), "config": absolute(self.draft.path()), "report": self.observed.doctor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports() {
        assert!(report_of(br#"{"at":"2026-11-26T00:00:00Z","checks":[],"findings":[]}"#).is_some());
        for wrong in ["", "[]", "{}", r#"{"findings":[],"checks":[]}"#, r#"{"at":"x","findings":{},"checks":[]}"#] {
            assert!(report_of(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
