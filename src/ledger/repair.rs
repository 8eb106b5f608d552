//! What the operator may mend: dates of a clock that was wrong once, a clock that has jumped, and promises that are lost.
//! The plan comes out; carrying it out is `Ledger::replace`.

use super::book::{Book, written};
use super::record::{Record, Repair};
use super::time::DOUBT;
use crate::lease::ahead;
use crate::policy::promise::{Channel, Promise, Seconds};

/// How far a date may lie ahead of the clock, in seconds, before it is one of a clock that was wrong: clocks of two nodes
/// differ, but not by a day.
pub const SKEW: i64 = 86400;
/// A promise that is held for longer than this is none that pintle makes: a hundred years, in seconds.
const HELD_MAX: u64 = 100 * 366 * 86400;

/// A record with a date that cannot be right, and what it would become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redated {
    /// As it is.
    pub before: Record,
    /// As it would be.
    pub after: Record,
}

/// A day in UTC: `2026-11-26`.
#[must_use]
pub fn day(at: Seconds) -> String {
    jiff::Timestamp::from_second(at).unwrap_or_default().strftime("%Y-%m-%d").to_string()
}

/// When a record was written down, as far as it says.
#[must_use]
pub fn date(record: &Record) -> Option<Seconds> {
    match record {
        Record::Promise(p) => Some(written(p).max(p.first_sent)),
        Record::Ramp(r) => Some(r.since),
        Record::Accepted(a) => Some(a.at),
        Record::Repair(r) => Some(r.at),
        Record::Unknown(json) => Record::strictest(json).map(|p| written(&p).max(p.first_sent)),
        Record::Format(_) => None,
    }
}

/// Whether a record's date lies so far ahead that a clock was wrong, or it holds for longer than anything can.
#[must_use]
pub fn is_beyond(record: &Record, now: Seconds) -> bool {
    let is_endless = matches!(record, Record::Promise(p) if p.max_age > HELD_MAX);
    is_endless || date(record).is_some_and(|date| date > now.saturating_add(SKEW))
}

/// Whether another node's records may be taken in.
///
/// # Errors
///
/// Says which of them cannot be right: taken in, it would bind this node for as long.
pub fn fit_to_merge(records: &[Record], now: Seconds) -> Result<(), String> {
    let mut beyond = records.iter().filter(|record| is_beyond(record, now));
    let Some(first) = beyond.next() else { return Ok(()) };
    let more = match beyond.count() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    Err(format!(
        "nothing is merged: {} cannot be right{more}, as it is {} now\n  hint: the clock of the node that wrote it was \
         wrong, or this one's is; on that node, stop pintle, and look at `pintle ledger repair`",
        told(first),
        day(now)
    ))
}

/// A record in a few words: whose it is, and its dates.
#[must_use]
pub fn told(record: &Record) -> String {
    match record {
        Record::Promise(p) => format!(
            "a promise of {}, sent from {} to {} and held for {} s after that",
            p.site,
            day(p.first_sent),
            day(p.last_sent),
            p.max_age
        ),
        Record::Ramp(r) => format!("a ramp of {}, at step {} since {}", r.site, r.step + 1, day(r.since)),
        Record::Accepted(a) => format!("a lockout of {} that was accepted on {}", a.site, day(a.at)),
        Record::Repair(r) => format!("a repair of {}", day(r.at)),
        Record::Unknown(json) => match Record::strictest(json) {
            Some(promise) => told(&Record::Promise(promise)),
            None => "a record of a newer pintle".into(),
        },
        Record::Format(_) => "the format".into(),
    }
}

/// The records whose dates cannot be right, and what they become: nothing was sent later than now.
#[must_use]
pub fn redated(book: &Book, now: Seconds) -> Vec<Redated> {
    book.records().filter(|r| is_beyond(r, now)).map(|before| Redated { after: as_of(&before, now), before }).collect()
}

/// A book as the plan has it; `repair` is put on record.
#[must_use]
pub fn carried_out(book: &Book, now: Seconds, repair: Option<Repair>) -> Book {
    let mut mended = Book::default();
    for record in book.records() {
        mended.apply(if is_beyond(&record, now) { as_of(&record, now) } else { record });
    }
    if let Some(repair) = repair {
        mended.apply(Record::Repair(repair));
    }
    mended
}

/// Whether the clock is so far beyond the last date in the book that pins are withheld until the operator says that it is
/// right. Gives that date.
#[must_use]
pub fn clock_jumped(book: &Book, now: Seconds) -> Option<Seconds> {
    book.newest().filter(|newest| now.saturating_sub(*newest) > DOUBT)
}

fn as_of(record: &Record, now: Seconds) -> Record {
    match record.clone() {
        Record::Promise(promise) => {
            let latest = match promise.channel {
                Channel::Header(_) => now.saturating_add(ahead(promise.max_age)),
                Channel::Export { .. } => now,
            };
            Record::Promise(Promise {
                first_sent: promise.first_sent.min(now),
                last_sent: promise.last_sent.min(latest),
                max_age: promise.max_age.min(HELD_MAX),
                ..promise
            })
        }
        Record::Ramp(mut ramp) => {
            ramp.since = ramp.since.min(now);
            Record::Ramp(ramp)
        }
        Record::Accepted(mut accepted) => {
            accepted.at = accepted.at.min(now);
            Record::Accepted(accepted)
        }
        Record::Repair(mut repair) => {
            repair.at = repair.at.min(now);
            Record::Repair(repair)
        }
        // What a newer program wrote becomes what this one makes of it.
        Record::Unknown(json) => match Record::strictest(&json) {
            Some(promise) => as_of(&Record::Promise(promise), now),
            None => Record::Unknown(json),
        },
        Record::Format(format) => Record::Format(format),
    }
}
