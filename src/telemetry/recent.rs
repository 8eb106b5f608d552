//! The most recent records of the access log, for questions about them.
//!
//! The log's thread adds the batches that it gets anyway. Nobody reads a record before it is asked for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memchr::memmem;
use serde_json::Value;

use super::sink::{LogBatch, lines};

/// The most bytes that are kept for each record, on average. Most records have fewer than a quarter of that.
const BYTES_EACH: usize = 4096;

/// A bounded list of the most recent records.
#[derive(Debug)]
pub struct RecentRecords {
    max: usize,
    kept: Mutex<KeptBatches>,
}

#[derive(Debug, Default)]
struct KeptBatches {
    batches: VecDeque<RecordBatch>,
    records: usize,
    /// The memory of the batches.
    bytes: usize,
}

/// Some records, as lines.
#[derive(Debug, Clone)]
struct RecordBatch {
    lines: Arc<LogBatch>,
    records: usize,
}

/// The extent of a [`RecentRecords`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordsReach {
    /// The number of records.
    pub records: usize,
    /// The most records that are kept.
    pub max: usize,
    /// The time of the oldest one.
    pub oldest: Option<String>,
}

impl RecentRecords {
    /// Creates a list of at most `max` records.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, kept: Mutex::default() }
    }

    /// Adds whole lines, one for each record. Removes the oldest records if there are too many.
    pub(super) fn add(&self, batch: Arc<LogBatch>) {
        let records = usize::try_from(lines(&batch.bytes)).unwrap_or(usize::MAX);
        let mut kept = self.lock();
        kept.records += records;
        kept.bytes += batch.bytes.capacity();
        kept.batches.push_back(RecordBatch { lines: batch, records });
        // A batch stays while some of its records are wanted, and the newest one in any case.
        while kept.batches.len() > 1
            && let Some(oldest) = kept.batches.front()
            && (kept.records - oldest.records >= self.max || kept.bytes > self.max.saturating_mul(BYTES_EACH))
        {
            let (records, bytes) = (oldest.records, oldest.lines.bytes.capacity());
            kept.records -= records;
            kept.bytes -= bytes;
            kept.batches.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, KeptBatches> {
        // Each change leaves the list whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the batches, the newest first. They share their memory with the list.
    fn batches(&self) -> Vec<RecordBatch> {
        self.lock().batches.iter().rev().cloned().collect()
    }

    /// Returns the records' lines in these batches, the newest first.
    fn lines<'b>(&self, batches: &'b [RecordBatch]) -> impl Iterator<Item = &'b [u8]> {
        let lines = batches.iter().flat_map(|batch| batch.lines.bytes.rsplit(|b| *b == b'\n'));
        lines.filter(|line| !line.is_empty()).take(self.max)
    }

    /// Returns the record with this id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<Value> {
        let (batches, text) = (self.batches(), format!("\"id\":{}", Value::from(id)));
        let wanted = memmem::Finder::new(&text);
        // A client may have sent the same text in a header field.
        let likely = self.lines(&batches).filter(|line| wanted.find(line).is_some());
        likely.filter_map(read).find(|record| record["id"] == id)
    }

    /// Returns at most `most` records that `is_wanted`, the newest first.
    #[must_use]
    pub fn newest(&self, most: usize, is_wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let batches = self.batches();
        self.lines(&batches).filter_map(read).filter(is_wanted).take(most).collect()
    }

    /// Returns the extent of the list.
    #[must_use]
    pub fn reach(&self) -> RecordsReach {
        let batches = self.batches();
        let (records, oldest) = self.lines(&batches).fold((0, None), |(count, _), line| (count + 1, Some(line)));
        let oldest = oldest.and_then(read).and_then(|record| record["time"].as_str().map(str::to_owned));
        RecordsReach { records, max: self.max, oldest }
    }
}

fn read(line: &[u8]) -> Option<Value> {
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize, more: &str) -> String {
        format!("{{\"time\":\"T{number}\",\"id\":\"a-0-{number}\",\"user_agent\":{}}}\n", Value::from(more))
    }

    fn add(recent: &RecentRecords, lines: &str) {
        recent.add(Arc::new(lines.as_bytes().to_vec().into()));
    }

    #[test]
    fn a_batch_beyond_the_bound_still_serves() {
        let recent = RecentRecords::new(3);
        for first in [0, 100] {
            let batch: String = (first..first + 100).map(|number| line(number, &"x".repeat(600))).collect();
            add(&recent, &batch);
        }
        assert_eq!(recent.reach(), RecordsReach { records: 3, max: 3, oldest: Some("T197".into()) });
        assert_eq!(recent.lock().batches.len(), 1);
    }

    #[test]
    fn the_newest_records_are_kept() {
        let recent = RecentRecords::new(5);
        assert_eq!(recent.reach(), RecordsReach { records: 0, max: 5, oldest: None });
        for first in (0..20).step_by(4) {
            let batch: String = (first..first + 4).map(|number| line(number, "")).collect();
            add(&recent, &batch);
        }
        assert_eq!(recent.reach(), RecordsReach { records: 5, max: 5, oldest: Some("T15".into()) });
        let ids = |most: usize| -> Vec<String> {
            recent.newest(most, |_| true).iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(ids(2), ["a-0-19", "a-0-18"]);
        assert_eq!((ids(9).len(), ids(0).len()), (5, 0));
        assert_eq!(recent.find("a-0-15").unwrap()["time"], "T15");
        assert_eq!((recent.find("a-0-14"), recent.find("a-0-1"), recent.find("")), (None, None, None));
        assert_eq!(recent.newest(9, |r| r["time"] == "T17").len(), 1);
    }

    #[test]
    fn a_client_cannot_claim_an_id() {
        let recent = RecentRecords::new(9);
        add(&recent, &line(1, ""));
        add(&recent, &line(2, "\",\"id\":\"a-0-1\""));
        assert_eq!(recent.find("a-0-1").unwrap()["time"], "T1");
    }

    #[test]
    fn long_records_have_a_bound() {
        let recent = RecentRecords::new(10);
        for number in 0..100 {
            add(&recent, &line(number, &"x".repeat(16_000)));
        }
        let kept = recent.lock();
        assert!(kept.bytes <= 10 * BYTES_EACH && kept.records >= 2, "{} {}", kept.bytes, kept.records);
        assert_eq!(kept.records, kept.batches.len());
    }
}
