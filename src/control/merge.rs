//! Records of other nodes: they come into the ledger, and bind this process, too. The book for other programs.

use std::collections::{BTreeMap, HashSet};

use super::Control;
use super::admin::PromisesInForce;
use crate::keys::pin::Pin;
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
        // With the excuses: if there is no room for these, the next start would refuse the pairs in use.
        let excuses = self.excuses(&news, &promised, now);
        let excused = excuses.iter().cloned().map(Record::Accepted);
        let records: Vec<Record> = news.into_iter().chain(excused).collect();
        self.record(records.clone()).await.map_err(|e| format!("the ledger cannot be written: {e}"))?;
        self.report_burnt(&records);
        for Accepted { site, pin, until, .. } in &excuses {
            tracing::warn!(site, %pin, until, "the key in use breaks merged promises: readers who hold those pins are locked out");
        }
        if count > 0 {
            // The promises of other nodes bind this process, too.
            self.look_at_files().await;
            // The pairs' copies say the same as the excuses, for the next start.
            if let Some(kept) = self.keep_pairs(Some(&*self.config)) {
                let _ = kept.await;
            }
        }
        Ok(count)
    }

    /// The excuses for the pairs in use, as far as they break new promises of other nodes.
    fn excuses(&self, news: &[Record], promised: &HashSet<String>, now: Seconds) -> Vec<Accepted> {
        if promised.is_empty() {
            return Vec::new();
        }
        let mut merged = self.ledger().book().clone();
        news.iter().for_each(|record| _ = merged.apply(record.clone()));
        self.config.excuses(promised, &merged, now)
    }

    /// The book, and the time for judgements.
    pub(super) fn known(&self) -> PromisesInForce {
        let now = self.now();
        let lines = self.ledger().book().records().map(|record| record.line()).collect();
        PromisesInForce { now, lines, days: Some(self.config.days()) }
    }

    /// The pins that a site has promised, and since when.
    pub(super) fn promised(&self, site: &str) -> Vec<(Pin, i64)> {
        let ledger = self.ledger();
        let mut since: BTreeMap<Pin, i64> = BTreeMap::new();
        for promise in ledger.book().promises().iter().filter(|p| p.site == site) {
            for pin in &promise.pins {
                let first = since.entry(*pin).or_insert(promise.first_sent);
                *first = (*first).min(promise.first_sent);
            }
        }
        since.into_iter().collect()
    }
}
