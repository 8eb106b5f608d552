//! The soak: everything at once, for as long as one likes. Clients of every kind, reloads, renewed certificates and
//! upgrades; no request fails but those that their clients break off, and no process grows.
//!
//! `PINTLE_SOAK` is its length in seconds; `tests/soak` runs it for half an hour.

mod clients;
mod streams;

use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::Instant;

use crate::harness::{Authority, BLOG, Client, Leaf, eventually, policies};
use crate::upgrade::Line;
use clients::{Counts, Load, SOCKETS};

const LISTEN: &str = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 2\n";

/// Limits for a slow machine. Idle connections to upstreams are gone when descriptors are counted.
const PATIENT: &str = "[limits]\nupgrade = \"2m\"\ndrain = \"1m\"\nupstream_idle = \"1s\"\n";

/// Every so many reloads, the certificate is another one, too.
const RENEWAL: usize = 3;

/// The memory, in bytes, that a process may own beyond the first two at the same age: bodies that are under way, and
/// memory that jemalloc has not returned yet. All of it is some 10 MiB, and differs by two.
const MEMORY: u64 = 8 << 20;

/// The average growth, in bytes, of a process from half of its life to its upgrade. With a thousand requests a second
/// for half a minute, it is a hundred bytes for each request.
const GROWTH: u64 = 4 << 20;

/// Descriptors that a process may have more than the first two at the same age: every client has a connection or none,
/// and for each of its requests there is one to the upstream, or one that waits to be used again.
const DESCRIPTORS: usize = 40;

/// The times of the actions.
struct Plan {
    length: Duration,
    reload: Duration,
    upgrade: Duration,
}

impl Plan {
    fn of_environment() -> Self {
        let seconds = std::env::var("PINTLE_SOAK").map_or(20, |s| s.parse().expect("PINTLE_SOAK: a number of seconds"));
        let [reload, upgrade] = if seconds > 120 { [5, 60] } else { [2, 6] }.map(Duration::from_secs);
        Self { length: Duration::from_secs(seconds), reload, upgrade }
    }
}

/// The resources of a process.
#[derive(Clone, Copy)]
struct Needs {
    /// Its share of all memory, in bytes; what it has in common with others (its program) is divided among them.
    pss: u64,
    /// Its memory that it shares with no other process: the number of others does not matter.
    own: u64,
    descriptors: usize,
}

impl Needs {
    /// Nothing where only root may look into it: it keeps its memory from its own user, too.
    fn of(line: &Line) -> Option<Self> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", line.pid())).ok()?;
        let field = |name: &str| -> u64 {
            let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
        };
        Some(Self { pss: field("Pss:"), own: field("Pss_Anon:"), descriptors: line.files()? })
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(f, "PSS {:.1} MiB, {:.1} of it its own, {} descriptors", mib(self.pss), mib(self.own), self.descriptors)
    }
}

/// The processes one after the other, and what was done to them.
struct History<'a> {
    line: &'a Line,
    authority: &'a Authority,
    leaf: Leaf,
    begin: Instant,
    /// Of the process that serves.
    since: Instant,
    pids: Vec<u32>,
    reloads: usize,
    renewals: usize,
    /// Of each process, in the middle between two upgrades and before the next one.
    middle: Vec<Needs>,
    end: Vec<Needs>,
}

