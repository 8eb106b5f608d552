//! The access log: a record for each request and each failed handshake, collected by the worker and written by the log's
//! thread.

mod entry;
mod fields;
mod json;
mod line;
mod text;

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::sink::{LogBatch, LogSink, SpareBatches};
use json::RecordId;

pub use entry::{
    AccessEntry, ConnectionFacts, End, Ended, HandshakeEntry, HandshakeFacts, LogRules, Redact, Sample, UpstreamFacts,
};
pub use fields::{RecordField, RecordFields, WrongField};

/// A batch is sent to the log's thread at this size, in bytes. A write of this size takes half the kernel's time for each
/// line that one of 16 KiB takes, and there are fewer wakeups of the thread.
const BATCH: usize = 124 * 1024;
/// The space of a batch: one more record fits, so that a batch is allocated once.
const BATCH_SPACE: usize = BATCH + json::LINE_MAX;
/// A smaller batch is sent when the worker becomes idle, but not again within this time: each costs a wakeup of the log's
/// thread and a write.
const QUIET: Duration = Duration::from_millis(50);

/// The format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessFormat {
    /// One JSON object.
    #[default]
    Json,
    /// The combined format of Apache and nginx.
    Combined,
    /// A short line for people, as on a terminal.
    Short,
}

/// A worker's access log.
#[derive(Debug)]
pub struct AccessLog {
    sink: LogSink,
    format: AccessFormat,
    /// The beginning of its records' ids: a random number of the process's log, and the worker's number.
    prefix: Box<str>,
    /// The number of the next record.
    next: Cell<u64>,
    /// The state of a generator of random numbers.
    random: Cell<u64>,
    /// The log has another format than JSON, and its thread keeps recent records.
    copies: bool,
}

/// The batches of a thread.
#[derive(Default)]
struct Batched {
    lines: Vec<u8>,
    /// Records as JSON, if the lines have another format.
    copies: Vec<u8>,
    /// The memory of further batches.
    spare: SpareBatches,
    sink: Option<LogSink>,
    /// The lines are records as JSON.
    are_records: bool,
    /// Begins the quiet time, if [`AccessLog::flush_in_time`] runs.
    rest: Option<Rc<Notify>>,
    /// `true` in the quiet time.
    rests: bool,
}

thread_local! {
    static BATCHED: RefCell<Batched> = RefCell::default();
}

impl Batched {
    /// Sends the batches of at least this many bytes.
    fn send(&mut self, least: usize) {
        let Some(sink) = &self.sink else { return };
        if self.lines.len() >= least {
            let lines = taken(&mut self.lines, &self.spare);
            if self.are_records { sink.send_records(lines) } else { sink.send_lines(lines) }
        }
        if self.copies.len() >= least {
            sink.send_copies(taken(&mut self.copies, &self.spare));
        }
    }

    fn has_lines(&self) -> bool {
        !self.lines.is_empty() || !self.copies.is_empty()
    }
}

/// Takes a batch. The space of a small one stays.
fn taken(batch: &mut Vec<u8>, spare: &SpareBatches) -> LogBatch {
    if batch.len() < BATCH / 4 {
        let taken = batch.as_slice().to_vec();
        batch.clear();
        taken.into()
    } else {
        spare.batch(std::mem::take(batch))
    }
}

impl AccessLog {
    /// Creates the log of a worker, which sends its lines to `sink`.
    #[must_use]
    pub fn new(sink: LogSink, format: AccessFormat, worker: usize) -> Self {
        let seed = RandomState::new().hash_one(worker);
        let prefix = format!("{:08x}-{worker}-", seed & 0xffff_ffff).into();
        let copies = sink.keeps_records() && format != AccessFormat::Json;
        Self { sink, format, prefix, next: Cell::new(1), random: Cell::new(seed | 1), copies }
    }

    /// `true` if a record of a request is to be written: all failures, and a sample of the others.
    pub fn takes(&self, rules: &LogRules, has_failed: bool) -> bool {
        has_failed || rules.sample.is_all() || rules.sample.takes(self.random())
    }

