//! Plans a repair: corrects dates of a clock that was wrong, and accepts a clock that jumped and
//! lost promises. `Ledger::replace` carries it out.

use super::book::{Book, written};
use super::boot::catch_up_confirmed;
use super::record::{Record, Repair};
use super::time::{DOUBT, day};
use crate::lease::ahead;
use crate::policy::promise::{Promise, PromiseChannel, Seconds};
use crate::reason::Reason;

/// Seconds that a date may lie ahead of the clock before it counts as wrong: the clocks of two
/// nodes differ, but not by a day.
pub const SKEW: i64 = 86400;
/// A promise that is held for longer than this many seconds (a hundred years) is not one that
/// pintle makes.
const HELD_MAX: u64 = 100 * 366 * 86400;

/// A record with an impossible date, and its correction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redated {
    /// The recorded one.
    pub before: Record,
    /// The corrected one.
    pub after: Record,
}

/// Returns the time at which a record was written; `None` if it has none.
#[must_use]
pub fn date(record: &Record) -> Option<Seconds> {
    match record {
        Record::Promise(p) => Some(written(p).max(p.first_sent)),
        Record::Ramp(r) => Some(r.since),
        Record::Accepted(a) => Some(a.at),
        Record::Replaced(r) => Some(r.at),
        Record::Repair(r) => Some(r.at),
        Record::Seen(at) => Some(*at),
        Record::Burnt(b) => Some(b.at),
        Record::Declined(d) => Some(d.at),
        Record::Unknown(json) => Record::strictest(json).map(|p| written(&p).max(p.first_sent)),
        Record::Clock(_) | Record::Format(_) => None,
    }
}

/// Returns `true` if a record's date is too far ahead of the clock, or if its promise lasts
/// impossibly long.
#[must_use]
pub fn is_beyond(record: &Record, now: Seconds) -> bool {
    let is_endless = matches!(record, Record::Promise(p) if p.max_age > HELD_MAX);
    is_endless || date(record).is_some_and(|date| date > now.saturating_add(SKEW))
}

/// Returns a record, with dates of today instead of impossible ones: nothing was sent later than
/// now.
#[must_use]
pub fn bounded(record: Record, now: Seconds) -> Record {
    if is_beyond(&record, now) { as_of(&record, now) } else { record }
}

/// Checks that records of another node may be merged.
///
/// # Errors
///
/// Names the first record with an impossible date: merged, it would bind this node for as long.
pub fn fit_to_merge(records: &[Record], now: Seconds) -> Result<(), Reason> {
    let mut beyond = records.iter().filter(|record| is_beyond(record, now));
    let Some(first) = beyond.next() else { return Ok(()) };
    let more = match beyond.count() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let what = format!("nothing is merged: impossible date in {}{more}, as today is {}", in_words(first), day(now));
    Err(Reason::new(what)
        .note("the clock of one of the two nodes was wrong")
        .hint("on the node that wrote it, stop pintle, and run `pintle ledger repair`"))
}

/// Describes a record in a few words: its site and its dates.
#[must_use]
pub fn in_words(record: &Record) -> String {
    match record {
        Record::Promise(p) => format!(
            "a promise of {}, sent from {} to {} and held for {} s after that",
            p.site,
            day(p.first_sent),
            day(p.last_sent),
            p.max_age
        ),
        Record::Ramp(r) => format!("a ramp of {}, at step {} since {}", r.site, r.step + 1, day(r.since)),
        Record::Accepted(a) => format!("a lockout of {}, accepted on {}", a.site, day(a.at)),
        Record::Replaced(r) => format!("the end of an excuse of {} from {}", r.site, day(r.at)),
        Record::Repair(r) => format!("a repair of {}", day(r.at)),
        Record::Seen(at) => format!("the time of {}", day(*at)),
        Record::Burnt(b) => format!("a burnt key of {}, since {}", b.site, day(b.at)),
        Record::Declined(d) => format!("a promise that was declined on {}", day(d.at)),
        Record::Unknown(json) => match Record::strictest(json) {
            Some(promise) => in_words(&Record::Promise(promise)),
            None => "a record of a newer pintle".into(),
        },
        Record::Clock(c) => format!("a clock that showed {}", day(c.at.div_euclid(1000))),
        Record::Format(_) => "the format".into(),
    }
}

/// Returns the records with impossible dates, and their corrections: nothing was sent later than
/// now.
///
/// A clock that went on from the last date, and that the operator confirms, may also show that dates
/// of this boot are too early.
#[must_use]
pub fn redated(book: &Book, now: Seconds) -> Vec<Redated> {
    let beyond = book.records().filter(|r| is_beyond(r, now));
    let mut redated: Vec<Redated> = beyond.map(|before| Redated { after: as_of(&before, now), before }).collect();
    let confirmed = confirmed(book);
    redated.extend(book.promises().iter().filter_map(|before| {
        let after = confirmed.find(before).filter(|after| after.last_sent > before.last_sent)?;
        Some(Redated { before: Record::Promise(before.clone()), after: Record::Promise(after.clone()) })
    }));
    redated
}

/// Returns the book by a clock that the operator confirms.
fn confirmed(book: &Book) -> Book {
    let mut book = book.clone();
    catch_up_confirmed(&mut book);
    book
}

/// Returns the book after the repair, and records `repair` in it.
#[must_use]
pub fn carried_out(book: &Book, now: Seconds, repair: Option<Repair>) -> Book {
    let mut mended = Book::default();
    // Notes of clocks go: by the clock that the operator confirms, all dates are right now.
    for record in confirmed(book).records().filter(|record| !matches!(record, Record::Clock(_))) {
        mended.apply(bounded(record, now));
    }
    if let Some(repair) = repair {
        mended.apply(Record::Repair(repair));
    }
    mended
}

/// Returns the latest date in the book if it lies ahead of the clock by more than [`SKEW`]: promises
/// are held for that much longer.
#[must_use]
pub fn dated_ahead(book: &Book, now: Seconds) -> Option<Seconds> {
    book.records().filter_map(|record| date(&record)).max().filter(|date| *date > now.saturating_add(SKEW))
}

/// Returns the newest date in the book if the clock is too far beyond it. pintle then withholds
/// pins until the operator confirms the clock.
#[must_use]
pub fn clock_jumped(book: &Book, now: Seconds) -> Option<Seconds> {
    book.newest().filter(|newest| now.saturating_sub(*newest) > DOUBT)
}

fn as_of(record: &Record, now: Seconds) -> Record {
    match record.clone() {
        Record::Promise(promise) => {
            let latest = match promise.channel {
                PromiseChannel::Header(_) | PromiseChannel::Assumed => now.saturating_add(ahead(promise.max_age)),
                PromiseChannel::Export { .. } => now,
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
        Record::Replaced(mut replaced) => {
            replaced.at = replaced.at.min(now);
            Record::Replaced(replaced)
        }
        Record::Repair(mut repair) => {
            repair.at = repair.at.min(now);
            Record::Repair(repair)
        }
        Record::Seen(at) => Record::Seen(at.min(now)),
        Record::Burnt(mut burnt) => {
            burnt.at = burnt.at.min(now);
            Record::Burnt(burnt)
        }
        Record::Declined(mut declined) => {
            declined.at = declined.at.min(now);
            Record::Declined(declined)
        }
        // A newer version's promise becomes one of this version.
        Record::Unknown(json) => match Record::strictest(&json) {
            Some(promise) => as_of(&Record::Promise(promise), now),
            None => Record::Unknown(json),
        },
        known @ (Record::Clock(_) | Record::Format(_)) => known,
    }
}
