//! A node: pintle's ledger on a disk that may fail, its leases and its time, and what `control` does with them.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use pintle::ledger::disk::Disk;
use pintle::ledger::leases::{Leases, Pledge};
use pintle::ledger::time::{ClockReading, ClockStep, Time};
use pintle::ledger::{Accepted, Book, FILE, Ledger, Record, read_book};
use pintle::policy::promise::Seconds;

use super::build::{Built, Objection, build};
use super::client::Millis;
use super::fake_disk::FakeDisk;
use super::site::{Entry, NAMES, Table, routes};
use super::witness::Sets;

/// The disk is the machine's; the ledger has it while the process runs.
#[derive(Debug, Clone)]
pub struct Shared(Rc<RefCell<FakeDisk>>);

impl Disk for Shared {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.0.borrow_mut().read(name)
    }
    fn append(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.0.borrow_mut().append(name, contents)
    }
    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.0.borrow_mut().truncate(name, len)
    }
    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.0.borrow_mut().sync(name)
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.borrow_mut().remove(name)
    }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.0.borrow_mut().rename(from, to)
    }
    fn sync_folder(&mut self) -> io::Result<()> {
        self.0.borrow_mut().sync_folder()
    }
    fn is_as_left(&mut self, name: &str, len: u64) -> io::Result<bool> {
        self.0.borrow_mut().is_as_left(name, len)
    }
    fn note(&mut self, text: &str) -> io::Result<()> {
        self.0.borrow_mut().note(text)
    }
}

/// A machine, with pintle on it.
pub struct Node {
    disk: Shared,
    /// The file that the next start reads.
    pub file: Vec<Table>,
    /// The tables that the running process has read, with the certificates that are on the disk now.
    pub draft: Vec<Table>,
    pub running: Option<Running>,
    /// The configuration that was in use before.
    pub drafts: Vec<Vec<Table>>,
    /// By how much its clock is behind.
    pub behind: Millis,
    /// The last time that a promise was written down with the right date.
    last_right: Millis,
}

/// The process.
pub struct Running {
    pub ledger: Ledger<Shared>,
    time: Time,
    leases: Leases,
    started: Millis,
    pub entries: Vec<Rc<Entry>>,
    /// For each name, the site that serves it.
    pub routes: [Option<usize>; NAMES.len()],
    /// Dates that were too early are not mended yet.
    pub unmended: bool,
    /// By how much its dates are behind: not more than its clock is, and not behind what is written down.
    pub early_by: Millis,
    last_right: Millis,
}

/// The outcome of an action.
pub enum Outcome {
    /// In use; so many sites keep what they had.
    Admitted { kept: usize, accepted: Vec<Accepted> },
    /// Nothing has changed.
    Refused,
    /// Nothing has changed, as it could not be written down for sure.
    Unwritten { accepted: Vec<Accepted> },
}

impl Running {
    pub fn uptime(&self, now: Millis) -> u64 {
        u64::try_from(now - self.started).unwrap_or(0)
    }

    fn reading(&self, now: Millis, behind: Millis) -> ClockReading {
        ClockReading { wall: now - behind, uptime: self.uptime(now) }
    }

    /// Renews the leases that are due, as `Control::renew_leases` does.
    fn renew(&mut self, now: Millis, behind: Millis, sets: &mut Sets) {
        let reading = self.reading(now, behind);
        for (at, entry) in self.entries.iter().enumerate() {
            sets.intend(entry, names_of(&self.routes, at), now);
        }
        let due = self.leases.due(self.time.now(reading), reading.uptime);
        let Some(renewal) = due else {
            self.unmended = false;
            return;
        };
        if self.ledger.record(renewal.records.clone()).is_ok() {
            self.leases.granted(&renewal);
            self.unmended = false;
            if self.early_by == 0 && self.entries.iter().any(|entry| entry.pledge.is_some()) {
                self.last_right = now;
            }
        }
    }

    /// As `Control::tick` does, twice a second; or less often, if a disk holds it up.
    pub fn tick(&mut self, now: Millis, behind: Millis, sets: &mut Sets) {
        let reading = self.reading(now, behind);
        if let ClockStep::Forward(early) = self.time.step(reading) {
            sets.mended = now;
            self.unmended = true;
            let mended = self.leases.was_behind(early, self.ledger.book(), self.time.now(reading));
            self.ledger.believe(mended);
        }
        self.early_by = self.early_by.min(behind);
        self.renew(now, behind, sets);
    }

