//! Records of other nodes: they come into the ledger, and bind this process, too.

use std::collections::HashSet;

use super::Control;
use crate::ledger::{Accepted, Book, Record, repair, set_id};
use crate::policy::promise::Seconds;
use crate::reason::Reason;

impl Control {
    /// Adds records that are not known yet. Returns their number.
    pub(super) async fn merge(&mut self, records: Vec<Record>) -> Result<usize, Reason> {
        let now = self.now();
        repair::fit_to_merge(&records, now)?;
        let mut other = Book::default();
        for record in records.into_iter().filter(Record::travels) {
            other.apply(record);
        }
        let news = self.ledger().book().news(&other);
        let count = news.len();
        let promised = news.iter().filter_map(|r| if let Record::Promise(p) = r { Some(set_id(p)) } else { None });
        let promised: HashSet<String> = promised.collect();
        self.record(news).await.map_err(|e| format!("the ledger cannot be written: {e}"))?;
        if count > 0 {
            // The promises of other nodes bind this process, too.
            self.look_at_files().await;
            self.excuse(&promised, now).await;
            // If the pairs in use break some of these promises, that must not prevent the next
            // start.
            if let Some(kept) = self.keep_pairs(Some(&self.config)) {
                let _ = kept.await;
            }
        }
        Ok(count)
    }

    /// Notes the lockouts by pairs in use that break new promises of other nodes.
    async fn excuse(&mut self, promised: &HashSet<String>, now: Seconds) {
        let excuses = self.config.excuses(promised, self.ledger().book(), now);
        for Accepted { site, pin, until, .. } in &excuses {
            tracing::warn!(site, %pin, until, "the key in use breaks merged promises: readers who hold those pins are locked out");
        }
        // The pairs' copies say the same, for the next start.
        if let Err(error) = self.record(excuses.into_iter().map(Record::Accepted).collect()).await {
            tracing::warn!(%error, "the ledger cannot be written");
        }
    }
}
