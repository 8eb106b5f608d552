//! Promises while pintle serves: the ledger and its file, the clock that judges, and the leases of the pins.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::Control;
use super::ledger_trouble::LedgerTrouble;
use super::unopened_ledger::{hear, reopen};
use crate::keys::pin::Pin;
use crate::ledger::leases::LeaseRenewal;
use crate::ledger::time::{ClockReading, ClockStep};
use crate::ledger::{Accepted, Book, Ledger, Record, boot, repair, set_id};
use crate::policy::promise::{Promise, PromiseChannel, Seconds};
use crate::reason::{pasted, shell_word};

/// The interval between checks of the ledger's file for deletion and foreign changes.
const LEDGER_LOOK: Duration = Duration::from_secs(5);
/// The number of records with impossible dates that the log names.
const NAMED_MAX: usize = 20;
/// The interval at which the ledger gets a date if nothing else is written, in seconds.
const DATED_EVERY: Seconds = 86400;

/// The outcome of an attempt to write the ledger.
enum WriteOutcome {
    Done,
    /// Nothing is written yet: the file has records that the book lacks.
    Foreign(ForeignRecords),
}

/// Records of others, and those that were about to be written.
struct ForeignRecords {
    records: Vec<Record>,
    foreign: Vec<Record>,
    /// Records of others whose dates cannot be right, as they were in the file.
    beyond: Vec<Record>,
}

/// The sets of pins that clients may hold of a site.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HeldSets {
    pub(super) sets: usize,
    /// The end of the last one.
    pub(super) until: Seconds,
}

/// Facts by site; names of ten thousand are looked up for one page.
pub(super) type BySite<'b, T> = HashMap<&'b str, T, foldhash::fast::RandomState>;

impl HeldSets {
    fn add(&mut self, promise: &Promise) {
        self.sets += 1;
        self.until = promise.honoured_until().max(self.until);
    }
}

/// The sets that clients may hold.
pub(super) fn held(book: &Book, now: Seconds) -> BySite<'_, HeldSets> {
    let mut held = BySite::<HeldSets>::default();
    for promise in book.promises().iter().filter(|promise| promise.is_alive(now)) {
        held.entry(&promise.site).or_default().add(promise);
    }
    held
}

/// The same of one site; `None` without any: of ten thousand, a page shows few.
pub(super) fn held_of(book: &Book, now: Seconds, site: &str) -> Option<HeldSets> {
    let mut held = HeldSets::default();
    book.of_site(site).filter(|promise| promise.is_alive(now)).for_each(|promise| held.add(promise));
    (held.sets > 0).then_some(held)
}

/// The first time at which clients of a site received a pin, by site and pin.
pub(super) type PromisedSince<'b> = HashMap<(&'b str, Pin), Seconds, foldhash::fast::RandomState>;

/// Since when pins of some sites are promised: one pass over the ledger, not one for each key.
pub(super) fn promised_since(book: &Book, is_wanted: impl Fn(&str) -> bool) -> PromisedSince<'_> {
    let mut since = PromisedSince::default();
    for promise in book.promises().iter().filter(|promise| is_wanted(&promise.site)) {
        for pin in &promise.pins {
            let first = since.entry((&promise.site, *pin)).or_insert(promise.first_sent);
            *first = promise.first_sent.min(*first);
        }
    }
    since
}

/// The dates of a key, in seconds since 1970.
pub(super) struct PromiseDates {
    /// Since when it is promised.
    pub(super) since: Option<Seconds>,
    /// From when it may serve; `None` for now.
    pub(super) usable_from: Option<Seconds>,
}

/// `true` if a set is in an answer now, or may be.
pub(super) fn is_sent(promise: &Promise, now: Seconds) -> bool {
    matches!(promise.channel, PromiseChannel::Header(_)) && promise.last_sent >= now
}

/// The sets that are sent now, by their ids.
pub(super) fn sent_sets(book: &Book, now: Seconds) -> HashSet<String> {
    book.promises().iter().filter(|promise| is_sent(promise, now)).map(set_id).collect()
}

