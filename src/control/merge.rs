//! Records of other nodes: they come into the ledger, and bind this process, too. The book for other programs.

use std::collections::BTreeMap;

use super::Control;
use super::admin::PromisesInForce;
use super::promises::log_excuses;
use crate::keys::pin::Pin;
use crate::ledger::{Accepted, Book, News, Record, repair};
use crate::os::words::words;
use crate::reason::Reason;

impl Control {
    /// Adds records that are not known yet. Returns their number.
    pub(super) async fn merge(&mut self, records: Vec<Record>) -> Result<usize, Reason> {
        let now = self.now();
        repair::fit_to_merge(&records, now)?;
        // A command may have written them already, where this process cannot.
        let _ = self.keep_ledger().await;
        let mut other = Book::default();
        for record in records.into_iter().filter(Record::travels) {
            other.apply(record);
        }
        let news = self.ledger().book().news(&other);
        let count = news.len();
        // With the excuses: if there is no room for these, the next start would refuse the pairs in use.
        let excuses = self.excuses(&news);
        let excused = excuses.iter().cloned().map(Record::Accepted);
        let records: Vec<Record> = news.into_iter().chain(excused).collect();
        self.record(records.clone()).await.map_err(|e| format!("the ledger cannot be written: {}", words(&e)))?;
        self.report_burnt(&records);
        log_excuses(&excuses);
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

    /// The excuses for the pairs in use, as far as they break new promises of other nodes, or have a burnt key.
    pub(super) fn excuses(&self, records: &[Record]) -> Vec<Accepted> {
        let news = News::of(records);
        if news.is_empty() {
            return Vec::new();
        }
        let now = self.now();
        let mut merged = self.ledger().book().clone();
        records.iter().for_each(|record| _ = merged.apply(record.clone()));
        self.config.excuses(&news, &merged, now)
    }

    /// The book, and the time for judgements.
    pub(super) fn known(&self) -> PromisesInForce {
        let now = self.now();
        let lines = self.ledger().book().records().map(|record| record.line()).collect();
        let named = Some(self.files.named.borrow().clone());
        PromisesInForce { now, lines, days: Some(self.config.days()), named }
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
