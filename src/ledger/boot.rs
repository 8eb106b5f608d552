//! Clocks of one boot of the machine: dates that a process left too early, since it ended before it
//! could write their correction.
//!
//! A process notes its clock, and the time since the boot, with the first promises that it dates,
//! and again with each correction. If the clock was set forward since, a later process of the same
//! boot finds a difference, and corrects the dates. Nothing shows after a reboot.

use super::book::Book;
use super::leases::redated;
use super::record::{ClockNote, Record};
use super::time::{Behind, DOUBT, FORWARD, Time};
use crate::clock::boot::{BootMoment, boot_id};
use crate::policy::promise::Seconds;

/// Returns the error of the dates in a book by a clock of this boot, if it is too large for one that
/// drifts. A note of another boot says nothing.
fn behind(book: &Book, now: &BootMoment<'_>) -> Option<Behind> {
    let note = book.clock(now.boot?)?;
    let booted = now.wall.saturating_sub(i64::try_from(now.uptime).unwrap_or(i64::MAX));
    let behind = booted.saturating_sub(note.booted());
    (behind > FORWARD).then(|| Behind { seconds: behind.saturating_add(999) / 1000, since: note.since })
}

/// Corrects the dates in a book, and its note. Returns their error. A clock that cannot be right
/// corrects nothing.
pub(super) fn catch_up(book: &mut Book, now: &BootMoment<'_>) -> Option<Behind> {
    let behind = behind(book, now).filter(|behind| behind.seconds <= DOUBT)?;
    correct(book, now, behind);
    Some(behind)
}

/// The same by a clock that the operator has confirmed, however far it has gone on.
pub(super) fn catch_up_confirmed(book: &mut Book) {
    let now = BootMoment::now();
    if let Some(behind) = behind(book, &now) {
        correct(book, &now, behind);
    }
}

fn correct(book: &mut Book, now: &BootMoment<'_>, behind: Behind) {
    let late = redated(book, behind, now.wall.div_euclid(1000));
    late.into_iter().for_each(|record| _ = book.apply(record));
    let boot = now.boot.unwrap_or_default().to_owned();
    book.apply(Record::Clock(ClockNote { boot, uptime: now.uptime, at: now.wall, since: behind.since }));
}

/// Returns since when clocks of this boot have dated promises in a book.
#[must_use]
pub fn dated_since(book: &Book) -> Option<Seconds> {
    book.clock(boot_id()?).map(|note| note.since)
}

/// Returns the note to write behind promises that this clock dates; `None` if the book has it. Of
/// the two, a crash may leave the promises alone: nobody has acted on them, and corrected ones are
/// corrected again.
#[must_use]
pub fn note(book: &Book, time: &Time) -> Option<Record> {
    let boot = boot_id()?;
    let (at, uptime) = time.line();
    let note = ClockNote { boot: boot.to_owned(), uptime, at, since: time.since() };
    let is_known = |known: &ClockNote| {
        known.booted().saturating_sub(note.booted()).abs() <= FORWARD / 5 && known.since <= note.since
    };
    (!book.clock(boot).is_some_and(is_known)).then_some(Record::Clock(note))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostPattern;
    use crate::keys::pin::Pin;
    use crate::policy::hpkp::Mode;
    use crate::policy::promise::{Promise, PromiseChannel};

    const BOOT: &str = "this";

    fn book() -> Book {
        let mut book = Book::default();
        book.apply(Record::Promise(Promise {
            site: "a.example".into(),
            hosts: vec![HostPattern::parse("a.example").unwrap()],
            except: Vec::new(),
            pins: vec![Pin::of_spki(b"a")],
            max_age: 100,
            include_subdomains: false,
            channel: PromiseChannel::Header(Mode::Enforce),
            first_sent: 1000,
            last_sent: 1016,
        }));
        book.apply(Record::Clock(ClockNote { boot: BOOT.into(), uptime: 5_000, at: 1_000_000, since: 1000 }));
        book
    }

    fn at(boot: &str, uptime: u64, wall: i64) -> BootMoment<'_> {
        BootMoment { boot: Some(boot), uptime, wall }
    }

    #[test]
    fn a_clock_that_was_set_right_between_two_processes() {
        // The end of the promise: 20 s after the note, the clock is 1000 s further than it should be.
        let mut late = book();
        let behind = catch_up(&mut late, &at(BOOT, 25_000, 2_020_000)).unwrap();
        assert_eq!((behind, late.promises()[0].last_sent), (Behind { seconds: 1000, since: 1000 }, 2016));
        // Once.
        assert_eq!(catch_up(&mut late, &at(BOOT, 35_000, 2_030_000)), None);
        // And again; nothing was sent later than now.
        assert!(catch_up(&mut late, &at(BOOT, 36_000, 2_036_000)).is_some());
        assert_eq!(late.promises()[0].last_sent, 2021);
        let known = late.clock(BOOT).unwrap();
        assert_eq!((known.since, known.booted()), (1000, 2_000_000));
    }

    #[test]
    fn nothing_to_correct() {
        let far = DOUBT * 1000 + 2_000_000;
        for (what, now) in [
            ("the clock is the same", at(BOOT, 25_000, 1_020_000)),
            ("it drifts", at(BOOT, 25_000, 1_020_400)),
            ("it was set back", at(BOOT, 25_000, 20_000)),
            ("it cannot be right", at(BOOT, 25_000, far)),
            ("another boot", at("other", 25_000, 2_020_000)),
            ("no boot is known", BootMoment { boot: None, ..at(BOOT, 25_000, 2_020_000) }),
        ] {
            let mut book = book();
            assert_eq!(catch_up(&mut book, &now), None, "{what}");
            assert_eq!((book.promises()[0].last_sent, book.clock(BOOT).unwrap().uptime), (1016, 5_000), "{what}");
        }
    }

    #[test]
    fn the_newest_note_of_a_boot_counts() {
        let note = |uptime, at| Record::Clock(ClockNote { boot: BOOT.into(), uptime, at, since: 1000 });
        let (mut one, mut other) = (book(), book());
        let notes = [note(6_000, 9_000_000), note(6_000, 8_000_000), note(4_000, 10_000_000)];
        notes.iter().for_each(|note| _ = one.apply(note.clone()));
        notes.iter().rev().for_each(|note| _ = other.apply(note.clone()));
        assert_eq!(one.clock(BOOT), other.clock(BOOT));
        assert_eq!(one.clock(BOOT).unwrap().at, 8_000_000);
    }
}