impl Control {
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.promises.ledger)
    }

    /// The time for every judgement, after the steps of the clock since the last call were taken
    /// into account. The caller must not hold the ledger.
    pub(super) fn now(&self) -> Seconds {
        let reading = ClockReading::take();
        let mut time = self.promises.time.borrow_mut();
        let mut is_redated = false;
        match time.step(reading) {
            ClockStep::None => {}
            ClockStep::Forward(behind) => {
                is_redated = !self.draining;
                tracing::warn!(
                    seconds = behind.seconds,
                    "the clock was set forward, or this machine slept: promises are written again"
                );
                let mut ledger = self.ledger();
                let mended = self.promises.leases.borrow_mut().was_behind(behind, ledger.book(), time.now(reading));
                ledger.believe(mended);
            }
            ClockStep::Back(seconds) => tracing::warn!(seconds, "the clock was set back; promises are not shortened"),
            // The log reports it where pins are withheld. If the clock is right, all dates since
            // the start are too early.
            ClockStep::Doubtful(_) => self.promises.leases.borrow_mut().revoke(),
        }
        let judged = time.judged(reading);
        drop(time);
        if is_redated {
            // The pairs' copies note the ends of promises.
            self.keep_pairs(Some(&self.config));
        }
        judged
    }

    /// The time for judgements, and the same unless the clock is doubted: without another step of the clock.
    fn times(&self) -> (Seconds, Option<Seconds>) {
        let (time, reading) = (self.promises.time.borrow(), ClockReading::take());
        (time.judged(reading), time.undoubted(reading))
    }

    /// Writes records, on a thread that may wait for the disk.
    pub(super) async fn record(&mut self, records: Vec<Record>) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        self.write(records).await
    }

    /// Writes the ledger's file again if it was deleted or changed; on a thread that may wait for
    /// the disk.
    pub(super) async fn keep_ledger(&self) -> io::Result<()> {
        self.write(Vec::new()).await
    }

    /// Writes records, if there are any, and the file if it was deleted or changed.
    async fn write(&self, records: Vec<Record>) -> io::Result<()> {
        match self.write_unless_foreign(records, false).await? {
            WriteOutcome::Done => Ok(()),
            WriteOutcome::Foreign(found) => self.write_with_foreign(found).await,
        }
    }

    /// Writes records that depend on a judgement, unless that is out of date: `false` if the file had records that the book
    /// lacked. The book has these now, and nothing else is written.
    pub(super) async fn record_judged(&self, records: Vec<Record>) -> io::Result<bool> {
        match self.write_unless_foreign(records, false).await? {
            WriteOutcome::Done => Ok(true),
            WriteOutcome::Foreign(found) => {
                // A failure is retried: whatever the disk does, the book has the records.
                let _ = self.write_with_foreign(ForeignRecords { records: Vec::new(), ..found }).await;
                Ok(false)
            }
        }
    }

    /// Writes records, and those of a file that somebody has put there instead of this one, such as an old copy: its promises
    /// bind, too. They come with the excuses of the pairs in use, as those of a merge do, since the next start would refuse
    /// these pairs otherwise.
    async fn write_with_foreign(&self, found: ForeignRecords) -> io::Result<()> {
        let ForeignRecords { mut records, foreign, beyond } = found;
        let excuses = self.excuses(&foreign);
        records.extend(foreign.iter().cloned().chain(excuses.iter().cloned().map(Record::Accepted)));
        let written = self.write_unless_foreign(records, true).await;
        if written.is_err() {
            // The book has the file's records already, and is written as a whole later: with the excuses.
            let excused = excuses.iter().cloned().map(Record::Accepted);
            self.ledger().believe(foreign.iter().cloned().chain(excused).collect());
        }
        tracing::warn!(
            records = foreign.len(),
            "the file had records that this process did not know, of an older copy or of another node: they are kept, and \
             their promises bind"
        );
        log_impossible_dates(&beyond);
        self.report_burnt(&foreign);
        log_excuses(&excuses);
        // The pairs' copies say the same as the excuses.
        self.keep_pairs(Some(&self.config));
        written.map(drop)
    }

    /// Writes records and the file, unless the file has records that the book lacks and `any` is false.
    async fn write_unless_foreign(&self, records: Vec<Record>, any: bool) -> io::Result<WriteOutcome> {
        let (ledger, folder) = (self.promises.ledger.clone(), self.fixed.state.clone());
        let (now, undoubted) = self.times();
        // After an upgrade, the file is the new process's.
        let hears = !self.draining;
        let written = spawn_blocking(move || {
            let mut ledger = lock(&ledger);
            let mut foreign = Vec::new();
            if let Some(folder) = folder.filter(|_| ledger.is_broken()) {
                if hears {
                    foreign = hear(&mut ledger, &folder, undoubted);
                }
                if !records.is_empty() && (any || foreign.is_empty()) {
                    // With `any`, the caller has judged what was heard, and `records` has it.
                    foreign.extend(reopen(&mut ledger, &folder, now)?);
                }
            }
            foreign.extend(ledger.foreign(undoubted)?);
            if !any && !foreign.is_empty() {
                let beyond = ledger.beyond().to_vec();
                return Ok(WriteOutcome::Foreign(ForeignRecords { records, foreign, beyond }));
            }
            if records.is_empty() {
                let kept = ledger.keep();
                log_disturbance(&mut ledger);
                return kept.map(|()| WriteOutcome::Done);
            }
            ledger.record(records)?;
            log_disturbance(&mut ledger);
            Ok(WriteOutcome::Done)
        });
        self.counted(written.await.unwrap_or_else(|panic| Err(io::Error::other(panic))))
    }

    /// Counts a failure to write the ledger.
    fn counted(&self, written: io::Result<WriteOutcome>) -> io::Result<WriteOutcome> {
        self.promises.is_unwritable.set(written.is_err());
        let errors = &self.promises.errors;
        errors.set(errors.get().saturating_add(u64::from(written.is_err())));
        written
    }

    /// The same, at intervals. Promises that are not on disk, and cannot be written there, must not
    /// be sent. A doubt about the clock changes nothing about the file.
    pub(super) async fn look_after_ledger(&mut self) {
        let has_failed = self.promises.trouble.as_ref().is_some_and(|trouble| !trouble.by_clock);
        // The renewal of leases tries the disk again. Without any, nobody else does.
        let is_tried = has_failed && (self.ledger().is_broken() || !self.promises.leases.borrow().is_idle());
        if self.promises.looked_at.elapsed() < LEDGER_LOOK || is_tried {
            return;
        }
        self.promises.looked_at = Instant::now();
        self.note_ends();
        if let Err(error) = self.keep_ledger().await {
            self.promises.leases.borrow_mut().revoke();
            self.withhold(LedgerTrouble::new(&error));
            return;
        }
        if self.promises.trouble.take_if(|trouble| !trouble.by_clock).is_some() {
            tracing::info!("the ledger is written again");
        }
        if self.promises.trouble.is_none() {
            self.date_ledger().await;
            self.compact_ledger().await;
        }
    }

    /// Copies the pairs again whose names a promise has bound that is over: the notes of their copies have its pins, too.
    fn note_ends(&mut self) {
        let Some(now) = self.times().1.filter(|_| !self.draining) else { return };
        let since = std::mem::replace(&mut self.promises.ends_noted, now);
        let is_over = |promise: &&Promise| promise.is_alive(since) && !promise.is_alive(now);
        let over: Vec<Promise> = self.ledger().book().promises().iter().filter(is_over).cloned().collect();
        if !over.is_empty() {
            self.keep_pairs_after(&over);
        }
    }

    /// Notes why pins are withheld, and logs it if it is new.
    fn withhold(&mut self, trouble: LedgerTrouble) {
        if self.promises.trouble.as_ref().is_none_or(|known| known.error != trouble.error) {
            trouble.log();
        }
        self.promises.trouble = Some(trouble);
    }

    /// Shortens the ledger's file if it is long. Copies of the pairs in use name the sets that these break, so such sets
    /// stay as they are.
    async fn compact_ledger(&self) {
        if !self.ledger().is_long() {
            return;
        }
        let (now, undoubted) = self.times();
        let (ledger, broken) = (self.promises.ledger.clone(), self.config.broken_sets(self.ledger().book(), now));
        let compacted = spawn_blocking(move || {
            let mut ledger = lock(&ledger);
            let is_changed = ledger.foreign(undoubted).map_or(true, |foreign| !foreign.is_empty());
            if is_changed { Ok(false) } else { ledger.compact(now, |promise| broken.contains(&set_id(promise))) }
        });
        // A file that is too long works as well as a short one.
        if let Err(error) = compacted.await.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            tracing::warn!(%error, "cannot compact the ledger");
        }
    }

    /// Notes the time in the ledger if nothing else was written for a day, so that the next start
    /// does not doubt a clock that is right.
    async fn date_ledger(&mut self) {
        let reading = ClockReading::take();
        let (now, doubt) = {
            let time = self.promises.time.borrow();
            (time.now(reading), time.doubt(reading))
        };
        let newest = self.ledger().book().newest();
        if doubt.is_none() && newest.is_some_and(|newest| now.saturating_sub(newest) >= DATED_EVERY) {
            // A failure is retried at the next look. Nothing depends on it meanwhile.
            let _ = self.record(vec![Record::Seen(now)]).await;
        }
    }

    /// Renews the leases that are due. Pins whose leases cannot be renewed are withheld when these
    /// end.
    pub(super) async fn renew_leases(&mut self) {
        let renewal = self.record_leases().await;
        self.grant_leases(renewal);
    }

    /// Lets workers send the pins of a renewal that is durable.
    pub(super) fn grant_leases(&mut self, renewal: Option<LeaseRenewal>) {
        let Some(renewal) = renewal else { return };
        self.promises.leases.borrow_mut().granted(&renewal);
        if self.promises.trouble.take().is_some() {
            tracing::info!("the ledger is written again: pins are sent");
        }
    }

    /// Writes the leases that are due. Returns those that may be granted.
    pub(super) async fn record_leases(&mut self) -> Option<LeaseRenewal> {
        // After an upgrade, the previous process may still serve a chain that the pins break.
        if self.upgrades.released.is_some() {
            return None;
        }
        if self.promises.trouble.as_ref().is_some_and(|trouble| trouble.retry > Instant::now()) {
            return None;
        }
        let reading = ClockReading::take();
        let (now, doubt) = {
            let time = self.promises.time.borrow();
            (time.now(reading), time.doubt(reading))
        };
        if let Some(doubt) = doubt {
            if self.promises.trouble.as_ref().is_none_or(|known| !known.by_clock) {
                let trouble = LedgerTrouble::of_clock(doubt);
                trouble.log();
                self.promises.trouble = Some(trouble);
            }
            return None;
        }
        if self.promises.trouble.take_if(|trouble| trouble.by_clock).is_some() {
            tracing::info!("the clock is plausible again: pins are sent");
        }
        let due = self.promises.leases.borrow().due(now, reading.uptime);
        let mut renewal = due?;
        renewal.records.extend(boot::note(self.ledger().book(), &self.promises.time.borrow()));
        match self.record(renewal.records.clone()).await {
            Ok(()) => Some(renewal),
            Err(error) => {
                self.withhold(LedgerTrouble::new(&error));
                None
            }
        }
    }
}