    /// As `Control::adopt` does: first the ledger, then the wire.
    fn adopt(&mut self, built: Built, now: Millis, behind: Millis, sets: &mut Sets) -> Outcome {
        let Built { entries, accepted, ramps, kept } = built;
        let decisions = accepted.iter().cloned().map(Record::Accepted).chain(ramps.into_iter().map(Record::Ramp));
        if self.ledger.record(decisions.collect()).is_err() && !accepted.is_empty() {
            return Outcome::Unwritten { accepted };
        }
        let pledges: Vec<Pledge> = entries.iter().filter_map(|e| e.pledge.clone()).collect();
        self.leases.hold(&pledges);
        self.routes = routes(&entries);
        self.entries = entries;
        self.renew(now, behind, sets);
        Outcome::Admitted { kept, accepted }
    }
}

/// The names that go to a site, as bits.
pub fn names_of(routes: &[Option<usize>; NAMES.len()], site: usize) -> u16 {
    routes.iter().enumerate().filter(|(_, to)| **to == Some(site)).fold(0, |bits, (name, _)| bits | 1 << name)
}

impl Node {
    pub fn new(luck: u64, file: Vec<Table>) -> Self {
        let disk = Shared(Rc::new(RefCell::new(FakeDisk { luck, ..FakeDisk::default() })));
        Self { disk, draft: file.clone(), file, running: None, drafts: Vec::new(), behind: 0, last_right: 0 }
    }

    pub fn wall(&self, now: Millis) -> Seconds {
        (now - self.behind).div_euclid(1000)
    }

    pub fn disk(&self) -> std::cell::RefMut<'_, FakeDisk> {
        self.disk.0.borrow_mut()
    }

    pub fn is_off(&self) -> bool {
        self.disk.0.borrow().is_off()
    }

    /// Power fails, or the process ends; then the disk has what it has.
    pub fn stop(&mut self, power_fails: bool) {
        if let Some(running) = self.running.take() {
            self.last_right = running.last_right;
        }
        let mut disk = self.disk.0.borrow_mut();
        if power_fails || disk.is_off() {
            *disk = std::mem::take(&mut *disk).reboot();
        }
    }

    /// As `pintle run` does.
    pub fn start(&mut self, now: Millis, sets: &mut Sets) -> (Outcome, Vec<Objection>) {
        let reading = ClockReading { wall: now - self.behind, uptime: 0 };
        let Ok((ledger, _)) = Ledger::on(self.disk.clone(), self.wall(now)) else {
            return (Outcome::Unwritten { accepted: Vec::new() }, Vec::new());
        };
        let (built, objections) = build(&self.file, &[], false, ledger.book(), self.wall(now));
        let Some(built) = built else { return (Outcome::Refused, objections) };
        let time = Time::start(ledger.book().newest(), reading);
        let (leases, routes) = (Leases::default(), [None; NAMES.len()]);
        let mut running = Running {
            ledger,
            time,
            leases,
            started: now,
            entries: Vec::new(),
            routes,
            unmended: false,
            early_by: self.behind.min(now - self.last_right),
            last_right: self.last_right,
        };
        let outcome = running.adopt(built, now, self.behind, sets);
        if let Outcome::Admitted { .. } = outcome {
            self.take_file();
            self.running = Some(running);
        }
        (outcome, objections)
    }

    /// Reads the file again, as `Control::reload` does; or, if sites may keep what they have, the certificates, as
    /// `Control::look_at_files` does.
    pub fn look(&mut self, keeps: bool, now: Millis, sets: &mut Sets) -> (Outcome, Vec<Objection>) {
        let wall = self.wall(now);
        let Some(running) = &mut self.running else { return (Outcome::Refused, Vec::new()) };
        let tables = if keeps { &self.draft } else { &self.file };
        let (built, objections) = build(tables, &running.entries, keeps, running.ledger.book(), wall);
        let Some(built) = built else { return (Outcome::Refused, objections) };
        let outcome = running.adopt(built, now, self.behind, sets);
        if let (false, Outcome::Admitted { .. }) = (keeps, &outcome) {
            self.take_file();
        }
        (outcome, objections)
    }

    fn take_file(&mut self) {
        self.draft = self.file.clone();
        self.drafts.push(self.draft.clone());
    }

    /// Writes something down on behalf of a command.
    pub fn record(&mut self, records: Vec<Record>) -> bool {
        self.running.as_mut().is_some_and(|running| running.ledger.record(records).is_ok())
    }

    /// Takes in what another node's file says, as `Control::merge` does. Whether it is written down.
    pub fn merge(&mut self, contents: &[u8]) -> bool {
        let (other, notices) = read_book(contents);
        let Some(running) = &self.running else { return false };
        let mut news = running.ledger.book().news(&other);
        news.retain(Record::travels);
        notices.is_empty() && self.record(news)
    }

    /// The ledger's file, as somebody copies it.
    pub fn contents(&self) -> Vec<u8> {
        self.disk().files.get(FILE).map(|file| file.seen.clone()).unwrap_or_default()
    }

    pub fn book(&self) -> Option<&Book> {
        self.running.as_ref().map(|running| running.ledger.book())
    }
}
