//! The model outside: clients by RFC 7469 against the real binary, over TLS, in random histories of what operators do
//! and of what befalls a machine.
//!
//! `tests/it/model` plays guard, ledger and leases inside the program, in a million histories. What it cannot see is
//! around them: what else can send a header, how files are read back, what a restart, an upgrade or another process
//! believes. So here nothing is told again: a process, its files, its sockets.
//!
//! # What is played
//!
//! Chains and keys that are put in place in any order, whole, half, as garbage, or not at all; renewals with the same
//! key, by the same authority or by another one, whose key a third has signed (a cross-sign); edits of the configuration
//! (sites, hosts, wildcard, a name below it for another site, names that move from one site to another, parent and child,
//! canonical name, default site, mode, max-age, includeSubDomains, ramp, backups, keys of authorities among them, HSTS, a
//! second pair); reload, install (with a lockout accepted, too), kill -9, SIGTERM, upgrade; exports with a life; the ledger
//! of another node, merged while this one runs or not, and keys that another node has burnt; a machine that sleeps or is
//! down; a clock that is behind or ahead, and set right (the debug build's `PINTLE_TEST_CLOCK`); a disk that is full (a
//! limit of the process for its files); the ledger's files deleted, damaged, torn, or replaced by old ones. Visitors come
//! with ECDSA and with RSA, with roots of today and of before, with new sessions and resumed ones, by HTTP/1.1 and HTTP/2,
//! for the connection's name and for others, with good requests, and with such as are answered by 400, 414, 421 and 431.
//! The upstream sends policies of its own, in its answers, in interim ones, and in trailers.
//!
//! # What is claimed
//!
//! 1. **Nobody is locked out**: whoever noted pins, from whatever answer carried them for the name that was asked for,
//!    accepts each chain that is served for it later; so does an app with an export.
//! 2. **Nothing is refused without need**, as far as it is known: where the guard refuses files, there is a client that
//!    rejects one of the chains, or may do so, having come by at the last moment of a lease. A reload or an upgrade of
//!    nothing is never refused.
//! 3. **What is served can be started again**, after SIGTERM and kill -9, with the configuration that was taken last.
//! 4. **The wire is never ahead of the disk**: a set that was heard stands in the ledger, until a time that has not come.
//! 5. **Fields are valid**: one, not the upstream's, the policy of the site of the name that was asked for, a pin inside of
//!    the chain and one outside; none for names of no site, in interim answers or in trailers.
//!
//! Not claimed: that a node knows whom it dated too early, if the machine goes down before the correction is written; that a
//! merge helps those who are locked out by what is served already; that who accepts a lockout, or the loss of a ledger, locks out nobody.
//! That a pair is kept that could not be copied, as the disk is full. That a clock ahead of the clients' locks out nobody:
//! promises end too early by it. That a word about a lockout leaves out what is promised in the same second.
//!
//! # How to run it
//!
//! `tests/outside 10000` plays that many histories; `tests/outside 10000 SEED` other ones. `PINTLE_HISTORIES` and
//! `PINTLE_SEED` do the same for `cargo test --test it outside`, and `PINTLE_HISTORY` plays the one of that number alone.
//! A history that fails is cut down to the actions that it takes, and told. What is not in the seed is time: processes
//! are as fast as they are.

mod action;
mod client;
mod keys;
mod node;
mod tables;
mod visit;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::{getpid, set_child_subreaper};
use tempfile::TempDir;

use crate::harness::{Origin, Reply};
use crate::model::random::Random;

use keys::Keys;
use visit::Visitor;
use world::{Counts, UPSTREAMS_AGE, World};

/// Histories in an ordinary run.
const HISTORIES: u64 = 300;
const ACTIONS: i64 = 10;
/// Histories that are played at the same time.
const AT_ONCE: u64 = 4;

/// A history: what it starts with, and its actions.
#[derive(Clone)]
struct History {
    seed: u64,
    actions: Vec<u64>,
}