/// Logs the pairs in use that new records would refuse.
pub(super) fn log_excuses(excuses: &[Accepted]) {
    for Accepted { site, pin, until, sets, .. } in excuses {
        match sets.is_empty() {
            true => tracing::error!(
                site,
                %pin,
                hint = pasted::pintle(format_args!("key list --site {}", shell_word(site))),
                "the key in use is burnt: it was compromised, and serves until you change over to another one"
            ),
            false => tracing::warn!(
                site,
                %pin,
                until,
                "the key in use breaks merged promises: readers who hold those pins are locked out"
            ),
        }
    }
}

/// Logs promises of others with impossible dates. They bind as if they were sent until today.
fn log_impossible_dates(beyond: &[Record]) {
    for record in beyond.iter().take(NAMED_MAX) {
        tracing::error!(
            record = repair::in_words(record),
            hint = "check the clock of the node that wrote it; there, stop pintle, and run `pintle ledger repair`",
            "impossible date in the ledger's file: it counts as sent until today"
        );
    }
    if let more @ 1.. = beyond.len().saturating_sub(NAMED_MAX) {
        tracing::error!(records = more, "more impossible dates in the ledger's file");
    }
}

fn log_disturbance(ledger: &mut Ledger) {
    if ledger.was_disturbed() {
        tracing::warn!("another program has deleted or changed the ledger's file: it is written again");
    }
}

pub(super) fn lock(ledger: &Arc<Mutex<Ledger>>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
