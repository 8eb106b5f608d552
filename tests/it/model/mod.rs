//! A model check: clients by RFC 7469 against pintle's guard, ledger, leases and time, in random histories.
//!
//! The code under test is the real one: `policy::promise`, `policy::guard`, `policy::hpkp`, `policy::ramp`, and the
//! `ledger` with its leases, its time, and its file on a disk that loses and fails. What `config` and `control` do between
//! them (`build.rs`, `node.rs`) is repeated in the same order, without files, sockets and threads. The clients
//! (`client.rs`) are written from the RFC alone.
//!
//! # What is claimed
//!
//! 1. **Nobody is locked out.** After whatever a node has admitted, no client rejects a chain that the node serves, if
//!    it is one that the node knows of: it came by at this node, at any moment at which pins were sent; or at the other
//!    one, and that one's ledger was merged since. So says the RFC of headers, and an export of its apps.
//! 2. **Nothing is refused without need.** For each promise that a refusal names, there is a client that came by at the
//!    last moment that the ledger leaves open, to a name that was the site's then, has not come by since, and rejects the
//!    chain now, by the node's clock. And what the ledger leaves open is not more than one lease beyond the last time
//!    at which the set was to be sent. For each set that is refused because it binds another site, a client that is told
//!    of it now rejects that site now.
//! 3. **What is sent is noted**: every client notes every enforced set, with each of the site's chains. And with a disk
//!    that works, what was admitted is sent.
//!
//! Not played, as it lies around guard and ledger: files of certificates, restarts with what was served last, upgrades,
//! and whatever else than a page may carry a header; `tests/it/outside` plays the program itself. Nor files of the ledger
//! that people delete, damage or exchange (`tests/it/loss.rs`), and clocks that are off by more than a year
//! (`tests/it/clock.rs`).
//!
//! Not claimed: that a node's clock may be ahead of the clients' time. That a node knows what it dated while its clock
//! was behind, if it stops before the clock is right. That a merge helps those who are locked out by what is served
//! already. That an operator who accepts a lockout locks out nobody.
//!
//! # How to run it
//!
//! `PINTLE_HISTORIES=1000000 cargo test --test it model` plays that many histories instead of the usual number;
//! `PINTLE_SEED` makes them other ones. A history that fails is cut down to the actions that it takes, and told.

mod acme;
mod action;
mod build;
mod client;
#[path = "../../../src/ledger/fake_disk.rs"]
mod fake_disk;
mod fleet;
mod node;
pub mod random;
mod site;
mod tables;
mod witness;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

// What the disk of the ledger's own tests is made of.
use pintle::ledger::LOCK;
use pintle::ledger::disk::Disk;

use fleet::{Counts, Fleet};
use random::Random;

/// Histories in an ordinary run.
const HISTORIES: u64 = 100_000;
const ACTIONS: i64 = 10;

/// A history: what it starts with, and its actions.
#[derive(Clone)]
struct History {
    seed: u64,
    actions: Vec<u64>,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = 3 + random.below(2 * ACTIONS - 5);
        Self { seed: random.next(), actions: (0..count).map(|_| random.next()).collect() }
    }

    /// Plays it: what has happened, or what is wrong.
    fn play(&self, trace: &mut dyn FnMut(&dyn Fn() -> String)) -> Result<Counts, String> {
        let play = AssertUnwindSafe(|| {
            let mut random = Random::new(self.seed);
            let tables = tables::any_tables(&mut random);
            let others = if random.once_in(2) { tables.clone() } else { tables::any_tables(&mut random) };
            let now = 1_800_000_000_000 + random.below(86_400_000);
            let mut fleet = Fleet::new(&mut random, now, [tables, others]);
            for action in &self.actions {
                action::act(&mut fleet, *action, trace)?;
            }
            Ok(fleet.counts)
        });
        catch_unwind(play).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default())
        })
    }

    /// The same without the actions that it does not take.
    fn cut_down(mut self) -> Self {
        let mut at = self.actions.len();
        while at > 0 {
            at -= 1;
            let mut shorter = self.clone();
            shorter.actions.remove(at);
            if shorter.play(&mut |_| {}).is_err() {
                self = shorter;
                at = at.min(self.actions.len());
            }
        }
        self
    }

    fn describe(&self) -> String {
        let mut lines = Vec::new();
        let wrong = self.play(&mut |line| lines.push(line())).err().unwrap_or_default();
        format!("  {}\n  => {wrong}", lines.join("\n  "))
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn clients_by_the_rfc_are_never_locked_out_and_nothing_is_refused_without_need() {
    let (histories, seed) = (number("PINTLE_HISTORIES", HISTORIES), number("PINTLE_SEED", 7469));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let has_failed = AtomicBool::new(false);
    let play = |thread: u64| {
        let mut counts = Vec::new();
        for number in (thread..histories).step_by(threads as usize) {
            let history = History::new(seed.wrapping_mul(1 << 40).wrapping_add(number));
            match history.play(&mut |_| {}) {
                Ok(count) => counts.push(count),
                Err(_) => {
                    has_failed.store(true, Ordering::Relaxed);
                    return Err((number, history));
                }
            }
            if has_failed.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(Counts::sum(&counts))
    };
    let played: Vec<Result<Counts, (u64, History)>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || play(thread))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut counts = Vec::new();
    for result in played {
        match result {
            Ok(count) => counts.push(count),
            Err((number, history)) => {
                panic!("PINTLE_SEED={seed}, history {number}:\n{}", history.cut_down().describe())
            }
        }
    }
    let counts = Counts::sum(&counts);
    println!("{histories} histories: {counts:?}");
    counts.assert_enough(histories);
}
