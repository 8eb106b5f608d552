//! One operator's machine, with all who have visited it; and what must hold after each action.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use pintle::ledger;
use pintle::policy::hpkp::Mode as HeaderMode;
use pintle::policy::promise::{Promise, PromiseChannel};
use tokio::time::Instant;

use crate::harness::Client;
use crate::model::random::Random;

use super::client::{Ghost, Policy, Seconds, hsts_age};
use super::keys::{KEYS, Keys, NAMES, RSA_FROM, SITES, VERSIONS};
use super::node::{Node, Said};
use super::tables::{Tables, chain_path, key_path};
use super::visit::{ASKS, Ask, Heard, VISITORS, Visitor};

/// The max-age that stands in the upstream's own fields.
pub const UPSTREAMS_AGE: u64 = 666;
/// A clock that was set is noticed by then.
const TICKS: Duration = Duration::from_secs(2);
/// A pair is copied by then.
const COPIED: Duration = Duration::from_secs(4);
/// After a full disk, by then.
const COPIED_LATE: Duration = Duration::from_secs(12);

/// Counts of the events.
pub type Counts = BTreeMap<String, u64>;

/// The pair in one place: a key, a certificate of it.
pub type Pair = (usize, usize);

pub struct World<'w> {
    pub keys: &'w Keys,
    pub upstream: String,
    pub random: Random,
    pub node: Node,
    /// The file as it is, and as it was taken last.
    pub tables: Tables,
    pub taken: Tables,
    /// By site and kind: the pair on the disk; none if it is no pair.
    pub files: BTreeMap<(usize, &'static str), Option<Pair>>,
    pub ghosts: Vec<Ghost>,
    /// By how much the time is ahead of this machine's, and the node's clock behind the time (below 0: ahead of it), in
    /// seconds.
    pub ahead: Seconds,
    pub behind: Seconds,
    /// The machine's boots so far.
    pub boot: u64,
    /// The last time that the node's clock was set forward.
    pub stepped: Option<Instant>,
    /// Somebody has been at the ledger's files, and it has not been written anew since.
    pub blind: bool,
    /// A record of the ledger was changed, or a loss was accepted. pintle keeps to what can be read, so it may refuse
    /// chains for a promise that nobody has heard, or whose clients are forgotten here.
    pub is_changed: bool,
    /// The running process cannot write.
    pub is_full: bool,
    /// Some pair that is served was not copied in time: if its files go bad, it is lost with the process.
    pub uncopied: bool,
    /// Copies of the ledger's files.
    pub copies: Vec<Vec<(&'static str, Vec<u8>)>>,
    /// Leaves that were met in the last visits.
    pub leaves: BTreeSet<String>,
    /// And paths, as clients of today build them.
    pub paths: BTreeSet<Vec<String>>,
    pub counts: Counts,
    visitor: &'w Visitor<'w>,
    clients: [Client; VISITORS],
}

pub const LEDGER_FILES: [&str; 2] = ["ledger.jsonl", "ledger.head"];

impl<'w> World<'w> {
    pub fn new(keys: &'w Keys, visitor: &'w Visitor<'w>, upstream: &str, folder: &Path, mut random: Random) -> Self {
        let tables = Tables::any(&mut random);
        let mut world = Self {
            keys,
            upstream: upstream.to_owned(),
            node: Node::new(folder),
            taken: tables.clone(),
            tables,
            files: BTreeMap::new(),
            ghosts: Vec::new(),
            ahead: 0,
            behind: 0,
            boot: 0,
            stepped: None,
            blind: false,
            is_changed: false,
            is_full: false,
            uncopied: false,
            copies: Vec::new(),
            leaves: BTreeSet::new(),
            paths: BTreeSet::new(),
            counts: Counts::new(),
            visitor,
            clients: visitor.clients(),
            random,
        };
        for site in 0..SITES {
            world.put(site, "e", (0, 0));
            world.put(site, "r", (RSA_FROM, 0));
        }
        world.write_tables();
        world.set_clock();
        world
    }

    pub fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    pub fn now(&self) -> Seconds {
        Timestamp::now().as_second() + self.ahead
    }

    /// The day that the node's clock shows.
    pub fn day(&self) -> String {
        Timestamp::from_second(self.now() - self.behind).unwrap().strftime("%Y-%m-%d").to_string()
    }

    pub fn set_clock(&self) {
        self.node.set_clock(self.ahead - self.behind, self.boot);
    }

    /// The node's clock goes forward by so much, at once.
    pub fn clock_goes_forward(&mut self, by: Seconds) {
        self.set_clock();
        if self.node.is_running() {
            self.stepped = Some(Instant::now());
            // Tickets grow old by the machine's clocks, which stand still here.
            self.clients = self.visitor.clients();
            self.visitor.forget();
            for ghost in &mut self.ghosts {
                ghost.slack += by;
            }
        }
    }

    /// `true` if a policy that is sent now may be dated too early.
    fn dates_early(&self) -> bool {
        self.behind > 0 || self.stepped.is_some_and(|at| at.elapsed() < TICKS)
    }

    pub fn write_tables(&self) {
        fs::write(self.node.config(), self.tables.toml(self.keys, &self.node.folder, &self.upstream)).unwrap();
    }

    /// A pair is put in its place, each file whole.
    pub fn put(&mut self, site: usize, kind: &'static str, pair: Pair) {
        let folder = self.node.folder.clone();
        self.put_one(&key_path(&folder, site, kind), &self.keys.leaf(site, pair.0, pair.1).key);
        self.put_one(&chain_path(&folder, site, kind), &self.keys.leaf(site, pair.0, pair.1).chain);
        self.files.insert((site, kind), Some(pair));
    }

    pub fn put_one(&self, to: &Path, from: &Path) {
        let new = to.with_extension("new");
        fs::copy(from, &new).unwrap();
        fs::rename(new, to).unwrap();
    }

    /// The path of a pair.
    pub fn chain(&self, site: usize, (key, version): Pair) -> Vec<String> {
        self.keys.path(site, key, version)
    }

    /// The running process can write again.
    pub fn has_room(&mut self) {
        self.node.fill_disk(false);
        self.is_full = false;
    }

    /// Starts it. What is served before a stop can always be started again.
    pub fn start(&mut self) -> Result<(), String> {
        self.count("start");
        let Err(mut why) = self.node.start() else {
            self.started();
            return Ok(());
        };
        if self.blind {
            // Promises may be lost: somebody must say, with the day, that they may be.
            let day = self.day();
            let mut said = self.node.command(&["ledger", "repair", "--accept-loss", &day]);
            if !said.ok && self.behind > 0 {
                // "See that this machine's clock is right": by this one, dates lie in the future.
                self.behind = 0;
                self.set_clock();
                let day = self.day();
                said = self.node.command(&["ledger", "repair", "--accept-loss", &day]);
            }
            if said.ok {
                self.count("loss accepted");
                self.is_changed = true;
                self.ghosts.clear();
                self.blind = false;
            } else {
                return Err(format!("no way out of a damaged ledger: {}\nthe start said: {why}", said.text));
            }
            match self.node.start() {
                Ok(()) => {
                    self.started();
                    return Ok(());
                }
                Err(more) => why = more,
            }
        }
        if self.uncopied {
            self.count("start without a copy");
            for site in 0..SITES {
                for (kind, first) in [("e", 0), ("r", RSA_FROM)] {
                    let keys = if kind == "e" { 0..RSA_FROM } else { RSA_FROM..KEYS };
                    let mut pairs = keys.flat_map(|key| (0..VERSIONS).map(move |version| (key, version)));
                    let served = pairs.find(|pair| self.paths.contains(&self.chain(site, *pair)));
                    self.put(site, kind, served.unwrap_or((first, 0)));
                }
            }
            match self.node.start() {
                Ok(()) => {
                    self.started();
                    return Ok(());
                }
                Err(more) => why = more,
            }
        }
        if self.is_taken() {
            return Err(format!("what was served cannot be started again: {why}"));
        }
        self.count("start refused");
        self.tables = self.taken.clone();
        self.write_tables();
        if let Err(why) = self.node.start() {
            return Err(format!("what was served cannot be started again, with the file put right: {why}"));
        }
        self.started();
        Ok(())
    }

    /// Has all files looked at now, and learns which leaves are served.
    pub fn settle(&mut self) {
        for site in (0..SITES).filter(|site| self.taken.sites[*site].is_there) {
            self.node.look(Tables::label(site));
        }
        self.leaves.extend(self.node.leaves());
        self.are_copied();
    }

    /// Waits until the pairs that are served have been copied: that happens beside, and a moment later.
    pub fn are_copied(&mut self) {
        if self.is_full {
            return;
        }
        let sites = (0..SITES).filter(|site| self.taken.sites[*site].is_there);
        let pairs: usize = sites.map(|site| self.taken.kinds(site).len()).sum();
        let end = Instant::now() + if self.uncopied { COPIED_LATE } else { COPIED };
        let is_whole = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.contains("PRIVATE KEY"));
        while self.node.is_running() && Instant::now() < end {
            let copies = fs::read_dir(self.node.state().join("last-good")).into_iter().flatten().flatten();
            let copies = copies.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "pem"));
            if copies.filter(|path| is_whole(path)).count() >= pairs {
                self.uncopied = false;
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if self.node.is_running() {
            self.uncopied = true;
            self.count("not copied");
        }
    }

    /// `true` if the files are served, as far as visits have shown: a reload could refuse none of them.
    pub fn files_are_served(&self) -> bool {
        let sites = (0..SITES).filter(|site| self.taken.sites[*site].is_there);
        let places = sites.flat_map(|site| self.taken.kinds(site).iter().map(move |(kind, _)| (site, *kind)));
        let is_served = |(site, kind)| {
            let pair: Option<Pair> = self.files[&(site, kind)];
            pair.is_some_and(|pair| kind == "r" || self.paths.contains(&self.chain(site, pair)))
        };
        !self.taken.sites.iter().any(|site| site.has_rsa) && places.into_iter().all(is_served)
    }

    pub fn is_taken(&self) -> bool {
        format!("{:?}", self.tables) == format!("{:?}", self.taken)
    }

    fn started(&mut self) {
        self.taken = self.tables.clone();
        self.blind = false;
        self.is_full = false;
        self.stepped = None;
        if self.behind <= 0 {
            self.ghosts.iter_mut().for_each(|ghost| ghost.is_early = false);
        }
    }

    pub fn stop(&mut self, at_once: bool) {
        self.node.stop(at_once);
        self.stepped = None;
    }

    /// The machine goes down.
    pub fn go_down(&mut self, at_once: bool) {
        let lost = self.dates_early() || self.is_full;
        self.stop(at_once);
        self.boot += 1;
        // It is not claimed that the node knows after a reboot whom it dated too early before.
        self.ghosts.retain(|ghost| !(lost && ghost.is_early));
        self.ghosts.iter_mut().for_each(|ghost| ghost.is_early = false);
    }

    /// `true` if a refusal was needed: one of the site's chains may lock a client out.
    pub fn is_needed(&self, site: usize) -> bool {
        let now = self.now();
        let chains: Vec<_> =
            self.tables.kinds(site).iter().filter_map(|(kind, _)| self.files[&(site, *kind)]).collect();
        let names: Vec<_> = NAMES.iter().filter(|name| self.tables.owner(name) == Some(site)).collect();
        let rejects = |ghost: &Ghost| {
            chains.iter().any(|pair| {
                let chain = self.chain(site, *pair);
                names.iter().any(|name| ghost.may_reject(name, &chain, now))
            })
        };
        self.ghosts.iter().any(rejects)
    }

    /// Apps are built with what was exported.
    pub fn give_out(&mut self) {
        let Ok((book, _)) = ledger::look(&self.node.state()) else { return };
        for promise in book.promises() {
            let PromiseChannel::Export { leaf_only, .. } = promise.channel else { continue };
            let policy = policy_of(promise);
            let hosts: Vec<String> = promise.hosts.iter().map(ToString::to_string).collect();
            // The app checks the end, and one second before it is the last one that counts.
            let until = promise.honoured_until() - 1;
            if self.ghosts.iter().any(|g| g.is_app && g.hosts == hosts && g.policy == policy && g.until == until) {
                continue;
            }
            self.ghosts.push(Ghost {
                hosts,
                policy,
                leaf_only,
                is_app: true,
                until,
                slack: 0,
                is_early: false,
                excused: Vec::new(),
            });
        }
    }

    /// After each action: visits, and what must hold.
    pub fn check(&mut self) -> Result<(), String> {
        if !self.node.is_running() {
            return Ok(());
        }
        self.leaves.clear();
        self.paths.clear();
        let has_rsa = self.taken.sites.iter().any(|site| site.has_rsa) || self.random.once_in(8);
        let fresh = self.visitor.clients();
        for name in NAMES {
            let comes_by = [true, has_rsa, self.random.once_in(4)];
            for (kind, newcomer) in fresh.iter().enumerate().filter(|(kind, _)| comes_by[*kind]) {
                let asks: Vec<_> = (0..self.random.index(3))
                    .map(|_| {
                        (
                            *self.random.pick(&ASKS),
                            if self.random.once_in(2) { name } else { *self.random.pick(&NAMES) },
                        )
                    })
                    .chain([(Ask::Page, name)])
                    .rev()
                    .collect();
                // A client that has been here, too: its session may be resumed.
                let returning = self.random.once_in(2);
                if returning {
                    let clients = &self.clients[kind];
                    if let Ok((chain, heard)) = self.visitor.visit(kind, clients, self.node.https(), name, &asks) {
                        if heard.iter().any(|heard| heard.is_resumed) {
                            self.resume(name, &chain)?;
                        }
                        heard.into_iter().try_for_each(|heard| self.hear(heard))?;
                    }
                }
                // Its own page is read by a new client in any case: whoever may know of it is known here.
                let asks = if returning { &[(Ask::Page, name)][..] } else { &asks[..] };
                let Ok((chain, heard)) = self.visitor.visit(kind, newcomer, self.node.https(), name, asks) else {
                    self.count("no handshake");
                    continue;
                };
                self.count("handshake");
                self.meet(name, &chain)?;
                heard.into_iter().try_for_each(|heard| self.hear(heard))?;
            }
        }
        let name = *self.random.pick(&NAMES[..5]);
        let heard = self.visitor.coalesce(self.node.https(), name, &NAMES);
        heard.into_iter().try_for_each(|heard| self.hear(heard))
    }

    /// A chain is met by all who have been here: nobody may reject it.
    fn meet(&mut self, name: &str, chain: &[String]) -> Result<(), String> {
        self.leaves.insert(chain[0].clone());
        self.paths.insert(chain.to_vec());
        // The default site's chain is shown for names that nobody serves.
        if !self.taken.serves(name) {
            return Ok(());
        }
        // Whoever is locked out since the node's clock is ahead is not claimed to be helped.
        let now = self.now() + (-self.behind).max(0);
        self.ghosts.retain(|ghost| ghost.until + ghost.slack + 90_000 > now);
        let theirs = self.now();
        for ghost in self.ghosts.iter_mut().filter(|ghost| ghost.until < now) {
            if !ghost.accepts(name, chain, theirs) {
                ghost.excused.push(chain[0].clone());
            }
        }
        let visits = self.ghosts.len() as u64;
        *self.counts.entry("visit".into()).or_default() += visits;
        match self.ghosts.iter().find(|g| !g.accepts(name, chain, now) && !g.excused.contains(&chain[0])) {
            Some(ghost) => Err(format!("LOCKED OUT of {name}, whose chain is {chain:?}, at {now}: {ghost:?}")),
            None => Ok(()),
        }
    }

    /// A session is resumed. Its client judges it by the chain under which it began (RFC 7469 section 2.6), and may have
    /// noted whatever was said meanwhile: browsers have several sessions and one store of pins.
    fn resume(&mut self, name: &str, chain: &[String]) -> Result<(), String> {
        self.count("session resumed");
        let now = self.now() + (-self.behind).max(0);
        if !self.taken.serves(name) {
            return Ok(());
        }
        match self.ghosts.iter().find(|g| !g.accepts(name, chain, now) && !g.excused.contains(&chain[0])) {
            Some(ghost) => {
                Err(format!("A SESSION OF {name} IS REJECTED, whose chain is {chain:?}, at {now}: {ghost:?}"))
            }
            None => Ok(()),
        }
    }

    /// An answer is heard by a client that comes by for the first time.
    fn hear(&mut self, heard: Heard) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("{why}: {heard:?}"));
        self.count(heard.what);
        if heard.is_resumed {
            self.count("resumed");
        }
        let is_policy = |(name, _): &&(String, String)| {
            ["public-key-pins", "public-key-pins-report-only", "strict-transport-security"]
                .contains(&name.to_ascii_lowercase().as_str())
        };
        if heard.others.iter().any(|field| is_policy(&field)) {
            return wrong("a policy in an interim response or a trailer");
        }
        let policies: Vec<_> = heard.fields.iter().filter(is_policy).collect();
        if policies.is_empty() {
            return Ok(());
        }
        self.count("policy heard");
        let Some(site) = self.taken.owner(heard.asked) else { return wrong("a policy for a name of no site") };
        for (name, value) in &policies {
            let is_sts = name.eq_ignore_ascii_case("strict-transport-security");
            if policies.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count() > 1 {
                return wrong("a field twice");
            }
            let policy = Policy::read(value);
            let age = if is_sts { hsts_age(value) } else { policy.as_ref().map(|policy| policy.max_age) };
            match age {
                None => return wrong("a field that is not valid"),
                // Without [site.hsts], the site's HSTS is the upstream's affair.
                Some(UPSTREAMS_AGE) if is_sts && !self.taken.sites[site].hsts => continue,
                Some(UPSTREAMS_AGE) => return wrong("the upstream's own policy"),
                Some(0) => {}
                Some(age) if age % 10 != site as u64 => return wrong("another site's policy"),
                Some(_) => {}
            }
            if !is_sts && heard.status >= 400 && heard.what != "page" && heard.what != "interim" && heard.what != "h2" {
                self.count("pins on a refusal");
            }
            let Some(policy) = policy.filter(|p| name.eq_ignore_ascii_case("public-key-pins") && p.max_age > 0) else {
                continue;
            };
            if !policy.is_noted_over(&heard.chain) {
                return wrong("no pin inside the chain, or none outside");
            }
            self.is_on_disk(&heard, &policy)?;
            self.note(&heard, policy);
        }
        Ok(())
    }

    /// The wire is never ahead of the disk.
    fn is_on_disk(&self, heard: &Heard, policy: &Policy) -> Result<(), String> {
        if self.blind {
            return Ok(());
        }
        let (book, _) = ledger::look(&self.node.state()).map_err(|e| format!("the ledger cannot be read: {e}"))?;
        let now = if self.dates_early() { Seconds::MIN } else { self.now() };
        let is_this = |promise: &&Promise| {
            promise.channel == PromiseChannel::Header(HeaderMode::Enforce)
                && policy_of(promise) == *policy
                && promise.hosts.iter().any(|host| host.matches(heard.asked))
                && promise.last_sent >= now
        };
        if book.promises().iter().any(|promise| is_this(&promise)) {
            return Ok(());
        }
        Err(format!("THE WIRE IS AHEAD OF THE DISK at {now}: {heard:?}; on disk: {:?}", book.promises()))
    }

    fn note(&mut self, heard: &Heard, policy: Policy) {
        let now = self.now();
        let (hosts, is_early) = (vec![heard.asked.to_owned()], self.dates_early());
        let until = now + policy.max_age as Seconds;
        self.count("noted");
        // Of two that know the same, the later one knows it for longer.
        self.ghosts.retain(|g| g.is_app || g.is_early != is_early || g.hosts != hosts || g.policy != policy);
        self.ghosts.push(Ghost {
            hosts,
            policy,
            leaf_only: false,
            is_app: false,
            until,
            slack: (-self.behind).max(0),
            is_early,
            excused: Vec::new(),
        });
    }

    /// The operator accepts, with the day, that whoever rejects this site's new chain is locked out.
    pub fn accept_lockout(&mut self, site: usize, pair: Pair) {
        let (chain, now) = (self.chain(site, pair), self.now());
        let names: Vec<_> = NAMES.iter().filter(|name| self.taken.owner(name) == Some(site)).collect();
        for ghost in &mut self.ghosts {
            if names.iter().any(|name| !ghost.accepts(name, &chain, now)) {
                ghost.excused.push(chain[0].clone());
            }
        }
    }

    pub fn reload(&mut self) -> Said {
        self.count("reload");
        let said = self.node.reload();
        if said.ok {
            self.taken = self.tables.clone();
        } else {
            self.count("reload refused");
        }
        said
    }
}

/// A promise as a client has heard it.
fn policy_of(promise: &Promise) -> Policy {
    let mut pins: Vec<String> = promise.pins.iter().map(ToString::to_string).collect();
    pins.sort();
    Policy { pins, max_age: promise.max_age, include_subdomains: promise.include_subdomains }
}