    /// The next number of a generator (xorshift64*): good enough to choose a sample.
    fn random(&self) -> u32 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        u32::try_from(x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32).unwrap_or_default()
    }

    /// Writes the facts of a connection once, for all of its requests.
    #[must_use]
    pub fn connection_text(&self, facts: &ConnectionFacts<'_>, rules: &LogRules) -> Box<str> {
        match self.format {
            AccessFormat::Combined | AccessFormat::Short if !self.copies => Box::default(),
            _ => String::from_utf8(json::connection(facts, rules)).unwrap_or_default().into(),
        }
    }

    /// Adds a request. `sampled` if others like it are left out.
    pub fn record(&self, entry: &AccessEntry<'_>, rules: &LogRules, sampled: bool) {
        self.add(
            |id, batch| json::request(entry, rules, sampled, id, batch),
            |batch| match self.format {
                AccessFormat::Json => {}
                AccessFormat::Combined => text::combined(entry, rules, batch),
                AccessFormat::Short => text::short(entry, rules, batch),
            },
        );
    }

    /// Adds a failed handshake. The combined format has no line for it.
    pub fn record_handshake(&self, entry: &HandshakeEntry<'_>, rules: &LogRules) {
        let now = Timestamp::now().as_millisecond();
        self.add(
            |id, batch| json::handshake(entry, rules, id, now, batch),
            |batch| match self.format {
                AccessFormat::Json | AccessFormat::Combined => {}
                AccessFormat::Short => text::short_handshake(entry, rules, now, batch),
            },
        );
    }

    fn add(&self, record: impl FnOnce(RecordId<'_>, &mut Vec<u8>), line: impl FnOnce(&mut Vec<u8>)) {
        let number = self.next.get();
        self.next.set(number + 1);
        let id = RecordId { prefix: &self.prefix, number };
        BATCHED.with_borrow_mut(|batched| {
            if batched.sink.is_none() {
                batched.sink = Some(self.sink.clone());
                batched.are_records = self.format == AccessFormat::Json;
            }
            if batched.lines.capacity() == 0 {
                batched.lines = batched.spare.take(BATCH_SPACE);
            }
            if self.format == AccessFormat::Json {
                record(id, &mut batched.lines);
            } else {
                line(&mut batched.lines);
                if self.copies {
                    if batched.copies.capacity() == 0 {
                        batched.copies = batched.spare.take(BATCH_SPACE);
                    }
                    record(id, &mut batched.copies);
                }
            }
            batched.send(BATCH);
        });
    }

    /// Sends the collected lines.
    pub fn flush_thread() {
        BATCHED.with_borrow_mut(|batched| batched.send(1));
    }

    /// Sends the collected lines, unless some were sent a moment ago. Call it when the thread is idle.
    pub fn park_thread() {
        BATCHED.with_borrow_mut(|batched| {
            if batched.rests || !batched.has_lines() {
                return;
            }
            batched.send(1);
            if let Some(rest) = &batched.rest {
                batched.rests = true;
                rest.notify_one();
            }
        });
    }

    /// Sends the lines that are collected in a quiet time at its end. Runs as long as the thread.
    pub async fn flush_in_time() {
        let rest = Rc::new(Notify::new());
        BATCHED.with_borrow_mut(|batched| batched.rest = Some(rest.clone()));
        loop {
            rest.notified().await;
            loop {
                sleep(QUIET).await;
                let has_lines = BATCHED.with_borrow_mut(|batched| {
                    batched.rests = batched.has_lines();
                    batched.send(1);
                    batched.rests
                });
                if !has_lines {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn entry<'a>(user_agent: &'a [u8], target: &'a str) -> AccessEntry<'a> {
        AccessEntry {
            connection: r#","peer":"192.0.2.9""#,
            trace_id: None,
            site: Some("a.example"),
            client: "192.0.2.1".parse().unwrap(),
            host: b"a.example",
            method: "GET",
            target: target.as_bytes(),
            version: "1.1",
            scheme: "https",
            scheme_from: "listener",
            status: 502,
            bytes: 7,
            received: 3,
            time: 784_111_777_000,
            duration: Duration::from_micros(1500),
            first_byte: None,
            upstream: None,
            cache: None,
            rewritten: None,
            compressed: None,
            user_agent,
            referer: b"",
            end: End { ended: Ended::Upstream, error: Some("connection refused: 127.0.0.1:1"), ..End::default() },
        }
    }

    const ID: RecordId<'static> = RecordId { prefix: "1-0-", number: 1 };

    #[test]
    fn forms() {
        let rules = LogRules::default();
        let target = "/x?y=\"z\"";
        let mut out = Vec::new();
        json::request(&entry(b"curl/8 \xff\n", target), &rules, false, ID, &mut out);
        let want = r#"{"time":"1994-11-06T08:49:37.000Z","schema":1,"kind":"request","id":"1-0-1","site":"a.example","client":"192.0.2.1","scheme":"https","scheme_from":"listener","method":"GET","host":"a.example","target":"/x?y=\"z\"","version":"1.1","status":502,"bytes":7,"received_bytes":3,"duration_ms":1.500,"peer":"192.0.2.9","user_agent":"curl/8 \ufffd\u000a","ended":"upstream","error":"connection refused: 127.0.0.1:1","invalid":["user_agent"]}"#;
        assert_eq!(String::from_utf8(out).unwrap(), format!("{want}\n"));
        let mut out = Vec::new();
        text::combined(&entry(b"evil\"\n", target), &rules, &mut out);
        let want =
            r#"192.0.2.1 - - [06/Nov/1994:08:49:37 +0000] "GET /x?y=\x22z\x22 HTTP/1.1" 502 7 "-" "evil\x22\x0A""#;
        assert_eq!(String::from_utf8(out).unwrap(), format!("{want}\n"));
        let mut out = Vec::new();
        text::combined(&AccessEntry { method: "-", ..entry(b"", "") }, &rules, &mut out);
        let want = r#"192.0.2.1 - - [06/Nov/1994:08:49:37 +0000] "-" 502 7 "-" "-""#;
        assert_eq!(String::from_utf8(out).unwrap(), format!("{want}\n"));
        let mut out = Vec::new();
        text::short(&entry(b"curl/8", target), &rules, &mut out);
        let want =
            r#"08:49:37 502 GET https://a.example/x?y=\x22z\x22 7 bytes 1.5 ms (connection refused: 127.0.0.1:1)"#;
        assert_eq!(String::from_utf8(out).unwrap(), format!("{want}\n"));
    }

    #[test]
    fn a_line_is_bounded_and_says_what_was_cut() {
        let (agent, target) = (vec![0xff; 70_000], format!("/{}", "\"".repeat(70_000)));
        let mut entry = entry(&agent, &target);
        entry.referer = &agent;
        let mut out = Vec::new();
        json::request(&entry, &LogRules::default(), true, ID, &mut out);
        assert!(out.len() <= json::LINE_MAX, "{}", out.len());
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["truncated"], serde_json::json!(["target", "user_agent", "referer"]));
        assert_eq!(value["invalid"], serde_json::json!(["user_agent", "referer"]));
        assert!(value["target"].as_str().unwrap().ends_with('\u{2026}'));
    }

    proptest! {
        #[test]
        fn no_client_forges_a_line(agent in prop::collection::vec(any::<u8>(), 0..60)) {
            let entry = entry(&agent, "/");
            let rules = LogRules::default();
            let alpn = [agent.clone()];
            let handshake = HandshakeEntry {
                site: None,
                client: None,
                peer: None,
                duration: None,
                sni: Some(&agent),
                versions: &[],
                groups: &[],
                alpn: &alpn,
                sum: None,
                end: End::default(),
            };
            type Write<'w> = &'w dyn Fn(&mut Vec<u8>);
            let writers: [Write<'_>; 5] = [
                &|out| json::request(&entry, &rules, false, ID, out),
                &|out| text::combined(&entry, &rules, out),
                &|out| text::short(&entry, &rules, out),
                &|out| json::handshake(&handshake, &rules, ID, 0, out),
                &|out| text::short_handshake(&handshake, &rules, 0, out),
            ];
            for write in writers {
                let mut out = Vec::new();
                write(&mut out);
                prop_assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
                prop_assert!(out.iter().all(|b| *b == b'\n' || (b' '..=b'~').contains(b)));
            }
        }
    }
}