impl History<'_> {
    /// Another value of a header, another certificate now and then; both are seen by who comes next.
    fn reload(&mut self, client: &Client, load: &Load<'_>) {
        self.reloads += 1;
        let renewed = self.reloads.is_multiple_of(RENEWAL).then(|| {
            self.renewals += 1;
            let days = 60 + (self.renewals % 30) as i64;
            let new = self.authority.renew("renewed", &self.leaf.key, &[BLOG], days);
            let der = CertificateDer::from_pem_file(&new.chain).unwrap();
            fs::rename(new.chain, &self.leaf.chain).unwrap();
            der
        });
        let [before, after] = [self.reloads - 1, self.reloads].map(|n| format!("\"X-Edge\" = \"{n}\""));
        self.line.pintle.rewrite(|text| text.replace(&before, &after));
        self.line.pintle.reload();
        eventually(&format!("reload {} is seen", self.reloads), || {
            let mut connection = client.connect(load.address, BLOG);
            let edge = connection.get(BLOG, "/1").field("x-edge").map(str::to_owned);
            let leaf = connection.stream.tls().unwrap().peer_certificates().unwrap()[0].clone().into_owned();
            let seen = edge == Some(self.reloads.to_string()) && renewed.as_ref().is_none_or(|der| *der == leaf);
            (seen || !load.goes_on()).then_some(())
        });
    }

    fn upgrade(&mut self) {
        let counters = &self.line.pintle.status()["counters"];
        assert_eq!((&counters["panics"], &counters["responses_5xx"]), (&0.into(), &0.into()), "{counters}");
        self.line.upgrade();
        self.pids.push(self.line.pid());
        self.since = Instant::now();
    }

    /// Does what is due until the time is over, or something has failed.
    fn go_on(&mut self, plan: &Plan, load: &Load<'_>) {
        let client = load.client(Resumption::disabled());
        let (mut reload, mut printed_at) = (plan.reload, Duration::ZERO);
        let measures = Needs::of(self.line).is_some();
        while load.goes_on() && self.begin.elapsed() < plan.length {
            let (elapsed, age) = (self.begin.elapsed(), self.since.elapsed());
            if measures && self.middle.len() < self.pids.len() && age >= plan.upgrade / 2 {
                self.middle.extend(Needs::of(self.line));
            }
            if age >= plan.upgrade {
                self.end.extend(Needs::of(self.line));
                self.upgrade();
            } else if elapsed >= reload {
                self.reload(&client, load);
                reload = self.begin.elapsed() + plan.reload;
            }
            if elapsed >= printed_at + Duration::from_secs(60) {
                printed_at = elapsed;
                self.tell(&load.counts);
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.tell(&load.counts);
    }

    fn tell(&self, counts: &Counts) {
        let of = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        eprintln!(
            "soak, {} s: {} HTTP/1.1, {} HTTP/2, {} WebSocket messages, {} uploads, {} slow downloads, {} new and {} \
             resumed handshakes, {} aborted, {} torn; {} reloads, {} certificates, {} upgrades; {}",
            self.begin.elapsed().as_secs(),
            of(&counts.http1),
            of(&counts.http2),
            of(&counts.echoes),
            of(&counts.uploads),
            of(&counts.slow),
            of(&counts.fresh),
            of(&counts.resumed),
            of(&counts.aborted),
            of(&counts.torn),
            self.reloads,
            self.renewals,
            self.pids.len() - 1,
            Needs::of(self.line)
                .map_or_else(|| "not measured, since only root may look".into(), |needs| needs.to_string()),
        );
    }

    /// `true` if the processes kept their size.
    fn judge(&self, plan: &Plan) {
        for (nth, (middle, end)) in self.middle.iter().zip(&self.end).enumerate() {
            eprintln!("process {nth}: {middle}; {} s later {end}", plan.upgrade.as_secs() / 2);
        }
        for (what, all) in [("in the middle", &self.middle), ("at the end", &self.end)] {
            let shown: Vec<String> = all.iter().map(ToString::to_string).collect();
            let Some((first, later)) = all.split_at_checked(2) else { continue };
            let own = first.iter().map(|needs| needs.own).max().unwrap() + MEMORY;
            let descriptors = first.iter().map(|needs| needs.descriptors).max().unwrap() + DESCRIPTORS;
            let grown = later.iter().any(|needs| needs.own > own || needs.descriptors > descriptors);
            assert!(!grown, "{what} of its life, from process to process: {shown:#?}");
        }
        let own = |all: &[Needs]| all.iter().map(|needs| needs.own).sum::<u64>();
        let lives = self.end.len();
        if lives > 1 {
            let grown = own(&self.end).saturating_sub(own(&self.middle[..lives])) / lives as u64;
            assert!(grown <= GROWTH, "processes grow: by {grown} bytes in half the time between two upgrades");
        }
    }
}

#[test]
fn nothing_fails_and_nothing_grows() {
    let plan = Plan::of_environment();
    let authority = Authority::new();
    let (origin, echo) = (clients::origin(), super::websocket::echo_server());
    let (leaf, sockets) = (authority.leaf("blog", &[BLOG]), authority.leaf("ws", &[SOCKETS]));
    let config = format!(
        "{PATIENT}[log]\naccess = \"off\"\n\
         [[site]]\nhosts = [\"{SOCKETS}\"]\nupstream = \"{echo}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n\
         [[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n\
         [site.response_headers]\nset = {{ \"X-Edge\" = \"0\" }}\n{}",
        sockets.chain,
        sockets.key,
        origin.url(),
        leaf.chain,
        leaf.key,
        policies(&authority),
    );
    let mut line = Line::start(&authority, LISTEN, &config);
    let at_rest = Needs::of(&line).map(|needs| needs.descriptors);
    let load = Load::new(&authority, line.pintle.https());
    let mut history = History {
        line: &line,
        authority: &authority,
        leaf,
        begin: Instant::now(),
        since: Instant::now(),
        pids: vec![line.pid()],
        reloads: 0,
        renewals: 0,
        middle: Vec::new(),
        end: Vec::new(),
    };
    thread::scope(|scope| {
        let load = &load;
        for _ in 0..2 {
            scope.spawn(|| clients::gets(load));
            scope.spawn(|| streams::streams(load));
        }
        scope.spawn(|| clients::uploads(load));
        scope.spawn(|| clients::handshakes(load, Resumption::disabled(), false));
        scope.spawn(|| clients::handshakes(load, Resumption::in_memory_sessions(8), true));
        scope.spawn(|| clients::aborts(load));
        scope.spawn(|| clients::slow(load));
        for messages in [50, 500] {
            scope.spawn(move || clients::websockets(load, messages));
        }
        let gone_on = catch_unwind(AssertUnwindSafe(|| history.go_on(&plan, load)));
        load.stop();
        gone_on.unwrap_or_else(|panic| resume_unwind(panic));
    });
    let failures = load.failures();
    assert!(failures.is_empty(), "{failures:#?}");
    history.judge(&plan);
    let unresumed = load.counts.unresumed.load(Ordering::Relaxed);
    assert_eq!(unresumed, 1, "full handshakes of who had a session; one begins it");
    eventually("as many descriptors as at the start", || {
        (Needs::of(&line).map(|needs| needs.descriptors) <= at_rest).then_some(())
    });
    let counters = &line.pintle.status()["counters"];
    assert_eq!((&counters["panics"], &counters["responses_5xx"]), (&0.into(), &0.into()), "{counters}");
    let torn = load.counts.torn.load(Ordering::Relaxed);
    assert_eq!(torn, 0, "HTTP/2 connections that were reset at their end");
    // Those of before are gone, all by themselves.
    let pids = history.pids;
    assert!(pids.len() > 1 || plan.length < plan.upgrade, "no upgrade");
    if pids.len() > 1 {
        assert_eq!(line.pintle.wait().code(), Some(0));
        for pid in &pids[1..pids.len() - 1] {
            assert_eq!(line.wait(*pid), Some(0), "process {pid}");
        }
    }
    assert!(!line.pintle.log().contains("\"level\":\"ERROR\""), "{}", line.pintle.log());
    line.signal("TERM");
    match line.pid() {
        first if first == line.pintle.pid() => assert_eq!(line.pintle.wait().code(), Some(0)),
        last => assert_eq!(line.wait(last), Some(0)),
    }
}