/// The parts that all histories share.
struct Stage {
    keys: Keys,
    upstream: String,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = 3 + random.below(2 * ACTIONS - 5);
        Self { seed: random.next(), actions: (0..count).map(|_| random.next()).collect() }
    }

    fn play(&self, stage: &Stage, trace: &mut dyn FnMut(String)) -> Result<Counts, String> {
        let play = AssertUnwindSafe(|| {
            let folder = TempDir::new().unwrap();
            let visitor = Visitor::new(&stage.keys);
            let node = folder.path().join("node");
            let mut world = World::new(&stage.keys, &visitor, &stage.upstream, &node, Random::new(self.seed));
            world.start()?;
            world.check()?;
            for action in &self.actions {
                action::act(&mut world, *action, trace)?;
            }
            Ok(std::mem::take(&mut world.counts))
        });
        catch_unwind(play).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default())
        })
    }

    /// The same without the actions that it does not take.
    fn cut_down(mut self, stage: &Stage) -> Self {
        let mut at = self.actions.len();
        while at > 0 {
            at -= 1;
            let mut shorter = self.clone();
            shorter.actions.remove(at);
            if shorter.play(stage, &mut |_| {}).is_err() {
                self = shorter;
                at = at.min(self.actions.len());
            }
        }
        self
    }

    fn described(&self, stage: &Stage) -> String {
        let mut lines = Vec::new();
        let wrong = self.play(stage, &mut |line| lines.push(line)).err();
        format!("  {}\n  => {}", lines.join("\n  "), wrong.unwrap_or_else(|| "well, this time".into()))
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// An upstream that has policies of its own, and says so wherever it can.
fn upstream() -> Origin {
    let own = format!(
        "Strict-Transport-Security: max-age={UPSTREAMS_AGE}; includeSubDomains\r\n\
         Public-Key-Pins: pin-sha256=\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"; max-age={UPSTREAMS_AGE}\r\n"
    );
    Origin::forgetful(move |request| {
        if request.path() != "/interim" {
            return Reply::new("200 OK", &own, "hello");
        }
        let text = format!(
            "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n{own}\r\nHTTP/1.1 200 OK\r\n{own}Trailer: X-Test\r\n\
             Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{own}\r\n"
        );
        Reply::Bytes(text.into_bytes())
    })
}

#[test]
fn clients_of_the_real_binary_are_never_locked_out() {
    set_child_subreaper(Some(getpid())).unwrap();
    let (histories, seed) = (number("PINTLE_HISTORIES", HISTORIES), number("PINTLE_SEED", 7469));
    let one = std::env::var("PINTLE_HISTORY").is_ok().then(|| number("PINTLE_HISTORY", 0));
    let origin = upstream();
    let stage = Stage { keys: Keys::new(), upstream: origin.url() };
    let (next, has_failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let new = |number: u64| History::new(seed.wrapping_mul(1 << 40).wrapping_add(number));
    if let Some(number) = one {
        let history = new(number);
        let first = history.described(&stage);
        println!("history {number}:\n{first}");
        let is_well = first.ends_with("well, this time");
        let described = if is_well { first } else { history.cut_down(&stage).described(&stage) };
        println!("cut down:\n{described}");
        assert!(described.ends_with("well, this time"), "PINTLE_SEED={seed} PINTLE_HISTORY={number}");
        return;
    }
    let play = || {
        let mut counts = Counts::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= histories || has_failed.load(Ordering::Relaxed) {
                return Ok(counts);
            }
            let (history, mut lines) = (new(number), Vec::new());
            match history.play(&stage, &mut |line| lines.push(line)) {
                Ok(more) => more.into_iter().for_each(|(what, n)| *counts.entry(what).or_default() += n),
                Err(why) => {
                    has_failed.store(true, Ordering::Relaxed);
                    return Err((number, history, format!("{}\n  => {why}", lines.join("\n  "))));
                }
            }
        }
    };
    let played: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(play)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut counts = Counts::new();
    for result in played {
        match result {
            Ok(more) => more.into_iter().for_each(|(what, n)| *counts.entry(what).or_default() += n),
            Err((number, history, why)) => panic!(
                "PINTLE_SEED={seed} PINTLE_HISTORY={number}:\n  {why}\ncut down:\n{}",
                history.cut_down(&stage).described(&stage)
            ),
        }
    }
    println!("{histories} histories: {counts:#?}");
    if histories >= HISTORIES {
        action::assert_enough(&counts, histories);
    }
}
